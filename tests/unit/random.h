/* SPDX-License-Identifier: MIT */
/* Chance that can be had again: a failed test is repeated with SEED=… of its output. */
#pragma once

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* To be called first: what comes after may crash. */
static inline uint64_t random_seed(void)
{
	const char *given = getenv("SEED");
	uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);

	seed = seed ? seed : 1; /* 0 stays 0 */
	printf("# SEED=%" PRIu64 "\n", seed);
	fflush(stdout);
	return seed;
}

/* xorshift64 */
static inline uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}
