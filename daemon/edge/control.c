/* SPDX-License-Identifier: MIT */
/*
 * Operators are few and their questions are short, but an answer may be long (the metrics
 * of ten thousand AppIDs are) and whoever asked may not read it. So a client has one
 * request served in a turn of the loop, and none while its last answer has not left: what
 * it may hold is one line and one answer. Who neither writes nor reads for a while is
 * closed, so that a forgotten connection does not keep the next operator out.
 */
#include "edge/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/list.h"
#include "edge/log.h"

#define REQUEST_MOST 4096  /* bytes of a line, its newline included */
#define SILENT_MOST  60000 /* ms without a byte from or to a client */
#define ACCEPT_PAUSE 100   /* ms, when there is no descriptor for another client */

struct client {
	struct control *control;
	struct list link;
	uv_poll_t poll;
	uv_timer_t timer;
	unsigned open_handles;
	int fd; /* -1: closed */
	struct ucred peer;
	char in[REQUEST_MOST + 1];
	size_t n;
	struct buffer out;
	size_t sent; /* of it */
	bool ended;  /* it has sent all that it will, or is not listened to any more */
};

struct control {
	uv_loop_t *loop;
	control_fn fn;
	void *arg;
	int listening;    /* the listener's */
	uv_poll_t poll;   /* of it */
	uv_timer_t pause; /* until accepting is tried again */
	struct list clients;
	size_t n_clients;
	unsigned open_handles; /* its own, and one for each client */
	bool closing;
};

static void on_event(uv_poll_t *poll, int status, int events);

static void control_free_if_done(struct control *control)
{
	if (control->closing && control->open_handles == 0)
		free(control);
}

static void on_client_closed(uv_handle_t *handle)
{
	struct client *c = handle->data;
	struct control *control = c->control;

	if (--c->open_handles > 0)
		return;
	free(c);
	control->open_handles--;
	control_free_if_done(control);
}

static void client_close(struct client *c)
{
	if (c->fd < 0)
		return;
	uv_poll_stop(&c->poll);
	uv_close((uv_handle_t *)&c->poll, on_client_closed);
	uv_close((uv_handle_t *)&c->timer, on_client_closed);
	close(c->fd);
	c->fd = -1;
	buffer_deinit(&c->out);
	list_unlink(&c->link);
	c->control->n_clients--;
}

static void on_silent(uv_timer_t *timer)
{
	client_close(timer->data);
}

static void client_moved(struct client *c)
{
	uv_timer_start(&c->timer, on_silent, SILENT_MOST, 0);
}

/* The length of the next line without its newline, or -1 if there is none yet. */
static ssize_t next_line(const struct client *c)
{
	const char *newline = memchr(c->in, '\n', c->n);

	if (newline)
		return newline - c->in;
	return c->ended && c->n > 0 ? (ssize_t)c->n : -1;
}

/* Listens for what is still of interest; closes when nothing is. Whoever has a line to be
 * served is served when it is found writable: in the next turn. */
static void client_settle(struct client *c)
{
	bool has_line = next_line(c) >= 0;
	int events = 0;

	if (c->fd < 0)
		return;
	if (!c->ended && c->n < REQUEST_MOST)
		events |= UV_READABLE;
	if (c->out.len > 0 || has_line)
		events |= UV_WRITABLE;
	if (events == 0 || uv_poll_start(&c->poll, events, on_event) < 0)
		client_close(c);
}

static void client_flush(struct client *c)
{
	ssize_t n = send(c->fd, c->out.data + c->sent, c->out.len - c->sent,
			 MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		client_close(c);
		return;
	}
	if (n <= 0)
		return;
	client_moved(c);
	/* Not buffer_consume(), which would move the rest of a long answer each time. */
	c->sent += (size_t)n;
	if (c->sent == c->out.len) {
		buffer_deinit(&c->out);
		c->sent = 0;
	}
}

static void reply_error(struct buffer *out, const char *error, const struct buffer *members)
{
	buffer_puts(out, "{\"ok\":false,\"error\":");
	buffer_put_json(out, error, strlen(error), SIZE_MAX);
	if (members && members->len > 0)
		buffer_append(out, members->data, members->len);
	buffer_puts(out, "}\n");
}

static void log_steering(const struct client *c, const struct command *command)
{
	enum log_level level = command->op == COMMAND_STATUS || command->op == COMMAND_METRICS
				       ? LOG_LEVEL_DEBUG
				       : LOG_LEVEL_INFO;

	log_line(level, "control: op=%s uid=%u pid=%d", command_name(command->op), c->peer.uid,
		 (int)c->peer.pid);
}

static void act(struct client *c, const struct command *command)
{
	_cleanup_(buffer_deinit) struct buffer members = { 0 };
	_cleanup_(buffer_deinit) struct buffer error = { 0 };
	int r;

	log_steering(c, command);
	r = c->control->fn(c->control->arg, command, &members, &error);
	if (members.failed || error.failed) {
		reply_error(&c->out, "there is no memory for the answer", NULL);
	} else if (r < 0) {
		reply_error(&c->out, error.data ? error.data : strerror(-r), &members);
	} else {
		buffer_puts(&c->out, "{\"ok\":true");
		if (members.data)
			buffer_append(&c->out, members.data, members.len);
		buffer_puts(&c->out, "}\n");
	}
}

