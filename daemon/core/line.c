/* SPDX-License-Identifier: MIT */
/*
 * Writers send lines, the kernel delivers chunks. Nearly always a chunk holds whole
 * lines, so those are handed out where they lie, with a NUL over their newline; only
 * the beginning of a line whose end is still to come is copied, and its copy is freed
 * with the line. So an idle writer costs nothing here and a slow or malicious one at most
 * one line: a line is given up as soon as it is certain to be too long, however it came.
 *
 * Certain means: without counting a CR that may turn out to stand before the newline. So
 * up to max + 1 bytes are held, if the last of them is a CR, and a NUL after them.
 */
#include "core/line.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The first allocation: most lines that arrive in pieces fit. */
#define HELD_MIN 256

static void drop_held(struct line_reader *l)
{
	free(l->held);
	l->held = NULL;
	l->held_len = 0;
	l->held_size = 0;
}

/* Makes room for @n more bytes and a NUL. The caller has seen to it that this is within
 * the limit. */
static int reserve(struct line_reader *l, size_t n, size_t max)
{
	size_t need = l->held_len + n + 1;
	size_t size = l->held_size ? l->held_size : HELD_MIN;
	char *held;

	if (need <= l->held_size)
		return 0;
	while (size < need)
		size *= 2;
	if (size > max + 2)
		size = max + 2;
	held = realloc(l->held, size);
	if (!held)
		return -ENOMEM;
	l->held = held;
	l->held_size = size;
	return 0;
}

static int hold(struct line_reader *l, const char *bytes, size_t n, size_t max)
{
	int r = reserve(l, n, max);

	if (r < 0)
		return r;
	memcpy(l->held + l->held_len, bytes, n);
	l->held_len += n;
	return 0;
}

/* The length of a line without its CR. */
static size_t stripped(const char *line, size_t n)
{
	return n > 0 && line[n - 1] == '\r' ? n - 1 : n;
}

static bool is_blank(const char *line, size_t n)
{
	size_t i = 0;

	while (i < n && (line[i] == ' ' || line[i] == '\t' || line[i] == '\r'))
		i++;
	return i == n;
}

static void hand_out(struct line_reader *l, char *line, size_t n, size_t max, line_fn fn, void *arg)
{
	n = stripped(line, n);
	if (n > max) {
		fn(arg, NULL, 0, l->number);
		return;
	}
	if (is_blank(line, n))
		return;
	line[n] = '\0';
	fn(arg, line, n, l->number);
}

/* Whether @n more bytes make the line under way too long for certain. */
static bool is_too_long(const struct line_reader *l, const char *bytes, size_t n, size_t max)
{
	/* A CR may be the last byte held, its newline the first to come. */
	size_t length = n > 0 ? l->held_len + stripped(bytes, n) : stripped(l->held, l->held_len);

	return length > max;
}

/* Gives up the line under way, once and aloud. */
static void give_up(struct line_reader *l, line_fn fn, void *arg)
{
	drop_held(l);
	l->skipping = true;
	fn(arg, NULL, 0, l->number);
}

/* @bytes[@n] is the newline that ends the line under way. */
static int finish(struct line_reader *l, char *bytes, size_t n, size_t max, line_fn fn, void *arg)
{
	int r = 0;

	if (l->skipping) {
		/* told already */
	} else if (l->held_len == 0) {
		hand_out(l, bytes, n, max, fn, arg);
	} else if (is_too_long(l, bytes, n, max)) {
		give_up(l, fn, arg);
	} else {
		r = hold(l, bytes, n, max);
		if (r < 0)
			give_up(l, fn, arg);
		else
			hand_out(l, l->held, l->held_len, max, fn, arg);
	}
	drop_held(l);
	l->skipping = false;
	return r;
}

/* The chunk ends within the line. */
static int keep(struct line_reader *l, const char *bytes, size_t n, size_t max, line_fn fn,
		void *arg)
{
	int r;

	if (l->skipping)
		return 0;
	if (is_too_long(l, bytes, n, max)) {
		give_up(l, fn, arg);
		return 0;
	}
	r = hold(l, bytes, n, max);
	if (r < 0)
		give_up(l, fn, arg);
	return r;
}

int line_feed(struct line_reader *l, char *bytes, size_t n, size_t max, line_fn fn, void *arg)
{
	int result = 0;

	while (n > 0) {
		char *newline = memchr(bytes, '\n', n);
		size_t len = newline ? (size_t)(newline - bytes) : n;
		int r;

		if (l->held_len == 0 && !l->skipping)
			l->number++;
		if (!newline) {
			r = keep(l, bytes, len, max, fn, arg);
			return r < 0 ? r : result;
		}
		r = finish(l, bytes, len, max, fn, arg);
		if (r < 0)
			result = r;
		bytes += len + 1;
		n -= len + 1;
	}
	return result;
}

void line_end(struct line_reader *l, line_fn fn, void *arg)
{
	/* What is held was within the limit when it came. */
	if (l->held_len > 0)
		hand_out(l, l->held, l->held_len, l->held_len, fn, arg);
	drop_held(l);
	l->skipping = false;
}

void line_deinit(struct line_reader *l)
{
	drop_held(l);
	*l = (struct line_reader){ 0 };
}
