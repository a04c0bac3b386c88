/* SPDX-License-Identifier: MIT */
/*
 * The scheduler never looks at what cannot have changed: it has lists of rooms that may
 * start something and timers for those that may not yet. A mistake there does no harm to
 * any limit; a message just lies where nobody looks. So the same question is answered
 * here the slow way, from every room and an account of the tokens that is our own: when
 * could the next message be started, if nothing happened any more? By then at the latest
 * the scheduler must want to be called.
 *
 * Two things grow as time passes without anything happening, the credit and an N that
 * the API had cut. To notice them at the next answer is soon enough, so what counts here
 * is the least of them since the scheduler may have looked last.
 */
#include "promise.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

/* A token is at home so long after its answer: tokens.c rounds up to an even number. */
#define COOLING (TOKENS_WINDOW + 2)

/* Rounding, at most. */
#define SLACK NSEC_PER_USEC

/* How many messages of a lane are looked at for one that would still be young enough. */
#define LOOKED_AT 16

void promise_note_start(struct host *h, uint32_t app_id)
{
	h->purses[app_id].in_flight++;
}

static uint64_t *ended_at(const struct purse *p, size_t i)
{
	return &p->ended[(p->head + i) & (p->size - 1)];
}

static void purse_grow(struct purse *p)
{
	size_t size = p->size ? p->size * 2 : 16;
	uint64_t *ended = calloc(size, sizeof(*ended));

	assert(ended);
	for (size_t i = 0; i < p->used; i++)
		ended[i] = *ended_at(p, i);
	free(p->ended);
	p->ended = ended;
	p->size = size;
	p->head = 0;
}

/* Whether it was answered is kept in the lowest bit. */
void promise_note_end(struct host *h, uint32_t app_id, bool answered)
{
	struct purse *p = &h->purses[app_id];
	uint64_t now = h->sim->now;

	while (p->used > 0 && *ended_at(p, 0) + COOLING <= now) {
		p->head = (p->head + 1) & (p->size - 1);
		p->used--;
	}
	if (p->used == p->size)
		purse_grow(p);
	*ended_at(p, p->used++) = (now & ~UINT64_C(1)) | answered;
	p->in_flight--;
}

static uint64_t home_at(const struct purse *p, size_t i, uint64_t credit)
{
	uint64_t at = *ended_at(p, i);

	return at + COOLING - (at & 1 ? credit : 0);
}

/* When fewer than @limit are away. They come home in the order in which they ended: one
 * without credit holds up those behind it. */
static uint64_t purse_ready_at(const struct purse *p, uint64_t limit, uint64_t credit)
{
	size_t away = p->in_flight + p->used;
	uint64_t at;

	if (p->in_flight >= limit)
		return NEVER;
	if (away < limit)
		return 0;
	at = home_at(p, away - limit, credit);
	for (size_t i = away - limit; i > 0 && *ended_at(p, i - 1) + COOLING > at; i--)
		at = max_u64(at, home_at(p, i - 1, credit));
	return at;
}

/* The least credit while the scheduler may have looked at a token that is still away. */
static uint64_t least_credit(const struct host *h)
{
	return min_u64(h->least_credit[0], h->least_credit[1]);
}

static void note_credit(struct host *h)
{
	uint64_t credit = h->scheduler.credit.value;
	uint64_t now = h->sim->now;

	if (now - h->credit_since > SEC + SEC / 10) {
		h->least_credit[0] = h->least_credit[1];
		h->least_credit[1] = credit;
		h->credit_since = now;
	}
	h->least_credit[1] = min_u64(h->least_credit[1], credit);
}

/* How long ago the scheduler may have looked last at what waits for an answer. */
static uint64_t look_back(const struct host *h)
{
	return h->config->timeout + SEC + SEC / 10;
}

static uint64_t least_limit(const struct host *h, const struct limit *l, uint64_t full)
{
	uint64_t now = h->sim->now;

	return limit_at(l, full, max_u64(l->since, now - min_u64(now, look_back(h))));
}

static uint64_t room_limit(const struct host *h, const struct room *room)
{
	const struct app_config *c = room->app->config;
	uint64_t full = c->room_rate ? min_u64(c->room_rate, c->rate) : c->rate;

	return least_limit(h, &room->limit, full);
}

