/* SPDX-License-Identifier: MIT */
/*
 * Writers are served in turns: one bounded read each, so that a flooding writer costs the
 * others a turn and not their service. Replies gather in the writer's buffer and leave in
 * one write at the end of the loop's turn; a writer that does not read them is never
 * waited for.
 *
 * Connections and replies that nobody fetches are charged to the writer's user, who may
 * have half of what the others leave: one user's flood keeps no other user out.
 *
 * A writer's object lives as long as its connection is open or one of its requests that
 * asked for a reply is under way: requests point to it. Requests without an id owe nobody
 * anything and point to nobody.
 */
#include "edge/intake.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/buffer.h"
#include "core/line.h"
#include "core/list.h"
#include "core/request.h"
#include "core/user.h"
#include "edge/clock.h"
#include "edge/log.h"

#define READ_MOST    ((size_t)16 * 1024) /* read from a writer in one turn: some 80 lines */
#define READ_LEAST   256                 /* of a writer whose lines are very short */
#define LINES_MOST   80
#define TURN_MOST    (2 * NSEC_PER_MSEC) /* of reading lines, before others get theirs */
#define ACCEPT_MOST  64                  /* writers taken in one turn */
#define ACCEPT_PAUSE 100                 /* ms, when there is no descriptor for another writer */

/* Bytes of replies that may wait for all writers together, at the least. */
#define REPLIES_MOST (UINT64_C(64) * 1024 * 1024)

struct client {
	struct intake *intake;
	struct list link;
	struct list unsent; /* in the intake's, while it has replies to send */
	uv_poll_t poll;
	int fd; /* -1: closed */
	int events;
	struct peer peer;
	struct user *user; /* while it is open */
	struct line_reader reader;
	size_t appetite; /* bytes to read in one turn */
	struct buffer replies;
	size_t charged; /* bytes of them, to its user */
	size_t owed;    /* requests under way that asked for a reply */
	bool ended;     /* it has sent all that it will */
	bool unheard;   /* no reply reaches it any more */
	bool handle_closed;
};

struct intake {
	uv_loop_t *loop;
	struct scheduler *scheduler;
	const struct config *config;
	int listening;    /* the listener's */
	uv_poll_t poll;   /* of it */
	uv_timer_t pause; /* until accepting is tried again */
	struct list clients;
	struct list unsent;
	size_t leftover;    /* closed clients whose object still lives */
	size_t reply_bytes; /* of all clients' replies */
	struct intake_counts counts;
	size_t most;     /* writers there are descriptors for */
	uint64_t now;    /* as of the event being handled */
	uint64_t turned; /* when the loop had its last turn */
	void (*long_turn)(void *arg);
	void *long_turn_arg;
	struct log_limit no_descriptor;
	unsigned open_handles;
	bool stopped;
	bool closing;
	char chunk[READ_MOST + 1];
};

static void on_event(uv_poll_t *poll, int status, int events);

static void intake_free_if_done(struct intake *in)
{
	if (in->closing && in->open_handles == 0 && in->leftover == 0)
		free(in);
}

/* Brings the user's account in line with what waits for the client. */
static void client_charge(struct client *c)
{
	size_t n = c->fd < 0 ? 0 : c->replies.len;

	c->user->reply_bytes += n - c->charged;
	c->intake->reply_bytes += n - c->charged;
	c->charged = n;
}

/* Frees a closed client when nothing points to it any more. */
static void client_free_if_done(struct client *c)
{
	struct intake *in = c->intake;

	if (c->fd >= 0 || !c->handle_closed || c->owed > 0)
		return;
	free(c->peer.groups);
	free(c);
	in->leftover--;
	intake_free_if_done(in);
}

static void on_client_closed(uv_handle_t *handle)
{
	struct client *c = handle->data;

	c->handle_closed = true;
	c->intake->open_handles--;
	client_free_if_done(c);
}

