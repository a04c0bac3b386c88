/* SPDX-License-Identifier: MIT */
/*
 * Everything that happens to a request happens in this file, through two functions:
 * request_move() between the states, each of which is a list, and finish() out of the
 * last one, with the one fate that is counted and told.
 *
 * An AppID is looked at only when something may have changed for it: it is then on the
 * runnable list, in turn with the others, and leaves it for a timer or for nothing. A
 * room likewise has a turn only while it has a message and is not limited. So the cost of
 * a message does not grow with the number of AppIDs or rooms.
 *
 * Rooms may cease to exist in room_settle(), and requests in finish(): nothing may be
 * touched after either without looking it up again.
 */
#include "core/scheduler.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/retry.h"

/* How long a room that does not exist is remembered: long enough to save the budget from
 * a crowd writing into it, short enough to notice that it was opened. */
#define ROOM_ABSENT (2 * NSEC_PER_SEC)

static const bool may_move[_REQUEST_STATE_N][_REQUEST_STATE_N] = {
	[REQUEST_NEW] = { [REQUEST_QUEUED] = true },
	[REQUEST_QUEUED] = { [REQUEST_IN_FLIGHT] = true, [REQUEST_NEW] = true },
	[REQUEST_IN_FLIGHT] = { [REQUEST_WAITING] = true, [REQUEST_NEW] = true },
	[REQUEST_WAITING] = { [REQUEST_QUEUED] = true, [REQUEST_NEW] = true },
};

static struct lane *lane_of(const struct request *r)
{
	return &r->room->lanes[r->class];
}

static void tell(struct scheduler *s, struct scheduler_event e)
{
	s->ops->event(s->arg, &e);
}

static uint32_t random_bits(struct scheduler *s)
{
	uint32_t bits;

	/* Without randomness jitter is not worth failing for. */
	if (s->ops->random(s->arg, &bits, sizeof(bits)) < 0)
		return UINT32_MAX / 2;
	return bits;
}

static uint64_t room_rate(const struct room *room)
{
	const struct app_config *c = room->app->config;

	return c->room_rate ? min_u64(c->room_rate, c->rate) : c->rate;
}

static void app_look(struct scheduler *s, struct app *app)
{
	heap_remove(&s->timers, &app->timer.node);
	heap_remove(&s->crowded, &app->crowd);
	if (!list_is_linked(&app->runnable))
		list_push_back(&s->runnable, &app->runnable);
	lease_note(&app->lease);
}

/* What the pacer goes by; who holds nothing starts nothing. Tokens that come from other
 * hosts come at any time, and not evenly. */
static uint64_t pace_of(struct app *app, uint64_t now)
{
	app->pacer.spare = app_allotment(app, now) < app->config->rate;
	return max_u64(app_limit(app, now), 1);
}

/* A message has become startable: no need to look if the AppID waits for its own sake. */
static void app_notice(struct scheduler *s, struct app *app)
{
	if (!heap_holds(&app->timer.node) && !heap_holds(&app->crowd))
		app_look(s, app);
}

static void set_timer(struct scheduler *s, struct timer *t, uint64_t at)
{
	if (at == NEVER)
		heap_remove(&s->timers, &t->node);
	else
		heap_set(&s->timers, &t->node, at);
}

/* An AppID that is no longer configured ends with its last room and token: if it came
 * back before, its tokens must still be known. */
static void retired_settle(struct scheduler *s, struct app *app, uint64_t now)
{
	uint64_t home = tokens_home_at(&app->tokens);

	if (app->n_rooms > 0)
		home = NEVER;
	lease_note(&app->lease);
	if (home <= now && !lease_has_ended(&app->lease))
		home = NEVER; /* until the others have its tokens */
	if (home > now) {
		set_timer(s, &app->timer, home);
		return;
	}
	heap_remove(&s->timers, &app->timer.node);
	ledger_add(&s->gone, &app->ledger);
	app_free(app);
	s->n_timed--;
}

/* When nothing needs to be remembered of an idle room any more. */
static uint64_t room_forget_at(const struct room *room)
{
	uint64_t at = max_u64(tokens_home_at(&room->tokens), room->absent_until);

	if (!room->app->config)
		return 0;
	return max_u64(at, limit_whole_at(&room->limit, room_rate(room)));
}

static bool room_is_open(const struct room *room)
{
	uint64_t most = room->app->config ? room->app->config->room_in_flight : 0;

	/* One that waits for another try keeps its place: what comes after it must not
	 * overtake where the operator asked for order. */
	return !room->limited && (most == 0 || room->in_flight + room->waiting < most);
}

/* Brings a room's turns and timer in line with its state. Careful: an idle room may be
 * gone afterwards. Its AppID is not: a retired one ends in scheduler_run() alone. */
static void room_settle(struct scheduler *s, struct room *room, uint64_t now)
{
	struct app *app = room->app;
	bool open = room_is_open(room);
	uint64_t forget;

	for (size_t i = 0; i < _CLASS_N; i++) {
		struct lane *lane = &room->lanes[i];

		if (!open || lane->n == 0)
			list_unlink(&lane->turn);
		else if (!list_is_linked(&lane->turn))
			list_push_back(&app->turns[i], &lane->turn);
		if (list_is_linked(&lane->turn))
			app_notice(s, app);
	}
	if (!room_is_idle(room))
		return;
	forget = room_forget_at(room);
	if (forget > now) {
		room->limited = false;
		set_timer(s, &room->timer, forget);
		return;
	}
	heap_remove(&s->timers, &room->timer.node);
	rooms_remove(&s->rooms, room);
	s->n_timed--;
	if (!app->config)
		set_timer(s, &app->timer, now);
}

