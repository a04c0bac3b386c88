/* SPDX-License-Identifier: MIT */
/*
 * Writes lines to the daemon and tells what they cost it:
 *
 *     writer SOCKET PID NAME=NUMBER...
 *
 * The numbers are those of `struct order`. Written is one JSON object: the processor time
 * of the process PID from the first line to the last reply, in nanoseconds; the seconds
 * that this took; and how many replies told of which outcome. Lines without an id are
 * followed by one that is refused on the spot, and the daemon is through when that has
 * been told.
 *
 * All that can be done before the clock starts is done before: the lines are made, and
 * each connection has seen a line refused.
 */
#include <err.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "lines.h"

#define WRITE_MOST ((size_t)256 * 1024)
#define READ_MOST  ((size_t)64 * 1024)
#define REPLY_MOST 1024

/* As many whatever their shape, so that it makes no difference to the caches. */
#define LINES_LEAST 100000

static const char nonsense[] = "{}\n"; /* it has no RoomId, and so is refused on the spot */

struct client {
	int fd;
	size_t first;    /* of the lines that are its own */
	size_t n;        /* how many these are; they are written again and again */
	size_t written;  /* lines, the one under way not included */
	size_t offset;   /* bytes of that one that are out */
	size_t most;     /* lines to write */
	size_t answered; /* of them */
	bool waits;      /* until it can write again */
	bool ended;      /* the last line is out */
	bool done;
	char reply[REPLY_MOST]; /* the part of one that has come */
	size_t reply_len;
};

struct order {
	size_t lines;
	size_t window;  /* lines under way at a time; 0: as many as it takes */
	size_t left;    /* of each client's lines: so many stay queued, and are not waited for */
	size_t clients; /* connections; 1 */
	size_t app;     /* the first AppID */
	size_t apps;    /* how many; 1 */
	size_t rooms;   /* 1 */
	size_t bytes;   /* of a line */
	size_t id;      /* 1: each has one */
};

struct writer {
	struct order order;
	struct lines lines;
	struct client *clients;
	size_t done;
	int epoll;
	unsigned long sent, dropped, failed, rejected;
};

static int64_t now(clockid_t clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts) < 0)
		err(EX_OSERR, "clock_gettime");
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int dial(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		err(EX_OSERR, "%s", path);
	return fd;
}

/* The daemon has taken the client in when it has answered. */
static void greet(int fd)
{
	char reply[REPLY_MOST];

	if (send(fd, nonsense, strlen(nonsense), MSG_NOSIGNAL) < 0 ||
	    recv(fd, reply, sizeof(reply), 0) <= 0)
		err(EX_PROTOCOL, "the first line");
}

static void watch(struct writer *w, struct client *c, int operation)
{
	struct epoll_event e = { .events = EPOLLIN | (c->waits ? EPOLLOUT : 0), .data.ptr = c };

	if (epoll_ctl(w->epoll, operation, c->fd, &e) < 0)
		err(EX_OSERR, "epoll_ctl");
}

/* Notes what has gone out, in lines. */
static void advance(const struct writer *w, struct client *c, size_t bytes)
{
	bytes += c->offset;
	while (bytes > 0) {
		size_t i = c->first + c->written % c->n;
		size_t len = w->lines.at[i + 1] - w->lines.at[i];

		if (bytes < len)
			break;
		bytes -= len;
		c->written++;
	}
	c->offset = bytes;
}

/* Sends what may be sent. Returns whether the socket takes no more. */
static bool send_bytes(struct client *c, const char *bytes, size_t n, size_t *sent)
{
	ssize_t result = send(c->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);

	*sent = result > 0 ? (size_t)result : 0;
	if (result < 0 && errno != EAGAIN)
		err(EX_OSERR, "send");
	return *sent < n;
}

/* Whole lines, in one piece, that the client may write now. */
static size_t lines_due(const struct writer *w, const struct client *c)
{
	size_t in_a_row = c->n - c->written % c->n;
	size_t due = c->most - c->written;
	size_t window = (w->order.window + w->order.clients - 1) / w->order.clients;

	if (window > 0 && due > window - (c->written - c->answered))
		due = window - (c->written - c->answered);
	if (due > in_a_row)
		due = in_a_row;
	if (due > WRITE_MOST / 1024)
		due = WRITE_MOST / 1024;
	return due;
}

static void client_write(struct writer *w, struct client *c)
{
	bool waited = c->waits;
	bool full = false;
	size_t due, sent;

	while (!full && (due = lines_due(w, c)) > 0) {
		size_t i = c->first + c->written % c->n;
		size_t from = w->lines.at[i] + c->offset;

		full = send_bytes(c, w->lines.bytes + from, w->lines.at[i + due] - from, &sent);
		advance(w, c, sent);
	}
	if (!full && c->written == c->most && !w->order.id && !c->ended) {
		full = send_bytes(c, nonsense, strlen(nonsense), &sent);
		c->ended = !full;
	}
	c->waits = full;
	if (c->waits != waited)
		watch(w, c, EPOLL_CTL_MOD);
}