/* Nobody will hear the replies that wait. */
static void client_forget_replies(struct client *c)
{
	for (size_t i = 0; i < c->replies.len; i++)
		c->intake->counts.replies_lost += c->replies.data[i] == '\n';
	buffer_deinit(&c->replies);
}

static void client_close(struct client *c)
{
	struct intake *in = c->intake;

	if (c->fd < 0)
		return;
	uv_poll_stop(&c->poll);
	uv_close((uv_handle_t *)&c->poll, on_client_closed);
	close(c->fd);
	c->fd = -1;
	client_forget_replies(c);
	client_charge(c);
	c->user->connections--;
	users_put(&in->scheduler->users, c->user);
	line_deinit(&c->reader);
	list_unlink(&c->link);
	list_unlink(&c->unsent);
	in->counts.clients--;
	in->leftover++;
}

/* Listens for what is still of interest; closes when nothing is. */
static void client_settle(struct client *c)
{
	int events = 0;

	if (c->fd < 0)
		return;
	if (c->ended && c->owed == 0 && c->replies.len == 0) {
		client_close(c);
		return;
	}
	if (!c->ended && !c->intake->stopped)
		events |= UV_READABLE;
	if (c->replies.len > 0 && !list_is_linked(&c->unsent))
		events |= UV_WRITABLE;
	if (events == c->events)
		return;
	c->events = events;
	if (events == 0)
		uv_poll_stop(&c->poll);
	else if (uv_poll_start(&c->poll, events, on_event) < 0)
		client_close(c);
}

