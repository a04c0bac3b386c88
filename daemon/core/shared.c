/* SPDX-License-Identifier: MIT */
/*
 * This host among those who share: the connection to the engine, and how long its last word
 * holds. What the engine does is in shared.lua, and why the sum over all hosts keeps to N is
 * in docs/MANY-HOSTS.md.
 *
 * All hangs on what each side may believe of the other. A *whole* call is one at whose
 * sending the engine knew all that this host may use. Its answer is good for LEASE from when
 * the call was sent, and the next call repeats the engine's time of it, so that the engine
 * knows what we have heard: a host that is not heard, or that does not hear, is silent to it
 * after SILENT (shared.lua), which is two RENEW and what calls may be late, and has its share
 * kept from then on. The share may be used in full (lease_grow()) only when all others have
 * had the time to notice and to give back what they held of it:
 *
 *     answered        LEASE after the call was sent, at most
 *     silent          SILENT after that, 1.5 LEASE
 *     noticed         a beat, its answer and the call that it leads to: LEASE each, at most,
 *                     or that host is itself out of touch and uses no more than its share
 *     given back      the longest attempt and a window: everybody's greatest `settle`
 *
 * which is 5.5 LEASE and that; the rest is for clocks that are set back by the engine.
 *
 * A beat is sent at most LEASE after the one before, when BEAT is over and that one answered.
 * So who is in touch, by a call sent LEASE ago or less, has heard from a beat before it what
 * was so two LEASE ago (KNOWN in shared.lua).
 */
#include "core/shared.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/scheduler.h"

#define LEASE     NSEC_PER_SEC
#define GROW      (8 * LEASE)
#define TAKEN_TRY (5 * NSEC_PER_SEC)

/* When the last whole call was sent so long ago there is another, a beat if nothing else is
 * to be said: what is then left of LEASE is for its answer. And a beat there is after BEAT,
 * whatever else was said: it alone tells who there is, and what is noted. */
#define RENEW (600 * NSEC_PER_MSEC)
#define BEAT  (800 * NSEC_PER_MSEC)

/* After an attempt has been given up, for what libcurl and a busy loop may add to it, and
 * for the window that its token then rests. */
#define SETTLE_MORE (2 * NSEC_PER_SEC)

/* What a token's rest may be longer by the engine's clock. */
#define REST_MORE (10 * NSEC_PER_MSEC)
#define BYE_PARTS 3

/* Whatever an answer says, and longer than anything takes. */
#define AGAIN_MOST (100 * NSEC_PER_SEC)

/* So many calls may wait for their answers: what takes the engine far less than LEASE. How
 * long that is depends on what all others send, so it is one more for each answer that came
 * in time, and half as many for each that took nearly as long as one to a beat may, RENEW
 * after the call before. Or else, when all have much to ask, as after a loss, the answers
 * come too late, all are out of touch again for that, and have to ask again. A beat, which
 * does not wait for others, is never the only one. */
#define SENT_MOST  500
#define SENT_LEAST 2
#define LATE       ((LEASE - RENEW) * 3 / 4)

/* When all others know our name (shared.lua, KNOWN), and a little. */
#define SHARES_AFTER (2600 * NSEC_PER_MSEC)

void shared_init(struct shared *s)
{
	*s = (struct shared){ .hello_at = 0, .grows_at = NEVER, .shares_at = NEVER };
	list_init(&s->sent);
	list_init(&s->call.sent.link);
	list_init(&s->leases);
	list_init(&s->noted);
	list_init(&s->active);
	list_init(&s->changed);
}

void shared_deinit(struct shared *s)
{
	while (!list_is_empty(&s->leases))
		lease_detach(list_first(&s->leases, struct lease, link));
	heap_deinit(&s->timers);
	free(s->members);
}

void shared_configure(struct shared *s, const struct config *c, uint64_t incarnation, uint64_t now)
{
	uint64_t settle = c->timeout + SETTLE_MORE;

	s->config = c;
	/* Whoever is cut off may not know how long he has to wait for what is sent from now on: all
	 * but the share is not used until the engine is sure that he does, or that his is kept. */
	list_for_each (node, &s->leases) {
		if (settle > s->settle)
			lease_retreat(list_entry(node, struct lease, link));
	}
	/* Never less than before: something may be under way since then. */
	s->settle = max_u64(s->settle, settle);
	if (!*s->incarnation) /* a letter, so that it is a number to nobody */
		(void)snprintf(s->incarnation, sizeof(s->incarnation), "i%016" PRIx64,
			       incarnation ^ now);
}

