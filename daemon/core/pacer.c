/* SPDX-License-Identifier: MIT */
/*
 * Tokens that were spent together come home together: left alone, a backlog would leave
 * in one clump each second, and whatever came in between, however urgent, would wait for
 * the next. A second bucket therefore drips at 1.04 N: evenly enough that a clump is spread
 * over the whole second in one round, fast enough to cost no use of N. While messages wait
 * it holds at most N/25, for tokens that the network has bunched. Simulated, a drip of
 * 1.25 N used no more of N but let a quiet room wait 280 ms (99th percentile) under a
 * flood, since a gap of a fifth of a second stayed for ever; with this it is 95 ms.
 *
 * Only an AppID with nothing waiting rests, up to `burst`: what it has then saved it may
 * send at once. If it cannot, because something else holds it, the savings go as they
 * came: a backlog that has stood through a hold leaves evenly too.
 */
#include "core/pacer.h"

static uint64_t interval(uint64_t rate)
{
	return NSEC_PER_SEC * 25 / (rate * 26);
}

static void drip(struct pacer *p, uint64_t burst, uint64_t now)
{
	uint64_t elapsed = now - p->since;
	uint64_t most = burst;

	if (p->busy)
		most = max_u64(p->rate / 25, 1) + p->spare;
	most *= interval(p->rate);
	if (p->level < most)
		p->level = min_u64(p->level + elapsed, most);
	else
		p->level -= min_u64(elapsed, p->level - most);
	p->since = now;
}

static void update(struct pacer *p, uint64_t rate, uint64_t burst, uint64_t now)
{
	drip(p, burst, now);
	/* What was saved is a number of messages, whatever time they take at another rate. */
	p->level = p->level * p->rate / rate;
	p->rate = rate;
}

void pacer_init(struct pacer *p, uint64_t rate, uint64_t burst, uint64_t now)
{
	*p = (struct pacer){
		.level = burst * interval(rate),
		.rate = rate,
		.since = now,
	};
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

void pacer_allow(struct pacer *p, uint64_t n, uint64_t rate, uint64_t burst, uint64_t now)
{
	update(p, rate, burst, now);
	p->level += n * interval(rate);
}

void pacer_spend(struct pacer *p, uint64_t rate)
{
	p->level -= min_u64(p->level, interval(rate));
}
