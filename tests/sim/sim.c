/* SPDX-License-Identifier: MIT */
/*
 * The world is a heap of events ordered by time and number. After each event the host it
 * concerns takes a turn just as edge/daemon.c does (wall clock, scheduler_run, arm), and
 * then every promise is checked, so that the first event that breaks one is the last one
 * handled.
 */
#include "sim.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "link.h"
#include "promise.h"

/* What a server whose clock is 500 ppm slow takes for a second. */
#define SLOW_SECOND (SEC + SEC / 2000)

const struct network network_lan = {
	.name = "LAN",
	.out = 150 * NSEC_PER_USEC,
	.back = 150 * NSEC_PER_USEC,
	.jitter = 30 * NSEC_PER_USEC,
};
const struct network network_wan = {
	.name = "WAN",
	.out = 20 * MS,
	.back = 20 * MS,
	.jitter = 500 * NSEC_PER_USEC,
};
const struct network network_wan_spikes = {
	.name = "WAN, 1 % spikes",
	.out = 20 * MS,
	.back = 20 * MS,
	.jitter = 500 * NSEC_PER_USEC,
	.spikes = 0.01,
	.spike_least = 50 * MS,
	.spike_most = 300 * MS,
};
const struct network network_mobile_bad = {
	.name = "mobile, bad",
	.out = 40 * MS,
	.back = 40 * MS,
	.jitter = 30 * MS / 2,
};

static const struct network lossy = {
	.name = "lossy",
	.out = 5 * MS,
	.back = 30 * MS,
	.jitter = 2 * MS,
	.lost = 0.02,
};

const char *const limiter_names[_LIMITER_N] = {
	[LIMITER_NONE] = "none",
	[LIMITER_SLIDING_LOG] = "sliding log",
	[LIMITER_FIXED_WINDOW] = "fixed window",
	[LIMITER_TOKEN_BUCKET] = "token bucket",
	[LIMITER_GCRA] = "GCRA, no burst",
};

static inline void freep(char **p)
{
	free(*p);
}

enum event_type {
	EVENT_WRITE,
	EVENT_ARRIVE,
	EVENT_ANSWER,
	EVENT_TIMEOUT,
	EVENT_RUN,
	EVENT_ACTION,
	EVENT_PARCEL
};

struct event {
	uint64_t at;
	uint64_t number;
	enum event_type type;
	void *what;
	action_fn action;
	parcel_fn parcel;
};

void sim_fail(struct sim *sim, const char *format, ...)
{
	va_list args;

	if (*sim->failure)
		return;
	va_start(args, format);
	vsnprintf(sim->failure, sizeof(sim->failure), format, args);
	va_end(args);
}

/* Two runs are the same if all that was noted is. */
static void note(struct sim *sim, uint64_t what)
{
	sim->trace = (sim->trace ^ what) * UINT64_C(1099511628211);
	sim->trace ^= sim->trace >> 29;
}

/* Chance: xorshift64*, seeded through splitmix64 so that near seeds differ. */

static uint64_t next_random(struct sim *sim)
{
	sim->random ^= sim->random >> 12;
	sim->random ^= sim->random << 25;
	sim->random ^= sim->random >> 27;
	return sim->random * UINT64_C(2685821657736338717);
}

double sim_chance(struct sim *sim)
{
	return (double)(next_random(sim) >> 11) / (double)(UINT64_C(1) << 53);
}

uint64_t sim_below(struct sim *sim, uint64_t most)
{
	return most ? next_random(sim) % most : 0;
}

const struct network *sim_any_network(struct sim *sim)
{
	static const struct network *const networks[] = {
		&network_lan, &network_wan, &network_wan_spikes, &network_mobile_bad, &lossy,
	};

	return networks[sim_below(sim, ARRAY_SIZE(networks))];
}

static uint64_t exponential(struct sim *sim, double mean)
{
	double x = -log(1 - sim_chance(sim));

	return (uint64_t)(mean * (x < 8 ? x : 8));
}

/* Whether the daemon's core is running, rather than the world around it. */
bool sim_in_core;

static bool leave_core(void)
{
	bool was = sim_in_core;

	sim_in_core = false;
	return was;
}

static void enter_core(const bool *was)
{
	sim_in_core = *was;
}

/* To the end of the function that the core has called. */
#define OUTSIDE_CORE _cleanup_(enter_core) __attribute__((__unused__)) bool was = leave_core()

#define IN_CORE(call)                                                                              \
	({                                                                                         \
		sim_in_core = true;                                                                \
		__auto_type result_ = (call);                                                      \
		sim_in_core = false;                                                               \
		result_;                                                                           \
	})

/* Events. */

static bool is_before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->number < b->number;
}

static uint64_t post(struct sim *sim, struct event e)
{
	size_t i = sim->n_events;

	if (i == sim->events_size) {
		sim->events_size = sim->events_size ? sim->events_size * 2 : 1024;
		sim->events = reallocarray(sim->events, sim->events_size, sizeof(*sim->events));
		assert(sim->events);
	}
	e.number = ++sim->event_number;
	sim->n_events++;
	for (; i > 0 && is_before(&e, &sim->events[(i - 1) / 2]); i = (i - 1) / 2)
		sim->events[i] = sim->events[(i - 1) / 2];
	sim->events[i] = e;
	return e.number;
}

static struct event take(struct sim *sim)
{
	struct event top = sim->events[0];
	struct event last = sim->events[--sim->n_events];
	size_t i = 0;
	size_t child;

	while ((child = 2 * i + 1) < sim->n_events) {
		if (child + 1 < sim->n_events &&
		    is_before(&sim->events[child + 1], &sim->events[child]))
			child++;
		if (!is_before(&sim->events[child], &last))
			break;
		sim->events[i] = sim->events[child];
		i = child;
	}
	sim->events[i] = last;
	return top;
}

