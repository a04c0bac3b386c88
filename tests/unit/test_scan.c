/* SPDX-License-Identifier: MIT */
#include "core/scan.h"

#include <cjson/cJSON.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"

static void check_text(const struct scan_text *t, const char *decoded)
{
	assert_int_equal(t->decoded, strlen(decoded));
	if (!scan_is_escaped(t))
		assert_memory_equal(t->text + 1, decoded, t->decoded);
}

/* cJSON must take what was let through, and read the same in it. */
static void check_agreement(const struct scan *s, const char *line, size_t n)
{
	cJSON *tree = cJSON_ParseWithLengthOpts(line, n + 1, NULL, 1);
	const cJSON *item;
	size_t i = 0;

	assert_non_null(tree);
	cJSON_ArrayForEach(item, tree)
	{
		const struct scan_member *m = &s->members[i++];

		assert_true(i <= s->n);
		check_text(&m->name, item->string);
		assert_int_equal(m->kind == SCAN_STRING, cJSON_IsString(item));
		assert_int_equal(m->kind == SCAN_NUMBER, cJSON_IsNumber(item));
		if (m->kind == SCAN_STRING)
			check_text(&m->value, item->valuestring);
	}
	assert_int_equal(i, s->n);
	cJSON_Delete(tree);
}

