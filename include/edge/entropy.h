/* SPDX-License-Identifier: MIT */
/* Random bytes from the kernel, fetched some ahead to spare a system call for each nonce. */
#pragma once

#include <stddef.h>

/* Zeroed is ready. */
struct entropy {
	unsigned char bytes[256]; /* as many as getrandom(2) gives without a break */
	size_t left;              /* not yet drawn, from the front */
};

/* Fills all of @out, once given never given again. Returns 0; -EIO when the kernel has none;
 * -EINVAL for more than 256. */
int entropy_draw(struct entropy *e, void *out, size_t n);
