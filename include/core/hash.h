/* SPDX-License-Identifier: MIT */
#pragma once

#include <stdint.h>

#include "core/base.h"

/* Where hash_bytes() begins unless there is a seed. */
#define HASH_BASIS UINT64_C(14695981039346656037)

/* FNV-1a: goes on from @h with @n more bytes. */
static inline uint64_t hash_bytes(uint64_t h, const void *bytes, size_t n)
{
	const unsigned char *p = bytes;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * UINT64_C(1099511628211);
	return h;
}
