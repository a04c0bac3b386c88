/* SPDX-License-Identifier: MIT */
#include "core/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_characters_at_the_borders_of_utf8_are_told_apart(void **state)
{
	static const struct {
		const char *bytes;
		size_t length;
	} cases[] = {
		{ "a", 1 },
		{ "\x7f", 1 },
		{ "\xc2\x80", 2 },         /* U+0080 */
		{ "\xdf\xbf", 2 },         /* U+07FF */
		{ "\xe0\xa0\x80", 3 },     /* U+0800 */
		{ "\xed\x9f\xbf", 3 },     /* U+D7FF */
		{ "\xee\x80\x80", 3 },     /* U+E000 */
		{ "\xef\xbf\xbf", 3 },     /* U+FFFF */
		{ "\xf0\x90\x80\x80", 4 }, /* U+10000 */
		{ "\xf4\x8f\xbf\xbf", 4 }, /* U+10FFFF */
		{ "\x80", 0 },             /* a continuation alone */
		{ "\xbf", 0 },
		{ "\xc0\x80", 0 }, /* overlong */
		{ "\xc1\xbf", 0 },
		{ "\xe0\x9f\xbf", 0 },
		{ "\xf0\x8f\xbf\xbf", 0 },
		{ "\xed\xa0\x80", 0 }, /* surrogates */
		{ "\xed\xbf\xbf", 0 },
		{ "\xf4\x90\x80\x80", 0 }, /* above U+10FFFF */
		{ "\xf5\x80\x80\x80", 0 },
		{ "\xff", 0 },
		{ "\xc2", 0 }, /* cut */
		{ "\xe4\xb8", 0 },
		{ "\xf0\x9f\x98", 0 },
		{ "\xc2\x41", 0 }, /* a wrong continuation */
		{ "\xe4\x41\x80", 0 },
		{ "\xe4\xb8\x41", 0 },
		{ "\xf0\x9f\x98\x41", 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(utf8_length(cases[i].bytes, strlen(cases[i].bytes)),
				 cases[i].length);
}

/* The definition itself, the slow way. */
static size_t decode(const unsigned char *u, size_t n)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t length = u[0] < 0x80         ? 1
			: u[0] >> 5 == 0x06 ? 2
			: u[0] >> 4 == 0x0e ? 3
			: u[0] >> 3 == 0x1e ? 4
					    : 0;
	uint32_t c = length == 1 ? u[0] : u[0] & (0x7fU >> length);

	if (length == 0 || length > n)
		return 0;
	for (size_t i = 1; i < length; i++) {
		if (u[i] >> 6 != 2)
			return 0;
		c = c << 6 | (u[i] & 0x3f);
	}
	if (c < least[length] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	return length;
}

static void test_every_three_bytes_are_judged_as_defined(void **state)
{
	for (uint32_t bits = 0; bits < 1U << 24; bits++) {
		unsigned char u[4] = { (unsigned char)(bits >> 16), (unsigned char)(bits >> 8),
				       (unsigned char)bits, 0x80 };

		if (utf8_length((char *)u, 4) != decode(u, 4))
			fail_msg("%02x %02x %02x 80", u[0], u[1], u[2]);
	}
}

static void test_a_prefix_ends_between_characters(void **state)
{
	static const struct {
		const char *text;
		size_t most;
		size_t prefix;
	} cases[] = {
		{ "", 0, 0 },
		{ "abc", 0, 0 },
		{ "abc", 2, 2 },
		{ "abc", 3, 3 },
		{ "abc", 9, 3 },
		{ "中文", 6, 6 },
		{ "中文", 5, 3 },
		{ "中文", 4, 3 },
		{ "中文", 3, 3 },
		{ "中文", 2, 0 },
		{ "a😀", 4, 1 },
		{ "a😀", 5, 5 },
		{ "\x80\x80\x80\x80\x80\x80", 5, 5 }, /* no UTF-8: any cut will do */
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(utf8_prefix(cases[i].text, strlen(cases[i].text), cases[i].most),
				 cases[i].prefix);
}

static void test_numbers_are_plain_digits_within_their_limit(void **state)
{
	static const struct {
		const char *text;
		uint64_t max;
		bool valid;
		uint64_t value;
	} cases[] = {
		{ "0", 0, true, 0 },
		{ "7", 10, true, 7 },
		{ "10", 10, true, 10 },
		{ "11", 10, false },
		{ "5", 4, false },
		{ "99", 10, false },
		{ "4294967295", UINT32_MAX, true, UINT32_MAX },
		{ "4294967296", UINT32_MAX, false },
		{ "18446744073709551615", UINT64_MAX, true, UINT64_MAX },
		{ "18446744073709551616", UINT64_MAX, false },
		{ "99999999999999999999", UINT64_MAX, false },
		{ "100000000000000000000", UINT64_MAX, false },
		{ "", UINT64_MAX, false },
		{ "00", UINT64_MAX, false },
		{ "01", UINT64_MAX, false },
		{ "-1", UINT64_MAX, false },
		{ "-0", UINT64_MAX, false },
		{ "+1", UINT64_MAX, false },
		{ " 1", UINT64_MAX, false },
		{ "1 ", UINT64_MAX, false },
		{ "1.0", UINT64_MAX, false },
		{ "1e3", UINT64_MAX, false },
		{ "0x1", UINT64_MAX, false },
		{ "\xd9\xa1", UINT64_MAX, false }, /* ARABIC-INDIC DIGIT ONE */
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t value = 4711;

		assert_int_equal(
			parse_u64(cases[i].text, strlen(cases[i].text), cases[i].max, &value),
			cases[i].valid);
		assert_int_equal(value, cases[i].valid ? cases[i].value : 4711);
	}
}

static void test_a_typing_error_finds_what_was_meant(void **state)
{
	static const char *const names[] = { "RoomId", "UserId",         "UserName",
					     "AppId",  "MessageContent", "MessageCategory",
					     "id",     "ttl_ms" };
	static const struct {
		const char *word;
		const char *meant;
	} cases[] = {
		{ "RoomID", "RoomId" },
		{ "roomid", "RoomId" },
		{ "room_id", "RoomId" },
		{ "RomoDi", "RoomId" }, /* neighbours swapped, twice */
		{ "USERID", "UserId" },
		{ "UserNmae", "UserName" },
		{ "user_name", "UserName" },
		{ "MesageContent", "MessageContent" },
		{ "message_content", "MessageContent" },
		{ "MessageCategorie", "MessageCategory" },
		{ "ttl-ms", "ttl_ms" },
		{ "ID", "id" },
		{ "ttlms", "ttl_ms" },
		{ "", NULL },
		{ "x", NULL },
		{ "colour", NULL },
		{ "RoomIdRoomId", NULL },
		{ "a name far longer than anything that could have been meant by it", NULL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *found = nearest(cases[i].word, names, ARRAY_SIZE(names));

		if (cases[i].meant)
			assert_string_equal(found ? found : "nothing", cases[i].meant);
		else
			assert_null(found);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_characters_at_the_borders_of_utf8_are_told_apart),
		cmocka_unit_test(test_every_three_bytes_are_judged_as_defined),
		cmocka_unit_test(test_a_prefix_ends_between_characters),
		cmocka_unit_test(test_numbers_are_plain_digits_within_their_limit),
		cmocka_unit_test(test_a_typing_error_finds_what_was_meant),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