/* The room, made if need be, with a place in every heap that it may have to enter. */
static int room_get(struct scheduler *s, struct room **out, struct app *app,
		    const struct request *r)
{
	int e;

	*out = rooms_find(&s->rooms, app, request_room_id(r), r->room_id_len);
	if (*out)
		return 0;
	e = heap_reserve(&s->timers, s->n_timed + 1);
	for (size_t i = 0; i < _CLASS_N && e == 0; i++)
		e = heap_reserve(&app->longest[i], app->n_rooms + 1);
	if (e == 0)
		e = rooms_add(&s->rooms, out, app, request_room_id(r), r->room_id_len);
	if (e == 0)
		s->n_timed++;
	return e;
}

/* When the wheel must look at a message again. */
static uint64_t due(const struct request *r)
{
	return r->state == REQUEST_WAITING ? min_u64(r->at, r->deadline) : r->deadline;
}

static void lane_changed(struct lane *lane, enum message_class class)
{
	struct heap *longest = &lane->room->app->longest[class];

	if (lane->n > 0)
		heap_set(longest, &lane->longest, ~(uint64_t)lane->n);
	else
		heap_remove(longest, &lane->longest);
}

static bool is_older(struct list *node, const struct request *r)
{
	const struct request *other = list_entry(node, struct request, link);

	return (int32_t)(other->sequence - r->sequence) < 0;
}

/* To the end of its lane; after a try, back to the place that it had before. What comes
 * back is older than nearly all that waits, so that is found from the front. */
static void lane_insert(struct lane *lane, struct request *r)
{
	struct list *where = &lane->queue;

	if (r->attempts > 0) {
		where = lane->queue.next;
		while (where != &lane->queue && is_older(where, r))
			where = where->next;
	}
	list_insert_before(where, &r->link);
}

static void leave_state(struct scheduler *s, struct request *r)
{
	struct room *room = r->room;

	list_unlink(&r->link);
	list_unlink(&r->tick);
	if (r->state == REQUEST_QUEUED) {
		lane_of(r)->n--;
		room->app->queued_bytes -= request_size(r);
		users_unqueue(&s->users, r);
		lane_changed(lane_of(r), r->class);
	} else if (r->state == REQUEST_WAITING) {
		room->waiting--;
	} else if (r->state == REQUEST_IN_FLIGHT) {
		room->in_flight--;
		s->in_flight--;
	}
}

static void enter_state(struct scheduler *s, struct request *r)
{
	struct room *room = r->room;

	if (r->state == REQUEST_QUEUED) {
		lane_insert(lane_of(r), r);
		lane_of(r)->n++;
		room->app->queued_bytes += request_size(r);
		users_queue(&s->users, r);
		lane_changed(lane_of(r), r->class);
	} else if (r->state == REQUEST_WAITING) {
		list_push_back(&room->app->in[REQUEST_WAITING], &r->link);
		room->waiting++;
	} else if (r->state == REQUEST_IN_FLIGHT) {
		list_push_back(&room->app->in[REQUEST_IN_FLIGHT], &r->link);
		room->in_flight++;
		s->in_flight++;
	}
	if (r->state == REQUEST_QUEUED || r->state == REQUEST_WAITING)
		wheel_add(&s->wheel, &r->tick, due(r));
}

/* Answers that do not come must not cost the other AppIDs their connections: each may have
 * half of what the others leave of max_in_flight, or all of it where it is alone. */
static bool has_its_share(const struct scheduler *s, const struct app *app)
{
	size_t mine = app->n[REQUEST_IN_FLIGHT];

	return s->n_apps > 1 && mine > 0 &&
	       mine >= share_of(s->config->max_in_flight, s->in_flight, mine);
}

/* It is looked at again when its share has grown, those with least first, in turn. */
static void crowd(struct scheduler *s, struct app *app)
{
	heap_set(&s->crowded, &app->crowd,
		 (uint64_t)app->n[REQUEST_IN_FLIGHT] << 32 | s->crowded_turn++);
}

/* An AppID has one in flight less: its own share is less used, and that of all has grown. */
static void uncrowd(struct scheduler *s, struct app *app)
{
	struct heap_node *top;

	if (heap_holds(&app->crowd))
		app_look(s, app);
	while ((top = heap_top(&s->crowded))) {
		app = container_of(top, struct app, crowd);
		/* Whoever has more has no less reason to wait. */
		if (has_its_share(s, app))
			return;
		app_look(s, app);
	}
}

/* The only way from one state to another. The caller settles the room afterwards. */
static void request_move(struct scheduler *s, struct request *r, enum request_state to,
			 uint64_t now)
{
	struct app *app = r->room->app;

	assert(may_move[r->state][to]);
	leave_state(s, r);
	if (r->state != REQUEST_NEW)
		app->n[r->state]--;
	if (r->state == REQUEST_IN_FLIGHT)
		uncrowd(s, app);
	r->state = (uint8_t)to;
	enter_state(s, r);
	if (to != REQUEST_NEW)
		app->n[to]++;
	app_settle_gate(app);
	lease_note(&app->lease);
	if (app->config)
		pacer_set_busy(&app->pacer, app->n[REQUEST_QUEUED] > 0, pace_of(app, now),
			       app->config->burst, now);
}

