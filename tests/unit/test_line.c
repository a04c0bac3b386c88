/* SPDX-License-Identifier: MIT */
#include "core/line.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"

#define MAX 8

/* Every line handed out, written down as "number:line|", one too long as "number!|". */
struct heard {
	char text[1 << 16];
	size_t len;
};

static void on_line(void *arg, char *line, size_t n, uint64_t number)
{
	struct heard *h = arg;

	if (line) {
		assert_int_equal(line[n], '\0');
		memset(line + n, '\0', 1); /* it is ours to write to */
	}
	h->len += (size_t)snprintf(h->text + h->len, sizeof(h->text) - h->len, "%" PRIu64 "%s%.*s|",
				   number, line ? ":" : "!", (int)n, line ? line : "");
}

/* As many bytes at a time as @size says; each chunk in a block of its own size, so that
 * a sanitizer sees the slightest step outside. */
static void feed(struct line_reader *l, const char *bytes, size_t n, size_t size, struct heard *h)
{
	while (n > 0) {
		size_t part = n < size ? n : size;
		char *chunk = malloc(part);

		assert_non_null(chunk);
		memcpy(chunk, bytes, part);
		assert_int_equal(line_feed(l, chunk, part, MAX, on_line, h), 0);
		assert_true(l->held_len <= MAX + 1);
		assert_true(l->held_size <= MAX + 2);
		free(chunk);
		bytes += part;
		n -= part;
	}
}

static const struct {
	const char *bytes;
	const char *heard;
} streams[] = {
	{ "", "" },
	{ "a\n", "1:a|" },
	{ "a\nb\n", "1:a|2:b|" },
	{ "a\r\nb\n", "1:a|2:b|" },
	{ "a", "1:a|" }, /* an unfinished last line counts */
	{ "a\nb", "1:a|2:b|" },
	{ "a\r", "1:a|" },
	{ "\n\na\n", "3:a|" }, /* empty lines count, but are nobody's */
	{ "\r\n \t\n\r\ra\n", "3:\r\ra|" },
	{ " \n", "" },
	{ "a\r\r\n", "1:a\r|" }, /* one CR is dropped, no more */
	{ "a\rb\n", "1:a\rb|" },
	{ "12345678\n", "1:12345678|" },
	{ "12345678", "1:12345678|" },
	{ "12345678\r\n", "1:12345678|" },
	{ "12345678\r", "1:12345678|" },
	{ "12345678\r\r\n", "1!|" },
	{ "12345678\r9\n", "1!|" },
	{ "1234567\r\r\nb\n", "1:1234567\r|2:b|" },
	{ "123456789\nb\n", "1!|2:b|" },
	{ "123456789\r\nb\n", "1!|2:b|" },
	{ "123456789", "1!|" },
	{ "123456789012345678901234567890\n\nb", "1!|3:b|" },
	{ "123456789\n123456789\n", "1!|2!|" },
	{ "         \nb\n", "1!|2:b|" }, /* blank, but too long */
};

static void test_lines_are_the_same_whatever_the_chunks(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(streams); i++) {
		size_t n = strlen(streams[i].bytes);

		for (size_t size = 1; size <= n + 1; size++) {
			struct line_reader l = { 0 };
			static struct heard h;

			h.len = 0;
			h.text[0] = '\0';
			feed(&l, streams[i].bytes, n, size, &h);
			line_end(&l, on_line, &h);
			assert_string_equal(h.text, streams[i].heard);
			assert_null(l.held);
			line_deinit(&l);
		}
	}
}

static void test_whole_lines_are_handed_out_where_they_lie(void **state)
{
	struct line_reader l = { 0 };
	static struct heard h;
	char bytes[] = "one\ntwo\nthr";

	h.len = 0;
	assert_int_equal(line_feed(&l, bytes, strlen(bytes), MAX, on_line, &h), 0);
	assert_string_equal(h.text, "1:one|2:two|");
	assert_memory_equal(bytes, "one\0two\0thr", sizeof(bytes));
	assert_int_equal(l.held_len, 3);
	line_deinit(&l);
	assert_null(l.held);
}

static void test_an_idle_writer_holds_nothing(void **state)
{
	struct line_reader l = { 0 };
	static struct heard h;

	h.len = 0;
	feed(&l, "half", 4, 4, &h);
	assert_non_null(l.held);
	feed(&l, " line\n", 6, 6, &h);
	assert_null(l.held);
	assert_int_equal(l.held_size, 0);
}

static void test_a_line_too_long_is_told_once_when_the_limit_is_passed(void **state)
{
	struct line_reader l = { 0 };
	static struct heard h;

	h.len = 0;
	h.text[0] = '\0';
	feed(&l, "12345678", 8, 1, &h);
	assert_string_equal(h.text, "");
	feed(&l, "9", 1, 1, &h);
	assert_string_equal(h.text, "1!|");
	assert_null(l.held);
	feed(&l, "and so on and so on", 19, 3, &h);
	assert_null(l.held);
	feed(&l, "\nb\n", 3, 1, &h);
	assert_string_equal(h.text, "1!|2:b|");
}

static void test_a_limit_that_shrinks_holds_for_the_line_under_way(void **state)
{
	struct line_reader l = { 0 };
	static struct heard h;
	char bytes[] = "5\nb\n";

	h.len = 0;
	feed(&l, "1234", 4, 4, &h);
	assert_int_equal(line_feed(&l, bytes, strlen(bytes), 3, on_line, &h), 0);
	assert_string_equal(h.text, "1!|2:b|");
}

/* The definition itself, with all of the stream in sight. */
static void split(const char *bytes, size_t n, struct heard *h)
{
	const char *end = bytes + n;
	uint64_t number = 0;

	while (bytes < end) {
		const char *newline = memchr(bytes, '\n', (size_t)(end - bytes));
		size_t len = (size_t)((newline ? newline : end) - bytes);
		char line[256];

		memcpy(line, bytes, len);
		number++;
		bytes += len + 1;
		if (len > 0 && line[len - 1] == '\r')
			len--;
		line[len] = '\0';
		if (len > MAX)
			on_line(h, NULL, 0, number);
		else if (strspn(line, " \t\r") < len)
			on_line(h, line, len, number);
	}
}

static void test_random_streams_are_split_as_defined(void **state)
{
	uint64_t seed = random_seed();

	for (unsigned round = 0; round < 20000; round++) {
		static struct heard expected;
		static struct heard h;
		struct line_reader l = { 0 };
		char bytes[200];
		size_t n = random_next(&seed) % sizeof(bytes);

		for (size_t i = 0; i < n; i++)
			bytes[i] = "abcdefg \n\r\n\r"[random_next(&seed) % 12];
		expected.len = 0;
		expected.text[0] = '\0';
		split(bytes, n, &expected);
		h.len = 0;
		h.text[0] = '\0';
		for (size_t at = 0; at < n;) {
			size_t size = 1 + random_next(&seed) % 20;

			size = size < n - at ? size : n - at;
			feed(&l, bytes + at, size, size, &h);
			at += size;
		}
		line_end(&l, on_line, &h);
		assert_string_equal(h.text, expected.text);
		line_deinit(&l);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines_are_the_same_whatever_the_chunks),
		cmocka_unit_test(test_whole_lines_are_handed_out_where_they_lie),
		cmocka_unit_test(test_an_idle_writer_holds_nothing),
		cmocka_unit_test(test_a_line_too_long_is_told_once_when_the_limit_is_passed),
		cmocka_unit_test(test_a_limit_that_shrinks_holds_for_the_line_under_way),
		cmocka_unit_test(test_random_streams_are_split_as_defined),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
