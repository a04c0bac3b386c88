/* SPDX-License-Identifier: MIT */
/*
 * What is assumed of the world is in docs/MANY-HOSTS.md, and the faults here are within
 * that and no narrower: when the engine loses its memory, one host that was in touch then
 * comes back to it in time (`steady`); nothing else is spared.
 */
#include "many.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOSTS 8 /* at once */
#define TEXT  160

/* From which the credit is large, next to those for whom it is nothing. */
static const struct network far = {
	.name = "far",
	.out = 150 * MS,
	.back = 150 * MS,
	.jitter = MS,
};

static const unsigned rates[] = { 1, 3, 10, 10, 10, 16, 37, 60, 100 };

enum leaving {
	STAYS,
	DRAINS,
	SAYS_GOODBYE
};

/* One name among those who share, and the process that goes by it. */
struct member {
	struct host *h; /* NULL: none */
	char name[16];
	char upstream[TEXT];
	const struct network *network;
	uint64_t way;
	uint64_t jitter;
	double spikes;
	enum leaving leaving;
	uint64_t until;     /* of this part of its leaving */
	uint64_t starts_at; /* without a process: when the next one starts; NEVER */
	bool is_sharing;    /* by its configuration */
	bool is_missed;     /* it ended without a word: the engine may keep its share */
	bool has_pledge;    /* there is a place for it */
	char pledge[SHARED_INCARNATION];
};

struct many {
	struct sim *sim;
	struct redis *redis;
	unsigned n;
	unsigned hosts; /* as configured */
	unsigned n_apps;
	bool may_share; /* some may be configured with on_lost = share */
	bool may_hold;
	/* The engine may lose its memory; if so, nobody changes what shares are made of, as nobody
	 * could tell then what those are who are cut off. */
	bool may_forget;
	bool is_long; /* everything takes longer, and there is less of it */
	uint64_t most_timeout;
	char app[TEXT];
	struct member members[HOSTS];
	size_t n_members;
	unsigned names;
	struct member *steady; /* NULL: nobody need be */
	char lost_life[SHARED_LIFE];
	uint64_t redis_starts_at; /* NEVER: it runs */
	bool starts_with_dump;
	uint64_t frees_at; /* NEVER: it is not full */
	bool is_over;      /* no more faults, nothing to send */
};

static unsigned below(struct many *m, unsigned most)
{
	return (unsigned)sim_below(m->sim, most);
}

static bool by_chance(struct many *m, double p)
{
	return sim_chance(m->sim) < p;
}

struct host *many_host(struct sim *sim, const struct many_host *m)
{
	char shared[TEXT];
	struct host *h;

	(void)snprintf(shared, sizeof(shared),
		       "redis = unix:/redis; hosts = %u; name = %s; on_lost = %s", m->hosts,
		       m->name, m->on_lost ? m->on_lost : "share");
	h = sim_host(sim, &(struct sim_config){ .app = m->app,
						.upstream = m->upstream,
						.shared = shared,
						.n_apps = m->n_apps });
	h->link->way = m->way;
	h->link->pledge = m->pledge;
	if (m->pledge)
		shared_found(&h->scheduler.shared, m->pledge);
	return h;
}

/* The least timeout that makes sense on the way to the server: a request that was written
 * after a handshake has arrived by then. */
static uint64_t least_timeout(const struct network *n)
{
	return max_u64(10 * MS, 5 * (n->out + n->back) + 20 * n->jitter + n->spike_most);
}

static uint64_t any_timeout(struct many *m, const struct member *member)
{
	double x = sim_chance(m->sim);
	uint64_t least = least_timeout(member->network);

	if (x < 0.2)
		return least;
	if (x < 0.8)
		return least + sim_below(m->sim, 3 * SEC);
	return least + sim_below(m->sim, (m->is_long ? 59 : 6) * SEC);
}

static const char *any_on_lost(struct many *m)
{
	if (m->may_share && m->may_hold)
		return by_chance(m, 0.5) ? "share" : "hold";
	return m->may_share ? "share" : "hold";
}

static void add_writer(struct many *m, struct host *h)
{
	struct writer w = { .host = h, .rooms = 1 + below(m, 20) };

	w.app_id = 1 + below(m, m->n_apps);
	w.rate = (double)m->n * (by_chance(m, 0.5) ? 1.3 : 0.02 + sim_chance(m->sim) / 2);
	if (by_chance(m, 0.2))
		w.burst = 1 + below(m, m->n);
	if (by_chance(m, 0.4))
		w.for_ns = SEC + sim_below(m->sim, 10 * SEC);
	sim_write(m->sim, &w);
}

