/* SPDX-License-Identifier: MIT */
/*
 * The budget belongs to the AppID, not to this process: somebody else may be spending
 * it too. Additive increase with multiplicative decrease is what makes several senders
 * that know nothing of each other settle near a fair share.
 */
#include "core/limit.h"

#define MILLION         UINT64_C(1000000)
#define SECONDS_TO_GROW 20 /* from nothing to all of N */

/* Growth a second is full/20 requests: full × 10⁶ / (20 × 10⁹) millionths a nanosecond. */
static uint64_t grown(uint64_t full, uint64_t elapsed)
{
	return full * (elapsed / 1000) / SECONDS_TO_GROW;
}

static uint64_t level_at(const struct limit *l, uint64_t full, uint64_t now)
{
	uint64_t elapsed = now - l->since;

	if (l->level == 0 || elapsed >= SECONDS_TO_GROW * NSEC_PER_SEC)
		return full * MILLION;
	return min_u64(l->level + grown(full, elapsed), full * MILLION);
}

uint64_t limit_at(const struct limit *l, uint64_t full, uint64_t now)
{
	return max_u64(level_at(l, full, now) / MILLION, 1);
}

bool limit_shrink(struct limit *l, uint64_t full, uint64_t retry_after, uint64_t now)
{
	uint64_t level = level_at(l, full, now);

	if (retry_after > 0)
		l->held_until = max_u64(l->held_until, time_after(now, retry_after));
	if (l->level > 0 && now - l->since < NSEC_PER_SEC)
		return false;
	l->level = max_u64(level / 10 * 7, MILLION);
	l->since = now;
	return true;
}

uint64_t limit_whole_at(const struct limit *l, uint64_t full)
{
	uint64_t missing;

	if (l->level == 0 || l->level >= full * MILLION)
		return l->held_until;
	missing = full * MILLION - l->level;
	return max_u64(l->held_until, l->since + (missing * SECONDS_TO_GROW / full + 1) * 1000);
}
