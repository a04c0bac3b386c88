/* SPDX-License-Identifier: MIT */
#include "random_run.h"

#include <inttypes.h>
#include <string.h>

static const struct network *const networks[] = {
	&network_lan,
	&network_wan,
	&network_wan_spikes,
	&network_mobile_bad,
	&(const struct network){
		.name = "lossy", .out = 5 * MS, .back = 30 * MS, .jitter = 2 * MS, .lost = 0.02 },
};

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
	scheduler_upstream_changed(&sim->hosts[0]->scheduler);
	sim->hosts[0]->kept = 0;
}

struct choice {
	char upstream[160];
	char queue[160];
	char app[160];
	struct sim_config config;
};

static void choose(struct sim *sim, struct choice *c)
{
	unsigned rate = rates[sim_below(sim, ARRAY_SIZE(rates))];

	snprintf(c->upstream, sizeof(c->upstream),
		 "credit = %s; retries = %u; retry_ambiguous = %s; max_in_flight = %u; "
		 "timeout = %ums; probe_interval = 2s",
		 sim_chance(sim) < 0.8 ? "auto" : "none", (unsigned)sim_below(sim, 4),
		 sim_chance(sim) < 0.3 ? "yes" : "no", 1 + (unsigned)sim_below(sim, 300),
		 500 + (unsigned)sim_below(sim, 4500));
	snprintf(c->queue, sizeof(c->queue), "overflow = %s; max_age = %ums; queue_bytes = %uKiB",
		 sim_chance(sim) < 0.8 ? "oldest" : "newest", 50 + (unsigned)sim_below(sim, 5000),
		 64 + (unsigned)sim_below(sim, 256));
	snprintf(c->app, sizeof(c->app),
		 "rate = %u; burst = %u; room_rate = %u; room_in_flight = %u", rate,
		 1 + (unsigned)sim_below(sim, 20), (unsigned)sim_below(sim, 40),
		 sim_chance(sim) < 0.3 ? 1 : 0);
	c->config = (struct sim_config){
		.upstream = c->upstream,
		.queue = c->queue,
		.app = c->app,
		.n_apps = 1 + (uint32_t)sim_below(sim, 3),
	};
}

static void reload(struct sim *sim)
{
	struct choice c;

	choose(sim, &c);
	sim_reload(sim->hosts[0], &c.config);
}

static void add_writers(struct sim *sim, struct host *h)
{
	uint64_t n = 1 + sim_below(sim, 5);

	for (uint64_t i = 0; i < n; i++) {
		struct writer w = {
			.host = h,
			.app_id = 1 + (uint32_t)sim_below(sim, h->config->n_apps),
			.rooms = 1 + (uint32_t)sim_below(sim, sim->rooms),
			.rate = 1 + 300 * sim_chance(sim) * sim_chance(sim),
			.burst = sim_chance(sim) < 0.3 ? 1 + (unsigned)sim_below(sim, 50) : 1,
			.system = sim_chance(sim) < 0.5 ? sim_chance(sim) / 4 : 0,
			.ttl_ms = sim_chance(sim) < 0.3 ? 1 + (uint32_t)sim_below(sim, 8000) : 0,
			.for_ns = sim_chance(sim) < 0.5 ? SEC + sim_below(sim, 20 * SEC) : 0,
		};

		sim_write(sim, &w);
	}
}

static void add_events(struct sim *sim)
{
	static const struct {
		action_fn fn;
		double chance;
	} happenings[] = {
		{ stall, 0.2 },  { step_clock, 0.2 }, { nearer_server, 0.1 },
		{ reload, 0.3 }, { reload, 0.1 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(happenings); i++) {
		if (sim_chance(sim) < happenings[i].chance)
			sim_at(sim, sim_below(sim, 15 * SEC), happenings[i].fn);
	}
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
	sim_run(sim, SEC);
	scheduler_abort(s, sim->now);
	if (!scheduler_is_empty(s))
		sim_fail(sim, "not empty after everything was aborted");
}

const char *random_run(uint64_t seed)
{
	static char failure[sizeof(((struct sim *)0)->failure)];
	struct sim *sim = sim_new(seed, NULL, LIMITER_NONE);
	struct choice c;

	sim->network = networks[sim_below(sim, ARRAY_SIZE(networks))];
	sim->server.limiter = (enum limiter)sim_below(sim, _LIMITER_N);
	if (sim_chance(sim) < 0.5)
		sim->server.answer = sim_chance(sim) < 0.8 ? moody : broken;
	choose(sim, &c);
	add_writers(sim, sim_host(sim, &c.config));
	add_events(sim);
	sim_run(sim, 5 * SEC + sim_below(sim, 15 * SEC));
	if (sim_chance(sim) < 0.2)
		shut_down(sim);
	sim_settle(sim);
	check_refusals(sim);
	memcpy(failure, sim->failure, sizeof(failure));
	sim_free(sim);
	return failure;
}