/* When the room's own limits let it start one; now is as good as before. */
static uint64_t room_ready_at(const struct host *h, const struct room *room)
{
	uint64_t most = room->app->config->room_in_flight;
	struct tokens copy = room->tokens; /* asking may move its head */

	if (most > 0 && room->in_flight + room->waiting >= most)
		return NEVER;
	return max_u64(room->limit.held_until,
		       tokens_ready_at(&copy, room_limit(h, room), least_credit(h), h->sim->now));
}

static bool has_one_at(const struct lane *lane, uint64_t at)
{
	unsigned n = 0;

	list_for_each (node, &lane->queue) {
		if (list_entry(node, struct request, link)->deadline > at)
			return true;
		if (++n == LOOKED_AT)
			break;
	}
	return false;
}

/* How many of an AppID may be in flight: half of what the others leave, one in any case. */
static size_t in_flight_most(const struct host *h, const struct app *app)
{
	const struct scheduler *s = &h->scheduler;
	size_t others = s->in_flight - app->n[REQUEST_IN_FLIGHT];
	size_t most = s->config->max_in_flight > others ? s->config->max_in_flight - others : 0;

	if (s->n_apps == 1)
		return most;
	return most / 2 > 1 ? most / 2 : 1;
}

/* What of N the host may use; of what it holds no less than it held before, since that
 * changes only when it is told so. */
static uint64_t limit_of(const struct host *h, const struct app *app)
{
	const struct app_config *c = app->config;
	uint64_t allotment = app_allotment(app, h->sim->now);
	uint64_t rate = least_limit(h, &app->limit, c->rate);

	if (allotment == 0)
		return 0;
	return max_u64(allotment * rate / c->rate, 1);
}

/* When the AppID could start something. */
static uint64_t app_start_at(const struct host *h, struct app *app)
{
	const struct app_config *c = app->config;
	uint64_t rate = limit_of(h, app);
	struct pacer pacer = app->pacer;
	uint64_t least = NEVER;
	uint64_t at;

	if (app->paused || rate == 0 || app->n[REQUEST_QUEUED] == 0 ||
	    app->n[REQUEST_IN_FLIGHT] >= in_flight_most(h, app))
		return NEVER;
	at = max_u64(app->held_until, app->limit.held_until);
	at = max_u64(at, purse_ready_at(&h->purses[app->app_id], rate, least_credit(h)));
	at = max_u64(at, pacer_ready_at(&pacer, rate, c->burst, h->sim->now));
	if (app->pacer.rate > rate) /* N has grown: what it dripped since then comes on top */
		at = max_u64(at, h->sim->now + SEC / rate);
	if (at == NEVER)
		return NEVER;
	list_for_each (node, &app->rooms) {
		const struct room *room = list_entry(node, struct room, link);
		uint64_t ready = max_u64(at, room_ready_at(h, room));

		if (ready < least && (has_one_at(&room->lanes[CLASS_SYSTEM], ready) ||
				      has_one_at(&room->lanes[CLASS_CHAT], ready)))
			least = ready;
	}
	return least;
}

/* Nobody may be left waiting beyond @next for what could be had before. */
static void check_deadline(struct host *h, uint64_t next)
{
	struct sim *sim = h->sim;
	struct scheduler *s = &h->scheduler;

	if (s->in_flight >= s->config->max_in_flight)
		return;
	for (size_t i = 0; i < s->n_apps; i++) {
		uint64_t at = app_start_at(h, s->apps[i]);

		at = max_u64(at, upstream_open_at(&s->upstream));
		if (at <= sim->now)
			sim_fail(sim, "AppID %u could start a message and does not",
				 s->apps[i]->app_id);
		else if (at < NEVER && next > at + SLACK)
			sim_fail(sim,
				 "AppID %u could start a message in %" PRIu64
				 " us; the deadline is later",
				 s->apps[i]->app_id, (at - sim->now) / NSEC_PER_USEC);
	}
}

static void check_age(struct host *h, const struct list *requests)
{
	list_for_each (node, requests) {
		const struct request *r = list_entry(node, struct request, link);

		if (r->deadline + EXPIRY_MOST < h->sim->now)
			sim_fail(h->sim, "a message is kept %" PRIu64 " ms past its age limit",
				 (h->sim->now - r->deadline) / MS);
	}
}