/* The server. */

static struct account *account_in(struct account *accounts, size_t *n, uint32_t app_id,
				  uint64_t limit)
{
	struct account *a;

	for (size_t i = 0; i < *n; i++) {
		if (accounts[i].app_id == app_id)
			return &accounts[i];
	}
	assert(*n < SIM_APPS);
	a = &accounts[(*n)++];
	*a = (struct account){
		.app_id = app_id, .n = limit, .level = (double)limit, .second = SEC
	};
	return a;
}

/* How many arrivals there were in the second that ends now. */
static size_t account_recent(struct account *a, uint64_t now)
{
	while (a->used > 0 && now - a->recent[a->head] >= a->second) {
		a->head = (a->head + 1) % a->size;
		a->used--;
	}
	return a->used;
}

/* Notes an arrival; returns how many there were in the second that ends with it. */
static size_t account_note(struct account *a, uint64_t now)
{
	if (a->used == a->size) {
		size_t size = a->size ? a->size * 2 : 16;
		uint64_t *recent = calloc(size, sizeof(*recent));

		assert(recent);
		for (size_t i = 0; i < a->used; i++)
			recent[i] = a->recent[(a->head + i) % a->size];
		free(a->recent);
		a->recent = recent;
		a->size = size;
		a->head = 0;
	}
	a->recent[(a->head + a->used++) % a->size] = now;
	a->arrivals++;
	if (account_recent(a, now) > a->most)
		a->most = a->used;
	return a->used;
}

/* A bucket of @depth that fills at N a second. */
static bool drips(struct account *a, double depth, uint64_t now)
{
	a->level += (double)(now - a->level_at) / (double)SEC * (double)a->n;
	if (a->level > depth)
		a->level = depth;
	a->level_at = now;
	if (a->level < 1)
		return false;
	a->level--;
	return true;
}

static bool is_allowed(struct server *s, struct account *a, size_t in_second, uint64_t now)
{
	uint64_t window = (now + s->window_offset) / SEC;

	switch (s->limiter) {
	case LIMITER_NONE:
	case _LIMITER_N:
		return true;
	case LIMITER_SLIDING_LOG:
		return in_second <= a->n;
	case LIMITER_FIXED_WINDOW:
		if (window != a->window)
			a->in_window = 0;
		a->window = window;
		return ++a->in_window <= a->n;
	case LIMITER_TOKEN_BUCKET:
		return drips(a, (double)a->n, now);
	case LIMITER_GCRA:
		return drips(a, 1, now);
	}
	return true;
}

struct account *sim_account(struct sim *sim, uint32_t app_id)
{
	return account_in(sim->server.accounts, &sim->server.n_accounts, app_id, 100);
}

bool sim_arrive(struct sim *sim, struct account *a)
{
	bool allowed = is_allowed(&sim->server, a, account_note(a, sim->now), sim->now);

	if (!allowed)
		a->refused++;
	return allowed;
}

static void flight_release(struct flight *f)
{
	if (--f->events == 0)
		free(f);
}

/* A room's own limit, as the one who sent it should have kept it. */
static void note_room(struct sim *sim, struct flight *f)
{
	struct host *h = f->host;
	const struct account *app = &h->seen[f->app_id];
	struct account **room = &h->seen_rooms[(size_t)f->app_id * sim->rooms + f->room];
	size_t in_second;

	if (!*room)
		*room = calloc(1, sizeof(**room));
	assert(*room);
	(*room)->second = SLOW_SECOND;
	in_second = account_note(*room, sim->now);
	if (in_second > app->room_n)
		sim_fail(sim, "%zu requests of a room within a second, %" PRIu64 " are allowed",
			 in_second, app->room_n);
}

static void air_add(struct air *a, uint64_t at)
{
	size_t i = a->n;

	if (a->n == a->size) {
		a->size = a->size ? a->size * 2 : 8;
		a->at = reallocarray(a->at, a->size, sizeof(*a->at));
		assert(a->at);
	}
	for (a->n++; i > 0 && a->at[i - 1] > at; i--)
		a->at[i] = a->at[i - 1];
	a->at[i] = at;
}

static void air_remove(struct air *a, uint64_t at)
{
	size_t i = 0;

	while (a->at[i] != at)
		i++;
	a->n--;
	memmove(a->at + i, a->at + i + 1, (a->n - i) * sizeof(*a->at));
}

/* How many of the last arrivals there were after some time. */
static size_t account_after(const struct account *a, uint64_t time)
{
	size_t low = 0;
	size_t high = a->used;

	while (low < high) {
		size_t i = (low + high) / 2;

		if (a->recent[(a->head + i) % a->size] > time)
			high = i;
		else
			low = i + 1;
	}
	return a->used - low;
}

/* The most that the server counts of one host within a second, of those that are not over. */
static size_t most_counted(struct account *a, const struct air *air, uint64_t now)
{
	size_t most = account_recent(a, now);
	size_t first = 0;

	for (size_t i = 0; i < air->n; i++) {
		while (air->at[first] + a->second <= air->at[i])
			first++;
		most = max_u64(most, account_after(a, air->at[i] - a->second) + i - first + 1);
	}
	return most;
}

static bool is_shared(const struct config *c, const struct app_config *a)
{
	return a && a->shared && *c->redis;
}

/* What one host has of a budget that is shared. A token is in its hands while it may be
 * used, and also while what was last sent with it counts. */
static uint64_t in_hands(struct host *h, uint32_t app_id)
{
	const struct app *app;
	uint64_t counted = most_counted(&h->shared[app_id], &h->in_air[app_id], h->sim->now);

	if (h->is_dead)
		return counted;
	app = scheduler_app(&h->scheduler, app_id);
	if (!app || !app->lease.shared || !is_shared(h->config, app->config))
		return counted;
	return max_u64(app_allotment(app, h->sim->now), counted);
}