bool shared_is_in_touch(const struct shared *s, uint64_t now)
{
	return s->in_touch && now < s->lease_until;
}

/* Those AppIDs ask whom it may concern who there is. */
static void ask_concerned(struct shared *s, uint64_t now)
{
	list_for_each (node, &s->leases) {
		struct lease *l = list_entry(node, struct lease, link);

		l->is_asked |= lease_is_concerned(l, now);
		lease_note(l);
	}
}

/* Who there is has changed: somebody may rely on his share from now on. Until the engine has
 * told what is left of it for us, its word holds for no longer than it does; but what nobody
 * waits for is rather not used until then, as there may be thousands of such AppIDs. */
static void doubt(struct shared *s, uint64_t now)
{
	list_for_each (node, &s->leases) {
		struct lease *l = list_entry(node, struct lease, link);

		if (l->is_ending || l->held <= l->share)
			continue;
		if (lease_want(l, now) == 0)
			lease_lapse(l);
		else
			lease_set_unsaid(l, true);
	}
	ask_concerned(s, now);
}

static void ask_each(struct shared *s)
{
	list_for_each (node, &s->leases) {
		struct lease *l = list_entry(node, struct lease, link);

		l->is_asked = true;
		lease_note(l);
	}
}

static void note_all(struct shared *s)
{
	list_for_each (node, &s->leases)
		lease_note(list_entry(node, struct lease, link));
}

static void change_all(struct shared *s)
{
	list_for_each (node, &s->leases)
		lease_changed(list_entry(node, struct lease, link));
}

/* What time alone changes. */
static void pass_time(struct shared *s, uint64_t now)
{
	if (s->in_touch && now >= s->lease_until) {
		s->in_touch = false;
		list_for_each (node, &s->leases)
			lease_lapse(list_entry(node, struct lease, link));
	}
	if (!s->in_touch && !s->has_grown && !s->taken && now >= s->grows_at) {
		s->has_grown = true;
		list_for_each (node, &s->leases)
			lease_grow(list_entry(node, struct lease, link));
		/* When these were sent the engine did not know of it. */
		list_for_each (node, &s->sent)
			list_entry(node, struct shared_sent, link)->is_whole = false;
	}
}

struct lease *shared_pop_changed(struct shared *s, uint64_t now)
{
	struct lease *l;

	pass_time(s, now);
	if (list_is_empty(&s->changed))
		return NULL;
	l = list_first(&s->changed, struct lease, changed);
	list_unlink(&l->changed);
	return l;
}

static void plan(struct shared *s, struct lease *l, uint64_t now)
{
	uint64_t at = lease_due(l, now);

	if (at == NEVER)
		heap_remove(&s->timers, &l->timer);
	else
		heap_set(&s->timers, &l->timer, at);
}

static void look(struct shared *s, struct lease *l, uint64_t now)
{
	if (lease_has_ended(l)) {
		lease_detach(l);
		/* -Wanalyzer-use-after-free: it lives on in its AppID. */
		list_push_back(&s->changed, &l->changed);
		return;
	}
	if (!list_is_linked(&l->active))
		list_push_back(&s->active, &l->active);
	plan(s, l, now);
}

/* Whether nothing is to be shared any more, and nobody can be told. */
static bool is_cut_off(const struct shared *s)
{
	return !s->up && (s->joined || !list_is_empty(&s->leases)) && !*s->config->redis;
}

/* A later configuration may have us join again, as somebody else: to the engine we are gone. */
static void forget(struct shared *s)
{
	s->incarnation[0] = s->incarnation[0] == 'z' ? 'i' : s->incarnation[0] + 1;
	s->life[0] = '\0';
	s->joined = false;
	s->in_touch = false;
	s->grows_at = NEVER;
	list_for_each (node, &s->leases) {
		struct lease *l = list_entry(node, struct lease, link);

		l->is_known = false;
		lease_note(l);
	}
}

