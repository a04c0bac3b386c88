/* SPDX-License-Identifier: MIT */
/* What the daemon looks after besides its work: that the host's clocks keep time, that its
 * socket can still be found, that its own accounts balance. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/scheduler.h"
#include "edge/listener.h"

/* Zeroed is "has never looked". */
struct checks {
	uint64_t last;       /* when it looked; 0: never */
	bool is_due;         /* look now, whenever the last time was */
	int64_t wall_offset; /* wall clock less ours */
	uint64_t asleep;     /* clock_asleep() */
	uint64_t clock_steps;
	bool is_unbalanced; /* has been told */
	bool is_socket_lost;
};

/* Looks, at most once a second, and logs what it finds. */
void checks_run(struct checks *c, const struct scheduler *s, const struct listener *l,
		uint64_t now);
