/* SPDX-License-Identifier: MIT */
#include "random_run.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

static const unsigned rates[] = { 1, 3, 10, 10, 37, 100, 100, 1000 };

/* What a moody server answers now and then, by weight. */
static const struct {
	int64_t code;
	unsigned status;
	enum transport_result result;
} moods[] = {
	{ 1, 200, TRANSPORT_ANSWERED },
	{ 206, 200, TRANSPORT_ANSWERED },
	{ 207, 200, TRANSPORT_ANSWERED },
	{ 104, 200, TRANSPORT_ANSWERED },
	{ 2, 200, TRANSPORT_ANSWERED },
	{ 4711, 200, TRANSPORT_ANSWERED },
	{ 100000004, 200, TRANSPORT_ANSWERED },
	{ 100000005, 200, TRANSPORT_ANSWERED },
	{ 0, 429, TRANSPORT_ANSWERED },
	{ 0, 503, TRANSPORT_ANSWERED },
	{ 0, 500, TRANSPORT_ANSWERED },
	{ 0, 0, TRANSPORT_DNS },
	{ 0, 0, TRANSPORT_TLS },
	{ 0, 0, TRANSPORT_MEMORY },
	{ 0, 0, TRANSPORT_NETWORK },
	{ 0, 0, TRANSPORT_BROKEN },
	{ 0, 0, TRANSPORT_TIMEOUT },
};

static void moody(struct sim *sim, struct flight *f)
{
	size_t i;

	if (sim_chance(sim) > 0.05)
		return;
	i = sim_below(sim, ARRAY_SIZE(moods));
	f->code = moods[i].code;
	f->status = moods[i].status;
	f->result = moods[i].result;
	f->retry_after = sim_chance(sim) < 0.3 ? sim_below(sim, 3 * SEC) : 0;
}

/* A server in front of which everything breaks for a while. */
static void broken(struct sim *sim, struct flight *f)
{
	f->result = sim->now / SEC % 7 < 2 ? TRANSPORT_CONNECT : TRANSPORT_ANSWERED;
}

static void stall(struct sim *sim)
{
	sim->hosts[0]->stalled_until = sim->now + sim_below(sim, 4 * SEC);
}

static void step_clock(struct sim *sim)
{
	sim->wall += (int64_t)(sim_below(sim, 7200 * SEC)) - (int64_t)(3600 * SEC);
}

static void nearer_server(struct sim *sim)
{
	sim->network = &network_lan;
	/* The edge sees another address before anything is sent to it. */
	scheduler_upstream_changed(&sim->hosts[0]->scheduler, sim->now);
	sim->hosts[0]->kept = 0;
}

static struct app *any_app(struct sim *sim)
{
	struct scheduler *s = &sim->hosts[0]->scheduler;

	return s->apps[sim_below(sim, s->n_apps)];
}

static void pause_one(struct sim *sim)
{
	scheduler_pause(&sim->hosts[0]->scheduler, any_app(sim), true);
}

static void resume_all(struct sim *sim)
{
	struct scheduler *s = &sim->hosts[0]->scheduler;

	for (size_t i = 0; i < s->n_apps; i++)
		scheduler_pause(s, s->apps[i], false);
}

#define PAIRS_SIZE 160

struct choice {
	char daemon[PAIRS_SIZE];
	char upstream[PAIRS_SIZE];
	char queue[PAIRS_SIZE];
	char app[PAIRS_SIZE];
	struct sim_config config;
};

/* Adds a "key = value" pair. Each takes at most one draw, since the order in which a
 * compiler evaluates arguments is its own affair and a seed shall be the same run for all. */
static void __attribute__((__format__(__printf__, 2, 3))) put(char *pairs, const char *format, ...)
{
	size_t n = strlen(pairs);
	va_list args;

	va_start(args, format);
	(void)vsnprintf(pairs + n, PAIRS_SIZE - n, format, args);
	va_end(args);
}

static unsigned below(struct sim *sim, unsigned most)
{
	return (unsigned)sim_below(sim, most);
}

static void choose(struct sim *sim, struct choice *c)
{
	*c = (struct choice){ { 0 } };
	put(c->daemon, "startup_hold = %ums", sim_chance(sim) < 0.2 ? below(sim, 2000) : 0);
	put(c->upstream, "credit = %s; ", sim_chance(sim) < 0.8 ? "auto" : "none");
	put(c->upstream, "retries = %u; ", below(sim, 4));
	put(c->upstream, "retry_ambiguous = %s; ", sim_chance(sim) < 0.3 ? "yes" : "no");
	put(c->upstream, "max_in_flight = %u; ", 1 + below(sim, sim_chance(sim) < 0.2 ? 5 : 300));
	put(c->upstream, "timeout = %ums; ", 500 + below(sim, 4500));
	put(c->upstream, "probe_interval = 2s");
	put(c->queue, "overflow = %s; ", sim_chance(sim) < 0.8 ? "oldest" : "newest");
	put(c->queue, "max_age = %ums; ", 50 + below(sim, 5000));
	put(c->queue, "queue_bytes = %uKiB", 64 + below(sim, 256));
	put(c->app, "rate = %u; ", rates[sim_below(sim, ARRAY_SIZE(rates))]);
	put(c->app, "burst = %u; ", 1 + below(sim, 20));
	put(c->app, "room_rate = %u; ", below(sim, 40));
	put(c->app, "room_in_flight = %u", sim_chance(sim) < 0.3 ? 1 : 0);
	c->config = (struct sim_config){
		.daemon = c->daemon,
		.upstream = c->upstream,
		.queue = c->queue,
		.app = c->app,
		.n_apps = 1 + below(sim, 3),
	};
}