void shared_plan(struct shared *s, uint64_t now)
{
	pass_time(s, now);
	if (is_cut_off(s))
		forget(s);
	while (!list_is_empty(&s->noted)) {
		struct lease *l = list_first(&s->noted, struct lease, noted);

		list_unlink(&l->noted);
		look(s, l, now);
	}
}

uint64_t shared_grows_at(const struct shared *s, uint64_t now)
{
	if (s->has_grown || s->taken || s->grows_at <= now)
		return NEVER;
	return s->grows_at;
}

/* The connection. */

/* There will be no answer that is of use. What a host's own call was to bring is not noted
 * any more, and nobody says it again: as long as not all have asked it may be that somebody
 * relies on his share. */
static void ask_again(struct shared *s, const struct shared_sent *sent, uint64_t now)
{
	if (sent->lease) {
		sent->lease->is_asked = true;
		return;
	}
	doubt(s, now);
	ask_each(s);
}

bool shared_has_to_pledge(struct shared *s, uint64_t now)
{
	pass_time(s, now);
	return s->in_touch != s->has_pledged;
}

void shared_pledge(struct shared *s, uint64_t now)
{
	pass_time(s, now);
	s->has_pledged = s->in_touch;
	if (!s->has_pledged)
		change_all(s);
}

void shared_found(struct shared *s, const char *incarnation)
{
	(void)snprintf(s->found, sizeof(s->found), "%s", incarnation);
}

/* What was told may not have arrived, and what was answered did not. */
static void forget_sent(struct shared *s, uint64_t now)
{
	while (!list_is_empty(&s->sent)) {
		struct shared_sent *sent = list_first(&s->sent, struct shared_sent, link);

		list_unlink(&sent->link);
		ask_again(s, sent, now);
	}
	s->n_sent = 0;
}

void shared_up(struct shared *s, const char *run_id, uint64_t now)
{
	pass_time(s, now);
	forget_sent(s, now);
	s->up = true;
	s->stuck = false;
	s->may_send = SENT_LEAST;
	s->hello_at = now;
	(void)snprintf(s->run_id, sizeof(s->run_id), "%s", *run_id ? run_id : "-");
	note_all(s);
	shared_plan(s, now);
}

void shared_down(struct shared *s, uint64_t now)
{
	pass_time(s, now);
	forget_sent(s, now);
	s->up = false;
	s->stuck = false;
	note_all(s);
	shared_plan(s, now);
}

static struct shared_sent *oldest(const struct shared *s)
{
	return list_is_empty(&s->sent) ? NULL : list_first(&s->sent, struct shared_sent, link);
}

bool shared_is_stuck(const struct shared *s, uint64_t now)
{
	const struct shared_sent *first = oldest(s);

	return s->up && (s->stuck || (first && now >= first->at + LEASE));
}

static bool is_on(const struct shared *s)
{
	return !list_is_empty(&s->leases) || (s->joined && !s->left);
}

/* Whether all has been said for the last time but for the last word itself. */
static bool may_leave(const struct shared *s)
{
	return s->joined && list_is_empty(&s->leases) && (s->leaving || !*s->config->redis);
}

uint64_t shared_due(const struct shared *s, uint64_t now)
{
	const struct shared_sent *first = oldest(s);
	const struct heap_node *top = heap_top(&s->timers);
	uint64_t at = s->in_touch ? s->lease_until : NEVER;

	if (!s->up || s->left || !is_on(s))
		return at;
	if (s->stuck)
		return now;
	if (first)
		at = min_u64(at, first->at + LEASE);
	if (s->hello_at != NEVER)
		return list_is_linked(&s->call.sent.link) ? at : min_u64(at, s->hello_at);
	if (list_is_linked(&s->call.sent.link) && s->call.op == SHARED_HELLO)
		return at;
	if (!list_is_linked(&s->call.sent.link))
		at = min_u64(at, may_leave(s) ? now : s->beat_at);
	if (top && s->n_sent < s->may_send)
		at = min_u64(at, top->key);
	return at;
}

void shared_channels(const struct shared *s, char own[SHARED_KEY], char all[SHARED_KEY])
{
	(void)snprintf(own, SHARED_KEY, "%sto:%s", s->config->shared_prefix,
		       s->config->shared_name);
	(void)snprintf(all, SHARED_KEY, "%sall", s->config->shared_prefix);
}

