/* SPDX-License-Identifier: MIT */
/*
 * The credit is what lets tokens come home early enough for 99 % of N to be used on a
 * long line. It must never exceed the least time that a request's way out and an
 * answer's way back take together. The least round trip seen is not that bound: the next
 * one may be a little faster. So a margin is taken off that is learnt from how close
 * together the lowest samples lie: least − 2 × (32nd − least). On a steady line they lie
 * close and nearly all of the round trip is credited; on a jittery one the credit falls,
 * and with it a little utilisation, never the promise.
 *
 * How many of the lowest are looked at decides how often chance alone makes them lie too
 * close: if delays pile up from their least value like x^α, the margin is too small with
 * probability (1 − (2/3)^α)^(k−1). For α = 2, a sum of two exponentials, that is 2 % for
 * k = 8 and 10⁻⁸ for k = 32; with 8 the simulator found a breach in 10 000 runs.
 *
 * Low samples are forgotten in generations: the last two count, so that a line that
 * became longer is noticed after one to two minutes and a bound never rests on few
 * samples.
 */
#include "core/credit.h"

#define GENERATION         (60 * NSEC_PER_SEC)
#define GENERATION_SAMPLES 300

/* Returns whether it is one of the lowest. */
static bool keep_low(struct credit_generation *g, uint64_t round_trip)
{
	unsigned i = g->n;

	if (i == CREDIT_LOWEST && round_trip >= g->lowest[i - 1])
		return false;
	if (i < CREDIT_LOWEST)
		g->n++;
	else
		i--;
	for (; i > 0 && g->lowest[i - 1] > round_trip; i--)
		g->lowest[i] = g->lowest[i - 1];
	g->lowest[i] = round_trip;
	return true;
}

static uint64_t estimate(const struct credit_estimate *c)
{
	struct credit_generation both = c->now;
	uint64_t least;
	uint64_t margin;

	for (unsigned i = 0; i < c->before.n; i++)
		(void)keep_low(&both, c->before.lowest[i]);
	if (c->now.samples + c->before.samples < CREDIT_MIN_SAMPLES || both.n < CREDIT_LOWEST)
		return 0;
	least = both.lowest[0];
	margin = 2 * (both.lowest[CREDIT_LOWEST - 1] - least);
	return least > margin ? least - margin : 0;
}

void credit_learn(struct credit_estimate *c, uint64_t round_trip, uint64_t now)
{
	struct credit_generation *g = &c->now;
	bool changed = false;

	if (g->samples == 0)
		g->began = now;
	if (g->samples >= GENERATION_SAMPLES && now - g->began >= GENERATION) {
		c->before = *g;
		*g = (struct credit_generation){ .began = now };
		changed = true;
	}
	g->samples++;
	changed |= keep_low(g, round_trip);
	if (changed || g->samples + c->before.samples == CREDIT_MIN_SAMPLES)
		c->value = estimate(c);
}

void credit_forget(struct credit_estimate *c)
{
	*c = (struct credit_estimate){ 0 };
}