/* Tells a fate that has been counted, and frees the request, which is in no state any more. */
static void end(struct scheduler *s, struct request *r, const struct fate_report *f)
{
	s->ops->fate(s->arg, r, f);
	users_put(&s->users, r->user);
	request_free(r);
}

/* Counts a fate of one that may have been started, and ends it. */
static void conclude(struct scheduler *s, struct app *app, struct request *r,
		     const struct fate_report *f)
{
	app->ledger.n[f->fate]++;
	if (app->probe == r)
		app->probe = NULL;
	upstream_forget(&s->upstream, r);
	end(s, r, f);
}

/* A message that may have been accepted by an earlier attempt cannot be told that it was
 * not, whatever became of the last one. */
static enum fate fate_in_doubt(enum fate fate)
{
	bool tells_so = fate == FATE_HTTP || fate == FATE_TIMEOUT || fate == FATE_NETWORK ||
			fate == FATE_ANSWER;

	return fate == FATE_SENT || tells_so ? fate : FATE_NETWORK;
}

/* The one end of a request that was queued. Its room may be gone afterwards. */
static void finish(struct scheduler *s, struct request *r, enum fate fate, const struct verdict *v,
		   uint64_t now)
{
	struct room *room = r->room;
	bool started = r->state == REQUEST_IN_FLIGHT;
	struct fate_report f = {
		.fate = r->in_doubt ? fate_in_doubt(fate) : fate,
		.verdict = v,
		.waited = (started ? r->at : now) - r->accepted,
		.took = started ? now - r->at : 0,
	};

	request_move(s, r, REQUEST_NEW, now);
	s->bytes -= request_size(r);
	if (started)
		histogram_add(&room->app->waits, f.waited);
	conclude(s, room->app, r, &f);
	room_settle(s, room, now);
}

static struct request *oldest_of_longest(const struct app *app, enum message_class class)
{
	struct heap_node *top = heap_top(&app->longest[class]);

	if (!top)
		return NULL;
	return list_first(&container_of(top, struct lane, longest)->queue, struct request, link);
}

/* Ends everything of an AppID that is not in flight. */
static void drop_all(struct scheduler *s, struct app *app, enum fate fate, const struct verdict *v,
		     uint64_t now)
{
	struct request *r;

	while ((r = oldest_of_longest(app, CLASS_SYSTEM)) ||
	       (r = oldest_of_longest(app, CLASS_CHAT)))
		finish(s, r, fate, v, now);
	while (!list_is_empty(&app->in[REQUEST_WAITING]))
		finish(s, list_first(&app->in[REQUEST_WAITING], struct request, link), fate, v,
		       now);
}

static bool exceeds_bytes(const struct scheduler *s, const struct request *r)
{
	return s->bytes + request_size(r) > s->config->queue_bytes;
}

static bool is_full(const struct scheduler *s, const struct app *app, const struct request *r)
{
	return app_is_full(app) || exceeds_bytes(s, r);
}

/* Chat makes way for anything, a system message only for another. */
static struct request *oldest_of_user(const struct user *u, enum message_class least)
{
	for (int class = CLASS_CHAT; class >= (int)least; class --) {
		if (!list_is_empty(&u->queued[class]))
			return list_first(&u->queued[class], struct request, charge);
	}
	return NULL;
}

/* The oldest message of the user who has most of what is queued and anything that may make
 * way, if even with @r its own has less. */
static struct request *victim_of_heaviest(const struct scheduler *s, const struct request *r)
{
	struct user *u = users_heaviest(&s->users, r->class);

	if (!u || u->queued_bytes <= r->user->queued_bytes + request_size(r))
		return NULL;
	return oldest_of_user(u, r->class);
}

/* Has one user's flood make way for another's messages, in whatever AppID it is. */
static void make_users_way(struct scheduler *s, const struct request *r, uint64_t now)
{
	while (exceeds_bytes(s, r)) {
		struct request *old = victim_of_heaviest(s, r);

		if (!old)
			return;
		if (user_tell(old->user, USER_QUEUE))
			tell(s, (struct scheduler_event){ .type = EVENT_OVER_SHARE,
							  .value = old->user->uid });
		finish(s, old, FATE_QUEUE_FULL, NULL, now);
	}
}

/* Of the AppID's longest room. */
static struct request *victim_of_app(const struct app *app, const struct request *r)
{
	struct request *old;

	if (app->config->queue.overflow == OVERFLOW_NEWEST)
		return NULL;
	old = oldest_of_longest(app, CLASS_CHAT);
	if (!old && r->class == CLASS_SYSTEM)
		old = oldest_of_longest(app, CLASS_SYSTEM);
	return old;
}

static struct request *victim_for(const struct scheduler *s, const struct app *app,
				  const struct request *r)
{
	struct request *old = victim_of_app(app, r);

	/* Who fills the memory from many rooms does so at nobody else's cost. */
	if (old && exceeds_bytes(s, r) && old->user->queued_bytes < r->user->queued_bytes)
		old = oldest_of_user(r->user, r->class);
	return old;
}