/* Calls. */

static void __attribute__((__format__(__printf__, 2, 3)))
put(struct shared_call *c, const char *format, ...)
{
	va_list args;

	assert(c->n_args < SHARED_ARGS);
	va_start(args, format);
	(void)vsnprintf(c->args[c->n_args++], sizeof(c->args[0]), format, args);
	va_end(args);
}

static void begin_call(struct shared *s, struct shared_call *c, struct shared_sent *sent,
		       uint32_t app_id, const char *op, uint64_t now)
{
	const struct config *f = s->config;

	c->n_args = 0;
	c->members = NULL;
	(void)snprintf(c->keys[0], SHARED_KEY, "%shosts", f->shared_prefix);
	(void)snprintf(c->keys[1], SHARED_KEY, "%sapp:%" PRIu32, f->shared_prefix, app_id);
	put(c, "%s", op);
	put(c, "%s", f->shared_name);
	put(c, "%s", s->incarnation);
	put(c, "%s", s->run_id);
	put(c, "%" PRIu64, ++s->sequence);
	put(c, "%" PRIu64, s->n_unsaid == 0 ? s->heard : 0);
	put(c, "%" PRIu64, s->settle / NSEC_PER_MSEC);
	put(c, "%d", f->on_lost == ON_LOST_SHARE);
	put(c, "%s", *s->life ? s->life : "-");
	sent->at = now;
	sent->is_whole = s->n_unsaid == 0;
	if (sent->is_whole)
		s->beat_at = min_u64(now + RENEW, s->beaten_at + BEAT);
	list_push_back(&s->sent, &sent->link);
	s->n_sent++;
}

static void call_host(struct shared *s, struct shared_call *c, enum shared_op op, uint64_t now)
{
	static const char *const names[] = {
		[SHARED_HELLO] = "hello",
		[SHARED_BEAT] = "beat",
		[SHARED_LEAVE] = "leave",
	};

	s->call.op = op;
	s->beaten_at = now;
	s->beat_at = now + RENEW;
	begin_call(s, c, &s->call.sent, 0, names[op], now);
	if (op != SHARED_HELLO)
		return;
	s->hello_at = NEVER;
	s->helloed_at = now;
	put(c, "%" PRIu64, s->greatest);
	put(c, "%" PRIu64, s->members_at);
	put(c, "%s", *s->found ? s->found : "0"); /* "-" is one whom others know */
	c->members = s->members;
}

/* Those of which the engine thinks what is no longer so. */
static void ask_changed(struct shared *s, uint64_t now)
{
	list_for_each_safe (node, &s->active) {
		struct lease *l = list_entry(node, struct lease, active);

		if (l->is_ending)
			continue;
		if (lease_has_news(l, now))
			l->is_asked = true;
		else if (lease_want(l, now) == 0)
			list_unlink(node);
		plan(s, l, now);
	}
}

/* What it has at rest is the others' as it comes home: in a few parts. */
static void call_bye(struct shared *s, struct lease *l, struct shared_call *c, uint64_t now)
{
	struct app *app = container_of(l, struct app, lease);
	/* What was aborted is said as it was then, also if that has to be said again. */
	uint64_t left = max_u64(tokens_resting(&app->tokens, now), l->doubtful);
	uint64_t part = (left + BYE_PARTS - 1) / BYE_PARTS;

	l->held = left;
	l->is_bye = true;
	begin_call(s, c, &l->sent, app->app_id, "bye", now);
	for (; left > 0; left -= part) {
		uint64_t at = now + s->settle;

		part = min_u64(part, left);
		if (l->doubtful == 0)
			at = tokens_rested_at(&app->tokens, left - part + 1, now) + REST_MORE;
		put(c, "%" PRIu64, part);
		put(c, "%" PRIu64, (at - now) / NSEC_PER_MSEC);
	}
}

