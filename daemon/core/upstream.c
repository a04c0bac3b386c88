/* SPDX-License-Identifier: MIT */
/*
 * When nothing gets through, a hundred attempts a second only burn messages that could
 * have waited for the line to come back. One probe at a time goes out instead; it is an
 * ordinary message, and the first answer of any kind opens the road for all.
 */
#include "core/upstream.h"

#include "core/retry.h"

#define PROBE_BASE (100 * NSEC_PER_MSEC)
#define PROBE_MOST (5 * NSEC_PER_SEC)

bool upstream_is_open(const struct upstream *u, uint64_t now)
{
	return !u->down || (!u->probe && now >= u->probe_at);
}

uint64_t upstream_open_at(const struct upstream *u)
{
	if (!u->down)
		return 0;
	return u->probe ? NEVER : u->probe_at;
}

void upstream_start(struct upstream *u, struct request *r)
{
	if (u->down)
		u->probe = r;
}

bool upstream_answered(struct upstream *u)
{
	bool was_down = u->down;

	*u = (struct upstream){ 0 };
	return was_down;
}

bool upstream_failed(struct upstream *u, const struct request *r, uint32_t random, uint64_t now)
{
	if (u->down && u->probe != r)
		return false;
	u->probe = NULL;
	if (u->down) {
		u->probes++;
	} else {
		u->failures++;
		if (u->failures < UPSTREAM_FAILURES)
			return false;
		u->down = true;
	}
	u->probe_at = now + min_u64(backoff(PROBE_BASE, u->probes, PROBE_MOST, random), PROBE_MOST);
	return u->probes == 0;
}

void upstream_forget(struct upstream *u, const struct request *r)
{
	if (u->probe == r)
		u->probe = NULL;
}
