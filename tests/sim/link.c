/* SPDX-License-Identifier: MIT */
/*
 * A connection carries what it is given in order, each way for itself. What is sent into a
 * cut arrives after it, though the host may have given up the connection long before, or
 * never, and then nothing else does that was sent on it. So the engine may hear things in
 * an order in which nobody said them: those of different connections.
 */
#include "link.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define VALUES 8

/* A call on its way to the engine, or an answer or a message on its way back. */
struct parcel {
	struct link *link;
	unsigned connection;
	unsigned process;
	struct shared_call call;
	struct shared_value values[VALUES];
	size_t n;
	char text[]; /* members, or what values point to */
};

static uint64_t delay(const struct link *l)
{
	struct sim *sim = l->host->sim;
	double x = -log(1 - sim_chance(sim));
	uint64_t t = l->way + (uint64_t)((double)l->jitter * (x < 8 ? x : 8));

	if (sim_chance(sim) < l->spikes)
		t += sim_below(sim, 2 * SEC);
	return t;
}

static struct parcel *parcel_new(struct link *l, size_t text)
{
	struct parcel *p = calloc(1, sizeof(*p) + text + 1);

	assert(p);
	p->link = l;
	p->connection = l->connection;
	p->process = l->process;
	return p;
}

/* Whether the host is not there for it: it lies in the socket until the process runs again. */
static bool must_wait(struct sim *sim, struct parcel *p, parcel_fn fn)
{
	struct host *h = p->link->host;

	if (sim->now >= h->stalled_until)
		return false;
	sim_post(sim, h->stalled_until, fn, p);
	return true;
}

static bool is_current(const struct parcel *p)
{
	const struct link *l = p->link;

	return !l->host->is_dead && l->is_up && l->connection == p->connection;
}

static struct host *on_answer(struct sim *sim, void *what)
{
	struct parcel *p = what;
	struct host *h = p->link->host;

	if (is_current(p) && must_wait(sim, p, on_answer))
		return NULL;
	if (!is_current(p))
		h = NULL;
	else
		shared_answer(&h->scheduler.shared, p->values, p->n, sim->now);
	free(p);
	return h;
}

static void send_back(struct link *l, struct parcel *p, parcel_fn fn)
{
	struct sim *sim = l->host->sim;
	uint64_t from = max_u64(sim->now, sim->redis->busy_until);
	uint64_t at = max_u64(from, max_u64(l->cut_until, l->deaf_until));

	if (at == NEVER) { /* a time after that would be one long past */
		free(p);
		return;
	}
	at += delay(l);
	/* The channels are a connection of their own. */
	if (fn == on_answer)
		at = l->from_last = max_u64(at, l->from_last);
	sim_post(sim, at, fn, p);
}

static void drop(struct link *l)
{
	l->is_up = false;
	shared_down(&l->host->scheduler.shared, l->host->sim->now);
}

static struct host *on_reset(struct sim *sim, void *what)
{
	struct parcel *p = what;
	struct host *h = p->link->host;

	if (is_current(p) && must_wait(sim, p, on_reset))
		return NULL;
	if (is_current(p))
		drop(p->link);
	else
		h = NULL;
	free(p);
	return h;
}

static struct host *on_call(struct sim *sim, void *what)
{
	struct parcel *p = what;
	struct redis *r = sim->redis;
	struct link *l = p->link;
	struct shared_value values[VALUES];
	struct parcel *answer;
	size_t n;
	size_t len = 0;

	if (r->is_down || p->process != r->process) {
		sim_post(sim, sim->now + delay(l), on_reset, p);
		return NULL;
	}
	if (sim->now < max_u64(r->frozen_until, r->busy_until)) {
		sim_post(sim, max_u64(r->frozen_until, r->busy_until), on_call, p);
		return NULL;
	}
	r->busy_until = sim->now + r->takes;
	if (p->call.members)
		p->call.members = p->text;
	n = 0;
	if (sim->now >= r->refuses_until)
		n = engine_call(r->engine, &p->call, redis_time(r), values, VALUES);
	r->calls++;
	if (n == 0 && sim->now >= r->refuses_until && !r->is_full)
		sim_fail(sim, "%.200s", engine_error(r->engine));
	for (size_t i = 0; i < n; i++)
		len += values[i].is_text ? values[i].len : 0;
	answer = parcel_new(l, len);
	answer->connection = p->connection;
	answer->n = n;
	len = 0;
	for (size_t i = 0; i < n; i++) {
		answer->values[i] = values[i];
		if (!values[i].is_text)
			continue;
		answer->values[i].text = memcpy(answer->text + len, values[i].text, values[i].len);
		len += values[i].len;
	}
	if (answer->connection == l->connection)
		send_back(l, answer, on_answer);
	else
		free(answer);
	free(p);
	return NULL;
}

static struct host *on_poke(struct sim *sim, void *what)
{
	struct parcel *p = what;
	struct host *h = p->link->host;

	if (is_current(p) && must_wait(sim, p, on_poke))
		return NULL;
	if (!is_current(p))
		h = NULL;
	else
		shared_poked(&h->scheduler.shared, p->text, strlen(p->text), sim->now);
	free(p);
	return h;
}

static void on_publish(void *arg, const char *channel, const char *message)
{
	struct redis *r = arg;
	struct sim *sim = r->sim;

	r->pokes++;
	for (size_t i = 0; i < sim->n_hosts; i++) {
		struct host *h = sim->hosts[i];
		struct parcel *p;
		char own[SHARED_KEY];
		char all[SHARED_KEY];

		if (h->is_dead || !h->link || !h->link->is_up)
			continue;
		shared_channels(&h->scheduler.shared, own, all);
		if ((strcmp(channel, own) != 0 && strcmp(channel, all) != 0) ||
		    sim->now < h->link->cut_until || sim_chance(sim) < h->link->lost)
			continue;
		p = parcel_new(h->link, strlen(message));
		memcpy(p->text, message, strlen(message));
		send_back(h->link, p, on_poke);
	}
}

