/* SPDX-License-Identifier: MIT */
/*
 * None of these is a caricature: each is exact in what it promises, which is a matter of
 * when requests start. What the table shows is what becomes of that on the way to where
 * they are counted.
 */
#include "models.h"

#include <assert.h>
#include <stdlib.h>

#include "core/base.h"

/* Token bucket: depth N, N a second. */

static double bucket_level(const struct model *m, uint64_t now)
{
	double n = (double)m->n;
	double level = m->level + (double)(now - m->since) / (double)NSEC_PER_SEC * n;

	return level < n ? level : n;
}

static uint64_t bucket_ready_at(struct model *m, uint64_t now)
{
	double missing = 1 - bucket_level(m, now);

	if (missing <= 0)
		return now;
	return now + 1 + (uint64_t)(missing / (double)m->n * (double)NSEC_PER_SEC);
}

static void bucket_start(struct model *m, uint64_t now)
{
	m->level = bucket_level(m, now) - 1;
	m->since = now;
}

/* Fixed window: N in each second of a clock. */

static void fixed_enter(struct model *m, uint64_t now)
{
	uint64_t seconds = (now - m->since) / NSEC_PER_SEC;

	if (seconds == 0)
		return;
	m->since += seconds * NSEC_PER_SEC;
	m->count = 0;
}

static uint64_t fixed_ready_at(struct model *m, uint64_t now)
{
	fixed_enter(m, now);
	return m->count < m->n ? now : m->since + NSEC_PER_SEC;
}

static void window_start(struct model *m, uint64_t now)
{
	m->count++;
}

/* Interval: N in each second that begins with the first start in it. */

static uint64_t interval_ready_at(struct model *m, uint64_t now)
{
	if (now - m->since >= NSEC_PER_SEC)
		return now;
	return m->count < m->n ? now : m->since + NSEC_PER_SEC;
}

static void interval_start(struct model *m, uint64_t now)
{
	if (now - m->since >= NSEC_PER_SEC) {
		m->since = now;
		m->count = 0;
	}
	m->count++;
}

/* Sliding log: never more than N starts in any second. */

static uint64_t log_ready_at(struct model *m, uint64_t now)
{
	if (m->starts < m->n)
		return now;
	return m->log[m->starts % m->n] + NSEC_PER_SEC;
}

static void log_start(struct model *m, uint64_t now)
{
	m->log[m->starts % m->n] = now;
}

/* Even pacing: a grid of 1/N, on which late timers do not add up. */

static uint64_t even_ready_at(struct model *m, uint64_t now)
{
	return m->next;
}

static void even_start(struct model *m, uint64_t now)
{
	uint64_t step = NSEC_PER_SEC / m->n;

	m->next = m->next + step > now ? m->next + step : now + step;
}

/* clang-format off */
const struct model_way model_ways[] = {
	{ "token bucket",  bucket_ready_at,   bucket_start },
	{ "fixed window",  fixed_ready_at,    window_start },
	{ "interval",      interval_ready_at, interval_start },
	{ "sliding log",   log_ready_at,      log_start },
	{ "even pacing",   even_ready_at,     even_start },
};
/* clang-format on */
const size_t n_model_ways = ARRAY_SIZE(model_ways);

void model_init(struct model *m, const struct model_way *way, uint64_t n, uint64_t now)
{
	*m = (struct model){ .way = way, .n = n, .level = (double)n, .since = now };
	m->log = calloc(n, sizeof(*m->log));
	assert(m->log);
}

void model_deinit(struct model *m)
{
	free(m->log);
}

uint64_t model_next(struct model *m, uint64_t now, uint64_t late)
{
	uint64_t at;

	while ((at = m->way->ready_at(m, now)) > now)
		now = at + late;
	m->way->start(m, now);
	m->starts++;
	return now;
}
