/* SPDX-License-Identifier: MIT */
/*
 * Two connections to one engine: over the first go the core's calls, over the second come
 * the hints of other hosts. What is called and what an answer means is the core's; here it
 * is carried, all calls of a turn in one write.
 *
 * hiredis comes with an asynchronous interface, and it is not used. As of 0.14 (async.c,
 * still so in later versions where not noted) it keeps a list of callbacks beside the
 * stream of replies and ignores it when one could not be noted for want of memory: from
 * then on each reply goes to the callback of another call, and here that would be
 * one AppID's tokens given to another. A reply that nobody has asked for, and a message on
 * a channel that is not as it should be, meet an assert() and end the process: what a
 * server says would decide whether messages are sent. It runs the callbacks with NULL when
 * a connection ends, from within whatever call found it out, and frees its context under
 * the caller. And its adapter for libuv ignores errors of the poll and calls
 * uv_poll_start() for each command, which costs two system calls more than the command.
 *
 * What is used is a non-blocking context: hiredis connects, writes, reads and parses, and
 * says what it has done. Replies come in the order of the calls, so there is nothing to
 * match. What to know of that part:
 *
 * - redisConnectNonBlock() looks names up with getaddrinfo(), which blocks: it is given
 *   addresses only, and edge/resolver.c finds them.
 * - It says REDIS_CONNECTED at once. Whether that is so SO_ERROR tells, once the socket
 *   can be written to.
 * - redisConnectUnixNonBlock() cuts a path that is too long, and does not end one that just
 *   fits: redis_check() refuses both. A server whose backlog is full refuses with EAGAIN, and is simply tried again.
 * - What is appended stays on the heap after it was sent, not wiped. A password is
 *   therefore sent past hiredis, from memory that is wiped.
 * - The reader takes in whatever the server sends, gigabytes if it says so: see REPLY_MOST.
 *   For an array it has the memory ready before the elements come, goes through all of it
 *   when the connection ends, which takes seconds, and takes arrays of arrays of arrays: see
 *   create_array(). It calls both "Out of memory".
 *
 * Whatever goes wrong, an error in place of a reply included, ends the connection, and a
 * new one begins with the script loaded again: no state to repair, and a server that
 * restarted, lost its scripts, became a replica or has no memory is all the same. What was
 * under way is then never answered, which the core has to bear anyway.
 */
#include "edge/redis.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "build.h"

#if HAVE_HIREDIS

#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/buffer.h"
#include "core/text.h"
#include "edge/clock.h"
#include "edge/entropy.h"
#include "edge/log.h"
#include "edge/pledge.h"
#include "edge/resolver.h"
#include "edge/vault.h"

/* From the first attempt to connect to the last answer of the greeting. */
#define GREETING_MOST (1 * NSEC_PER_SEC)

/* Between attempts, doubled after each that failed; up to half as much is added, so that
 * hosts that lost a server together do not come back together. */
#define PAUSE_LEAST (50 * NSEC_PER_MSEC)
#define PAUSE_MOST  (250 * NSEC_PER_MSEC)

/* Only a connection that has been ready for so long is one that works: the next after it
 * need not wait, and what befell the one before it is no longer told. Some faults hit no
 * call but one, which comes after others that were answered. */
#define WORKS_AFTER (1 * NSEC_PER_SEC)

/* The last words must not keep the daemon from its end. */
#define LEAVE_MOST (500 * NSEC_PER_MSEC)

/* Replies are some hundred bytes; the names of a thousand hosts are 64 KiB. */
#define REPLY_MOST ((size_t)(1024 * 1024))

/* "EVALSHA", the script's name, "2", the keys, the arguments, the members. */
#define WORDS_MOST (3 + 2 + SHARED_ARGS + 1)

/* A reply is a flat array of less than ten. */
#define ELEMENTS_MOST 64

#define SHA_LEN 40

#if HIREDIS_MAJOR > 0
typedef size_t n_elements;
#else
typedef int n_elements;
#endif

/* Bytes of a path that hiredis passes on as they are. */
#define PATH_MOST (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 2)