static bool make_way(struct scheduler *s, struct app *app, const struct request *r, uint64_t now)
{
	/* What others have is spared where the AppID's own limit refuses it anyway. */
	if (app_is_full(app) && !victim_of_app(app, r))
		return false;
	make_users_way(s, r, now);
	/* Others fill the memory: all that this AppID has would be lost for nothing. */
	if (s->bytes - app->queued_bytes + request_size(r) > s->config->queue_bytes)
		return false;
	while (is_full(s, app, r)) {
		struct request *old = victim_for(s, app, r);

		if (!old)
			return false;
		finish(s, old, FATE_QUEUE_FULL, NULL, now);
		/* It may have been its own user's, and then another has more now. */
		make_users_way(s, r, now);
	}
	return true;
}

/* Whether the API said a moment ago that the message's room does not exist. */
static bool is_absent(const struct scheduler *s, const struct app *app, const struct request *r,
		      uint64_t now)
{
	const struct room *room;

	if (s->absent_until <= now)
		return false;
	room = rooms_find(&s->rooms, app, request_room_id(r), r->room_id_len);
	return room && room->absent_until > now;
}

/* FATE_SENT: take it in; anything else is its end. */
static enum fate admit(struct scheduler *s, struct app *app, struct request *r, uint64_t now)
{
	if (s->draining)
		return FATE_SHUTDOWN;
	if (app->halted && (app->probe || now < app->probe_at))
		return FATE_HALTED;
	if (is_absent(s, app, r, now))
		return FATE_NO_ROOM;
	if (!make_way(s, app, r, now))
		return FATE_QUEUE_FULL;
	if (room_get(s, &r->room, app, r) < 0)
		return FATE_MEMORY;
	return FATE_SENT;
}

/* The end of a request that was not taken in. */
static void turn_down(struct scheduler *s, struct app *app, struct request *r, enum fate fate)
{
	struct fate_report f = { .fate = fate };
	struct verdict halt;

	if (fate == FATE_HALTED) {
		halt = (struct verdict){ .has_code = true, .code = app->halt_code };
		f.verdict = &halt;
	}
	conclude(s, app, r, &f);
}

/* Turns down, without a look at its AppID, what admit() would answer with FATE_QUEUE_FULL. */
static bool stays_at_gate(struct scheduler *s, struct request *r, uint64_t now)
{
	struct app_gate *gate = &s->gates[r->app - s->config->apps];

	if (!gate->closed || s->draining || s->absent_until > now)
		return false;
	gate->refused++;
	end(s, r, &(struct fate_report){ .fate = FATE_QUEUE_FULL });
	return true;
}

int scheduler_submit(struct scheduler *s, struct request *r, uint64_t now)
{
	struct app *app;
	enum fate fate;
	uint64_t age;

	if (stays_at_gate(s, r, now))
		return 0;
	app = s->apps[r->app - s->config->apps];
	age = r->ttl_ms ? r->ttl_ms * NSEC_PER_MSEC : r->app->queue.max_age;
	r->app = NULL; /* the section may be gone before the request is */
	r->accepted = now;
	r->deadline = now + age;
	r->sequence = ++s->sequence;
	list_init(&r->link);
	list_init(&r->tick);
	list_init(&r->charge);
	app->accepted++;

	fate = admit(s, app, r, now);
	if (fate != FATE_SENT) {
		turn_down(s, app, r, fate);
		return 0;
	}
	if (app->halted)
		app->probe = r;
	s->bytes += request_size(r);
	request_move(s, r, REQUEST_QUEUED, now);
	room_settle(s, r->room, now);
	return 0;
}

void scheduler_refuse(struct scheduler *s, enum fate fate)
{
	s->refused.n[fate]++;
}

/* Whether the room may start one now; else it gives up its turns until it may. */
static bool room_has_token(struct scheduler *s, struct room *room, uint64_t now)
{
	uint64_t limit = limit_at(&room->limit, room_rate(room), now);
	uint64_t at = tokens_ready_at(&room->tokens, limit, s->credit.value, now);

	at = max_u64(at, room->limit.held_until);
	if (at <= now)
		return true;
	room->limited = true;
	set_timer(s, &room->timer, at);
	room_settle(s, room, now);
	return false;
}

/* The message whose turn it is: system before chat, then room by room. */
static struct request *pick(struct scheduler *s, struct app *app, uint64_t now)
{
	for (size_t i = 0; i < _CLASS_N; i++) {
		while (!list_is_empty(&app->turns[i])) {
			struct lane *lane = list_first(&app->turns[i], struct lane, turn);
			struct request *r = list_first(&lane->queue, struct request, link);

			if (r->deadline <= now)
				finish(s, r, FATE_EXPIRED, NULL, now);
			else if (room_has_token(s, lane->room, now))
				return r;
		}
	}
	return NULL;
}

static int take_tokens(struct scheduler *s, struct room *room, uint64_t now, uint64_t *again)
{
	struct app *app = room->app;
	uint64_t credit = s->credit.value;
	int e;

	e = tokens_take(&app->tokens, app_limit(app, now), credit, now, again);
	if (e != 0)
		return e;
	e = tokens_take(&room->tokens, limit_at(&room->limit, room_rate(room), now), credit, now,
			again);
	if (e != 0)
		tokens_put_back(&app->tokens);
	return e;
}

