/* SPDX-License-Identifier: MIT */
/*
 * The rule that keeps promise 1 (design: "a token bucket whose tokens come back").
 * A request holds its token while it is under way; one window after its answer the
 * token is free again, less the credit. The server counts request i at or before its
 * answer reached us less the way back, and the next request on the same token at or
 * after its start plus the way out, so two counts on one token are a window apart as
 * long as the credit is at most the way out and back. N + 1 counts within a window
 * would have to share a token.
 *
 * A ring of the times at which tokens come home, in the order of their answers, is all
 * the state there is. Answers come in the order of time, so the ring is sorted as it is.
 * The credit is taken off when a token is asked for, not when it is given back, and an
 * entry leaves the ring only when it would be at home without any: when a nearer server
 * turns up, all tokens are at once judged by what is known then. Whether the credit
 * applies to an entry is its lowest bit.
 *
 * A token may be used again on credit while its entry is still in the ring. Only one that is
 * at home without any may go to another host, whose way to the server may be shorter; so an
 * entry whose token has been taken again is marked, and stands for no other token.
 *
 * An entry without credit holds up those behind it for at most the credit: later than
 * need be, never too early.
 */
#include "core/tokens.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* The lowest bits of an entry; its time is rounded up to make room for them. */
#define CREDITED UINT64_C(1)
#define REUSED   UINT64_C(2)
#define BITS     (CREDITED | REUSED)

static uint64_t entry_at(const struct tokens *t, size_t i)
{
	return t->ring[(t->head + i) & (t->size - 1)];
}

static uint64_t comes_home(uint64_t entry, uint64_t credit)
{
	uint64_t at = entry & ~BITS;

	if (!(entry & CREDITED))
		return at;
	return at > credit ? at - credit : 0;
}

/* Entries that are at home without any credit. */
static void drop_rested(struct tokens *t, uint64_t now)
{
	while (t->cooling > 0 && comes_home(entry_at(t, 0), 0) <= now) {
		t->reused -= (entry_at(t, 0) & REUSED) > 0;
		t->head = (t->head + 1) & (t->size - 1);
		t->cooling--;
		t->early -= t->early > 0;
	}
}

static void bring_home(struct tokens *t, uint64_t credit, uint64_t now)
{
	drop_rested(t, now);
	while (t->early < t->cooling && comes_home(entry_at(t, t->early), credit) <= now)
		t->early++;
	while (t->early > 0 && comes_home(entry_at(t, t->early - 1), credit) > now)
		t->early--;
}

uint64_t tokens_away(struct tokens *t, uint64_t credit, uint64_t now)
{
	bring_home(t, credit, now);
	return (uint64_t)t->held + t->cooling - t->early;
}

uint64_t tokens_ready_at(struct tokens *t, uint64_t limit, uint64_t credit, uint64_t now)
{
	uint64_t away = tokens_away(t, credit, now);
	uint64_t at = now;

	if (away < limit)
		return now;
	if (t->held >= limit)
		return NEVER;
	/* One without credit may stand before the one that is waited for. */
	for (uint64_t i = 0; i <= away - limit; i++)
		at = max_u64(at, comes_home(entry_at(t, t->early + i), credit));
	return at;
}

uint64_t tokens_resting(struct tokens *t, uint64_t now)
{
	drop_rested(t, now);
	return (uint64_t)t->held + t->cooling - t->reused;
}

uint64_t tokens_rested_at(struct tokens *t, uint64_t limit, uint64_t now)
{
	uint64_t resting = tokens_resting(t, now);
	uint32_t i = 0;

	if (resting < limit)
		return now;
	if (t->held >= limit)
		return NEVER;
	while (resting >= limit) {
		resting -= !(entry_at(t, i) & REUSED);
		i++;
	}
	return comes_home(entry_at(t, i - 1), 0);
}

/* Room for one entry more than are away, so that giving back cannot fail. */
static int reserve(struct tokens *t)
{
	uint32_t away = t->held + t->cooling;
	uint32_t size = t->size ? t->size * 2 : 4;
	uint64_t *ring;

	if (away < t->size)
		return 0;
	ring = calloc(size, sizeof(*ring));
	if (!ring)
		return -ENOMEM;
	for (uint32_t i = 0; i < t->cooling; i++)
		ring[i] = entry_at(t, i);
	free(t->ring);
	t->ring = ring;
	t->size = size;
	t->head = 0;
	return 0;
}

static uint64_t *place_of(struct tokens *t, size_t i)
{
	return &t->ring[(t->head + i) & (t->size - 1)];
}

/* Which of the tokens at home is taken is a matter of the books alone. It is the one that
 * came home last: so one that is wanted elsewhere is soon at home without any credit. */
static void mark_reused(struct tokens *t)
{
	uint32_t i = t->early;

	if (t->reused >= t->early)
		return;
	while (i > 0 && (entry_at(t, i - 1) & REUSED))
		i--;
	if (i == 0)
		return;
	*place_of(t, i - 1) |= REUSED;
	t->reused++;
}

/* The one that lasts longest, whichever it was. */
static void unmark_reused(struct tokens *t)
{
	uint32_t i = t->cooling;

	if (t->reused == 0)
		return;
	while (!(entry_at(t, i - 1) & REUSED))
		i--;
	*place_of(t, i - 1) &= ~REUSED;
	t->reused--;
}

int tokens_take(struct tokens *t, uint64_t limit, uint64_t credit, uint64_t now, uint64_t *again)
{
	uint64_t at = tokens_ready_at(t, limit, credit, now);
	int r;

	if (at > now) {
		*again = at;
		return TOKENS_E_NONE;
	}
	r = reserve(t);
	if (r < 0)
		return r;
	mark_reused(t);
	t->held++;
	return 0;
}

void tokens_give(struct tokens *t, bool answered, uint64_t now)
{
	uint64_t entry = (now + TOKENS_WINDOW + BITS) & ~BITS;

	assert(t->held > 0);
	assert(t->cooling < t->size);
	t->held--;
	t->ring[(t->head + t->cooling) & (t->size - 1)] = entry | (answered ? CREDITED : 0);
	t->cooling++;
}

void tokens_put_back(struct tokens *t)
{
	assert(t->held > 0);
	t->held--;
	unmark_reused(t);
}

uint64_t tokens_home_at(const struct tokens *t)
{
	if (t->held > 0)
		return NEVER;
	return t->cooling > 0 ? comes_home(entry_at(t, t->cooling - 1), 0) : 0;
}

void tokens_deinit(struct tokens *t)
{
	free(t->ring);
	*t = (struct tokens){ 0 };
}
