/* SPDX-License-Identifier: MIT */
/* A kernel that gives no random bytes while the file that GETRANDOM_FAILS names exists, for
 * LD_PRELOAD. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

ssize_t getrandom(void *out, size_t n, unsigned flags)
{
	if (access(getenv("GETRANDOM_FAILS"), F_OK) == 0) {
		errno = EIO;
		return -1;
	}
	return syscall(SYS_getrandom, out, n, flags);
}
