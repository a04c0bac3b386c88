/* SPDX-License-Identifier: MIT */
/*
 * There is no idempotency key: repeating a message whose fate is unknown can show it
 * twice. So only what was surely not accepted is repeated, unless the operator says
 * otherwise (retry_ambiguous).
 */
#include "core/retry.h"

#define RETRY_BASE (100 * NSEC_PER_MSEC)
#define RETRY_MOST (2 * NSEC_PER_SEC)

uint64_t backoff(uint64_t base, unsigned doublings, uint64_t most, uint32_t random)
{
	uint64_t span = min_u64(doublings < 20 ? base << doublings : most, most);

	return span - span / 4 + (uint64_t)(((unsigned __int128)span / 2 * random) >> 32);
}

static bool is_worth_it(const struct request *r, const struct verdict *v, const struct config *c)
{
	bool tries_left = r->attempts <= c->retries;

	switch (v->class) {
	case VERDICT_RETRY:
	case VERDICT_SLOW_APP:
	case VERDICT_SLOW_ROOM:
	case VERDICT_UNREACHED:
		return tries_left;
	case VERDICT_SIGN_AGAIN:
		return !r->signed_again;
	case VERDICT_UNKNOWN:
		return tries_left && r->attempts < 2;
	case VERDICT_AMBIGUOUS:
		return tries_left && c->retry_ambiguous;
	case VERDICT_OK:
	case VERDICT_DROP:
	case VERDICT_DROP_ROOM:
	case VERDICT_HALT:
	case _VERDICT_N:
		return false;
	}
	return false;
}

uint64_t retry_at(const struct request *r, const struct verdict *v, const struct answer *a,
		  const struct config *c, uint32_t random, uint64_t now)
{
	uint64_t wait = a->retry_after;

	if (!is_worth_it(r, v, c))
		return NEVER;
	/* Another signature may be made at once. */
	if (v->class != VERDICT_SIGN_AGAIN)
		wait = max_u64(wait, backoff(RETRY_BASE, r->attempts - 1U, RETRY_MOST, random));
	return now + wait < r->deadline ? now + wait : NEVER;
}
