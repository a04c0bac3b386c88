/* SPDX-License-Identifier: MIT */
/* Random bytes from the kernel, at most 256 at a time. */
#pragma once

#include <stddef.h>

/* Fills all of @out, or returns -EIO. */
int entropy_draw(void *out, size_t n);