static void check_ages(struct host *h)
{
	struct scheduler *s = &h->scheduler;

	for (size_t i = 0; i < s->n_apps; i++) {
		check_age(h, &s->apps[i]->in[REQUEST_WAITING]);
		list_for_each (node, &s->apps[i]->rooms) {
			const struct room *room = list_entry(node, struct room, link);

			for (size_t class = 0; class < _CLASS_N; class ++)
				check_age(h, &room->lanes[class].queue);
		}
	}
}

/* A bound that lies above what it bounds is none, even where no harm comes of it. */
static void check_credit(struct host *h)
{
	const struct network *n = sim_network(h);
	uint64_t credit = h->scheduler.credit.value;

	if (credit > n->out + n->back + h->sim->server.busy)
		sim_fail(h->sim, "the credit is %" PRIu64 " us, the round trip %" PRIu64 " us",
			 credit / NSEC_PER_USEC,
			 (n->out + n->back + h->sim->server.busy) / NSEC_PER_USEC);
	if (credit > 0 && h->config->credit == CREDIT_NONE)
		sim_fail(h->sim, "there is a credit where none is wanted");
}

/* The sum can only have become more where one host's part has. */
static void check_allotments(struct host *h)
{
	const struct scheduler *s = &h->scheduler;

	for (size_t i = 0; i < s->n_apps; i++) {
		uint32_t id = s->apps[i]->app_id;
		uint64_t allotment = app_allotment(s->apps[i], h->sim->now);

		if (allotment > h->had[id])
			sim_check_sum(h->sim, id);
		h->had[id] = allotment;
	}
}

void promise_check_run(struct host *h, uint64_t next)
{
	struct scheduler *s = &h->scheduler;

	if (h->sim->redis)
		check_allotments(h);
	note_credit(h);
	check_credit(h);
	h->turns++;
	/* All rooms of all AppIDs are looked at, so the more there are, the less often. */
	if (h->turns % (1 + (s->rooms.n + s->n_apps) / 8) == 0)
		check_deadline(h, next);
	if (h->turns % (64 + s->rooms.n + s->n_apps) == 0)
		check_ages(h);
}

/* A system message that could go leaves no turn to chat. */
static void check_class(struct host *h, const struct request *r)
{
	const struct app *app = r->room->app;

	if (r->class == CLASS_SYSTEM || h->turns % (1 + app->n_rooms / 8))
		return;
	list_for_each (node, &app->rooms) {
		const struct room *room = list_entry(node, struct room, link);

		if (has_one_at(&room->lanes[CLASS_SYSTEM], h->sim->now) &&
		    (room == r->room || room_ready_at(h, room) <= h->sim->now))
			sim_fail(h->sim, "chat went before a system message");
	}
}

/* Every attempt has a token, by our own account and by what is known now: one that seemed
 * to be at home may not be for another server. */
static void check_token(struct host *h, const struct app *app)
{
	uint64_t at = purse_ready_at(&h->purses[app->app_id], app_limit(app, h->sim->now),
				     h->scheduler.credit.value);

	if (at != NEVER && at <= h->sim->now + SLACK)
		return;
	sim_fail(h->sim, "AppID %u starts a message without a token", app->app_id);
}

void promise_check_start(struct host *h, const struct request *r)
{
	struct sim *sim = h->sim;
	const struct app *app = r->room->app;
	uint64_t most = app->config->room_in_flight;

	if (h->in_flight >= h->config->max_in_flight)
		sim_fail(sim, "%zu are in flight", h->in_flight + 1);
	if (app->paused)
		sim_fail(sim, "AppID %u is paused and sends", app->app_id);
	if (app->halted && app->probe != r)
		sim_fail(sim, "AppID %u is halted and sends", app->app_id);
	if (sim->now < app->held_until || sim->now < app->limit.held_until)
		sim_fail(sim, "AppID %u has to wait and does not", app->app_id);
	if (sim->now < h->purses[app->app_id].held_until)
		sim_fail(sim, "AppID %u was told to wait and does not", app->app_id);
	if (app->n[REQUEST_IN_FLIGHT] > in_flight_most(h, app))
		sim_fail(sim, "AppID %u has %zu in flight, its share are %zu", app->app_id,
			 app->n[REQUEST_IN_FLIGHT], in_flight_most(h, app));
	if (most > 0 && r->room->in_flight + r->room->waiting > most)
		sim_fail(sim, "%zu of a room are under way, %" PRIu64 " may be",
			 r->room->in_flight + r->room->waiting, most);
	check_token(h, app);
	check_class(h, r);
}