struct address {
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)]; /* "": over TCP */
	char host[256];
	int port;
};

enum phase {
	PHASE_NONE,       /* waits for retry_at */
	PHASE_CONNECTING, /* the kernel is at it */
	PHASE_GREETING,   /* what has to be said first is not answered yet */
	PHASE_READY,
};

/* libuv's handle outlives its connection, which may be followed by another meanwhile. */
struct watch {
	uv_poll_t poll;
	struct redis *redis;
	struct line *line; /* NULL: closing */
};

struct line {
	struct redis *redis;
	const char *name; /* for logs */
	enum phase phase;
	redisContext *context; /* NULL in PHASE_NONE */
	struct watch *watch;
	int events;
	uint64_t deadline; /* of connecting and greeting */
	uint64_t ready_at; /* when it was */
	uint64_t retry_at;
	uint64_t pause;
	bool is_heard;     /* it has answered something */
	unsigned greeted;  /* answers of the greeting so far */
	char trouble[128]; /* the last; "": none since it was wanted */
	/* Says what has to be said first, and takes a reply. */
	void (*greet)(struct line *l);
	void (*take)(struct line *l, const redisReply *reply, uint64_t now);
};

struct redis {
	uv_loop_t *loop;
	struct shared *shared;
	const struct config *config; /* borrowed */
	struct address address;
	struct resolver *resolver;
	bool is_named; /* the resolver knows the address's host */
	struct line calls;
	struct line hints;
	struct pledge pledge;
	redisReplyObjectFunctions making; /* of replies, by the reader */
	void *(*make_array)(const redisReadTask *task, n_elements n); /* hiredis' own */
	bool has_refused;                                             /* the last array */
	char sha[SHA_LEN + 1];                                        /* the script's name */
	char run_id[64];
	char own[SHARED_KEY]; /* channels */
	char all[SHARED_KEY];
	enum shared_state state; /* last seen */
	enum shared_state told;  /* last logged */
	uint64_t leave_by;       /* 0: not leaving */
	unsigned watches;        /* not yet closed by libuv */
	bool closing;
	struct log_limit limits[_SHARED_STATE_N];
	struct log_limit troubles;
	struct entropy entropy;
	struct redis_counts counts;
};

/* Addresses. */

