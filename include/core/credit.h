/* SPDX-License-Identifier: MIT */
/* A careful lower bound of the round trip, learnt from the answers. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base.h"

#define CREDIT_LOWEST      32
#define CREDIT_MIN_SAMPLES 64

/* Zeroed knows nothing: the credit is 0. */
struct credit_estimate {
	struct credit_generation {
		uint64_t lowest[CREDIT_LOWEST]; /* ascending */
		unsigned n;
		unsigned samples;
		uint64_t began;
	} now, before;
	uint64_t value; /* what may be taken off, ns */
};

/* Takes in one round trip measured on a kept connection. */
void credit_learn(struct credit_estimate *c, uint64_t round_trip, uint64_t now);

/* Another server is being talked to: what was learnt no longer holds. */
void credit_forget(struct credit_estimate *c);
