/* SPDX-License-Identifier: MIT */
/*
 * A host keeps its tokens as if they were all there were (tokens.h); here is only how many
 * they are. Three numbers say it: what it holds, how much of that it may use, and the share
 * that it goes on with when the engine is lost.
 *
 * A token that is to go to another host is first not used any more (target), then comes
 * home without any credit, and only then is no longer counted as held: the credit is a
 * bound for this host's own way to the server, and another may be nearer. `held` falls
 * before the engine is told and rises after it has answered, so what it has written is
 * never less than what may be used here.
 */
#include "core/lease.h"

#include "core/scheduler.h"

/* What comes home one by one is returned together, and a queue that grows asks not for
 * each message: an AppID calls so often at most, unless it is asked. */
#define CALM (10 * NSEC_PER_MSEC)

static struct app *app_of(struct lease *l)
{
	return container_of(l, struct app, lease);
}

void lease_init(struct lease *l)
{
	*l = (struct lease){ 0 };
	list_init(&l->link);
	list_init(&l->noted);
	list_init(&l->active);
	list_init(&l->changed);
	list_init(&l->sent.link);
	l->sent.lease = l;
}

void lease_set_unsaid(struct lease *l, bool is_unsaid)
{
	if (l->is_unsaid == is_unsaid)
		return;
	l->is_unsaid = is_unsaid;
	if (is_unsaid)
		l->shared->n_unsaid++;
	else
		l->shared->n_unsaid--;
}

void lease_detach(struct lease *l)
{
	list_unlink(&l->changed);
	if (!l->shared)
		return;
	lease_set_unsaid(l, false);
	heap_remove(&l->shared->timers, &l->timer);
	list_unlink(&l->link);
	list_unlink(&l->noted);
	list_unlink(&l->active);
	list_unlink(&l->sent.link);
	lease_init(l);
}

uint64_t lease_share_wanted(struct lease *l)
{
	const struct config *c = l->shared->config;
	const struct app_config *a = app_of(l)->config;

	if (!a || l->is_ending || c->on_lost == ON_LOST_HOLD)
		return 0;
	return a->rate / max_u64(c->shared_hosts, 1);
}

static void attach(struct lease *l, struct shared *s, uint64_t now)
{
	l->shared = s;
	l->again_at = NEVER;
	/* What was sent before it was shared is not home yet. */
	l->held = tokens_resting(&app_of(l)->tokens, now);
	list_push_back(&s->leases, &l->link);
}

/* An ending that needs no word, or cannot have one: no book has it. */
bool lease_has_ended(const struct lease *l)
{
	return !l->shared || (l->is_ending && !l->is_known && !list_is_linked(&l->sent.link));
}

void lease_changed(struct lease *l)
{
	if (!list_is_linked(&l->changed))
		list_push_back(&l->shared->changed, &l->changed);
}

void lease_configure(struct lease *l, struct shared *s, uint64_t now)
{
	const struct config *c = s->config;

	if (!c->redis || !*c->redis || !app_of(l)->config->shared || s->leaving) {
		lease_end(l);
		return;
	}
	if (!l->shared)
		attach(l, s, now);
	l->is_ending = false;
	l->is_asked = true;
	l->share = min_u64(l->share, lease_share_wanted(l));
	lease_note(l);
}

void lease_end(struct lease *l)
{
	if (!l->shared)
		return;
	l->is_ending = true;
	l->target = 0;
	l->share = 0;
	lease_set_unsaid(l, false);
	lease_changed(l);
	lease_note(l);
}

void lease_note(struct lease *l)
{
	if (l->shared && !list_is_linked(&l->noted))
		list_push_back(&l->shared->noted, &l->noted);
}

uint64_t lease_usable(const struct lease *l)
{
	return min_u64(l->held, l->target);
}

uint64_t lease_allotment(const struct lease *l, const struct app_config *c, uint64_t now)
{
	const struct shared *s = l->shared;
	bool in_touch;

	if (!s)
		return c->rate;
	in_touch = shared_is_in_touch(s, now);
	if (!in_touch && s->has_pledged)
		return 0;
	/* It was taken out of [shared] while nobody can be told. */
	if (l->is_ending && !s->leaving && !in_touch)
		return c->rate;
	if (in_touch)
		return lease_usable(l);
	return min_u64(lease_usable(l), l->share);
}

void lease_lapse(struct lease *l)
{
	if (l->is_ending) /* it is the host's own, though nobody knows */
		lease_changed(l);
	l->target = min_u64(lease_usable(l), l->share);
}

void lease_retreat(struct lease *l)
{
	lease_lapse(l);
	l->say_again = true;
}

void lease_grow(struct lease *l)
{
	if (l->target >= l->share)
		return;
	l->target = l->share;
	l->held = max_u64(l->held, l->share);
	l->say_again = true;
	lease_set_unsaid(l, true);
	lease_changed(l);
}

void lease_forget_known(struct lease *l)
{
	l->is_known = false;
	lease_set_unsaid(l, !l->is_ending && (l->held > 0 || l->share > 0));
	lease_note(l);
}

uint64_t lease_want(struct lease *l, uint64_t now)
{
	struct app *app = app_of(l);
	struct scheduler *s = container_of(l->shared, struct scheduler, shared);
	uint64_t want = tokens_away(&app->tokens, s->credit.value, now);

	if (!app->config || l->is_ending)
		return 0;
	want += app->n[REQUEST_QUEUED] + app->n[REQUEST_WAITING];
	return min_u64(want, app->config->rate);
}

bool lease_has_news(struct lease *l, uint64_t now)
{
	uint64_t want = lease_want(l, now);

	if (l->held != l->told_held)
		return true;
	/* Who is short stays so; and what is wanted of what is held anyway matters to others
	 * when they want it, and then we are asked. */
	return want < l->told_want && want <= lease_usable(l);
}

uint64_t lease_keeps(struct lease *l, uint64_t now)
{
	uint64_t resting = tokens_resting(&app_of(l)->tokens, now);

	if (l->target >= l->held)
		return l->held;
	return max_u64(l->target, min_u64(l->held, resting));
}

bool lease_is_concerned(struct lease *l, uint64_t now)
{
	if (l->target < l->held || l->share < lease_share_wanted(l))
		return true;
	/* Somebody may want his share of it; or there may be more. Idle AppIDs, of which there
	 * may be thousands, have nothing to say. */
	return l->held > l->share || lease_want(l, now) > l->held;
}

/* When it can return a token. */
static uint64_t returns_at(struct lease *l, uint64_t now)
{
	if (l->target >= l->held)
		return NEVER;
	return max_u64(tokens_rested_at(&app_of(l)->tokens, l->held, now), l->called_at + CALM);
}

uint64_t lease_due(struct lease *l, uint64_t now)
{
	uint64_t at;

	if (list_is_linked(&l->sent.link))
		return NEVER;
	if (l->is_ending) {
		/* What is under way could not be told from what is at home. */
		return app_of(l)->tokens.held > 0 ? NEVER : now;
	}
	if (!l->is_known || l->is_unsaid || l->is_asked)
		return now;
	at = min_u64(l->again_at, returns_at(l, now));
	/* It is short. */
	if (l->told_want <= lease_usable(l) && lease_want(l, now) > lease_usable(l))
		at = min_u64(at, l->called_at + CALM);
	return at;
}