void sim_check_sum(struct sim *sim, uint32_t app_id)
{
	struct account *a = sim_account(sim, app_id);
	uint64_t sum = 0;

	if (sim->now >= a->next_at)
		a->n = a->next_n;
	for (size_t i = 0; i < sim->n_hosts; i++)
		sum += in_hands(sim->hosts[i], app_id);
	if (sum > a->n)
		sim_fail(sim, "%" PRIu64 " tokens of AppID %u are in hands, of %" PRIu64, sum,
			 app_id, a->n);
}

static void on_arrival(struct sim *sim, struct flight *f)
{
	struct server *s = &sim->server;
	struct account *a = sim_account(sim, f->app_id);
	struct account *mine = &f->host->seen[f->app_id];

	if (sim->now >= mine->next_at) {
		mine->n = mine->next_n;
		mine->room_n = mine->next_room_n;
		if (!sim->redis)
			a->n = mine->n;
	}
	if (account_note(mine, sim->now) > mine->n && !sim->relaxed)
		sim_fail(sim, "%zu requests of AppID %u within a second, %" PRIu64 " are allowed",
			 mine->used, f->app_id, mine->n);
	note_room(sim, f);
	f->result = TRANSPORT_ANSWERED;
	f->status = 200;
	f->code = 0;
	if (f->is_shared) {
		air_remove(&f->host->in_air[f->app_id], sim->now);
		(void)account_note(&f->host->shared[f->app_id], sim->now);
	}
	if (!sim_arrive(sim, a)) {
		f->code = 206;
	} else if (s->answer) {
		s->answer(sim, f);
	}
	if (!f->lost && f->result != TRANSPORT_TIMEOUT) {
		f->events++;
		post(sim, (struct event){ .at = sim->now + s->busy + f->back,
					  .type = EVENT_ANSWER,
					  .what = f });
	}
	flight_release(f);
}

/* A host's transport. */

const struct network *sim_network(const struct host *h)
{
	return h->network ? h->network : h->sim->network;
}

static uint64_t way(struct sim *sim, const struct network *n, uint64_t least, bool spike)
{
	uint64_t t = least + exponential(sim, (double)n->jitter);

	if (spike)
		t += n->spike_least + sim_below(sim, n->spike_most - n->spike_least);
	return t;
}

uint64_t sim_way(struct sim *sim, uint64_t least, bool spike)
{
	return way(sim, sim->network, least, spike);
}

static struct message *message_of(const struct request *r)
{
	return r->writer;
}

static size_t lane_index(const struct host *h, uint32_t app_id, uint32_t room, uint8_t class)
{
	return ((size_t)app_id * h->sim->rooms + room) * _CLASS_N + class;
}

static void check_start(struct host *h, struct request *r)
{
	struct sim *sim = h->sim;
	struct message *m = message_of(r);
	uint64_t *last = &h->last_started[lane_index(h, m->app_id, m->room, m->class)];

	if (sim->now >= r->deadline)
		sim_fail(sim, "started %" PRIu64 " ms after its age limit",
			 (sim->now - r->deadline) / MS);
	note(sim, sim->now ^ (uint64_t)m->app_id << 32 ^ (uint64_t)m->room << 40 ^ m->number);
	promise_check_start(h, r);
	if (m->accepted || (m->in_doubt && !h->ever_ambiguous))
		sim_fail(sim, "sent again although it may have been accepted");
	if (m->starts > h->most_retries + m->signed_again)
		sim_fail(sim, "sent %u times, %" PRIu64 " retries are allowed", m->starts + 1,
			 h->most_retries);
	if (m->starts++ > 0)
		return;
	m->started = sim->now;
	if (m->number <= *last)
		sim_fail(sim, "room %u: message %" PRIu64 " was started after %" PRIu64, m->room,
			 m->number, *last);
	*last = m->number;
}

/* When the request reaches the server; NEVER if it does not. */
static uint64_t arrival_of(struct sim *sim, const struct flight *f, bool spike)
{
	const struct network *n = sim_network(f->host);
	uint64_t given_up = f->started + f->host->config->timeout;

	if (f->written >= given_up)
		return NEVER; /* there was no connection yet */
	if (!f->lost || sim_chance(sim) < 0.25)
		return f->written + way(sim, n, n->out, spike);
	if (sim_chance(sim) < 0.5)
		return NEVER;
	/* The worst there is: it is counted when it has been given up, or just before. Not
	 * later than on the nearest network, to which the run may change meanwhile: a second
	 * after that the host may send again. */
	return given_up - n->back + sim_below(sim, network_lan.out + n->back);
}

static int sim_start(struct transport *t, struct request *r, const struct signature *s)
{
	OUTSIDE_CORE;
	struct host *h = container_of(t, struct host, transport);
	struct sim *sim = h->sim;
	const struct network *n = sim_network(h);
	uint64_t round = n->out + n->back;
	struct flight *f;
	bool spike = sim_chance(sim) < n->spikes;
	bool spike_back = spike && sim_chance(sim) < 0.5;
	uint64_t arrival;

	assert(strlen(s->hex) == 32);
	check_start(h, r);
	if (sim_chance(sim) < sim->start_failures)
		return sim_chance(sim) < 0.5 ? -ENOMEM : -EIO;
	f = calloc(1, sizeof(*f));
	assert(f);
	f->host = h;
	f->request = r;
	f->app_id = r->room->app->app_id;
	f->room = message_of(r)->room;
	f->is_shared = is_shared(h->config, r->room->app->config);
	f->started = sim->now;
	f->kept = h->kept > 0;
	f->written = sim->now;
	if (f->kept)
		h->kept--;
	else
		f->written += 3 * round; /* TCP and TLS */
	f->lost = sim_chance(sim) < n->lost;
	f->back = way(sim, n, n->back, spike_back);
	f->events = 1;
	r->transfer = f;
	h->in_flight++;
	promise_note_start(h, f->app_id);
	arrival = arrival_of(sim, f, spike && !spike_back);
	if (arrival != NEVER) {
		if (f->is_shared) {
			air_add(&h->in_air[f->app_id], arrival);
			sim_check_sum(sim, f->app_id);
		}
		f->events++;
		post(sim, (struct event){ .at = arrival, .type = EVENT_ARRIVE, .what = f });
	}
	post(sim, (struct event){
			  .at = sim->now + h->config->timeout, .type = EVENT_TIMEOUT, .what = f });
	return 0;
}