static int sign(struct scheduler *s, const struct app *app, struct signature *out, uint64_t now)
{
	unsigned char nonce[SIGN_NONCE_BYTES];
	int64_t wall = (int64_t)now + s->wall_offset;
	int e;

	e = s->ops->random(s->arg, nonce, sizeof(nonce));
	if (e < 0)
		return e;
	return signer_sign(&s->signer, out, app->app_id, app->config->secret, nonce,
			   wall / (int64_t)NSEC_PER_SEC);
}

/* Sends a message for which the tokens have been taken. */
static void launch(struct scheduler *s, struct request *r, uint64_t now)
{
	struct room *room = r->room;
	struct app *app = room->app;
	struct signature signature;
	int e;

	list_unlink(&lane_of(r)->turn); /* to the end of the turns, when settled */
	request_move(s, r, REQUEST_IN_FLIGHT, now);
	r->attempts++;
	r->at = now;
	e = sign(s, app, &signature, now);
	if (e == 0)
		e = s->transport->start(s->transport, r, &signature);
	if (e < 0) {
		tokens_put_back(&app->tokens);
		tokens_put_back(&room->tokens);
		finish(s, r, e == -ENOMEM ? FATE_MEMORY : FATE_INTERNAL, NULL, now);
		return;
	}
	pacer_spend(&app->pacer, pace_of(app, now));
	upstream_start(&s->upstream, r);
	tell(s, (struct scheduler_event){ .type = EVENT_STARTED, .app = app, .request = r });
	room_settle(s, room, now);
}

/* When the AppID itself, whatever its rooms, may start something. */
static uint64_t app_ready_at(struct app *app, uint64_t now)
{
	uint64_t at = max_u64(app->held_until, app->limit.held_until);

	if (app->paused)
		return NEVER;
	if (at > now)
		return at;
	if (app_limit(app, now) == 0)
		return NEVER; /* others hold all of it */
	return pacer_ready_at(&app->pacer, pace_of(app, now), app->config->burst, now);
}

/* Starts at most one message. Returns whether another look is worth it. */
static bool start_one(struct scheduler *s, struct app *app, uint64_t now)
{
	uint64_t at = app_ready_at(app, now);
	struct request *r;
	int e;

	if (at > now) {
		set_timer(s, &app->timer, at);
		return false;
	}
	if (has_its_share(s, app)) {
		crowd(s, app);
		return false;
	}
	r = pick(s, app, now);
	if (!r)
		return false;
	e = take_tokens(s, r->room, now, &at);
	if (e == TOKENS_E_NONE) {
		set_timer(s, &app->timer, at);
		return false;
	}
	if (e < 0)
		finish(s, r, FATE_MEMORY, NULL, now);
	else
		launch(s, r, now);
	return true;
}

static void back_in_line(struct scheduler *s, struct request *r, uint64_t now)
{
	struct room *room = r->room;

	request_move(s, r, REQUEST_QUEUED, now);
	if (room->absent_until > now)
		finish(s, r, FATE_NO_ROOM, NULL, now);
	else
		room_settle(s, room, now);
}

static void run_wheel(struct scheduler *s, uint64_t now)
{
	struct list *node;

	while ((node = wheel_pop(&s->wheel, now))) {
		struct request *r = list_entry(node, struct request, tick);

		if (r->deadline <= now)
			finish(s, r, FATE_EXPIRED, NULL, now);
		else if (due(r) <= now)
			back_in_line(s, r, now);
		else
			wheel_add(&s->wheel, node, due(r));
	}
}

static void run_timers(struct scheduler *s, uint64_t now)
{
	struct heap_node *top;

	while ((top = heap_top(&s->timers)) && top->key <= now) {
		struct timer *t = container_of(top, struct timer, node);

		heap_remove(&s->timers, top);
		if (t->owner == TIMER_ROOM) {
			struct room *room = container_of(t, struct room, timer);

			room->limited = false;
			room_settle(s, room, now);
		} else {
			struct app *app = container_of(t, struct app, timer);

			if (app->config)
				app_look(s, app);
			else
				retired_settle(s, app, now);
		}
	}
}

/* A few of the tokens that were gained may be used at once, as they have been unused for
 * long enough; all of them would leave in a clump. */
static void use_gained(struct scheduler *s, struct app *app, uint64_t now)
{
	uint64_t at_once = min_u64(app->lease.gained, max_u64(app->config->rate / 25, 1));

	app->lease.gained = 0;
	if (app->n[REQUEST_QUEUED] > 0 && at_once > 0)
		pacer_allow(&app->pacer, at_once, pace_of(app, now), app->config->burst, now);
	app_look(s, app);
}

/* Looks at AppIDs of which this host holds more than before, or nothing any more. */
static void run_leases(struct scheduler *s, uint64_t now)
{
	struct lease *lease;

	while ((lease = shared_pop_changed(&s->shared, now))) {
		struct app *app = container_of(lease, struct app, lease);

		if (app->config)
			use_gained(s, app, now);
		else
			retired_settle(s, app, now);
	}
}

