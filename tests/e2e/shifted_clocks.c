/* SPDX-License-Identifier: MIT */
/*
 * Clocks to order, for LD_PRELOAD. The file that CLOCKS_SHIFT names holds three numbers of
 * 64 bits: by how many nanoseconds the wall clock, the monotonic clock and the one that
 * counts suspension too are ahead of the kernel's. It may change at any time; what waits
 * in the kernel does not notice.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)

enum {
	WALL,
	MONOTONIC,
	BOOT,
	_CLOCKS_N
};

static const volatile int64_t *shift;

__attribute__((__constructor__)) static void open_shift(void)
{
	int fd = open(getenv("CLOCKS_SHIFT"), O_RDONLY | O_CLOEXEC);
	void *mapped = mmap(NULL, _CLOCKS_N * sizeof(*shift), PROT_READ, MAP_SHARED, fd, 0);

	if (mapped == MAP_FAILED)
		abort();
	close(fd);
	shift = mapped;
}

static int64_t shift_of(clockid_t id)
{
	switch (id) {
	case CLOCK_REALTIME:
	case CLOCK_REALTIME_COARSE:
		return shift[WALL];
	case CLOCK_MONOTONIC:
	case CLOCK_MONOTONIC_RAW:
	case CLOCK_MONOTONIC_COARSE:
		return shift[MONOTONIC];
	case CLOCK_BOOTTIME:
		return shift[BOOT];
	default:
		return 0;
	}
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
	int r = (int)syscall(SYS_clock_gettime, id, ts);
	int64_t ns;

	if (r < 0 || !shift)
		return r;
	ns = ts->tv_sec * SECOND + ts->tv_nsec + shift_of(id);
	ts->tv_sec = ns / SECOND;
	ts->tv_nsec = ns % SECOND;
	return 0;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_REALTIME, &ts) < 0)
		return -1;
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *out)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_REALTIME, &ts) < 0)
		return -1;
	if (out)
		*out = ts.tv_sec;
	return ts.tv_sec;
}
