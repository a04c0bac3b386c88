/* SPDX-License-Identifier: MIT */
/* The few things every file of the core uses: time units, ownership helpers. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* All times and durations are nanoseconds in a uint64_t; a point in time is
 * CLOCK_BOOTTIME as read by the edge, or whatever a test says it is. */
#define NSEC_PER_USEC UINT64_C(1000)
#define NSEC_PER_MSEC UINT64_C(1000000)
#define NSEC_PER_SEC  UINT64_C(1000000000)

/* "No deadline": later than any time there is. */
#define NEVER UINT64_MAX

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* _cleanup_(xp) releases a local when it goes out of scope; ownership is handed
 * over by setting the local to NULL. DEFINE_CLEANUP(struct x *, x_free) makes
 * x_freep. */
#define _cleanup_(f) __attribute__((__cleanup__(f)))
#define DEFINE_CLEANUP(type, f)                                                                    \
	static inline void f##p(type *p)                                                           \
	{                                                                                          \
		f(*p);                                                                             \
	}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* t + d, where NEVER stays NEVER. */
static inline uint64_t time_after(uint64_t t, uint64_t d)
{
	return t > NEVER - d ? NEVER : t + d;
}
