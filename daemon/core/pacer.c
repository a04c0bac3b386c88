/* SPDX-License-Identifier: MIT */
/*
 * Tokens that were spent together come home together: left alone, a backlog would leave
 * in one clump each second. A second bucket drips at 1.25 N. While messages wait it holds
 * at most N/8, so that no 100 ms sees more than N/8 + 1.25 N/10 = N/4 of them; the spare
 * quarter lets the clumps dissolve and costs no use of N. Only an AppID with nothing
 * waiting rests, up to `burst`: what it has then saved it may send at once.
 */
#include "core/pacer.h"

static uint64_t interval(uint64_t rate)
{
	return NSEC_PER_SEC * 4 / (rate * 5);
}

static void update(struct pacer *p, uint64_t rate, uint64_t burst, uint64_t now)
{
	uint64_t most = burst;

	if (p->busy)
		most = min_u64(burst, max_u64(rate / 8, 1));
	most *= interval(rate);
	if (p->level < most)
		p->level = min_u64(p->level + (now - p->since), most);
	p->since = now;
}

void pacer_init(struct pacer *p, uint64_t rate, uint64_t burst, uint64_t now)
{
	*p = (struct pacer){ .level = burst * interval(rate), .since = now };
}

void pacer_set_busy(struct pacer *p, bool busy, uint64_t rate, uint64_t burst, uint64_t now)
{
	if (p->busy == busy)
		return;
	update(p, rate, burst, now);
	p->busy = busy;
}

uint64_t pacer_ready_at(struct pacer *p, uint64_t rate, uint64_t burst, uint64_t now)
{
	update(p, rate, burst, now);
	return p->level >= interval(rate) ? now : now + (interval(rate) - p->level);
}

void pacer_spend(struct pacer *p, uint64_t rate)
{
	p->level -= min_u64(p->level, interval(rate));
}