static void start(struct many *m, struct member *member)
{
	struct many_host want = {
		.name = member->name,
		.on_lost = any_on_lost(m),
		.app = m->app,
		.upstream = member->upstream,
		.hosts = m->hosts,
		.n_apps = m->n_apps,
		.way = member->way,
		.pledge = member->has_pledge ? member->pledge : NULL,
	};

	member->h = many_host(m->sim, &want);
	member->h->network = member->network;
	member->h->link->jitter = member->jitter;
	member->h->link->spikes = member->spikes;
	member->h->link->lost = by_chance(m, 0.2) ? 0.3 : 0;
	member->h->link->sticks = by_chance(m, 0.2) ? 0.2 : 0;
	member->leaving = STAYS;
	member->is_sharing = true;
	member->starts_at = NEVER;
	member->is_missed = false;
	if (!m->is_over && by_chance(m, 0.8))
		add_writer(m, member->h);
}

static void set_upstream(struct many *m, struct member *member)
{
	uint64_t timeout = any_timeout(m, member);

	m->most_timeout = max_u64(m->most_timeout, timeout);
	(void)snprintf(member->upstream, sizeof(member->upstream),
		       "timeout = %" PRIu64 "ms; credit = %s; retries = 1", timeout / MS,
		       by_chance(m, 0.8) ? "auto" : "none");
}

static struct member *add_member(struct many *m)
{
	struct member *member = NULL;

	for (size_t i = 0; i < m->n_members && !member; i++) {
		if (!m->members[i].h && m->members[i].starts_at == NEVER &&
		    !m->members[i].is_missed)
			member = &m->members[i];
	}
	if (!member && m->n_members < HOSTS)
		member = &m->members[m->n_members++];
	if (!member || m->sim->n_hosts + HOSTS >= SIM_HOSTS)
		return NULL;
	*member = (struct member){ .starts_at = NEVER };
	(void)snprintf(member->name, sizeof(member->name), "h%u", m->names++);
	member->network = by_chance(m, 0.2) ? &far : sim_any_network(m->sim);
	set_upstream(m, member);
	member->way = 50 * NSEC_PER_USEC + sim_below(m->sim, by_chance(m, 0.2) ? 100 * MS : MS);
	member->jitter = member->way / 4;
	member->spikes = by_chance(m, 0.2) ? 0.02 : 0;
	member->has_pledge = by_chance(m, 0.7);
	start(m, member);
	return member;
}

static void end_process(struct member *member, bool in_good_order)
{
	sim_kill(member->h);
	member->h = NULL;
	member->leaving = STAYS;
	member->is_missed = !in_good_order;
}

/* The last part of a daemon's life, as edge/daemon.c has it. */
static void go_on_leaving(struct many *m, struct member *member)
{
	struct scheduler *s = &member->h->scheduler;
	uint64_t now = m->sim->now;

	if (member->leaving == DRAINS && (scheduler_is_empty(s) || now >= member->until)) {
		scheduler_abort(s, now);
		shared_leave(&s->shared, now);
		sim_turn(member->h);
		member->leaving = SAYS_GOODBYE;
		member->until = now + 2 * SEC;
	} else if (member->leaving == SAYS_GOODBYE &&
		   (shared_is_silent(&s->shared) || now >= member->until)) {
		end_process(member, s->shared.left);
	}
}

/* Whether it is the one who has to come back to an engine without memory. It is spared
 * until it has done so, and no longer. */
static bool is_spared(const struct many *m, const struct member *member)
{
	return member == m->steady;
}

static struct member *any_member(struct many *m)
{
	struct member *member = &m->members[sim_below(m->sim, m->n_members)];

	return member->h && !is_spared(m, member) ? member : NULL;
}

static uint64_t span(struct many *m)
{
	if (by_chance(m, 0.5))
		return sim_below(m->sim, 2 * SEC);
	return sim_below(m->sim, (m->is_long ? 60 : 20) * SEC);
}

/* Faults of hosts. */

static void stop(struct many *m, struct member *member)
{
	if (m->sim->now >= member->h->stalled_until)
		member->h->stalled_until = m->sim->now + span(m);
}

static void cut(struct many *m, struct member *member)
{
	member->h->link->cut_until = m->sim->now + span(m);
}

