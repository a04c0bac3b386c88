/* SPDX-License-Identifier: MIT */
/* Strictness about text that more than one module needs. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base.h"

/* Length in bytes (1 to 4) of the well-formed UTF-8 sequence at the start of
 * @s[@n], or 0 (RFC 3629: no overlong forms, no surrogates, nothing above
 * U+10FFFF). @n is at least 1. */
size_t utf8_length(const char *s, size_t n);

/* The longest prefix of @s[@n] of at most @most bytes that ends between characters. */
size_t utf8_prefix(const char *s, size_t n, size_t most);

/* Exact decimal: only digits, no sign, no leading zero, no space, at most @max.
 * The one integer parser of the project. */
bool parse_u64(const char *s, size_t n, uint64_t max, uint64_t *out);

/* The entry of @names[@n] that a typist most likely meant by @word (case ignored,
 * few edits away), or NULL when none is near. */
const char *nearest(const char *word, const char *const names[], size_t n);
