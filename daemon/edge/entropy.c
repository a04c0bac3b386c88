/* SPDX-License-Identifier: MIT */
#include "edge/entropy.h"

#include <errno.h>
#include <sys/random.h>

int entropy_draw(void *out, size_t n)
{
	return getrandom(out, n, 0) == (ssize_t)n ? 0 : -EIO;
}
