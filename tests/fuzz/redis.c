/* SPDX-License-Identifier: MIT */
/* Whatever bytes come from where an engine should be, over either connection, in whatever
 * pieces: they are taken in or the connection ends, nothing is left behind, and no AppID may
 * use more than its N.
 *
 * Input: what fails, then bytes for the connection for calls. \xff and a letter between them:
 * h, those that follow are for the connection for hints; c, for calls again; t and one more,
 * time passes (in 10 ms); x, the connection at hand is closed. */
#include "edge/redis.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/scheduler.h"
#include "edge/clock.h"
#include "edge/log.h"
#include "fuzz.h"

#define RATE   50
#define ESCAPE 0xff

/* So many turns bring everything to rest that something has begun. */
#define TURNS 8

static uint64_t now;
static int peers[2]; /* the other ends, of calls and hints; -1: none */

uint64_t __wrap_clock_now(void);
uint64_t __wrap_clock_now(void)
{
	return now;
}

void __wrap_log_line(enum log_level level, const char *format, ...)
	__attribute__((__format__(__printf__, 2, 3)));
void __wrap_log_line(enum log_level level, const char *format, ...)
{
}

/* Hints are listened for only where calls can be made. */
redisContext *__wrap_redisConnectUnixNonBlock(const char *path);
redisContext *__wrap_redisConnectUnixNonBlock(const char *path)
{
	int *peer = &peers[peers[0] >= 0];
	int pair[2];

	CHECK(*peer < 0);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	*peer = pair[0];
	return redisConnectFd(pair[1]);
}

static void close_peer(int *peer)
{
	if (*peer >= 0)
		close(*peer);
	*peer = -1;
}

/* What has been said is heard, and an end is seen. */
static void listen_to_all(void)
{
	char bytes[4096];

	for (size_t i = 0; i < 2; i++) {
		ssize_t n = 1;

		while (peers[i] >= 0 && n > 0)
			n = recv(peers[i], bytes, sizeof(bytes), 0);
		if (n == 0)
			close_peer(&peers[i]);
	}
}

static int on_random(void *arg, void *out, size_t n)
{
	memset(out, 'r', n);
	return 0;
}

static void on_event(void *arg, const struct scheduler_event *e)
{
}

static const struct scheduler_ops ops = {
	.event = on_event,
	.random = on_random,
};

static char prefix[] = "test:";
static char name[] = "host";
static char engine[] = "unix:/engine";
static char user[] = "user";
static struct app_config app = {
	.app_id = 1,
	.secret = "0123456789abcdef0123456789abcdef",
	.rate = RATE,
	.burst = RATE,
	.shared = true,
	.queue = { .max_age = 3 * NSEC_PER_SEC, .queue_max = 100 },
};
static uint32_t app_ids[] = { 1 };
static const struct config config = {
	.redis = engine,
	.redis_user = user,
	.redis_password = "secret",
	.shared_prefix = prefix,
	.shared_name = name,
	.shared_hosts = 2,
	.timeout = 5 * NSEC_PER_SEC,
	.max_in_flight = 64,
	.queue_bytes = 1 << 20,
	.apps = &app,
	.app_ids = app_ids,
	.n_apps = 1,
};

struct world {
	uv_loop_t loop;
	struct scheduler scheduler;
	struct redis *redis;
};

/* As in edge/daemon.c. */
static void turn(struct world *w)
{
	for (int i = 0; i < TURNS; i++) {
		CHECK(scheduler_run(&w->scheduler, now) > now);
		(void)redis_turn(w->redis, now);
		listen_to_all();
		uv_run(&w->loop, UV_RUN_NOWAIT);
	}
	CHECK(app_allotment(w->scheduler.apps[0], now) <= RATE);
	CHECK(strlen(redis_trouble(w->redis, now)) < 128);
}

static void say(struct world *w, int peer, const uint8_t *data, size_t n)
{
	if (peer >= 0 && n > 0)
		(void)send(peer, data, n, MSG_NOSIGNAL);
	turn(w);
}

static void play(struct world *w, const uint8_t *data, size_t size)
{
	size_t at = 0;
	size_t who = 0;

	while (at < size) {
		const uint8_t *escape = memchr(data + at, ESCAPE, size - at);
		size_t n = escape ? (size_t)(escape - data) - at : size - at;

		say(w, peers[who], data + at, n);
		at += n + 2;
		if (!escape || at > size)
			return;
		switch (escape[1]) {
		case 'c':
		case 'h':
			who = escape[1] == 'h';
			break;
		case 'x':
			close_peer(&peers[who]);
			break;
		case 't':
			now += (at < size ? data[at++] : 0) * 10 * NSEC_PER_MSEC;
			break;
		default:
			break;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world w;
	struct transport nothing = { NULL, NULL };

	if (size < 1)
		return 0;
	now = NSEC_PER_SEC;
	peers[0] = peers[1] = -1;
	CHECK(uv_loop_init(&w.loop) == 0);
	CHECK(scheduler_init(&w.scheduler, &nothing, &ops, NULL, now) == 0);
	CHECK(scheduler_configure(&w.scheduler, &config, now) == 0);
	CHECK(redis_new(&w.redis, &w.loop, &w.scheduler.shared, &config) == 0);

	fuzz_starve(data[0]);
	turn(&w);
	play(&w, data + 1, size - 1);
	turn(&w);
	(void)fuzz_feed();

	redis_leave(w.redis, now);
	redis_close(w.redis);
	CHECK(uv_run(&w.loop, UV_RUN_DEFAULT) == 0);
	CHECK(uv_loop_close(&w.loop) == 0);
	scheduler_deinit(&w.scheduler);
	close_peer(&peers[0]);
	close_peer(&peers[1]);
	return 0;
}
