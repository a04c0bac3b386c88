/* SPDX-License-Identifier: MIT */
/*
 * libcurl adds and removes its sockets with every request. Making a uv_poll each time
 * costs as much as the rest of the request, so a watch stays armed over CURL_POLL_REMOVE
 * while its connection is kept, and is changed only when libcurl's interest does.
 *
 * libcurl 7.88 closes a socket that never became connected without a word to
 * CURLOPT_CLOSESOCKETFUNCTION. A watch therefore survives only on a connection that
 * stands; one left over would be taken for that of the next descriptor with its number.
 */
#include "edge/watch.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct watch {
	uv_poll_t poll;
	struct watches *watches;
	int fd;
	int events;      /* UV_READABLE, UV_WRITABLE that are armed */
	bool idle;       /* libcurl does not look at it now */
	bool connected;  /* as far as has been looked */
	uint64_t rested; /* in which call of libcurl it became idle */
};

void watches_begin_call(struct watches *ws)
{
	ws->calls++;
}

static struct watch *find(const struct watches *ws, int fd)
{
	return (size_t)fd < ws->n ? ws->by_fd[fd] : NULL;
}

static void on_closed(uv_handle_t *handle)
{
	struct watch *w = handle->data;
	struct watches *ws = w->watches;

	free(w);
	ws->open--;
	ws->closed(ws->arg);
}

static void watch_close(struct watch *w)
{
	w->watches->by_fd[w->fd] = NULL;
	uv_poll_stop(&w->poll);
	uv_close((uv_handle_t *)&w->poll, on_closed);
}

static void on_event(uv_poll_t *poll, int status, int events)
{
	struct watch *w = poll->data;
	int flags = 0;

	if (w->idle) {
		/* The server closed it, or had more to say: libcurl finds out before it
		 * uses the connection again. Until then the event would come for ever. */
		uv_poll_stop(poll);
		w->events = 0;
		return;
	}
	if (status < 0) {
		/* Not CURL_CSELECT_ERR: of two addresses tried at once, that of the one which
		 * refused is kept for the connection to the other (libcurl 7.88). Looking at
		 * the socket tells libcurl what is wrong with it. */
		flags = CURL_CSELECT_IN | CURL_CSELECT_OUT;
		w->events = 0; /* libuv has stopped watching */
	}
	if (events & UV_READABLE)
		flags |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		flags |= CURL_CSELECT_OUT;
	w->watches->ready(w->watches->arg, w->fd, flags); /* it may be gone afterwards */
}

static int grow(struct watches *ws, int fd)
{
	size_t n = (size_t)fd + 64;
	struct watch **by_fd = reallocarray(ws->by_fd, n, sizeof(struct watch *));

	if (!by_fd)
		return -1;
	memset(by_fd + ws->n, 0, (n - ws->n) * sizeof(struct watch *));
	ws->by_fd = by_fd;
	ws->n = n;
	return 0;
}

static struct watch *watch_new(struct watches *ws, int fd)
{
	struct watch *w;

	if ((size_t)fd >= ws->n && grow(ws, fd) < 0)
		return NULL;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	if (uv_poll_init(ws->loop, &w->poll, fd) < 0) {
		free(w);
		return NULL;
	}
	w->poll.data = w;
	w->watches = ws;
	w->fd = fd;
	ws->open++;
	ws->by_fd[fd] = w;
	return w;
}

static bool is_connected(int fd)
{
	struct sockaddr_storage peer;
	socklen_t size = sizeof(peer);

	return getpeername(fd, (struct sockaddr *)&peer, &size) == 0;
}

/* libcurl looks away: until its next request, or for good if it never got through. */
static void rest_or_close(struct watch *w)
{
	if (!w->connected)
		w->connected = is_connected(w->fd);
	if (!w->connected) {
		watch_close(w);
		return;
	}
	w->idle = true;
	w->rested = w->watches->calls;
}

int watches_want(struct watches *ws, int fd, int what)
{
	struct watch *w = find(ws, fd);
	int events = 0;

	if (what == CURL_POLL_REMOVE) {
		if (w)
			rest_or_close(w);
		return 0;
	}
	if (!w)
		w = watch_new(ws, fd);
	if (!w)
		return -1;
	if (what & CURL_POLL_IN)
		events |= UV_READABLE;
	if (what & CURL_POLL_OUT)
		events |= UV_WRITABLE;
	w->idle = false;
	if (events == w->events)
		return 0;
	if (uv_poll_start(&w->poll, events, on_event) < 0)
		return -1; /* and is tried again when libcurl next says so */
	w->events = events;
	return 0;
}

int watches_renumber(struct watches *ws, int fd)
{
	struct watch *w;

	/* A watch under this number is of a socket that was closed in silence. libcurl may
	 * not have noticed either, and would then not say what it wants of the new one. */
	while (fd >= 0 && (w = find(ws, fd))) {
		int other = fcntl(fd, F_DUPFD_CLOEXEC, fd + 1);

		watch_close(w);
		close(fd);
		fd = other;
	}
	return fd;
}

/* A connection that is closed in the same call in which its request ended was given up in
 * the middle of it, or its server wanted it closed. What the kernel still has of a request
 * must not reach the server later, when its token is long at home; a server that wanted
 * the end anyway can bear a reset. */
static void forget_unsent(const struct watch *w)
{
	static const struct linger now = { .l_onoff = 1, .l_linger = 0 };

	if (!w->idle || w->rested == w->watches->calls)
		(void)setsockopt(w->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

void watches_reset_fd(int fd)
{
	static const struct sockaddr nowhere = { .sa_family = AF_UNSPEC };

	(void)connect(fd, &nowhere, sizeof(nowhere));
}

void watches_give_up(struct watches *ws)
{
	for (size_t fd = 0; fd < ws->n; fd++) {
		struct watch *w = ws->by_fd[fd];

		/* libcurl does not see that an idle connection was reset. */
		if (w && w->idle)
			(void)shutdown((int)fd, SHUT_RDWR);
		else if (w)
			watches_reset_fd((int)fd);
	}
}

int watches_close_fd(struct watches *ws, int fd)
{
	struct watch *w = find(ws, fd);

	if (w) {
		forget_unsent(w);
		/* libuv must let go of the descriptor before its number is used again. */
		watch_close(w);
	}
	return close(fd);
}

void watches_deinit(struct watches *ws)
{
	for (size_t fd = 0; fd < ws->n; fd++) {
		if (ws->by_fd[fd])
			watch_close(ws->by_fd[fd]);
	}
	free(ws->by_fd);
	ws->by_fd = NULL;
	ws->n = 0;
}