/* Whether there would be memory for @size more bytes without what the AppID has queued. */
static bool could_make_room(const struct host *h, const struct app *app, size_t size)
{
	size_t others = h->scheduler.bytes;

	list_for_each (node, &app->rooms) {
		struct room *room = list_entry(node, struct room, link);

		for (size_t i = 0; i < _CLASS_N; i++) {
			list_for_each (link, &room->lanes[i].queue)
				others -= request_size(list_entry(link, struct request, link));
		}
	}
	return others + size <= h->config->queue_bytes;
}

static void check_no_queue(struct host *h, const struct app *app, enum message_class class)
{
	list_for_each (node, &app->rooms) {
		if (list_entry(node, struct room, link)->lanes[class].n > 0)
			sim_fail(h->sim, "another should have made way");
	}
}

/* @r has left its lane already. */
static void check_victim(struct host *h, const struct request *r)
{
	const struct lane *mine = &r->room->lanes[r->class];

	if (mine->n > 0 &&
	    (int32_t)(list_first(&mine->queue, struct request, link)->sequence - r->sequence) < 0)
		sim_fail(h->sim, "not the oldest of its room made way");
	list_for_each (node, &r->room->app->rooms) {
		if (list_entry(node, struct room, link)->lanes[r->class].n > mine->n + 1)
			sim_fail(h->sim, "not the longest room made way");
	}
}

/* Whether a user has nothing that may make way for a message of @class. */
static bool has_none(const struct user *u, enum message_class class)
{
	return list_is_empty(&u->queued[CLASS_CHAT]) &&
	       (class != CLASS_SYSTEM || list_is_empty(&u->queued[CLASS_SYSTEM]));
}

/* Whether a user's messages should make way for what comes in: it has more than the other
 * would have, and something that may. */
static bool is_over_share(const struct host *h, const struct user *u, enum message_class class)
{
	return u != h->incoming_user && !has_none(u, class) &&
	       u->queued_bytes > h->incoming_user->queued_bytes + h->incoming_size;
}

/* @r, which has left its queue already, was pushed out for want of memory. */
static bool is_users_victim(const struct host *h, const struct request *r)
{
	size_t before = h->scheduler.bytes + request_size(r);

	return r->user != h->incoming_user && before + h->incoming_size > h->config->queue_bytes &&
	       r->user->queued_bytes + request_size(r) >
		       h->incoming_user->queued_bytes + h->incoming_size;
}

static void check_users_victim(struct host *h, const struct request *r, enum message_class class)
{
	if (r->class == CLASS_SYSTEM &&
	    (class != CLASS_SYSTEM || !list_is_empty(&r->user->queued[CLASS_CHAT])))
		sim_fail(h->sim, "a user's system message made way for or before chat");
	for (size_t i = 0; i < SIM_GROUPS; i++) {
		if (!has_none(h->users[i], class) &&
		    h->users[i]->queued_bytes > r->user->queued_bytes + request_size(r))
			sim_fail(h->sim, "not the user with most made way");
	}
}

/* Whether an AppID's queue is as long as it may be, with nothing in it that may make way. */
static bool is_shut(const struct app *app, enum message_class class)
{
	if (app->n[REQUEST_QUEUED] + app->n[REQUEST_WAITING] < app->config->queue.queue_max)
		return false;
	if (app->config->queue.overflow == OVERFLOW_NEWEST)
		return true;
	list_for_each (node, &app->rooms) {
		const struct lane *lanes = list_entry(node, struct room, link)->lanes;

		if (lanes[CLASS_CHAT].n > 0 || (class == CLASS_SYSTEM && lanes[CLASS_SYSTEM].n > 0))
			return false;
	}
	return true;
}

