/* SPDX-License-Identifier: MIT */
#pragma once

#include "sim.h"

/* One run of a random mix: network, limits, writers, the server's moods, stalls, reloads
 * and a shutdown, all by the seed. Returns the broken promise, or ""; *@trace is a hash of
 * all that has happened. */
const char *random_run(uint64_t seed, uint64_t *trace);