static void client_flush(struct client *c)
{
	ssize_t n;

	list_unlink(&c->unsent);
	n = send(c->fd, c->replies.data, c->replies.len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (c->replies.failed || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		/* The writer has closed, or there is no memory: nobody hears the replies. A
		 * writer that waits for one learns so from the end of what it hears. Lines
		 * that it has sent before are still there, are read in their turn and count;
		 * their end or libuv's report of the reset then closes it. */
		buffer_consume(&c->replies, n > 0 ? (size_t)n : 0);
		client_forget_replies(c);
		(void)shutdown(c->fd, SHUT_WR);
		c->unheard = true;
	} else if (n == (ssize_t)c->replies.len) {
		buffer_deinit(&c->replies); /* an idle writer holds nothing */
	} else if (n > 0) {
		buffer_consume(&c->replies, (size_t)n);
	}
	client_charge(c);
	client_settle(c);
}

/* The operator hears of each user and kind of trouble once, and again after a reload. */
static void tell_of(struct user *u, enum user_breach breach, const char *what)
{
	if (user_tell(u, breach))
		log_warning("uid=%u %s", u->uid, what);
}

/* Whether the replies for the client's user are more than its share, the last one
 * included. */
static bool exceeds_share(const struct client *c)
{
	const struct intake *in = c->intake;
	uint64_t most = max_u64(REPLIES_MOST, 2 * in->config->max_reply_backlog);
	size_t more = c->replies.len - c->charged;

	return c->user->reply_bytes + more > share_of(most, in->reply_bytes, c->user->reply_bytes);
}

/* Makes sure that a reply just appended is sent, or takes it back: @before is how long
 * the buffer was without it. */
static void client_replied(struct client *c, size_t before)
{
	struct intake *in = c->intake;
	bool crowded = exceeds_share(c);

	if (c->replies.failed || c->unheard) {
		in->counts.replies_lost++;
		c->replies.len = before;
		if (!c->unheard && !list_is_linked(&c->unsent))
			list_push_back(&in->unsent, &c->unsent);
		return;
	}
	if (crowded)
		tell_of(c->user, USER_REPLIES, "leaves its replies unread; more are discarded");
	if (crowded || c->replies.len > in->config->max_reply_backlog) {
		in->counts.replies_discarded++;
		c->replies.len = before;
		return;
	}
	client_charge(c);
	if (!list_is_linked(&c->unsent) && !(c->events & UV_WRITABLE))
		list_push_back(&in->unsent, &c->unsent);
}

void intake_fate(struct intake *in, const struct request *r, const struct fate_report *f)
{
	struct client *c = r->writer;
	size_t before;

	c->owed--;
	if (c->fd < 0) {
		in->counts.replies_lost++;
		client_free_if_done(c);
		return;
	}
	before = c->replies.len;
	reply_fate(&c->replies, r, f);
	client_replied(c, before);
	/* Every reply may have been discarded, and then nothing else would close it. */
	client_settle(c);
}

static void client_refused(struct client *c, const struct refusal *why, uint64_t number)
{
	size_t before = c->replies.len;

	scheduler_refuse(c->intake->scheduler, why->fate);
	reply_refusal(&c->replies, why, number);
	client_replied(c, before);
}

static void log_refusal(const struct client *c, const struct refusal *why)
{
	log_debug("peer=%d uid=%u outcome=rejected reason=%s", (int)c->peer.pid, c->peer.uid,
		  fate_reason_name(why->fate));
	if (why->fate != FATE_UNKNOWN_APP ||
	    !user_tell(c->user, why->not_admitted ? USER_NOT_ADMITTED : USER_UNKNOWN_APP))
		return;
	log_warning("app=%u uid=%u gid=%u pid=%d: %s", why->app_id, c->peer.uid, c->peer.gid,
		    (int)c->peer.pid,
		    why->not_admitted ? "this AppID is not for this user"
				      : "no such AppID is configured");
}

static void on_line(void *arg, char *line, size_t n, uint64_t number)
{
	struct client *c = arg;
	struct intake *in = c->intake;
	struct refusal why = { .fate = FATE_TOO_LONG };
	struct request *r;

	if (!line) {
		snprintf(why.error, sizeof(why.error),
			 "the line is longer than %llu bytes (max_line)",
			 (unsigned long long)in->config->max_line);
	} else if (request_parse(&r, in->config, &c->peer, line, n, &why) == 0) {
		if (r->id_len > 0) {
			r->writer = c;
			c->owed++;
		}
		r->user = user_ref(c->user);
		scheduler_submit(in->scheduler, r, in->now);
		return;
	}
	log_refusal(c, &why);
	client_refused(c, &why, number);
}

/* Whether the writer has closed both directions, so that no reply can reach it. */
static bool has_left(const struct client *c)
{
	struct pollfd p = { .fd = c->fd };

	return poll(&p, 1, 0) == 1 && p.revents & POLLHUP;
}

static void client_end(struct client *c)
{
	line_end(&c->reader, on_line, c);
	c->ended = true;
	if (has_left(c))
		client_close(c);
	else
		client_settle(c);
}

/* Lines can be as short as "{}", and then a chunk holds thousands: reads less from such a
 * writer the next time. */
static void adapt_appetite(struct client *c, uint64_t lines)
{
	if (lines > LINES_MOST && c->appetite > READ_LEAST)
		c->appetite /= 2;
	else if (lines < LINES_MOST / 2 && c->appetite < READ_MOST)
		c->appetite *= 2;
}

/* Reads once. Returns whether there may be more. */
static bool client_read(struct client *c)
{
	struct intake *in = c->intake;
	uint64_t number = c->reader.number;
	ssize_t n = recv(c->fd, in->chunk, c->appetite, MSG_DONTWAIT);

	if (n < 0 && errno == EINTR)
		return true;
	if (n < 0 && errno == EAGAIN)
		return false;
	if (n <= 0) {
		/* Reset by its writer or ended by it: what has come has come. */
		client_end(c);
		return false;
	}
	line_feed(&c->reader, in->chunk, (size_t)n, in->config->max_line, on_line, c);
	adapt_appetite(c, c->reader.number - number);
	client_settle(c);
	return c->fd >= 0;
}

/* A writer that closes without having read its replies resets the connection; libuv has
 * then stopped watching it. The lines that it sent before are still there and count. */
static void client_reset(struct client *c)
{
	c->events = 0;
	if (c->intake->stopped || c->ended) {
		client_close(c);
		return;
	}
	while (client_read(c))
		continue;
	client_close(c);
}

static void on_event(uv_poll_t *poll, int status, int events)
{
	struct client *c = poll->data;
	struct intake *in = c->intake;

	in->now = clock_now();
	if (status < 0)
		client_reset(c);
	else if (events & UV_WRITABLE)
		client_flush(c);
	if (c->fd >= 0 && events & UV_READABLE && !c->ended)
		(void)client_read(c);
	/* Careful: the turn may close writers, this one too. */
	if (in->long_turn && clock_now() - in->turned >= TURN_MOST)
		in->long_turn(in->long_turn_arg);
}

/* Accepting. */

static void read_peer(struct peer *p, int fd)
{
	struct ucred cred = { .pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1 };
	socklen_t size = sizeof(cred);
	gid_t groups[256];
	socklen_t groups_size = sizeof(groups);

	(void)getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size);
	*p = (struct peer){ .uid = cred.uid, .gid = cred.gid, .pid = cred.pid };
	/* Without its groups, or the memory for them, a writer just has fewer rights. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &groups_size) < 0 || groups_size == 0)
		return;
	p->groups = malloc(groups_size);
	if (!p->groups)
		return;
	memcpy(p->groups, groups, groups_size);
	p->n_groups = groups_size / sizeof(*groups);
}

/* @user is a reference that the client keeps, if there is one. */
static int client_new(struct intake *in, int fd, struct user *user)
{
	struct client *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	r = uv_poll_init(in->loop, &c->poll, fd);
	if (r < 0) {
		free(c);
		return r;
	}
	c->intake = in;
	c->poll.data = c;
	c->fd = fd;
	c->appetite = READ_MOST;
	list_init(&c->unsent);
	read_peer(&c->peer, fd);
	c->user = user;
	user->connections++;
	list_push_back(&in->clients, &c->link);
	in->open_handles++;
	in->counts.clients++;
	client_settle(c);
	return 0;
}

/* Whether the user may have another connection. Alone it may have max_clients, and the next
 * finds half as many again. */
static bool has_place_for(const struct intake *in, const struct user *u)
{
	uint64_t most = min_u64(in->most, 2 * in->config->max_clients);

	return u->connections < share_of(most, in->counts.clients, u->connections);
}

static void turn_away(struct intake *in, int fd, struct user *user)
{
	struct refusal why = { .fate = FATE_TOO_MANY_CLIENTS };
	struct buffer reply = { 0 };

	scheduler_refuse(in->scheduler, why.fate);
	snprintf(why.error, sizeof(why.error),
		 "%zu writers are connected, %zu of them this user's (max_clients)",
		 in->counts.clients, user->connections);
	tell_of(user, USER_CONNECTIONS,
		"has its share of connections (max_clients); more are refused");
	reply_refusal(&reply, &why, 0);
	if (!reply.failed)
		(void)send(fd, reply.data, reply.len, MSG_DONTWAIT | MSG_NOSIGNAL);
	buffer_deinit(&reply);
	close(fd);
}

static void log_not_taken(struct intake *in, int error)
{
	uint64_t before;

	if (log_permit(&in->no_descriptor, &before, clock_now()))
		log_warning("a writer cannot be taken in: %s%s", strerror(error),
			    log_repeats(before).text);
}

static void on_pause_over(uv_timer_t *timer);

/* The writer stays in the backlog; without a pause the loop would spin on it. */
static void pause_accepting(struct intake *in, int error)
{
	uv_poll_stop(&in->poll);
	uv_timer_start(&in->pause, on_pause_over, ACCEPT_PAUSE, 0);
	log_not_taken(in, error);
}

static void on_connection(uv_poll_t *poll, int status, int events);

static int start_accepting(struct intake *in)
{
	return uv_poll_start(&in->poll, UV_READABLE, on_connection);
}

static void on_pause_over(uv_timer_t *timer)
{
	struct intake *in = timer->data;
	int r = in->stopped ? 0 : start_accepting(in);

	if (r < 0)
		pause_accepting(in, -r);
}

static bool is_passing(int error)
{
	return error == EINTR || error == ECONNABORTED || error == EPROTO || error == EPERM;
}

static void greet(struct intake *in, int fd)
{
	struct ucred cred = { .uid = (uid_t)-1 };
	socklen_t size = sizeof(cred);
	struct user *user;
	int r;

	(void)getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size);
	user = users_get(&in->scheduler->users, cred.uid);
	if (user && !has_place_for(in, user)) {
		turn_away(in, fd, user);
	} else {
		r = user ? client_new(in, fd, user) : -ENOMEM;
		if (r == 0)
			return;
		close(fd);
		log_not_taken(in, -r);
	}
	if (user)
		users_put(&in->scheduler->users, user);
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
	struct intake *in = poll->data;

	for (int i = 0; i < ACCEPT_MOST; i++) {
		int fd = accept4(in->listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0 && errno == EAGAIN)
			return;
		if (fd < 0 && is_passing(errno))
			continue;
		if (fd < 0) {
			pause_accepting(in, errno);
			return;
		}
		greet(in, fd);
	}
}

