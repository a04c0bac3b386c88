/* SPDX-License-Identifier: MIT */
/* Whatever an engine answers, and whatever is said on the channels: no AppID may use more
 * than its N, nor one that is cut off more than its share; what is called is well-formed; and
 * there is an end to the calls, until something happens.
 *
 * Input: what fails, then lines, of which each is something that happens, by its first
 * letter: u an engine is there (its run_id), d it is gone, a answer (values with tabs between,
 * # before a number), p poke, t time passes (ms), m a message comes (which AppID), c one that
 * is under way is answered, r reload (a letter for each of its bits), l leave. */
#include "core/shared.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/scheduler.h"
#include "fuzz.h"

#define APPS     3
#define CALLS    (2 * APPS + 2) /* that one thing which happens may lead to */
#define ELEMENTS 64

/* The configuration's texts are its own elsewhere. */
static char prefix[] = "test:";
static char name[] = "host";
static char somewhere[] = "unix:/engine";
static char nowhere[] = "";

struct world {
	struct transport transport;
	struct scheduler scheduler;
	struct config config[2]; /* in force, and the other */
	struct app_config apps[2][APPS];
	uint32_t app_ids[2][APPS];
	struct config *in_force;
	struct user *user;
	char run_id[64];
	uint64_t now;
};

static int start(struct transport *t, struct request *r, const struct signature *s)
{
	return 0;
}

static void forget(struct transport *t, struct request *r)
{
}

static void on_fate(void *arg, struct request *r, const struct fate_report *f)
{
}

static void on_event(void *arg, const struct scheduler_event *e)
{
}

static int on_random(void *arg, void *out, size_t n)
{
	memset(out, 'r', n);
	return 0;
}

static const struct scheduler_ops ops = {
	.fate = on_fate,
	.event = on_event,
	.random = on_random,
};

/* The bits of @how: whether there is an engine, on_lost, how many hosts, which AppIDs. */
static struct config *configure(struct world *w, unsigned how)
{
	size_t i = w->in_force == &w->config[0];
	struct config *c = &w->config[i];

	*c = (struct config){
		.redis = how & 1 ? nowhere : somewhere,
		.shared_prefix = prefix,
		.shared_name = name,
		.on_lost = how & 2 ? ON_LOST_HOLD : ON_LOST_SHARE,
		.shared_hosts = how & 4 ? 7 : 2,
		.timeout = (how & 8 ? 1 : 5) * NSEC_PER_SEC,
		.max_in_flight = 64,
		.queue_bytes = 1 << 20,
		.probe_interval = NSEC_PER_SEC,
		.apps = w->apps[i],
		.app_ids = w->app_ids[i],
		.n_apps = how & 16 ? APPS - 1 : APPS,
	};
	for (uint32_t a = 0; a < APPS; a++) {
		w->app_ids[i][a] = a + 1;
		w->apps[i][a] = (struct app_config){
			.app_id = a + 1,
			.secret = "0123456789abcdef0123456789abcdef",
			.rate = a == 0 ? 1 : a * 50,
			.burst = 50,
			.max_content = 100,
			.shared = a != 1 || !(how & 32),
			.queue = { .max_age = 3 * NSEC_PER_SEC, .queue_max = 100 },
		};
	}
	return c;
}

static void check_call(const struct world *w, const struct shared_call *call)
{
	const char *op = call->args[0];
	bool is_app = strcmp(op, "sync") == 0 || strcmp(op, "bye") == 0;

	CHECK(strcmp(call->keys[0], "test:hosts") == 0);
	CHECK(strncmp(call->keys[1], "test:app:", strlen("test:app:")) == 0);
	CHECK((strtoul(call->keys[1] + strlen("test:app:"), NULL, 10) > 0) == is_app);
	CHECK(call->n_args >= 9 && call->n_args <= SHARED_ARGS);
	CHECK(strcmp(call->args[1], name) == 0);
	CHECK(call->args[2][0] > '9'); /* no number to anybody */
	CHECK(strcmp(call->args[3], w->run_id) == 0);
	for (size_t i = 0; i < call->n_args; i++)
		CHECK(*call->args[i] && strlen(call->args[i]) < sizeof(call->args[i]) - 1);
	CHECK(!call->members || strcmp(op, "hello") == 0);
}

static void check_app(const struct world *w, struct app *app)
{
	const struct shared *s = &w->scheduler.shared;
	const struct lease *l = &app->lease;
	uint64_t most = app_allotment(app, w->now);

	CHECK(most <= app->config->rate && app_limit(app, w->now) <= app->config->rate);
	CHECK(app_share(app) <= app->config->rate);
	if (!l->shared || l->is_ending || shared_state(s, w->now) == SHARED_IN_TOUCH)
		return;
	CHECK(most <= app->config->rate / w->in_force->shared_hosts);
	CHECK(most == 0 || w->in_force->on_lost == ON_LOST_SHARE);
}