static bool parse_tcp(struct address *out, const char *text)
{
	const char *colon = strrchr(text, ':');
	size_t n = colon ? (size_t)(colon - text) : 0;
	struct in6_addr v6;
	uint64_t port;

	if (n == 0 || n >= sizeof(out->host) ||
	    !parse_u64(colon + 1, strlen(colon + 1), 65535, &port) || port == 0)
		return false;
	out->port = (int)port;
	if (text[0] == '[' && text[n - 1] == ']') {
		memcpy(out->host, text + 1, n - 2);
		return uv_inet_pton(AF_INET6, out->host, &v6) == 0;
	}
	memcpy(out->host, text, n);
	return strspn(out->host,
		      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

/* Of unix:/path; NULL: it is no such text. */
static const char *unix_path(const char *text)
{
	return strncmp(text, "unix:/", 6) == 0 ? strchr(text, '/') : NULL;
}

static bool parse_address(struct address *out, const char *text)
{
	const char *path = unix_path(text);
	size_t n = path ? strlen(path) : 0;

	*out = (struct address){ .port = 0 };
	if (path && n <= PATH_MOST) {
		memcpy(out->path, path, n);
		return true;
	}
	return strncmp(text, "tcp:", 4) == 0 && parse_tcp(out, text + 4);
}

int redis_check(const char *text, struct config_error *why)
{
	const char *path = unix_path(text);
	const char *port = strrchr(text, ':');
	struct address address;
	char quoted[CONFIG_QUOTED];
	uint64_t n;

	if (!*text || parse_address(&address, text))
		return 0;
	if (path)
		return config_refuse(why, "redis: the path has %zu bytes, and may have %zu",
				     strlen(path), PATH_MOST);
	if (strncmp(text, "tcp:", 4) == 0 && port > text + 4 && port[1] >= '0' && port[1] <= '9' &&
	    (!parse_u64(port + 1, strlen(port + 1), 65535, &n) || n == 0))
		return config_refuse(why, "redis: \"%s\" is no port (1 to 65535)",
				     config_quoted(quoted, port + 1));
	return config_refuse(why,
			     "redis: \"%s\" is neither unix:/absolute/path nor tcp:host:port (such "
			     "as tcp:10.0.0.7:6379 or tcp:[fd00::7]:6379)",
			     config_quoted(quoted, text));
}

/* Connections. */

static void redis_free_if_done(struct redis *r)
{
	if (!r->closing || r->watches > 0)
		return;
	free(r);
}

static void on_watch_closed(uv_handle_t *handle)
{
	struct watch *w = container_of(handle, struct watch, poll);
	struct redis *r = w->redis;

	free(w);
	r->watches--;
	redis_free_if_done(r);
}

/* Ends the connection. */
static void hang_up(struct line *l)
{
	if (l->watch) {
		l->watch->line = NULL;
		uv_poll_stop(&l->watch->poll);
		uv_close((uv_handle_t *)&l->watch->poll, on_watch_closed);
		l->watch = NULL;
	}
	redisFree(l->context);
	l->context = NULL;
	l->phase = PHASE_NONE;
}

/* Also, what the kernel still has of it to send is not sent: it would be a call out of
 * time. The core learns that nothing will be answered. */
static void give_up(struct line *l)
{
	const struct linger at_once = { .l_onoff = 1 };
	struct redis *r = l->redis;
	bool was_ready = l->phase == PHASE_READY;

	if (l->context && l->context->fd > 0) /* hiredis has 0 for none */
		(void)setsockopt(l->context->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	hang_up(l);
	if (was_ready && l == &r->calls)
		shared_down(r->shared, clock_now());
}

static bool works(const struct line *l, uint64_t now)
{
	return l->phase == PHASE_READY && now >= l->ready_at + WORKS_AFTER;
}

static void pause_line(struct line *l, uint64_t now)
{
	uint64_t some = 0;

	(void)entropy_draw(&l->redis->entropy, &some, sizeof(some)); /* without, all come at once */
	l->pause = l->pause == 0 ? PAUSE_LEAST : min_u64(2 * l->pause, PAUSE_MOST);
	l->retry_at = now + l->pause + some % (l->pause / 2);
}

static void trouble(struct line *l, const char *format, ...)
	__attribute__((__format__(__printf__, 2, 3)));

/* The connection cannot be used, or not any more. The other one goes with it if it was
 * that of the calls: whatever befell this one may have befallen that one unseen. */
static void trouble(struct line *l, const char *format, ...)
{
	struct redis *r = l->redis;
	uint64_t now = clock_now();
	uint64_t before;
	va_list args;

	va_start(args, format);
	(void)vsnprintf(l->trouble, sizeof(l->trouble), format, args);
	va_end(args);
	if (works(l, now))
		l->pause = 0;
	r->counts.failed++;
	if (log_permit(&r->troubles, &before, now))
		log_warning("shared: the connection for %s to %s cannot be used: %s%s", l->name,
			    r->config->redis, log_quote(l->trouble, strlen(l->trouble)).text,
			    log_repeats(before).text);
	give_up(l);
	pause_line(l, now);
	if (l == &r->calls)
		give_up(&r->hints);
}

static void on_event(uv_poll_t *poll, int status, int events);

static bool listen_for(struct line *l, int events)
{
	int r;

	if (l->events == events)
		return true;
	r = uv_poll_start(&l->watch->poll, events, on_event);
	if (r < 0) {
		trouble(l, "%s", strerror(-r));
		return false;
	}
	l->events = events;
	return true;
}

/* What hiredis has to say of an error. */
static void line_failed(struct line *l, const char *what)
{
	trouble(l, "%s: %s", what, l->context->errstr);
}

static void receive(struct line *l, const char *befell, uint64_t now);

/* The connection was reset, perhaps after the server has said why: to whoever has not
 * logged in the script is too long to be listened to. */
static void hear_out(struct line *l, const char *what)
{
	l->context->err = 0; /* or hiredis does not read any more */
	receive(l, what, clock_now());
	if (l->context)
		trouble(l, "%s", what);
}

/* Sends what has been appended, or as much of it as the socket takes. */
static void flush(struct line *l)
{
	int done = 0;

	if (redisBufferWrite(l->context, &done) != REDIS_OK)
		hear_out(l, strerror(errno));
	else
		(void)listen_for(l, done ? UV_READABLE : UV_READABLE | UV_WRITABLE);
}

static bool append(struct line *l, int n, const char **words)
{
	if (redisAppendCommandArgv(l->context, n, words, NULL) == REDIS_OK)
		return true;
	line_failed(l, "calling");
	return false;
}

static void put_word(char *out, size_t size, size_t *n, const char *word)
{
	*n += (size_t)snprintf(out + *n, size - *n, "$%zu\r\n%s\r\n", strlen(word), word);
}

/* AUTH, past hiredis. Nothing has been sent before, so the socket takes it as a whole. */
static bool log_in(struct line *l)
{
	const struct config *c = l->redis->config;
	char command[VAULT_SECRET_MAX + 256];
	ssize_t sent;
	size_t n = 0;

	n += (size_t)snprintf(command, sizeof(command), "*%d\r\n", *c->redis_user ? 3 : 2);
	put_word(command, sizeof(command), &n, "AUTH");
	if (*c->redis_user)
		put_word(command, sizeof(command), &n, c->redis_user);
	put_word(command, sizeof(command), &n, c->redis_password);
	sent = send(l->context->fd, command, n, MSG_NOSIGNAL);
	explicit_bzero(command, sizeof(command));
	if (sent == (ssize_t)n)
		return true;
	trouble(l, "logging in: %s", sent < 0 ? strerror(errno) : "cut short");
	return false;
}

/* What befell the socket; libuv has one code for all of it. 0: nothing that it would tell. */
static int error_of(const struct line *l)
{
	socklen_t size = sizeof(int);
	int error = 0;

	if (getsockopt(l->context->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		return errno;
	return error;
}

static void on_connected(struct line *l)
{
	int error = error_of(l);

	if (error) {
		trouble(l, "connecting: %s", strerror(error));
		resolver_rotate(l->redis->resolver);
		return;
	}
	l->phase = PHASE_GREETING;
	l->is_heard = false;
	l->greeted = 0;
	l->redis->counts.opened++;
	if (l->redis->config->redis_password && !log_in(l))
		return;
	l->greet(l);
	if (l->context)
		flush(l);
}

/* Takes in what has come. The connection may be gone on return. @befell is what has been
 * found out about it before, which reading does not tell any more; or NULL. */
static void receive(struct line *l, const char *befell, uint64_t now)
{
	if (redisBufferRead(l->context) != REDIS_OK) {
		trouble(l, "receiving: %s", befell ? befell : l->context->errstr);
		return;
	}
	while (l->context) {
		void *reply = NULL;

		l->redis->has_refused = false;
		if (redisGetReplyFromReader(l->context, &reply) != REDIS_OK) {
			if (l->redis->has_refused) /* "Out of memory" */
				trouble(l, "an array that is too long, or within another");
			else
				line_failed(l, "what it sends is no reply");
			return;
		}
		if (!reply)
			break;
		l->take(l, reply, now);
		freeReplyObject(reply);
	}
	if (l->context && l->context->reader->len - l->context->reader->pos > REPLY_MOST)
		trouble(l, "a reply of more than %zu bytes", REPLY_MOST);
}

static void on_event(uv_poll_t *poll, int status, int events)
{
	struct watch *w = container_of(poll, struct watch, poll);
	struct line *l = w->line;

	if (!l)
		return;
	if (status < 0 && l->phase != PHASE_CONNECTING) {
		int error = error_of(l);

		hear_out(l, error ? strerror(error) : "it is broken");
		return;
	}
	/* Of one that failed to connect, SO_ERROR tells why. libuv does not watch it any more. */
	if (l->phase == PHASE_CONNECTING) {
		l->events = status < 0 ? 0 : l->events;
		on_connected(l);
		return;
	}
	if (events & UV_READABLE)
		receive(l, NULL, clock_now());
	if (l->context && events & UV_WRITABLE)
		flush(l);
}

/* The address to connect to: the first that the resolver has. NULL: none yet. */
static const char *next_address(struct redis *r, char out[INET6_ADDRSTRLEN], uint64_t now)
{
	const char *list;
	size_t n;

	if (!r->is_named) {
		char *host = strdup(r->address.host);

		if (!host)
			return NULL;
		resolver_set_host(r->resolver, host);
		r->is_named = true;
	}
	list = resolver_addresses(r->resolver, now);
	if (!list)
		return NULL;
	list += *list == '[';
	n = strcspn(list, "],");
	(void)snprintf(out, INET6_ADDRSTRLEN, "%.*s", (int)n, list);
	return out;
}

/* Whoever only listens would never find out that the other end is gone: it may have been
 * switched off, or a firewall may have forgotten about the two. */
static void keep_alive(int fd)
{
	const int yes = 1;
	const int seconds = 15;

	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof(yes));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof(seconds));
}

static void *create_array(const redisReadTask *task, n_elements n)
{
	struct redis *r = task->privdata;

	r->has_refused = n > ELEMENTS_MOST || task->parent;
	return r->has_refused ? NULL : r->make_array(task, n);
}

static void bound_replies(struct redis *r, redisReader *reader)
{
	r->making = *reader->fn;
	r->make_array = r->making.createArray;
	r->making.createArray = create_array;
	reader->fn = &r->making;
	reader->privdata = r;
}

static bool watch_line(struct line *l)
{
	struct watch *w = calloc(1, sizeof(*w));

	if (!w || uv_poll_init(l->redis->loop, &w->poll, l->context->fd) < 0) {
		free(w);
		trouble(l, "no memory to watch it");
		return false;
	}
	w->redis = l->redis;
	w->line = l;
	l->watch = w;
	l->events = 0;
	l->redis->watches++;
	return true;
}

static void connect_line(struct line *l, uint64_t now)
{
	struct redis *r = l->redis;
	char text[INET6_ADDRSTRLEN];
	const char *address = NULL;

	if (!*r->address.path) {
		address = next_address(r, text, now);
		if (!address) {
			/* on_resolved() brings the loop back before; a look-up that failed is
			 * repeated after a pause of its own. */
			if (!resolver_is_asking(r->resolver))
				trouble(l, "the host's name has no address");
			else
				l->retry_at = now + PAUSE_MOST;
			return;
		}
	}
	l->context = address ? redisConnectNonBlock(address, r->address.port)
			     : redisConnectUnixNonBlock(r->address.path);
	if (!l->context) {
		trouble(l, "no memory for a connection");
		return;
	}
	if (l->context->err || l->context->fd <= 0) {
		line_failed(l, "connecting");
		resolver_rotate(r->resolver);
		return;
	}
	bound_replies(r, l->context->reader);
	if (address)
		keep_alive(l->context->fd);
	l->phase = PHASE_CONNECTING;
	l->deadline = now + GREETING_MOST;
	if (watch_line(l))
		(void)listen_for(l, UV_WRITABLE);
}

/* An answer to what was said first. Returns whether it is one to go on with. */
static bool is_welcome(struct line *l, const redisReply *reply)
{
	const char *password = l->redis->config->redis_password;
	bool echoes = !l->is_heard && password;

	l->is_heard = true;
	if (reply->type != REDIS_REPLY_ERROR)
		return true;
	/* A server that does not know AUTH repeats what came with it, or some of it. */
	echoes |= password && strstr(reply->str, password);
	trouble(l, "it answers: %.*s", echoes ? (int)strcspn(reply->str, " ") : INT_MAX,
		reply->str);
	return false;
}

static void line_ready(struct line *l, uint64_t now)
{
	l->phase = PHASE_READY;
	l->ready_at = now;
	l->deadline = NEVER;
}

/* The connection for calls. */

static void greet_for_calls(struct line *l)
{
	const char *info[] = { "INFO", "server" };
	const char *load[] = { "SCRIPT", "LOAD", shared_script };

	if (append(l, ARRAY_SIZE(info), info))
		(void)append(l, ARRAY_SIZE(load), load);
}

/* run_id:0123… is a line of it. */
static bool find_run_id(struct redis *r, const redisReply *info)
{
	const char *line = info->type == REDIS_REPLY_STRING ? strstr(info->str, "\nrun_id:") : NULL;
	size_t n;

	if (!line)
		return false;
	line += strlen("\nrun_id:");
	n = strcspn(line, "\r\n");
	if (n == 0 || n >= sizeof(r->run_id))
		return false;
	memcpy(r->run_id, line, n);
	r->run_id[n] = '\0';
	return true;
}

static void take_greeting(struct line *l, const redisReply *reply, uint64_t now)
{
	struct redis *r = l->redis;
	/* The first answer is that to AUTH, if there was one. */
	unsigned n = l->greeted++ + (r->config->redis_password ? 0 : 1);

	if (!is_welcome(l, reply) || n == 0)
		return;
	if (n == 1) {
		if (!find_run_id(r, reply))
			trouble(l, "it does not tell its run_id");
		return;
	}
	if (reply->type != REDIS_REPLY_STRING || reply->len != SHA_LEN) {
		trouble(l, "it does not tell the script's name");
		return;
	}
	memcpy(r->sha, reply->str, SHA_LEN + 1);
	line_ready(l, now);
	shared_up(r->shared, r->run_id, now);
}

static struct shared_value value_of(const redisReply *reply)
{
	struct shared_value v = { .number = reply->integer };

	if (reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS) {
		v.is_text = true;
		v.text = reply->str;
		v.len = (size_t)reply->len;
	}
	return v;
}

static void take_answer(struct line *l, const redisReply *reply, uint64_t now)
{
	struct redis *r = l->redis;
	struct shared_value values[ELEMENTS_MOST];
	size_t n = reply->type == REDIS_REPLY_ARRAY ? reply->elements : 0;

	if (!is_welcome(l, reply))
		return;
	assert(n <= ARRAY_SIZE(values)); /* create_array() */
	if (n == 0) {
		trouble(l, "an answer that is none");
		return;
	}
	for (size_t i = 0; i < n; i++)
		values[i] = value_of(reply->element[i]);
	if (shared_is_stuck(r->shared, now)) {
		trouble(l, "no answer in time");
		return;
	}
	shared_answer(r->shared, values, n, now);
	if (shared_is_stuck(r->shared, now))
		trouble(l, "an answer that is not understood");
}

static void take_on_calls(struct line *l, const redisReply *reply, uint64_t now)
{
	if (l->phase == PHASE_GREETING)
		take_greeting(l, reply, now);
	else
		take_answer(l, reply, now);
}

static bool append_call(struct line *l, const struct shared_call *call)
{
	const char *words[WORDS_MOST] = { "EVALSHA", l->redis->sha, "2", call->keys[0],
					  call->keys[1] };
	int n = 5;

	for (size_t i = 0; i < call->n_args; i++)
		words[n++] = call->args[i];
	if (call->members)
		words[n++] = call->members;
	return append(l, n, words);
}

static void send_calls(struct redis *r, uint64_t now)
{
	struct line *l = &r->calls;
	struct shared_call call;
	uint64_t n = 0;

	while (l->phase == PHASE_READY && shared_next(r->shared, &call, now)) {
		if (append_call(l, &call))
			n++;
	}
	r->counts.calls += n;
	if (n > 0 && l->phase == PHASE_READY)
		flush(l);
}

/* The connection for hints. */

static void greet_for_hints(struct line *l)
{
	struct redis *r = l->redis;
	const char *subscribe[] = { "SUBSCRIBE", r->own, r->all };

	shared_channels(r->shared, r->own, r->all);
	(void)append(l, ARRAY_SIZE(subscribe), subscribe);
}

static void take_hint(struct line *l, const redisReply *reply, uint64_t now)
{
	struct redis *r = l->redis;

	if (!is_welcome(l, reply))
		return;
	if (reply->type != REDIS_REPLY_ARRAY) /* AUTH's "OK" */
		return;
	if (reply->elements != 3 || reply->element[0]->type != REDIS_REPLY_STRING) {
		trouble(l, "a message that is none");
		return;
	}
	if (strcmp(reply->element[0]->str, "message") != 0) {
		if (++l->greeted == 2)
			line_ready(l, now);
		return;
	}
	if (reply->element[2]->type != REDIS_REPLY_STRING)
		return;
	r->counts.hints++;
	shared_poked(r->shared, reply->element[2]->str, (size_t)reply->element[2]->len, now);
}

/* The whole. */

static const struct {
	enum log_level level;
	const char *sentence;
} state_lines[] = {
	[SHARED_OFF] = { LOG_LEVEL_INFO, "shared: no AppID's budget is shared any more" },
	[SHARED_JOINING] = { LOG_LEVEL_INFO, "shared: not yet in touch; what is shared waits" },
	[SHARED_IN_TOUCH] = { LOG_LEVEL_INFO, "shared: in touch" },
	[SHARED_LOST] = { LOG_LEVEL_ERROR,
			  "shared: out of touch; going on with this host's share" },
	[SHARED_TAKEN] = { LOG_LEVEL_ERROR, "shared: another process goes by this host's name, and "
					    "what is shared waits" },
};

/* A state that is not told because it was told a moment ago is told later, if it is still
 * the state then: whoever reads the log's last word on it is not misled. */
static bool may_tell(struct redis *r, bool changed, uint64_t *before, uint64_t now)
{
	struct log_limit *limit = &r->limits[r->state];

	*before = 0;
	if (r->state == r->told || (!changed && now < limit->next))
		return false;
	return log_permit(limit, before, now);
}

static void note_state(struct redis *r, uint64_t now)
{
	enum shared_state state = shared_state(r->shared, now);
	_cleanup_(buffer_deinit) struct buffer line = { 0 };
	const char *trouble = redis_trouble(r, now);
	bool changed = state != r->state;
	uint64_t before;

	if (changed)
		r->counts.since = clock_wall();
	r->state = state;
	if (r->leave_by > 0) /* whoever leaves shares nothing any more, and has said so */
		return;
	if (!may_tell(r, changed, &before, now))
		return;
	r->told = state;
	buffer_puts(&line, state == SHARED_LOST && r->config->on_lost == ON_LOST_HOLD
				   ? "shared: out of touch; what is shared waits"
				   : state_lines[state].sentence);
	buffer_printf(&line, ": name=%s redis=%s", r->config->shared_name, r->config->redis);
	if (state == SHARED_LOST && *trouble)
		buffer_printf(&line, " trouble=%s", log_quote(trouble, strlen(trouble)).text);
	if (!line.failed)
		log_line(state_lines[state].level, "%s%s", line.data, log_repeats(before).text);
}

/* Keeps a connection, or makes one. Returns when it wants to be looked at again. */
static uint64_t tend(struct line *l, bool wanted, uint64_t now)
{
	if (!wanted) {
		give_up(l);
		l->trouble[0] = '\0';
		return NEVER;
	}
	if ((l->phase == PHASE_CONNECTING || l->phase == PHASE_GREETING) && now >= l->deadline) {
		bool was_connecting = l->phase == PHASE_CONNECTING;

		trouble(l, was_connecting ? "connecting takes too long" : "it does not answer");
		if (was_connecting)
			resolver_rotate(l->redis->resolver);
	}
	if (l->phase == PHASE_NONE && now >= l->retry_at)
		connect_line(l, now);
	return l->phase == PHASE_NONE ? l->retry_at : l->deadline;
}

uint64_t redis_turn(struct redis *r, uint64_t now)
{
	bool wanted = shared_state(r->shared, now) != SHARED_OFF || !shared_is_silent(r->shared);
	uint64_t next;

	if (wanted)
		pledge_open(&r->pledge, r->shared, r->config->socket);
	if (pledge_keep(&r->pledge, r->shared, now))
		return now;
	if (r->calls.phase == PHASE_READY && shared_is_stuck(r->shared, now)) {
		trouble(&r->calls, "no answer in time");
		note_state(r, now);
		return now;
	}
	send_calls(r, now);
	next = tend(&r->calls, wanted, now);
	next = min_u64(next, tend(&r->hints, wanted && r->calls.phase == PHASE_READY, now));
	note_state(r, now);
	if (r->leave_by > 0)
		next = min_u64(next, r->leave_by);
	return min_u64(next, shared_due(r->shared, now));
}

void redis_leave(struct redis *r, uint64_t now)
{
	if (r->leave_by > 0)
		return;
	r->leave_by = now + LEAVE_MOST;
	shared_leave(r->shared, now);
	send_calls(r, now);
}

bool redis_has_left(const struct redis *r, uint64_t now)
{
	return r->leave_by > 0 && (shared_is_silent(r->shared) || now >= r->leave_by);
}

const char *redis_trouble(const struct redis *r, uint64_t now)
{
	if (!works(&r->calls, now) && *r->calls.trouble)
		return r->calls.trouble;
	return works(&r->hints, now) ? "" : r->hints.trouble;
}

const struct redis_counts *redis_counts(const struct redis *r)
{
	return &r->counts;
}

/* Addresses have come, or failed to: the turn that follows sees to it. */
static void on_resolved(void *arg, const char *addresses, bool changed)
{
	struct redis *r = arg;

	if (addresses)
		r->calls.retry_at = 0;
}

static void line_init(struct line *l, struct redis *r, const char *name)
{
	l->redis = r;
	l->name = name;
}

int redis_new(struct redis **out, uv_loop_t *loop, struct shared *s, const struct config *c)
{
	struct redis *r = calloc(1, sizeof(*r));
	int result;

	if (!r)
		return -ENOMEM;
	r->loop = loop;
	r->shared = s;
	r->config = c;
	line_init(&r->calls, r, "calls");
	r->calls.greet = greet_for_calls;
	r->calls.take = take_on_calls;
	line_init(&r->hints, r, "hints");
	r->hints.greet = greet_for_hints;
	r->hints.take = take_hint;
	result = resolver_new(&r->resolver, loop, on_resolved, r);
	if (result < 0) {
		free(r);
		return result;
	}
	(void)parse_address(&r->address, c->redis);
	*out = r;
	return 0;
}

static bool is_same(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") == 0;
}

/* To another address, or as another user. */
static void move(struct redis *r)
{
	r->is_named = false;
	r->calls.trouble[0] = r->hints.trouble[0] = '\0';
	give_up(&r->calls);
	give_up(&r->hints);
	r->calls.retry_at = 0;
}

void redis_configure(struct redis *r, const struct config *c)
{
	const struct config *old = r->config;
	struct address address;
	bool same = is_same(old->redis, c->redis) && is_same(old->redis_user, c->redis_user) &&
		    is_same(old->redis_password, c->redis_password);

	r->config = c;
	/* Without an address, the core still says goodbye to where it was. */
	if (same || !parse_address(&address, c->redis))
		return;
	r->address = address;
	move(r);
}

void redis_close(struct redis *r)
{
	if (!r)
		return;
	r->closing = true;
	hang_up(&r->calls);
	hang_up(&r->hints);
	resolver_close(r->resolver);
	pledge_close(&r->pledge);
	redis_free_if_done(r);
}

#else

int redis_check(const char *text, struct config_error *why)
{
	return *text ? config_refuse(why, "redis: this barraged was built without hiredis") : 0;
}

int redis_new(struct redis **out, uv_loop_t *loop, struct shared *s, const struct config *c)
{
	return -ENOTSUP;
}

void redis_configure(struct redis *r, const struct config *c)
{
}

uint64_t redis_turn(struct redis *r, uint64_t now)
{
	return NEVER;
}

void redis_leave(struct redis *r, uint64_t now)
{
}

bool redis_has_left(const struct redis *r, uint64_t now)
{
	return true;
}

const char *redis_trouble(const struct redis *r, uint64_t now)
{
	return "";
}

const struct redis_counts *redis_counts(const struct redis *r)
{
	return NULL;
}

void redis_close(struct redis *r)
{
}

#endif