/* The whole. */

int intake_new(struct intake **out, uv_loop_t *loop, const struct listener *l, struct scheduler *s,
	       const struct config *c)
{
	struct intake *in = calloc(1, sizeof(*in));
	int r;

	if (!in)
		return -ENOMEM;
	in->loop = loop;
	in->scheduler = s;
	in->config = c;
	in->listening = l->fd;
	in->most = SIZE_MAX;
	list_init(&in->clients);
	list_init(&in->unsent);
	r = uv_poll_init(loop, &in->poll, l->fd);
	if (r < 0) {
		free(in);
		return r;
	}
	uv_timer_init(loop, &in->pause);
	in->poll.data = in;
	in->pause.data = in;
	in->open_handles = 2;
	r = start_accepting(in);
	if (r < 0) {
		intake_close(in);
		return r;
	}
	*out = in;
	return 0;
}

void intake_on_long_turn(struct intake *in, void (*fn)(void *arg), void *arg)
{
	in->long_turn = fn;
	in->long_turn_arg = arg;
}

void intake_configure(struct intake *in, const struct config *c)
{
	in->config = c;
	users_forget_told(&in->scheduler->users);
}

void intake_limit(struct intake *in, size_t most)
{
	in->most = most;
}

void intake_flush(struct intake *in)
{
	in->turned = clock_now();
	while (!list_is_empty(&in->unsent))
		client_flush(list_first(&in->unsent, struct client, unsent));
}

void intake_stop(struct intake *in)
{
	in->stopped = true;
	uv_poll_stop(&in->poll);
	uv_timer_stop(&in->pause);
	list_for_each_safe (node, &in->clients)
		client_settle(list_entry(node, struct client, link));
}

bool intake_has_replies(const struct intake *in)
{
	list_for_each (node, &in->clients) {
		if (list_entry(node, struct client, link)->replies.len > 0)
			return true;
	}
	return false;
}

const struct intake_counts *intake_counts(const struct intake *in)
{
	return &in->counts;
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct intake *in = handle->data;

	in->open_handles--;
	intake_free_if_done(in);
}

void intake_hang_up(struct intake *in)
{
	in->stopped = true;
	while (!list_is_empty(&in->clients))
		client_close(list_first(&in->clients, struct client, link));
}

void intake_close(struct intake *in)
{
	in->closing = true;
	intake_hang_up(in);
	uv_close((uv_handle_t *)&in->poll, on_handle_closed);
	uv_close((uv_handle_t *)&in->pause, on_handle_closed);
}