static void call_sync(struct shared *s, struct lease *l, struct shared_call *c, uint64_t now)
{
	const struct app *app = container_of(l, struct app, lease);
	uint64_t hosts = max_u64(s->config->shared_hosts, 1);
	uint64_t per_host = app->config->rate / hosts;

	l->held = lease_keeps(l, now);
	l->told_held = l->held;
	l->told_want = lease_want(l, now);
	l->again_at = NEVER;
	l->is_known = true; /* it may be, whether or not we hear of it */
	l->is_asked = false;
	l->say_again = false;
	l->is_bye = false;
	l->called_at = now;
	begin_call(s, c, &l->sent, app->app_id, "sync", now);
	put(c, "%" PRIu64, l->held);
	put(c, "%" PRIu64, l->told_want);
	put(c, "%" PRIu64, app->config->rate);
	put(c, "%" PRIu64, l->share);
	put(c, "%" PRIu64, lease_share_wanted(l));
	put(c, "%" PRIu64, per_host);
	put(c, "%" PRIu64, lease_allotment(l, app->config, now));
}

static bool call_lease(struct shared *s, struct shared_call *c, uint64_t now)
{
	struct heap_node *top;

	while ((top = heap_top(&s->timers)) && top->key <= now) {
		struct lease *l = container_of(top, struct lease, timer);

		heap_remove(&s->timers, top);
		if (lease_due(l, now) > now) {
			plan(s, l, now);
			continue;
		}
		if (l->is_ending)
			call_bye(s, l, c, now);
		else
			call_sync(s, l, c, now);
		return true;
	}
	return false;
}

bool shared_next(struct shared *s, struct shared_call *out, uint64_t now)
{
	bool may_call = !list_is_linked(&s->call.sent.link);

	shared_plan(s, now);
	if (!s->up || s->stuck || s->left || !is_on(s))
		return false;
	if (s->hello_at != NEVER) {
		if (s->hello_at > now || !may_call)
			return false;
		call_host(s, out, SHARED_HELLO, now);
		return true;
	}
	if (!may_call && s->call.op == SHARED_HELLO)
		return false;
	if (may_call && may_leave(s)) {
		call_host(s, out, SHARED_LEAVE, now);
		return true;
	}
	if (may_call && s->beat_at <= now) {
		if (s->shares_at <= now) {
			s->shares_at = NEVER;
			ask_concerned(s, now);
			shared_plan(s, now);
		}
		ask_changed(s, now);
		call_host(s, out, SHARED_BEAT, now);
		return true;
	}
	return s->n_sent < s->may_send && call_lease(s, out, now);
}

/* Answers. */

static bool is_text(const struct shared_value *v, const char *text)
{
	return v->is_text && v->len == strlen(text) && memcmp(v->text, text, v->len) == 0;
}

/* The largest number that means something to an engine is its time in milliseconds, and what
 * is an interval among them must not come round as nanoseconds. */
#define NUMBER_MOST (UINT64_C(1) << 43)

static uint64_t positive(const struct shared_value *v)
{
	return !v->is_text && v->number > 0 ? min_u64((uint64_t)v->number, NUMBER_MOST) : 0;
}

/* The engine has lost its books, or never had any of ours. */
static void begin_life(struct shared *s)
{
	s->heard = 0;
	list_for_each (node, &s->leases)
		lease_forget_known(list_entry(node, struct lease, link));
}

static void on_stale(struct shared *s, uint64_t now)
{
	begin_life(s);
	s->joined = false;
	s->left = s->leaving;
	/* At once, but for engines that have us go from one to the other. */
	if (!list_is_linked(&s->call.sent.link) || s->call.op != SHARED_HELLO)
		s->hello_at = max_u64(now, s->helloed_at + BEAT);
}

/* Somebody else is known by our name, and we are not yet believed to be there. */
static void on_again(struct shared *s, uint64_t now)
{
	s->hello_at = s->says_again ? s->helloed_at + BEAT : now;
	s->says_again = !s->says_again; /* at once, but for engines that are never content */
}

/* Two go by one name; the other came later, or came back first. */
static void on_taken(struct shared *s, uint64_t now)
{
	s->taken = true;
	s->in_touch = false;
	s->joined = false;
	list_for_each (node, &s->leases) {
		struct lease *l = list_entry(node, struct lease, link);

		l->target = 0;
		l->share = 0;
	}
	begin_life(s);
	s->hello_at = now + TAKEN_TRY;
}