/* As the edge does after each thing that happens. */
static void turn(struct world *w)
{
	struct shared *s = &w->scheduler.shared;
	struct shared_call call;
	size_t n = 0;

	CHECK(scheduler_run(&w->scheduler, w->now) > w->now);
	if (shared_is_stuck(s, w->now)) {
		shared_down(s, w->now);
		CHECK(!shared_is_stuck(s, w->now));
		CHECK(scheduler_run(&w->scheduler, w->now) > w->now);
	}
	for (; shared_next(s, &call, w->now); n++) {
		check_call(w, &call);
		CHECK(n < CALLS);
	}
	CHECK(n == 0 || s->up);
	CHECK(!s->up || shared_due(s, w->now) > w->now);
	for (size_t i = 0; i < w->scheduler.n_apps; i++)
		check_app(w, w->scheduler.apps[i]);
	CHECK(scheduler_adds_up(&w->scheduler));
}

static void answer(struct world *w, char *text, size_t n)
{
	struct shared_value values[ELEMENTS] = { 0 };
	char *end = text + n;
	size_t count = 0;

	for (char *at = text; at <= end && count < ELEMENTS; count++) {
		char *tab = memchr(at, '\t', (size_t)(end - at));
		size_t len = (size_t)((tab ? tab : end) - at);

		if (*at == '#')
			values[count].number = strtoll(at + 1, NULL, 10);
		else
			values[count] =
				(struct shared_value){ .is_text = true, .text = at, .len = len };
		at += len + 1;
	}
	/* The edge never gives an answer that is none. */
	shared_answer(&w->scheduler.shared, values, n == 0 ? 0 : count, w->now);
}

static void submit(struct world *w, unsigned app_id)
{
	const struct peer peer = { .uid = 1 };
	struct refusal why;
	struct request *r;
	char line[128];
	int n = snprintf(line, sizeof(line),
			 "{\"AppId\":%u,\"RoomId\":\"r\",\"UserId\":\"u\","
			 "\"MessageContent\":\"c\"}",
			 app_id);

	if (request_parse(&r, w->in_force, &peer, line, (size_t)n, &why) != 0) {
		scheduler_refuse(&w->scheduler, why.fate);
		return;
	}
	r->user = user_ref(w->user);
	(void)scheduler_submit(&w->scheduler, r, w->now);
}

static void complete(struct world *w)
{
	static const char body[] = "{\"Code\":0}";
	const struct answer a = {
		.result = TRANSPORT_ANSWERED,
		.written = true,
		.status = 200,
		.body = body,
		.body_len = strlen(body),
	};

	for (size_t i = 0; i < w->scheduler.n_apps; i++) {
		struct list *in_flight = &w->scheduler.apps[i]->in[REQUEST_IN_FLIGHT];

		if (list_is_empty(in_flight))
			continue;
		scheduler_complete(&w->scheduler, list_first(in_flight, struct request, link), &a,
				   w->now);
		return;
	}
}

static void happen(struct world *w, char *line, size_t n)
{
	struct shared *s = &w->scheduler.shared;
	unsigned letter = n > 1 ? (uint8_t)line[1] : 0;
	struct config *c;

	switch (n > 0 ? line[0] : ' ') {
	case 'u':
		(void)snprintf(w->run_id, sizeof(w->run_id), "%s", letter ? line + 1 : "-");
		shared_up(s, line + 1, w->now);
		break;
	case 'd':
		shared_down(s, w->now);
		break;
	case 'a':
		if (s->up)
			answer(w, line + 1, n - 1);
		break;
	case 'p':
		shared_poked(s, line + 1, n - 1, w->now);
		break;
	case 't':
		w->now += strtoull(line + 1, NULL, 10) % 100000 * NSEC_PER_MSEC;
		break;
	case 'm':
		submit(w, letter % (APPS + 1));
		break;
	case 'c':
		complete(w);
		break;
	case 'r':
		c = configure(w, letter);
		if (scheduler_configure(&w->scheduler, c, w->now) == 0)
			w->in_force = c;
		break;
	case 'l':
		scheduler_drop(&w->scheduler, w->now);
		shared_leave(s, w->now);
		break;
	default:
		return;
	}
	turn(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world w = { .transport = { start, forget }, .now = NSEC_PER_SEC };
	char *text;
	char *next;

	if (size < 1)
		return 0;
	text = fuzz_copy(data + 1, size - 1);
	CHECK(scheduler_init(&w.scheduler, &w.transport, &ops, NULL, w.now) == 0);
	w.in_force = configure(&w, 0);
	CHECK(scheduler_configure(&w.scheduler, w.in_force, w.now) == 0);
	w.user = users_get(&w.scheduler.users, 1);
	CHECK(w.user);

	fuzz_starve(data[0]);
	for (char *line = text; line; line = next) {
		next = memchr(line, '\n', size - 1 - (size_t)(line - text));
		if (next)
			*next++ = '\0';
		happen(&w, line,
		       next ? (size_t)(next - line) - 1 : size - 1 - (size_t)(line - text));
	}
	(void)fuzz_feed();

	scheduler_abort(&w.scheduler, w.now);
	users_put(&w.scheduler.users, w.user);
	scheduler_deinit(&w.scheduler);
	free(text);
	return 0;
}