static void land(struct flight *f, bool answered)
{
	f->request->transfer = NULL;
	f->request = NULL;
	f->host->in_flight--;
	promise_note_end(f->host, f->app_id, answered);
}

static void sim_abort(struct transport *t, struct request *r)
{
	land(r->transfer, false);
}

/* What may be said and done about the message from now on. */
static void note_answer(const struct flight *f, const struct answer *a)
{
	struct message *m = message_of(f->request);
	struct purse *purse = &f->host->purses[f->app_id];
	bool too_fast = a->status == 429 || (a->status == 200 && f->code == 206);

	if (a->result == TRANSPORT_ANSWERED && too_fast && config_app(f->host->config, f->app_id))
		purse->held_until = max_u64(purse->held_until, f->host->sim->now + a->retry_after);
	if (a->result == TRANSPORT_ANSWERED) {
		m->accepted |= a->status == 200 && f->code == 0;
		m->in_doubt |= a->status >= 500 && !(a->status == 503 && a->retry_after > 0);
		m->signed_again |= f->code == 100000004;
	} else {
		m->in_doubt |= a->written;
	}
}

static void complete(struct sim *sim, struct flight *f, struct answer *a)
{
	struct request *r = f->request;

	note_answer(f, a);
	land(f, a->result == TRANSPORT_ANSWERED);
	sim_in_core = true;
	scheduler_complete(&f->host->scheduler, r, a, sim->now);
	sim_in_core = false;
}

static void on_answer(struct sim *sim, struct flight *f)
{
	char body[128];
	struct answer a = {
		.result = f->result,
		.written = f->result != TRANSPORT_CONNECT && f->result != TRANSPORT_DNS &&
			   f->result != TRANSPORT_TLS,
		.status = f->status,
		.retry_after = f->retry_after,
		.round_trip = f->kept ? sim->now - f->written : 0,
		.body = body,
	};

	if (!f->request)
		return; /* it was given up before */
	if (a.result == TRANSPORT_ANSWERED)
		f->host->kept++;
	if (f->status == 200)
		a.body_len =
			(size_t)snprintf(body, sizeof(body),
					 "{\"Code\":%" PRId64 ",\"Data\":{\"MessageId\":\"1\"},"
					 "\"Message\":\"\",\"RequestId\":\"2\"}",
					 f->code);
	complete(sim, f, &a);
}

static void on_timeout(struct sim *sim, struct flight *f)
{
	struct answer a = { .result = TRANSPORT_TIMEOUT, .written = true };

	if (f->request)
		complete(sim, f, &a);
}

/* A host's other dealings with the core. */

/* Whether the one fate is what became of the message, as far as anybody can know. */
static void check_fate(struct host *h, const struct request *r, const struct fate_report *f)
{
	struct sim *sim = h->sim;
	const struct message *m = message_of(r);
	bool tells_doubt = f->fate == FATE_HTTP || f->fate == FATE_TIMEOUT ||
			   f->fate == FATE_NETWORK || f->fate == FATE_ANSWER ||
			   f->fate == FATE_MEMORY;

	if (f->fate == FATE_SENT ? !m->accepted : m->accepted && !sim->starved)
		sim_fail(sim, "%s/%s, but was %saccepted", fate_outcome_name(f->fate),
			 fate_reason_name(f->fate), m->accepted ? "" : "not ");
	if (m->in_doubt && f->fate != FATE_SENT && !tells_doubt)
		sim_fail(sim, "%s/%s, but may have been accepted", fate_outcome_name(f->fate),
			 fate_reason_name(f->fate));
	if (f->waited + f->took != sim->now - m->submitted)
		sim_fail(sim, "waited and took do not add up");
	if (f->fate == FATE_QUEUE_FULL)
		promise_check_overflow(h, r, (enum message_class)h->incoming);
}

static void on_fate(void *arg, struct request *r, const struct fate_report *f)
{
	OUTSIDE_CORE;
	struct host *h = arg;
	struct sim *sim = h->sim;
	struct message *m = message_of(r);
	uint64_t waited = f->waited / MS;

	if (!m) {
		sim_fail(sim, "a fate was told twice");
		return;
	}
	note(sim, sim->now ^ (uint64_t)f->fate << 56 ^ m->number);
	check_fate(h, r, f);
	h->fates[f->fate]++;
	if (sim->told)
		sim->told(sim, m, f);
	if (f->fate == FATE_EXPIRED && !h->is_dead && sim->now > m->deadline + EXPIRY_MOST &&
	    sim->now > h->stalled_until + EXPIRY_MOST)
		sim_fail(sim, "told %" PRIu64 " ms after its age limit",
			 (sim->now - m->deadline) / MS);
	if (f->fate == FATE_SENT) {
		h->sent[m->group]++;
		h->wait_ms[m->group][min_u64(waited, WAIT_MOST - 1)]++;
	}
	h->bytes -= m->size;
	r->writer = NULL;
	free(m);
}

static void on_scheduler_event(void *arg, const struct scheduler_event *e)
{
	struct host *h = arg;

	h->events[e->type]++;
}

