/* SPDX-License-Identifier: MIT */
/*
 * Under systemd standard error is the journal, which understands "<N>" in front of a
 * line; anywhere else a word is kinder. The journal can be slow or gone and a pipe can be
 * full, and the loop must not wait for either, so a line is written only when poll() says
 * that it fits (a pipe that is writable takes PIPE_BUF bytes, more than a line has).
 */
#include "edge/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base.h"
#include "core/buffer.h"

#define LINE_MOST  1024
#define ONCE_EVERY (60 * NSEC_PER_SEC)

static const struct {
	const char *word;
	const char *journal;
} prefixes[] = {
	[LOG_LEVEL_ERROR] = { "error: ", "<3>" },
	[LOG_LEVEL_WARNING] = { "warning: ", "<4>" },
	[LOG_LEVEL_INFO] = { "", "<6>" },
	[LOG_LEVEL_DEBUG] = { "debug: ", "<7>" },
};

static enum log_level highest = LOG_LEVEL_INFO;
static uint64_t lost; /* and not yet told */
static uint64_t lost_ever;

void log_set_level(enum log_level level)
{
	highest = level;
}

bool log_wants(enum log_level level)
{
	return level <= highest;
}

static bool write_line(const char *line, size_t n)
{
	struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };
	ssize_t written;

	if (poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT))
		return false;
	written = send(STDERR_FILENO, line, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (written < 0 && errno == ENOTSOCK)
		written = write(STDERR_FILENO, line, n);
	return written >= 0;
}

/* systemd.exec(5): JOURNAL_STREAM names the journal's stream by device and inode; it is
 * inherited by processes whose standard error has become something else. */
static bool is_journal(void)
{
	static enum {
		UNKNOWN,
		NO,
		YES
	} answer;
	const char *stream = getenv("JOURNAL_STREAM");
	char own[64];
	struct stat st;

	if (answer == UNKNOWN && stream && fstat(STDERR_FILENO, &st) == 0) {
		snprintf(own, sizeof(own), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
		answer = strcmp(own, stream) == 0 ? YES : NO;
	}
	return answer == YES;
}

static const char *prefix_of(enum log_level level)
{
	return is_journal() ? prefixes[level].journal : prefixes[level].word;
}

static void count_lost(void)
{
	lost++;
	lost_ever++;
}

void log_line(enum log_level level, const char *format, ...)
{
	char line[LINE_MOST];
	int prefix;
	int n;
	va_list args;

	if (!log_wants(level))
		return;
	prefix = snprintf(line, sizeof(line), "%s", prefix_of(level));
	va_start(args, format);
	n = vsnprintf(line + prefix, sizeof(line) - (size_t)prefix - 1, format, args);
	va_end(args);
	if (n < 0)
		return;
	n = (int)strlen(line);
	line[n] = '\n';
	if (lost > 0) {
		char note[64];
		int m = snprintf(note, sizeof(note), "%s%llu log lines were lost\n",
				 prefix_of(LOG_LEVEL_WARNING), (unsigned long long)lost);

		if (write_line(note, (size_t)m))
			lost = 0;
	}
	if (!write_line(line, (size_t)n + 1))
		count_lost();
}

uint64_t log_lines_lost(void)
{
	return lost_ever;
}

void log_lines(enum log_level level, const struct buffer *lines)
{
	for (size_t i = 0; lines->data && i < lines->len;) {
		size_t n = strcspn(lines->data + i, "\n");

		log_line(level, "%.*s", (int)n, lines->data + i);
		i += n + 1;
	}
}

struct log_quoted log_quote(const char *bytes, size_t n)
{
	struct log_quoted q = { .text = "\"\"" };
	struct buffer b = { 0 };

	buffer_put_json(&b, bytes, n, LOG_QUOTED_MOST);
	if (!b.failed)
		memcpy(q.text, b.data, b.len + 1);
	buffer_deinit(&b);
	return q;
}

bool log_permit(struct log_limit *l, uint64_t *suppressed, uint64_t now)
{
	if (now < l->next) {
		l->suppressed++;
		return false;
	}
	*suppressed = l->suppressed;
	*l = (struct log_limit){ .next = now + ONCE_EVERY };
	return true;
}

struct log_quoted log_repeats(uint64_t suppressed)
{
	struct log_quoted q = { .text = "" };

	if (suppressed > 0)
		snprintf(q.text, sizeof(q.text), " (%llu more since the last such line)",
			 (unsigned long long)suppressed);
	return q;
}
