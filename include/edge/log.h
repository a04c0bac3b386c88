/* SPDX-License-Identifier: MIT */
/* One event, one line on standard error, with its identity: app=… id=… outcome=… */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buffer.h"

/* By who must act: the operator now, the operator soon, nobody, a developer. */
enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG
};

/* Lines above @level are not written. Before the first call: info. */
void log_set_level(enum log_level level);

/* Whether a line of this level would be written: for those that cost to prepare. */
bool log_wants(enum log_level level);

/* Never blocks: a line that standard error would not take at once is lost and counted;
 * the count is told with the next line that passes. Messages' text, secrets and
 * signatures have no place here; other foreign text only through log_quote(). */
void log_line(enum log_level level, const char *format, ...)
	__attribute__((__format__(__printf__, 2, 3)));

/* Each of @lines by itself. */
void log_lines(enum log_level level, const struct buffer *lines);

#define log_error(...)   log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* How many lines were lost since the start. */
uint64_t log_lines_lost(void);

/* Bytes of a foreign text that are shown: enough for why a certificate was refused. */
#define LOG_QUOTED_MOST 150

/* Foreign text as a JSON string, its first LOG_QUOTED_MOST bytes. Usable as one argument:
 * log_quote(text, n).text */
struct log_quoted {
	char text[LOG_QUOTED_MOST * 6 + 3]; /* an escaped byte takes six */
};
struct log_quoted log_quote(const char *bytes, size_t n);

/* Zeroed is "never said". Lets one line a minute through and counts the others. */
struct log_limit {
	uint64_t next;
	uint64_t suppressed;
};

/* Whether to say it now; if so *@suppressed is how often it was not said before. */
bool log_permit(struct log_limit *l, uint64_t *suppressed, uint64_t now);

/* " (N more since the last such line)", or nothing for none. */
struct log_quoted log_repeats(uint64_t suppressed);