static void deafen(struct many *m, struct member *member)
{
	member->h->link->deaf_until = m->sim->now + span(m);
}

static void mute(struct many *m, struct member *member)
{
	member->h->link->mute_until = m->sim->now + span(m);
}

static void break_connection(struct many *m, struct member *member)
{
	if (m->sim->now < member->h->stalled_until)
		return;
	link_break(member->h);
	sim_turn(member->h);
}

static void kill(struct many *m, struct member *member)
{
	end_process(member, false);
	if (by_chance(m, 0.7))
		member->starts_at = m->sim->now + sim_below(m->sim, 4 * SEC);
}

static void drain(struct many *m, struct member *member)
{
	if (m->sim->now < member->h->stalled_until || member->leaving != STAYS)
		return;
	scheduler_drain(&member->h->scheduler);
	member->leaving = DRAINS;
	member->until = m->sim->now + sim_below(m->sim, 2 * SEC);
}

/* What all are to agree on in the end; each learns of it by its next start or reload. */
static void set_app(struct many *m)
{
	m->n = rates[sim_below(m->sim, m->is_long ? 6 : ARRAY_SIZE(rates))];
	(void)snprintf(m->app, sizeof(m->app), "rate = %u; burst = %u; room_rate = 0", m->n,
		       1 + below(m, 15));
}

static void put_in_force(struct many *m, struct member *member, unsigned n_apps, bool has_engine,
			 bool is_shared)
{
	char shared[TEXT];
	char app[TEXT + 16];

	(void)snprintf(app, sizeof(app), "%s%s", m->app, is_shared ? "" : "; shared = no");
	/* The edge keeps the name, for what there is still to say. */
	(void)snprintf(shared, sizeof(shared), "%sname = %s; hosts = %u; on_lost = %s",
		       has_engine ? "redis = unix:/redis; " : "", member->name, m->hosts,
		       any_on_lost(m));
	member->is_sharing = has_engine && is_shared;
	(void)sim_reload(member->h, &(struct sim_config){
					    .app = app,
					    .upstream = member->upstream,
					    .shared = shared,
					    .n_apps = n_apps,
				    });
}

static void reload(struct many *m, struct member *member)
{
	if (m->sim->now < member->h->stalled_until || member->leaving != STAYS)
		return;
	if (!m->may_forget && by_chance(m, 0.3))
		set_app(m);
	if (!m->may_forget && by_chance(m, 0.3))
		m->hosts = 1 + below(m, 10);
	if (by_chance(m, 0.5))
		set_upstream(m, member);
	put_in_force(m, member, 1 + below(m, m->n_apps), by_chance(m, 0.85), by_chance(m, 0.85));
}

static void write_more(struct many *m, struct member *member)
{
	if (m->sim->now >= member->h->stalled_until && member->leaving == STAYS)
		add_writer(m, member->h);
}

/* Faults of the engine. */

/* One that is in touch when the engine loses its memory, and comes back to it. */
static bool find_steady(struct many *m)
{
	uint64_t now = m->sim->now;

	for (size_t i = 0; i < m->n_members; i++) {
		struct member *member = m->steady ? m->steady : &m->members[i];
		struct link *l = member->h ? member->h->link : NULL;

		if (!l || !member->is_sharing || member->leaving != STAYS ||
		    now < member->h->stalled_until ||
		    now < max_u64(l->cut_until, max_u64(l->deaf_until, l->mute_until)) ||
		    shared_state(&member->h->scheduler.shared, now) != SHARED_IN_TOUCH)
			continue;
		m->steady = member;
		l->spikes = 0;
		memcpy(m->lost_life, member->h->scheduler.shared.life, sizeof(m->lost_life));
		return true;
	}
	return false;
}

/* Whether it has told what it had and whom it knew, and has heard that it was understood. */
static bool is_back(const struct many *m, const struct member *member)
{
	const struct shared *s = &member->h->scheduler.shared;

	return s->joined && strcmp(s->life, m->lost_life) != 0;
}

static bool is_engine_well(const struct many *m)
{
	const struct redis *r = m->redis;

	return m->redis_starts_at == NEVER && !r->is_full &&
	       m->sim->now >= max_u64(r->frozen_until, r->refuses_until);
}

