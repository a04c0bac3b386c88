/* SPDX-License-Identifier: MIT */
#include "lines.h"

#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#define LINES_MOST 2000000
#define LINE_MOST  1100 /* the text may have 1024 bytes */

static void *xalloc(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (!p)
		err(EX_OSERR, "memory");
	return p;
}

/* 0 to n - 1 in a random order. */
static unsigned *shuffled(unsigned n)
{
	unsigned *order = xalloc(n, sizeof(*order));
	uint64_t random = 4711;

	for (unsigned i = 0; i < n; i++) {
		unsigned j;

		random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
		j = (unsigned)((random >> 33) % (i + 1));
		order[i] = order[j];
		order[j] = i;
	}
	return order;
}

static size_t common_divisor(size_t a, size_t b)
{
	while (b > 0) {
		size_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

/* Chinese text, as long as it takes, with a few ASCII characters where three bytes are too
 * many. */
static size_t put_text(char *out, size_t n)
{
	static const char text[] = "主播好这一条弹幕的内容和平时观众写下的差不多长";
	size_t at = 0;

	for (; n - at >= 3; at += 3)
		memcpy(out + at, text + at % (sizeof(text) - 1), 3);
	for (; at < n; at++)
		out[at] = '!';
	return n;
}

static size_t put_line(char *out, const struct lines_shape *shape, size_t i, unsigned app,
		       unsigned room)
{
	char id[32] = "";
	size_t head;

	if (shape->id)
		snprintf(id, sizeof(id), "\"id\":\"%07zu\",", i);
	head = (size_t)snprintf(
		out, LINE_MOST,
		"{%s\"AppId\":%u,\"RoomId\":\"room-%06u\",\"UserId\":\"user-%06zu\","
		"\"UserName\":\"观众%06zu\",\"MessageContent\":\"",
		id, shape->first_app + app, room, i % 1000000, i % 1000000);
	if (head + sizeof("\"}\n") > shape->bytes || shape->bytes > LINE_MOST)
		errx(EX_USAGE, "a line of %zu bytes cannot be made", shape->bytes);
	head += put_text(out + head, shape->bytes - head - strlen("\"}\n"));
	memcpy(out + head, "\"}\n", 3);
	return head + 3;
}

void lines_make(struct lines *l, const struct lines_shape *shape)
{
	unsigned *apps = shuffled(shape->apps);
	unsigned *rooms = shuffled(shape->rooms);
	size_t cycle = shape->apps / common_divisor(shape->apps, shape->rooms) * shape->rooms;
	size_t len = 0;

	l->n = (shape->least + cycle - 1) / cycle * cycle;
	if (l->n > LINES_MOST)
		errx(EX_USAGE, "%zu lines are too many", l->n);
	l->bytes = xalloc(l->n + 1, shape->bytes > LINE_MOST ? LINE_MOST : shape->bytes + 1);
	l->at = xalloc(l->n + 1, sizeof(*l->at));
	for (size_t i = 0; i < l->n; i++) {
		char line[LINE_MOST + 1];
		size_t n = put_line(line, shape, i, apps[i % shape->apps], rooms[i % shape->rooms]);

		memcpy(l->bytes + len, line, n);
		l->at[i] = len;
		len += n;
	}
	l->at[l->n] = len;
	free(apps);
	free(rooms);
}

void lines_free(struct lines *l)
{
	free(l->bytes);
	free(l->at);
}
