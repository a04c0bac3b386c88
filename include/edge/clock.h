/* SPDX-License-Identifier: MIT */
/* The only place where time comes from. */
#pragma once

#include <stdint.h>

/* Nanoseconds that never go back: CLOCK_BOOTTIME, so that messages that slept through a
 * suspend are found to be old. */
uint64_t clock_now(void);

/* Unix time in nanoseconds, for signatures and nothing else. */
int64_t clock_wall(void);
