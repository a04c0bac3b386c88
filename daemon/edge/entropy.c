/* SPDX-License-Identifier: MIT */
#include "edge/entropy.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

int entropy_draw(struct entropy *e, void *out, size_t n)
{
	if (n > sizeof(e->bytes))
		return -EINVAL;
	if (e->left < n) {
		if (getrandom(e->bytes, sizeof(e->bytes), 0) != sizeof(e->bytes))
			return -EIO;
		e->left = sizeof(e->bytes);
	}
	e->left -= n;
	memcpy(out, e->bytes + e->left, n);
	return 0;
}