static void check_no_user_over_share(struct host *h, enum message_class class)
{
	if (h->scheduler.bytes + h->incoming_size <= h->config->queue_bytes ||
	    is_shut(scheduler_app(&h->scheduler, h->incoming_app), class))
		return;
	for (size_t i = 0; i < SIM_GROUPS; i++) {
		if (is_over_share(h, h->users[i], class))
			sim_fail(h->sim, "a user over its share should have made way");
	}
}

/* Whether what comes in finds no memory, and the longest room would have to give for it
 * what a user has written who has less queued than the one whose it is. */
static bool would_cost_another(const struct host *h, const struct app *app, const struct request *r,
			       enum message_class class)
{
	size_t before = h->scheduler.bytes + (r->room ? request_size(r) : 0);
	size_t mine = h->incoming_user->queued_bytes + (r->room ? request_size(r) : 0);

	if (before + h->incoming_size <= h->config->queue_bytes)
		return false;
	list_for_each (node, &app->rooms) {
		const struct room *room = list_entry(node, struct room, link);

		for (int i = CLASS_CHAT; i >= (int)class; i--) {
			const struct lane *lane = &room->lanes[i];

			if (lane->n > 0 &&
			    list_first(&lane->queue, struct request, link)->user->queued_bytes <
				    mine)
				return true;
		}
	}
	return false;
}

/* Whether @r, which has left its queue already, was its user's first that may make way. What
 * is tried again stands where it came back, whatever its age. */
static bool was_its_users_oldest(const struct request *r, enum message_class class)
{
	const struct list *queue = &r->user->queued[r->class];
	const struct request *next;

	if (r->class == CLASS_SYSTEM &&
	    (class != CLASS_SYSTEM || !list_is_empty(&r->user->queued[CLASS_CHAT])))
		return false;
	if (list_is_empty(queue) || r->attempts > 0)
		return true;
	next = list_first(queue, struct request, charge);
	return next->attempts > 0 || next->sequence > r->sequence;
}

/* Whether @r is an exception to the rule of the longest room, made for the other users: it
 * may be of another AppID then. */
static bool spares_others(struct host *h, const struct request *r, enum message_class class)
{
	const struct app *app = scheduler_app(&h->scheduler, h->incoming_app);

	if (app->config->queue.overflow != OVERFLOW_OLDEST || !would_cost_another(h, app, r, class))
		return false;
	if (!r->room)
		return has_none(h->incoming_user, class);
	return r->user == h->incoming_user && was_its_users_oldest(r, class);
}

void promise_check_overflow(struct host *h, const struct request *r, enum message_class class)
{
	const struct app *app = r->room ? r->room->app : NULL;
	const struct message *m = r->writer;
	enum overflow policy;

	if (r->room && is_users_victim(h, r)) {
		check_users_victim(h, r, class);
		return;
	}
	if (r->room && spares_others(h, r, class))
		return;
	if (app && app->app_id != h->incoming_app)
		sim_fail(h->sim, "another AppID's message made way without need");
	if (!r->room)
		check_no_user_over_share(h, class);
	if (!app)
		app = scheduler_app(&h->scheduler, m->app_id);
	policy = (enum overflow)app->config->queue.overflow;
	if (!r->room && spares_others(h, r, class))
		return;
	if (!r->room && !app_is_full(app) && h->scheduler.bytes + m->size <= h->config->queue_bytes)
		sim_fail(h->sim, "a line was turned down although there was room for it");
	if (r->room && policy == OVERFLOW_NEWEST)
		sim_fail(h->sim, "a message made way where none should");
	else if (r->room && r->class == CLASS_SYSTEM && class != CLASS_SYSTEM)
		sim_fail(h->sim, "a system message made way for chat");
	if (app->n_rooms > 64 || (!r->room && !could_make_room(h, app, m->size)))
		return;
	if (policy == OVERFLOW_OLDEST && class == CLASS_SYSTEM && !r->room)
		check_no_queue(h, app, CLASS_SYSTEM);
	if (policy == OVERFLOW_OLDEST && (!r->room || r->class == CLASS_SYSTEM))
		check_no_queue(h, app, CLASS_CHAT);
	if (r->room)
		check_victim(h, r);
}

void promise_deinit(struct host *h)
{
	for (size_t i = 0; i < SIM_APPS; i++)
		free(h->purses[i].ended);
}