uint64_t scheduler_run(struct scheduler *s, uint64_t now)
{
	const struct heap_node *top;
	uint64_t next;

	run_wheel(s, now);
	run_timers(s, now);
	shared_plan(&s->shared, now);
	run_leases(s, now);
	while (!list_is_empty(&s->runnable) && s->in_flight < s->config->max_in_flight &&
	       upstream_is_open(&s->upstream, now)) {
		struct app *app = list_first(&s->runnable, struct app, runnable);

		list_unlink(&app->runnable);
		if (start_one(s, app, now))
			app_look(s, app);
	}

	shared_plan(&s->shared, now);
	next = min_u64(wheel_next(&s->wheel), shared_grows_at(&s->shared, now));
	if (!list_is_empty(&s->shared.changed))
		next = min_u64(next, now + 1);
	top = heap_top(&s->timers);
	if (top)
		next = min_u64(next, top->key);
	if (!list_is_empty(&s->runnable) && s->in_flight < s->config->max_in_flight)
		next = min_u64(next, upstream_open_at(&s->upstream));
	assert(next > now);
	return next;
}

static void note_upstream(struct scheduler *s, const struct request *r, const struct answer *a,
			  const struct verdict *v, uint64_t now)
{
	struct scheduler_event e = { .verdict = v };
	bool gateway = !v->has_code && a->status >= 502 && a->status <= 504;

	if (a->result == TRANSPORT_MEMORY || a->result == TRANSPORT_INTERNAL) {
		upstream_forget(&s->upstream, r);
	} else if ((a->result == TRANSPORT_ANSWERED || a->result == TRANSPORT_BROKEN) && !gateway) {
		e.type = EVENT_UPSTREAM_UP;
		if (upstream_answered(&s->upstream))
			tell(s, e);
	} else if (upstream_failed(&s->upstream, r, random_bits(s), now)) {
		e.type = EVENT_UPSTREAM_DOWN;
		tell(s, e);
	}
}

static void slow_down(struct scheduler *s, struct request *r, const struct answer *a,
		      const struct verdict *v, uint64_t now)
{
	struct app *app = r->room->app;
	bool whole = v->class == VERDICT_SLOW_APP;
	struct limit *limit = whole ? &app->limit : &r->room->limit;
	uint64_t full = whole ? app->config->rate : room_rate(r->room);

	if (limit_shrink(limit, full, a->retry_after, now))
		tell(s, (struct scheduler_event){
				.type = whole ? EVENT_SLOWED : EVENT_ROOM_SLOWED,
				.app = app,
				.request = r,
				.verdict = v,
				.value = limit_at(limit, full, now),
			});
}

/* A configuration fault: no budget is spent on it but for a probe now and then. */
static void halt(struct scheduler *s, struct app *app, const struct verdict *v, uint64_t now)
{
	bool news = !app->halted;

	app->halted = true;
	app->halt_code = v->code;
	app->probe_at = now + s->config->probe_interval;
	app_settle_gate(app);
	drop_all(s, app, FATE_HALTED, v, now);
	if (news)
		tell(s, (struct scheduler_event){ .type = EVENT_HALTED, .app = app, .verdict = v });
}

static void resume(struct scheduler *s, struct app *app)
{
	if (!app->halted)
		return;
	app->halted = false;
	app->probe = NULL;
	app_settle_gate(app);
	tell(s, (struct scheduler_event){ .type = EVENT_RESUMED, .app = app });
}

static void room_is_absent(struct scheduler *s, struct room *room, uint64_t now)
{
	room->absent_until = now + ROOM_ABSENT;
	s->absent_until = room->absent_until;
	for (size_t i = 0; i < _CLASS_N; i++) {
		while (room->lanes[i].n > 0)
			finish(s, list_first(&room->lanes[i].queue, struct request, link),
			       FATE_NO_ROOM, NULL, now);
	}
}

/* What an answer means for more than its own message, which is still in flight. */
static void react(struct scheduler *s, struct request *r, const struct answer *a,
		  const struct verdict *v, uint64_t now)
{
	struct app *app = r->room->app;
	bool probe = app->halted && app->probe == r;

	switch (v->class) {
	case VERDICT_SLOW_APP:
	case VERDICT_SLOW_ROOM:
		slow_down(s, r, a, v, now);
		break;
	case VERDICT_DROP_ROOM:
		room_is_absent(s, r->room, now);
		break;
	case VERDICT_HALT:
		halt(s, app, v, now);
		return;
	case VERDICT_SIGN_AGAIN:
		if (r->signed_again)
			halt(s, app, v, now);
		return;
	case VERDICT_RETRY:
	case VERDICT_UNREACHED:
	case VERDICT_AMBIGUOUS:
		return;
	case VERDICT_OK:
	case VERDICT_DROP:
	case VERDICT_UNKNOWN:
	case _VERDICT_N:
		break;
	}
	if (probe && v->has_code)
		resume(s, app);
}

static void give_tokens(struct scheduler *s, struct room *room, bool answered, uint64_t now)
{
	tokens_give(&room->app->tokens, answered, now);
	tokens_give(&room->tokens, answered, now);
	room->limited = false;
}

static uint64_t next_try(struct scheduler *s, const struct request *r, const struct answer *a,
			 const struct verdict *v, uint64_t now)
{
	const struct app *app = r->room->app;

	if (!app->config || (app->halted && app->probe != r))
		return NEVER;
	return retry_at(r, v, a, s->config, random_bits(s), now);
}