static void kill_redis(struct many *m)
{
	if (!m->may_forget || !is_engine_well(m) || !find_steady(m))
		return;
	redis_kill(m->redis);
	m->redis_starts_at = m->sim->now + (by_chance(m, 0.5) ? sim_below(m->sim, 500 * MS)
							      : sim_below(m->sim, 12 * SEC));
	m->starts_with_dump = by_chance(m, 0.4);
}

static void flush(struct many *m)
{
	if (!m->may_forget || !is_engine_well(m) || !find_steady(m))
		return;
	engine_flush(m->redis->engine);
}

/* What holds up the one who has to come back holds up whoever might come first. */
static bool may_hold_up(const struct many *m)
{
	return is_engine_well(m) && !m->steady;
}

static void freeze(struct many *m)
{
	if (may_hold_up(m))
		m->redis->frozen_until = m->sim->now + span(m);
}

/* -BUSY, -LOADING, -NOSCRIPT and so on. */
static void refuse(struct many *m)
{
	if (may_hold_up(m))
		m->redis->refuses_until =
			m->sim->now + sim_below(m->sim, by_chance(m, 0.5) ? 50 * MS : 5 * SEC);
}

static void set_full(struct many *m, bool is_full)
{
	m->redis->is_full = is_full;
	engine_set_full(m->redis->engine, is_full);
}

static void fill(struct many *m)
{
	if (!may_hold_up(m))
		return;
	set_full(m, true);
	m->frees_at = m->sim->now + sim_below(m->sim, 5 * SEC);
}

static void dump(struct many *m)
{
	engine_dump(m->redis->engine);
}

static void set_clock_back(struct many *m)
{
	m->redis->ahead -= (int64_t)sim_below(m->sim, by_chance(m, 0.5) ? 3 * SEC : 3600 * SEC);
}

static void add(struct many *m)
{
	(void)add_member(m);
}

static void happen(struct many *m)
{
	static const struct {
		double chance;
		void (*to_host)(struct many *m, struct member *member);
		void (*to_all)(struct many *m);
	} happenings[] = {
		{ 0.11, stop, NULL },       { 0.11, cut, NULL },
		{ 0.06, deafen, NULL },     { 0.06, mute, NULL },
		{ 0.07, kill, NULL },       { 0.04, break_connection, NULL },
		{ 0.06, drain, NULL },      { 0.06, reload, NULL },
		{ 0.09, write_more, NULL }, { 0.07, NULL, kill_redis },
		{ 0.05, NULL, flush },      { 0.05, NULL, freeze },
		{ 0.03, NULL, refuse },     { 0.02, NULL, fill },
		{ 0.04, NULL, dump },       { 0.02, NULL, set_clock_back },
		{ 0.06, NULL, add },
	};
	double x = sim_chance(m->sim);

	for (size_t i = 0; i < ARRAY_SIZE(happenings); i++) {
		struct member *member;

		x -= happenings[i].chance;
		if (x >= 0)
			continue;
		if (happenings[i].to_all) {
			happenings[i].to_all(m);
		} else {
			member = any_member(m);
			if (member)
				happenings[i].to_host(m, member);
		}
		return;
	}
}

/* What was begun and has come to its time. */
static void go_on(struct many *m)
{
	uint64_t now = m->sim->now;

	if (m->steady && is_back(m, m->steady))
		m->steady = NULL;
	for (size_t i = 0; i < m->n_members; i++) {
		struct member *member = &m->members[i];

		if (member->h && member->leaving != STAYS && now >= member->h->stalled_until)
			go_on_leaving(m, member);
		else if (!member->h &&
			 (now >= member->starts_at || (m->is_over && member->is_missed)))
			start(m, member);
	}
	if (now >= m->frees_at) {
		m->frees_at = NEVER;
		set_full(m, false);
	}
	if (now >= m->redis_starts_at) {
		m->redis_starts_at = NEVER;
		redis_start(m->redis, m->starts_with_dump);
	}
}

static void pass(struct many *m, uint64_t for_ns)
{
	uint64_t until = m->sim->now + for_ns;

	while (m->sim->now < until && !*m->sim->failure) {
		sim_run(m->sim, min_u64(until - m->sim->now, 100 * MS));
		go_on(m);
	}
}

static void heal(struct many *m)
{
	uint64_t now = m->sim->now;

	m->redis_starts_at = min_u64(m->redis_starts_at, m->redis_starts_at == NEVER ? NEVER : now);
	for (size_t i = 0; i < m->n_members; i++) {
		struct member *member = &m->members[i];

		/* Who ended without a word starts again, or else its share is kept for it. */
		member->spikes = 0;
		if (member->h) {
			member->h->link->cut_until = min_u64(member->h->link->cut_until, now);
			member->h->link->deaf_until = min_u64(member->h->link->deaf_until, now);
			member->h->link->mute_until = min_u64(member->h->link->mute_until, now);
			member->h->link->spikes = 0;
		}
	}
}