static int on_random(void *arg, void *out, size_t n)
{
	struct host *h = arg;
	unsigned char *p = out;

	if (sim_chance(h->sim) < h->sim->random_failures)
		return -EIO;
	for (size_t i = 0; i < n; i++)
		p[i] = (unsigned char)(next_random(h->sim) >> 32);
	return 0;
}

static const struct scheduler_ops ops = {
	.fate = on_fate,
	.event = on_scheduler_event,
	.random = on_random,
};

/* One turn of the host's loop, as in edge/daemon.c. */
void sim_turn(struct host *h)
{
	struct sim *sim = h->sim;
	uint64_t next;
	uint64_t at;

	if (h->is_dead || sim->now < h->stalled_until)
		return;
	scheduler_set_wall(&h->scheduler, (int64_t)sim->now + sim->wall, sim->now);
	next = IN_CORE(scheduler_run(&h->scheduler, sim->now));
	note(sim, next);
	if (next <= sim->now)
		sim_fail(sim, "the next deadline is in the past");
	promise_check_run(h, next);
	h->next_run = next;
	if (h->link)
		next = link_turn(h, next);
	if (next == h->run_at)
		return;
	h->run_at = next;
	h->run_event = 0; /* which no event has */
	if (next == NEVER)
		return;
	/* A timer is a hint: mostly late, now and then a little early. */
	at = next + sim_below(sim, sim->lateness + 1);
	if (sim_chance(sim) < 0.05)
		at = max_u64(sim->now + 1, next - min_u64(next, sim_below(sim, MS)));
	h->run_event = post(sim, (struct event){ .at = at, .type = EVENT_RUN, .what = h });
}

/* What was told, what the core has counted and what is still there. */
static void check_ledger(struct host *h)
{
	struct sim *sim = h->sim;
	struct scheduler *s = &h->scheduler;
	struct ledger counted;
	uint64_t total = s->in_flight;

	if (!scheduler_adds_up(s))
		sim_fail(sim, "the ledger does not add up");
	for (size_t i = 0; i < s->n_apps; i++)
		total += s->apps[i]->n[REQUEST_QUEUED] + s->apps[i]->n[REQUEST_WAITING];
	scheduler_sum(s, &counted);
	for (size_t i = 0; i < _FATE_N; i++) {
		total += h->fates[i];
		if (counted.n[i] != h->fates[i])
			sim_fail(sim, "\"%s\" was told %" PRIu64 " times and counted %" PRIu64,
				 fate_reason_name((enum fate)i), h->fates[i], counted.n[i]);
	}
	if (total != h->accepted)
		sim_fail(sim, "%" PRIu64 " lines have a fate or a place, %" PRIu64 " were accepted",
			 total, h->accepted);
}

static void check(struct host *h)
{
	struct sim *sim = h->sim;
	struct scheduler *s = &h->scheduler;

	if (s->in_flight != h->in_flight)
		sim_fail(sim, "%zu in flight are counted, %zu are", s->in_flight, h->in_flight);
	if (s->bytes != h->bytes)
		sim_fail(sim, "%zu bytes are charged, %zu are held", s->bytes, h->bytes);
	if (s->n_apps <= 4 || sim->n_handled % 64 == 0) /* it grows with the AppIDs */
		check_ledger(h);
}

/* Started twice at one instant, the second finds nothing: what may be sent is a matter of
 * time alone. Asked now and then, as it costs as much as the turn itself. */
static void check_second_run(struct host *h)
{
	struct sim *sim = h->sim;
	uint64_t trace = sim->trace;
	uint64_t next;

	if (h->is_dead || sim->now < h->stalled_until || sim->n_handled % 16)
		return;
	next = scheduler_run(&h->scheduler, sim->now);
	if (sim->trace != trace)
		sim_fail(sim, "a second run at one instant starts or ends something");
	if (next != h->next_run)
		sim_fail(sim,
			 "a second run at one instant has another deadline: in %" PRIu64
			 " us, not in %" PRIu64,
			 (next - sim->now) / NSEC_PER_USEC,
			 (h->next_run - sim->now) / NSEC_PER_USEC);
}

/* Lines. */

static struct request *make_request(struct host *h, const struct message *m, uint32_t ttl_ms)
{
	size_t content = h->sim->content;
	char room[16];
	size_t room_len = (size_t)snprintf(room, sizeof(room), "r%u", m->room);
	size_t size = sizeof(struct request) + room_len + 1 + 2 + 1 + content + 1 + 1;
	struct request *r = calloc(1, size);
	char *p;

	assert(r);
	r->app = config_app(h->config, m->app_id);
	r->class = m->class;
	r->ttl_ms = ttl_ms;
	r->room_id_len = (uint8_t)room_len;
	r->user_id_len = 1;
	r->content_len = (uint16_t)content;
	p = mempcpy(r->data, room, room_len + 1);
	p = mempcpy(p, "u\0", 3); /* UserId, and a UserName that is not given */
	memset(p, 'x', content);
	return r;
}

/* What is submitted never makes the queue longer than it may be; it can be longer, after
 * a reload or as what is tried again comes back without being asked for. */
static void check_queue(struct host *h, const struct app *app, size_t bytes, size_t queued)
{
	const struct queue_config *queue = &app->config->queue;
	size_t n = app->n[REQUEST_QUEUED] + app->n[REQUEST_WAITING];

	if (n > queued && n > queue->queue_max)
		sim_fail(h->sim, "%zu are queued, %" PRIu64 " may be", n, queue->queue_max);
	if (h->scheduler.bytes > bytes && h->scheduler.bytes > h->config->queue_bytes)
		sim_fail(h->sim, "%zu bytes are held, %" PRIu64 " may be", h->scheduler.bytes,
			 h->config->queue_bytes);
}

