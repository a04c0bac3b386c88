/* SPDX-License-Identifier: MIT */
/* What lines a stream has must not depend on the pieces in which it arrives. The lines are
 * worked out here from the whole stream, by the words of core/line.h.
 *
 * Input: what fails, the limit, four sizes of pieces that take turns, the stream. */
#include "core/line.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

#define PIECES 4
#define HEADER (2 + PIECES)

/* Where the stream is read to, by both. */
struct expected {
	const char *at;
	const char *end;
	uint64_t number;
	size_t max;
	size_t lost; /* lines that should have been handed out or skipped */
};

struct line {
	const char *text; /* NULL: too long */
	size_t n;
	uint64_t number;
};

static bool is_blank(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r')
			return false;
	}
	return true;
}

/* The next line that is to be handed out. */
static bool next_line(struct expected *e, struct line *out)
{
	while (e->at < e->end) {
		const char *start = e->at;
		size_t left = (size_t)(e->end - start);
		const char *newline = memchr(start, '\n', left);
		size_t n = newline ? (size_t)(newline - start) : left;

		e->at = newline ? newline + 1 : e->end;
		e->number++;
		if (n > 0 && start[n - 1] == '\r')
			n--;
		if (n <= e->max && is_blank(start, n))
			continue;
		*out = (struct line){ n > e->max ? NULL : start, n, e->number };
		return true;
	}
	return false;
}

static void on_line(void *arg, char *line, size_t n, uint64_t number)
{
	struct expected *e = arg;
	struct expected before = *e;
	struct line next;

	if (line) {
		CHECK(line[n] == '\0');
		CHECK(next_line(e, &next));
		CHECK(next.number == number);
		CHECK(next.text && next.n == n && memcmp(next.text, line, n) == 0);
		memset(line, '#', n + 1); /* it is ours to write to */
		return;
	}
	if (!next_line(e, &next) || next.number != number)
		*e = before; /* lost is a line that would have been skipped */
	else if (!next.text)
		return;
	e->lost++;
}

static int feed(struct line_reader *l, const uint8_t *sizes, struct expected *e)
{
	const char *at = e->at;
	const char *end = e->end;
	int result = 0;

	for (size_t i = 0; at < end; i = (i + 1) % PIECES) {
		size_t left = (size_t)(end - at);
		size_t n = sizes[i] < left ? sizes[i] + 1u : left;
		char *piece = fuzz_copy(at, n);
		int r = line_feed(l, piece, n, e->max, on_line, e);

		CHECK(r == 0 || r == -ENOMEM);
		CHECK(l->held_len <= e->max + 1 && l->held_size <= e->max + 2);
		result = r < 0 ? r : result;
		free(piece);
		at += n;
	}
	return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct line_reader reader = { 0 };
	struct expected e = { 0 };
	struct line left;
	char *stream;
	int r;

	if (size < HEADER)
		return 0;
	stream = fuzz_copy(data + HEADER, size - HEADER);
	e.at = stream;
	e.end = stream + size - HEADER;
	e.max = data[1] * 4u + 1;

	fuzz_starve(data[0]);
	r = feed(&reader, data + 2, &e);
	line_end(&reader, on_line, &e);
	CHECK((r < 0) == fuzz_feed());
	CHECK(e.lost <= (r < 0)); /* it may have been too long anyhow */
	CHECK(!next_line(&e, &left));
	CHECK(!reader.held && !reader.skipping);
	line_deinit(&reader);
	free(stream);
	return 0;
}