/* The books. */

static const char hosts_key[] = "barraged:hosts";

static uint64_t number_in(const char *text, unsigned word)
{
	for (; text && word > 0; word--) {
		text = strchr(text, ' ');
		text += text ? 1 : 0;
	}
	return text ? strtoull(text, NULL, 10) : 0;
}

/* Whether what is written of a host is of the process that goes by its name now; if not, it
 * is put right when somebody next asks for the AppID. */
static bool is_of_living(struct engine *e, const char *key, const char *name)
{
	char incarnation[64];
	const char *host;
	size_t n;

	(void)snprintf(incarnation, sizeof(incarnation), "%.60s", engine_get(e, key, name));
	n = strcspn(incarnation, " ");
	host = engine_get(e, hosts_key, name);
	return host && strncmp(host, incarnation, n + 1) == 0;
}

void many_check_books(struct sim *sim, uint32_t app_id)
{
	struct engine *e = sim->redis->engine;
	char key[SHARED_KEY];
	uint64_t in_books = 0;
	uint64_t shares = 0;
	uint64_t in_hands = 0;
	uint64_t n = sim_account(sim, app_id)->n;
	char field[SHARED_KEY] = "";
	const char *next;

	(void)snprintf(key, sizeof(key), "barraged:app:%" PRIu32, app_id);
	for (next = engine_next(e, key, NULL); next; next = engine_next(e, key, field)) {
		(void)snprintf(field, sizeof(field), "%s", next);
		if (*field == '#' || *field == '~' || !is_of_living(e, key, field))
			continue;
		in_books += number_in(engine_get(e, key, field), 1);
		shares += number_in(engine_get(e, key, field), 4);
	}
	for (size_t i = 0; i < sim->n_hosts; i++) {
		struct host *h = sim->hosts[i];
		const struct app *app = h->is_dead ? NULL : scheduler_app(&h->scheduler, app_id);

		if (app && app->lease.shared)
			in_hands += app->lease.held;
	}
	if (in_books != in_hands)
		sim_fail(sim, "AppID %u: %" PRIu64 " tokens are in the books, %" PRIu64 " are held",
			 app_id, in_books, in_hands);
	if (in_books > n || shares > n)
		sim_fail(sim, "AppID %u: %" PRIu64 " tokens and shares of %" PRIu64 " of %" PRIu64,
			 app_id, in_books, shares, n);
}

/* A name whose process said goodbye just before the books were lost, so that the others
 * still knew it, is restored by them; or its first word arrives after its last. Nothing can tell that it will not come back but the
 * operator, and this is what he does. */
static void forget_orphans(struct many *m)
{
	struct engine *e = m->redis->engine;
	char last[SHARED_KEY] = "";
	const char *next;

	while ((next = engine_next(e, hosts_key, *last ? last : NULL))) {
		bool is_there = strchr("#~!+", *next);

		(void)snprintf(last, sizeof(last), "%s", next);
		for (size_t i = 0; i < m->n_members; i++)
			is_there |= strcmp(m->members[i].name, last) == 0 && m->members[i].h;
		if (is_there)
			continue;
		if (number_in(engine_get(e, hosts_key, last), 5) > 0)
			sim_fail(m->sim, "%s was heard, is gone, and is in the books", last);
		engine_forget(e, hosts_key, last);
		*last = '\0';
	}
}

static void check_all_in_touch(struct many *m)
{
	for (size_t i = 0; i < m->n_members; i++) {
		const struct member *member = &m->members[i];

		if (!member->h)
			continue;
		if (shared_state(&member->h->scheduler.shared, m->sim->now) != SHARED_IN_TOUCH)
			sim_fail(m->sim, "%s is %s, though all is well", member->name,
				 shared_state_name(
					 shared_state(&member->h->scheduler.shared, m->sim->now)));
	}
}