static void serve(struct client *c, const char *line, size_t n)
{
	struct command_error why;
	struct command command;

	if (n == 0)
		return;
	if (command_parse(&command, line, n, &why) > 0)
		reply_error(&c->out, why.text, NULL);
	else
		act(c, &command);
}

static void take_line(struct client *c, size_t n)
{
	size_t whole = n < c->n ? n + 1 : n;

	n -= n > 0 && c->in[n - 1] == '\r';
	c->in[n] = '\0';
	serve(c, c->in, n);
	c->n -= whole;
	memmove(c->in, c->in + whole, c->n);
}

static void give_up(struct client *c)
{
	reply_error(&c->out, "the line is longer than 4095 bytes", NULL);
	c->n = 0;
	c->ended = true;
}

static void client_read(struct client *c)
{
	ssize_t n = recv(c->fd, c->in + c->n, REQUEST_MOST - c->n, MSG_DONTWAIT);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n < 0) {
		client_close(c);
		return;
	}
	client_moved(c);
	if (n == 0)
		c->ended = true;
	c->n += (size_t)n;
	if (c->n == REQUEST_MOST && next_line(c) < 0)
		give_up(c);
}

static void on_event(uv_poll_t *poll, int status, int events)
{
	struct client *c = poll->data;

	if (status < 0) {
		client_close(c);
		return;
	}
	if (events & UV_READABLE && !c->ended && c->n < REQUEST_MOST)
		client_read(c);
	if (c->fd >= 0 && c->out.len == 0 && next_line(c) >= 0)
		take_line(c, (size_t)next_line(c));
	if (c->fd >= 0 && c->out.failed)
		client_close(c); /* part of an answer would be worse than none */
	if (c->fd >= 0 && c->out.len > 0)
		client_flush(c);
	client_settle(c);
}

/* Accepting. */

static int client_new(struct control *control, int fd)
{
	struct client *c = calloc(1, sizeof(*c));
	socklen_t size = sizeof(c->peer);

	if (!c)
		return -ENOMEM;
	if (uv_poll_init(control->loop, &c->poll, fd) < 0) {
		free(c);
		return -ENOMEM;
	}
	uv_timer_init(control->loop, &c->timer);
	c->control = control;
	c->poll.data = c;
	c->timer.data = c;
	c->open_handles = 2;
	c->fd = fd;
	(void)getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c->peer, &size);
	list_push_back(&control->clients, &c->link);
	control->n_clients++;
	control->open_handles++;
	client_moved(c);
	client_settle(c);
	return 0;
}

static void turn_away(int fd)
{
	static const char reply[] = "{\"ok\":false,\"error\":\"too many are connected already\"}\n";

	(void)send(fd, reply, sizeof(reply) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	close(fd);
}

static void on_connection(uv_poll_t *poll, int status, int events);

static int start_accepting(struct control *control)
{
	return uv_poll_start(&control->poll, UV_READABLE, on_connection);
}

static void on_pause_over(uv_timer_t *timer)
{
	struct control *control = timer->data;

	if (start_accepting(control) < 0)
		uv_timer_start(timer, on_pause_over, ACCEPT_PAUSE, 0);
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
	struct control *control = poll->data;
	int fd = accept4(control->listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		/* It stays in the backlog; without a pause the loop would spin on it. */
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			uv_poll_stop(poll);
			uv_timer_start(&control->pause, on_pause_over, ACCEPT_PAUSE, 0);
		}
		return;
	}
	if (control->n_clients >= CONTROL_CLIENTS)
		turn_away(fd);
	else if (client_new(control, fd) < 0)
		close(fd);
}

/* The whole. */

int control_new(struct control **out, uv_loop_t *loop, const struct listener *l, control_fn fn,
		void *arg)
{
	struct control *control = calloc(1, sizeof(*control));
	int r;

	if (!control)
		return -ENOMEM;
	r = uv_poll_init(loop, &control->poll, l->fd);
	if (r < 0) {
		free(control);
		return r;
	}
	uv_timer_init(loop, &control->pause);
	control->loop = loop;
	control->fn = fn;
	control->arg = arg;
	control->listening = l->fd;
	control->poll.data = control;
	control->pause.data = control;
	control->open_handles = 2;
	list_init(&control->clients);
	r = start_accepting(control);
	if (r < 0) {
		control_close(control);
		return r;
	}
	*out = control;
	return 0;
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct control *control = handle->data;

	control->open_handles--;
	control_free_if_done(control);
}

void control_close(struct control *control)
{
	if (!control)
		return;
	control->closing = true;
	while (!list_is_empty(&control->clients))
		client_close(list_first(&control->clients, struct client, link));
	uv_close((uv_handle_t *)&control->poll, on_handle_closed);
	uv_close((uv_handle_t *)&control->pause, on_handle_closed);
}
