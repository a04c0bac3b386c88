/* SPDX-License-Identifier: MIT */
#include "edge/clock.h"

#include <time.h>

#include "core/base.h"

static int64_t read_clock(clockid_t id)
{
	struct timespec ts = { 0 };

	/* Fails only for clocks that do not exist. */
	(void)clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * (int64_t)NSEC_PER_SEC + ts.tv_nsec;
}

uint64_t clock_now(void)
{
	return (uint64_t)read_clock(CLOCK_BOOTTIME);
}

int64_t clock_wall(void)
{
	return read_clock(CLOCK_REALTIME);
}

uint64_t clock_asleep(void)
{
	/* Suspension is what the one counts and the other does not. Read in this order, the
	 * difference is never negative. */
	int64_t awake = read_clock(CLOCK_MONOTONIC);

	return (uint64_t)(read_clock(CLOCK_BOOTTIME) - awake);
}