static void reload(struct sim *sim)
{
	struct choice c;

	choose(sim, &c);
	sim_reload(sim->hosts[0], &c.config);
}

static void add_writer(struct sim *sim, struct host *h)
{
	struct writer w = { .host = h, .burst = 1 };

	w.app_id = 1 + below(sim, (unsigned)h->config->n_apps);
	w.rooms = 1 + below(sim, sim->rooms);
	w.rate = 1 + 300 * sim_chance(sim) * sim_chance(sim);
	if (sim_chance(sim) < 0.3)
		w.burst = 1 + below(sim, 50);
	if (sim_chance(sim) < 0.5)
		w.system = sim_chance(sim) / 4;
	if (sim_chance(sim) < 0.3)
		w.ttl_ms = 1 + below(sim, 8000);
	w.group = (int)below(sim, SIM_GROUPS);
	if (sim_chance(sim) < 0.5)
		w.for_ns = SEC + sim_below(sim, 20 * SEC);
	sim_write(sim, &w);
}

static void add_writers(struct sim *sim, struct host *h)
{
	uint64_t n = 1 + sim_below(sim, 5);

	for (uint64_t i = 0; i < n; i++)
		add_writer(sim, h);
}

static void add_events(struct sim *sim)
{
	static const struct {
		action_fn fn;
		double chance;
	} happenings[] = {
		{ stall, 0.2 },  { step_clock, 0.2 }, { nearer_server, 0.1 }, { reload, 0.3 },
		{ reload, 0.1 }, { pause_one, 0.2 },  { resume_all, 0.2 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(happenings); i++) {
		if (sim_chance(sim) < happenings[i].chance)
			sim_at(sim, sim_below(sim, 15 * SEC), happenings[i].fn);
	}
	sim_at(sim, 20 * SEC, resume_all); /* or else it never ends */
	if (sim_chance(sim) < 0.2)
		sim->start_failures = 0.02;
	if (sim_chance(sim) < 0.1)
		sim->random_failures = 0.02;
}

/* A limiter that counts as we do must have had nothing to refuse. */
static void check_refusals(struct sim *sim)
{
	if (sim->server.limiter == LIMITER_GCRA)
		return;
	for (size_t i = 0; i < sim->server.n_accounts; i++) {
		const struct account *a = &sim->server.accounts[i];

		if (a->refused > 0)
			sim_fail(sim, "the server refused %" PRIu64 " of AppID %u", a->refused,
				 a->app_id);
	}
}

static void shut_down(struct sim *sim)
{
	struct scheduler *s = &sim->hosts[0]->scheduler;

	scheduler_drain(s);
	sim_run(sim, sim_below(sim, 5 * SEC));
	scheduler_drop(s, sim->now);
	sim_turn(sim->hosts[0]);
	if (sim_chance(sim) < 0.5)
		sim_run(sim, SEC);
	scheduler_abort(s, sim->now);
	sim_turn(sim->hosts[0]);
	if (!scheduler_is_empty(s))
		sim_fail(sim, "not empty after everything was aborted");
}

const char *random_run(uint64_t seed, uint64_t *trace)
{
	static char failure[sizeof(((struct sim *)0)->failure)];
	struct sim *sim = sim_new(seed, NULL, LIMITER_NONE);
	struct choice c;

	sim->network = sim_any_network(sim);
	if (sim_chance(sim) < 0.5)
		sim->content = 1 + sim_below(sim, 1024);
	sim->server.limiter = (enum limiter)sim_below(sim, _LIMITER_N);
	if (sim_chance(sim) < 0.5)
		sim->server.answer = sim_chance(sim) < 0.8 ? moody : broken;
	choose(sim, &c);
	add_writers(sim, sim_host(sim, &c.config));
	add_events(sim);
	sim_run(sim, 5 * SEC + sim_below(sim, 15 * SEC));
	if (sim_chance(sim) < 0.3)
		shut_down(sim);
	sim_settle(sim);
	check_refusals(sim);
	memcpy(failure, sim->failure, sizeof(failure));
	*trace = sim->trace;
	sim_free(sim);
	return failure;
}
