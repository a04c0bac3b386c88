/* SPDX-License-Identifier: MIT */
/* How much of N is in force: less after the API said "too fast", then again all of it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base.h"

/* Zeroed is "all of it". N itself is always passed in, as it may change on reload. */
struct limit {
	uint64_t level;      /* millionths of a request a second at @since; 0: not shrunk */
	uint64_t since;      /* when it was shrunk last */
	uint64_t held_until; /* Retry-After: nothing is started before */
};

/* N in force at @now, 1 to @full: it grows back by full/20 a second. */
uint64_t limit_at(const struct limit *l, uint64_t full, uint64_t now);

/* The API answered 206, 7, 207 or HTTP 429: shrinks to 70 %, at most once a second, and
 * holds for @retry_after (ns, may be 0). Returns whether N changed. */
bool limit_shrink(struct limit *l, uint64_t full, uint64_t retry_after, uint64_t now);

/* When all of it will be in force again; in the past if it is. */
uint64_t limit_whole_at(const struct limit *l, uint64_t full);
