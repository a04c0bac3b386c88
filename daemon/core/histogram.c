/* SPDX-License-Identifier: MIT */
/*
 * The bounds are the same for all histograms, so that they can be added up, over AppIDs
 * and over hosts. They reach from the round trip to a neighbouring server to the longest
 * age and timeout there can be, and 3 s is among them because that is the usual max_age.
 */
#include "core/histogram.h"

#include <assert.h>

/* clang-format off */
const uint64_t histogram_bounds[HISTOGRAM_BOUNDS] = {
	1 * NSEC_PER_MSEC, 2 * NSEC_PER_MSEC, 5 * NSEC_PER_MSEC,
	10 * NSEC_PER_MSEC, 20 * NSEC_PER_MSEC, 50 * NSEC_PER_MSEC,
	100 * NSEC_PER_MSEC, 200 * NSEC_PER_MSEC, 500 * NSEC_PER_MSEC,
	1 * NSEC_PER_SEC, 2 * NSEC_PER_SEC, 3 * NSEC_PER_SEC, 5 * NSEC_PER_SEC,
	10 * NSEC_PER_SEC, 30 * NSEC_PER_SEC, 60 * NSEC_PER_SEC,
};
/* clang-format on */

void histogram_add(struct histogram *h, uint64_t duration)
{
	size_t i = 0;

	while (i < HISTOGRAM_BOUNDS && duration > histogram_bounds[i])
		i++;
	h->n[i]++;
	h->sum += duration;
}

uint64_t histogram_count(const struct histogram *h)
{
	uint64_t count = 0;

	for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++)
		count += h->n[i];
	return count;
}

uint64_t histogram_percentile(const struct histogram *h, unsigned percent)
{
	uint64_t count = histogram_count(h);
	/* Divided first: the product of a large count would not fit. */
	uint64_t rank = count / 100 * percent + (count % 100 * percent + 99) / 100;
	uint64_t below = 0;

	assert(percent <= 100);
	for (size_t i = 0; i < HISTOGRAM_BOUNDS; i++) {
		uint64_t from = i > 0 ? histogram_bounds[i - 1] : 0;
		uint64_t width = histogram_bounds[i] - from;

		if (h->n[i] > 0 && below + h->n[i] >= rank)
			return from +
			       (uint64_t)((double)width * (double)(rank - below) / (double)h->n[i]);
		below += h->n[i];
	}
	return count > 0 ? histogram_bounds[HISTOGRAM_BOUNDS - 1] : 0;
}
