/* SPDX-License-Identifier: MIT */
/* The only place where time comes from. */
#pragma once

#include <stdint.h>

/* Nanoseconds that never go back: CLOCK_BOOTTIME, so that messages that slept through a
 * suspend are found to be old. */
uint64_t clock_now(void);

/* Unix time in nanoseconds, for signatures and nothing else. */
int64_t clock_wall(void);

/* For how many nanoseconds of clock_now() the host has been suspended, give or take the
 * moments between two readings of clocks. */
uint64_t clock_asleep(void);