/* The engine's word holds from when it was asked. */
static void on_whole(struct shared *s, const struct shared_sent *sent, const struct shared_value *v,
		     uint64_t now)
{
	if (!sent->is_whole)
		return;
	if (!s->in_touch) {
		/* What came by calls that were not whole was not to be relied on. */
		list_for_each (node, &s->leases)
			lease_lapse(list_entry(node, struct lease, link));
		change_all(s);
		ask_each(s); /* what it has of us may be of before */
	}
	s->in_touch = true;
	s->has_grown = false;
	s->heard = positive(&v[1]);
	s->lease_until = max_u64(s->lease_until, sent->at + LEASE);
	s->grows_at = sent->at + GROW + s->greatest * NSEC_PER_MSEC;
}

static void ask_one(struct shared *s, uint32_t app_id)
{
	const struct scheduler *scheduler = container_of(s, struct scheduler, shared);
	struct app *app = scheduler_app(scheduler, app_id);

	if (app && app->lease.shared) {
		app->lease.is_asked = true;
		lease_note(&app->lease);
	}
}

/* AppIDs with blanks between them; "*": who there is has changed; "!": all of them. */
static void ask(struct shared *s, const char *text, size_t len, uint64_t now)
{
	uint64_t app_id = 0;

	if (memchr(text, '*', len))
		doubt(s, now);
	if (memchr(text, '!', len))
		ask_each(s);
	for (size_t i = 0; i <= len; i++) {
		if (i < len && text[i] >= '0' && text[i] <= '9' && app_id <= UINT32_MAX) {
			app_id = app_id * 10 + (uint64_t)(text[i] - '0');
			continue;
		}
		if (app_id > 0 && app_id <= UINT32_MAX)
			ask_one(s, (uint32_t)app_id);
		app_id = 0;
	}
}

static bool keep_members(struct shared *s, const struct shared_value *v)
{
	char *copy = strndup(v->text, v->len);

	if (!copy)
		return false;
	free(s->members);
	s->members = copy;
	return true;
}

/* Who was cut off when the engine lost its memory is counted there with its share until it has
 * told what it has. That can no longer be told, and must rest: it is as if it were cut off still. */
static void go_without_a_word(struct shared *s)
{
	s->joined = false;
	s->left = true;
}

/* { "ok", now, greatest settle, life, what to ask about, who shares } */
static bool on_host_answer(struct shared *s, struct shared_sent *sent, const struct shared_value *v,
			   size_t n, uint64_t now)
{
	if (s->call.op == SHARED_LEAVE) {
		s->left = s->leaving;
		s->hello_at = now;
		forget(s);
		return true;
	}
	if (n != 6 || !v[3].is_text || v[3].len >= SHARED_LIFE || !v[4].is_text || !v[5].is_text ||
	    !keep_members(s, &v[5]))
		return false;
	if (!s->joined)
		s->shares_at = now + SHARES_AFTER;
	s->joined = true;
	s->taken = false;
	s->says_again = false;
	if (!is_text(&v[3], s->life)) {
		if (s->leaving && !s->in_touch) {
			go_without_a_word(s);
			return true;
		}
		begin_life(s);
		sent->is_whole = s->n_unsaid == 0;
		memcpy(s->life, v[3].text, v[3].len);
		s->life[v[3].len] = '\0';
	}
	s->members_at = positive(&v[1]);
	ask(s, v[4].text, v[4].len, now);
	return true;
}

static void on_bye_answer(struct shared *s, struct lease *l)
{
	l->is_known = false;
	l->told_want = 0;
	lease_note(l);
}

/* { "ok", now, greatest settle, held, target, share, ms after which to ask again } */
static bool on_sync_answer(struct shared *s, struct lease *l, const struct shared_value *v,
			   size_t n, uint64_t now)
{
	uint64_t before = lease_usable(l);
	uint64_t share;

	lease_note(l);
	if (n != 7)
		return false;
	if (l->is_ending || l->say_again) /* what we have now is not what we had told */
		return true;
	lease_set_unsaid(l, false);
	l->held = positive(&v[3]);
	l->target = positive(&v[4]);
	/* A reload may have made it less since the call. */
	share = min_u64(positive(&v[5]), lease_share_wanted(l));
	if (share > l->share) {
		/* From now on the others begin to leave it to us; out of touch it is already
		 * what may be used of what is held. */
		s->grows_at = max_u64(s->grows_at, l->sent.at + GROW + s->greatest * NSEC_PER_MSEC);
		lease_changed(l);
	}
	l->share = share;
	l->told_held = l->held;
	if (positive(&v[6]) > 0)
		l->again_at = now + min_u64(positive(&v[6]) * NSEC_PER_MSEC, AGAIN_MOST);
	if (lease_usable(l) <= before)
		return true;
	l->gained += lease_usable(l) - before;
	lease_changed(l);
	return true;
}