static void submit(struct host *h, uint32_t app_id, uint32_t room, enum message_class class,
		   uint32_t ttl_ms, int group)
{
	struct sim *sim = h->sim;
	struct message *m = calloc(1, sizeof(*m));
	struct request *r;
	const struct app *app;
	size_t queued;
	size_t bytes;

	assert(m && room < sim->rooms);
	m->app_id = app_id;
	m->room = room;
	m->class = (uint8_t) class;
	m->group = group;
	m->number = ++h->numbers[lane_index(h, app_id, room, m->class)];
	m->submitted = sim->now;
	r = make_request(h, m, ttl_ms);
	m->deadline = sim->now + (ttl_ms ? ttl_ms * MS : r->app->queue.max_age);
	m->size = request_size(r);
	r->writer = m;
	r->user = user_ref(h->users[group]);
	h->accepted++;
	h->offered[group]++;
	h->bytes += m->size;
	h->incoming = m->class;
	h->incoming_size = m->size;
	h->incoming_user = r->user;
	h->incoming_app = app_id;
	app = scheduler_app(&h->scheduler, app_id);
	queued = app->n[REQUEST_QUEUED] + app->n[REQUEST_WAITING];
	bytes = h->scheduler.bytes;
	(void)IN_CORE(scheduler_submit(&h->scheduler, r, sim->now));
	check_queue(h, app, bytes, queued);
}

void sim_submit(struct host *h, uint32_t app_id, uint32_t room, enum message_class class,
		uint32_t ttl_ms, int group)
{
	submit(h, app_id, room, class, ttl_ms, group);
	sim_turn(h);
}

/* Returns whether the host has got anything. */
static bool on_write(struct sim *sim, struct writer *w)
{
	struct host *h = w->host;
	unsigned n = w->burst ? w->burst : 1;

	if (h->is_dead || w->number <= sim->writers_ended || sim->now >= w->until ||
	    !config_app(h->config, w->app_id)) {
		free(w);
		return false;
	}
	for (unsigned i = 0; i < n && sim->now >= h->stalled_until; i++) {
		uint32_t room = w->room + (uint32_t)sim_below(sim, w->rooms);
		bool system = sim_chance(sim) < w->system;

		submit(h, w->app_id, room, system ? CLASS_SYSTEM : CLASS_CHAT, w->ttl_ms, w->group);
	}
	post(sim, (struct event){ .at = sim->now + 1 +
					exponential(sim, (double)SEC * (double)n / w->rate),
				  .type = EVENT_WRITE,
				  .what = w });
	return true;
}

void sim_write(struct sim *sim, const struct writer *w)
{
	struct writer *copy = malloc(sizeof(*copy));

	assert(copy);
	*copy = *w;
	copy->number = ++sim->n_writers;
	copy->until = w->for_ns ? sim->now + w->for_ns : NEVER;
	post(sim, (struct event){ .at = sim->now + 1, .type = EVENT_WRITE, .what = copy });
}

void sim_stop_writing(struct sim *sim)
{
	sim->writers_ended = sim->n_writers;
}

void sim_at(struct sim *sim, uint64_t after, action_fn fn)
{
	post(sim, (struct event){ .at = sim->now + after, .type = EVENT_ACTION, .action = fn });
}

/* Hosts. */

static void set(struct config *c, const char *pair)
{
	struct config_error why;
	const char *value = strstr(pair, " = ");
	_cleanup_(freep) char *key = strndup(pair, value ? (size_t)(value - pair) : 0);

	if (!value || config_set(c, key, value + 3, &why) != 0) {
		fprintf(stderr, "\"%s\": %s\n", pair, value ? why.text : "not a pair");
		abort();
	}
}

/* The pairs of one section. */
static void set_all(struct config *c, const char *section, const char *pairs)
{
	struct config_error why;
	_cleanup_(freep) char *copy = strdup(pairs ? pairs : "");
	char *rest = copy;
	char *pair;

	if (section && config_section(c, section, 0, &why) != 0)
		abort();
	while ((pair = strsep(&rest, ";"))) {
		pair += strspn(pair, " ");
		if (*pair)
			set(c, pair);
	}
}

static void report(void *arg, unsigned line, const char *text)
{
	fprintf(stderr, "%s\n", text);
}

static struct config *make_config(const struct sim_config *sc)
{
	struct config *c;
	bool hold = sc->daemon && strstr(sc->daemon, "startup_hold");

	if (config_new(&c) != 0)
		abort();
	set_all(c, "daemon", sc->daemon);
	if (!hold)
		set_all(c, NULL, "startup_hold = 0");
	set_all(c, "upstream", sc->upstream);
	set_all(c, "queue", sc->queue);
	if (sc->shared)
		set_all(c, "shared", sc->shared);
	for (uint32_t i = 0; i < (sc->n_apps ? sc->n_apps : 1); i++) {
		char section[32];

		snprintf(section, sizeof(section), "app %u",
			 (sc->first_app ? sc->first_app : 1) + i);
		set_all(c, section, "server_secret_file = /nowhere");
		set_all(c, NULL, sc->app);
	}
	if (config_finish(c, report, NULL) != 0)
		abort();
	for (size_t i = 0; i < c->n_apps; i++)
		c->apps[i].secret = "secret";
	return c;
}

/* Hosts that do not agree keep to the least, as soon as all know of it; only then is it
 * sure that nobody has more. */
static void expect_sum(struct sim *sim, struct account *a)
{
	uint64_t most_timeout = 0;

	if (sim->now >= a->next_at)
		a->n = a->next_n;
	a->next_n = 0;
	for (size_t i = 0; i < sim->n_hosts; i++) {
		const struct host *h = sim->hosts[i];
		const struct app_config *c = config_app(h->config, a->app_id);

		most_timeout = max_u64(most_timeout, h->most_timeout);
		if (!h->is_dead && is_shared(h->config, c))
			a->next_n = max_u64(a->next_n, c->rate);
	}
	a->n = max_u64(a->n, a->next_n);
	a->next_at = sim->now + most_timeout + 10 * SEC;
}

