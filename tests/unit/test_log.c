/* SPDX-License-Identifier: MIT */
#include "edge/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base.h"

#define MINUTE (60 * NSEC_PER_SEC)

static void test_what_is_said_again_and_again_is_said_once_a_minute_and_counted(void **state)
{
	struct log_limit l = { 0 };
	uint64_t before = 7;
	uint64_t now = 5 * NSEC_PER_SEC;

	assert_true(log_permit(&l, &before, now));
	assert_int_equal(before, 0);
	for (unsigned i = 0; i < 1000; i++)
		assert_false(log_permit(&l, &before, now + i * (MINUTE / 1000)));
	assert_true(log_permit(&l, &before, now + MINUTE));
	assert_int_equal(before, 1000);
	assert_false(log_permit(&l, &before, now + MINUTE + 1));
	assert_true(log_permit(&l, &before, now + 3 * MINUTE));
	assert_int_equal(before, 1);
}

static void test_how_often_it_was_not_said_stands_behind_the_next_one(void **state)
{
	assert_string_equal(log_repeats(0).text, "");
	assert_string_equal(log_repeats(3).text, " (3 more since the last such line)");
	assert_string_equal(log_repeats(UINT64_MAX).text,
			    " (18446744073709551615 more since the last such line)");
}

static void test_foreign_text_is_quoted_and_cut(void **state)
{
	char longest[1000];

	assert_string_equal(log_quote("room", 4).text, "\"room\"");
	assert_string_equal(log_quote("a\n\x1b[31m\"", 8).text, "\"a\\n\\u001b[31m\\\"\"");
	memset(longest, '\x01', sizeof(longest));
	assert_true(strlen(log_quote(longest, sizeof(longest)).text) < sizeof(struct log_quoted));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_what_is_said_again_and_again_is_said_once_a_minute_and_counted),
		cmocka_unit_test(test_how_often_it_was_not_said_stands_behind_the_next_one),
		cmocka_unit_test(test_foreign_text_is_quoted_and_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