static void try_again(struct scheduler *s, struct request *r, const struct verdict *v, uint64_t at,
		      uint64_t now)
{
	struct room *room = r->room;

	if (v->class == VERDICT_SIGN_AGAIN)
		r->signed_again = 1;
	if (v->class == VERDICT_AMBIGUOUS)
		r->in_doubt = 1;
	r->at = at;
	room->app->retries++;
	upstream_forget(&s->upstream, r);
	request_move(s, r, REQUEST_WAITING, now);
	tell(s, (struct scheduler_event){
			.type = EVENT_RETRY, .app = room->app, .request = r, .verdict = v });
	if (at <= now)
		back_in_line(s, r, now);
	else
		room_settle(s, room, now);
}

void scheduler_complete(struct scheduler *s, struct request *r, const struct answer *a,
			uint64_t now)
{
	struct app *app = r->room->app;
	bool answered = a->result == TRANSPORT_ANSWERED;
	struct verdict v;
	uint64_t at;

	assert(r->state == REQUEST_IN_FLIGHT);
	answer_judge(a, &v);
	histogram_add(&app->upstream, now - r->at);
	give_tokens(s, r->room, answered, now);
	if (answered && a->round_trip > 0 && s->config->credit == CREDIT_AUTO &&
	    r->at >= s->upstream_since)
		credit_learn(&s->credit, a->round_trip, now);
	note_upstream(s, r, a, &v, now);
	if (v.has_code)
		app_count_code(app, v.code);
	if (app->config)
		react(s, r, a, &v, now);
	at = next_try(s, r, a, &v, now);
	if (at == NEVER)
		finish(s, r, v.fate, &v, now);
	else
		try_again(s, r, &v, at, now);
	if (app->config)
		app_look(s, app);
}

void scheduler_upstream_changed(struct scheduler *s, uint64_t now)
{
	credit_forget(&s->credit);
	s->upstream_since = now;
}

void scheduler_pause(struct scheduler *s, struct app *app, bool paused)
{
	app->paused = paused;
	app_look(s, app);
}

void scheduler_set_wall(struct scheduler *s, int64_t unix_ns, uint64_t now)
{
	s->wall_offset = unix_ns - (int64_t)now;
}

static struct app *configured_app(const struct scheduler *s, uint32_t app_id)
{
	const struct app_config *c = s->config ? config_app(s->config, app_id) : NULL;

	return c ? s->apps[c - s->config->apps] : NULL;
}

struct app *scheduler_app(const struct scheduler *s, uint32_t app_id)
{
	struct app *app = configured_app(s, app_id);

	if (app)
		return app;
	list_for_each (node, &s->retired) {
		app = list_entry(node, struct app, link);
		if (app->app_id == app_id)
			return app;
	}
	return NULL;
}

/* The AppIDs for a configuration: those that are known, and new ones. */
static int gather_apps(struct scheduler *s, const struct config *c, struct app **apps, uint64_t now)
{
	size_t fresh = 0;

	for (size_t i = 0; i < c->n_apps; i++) {
		apps[i] = scheduler_app(s, c->apps[i].app_id);
		if (apps[i])
			continue;
		if (app_new(&apps[i], &c->apps[i], now) < 0)
			return -ENOMEM;
		/* Another process, or this AppID before it was removed, may just have
		 * sent N requests. */
		apps[i]->held_until = now + c->startup_hold;
		fresh++;
	}
	if (heap_reserve(&s->crowded, c->n_apps) < 0 ||
	    heap_reserve(&s->shared.timers, s->n_timed + fresh) < 0)
		return -ENOMEM;
	return heap_reserve(&s->timers, s->n_timed + fresh);
}

static void free_fresh_apps(struct scheduler *s, const struct config *c, struct app **apps)
{
	for (size_t i = 0; i < c->n_apps; i++) {
		if (apps[i] && apps[i]->config == &c->apps[i])
			app_free(apps[i]);
	}
}

static void retire(struct scheduler *s, struct app *app, uint64_t now)
{
	drop_all(s, app, FATE_APP_REMOVED, NULL, now);
	lease_end(&app->lease);
	app->config = NULL;
	app_set_gate(app, NULL);
	app->paused = false;
	list_unlink(&app->runnable);
	heap_remove(&s->crowded, &app->crowd);
	list_push_back(&s->retired, &app->link);
	list_for_each_safe (node, &app->rooms)
		room_settle(s, list_entry(node, struct room, link), now);
	set_timer(s, &app->timer, now);
}

/* Holds every room against limits that may be others now. */
static void settle_rooms(struct scheduler *s, struct app *app, uint64_t now)
{
	list_for_each_safe (node, &app->rooms) {
		struct room *room = list_entry(node, struct room, link);

		room->limited = false;
		room_settle(s, room, now);
	}
}

static void look_at_all(struct scheduler *s, uint64_t now)
{
	for (size_t i = 0; i < s->n_apps; i++) {
		settle_rooms(s, s->apps[i], now);
		app_look(s, s->apps[i]);
	}
}