static void test_flat_objects_pass_and_are_read_as_cjson_reads_them(void **state)
{
	static const struct {
		const char *line;
		size_t n;
	} cases[] = {
		{ "{}", 0 },
		{ " \t\r{ \r} \t\r", 0 },
		{ "{\"a\":1}", 1 },
		{ "{ \"a\" : 1 , \"b\" : \"x\" }", 2 },
		{ "{\"a\":true,\"b\":false,\"c\":null}", 3 },
		{ "{\"\":\"\"}", 1 },
		{ "{\"a\":0,\"b\":-0,\"c\":-1,\"d\":1.5,\"e\":1e9,\"f\":1E+9,\"g\":0.1e-9}", 7 },
		{ "{\"a\":1234567890123456789012345678901234567890}", 1 },
		{ "{\"a\":1e999}", 1 },
		{ "{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}", 1 },
		{ "{\"a\":\"\\u0001\\u007f\\u0080\\u07FF\\u0800\\uFFFF\\ud7ff\\uE000\"}", 1 },
		{ "{\"a\":\"\\ud800\\udc00\\uDBFF\\uDFFF\"}", 1 },
		{ "{\"\\u0069d\":1}", 1 },
		{ "{\"a\":\"\x7f é 中文！\xed\x9f\xbf 😀 \xe0\xa0\x80\"}", 1 },
		{ "{\"a\":\"{[\\\"]}\"}", 1 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t n = strlen(cases[i].line);
		struct scan s;

		if (!scan_object(&s, cases[i].line, n))
			fail_msg("%s: %s at %zu", cases[i].line, s.fault, s.fault_at);
		assert_int_equal(s.n, cases[i].n);
		check_agreement(&s, cases[i].line, n);
	}
}

#define LINE(text) text, sizeof(text) - 1

static void test_whatever_else_is_refused_with_the_place_of_its_fault(void **state)
{
	static const struct {
		const char *line;
		size_t n;
		const char *fault;
		size_t at;
	} cases[] = {
		{ LINE("x"), "not a JSON object", 0 },
		{ LINE("  "), "not a JSON object", 2 },
		{ LINE("[1]"), "not a JSON object", 0 },
		{ LINE("1"), "not a JSON object", 0 },
		{ LINE("\"a\""), "not a JSON object", 0 },
		{ LINE("null"), "not a JSON object", 0 },
		{ LINE("\xef\xbb\xbf{}"), "byte order mark", 0 },
		{ LINE("{} {}"), "bytes after the object", 3 },
		{ LINE("{}x"), "bytes after the object", 2 },
		{ LINE("{},"), "bytes after the object", 2 },
		{ LINE("{}\0"), "bytes after the object", 2 },
		{ LINE("{"), "unfinished JSON", 1 },
		{ LINE("{\"a"), "unfinished JSON", 3 },
		{ LINE("{\"a\""), "unfinished JSON", 4 },
		{ LINE("{\"a\":"), "unfinished JSON", 5 },
		{ LINE("{\"a\":1"), "unfinished JSON", 6 },
		{ LINE("{\"a\":1,"), "unfinished JSON", 7 },
		{ LINE("{\"a\":\"\\"), "unfinished JSON", 7 },
		{ LINE("{a:1}"), "not JSON", 1 },
		{ LINE("{'a':1}"), "not JSON", 1 },
		{ LINE("{\"a\" 1}"), "not JSON", 5 },
		{ LINE("{\"a\":}"), "not JSON", 5 },
		{ LINE("{\"a\":1,}"), "not JSON", 7 },
		{ LINE("{,}"), "not JSON", 1 },
		{ LINE("{\"a\":1 \"b\":2}"), "not JSON", 7 },
		{ LINE("{\"a\":tru}"), "not JSON", 5 },
		{ LINE("{\"a\":truex}"), "not JSON", 9 },
		{ LINE("{\"a\":True}"), "not JSON", 5 },
		{ LINE("{\"a\":NaN}"), "not JSON", 5 },
		{ LINE("{\"a\":01}"), "not JSON", 6 },
		{ LINE("{\"a\":+1}"), "not JSON", 5 },
		{ LINE("{\"a\":.5}"), "not JSON", 5 },
		{ LINE("{\"a\":1.}"), "not JSON", 7 },
		{ LINE("{\"a\":1.e1}"), "not JSON", 7 },
		{ LINE("{\"a\":1e}"), "not JSON", 7 },
		{ LINE("{\"a\":1e+}"), "not JSON", 8 },
		{ LINE("{\"a\":-}"), "not JSON", 6 },
		{ LINE("{\"a\":0x1}"), "not JSON", 6 },
		{ LINE("{\"a\":12345678901234567890123456789012345678901}"), "overlong number", 5 },
		{ LINE("{\"a\":\"\\x\"}"), "not JSON", 7 },
		{ LINE("{\"a\":\"\\U0041\"}"), "not JSON", 7 },
		{ LINE("{\"a\":\"\\u12\"}"), "\\u without four hex digits", 6 },
		{ LINE("{\"a\":\"\\u12G4\"}"), "\\u without four hex digits", 6 },
		{ LINE("{\"a\":\"\\uZZZZ\"}"), "\\u without four hex digits", 6 },
		{ LINE("{\"a\":\"\\u"), "\\u without four hex digits", 6 },
		{ LINE("{\"a\":\"x\\u0000\"}"), "NUL", 7 },
		{ LINE("{\"a\\u0000\":1}"), "NUL", 3 },
		{ LINE("{\"a\":\"x\0y\"}"), "NUL", 7 },
		{ LINE("{\"a\0\":1}"), "NUL", 3 },
		{ LINE("{\"a\":\0"
		       "1}"),
		  "NUL", 5 },
		{ LINE("{\"a\":\"\\ud800\"}"), "lone surrogate", 6 },
		{ LINE("{\"a\":\"\\udc00\"}"), "lone surrogate", 6 },
		{ LINE("{\"a\":\"\\ud800\\ud800\"}"), "lone surrogate", 6 },
		{ LINE("{\"a\":\"\\ud800x\"}"), "lone surrogate", 6 },
		{ LINE("{\"a\":\"\\ud800\\n\"}"), "lone surrogate", 6 },
		{ LINE("{\"a\":\"\\ud800\\u0041\"}"), "lone surrogate", 6 },
		{ LINE("{\"a\":\"\t\"}"), "control character", 6 },
		{ LINE("{\"a\":\"\r\"}"), "control character", 6 },
		{ LINE("{\"a\":\"\x1f\"}"), "control character", 6 },
		{ LINE("{\"a\":\"12345678\x01\"}"), "control character", 14 },
		{ LINE("{\n\"a\":1}"), "control character", 1 },
		{ LINE("{\"a\":\v1}"), "control character", 5 },
		{ LINE("{\"a\":\"\x80\"}"), "invalid UTF-8", 6 },
		{ LINE("{\"a\":\"\xc0\xaf\"}"), "invalid UTF-8", 6 },
		{ LINE("{\"a\":\"\xe0\x80\xaf\"}"), "invalid UTF-8", 6 },
		{ LINE("{\"a\":\"\xed\xa0\x80\"}"), "invalid UTF-8", 6 },
		{ LINE("{\"a\":\"\xf4\x90\x80\x80\"}"), "invalid UTF-8", 6 },
		{ LINE("{\"a\":\"中\xe4\xb8\"}"), "invalid UTF-8", 9 },
		{ LINE("{\"a\":\"\xe4\xb8"), "invalid UTF-8", 6 },
		{ LINE("{\"\xff\":1}"), "invalid UTF-8", 2 },
		{ LINE("{\xff}"), "invalid UTF-8", 1 },
		{ LINE("{é}"), "not JSON", 1 },
		{ LINE("{\"a\":[]}"), "nested array or object", 5 },
		{ LINE("{\"a\":{}}"), "nested array or object", 5 },
		{ LINE("{\"b\":1,\"a\":[[[["), "nested array or object", 11 },
		{ LINE("{\"a\":[\"x"), "nested array or object", 5 },
		{ LINE("{\"a\":[1],\"b\":\"\x80\"}"), "nested array or object", 5 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		/* No byte more than there is, for the sanitizer's sake. */
		char *line = malloc(cases[i].n + 1);
		struct scan s;

		assert_non_null(line);
		memcpy(line, cases[i].line, cases[i].n + 1);
		if (scan_object(&s, line, cases[i].n))
			fail_msg("passed: %s", cases[i].line);
		if (strcmp(s.fault, cases[i].fault) != 0 || s.fault_at != cases[i].at)
			fail_msg("%s: %s at %zu", cases[i].line, s.fault, s.fault_at);
		free(line);
	}
}

/* An object of @n members. */
static size_t many_members(char *line, size_t n)
{
	char *at = line;

	for (size_t i = 0; i < n; i++)
		at += sprintf(at, "%c\"%zu\":%zu", i == 0 ? '{' : ',', i, i);
	strcpy(at, "}");
	return strlen(line);
}

static void test_an_object_has_at_most_32_members(void **state)
{
	char line[1024];
	struct scan s;

	assert_true(scan_object(&s, line, many_members(line, 32)));
	assert_int_equal(s.n, 32);
	assert_false(scan_object(&s, line, many_members(line, 33)));
	assert_string_equal(s.fault, "more than 32 fields");
	assert_int_equal(s.n, 32);
}

static void test_members_around_a_nested_value_are_still_read(void **state)
{
	static const char line[] = "{\"a\":1,\"b\":[{\"c\":\"]\\\"}\"},2],\"d\":\"x\"}";
	struct scan s;

	assert_false(scan_object(&s, line, strlen(line)));
	assert_int_equal(s.n, 3);
	assert_int_equal(s.members[1].kind, SCAN_NESTED);
	assert_int_equal(s.members[2].kind, SCAN_STRING);
	assert_memory_equal(s.members[2].value.text, "\"x\"", 3);
}

/* Tokens in any order are now and then an object, and often nearly one. */
static size_t random_line(char *line, uint64_t *seed)
{
	static const char *const tokens[] = {
		"{",
		"}",
		"[",
		"]",
		",",
		":",
		"\"a\"",
		"\"中\"",
		"\"😀\\n\"",
		"0",
		"-1",
		"1.5e3",
		"null",
		"true",
		" ",
		"\r",
		"\"",
		"\\u0041",
		"\\ud83d\\ude00",
		"é",
		"\x80",
		"\\",
		"\"a\":1",
		"\"b\":\"c\"",
		",\"d\":null",
	};
	size_t n = 1 + random_next(seed) % 12;
	size_t len = 1;

	line[0] = '{';
	for (size_t i = 0; i < n; i++) {
		const char *token = tokens[random_next(seed) % ARRAY_SIZE(tokens)];

		memcpy(line + len, token, strlen(token));
		len += strlen(token);
	}
	if (random_next(seed) % 2)
		line[len++] = '}';
	line[len] = '\0';
	return len;
}

static void test_cjson_takes_whatever_is_let_through(void **state)
{
	uint64_t seed = random_seed();
	unsigned passed = 0;

	for (unsigned round = 0; round < 300000; round++) {
		char line[512];
		size_t n = random_line(line, &seed);
		struct scan s;

		if (!scan_object(&s, line, n))
			continue;
		passed++;
		check_agreement(&s, line, n);
	}
	assert_true(passed > 1000); /* else it proved nothing */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flat_objects_pass_and_are_read_as_cjson_reads_them),
		cmocka_unit_test(test_whatever_else_is_refused_with_the_place_of_its_fault),
		cmocka_unit_test(test_an_object_has_at_most_32_members),
		cmocka_unit_test(test_members_around_a_nested_value_are_still_read),
		cmocka_unit_test(test_cjson_takes_whatever_is_let_through),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
