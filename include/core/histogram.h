/* SPDX-License-Identifier: MIT */
/* How long things took, in a few numbers. */
#pragma once

#include <stdint.h>

#include "core/base.h"

/* Durations up to a bound count in its bucket; those above the last one in one more. */
#define HISTOGRAM_BOUNDS 16
extern const uint64_t histogram_bounds[HISTOGRAM_BOUNDS]; /* ns, ascending */

/* Zeroed is empty. */
struct histogram {
	uint64_t n[HISTOGRAM_BOUNDS + 1];
	uint64_t sum; /* ns */
};

void histogram_add(struct histogram *h, uint64_t duration);

/* How many durations there are. */
uint64_t histogram_count(const struct histogram *h);

/* A duration that @percent of them do not exceed, as far as the buckets tell: in between
 * two bounds a straight line is drawn, and nothing is known above the last. 0 if empty. */
uint64_t histogram_percentile(const struct histogram *h, unsigned percent);