/* What the promise is measured by from now on. A lower N holds for what is started from
 * now on, and so at the server when nothing started before is in the air or in the window. */
static void expect_rates(struct host *h)
{
	h->most_timeout = max_u64(h->most_timeout, h->config->timeout);
	for (size_t i = 0; i < h->config->n_apps; i++) {
		const struct app_config *a = &h->config->apps[i];
		struct account *mine = &h->seen[a->app_id];
		struct account *theirs;

		assert(a->app_id < SIM_APPS);
		uint64_t room_n = a->room_rate ? min_u64(a->room_rate, a->rate) : a->rate;

		mine->second = SLOW_SECOND;
		h->shared[a->app_id].second = SLOW_SECOND;
		mine->n = max_u64(mine->n, a->rate);
		mine->next_n = a->rate;
		mine->room_n = max_u64(mine->room_n, room_n);
		mine->next_room_n = room_n;
		mine->next_at = h->sim->now + h->most_timeout + 2 * SEC;
		theirs = sim_account(h->sim, a->app_id);
		if (h->sim->redis) {
			expect_sum(h->sim, theirs);
			continue;
		}
		theirs->level += (double)mine->n - (double)theirs->n;
		theirs->n = mine->n;
	}
	h->most_retries = max_u64(h->most_retries, h->config->retries);
	h->ever_ambiguous |= h->config->retry_ambiguous;
}

struct host *sim_host(struct sim *sim, const struct sim_config *c)
{
	struct host *h = calloc(1, sizeof(*h));
	size_t rooms = (size_t)SIM_APPS * sim->rooms;

	assert(h && sim->n_hosts < SIM_HOSTS);
	if (sim->rooms > 4096)
		rooms = (size_t)4 * sim->rooms; /* many rooms, few AppIDs */
	h->sim = sim;
	h->transport = (struct transport){ .start = sim_start, .abort = sim_abort };
	h->numbers = calloc(rooms * _CLASS_N, sizeof(*h->numbers));
	h->last_started = calloc(rooms * _CLASS_N, sizeof(*h->last_started));
	h->seen_rooms = calloc(rooms, sizeof(struct account *));
	h->n_seen_rooms = rooms;
	h->config = make_config(c);
	h->run_at = NEVER;
	assert(h->numbers && h->last_started && h->seen_rooms);
	if (scheduler_init(&h->scheduler, &h->transport, &ops, h, sim->now) != 0 ||
	    scheduler_configure(&h->scheduler, h->config, sim->now) != 0)
		abort();
	for (uint32_t i = 0; i < SIM_GROUPS; i++) {
		h->users[i] = users_get(&h->scheduler.users, i);
		assert(h->users[i]);
	}
	sim->hosts[sim->n_hosts++] = h;
	expect_rates(h);
	if (*h->config->redis)
		h->link = link_new(h);
	sim_turn(h);
	return h;
}

int sim_reload(struct host *h, const struct sim_config *c)
{
	struct config *config = make_config(c);
	int r = IN_CORE(scheduler_configure(&h->scheduler, config, h->sim->now));

	if (r < 0) {
		config_free(config);
		return r;
	}
	for (uint32_t id = 0; id < SIM_APPS; id++) {
		if (!config_app(config, id))
			h->purses[id].held_until = 0; /* it may be forgotten */
	}
	config_free(h->config);
	h->config = config;
	h->reloads++;
	expect_rates(h);
	sim_turn(h);
	return 0;
}

/* The world. */

static uint64_t splitmix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

struct sim *sim_new(uint64_t seed, const struct network *n, enum limiter limiter)
{
	struct sim *sim = calloc(1, sizeof(*sim));

	assert(sim);
	sim->seed = seed;
	sim->random = splitmix(seed) | 1;
	sim->network = n;
	sim->server.limiter = limiter;
	sim->server.window_offset = sim_below(sim, SEC);
	sim->server.busy = 200 * NSEC_PER_USEC;
	sim->lateness = MS;
	sim->content = 11;
	sim->rooms = 64;
	sim->now = SEC + sim_below(sim, 1000000 * SEC);
	sim->wall = (int64_t)(UINT64_C(1700000000) * SEC);
	return sim;
}

void sim_post(struct sim *sim, uint64_t at, parcel_fn fn, void *what)
{
	(void)post(sim,
		   (struct event){ .at = at, .type = EVENT_PARCEL, .what = what, .parcel = fn });
}

void sim_kill(struct host *h)
{
	h->stalled_until = 0; /* what it tells now, nobody hears */
	h->is_dead = true;
	scheduler_abort(&h->scheduler, h->sim->now);
	h->run_event = 0;
}

/* The end of an attempt. Returns whether the host notices. */
static bool handle_end(struct sim *sim, struct event *e)
{
	struct flight *f = e->what;
	bool noticed = f->request;

	if (f->host->is_dead) {
		flight_release(f);
		return false;
	}
	if (sim->now < f->host->stalled_until) {
		/* The answer lies in the socket until the process runs again. */
		e->at = f->host->stalled_until;
		post(sim, *e);
		return false;
	}
	if (e->type == EVENT_ANSWER)
		on_answer(sim, f);
	else
		on_timeout(sim, f);
	flight_release(f);
	return noticed;
}