static void send(struct link *l, const struct shared_call *c)
{
	struct sim *sim = l->host->sim;
	uint64_t from = max_u64(sim->now, max_u64(l->cut_until, l->mute_until));
	size_t len = c->members ? strlen(c->members) : 0;
	struct parcel *p;

	if (l->broken == l->connection)
		return;
	if (from == NEVER || (from > sim->now && sim_chance(sim) < 0.3)) {
		l->broken = l->connection;
		return;
	}
	p = parcel_new(l, len);
	p->call = *c;
	if (c->members)
		memcpy(p->text, c->members, len);
	l->to_last = max_u64(l->to_last, from + delay(l));
	sim_post(sim, l->to_last, on_call, p);
}

static void connect_after(struct link *l, uint64_t after);

static struct host *on_connected(struct sim *sim, void *what)
{
	struct parcel *p = what;
	struct link *l = p->link;
	struct host *h = l->host;
	struct redis *r = sim->redis;
	char run_id[32];

	if (!h->is_dead && must_wait(sim, p, on_connected))
		return NULL;
	l->is_connecting = false;
	if (h->is_dead || r->is_down || p->process != r->process || sim->now < r->frozen_until ||
	    sim->now < r->refuses_until ||
	    sim->now < max_u64(l->cut_until, max_u64(l->deaf_until, l->mute_until))) {
		if (!h->is_dead)
			connect_after(l, 100 * MS);
		free(p);
		return NULL;
	}
	free(p);
	l->is_up = true;
	l->connection++;
	l->process = r->process;
	l->to_last = 0;
	l->from_last = 0;
	snprintf(run_id, sizeof(run_id), "process%u", r->process);
	shared_up(&h->scheduler.shared, run_id, sim->now);
	return h;
}

static struct host *on_connect(struct sim *sim, void *what)
{
	struct parcel *p = what;

	p->process = sim->redis->process;
	sim_post(sim, sim->now + 2 * delay(p->link), on_connected, p);
	return NULL;
}

static void connect_after(struct link *l, uint64_t after)
{
	struct sim *sim = l->host->sim;

	l->is_connecting = true;
	sim_post(sim, sim->now + 1 + sim_below(sim, after), on_connect, parcel_new(l, 0));
}

struct link *link_new(struct host *h)
{
	struct link *l = calloc(1, sizeof(*l));

	assert(l);
	l->host = h;
	l->way = 250 * NSEC_PER_USEC;
	return l;
}

/* Returns whether it was written, and the scheduler is to run. */
static bool keep_pledge(struct host *h)
{
	struct link *l = h->link;
	struct shared *s = &h->scheduler.shared;

	if (!l->pledge || !shared_has_to_pledge(s, h->sim->now))
		return false;
	if (sim_chance(h->sim) < l->sticks)
		l->sticks = 1;
	if (l->sticks >= 1)
		return false;
	(void)snprintf(l->pledge, SHARED_INCARNATION, "%s", s->in_touch ? s->incarnation : "");
	shared_pledge(s, h->sim->now);
	return true;
}

uint64_t link_turn(struct host *h, uint64_t next)
{
	struct sim *sim = h->sim;
	struct link *l = h->link;
	struct shared *s = &h->scheduler.shared;
	struct shared_call call;
	bool wanted = shared_state(s, sim->now) != SHARED_OFF || !shared_is_silent(s);
	uint64_t due;

	if (l->is_up && (!wanted || shared_is_stuck(s, sim->now))) {
		drop(l);
		next = h->next_run = scheduler_run(&h->scheduler, sim->now); /* another turn */
	}
	if (keep_pledge(h))
		next = h->next_run = scheduler_run(&h->scheduler, sim->now);
	if (wanted && !l->is_up && !l->is_connecting)
		connect_after(l, 100 * MS);
	while (l->is_up && shared_next(s, &call, sim->now))
		send(l, &call);
	due = shared_due(s, sim->now);
	if (due <= sim->now)
		sim_fail(sim, "the link is due for ever");
	return min_u64(next, due);
}

void link_break(struct host *h)
{
	if (h->link->is_up)
		drop(h->link);
}

/* The engine. */

uint64_t redis_time(const struct redis *r)
{
	double passed = (double)r->sim->now * (1 + r->drift);

	return (uint64_t)((int64_t)passed + r->ahead) / NSEC_PER_USEC;
}

struct redis *redis_new(struct sim *sim)
{
	struct redis *r = calloc(1, sizeof(*r));

	assert(r);
	r->sim = sim;
	r->engine = engine_new(on_publish, r);
	r->process = 1;
	r->ahead = (int64_t)(UINT64_C(1700000000) * SEC);
	sim->redis = r;
	return r;
}

void redis_free(struct redis *r)
{
	if (!r)
		return;
	engine_free(r->engine);
	free(r);
}

void redis_kill(struct redis *r)
{
	struct sim *sim = r->sim;

	r->is_down = true;
	for (size_t i = 0; i < sim->n_hosts; i++) {
		struct host *h = sim->hosts[i];

		if (!h->is_dead && h->link && h->link->is_up && sim->now >= h->link->cut_until)
			sim_post(sim, sim->now + delay(h->link), on_reset, parcel_new(h->link, 0));
	}
}

void redis_start(struct redis *r, bool with_dump)
{
	r->is_down = false;
	r->process++;
	r->frozen_until = 0;
	r->busy_until = 0;
	if (with_dump)
		engine_restore(r->engine);
	else
		engine_flush(r->engine);
}