static void count(struct writer *w, struct client *c, const char *reply, size_t n)
{
	static const char key[] = "\"outcome\":\"";
	const char *outcome = memmem(reply, n, key, strlen(key));

	if (!outcome)
		errx(EX_PROTOCOL, "not a reply: %.*s", (int)n, reply);
	outcome += strlen(key);
	w->sent += *outcome == 's';
	w->dropped += *outcome == 'd';
	w->failed += *outcome == 'f';
	w->rejected += *outcome == 'r';
	c->answered++;
	if (w->order.id ? c->answered + w->order.left == c->most : c->ended) {
		c->done = true;
		w->done++;
	}
}

static void client_read(struct writer *w, struct client *c)
{
	static char chunk[REPLY_MOST + READ_MOST];
	ssize_t n;
	char *at = chunk;
	char *end;

	memcpy(chunk, c->reply, c->reply_len);
	n = recv(c->fd, chunk + c->reply_len, READ_MOST, MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0)
		errx(EX_PROTOCOL, "the daemon has hung up");
	n += (ssize_t)c->reply_len;
	while ((end = memchr(at, '\n', (size_t)(chunk + n - at)))) {
		count(w, c, at, (size_t)(end - at));
		at = end + 1;
	}
	c->reply_len = (size_t)(chunk + n - at);
	if (c->reply_len > sizeof(c->reply))
		errx(EX_PROTOCOL, "a reply is too long");
	memcpy(c->reply, at, c->reply_len);
}

static void run(struct writer *w)
{
	struct epoll_event events[64];

	for (size_t i = 0; i < w->order.clients; i++)
		client_write(w, &w->clients[i]);
	while (w->done < w->order.clients) {
		int n = epoll_wait(w->epoll, events, 64, 60000);

		if (n == 0)
			errx(EX_PROTOCOL, "nothing for a minute: %zu of %zu writers are through",
			     w->done, w->order.clients);
		for (int i = 0; i < n; i++) {
			struct client *c = events[i].data.ptr;

			if (events[i].events & EPOLLIN)
				client_read(w, c);
			if (!c->done)
				client_write(w, c);
		}
	}
}

static void connect_all(struct writer *w, const char *path)
{
	size_t lines = w->order.lines;

	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	w->clients = calloc(w->order.clients, sizeof(*w->clients));
	if (w->epoll < 0 || !w->clients)
		err(EX_OSERR, "clients");
	for (size_t i = 0; i < w->order.clients; i++) {
		struct client *c = &w->clients[i];

		c->fd = dial(path);
		c->first = w->lines.n * i / w->order.clients;
		c->n = w->lines.n * (i + 1) / w->order.clients - c->first;
		c->most = lines * (i + 1) / w->order.clients - lines * i / w->order.clients;
		watch(w, c, EPOLL_CTL_ADD);
	}
	for (size_t i = 0; i < w->order.clients; i++)
		greet(w->clients[i].fd);
}

static size_t number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (end == text || *end)
		errx(EX_USAGE, "not a number: %s", text);
	return value;
}

static const struct {
	const char *name;
	size_t offset;
} names[] = {
#define NAME(n)                                                                                    \
	{                                                                                          \
#n "=", offsetof(struct order, n)                                                  \
	}
	NAME(lines), NAME(window), NAME(left),  NAME(clients), NAME(app),
	NAME(apps),  NAME(rooms),  NAME(bytes), NAME(id),
};

static void read_order(struct order *o, const char *argument)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		size_t len = strlen(names[i].name);

		if (strncmp(argument, names[i].name, len) == 0) {
			*(size_t *)(void *)((char *)o + names[i].offset) = number(argument + len);
			return;
		}
	}
	errx(EX_USAGE, "what is %s?", argument);
}

static void make_lines(struct writer *w)
{
	struct lines_shape shape = {
		.first_app = (unsigned)w->order.app,
		.apps = (unsigned)w->order.apps,
		.rooms = (unsigned)w->order.rooms,
		.bytes = w->order.bytes,
		.id = w->order.id > 0,
		.least = LINES_LEAST,
	};

	lines_make(&w->lines, &shape);
}

int main(int argc, char **argv)
{
	struct writer w = { .order = { .clients = 1, .apps = 1, .rooms = 1 } };
	int64_t cpu, wall;
	clockid_t clock;

	if (argc < 3)
		errx(EX_USAGE, "see the top of writer.c");
	for (int i = 3; i < argc; i++)
		read_order(&w.order, argv[i]);
	if (w.order.lines < w.order.clients || (w.order.window > 0 && !w.order.id))
		errx(EX_USAGE, "too few lines, or a window without ids");
	make_lines(&w);
	connect_all(&w, argv[1]);
	if (clock_getcpuclockid((pid_t)number(argv[2]), &clock) != 0)
		errx(EX_OSERR, "no such process");

	wall = now(CLOCK_MONOTONIC);
	cpu = now(clock);
	run(&w);
	cpu = now(clock) - cpu;
	wall = now(CLOCK_MONOTONIC) - wall;
	printf("{\"lines\":%zu,\"cpu_ns\":%lld,\"seconds\":%.6f,"
	       "\"sent\":%lu,\"dropped\":%lu,\"failed\":%lu,\"rejected\":%lu}\n",
	       w.order.lines, (long long)cpu, (double)wall / 1e9, w.sent, w.dropped, w.failed,
	       w.rejected);
	for (size_t i = 0; i < w.order.clients; i++)
		close(w.clients[i].fd);
	close(w.epoll);
	free(w.clients);
	lines_free(&w.lines);
	return 0;
}
