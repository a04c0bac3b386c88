/* SPDX-License-Identifier: MIT */
#include "edge/checks.h"

#include <inttypes.h>

#include "edge/clock.h"
#include "edge/log.h"

/* A clock that is merely steered drifts by less than a thousandth (adjtimex(2)). */
#define STEP_LEAST   (int64_t) NSEC_PER_SEC
#define STEERED_MOST 1000

#define SLEEP_LEAST NSEC_PER_SEC

/* Signatures carry the wall clock's time, and nothing else here depends on it: a step is
 * told for those who wonder at refused signatures. */
static void check_wall(struct checks *c, uint64_t now)
{
	/* Not @now: much may have happened since. */
	int64_t offset = clock_wall() - (int64_t)clock_now();
	int64_t step = offset - c->wall_offset;
	int64_t steered = (int64_t)((now - c->last) / STEERED_MOST);
	int64_t size = step < 0 ? -step : step;

	if (c->last > 0 && size > STEP_LEAST + steered) {
		c->clock_steps++;
		log_warning("the wall clock was stepped by %s%" PRId64 " s", step < 0 ? "-" : "+",
			    (size + STEP_LEAST / 2) / STEP_LEAST);
	}
	c->wall_offset = offset;
}

static void check_sleep(struct checks *c)
{
	uint64_t asleep = clock_asleep();

	if (c->last > 0 && asleep > c->asleep + SLEEP_LEAST)
		log_info("the host was suspended for %" PRIu64 " s; what waited has aged by that",
			 (asleep - c->asleep + SLEEP_LEAST / 2) / NSEC_PER_SEC);
	c->asleep = asleep;
}

static void check_socket(struct checks *c, const struct listener *l)
{
	bool lost = !listener_is_reachable(l);

	if (lost && !c->is_socket_lost)
		log_error("%s is gone or another's: no writer can connect until the next start",
			  l->path);
	c->is_socket_lost = lost;
}

static void check_ledger(struct checks *c, const struct scheduler *s)
{
	bool balanced = scheduler_adds_up(s);

	if (!balanced && !c->is_unbalanced)
		log_error("the ledger does not add up: this is a bug in barraged");
	c->is_unbalanced = !balanced;
}

void checks_run(struct checks *c, const struct scheduler *s, const struct listener *l, uint64_t now)
{
	if (c->last > 0 && !c->is_due && now - c->last < NSEC_PER_SEC)
		return;
	check_wall(c, now);
	check_sleep(c);
	check_socket(c, l);
	check_ledger(c, s);
	c->last = now;
	c->is_due = false;
}
