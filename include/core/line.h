/* SPDX-License-Identifier: MIT */
/* Cuts a stream of bytes into lines, in bounded memory, whatever the chunks. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base.h"

/* Zeroed is ready. @held is the beginning of a line whose end has not come yet. */
struct line_reader {
	char *held;
	size_t held_len;
	size_t held_size;
	bool skipping;   /* inside a line already reported as too long */
	uint64_t number; /* of the last line begun, from 1 */
};

/* What line_feed() hands out. @line is NULL for a line longer than the limit, reported
 * once, when the limit is passed; else @line[@n] is a NUL and the line may be written to
 * until the function returns. Lines that are empty, or nothing but spaces, tabs and CRs, are
 * counted but not handed out. The function may not touch the reader. */
typedef void (*line_fn)(void *arg, char *line, size_t n, uint64_t number);

/* Takes @n more bytes, which it may write to, and calls @fn for each line that they end.
 * "\n" and "\r\n" end a line; neither counts towards @max. Returns 0, or -ENOMEM: then a
 * line was lost and reported as one too long; the other bytes were read all the same. */
int line_feed(struct line_reader *l, char *bytes, size_t n, size_t max, line_fn fn, void *arg);

/* The stream has ended: an unfinished last line counts as a line. */
void line_end(struct line_reader *l, line_fn fn, void *arg);

/* Frees what is held. */
void line_deinit(struct line_reader *l);