static bool on_ok(struct shared *s, struct shared_sent *sent, const struct shared_value *v,
		  size_t n, uint64_t now)
{
	size_t unsaid = s->n_unsaid;
	bool is_good;

	if (n < 3)
		return false;
	s->greatest = max_u64(positive(&v[2]), s->settle / NSEC_PER_MSEC);
	if (!sent->lease)
		is_good = on_host_answer(s, sent, v, n, now);
	else if (sent->lease->is_bye)
		is_good = (on_bye_answer(s, sent->lease), true);
	else
		is_good = on_sync_answer(s, sent->lease, v, n, now);
	if (!is_good)
		return false;
	if (!s->joined) /* that was goodbye */
		return true;
	on_whole(s, sent, v, now);
	/* Now it knows all. */
	if (unsaid > 0 && s->n_unsaid == 0)
		s->beat_at = now;
	return true;
}

void shared_answer(struct shared *s, const struct shared_value *v, size_t n, uint64_t now)
{
	struct shared_sent *sent = oldest(s);

	pass_time(s, now);
	if (!sent || now >= sent->at + LEASE || n == 0 || s->stuck) {
		s->stuck = true;
		return;
	}
	list_unlink(&sent->link);
	s->n_sent--;
	if (now < sent->at + LATE)
		s->may_send = min_u64(s->may_send + 1, SENT_MOST);
	else
		s->may_send = max_u64(s->may_send / 2, SENT_LEAST);
	if (sent->lease)
		lease_note(sent->lease);
	if (is_text(&v[0], "stale"))
		on_stale(s, now);
	else if (is_text(&v[0], "taken"))
		on_taken(s, now);
	else if (is_text(&v[0], "again") && !sent->lease && s->call.op == SHARED_HELLO)
		on_again(s, now);
	else if (!is_text(&v[0], "ok") || !on_ok(s, sent, v, n, now)) {
		s->stuck = true;
		ask_again(s, sent, now);
	}
	shared_plan(s, now);
}

void shared_poked(struct shared *s, const char *message, size_t len, uint64_t now)
{
	ask(s, message, len, now);
	/* Somebody has come or gone: a beat tells who there is. */
	if (len == 1 && *message == '*')
		s->beat_at = min_u64(s->beat_at, now);
	shared_plan(s, now);
}

enum shared_state shared_state(const struct shared *s, uint64_t now)
{
	if (!is_on(s))
		return SHARED_OFF;
	if (s->taken)
		return SHARED_TAKEN;
	if (shared_is_in_touch(s, now))
		return SHARED_IN_TOUCH;
	return s->grows_at != NEVER ? SHARED_LOST : SHARED_JOINING;
}

const char *shared_state_name(enum shared_state state)
{
	static const char *const names[] = {
		[SHARED_OFF] = "off",           [SHARED_JOINING] = "joining",
		[SHARED_IN_TOUCH] = "in_touch", [SHARED_LOST] = "lost",
		[SHARED_TAKEN] = "taken",
	};

	assert(state < _SHARED_STATE_N);
	return names[state];
}

const char *shared_members(const struct shared *s)
{
	return is_on(s) && s->members ? s->members : "";
}

void shared_leave(struct shared *s, uint64_t now)
{
	bool has_told = true;

	pass_time(s, now);
	list_for_each (node, &s->leases) {
		const struct lease *l = list_entry(node, struct lease, link);

		has_told &= l->is_known || !l->is_unsaid;
	}
	s->leaving = true;
	list_for_each (node, &s->leases)
		lease_end(list_entry(node, struct lease, link));
	if (!has_told && !s->in_touch)
		go_without_a_word(s);
	shared_plan(s, now);
}

bool shared_is_silent(const struct shared *s)
{
	return !s->up || s->left || (!s->joined && list_is_empty(&s->leases));
}
