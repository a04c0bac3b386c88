/* SPDX-License-Identifier: MIT */
/* A growing run of bytes to print into. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base.h"

/* Zeroed is empty. When memory runs out the buffer keeps what it has, ignores
 * what follows and says so in @failed: a writer checks once, at the end. Between
 * calls data[len] is NUL whenever data is not NULL. */
struct buffer {
	char *data;
	size_t len;
	size_t size;
	bool failed;
};

/* Frees the memory; the buffer is empty and may be used again. */
void buffer_deinit(struct buffer *b);

void buffer_append(struct buffer *b, const char *bytes, size_t n);
void buffer_puts(struct buffer *b, const char *text);
void buffer_printf(struct buffer *b, const char *format, ...)
	__attribute__((__format__(__printf__, 2, 3)));

/* Decimal, without the cost of printf. */
void buffer_put_u64(struct buffer *b, uint64_t n);

/* Appends @n bytes as a JSON string with its quotes. Control characters are
 * escaped and anything that is not UTF-8 becomes U+FFFD, so that the result is
 * valid JSON whatever came in. At most @most bytes of input are used, cut between
 * characters. */
void buffer_put_json(struct buffer *b, const char *bytes, size_t n, size_t most);

/* Drops the first @n bytes. */
void buffer_consume(struct buffer *b, size_t n);
