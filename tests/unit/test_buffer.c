/* SPDX-License-Identifier: MIT */
/* Whatever is put in, the buffer stays a text, and JSON stays JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/buffer.h"

static void test_pieces_come_out_in_order(void **state)
{
	struct buffer b = { 0 };

	buffer_puts(&b, "one");
	buffer_append(&b, ", two!", 5);
	buffer_printf(&b, ", %s %d", "three", 3);
	buffer_append(&b, "", 0);
	assert_string_equal(b.data, "one, two, three 3");
	assert_int_equal(b.len, strlen(b.data));
	assert_false(b.failed);
	buffer_deinit(&b);
	assert_null(b.data);
	assert_int_equal(b.len, 0);
}

static void test_any_length_fits_and_ends_with_nul(void **state)
{
	struct buffer b = { 0 };

	for (size_t i = 1; i <= 5000; i++) {
		if (i % 2)
			buffer_append(&b, "x", 1);
		else
			buffer_printf(&b, "%c", 'x');
		assert_int_equal(b.len, i);
		assert_true(b.size > i);
		assert_int_equal(b.data[i], '\0');
	}
	buffer_deinit(&b);
}

static void test_a_buffer_that_cannot_grow_keeps_what_it_has(void **state)
{
	struct buffer b = { 0 };

	buffer_puts(&b, "kept");
	buffer_append(&b, "never read", SIZE_MAX);
	assert_true(b.failed);
	buffer_puts(&b, "ignored");
	buffer_printf(&b, "%s", "ignored");
	buffer_put_u64(&b, 1);
	buffer_put_json(&b, "ignored", 7, 7);
	assert_string_equal(b.data, "kept");
	buffer_deinit(&b);
	assert_false(b.failed);
}

static void test_numbers_are_decimal(void **state)
{
	static const struct {
		uint64_t n;
		const char *text;
	} cases[] = {
		{ 0, "0" },
		{ 7, "7" },
		{ 10, "10" },
		{ 4294967295, "4294967295" },
		{ UINT64_MAX, "18446744073709551615" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buffer b = { 0 };

		buffer_put_u64(&b, cases[i].n);
		assert_string_equal(b.data, cases[i].text);
		buffer_deinit(&b);
	}
}

#define BAD "\xef\xbf\xbd"

static void test_json_is_valid_whatever_came_in(void **state)
{
	static const struct {
		const char *bytes;
		size_t n;
		const char *json;
	} cases[] = {
		{ "", 0, "\"\"" },
		{ "plain", 5, "\"plain\"" },
		{ "a\"b\\c/", 6, "\"a\\\"b\\\\c/\"" },
		{ "\b\t\n\f\r", 5, "\"\\b\\t\\n\\f\\r\"" },
		{ "\x01\x1f\x7f", 3, "\"\\u0001\\u001f\\u007f\"" },
		{ "\xc2\x80\xc2\x9b\xc2\xa0", 6, "\"\\u0080\\u009b\xc2\xa0\"" }, /* C1 */
		{ "a\0b", 3, "\"a\\u0000b\"" },
		{ "\xe5\xbc\xb9\xe5\xb9\x95", 6, "\"\xe5\xbc\xb9\xe5\xb9\x95\"" },
		{ "\xf0\x9f\x98\x80", 4, "\"\xf0\x9f\x98\x80\"" },
		{ "\xf0\x9f\x98", 3, "\"" BAD BAD BAD "\"" },         /* cut */
		{ "a\xff", 2, "\"a" BAD "\"" },                       /* no UTF-8 at all */
		{ "\xc0\xaf", 2, "\"" BAD BAD "\"" },                 /* overlong */
		{ "\xed\xa0\x80z", 4, "\"" BAD BAD BAD "z\"" },       /* surrogate */
		{ "\xf4\x90\x80\x80", 4, "\"" BAD BAD BAD BAD "\"" }, /* beyond U+10FFFF */
		{ "\xc3\xa9\xc3", 3, "\"\xc3\xa9" BAD "\"" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buffer b = { 0 };

		buffer_put_json(&b, cases[i].bytes, cases[i].n, SIZE_MAX);
		assert_string_equal(b.data, cases[i].json);
		buffer_deinit(&b);
	}
}

static void test_json_is_cut_between_characters(void **state)
{
	/* a, é (2 bytes), 弹 (3), 😀 (4) */
	static const char text[] = "a\xc3\xa9\xe5\xbc\xb9\xf0\x9f\x98\x80";
	static const size_t kept[] = { 0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 10 };

	for (size_t most = 0; most < ARRAY_SIZE(kept); most++) {
		struct buffer b = { 0 };

		buffer_put_json(&b, text, strlen(text), most);
		assert_int_equal(b.len, kept[most] + 2);
		assert_memory_equal(b.data + 1, text, kept[most]);
		buffer_deinit(&b);
	}
}

static void test_consumed_bytes_are_gone(void **state)
{
	struct buffer b = { 0 };

	buffer_consume(&b, 0);
	buffer_puts(&b, "abcdef");
	buffer_consume(&b, 2);
	assert_string_equal(b.data, "cdef");
	buffer_puts(&b, "g");
	assert_string_equal(b.data, "cdefg");
	buffer_consume(&b, 5);
	assert_string_equal(b.data, "");
	assert_int_equal(b.len, 0);
	buffer_deinit(&b);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces_come_out_in_order),
		cmocka_unit_test(test_any_length_fits_and_ends_with_nul),
		cmocka_unit_test(test_a_buffer_that_cannot_grow_keeps_what_it_has),
		cmocka_unit_test(test_numbers_are_decimal),
		cmocka_unit_test(test_json_is_valid_whatever_came_in),
		cmocka_unit_test(test_json_is_cut_between_characters),
		cmocka_unit_test(test_consumed_bytes_are_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
