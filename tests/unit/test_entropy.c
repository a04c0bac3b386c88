/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/sign.h"
#include "edge/entropy.h"

#define DRAWS (10 * 1000 * 1000)

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* By chance two of so many are alike in one run of 370 000. */
static void test_ten_million_nonces_are_all_different(void **state)
{
	struct entropy e = { 0 };
	uint64_t *nonces = calloc(DRAWS, sizeof(*nonces));

	assert_non_null(nonces);
	assert_int_equal(sizeof(*nonces), SIGN_NONCE_BYTES);
	for (size_t i = 0; i < DRAWS; i++)
		assert_true(entropy_draw(&e, &nonces[i], SIGN_NONCE_BYTES) == 0);
	qsort(nonces, DRAWS, sizeof(*nonces), compare);
	for (size_t i = 1; i < DRAWS; i++)
		assert_true(nonces[i - 1] != nonces[i]);
	free(nonces);
}

static void test_every_byte_is_filled_and_none_beyond(void **state)
{
	struct entropy e = { 0 };
	unsigned char bytes[256 + 1];
	bool changed[256] = { false };

	for (size_t n = 0; n <= 256; n++) {
		memset(bytes, 0, sizeof(bytes));
		assert_int_equal(entropy_draw(&e, bytes, n), 0);
		for (size_t i = n; i < sizeof(bytes); i++)
			assert_int_equal(bytes[i], 0);
		for (size_t i = 0; i < n; i++)
			changed[i] |= bytes[i] != 0;
	}
	/* The last is drawn but once. */
	for (size_t i = 0; i < 250; i++)
		assert_true(changed[i]);
	assert_int_equal(entropy_draw(&e, bytes, 257), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ten_million_nonces_are_all_different),
		cmocka_unit_test(test_every_byte_is_filled_and_none_beyond),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