/* Returns whether this is the timer as it was armed last, and the host runs. */
static bool handle_timer(struct sim *sim, struct event *e)
{
	struct host *h = e->what;

	if (e->number != h->run_event)
		return false;
	if (sim->now < h->stalled_until) {
		e->at = h->stalled_until;
		h->run_event = post(sim, *e);
		return false;
	}
	h->run_at = NEVER; /* whatever is wanted next is armed anew */
	h->run_event = 0;
	return true;
}

/* Returns the host that wakes up by it, if one does; *@all: every one. What happens
 * elsewhere must not wake it, or else a deadline that it forgot would go unnoticed. */
static struct host *handle(struct sim *sim, struct event *e, bool *all)
{
	struct host *h;

	*all = false;
	switch (e->type) {
	case EVENT_WRITE:
		h = ((struct writer *)e->what)->host;
		return on_write(sim, e->what) ? h : NULL;
	case EVENT_ARRIVE:
		on_arrival(sim, e->what);
		return NULL;
	case EVENT_ANSWER:
	case EVENT_TIMEOUT:
		h = ((struct flight *)e->what)->host;
		return handle_end(sim, e) ? h : NULL;
	case EVENT_RUN:
		return handle_timer(sim, e) ? e->what : NULL;
	case EVENT_ACTION:
		e->action(sim);
		*all = true;
		return NULL;
	case EVENT_PARCEL:
		return e->parcel(sim, e->what);
	}
	return NULL;
}

static void handle_next(struct sim *sim)
{
	struct event e = take(sim);
	struct host *h;
	bool all;

	sim->now = e.at;
	sim->n_handled++;
	note(sim, e.at ^ (uint64_t)e.type << 60);
	h = handle(sim, &e, &all);
	for (size_t i = 0; i < sim->n_hosts; i++) {
		if (!all && sim->hosts[i] != h)
			continue;
		sim_turn(sim->hosts[i]);
		check(sim->hosts[i]);
		check_second_run(sim->hosts[i]);
	}
}

void sim_run(struct sim *sim, uint64_t for_ns)
{
	uint64_t until = sim->now + for_ns;

	while (!*sim->failure && sim->n_events > 0 && sim->events[0].at <= until)
		handle_next(sim);
	sim->now = max_u64(sim->now, until);
}

static bool has_tokens_away(const struct sim *sim, const struct scheduler *s)
{
	for (size_t i = 0; i < s->n_apps; i++) {
		if (tokens_home_at(&s->apps[i]->tokens) > sim->now)
			return true;
	}
	return false;
}

static bool is_quiet(const struct sim *sim)
{
	for (size_t i = 0; i < sim->n_hosts; i++) {
		const struct scheduler *s = &sim->hosts[i]->scheduler;

		if (sim->hosts[i]->is_dead)
			continue;
		if (!scheduler_is_empty(s) || s->rooms.n > 0 || has_tokens_away(sim, s) ||
		    !list_is_empty(&s->retired))
			return false;
	}
	return true;
}

void sim_settle(struct sim *sim)
{
	sim_stop_writing(sim);
	/* A message's age (60 s) and a room's way back to its full limit (20 s) bound it. */
	for (int i = 0; i < 120 && !*sim->failure && !is_quiet(sim); i++)
		sim_run(sim, SEC);
	if (*sim->failure)
		return;
	for (size_t i = 0; i < sim->n_hosts; i++) {
		const struct scheduler *s = &sim->hosts[i]->scheduler;

		if (sim->hosts[i]->is_dead)
			continue;
		if (!scheduler_is_empty(s) || s->rooms.n > 0 || s->bytes > 0)
			sim_fail(sim, "after the end %zu rooms and %zu bytes are left", s->rooms.n,
				 s->bytes);
		if (has_tokens_away(sim, s))
			sim_fail(sim, "a token never came home");
		if (!list_is_empty(&s->retired))
			sim_fail(sim, "a removed AppID is left");
	}
}

static void host_free(struct host *h)
{
	scheduler_abort(&h->scheduler, h->sim->now);
	for (size_t i = 0; i < SIM_GROUPS; i++)
		users_put(&h->scheduler.users, h->users[i]);
	scheduler_deinit(&h->scheduler);
	config_free(h->config);
	for (size_t i = 0; i < SIM_APPS; i++) {
		free(h->seen[i].recent);
		free(h->shared[i].recent);
		free(h->in_air[i].at);
	}
	for (size_t i = 0; i < h->n_seen_rooms; i++) {
		if (h->seen_rooms[i])
			free(h->seen_rooms[i]->recent);
		free(h->seen_rooms[i]);
	}
	free(h->seen_rooms);
	promise_deinit(h);
	free(h->link);
	free(h->numbers);
	free(h->last_started);
	free(h);
}

void sim_free(struct sim *sim)
{
	for (size_t i = 0; i < sim->n_hosts; i++)
		host_free(sim->hosts[i]);
	while (sim->n_events > 0) {
		struct event e = take(sim);

		if (e.type == EVENT_WRITE)
			free(e.what);
		else if (e.type == EVENT_ARRIVE || e.type == EVENT_ANSWER ||
			 e.type == EVENT_TIMEOUT)
			flight_release(e.what);
		else if (e.type == EVENT_PARCEL)
			free(e.what);
	}
	redis_free(sim->redis);
	for (size_t i = 0; i < sim->server.n_accounts; i++)
		free(sim->server.accounts[i].recent);
	free(sim->events);
	free(sim);
}

uint64_t sim_wait(const struct host *h, int group, double part)
{
	uint64_t rank = (uint64_t)(part * (double)h->sent[group]);
	uint64_t seen = 0;

	for (uint64_t ms = 0; ms < WAIT_MOST; ms++) {
		seen += h->wait_ms[group][ms];
		if (seen > rank)
			return ms;
	}
	return 0;
}

double sim_use(const struct account *a, uint64_t ns)
{
	return (double)a->arrivals / ((double)a->n * (double)ns / (double)SEC);
}