static void keep(struct scheduler *s, struct app *app, const struct app_config *c, uint64_t now)
{
	if (app->config == c)
		s->n_timed++; /* a new one */
	list_unlink(&app->link);
	app->config = c;
	lease_configure(&app->lease, &s->shared, now);
	resume(s, app); /* the fault may just have been mended */
	app_settle_gate(app);
}

int scheduler_configure(struct scheduler *s, const struct config *c, uint64_t now)
{
	struct app **apps = calloc(c->n_apps, sizeof(struct app *));
	struct app_gate *gates = calloc(c->n_apps, sizeof(struct app_gate));
	uint64_t incarnation = (uint64_t)random_bits(s) << 32 | random_bits(s);

	if (!apps || !gates || gather_apps(s, c, apps, now) < 0) {
		if (apps)
			free_fresh_apps(s, c, apps);
		free(apps);
		free(gates);
		return -ENOMEM;
	}
	for (size_t i = 0; i < s->n_apps; i++) {
		if (!config_app(c, s->apps[i]->app_id))
			retire(s, s->apps[i], now);
	}
	shared_configure(&s->shared, c, incarnation, now);
	for (size_t i = 0; i < c->n_apps; i++) {
		app_set_gate(apps[i], &gates[i]);
		keep(s, apps[i], &c->apps[i], now);
	}
	free(s->apps);
	s->apps = apps;
	free(s->gates);
	s->gates = gates;
	s->n_apps = c->n_apps;
	s->config = c;
	if (c->credit == CREDIT_NONE)
		credit_forget(&s->credit);
	look_at_all(s, now);
	return 0;
}

void scheduler_drain(struct scheduler *s)
{
	s->draining = true;
}

void scheduler_drop(struct scheduler *s, uint64_t now)
{
	s->draining = true;
	for (size_t i = 0; i < s->n_apps; i++)
		drop_all(s, s->apps[i], FATE_SHUTDOWN, NULL, now);
}

static void abort_all(struct scheduler *s, struct app *app, uint64_t now)
{
	while (!list_is_empty(&app->in[REQUEST_IN_FLIGHT])) {
		struct request *r = list_first(&app->in[REQUEST_IN_FLIGHT], struct request, link);

		s->transport->abort(s->transport, r);
		give_tokens(s, r->room, false, now);
		app->lease.doubtful = tokens_resting(&app->tokens, now);
		finish(s, r, FATE_NETWORK, NULL, now);
	}
}

void scheduler_abort(struct scheduler *s, uint64_t now)
{
	scheduler_drop(s, now);
	for (size_t i = 0; i < s->n_apps; i++)
		abort_all(s, s->apps[i], now);
	list_for_each (node, &s->retired)
		abort_all(s, list_entry(node, struct app, link), now);
}

bool scheduler_is_empty(const struct scheduler *s)
{
	size_t waiting = 0;

	for (size_t i = 0; i < s->n_apps; i++)
		waiting += s->apps[i]->n[REQUEST_QUEUED] + s->apps[i]->n[REQUEST_WAITING];
	return waiting == 0 && s->in_flight == 0;
}

bool scheduler_adds_up(const struct scheduler *s)
{
	for (size_t i = 0; i < s->n_apps; i++) {
		if (!app_adds_up(s->apps[i]))
			return false;
	}
	list_for_each (node, &s->retired) {
		if (!app_adds_up(list_entry(node, struct app, link)))
			return false;
	}
	return true;
}

void scheduler_sum(const struct scheduler *s, struct ledger *out)
{
	*out = s->refused;
	ledger_add(out, &s->gone);
	for (size_t i = 0; i < s->n_apps; i++) {
		const struct ledger l = app_ledger(s->apps[i]);

		ledger_add(out, &l);
	}
	list_for_each (node, &s->retired)
		ledger_add(out, &list_entry(node, struct app, link)->ledger);
}

int scheduler_init(struct scheduler *s, struct transport *t, const struct scheduler_ops *ops,
		   void *arg, uint64_t now)
{
	*s = (struct scheduler){ .transport = t, .ops = ops, .arg = arg };
	wheel_init(&s->wheel, now);
	list_init(&s->runnable);
	list_init(&s->retired);
	users_init(&s->users);
	shared_init(&s->shared);
	s->rooms.seed = (uint64_t)random_bits(s) << 32 | random_bits(s);
	return signer_init(&s->signer);
}

static void end_app(struct scheduler *s, struct app *app)
{
	assert(app->n[REQUEST_IN_FLIGHT] == 0);
	while (!list_is_empty(&app->rooms)) {
		struct room *room = list_first(&app->rooms, struct room, link);

		heap_remove(&s->timers, &room->timer.node);
		rooms_remove(&s->rooms, room);
	}
	heap_remove(&s->timers, &app->timer.node);
	heap_remove(&s->crowded, &app->crowd);
	app_free(app);
}

void scheduler_deinit(struct scheduler *s)
{
	for (size_t i = 0; i < s->n_apps; i++)
		end_app(s, s->apps[i]);
	while (!list_is_empty(&s->retired))
		end_app(s, list_first(&s->retired, struct app, link));
	free(s->apps);
	free(s->gates);
	assert(s->bytes == 0);
	users_deinit(&s->users);
	shared_deinit(&s->shared);
	heap_deinit(&s->timers);
	heap_deinit(&s->crowded);
	rooms_deinit(&s->rooms);
	signer_deinit(&s->signer);
}