/* A newcomer gets all there is, when nobody else wants any. */
static void check_newcomer(struct many *m)
{
	struct sim *sim = m->sim;
	struct host *h = many_host(sim, &(struct many_host){
						.name = "newcomer",
						.on_lost = "hold",
						.app = m->app,
						.upstream = "timeout = 1s",
						.hosts = m->hosts,
						.n_apps = 1,
						.way = MS,
					});

	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 20, .rate = 3.0 * m->n });
	sim_run(sim, 8 * SEC);
	if (app_allotment(h->scheduler.apps[0], sim->now) != m->n)
		sim_fail(sim, "a newcomer holds %" PRIu64 " of %u",
			 app_allotment(h->scheduler.apps[0], sim->now), m->n);
	sim_settle(sim);
}

static void check_end(struct many *m)
{
	struct sim *sim = m->sim;

	m->is_over = true;
	sim_stop_writing(sim);
	heal(m);
	for (size_t i = 0; i < m->n_members; i++) {
		const struct member *member = &m->members[i];

		while (member->h && sim->now < member->h->stalled_until && !*sim->failure)
			pass(m, SEC);
	}
	while (sim->now < m->redis->frozen_until && !*sim->failure)
		pass(m, SEC);
	for (size_t i = 0; i < m->n_members; i++) {
		if (m->members[i].h && m->members[i].leaving == STAYS && !*sim->failure)
			put_in_force(m, &m->members[i], m->n_apps, true, true);
	}
	pass(m, 13 * SEC + m->most_timeout);
	sim_settle(sim);
	if (*sim->failure)
		return;
	check_all_in_touch(m);
	forget_orphans(m);
	for (uint32_t id = 1; id <= m->n_apps; id++)
		many_check_books(sim, id);
	check_newcomer(m);
}

static void check_nobody_left(struct many *m)
{
	struct sim *sim = m->sim;
	const char *field = NULL;
	char last[SHARED_KEY] = "";

	for (size_t i = 0; i < sim->n_hosts; i++) {
		if (!sim->hosts[i]->is_dead) {
			shared_leave(&sim->hosts[i]->scheduler.shared, sim->now);
			sim_turn(sim->hosts[i]);
		}
	}
	sim_run(sim, 5 * SEC);
	if (*sim->failure)
		return;
	while ((field = engine_next(sim->redis->engine, hosts_key, *last ? last : NULL))) {
		(void)snprintf(last, sizeof(last), "%s", field);
		if (!strchr("#~!+", *last))
			sim_fail(sim, "%s has said goodbye and is still there", last);
	}
}

static void choose(struct many *m)
{
	double x = sim_chance(m->sim);
	unsigned k;

	m->may_forget = by_chance(m, 0.75);
	m->is_long = by_chance(m, 0.1);
	k = 2 + below(m, m->is_long ? 3 : HOSTS - 2);
	m->n_apps = 1 + below(m, by_chance(m, 0.2) && !m->is_long ? 6 : 2);
	m->hosts = by_chance(m, 0.8) ? k : 1 + below(m, 10);
	m->may_share = x < 0.8;
	m->may_hold = x > 0.6;
	set_app(m);
	if (by_chance(m, 0.2))
		m->sim->start_failures = by_chance(m, 0.5) ? 0.05 : 0.3;
	for (unsigned i = 0; i < k; i++)
		(void)add_member(m);
}

const char *many_run(uint64_t seed, uint64_t *trace)
{
	static char failure[sizeof(((struct sim *)0)->failure)];
	struct sim *sim = sim_new(seed, &network_lan, LIMITER_NONE);
	struct many m = { .sim = sim, .redis_starts_at = NEVER, .frees_at = NEVER };
	double busy = sim_chance(sim) * 0.5;

	m.redis = redis_new(sim);
	m.redis->drift = (sim_chance(sim) - 0.5) / 1000;
	if (sim_chance(sim) < 0.3)
		m.redis->takes = sim_below(sim, sim_chance(sim) < 0.2 ? 20 * MS : MS);
	choose(&m);
	pass(&m, sim_below(sim, 5 * SEC));
	for (uint64_t end = sim->now + (m.is_long ? 60 : 15) * SEC +
			    sim_below(sim, (m.is_long ? 30 : 10) * SEC);
	     sim->now < end && !*sim->failure;) {
		pass(&m, (m.is_long ? 400 : 100) * MS);
		if (sim_chance(sim) < busy)
			happen(&m);
	}
	if (!*sim->failure)
		check_end(&m);
	if (!*sim->failure)
		check_nobody_left(&m);
	memcpy(failure, sim->failure, sizeof(failure));
	*trace = sim->trace;
	sim_free(sim);
	return failure;
}
