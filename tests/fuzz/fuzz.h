/* SPDX-License-Identifier: MIT */
/* What the fuzz targets share. A target is one file with one LLVMFuzzerTestOneInput(); its
 * input begins with letters that choose the circumstances, the first of them which
 * allocation fails, and goes on with the bytes that come from outside. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An assert() that no build leaves out. */
#define CHECK(truth) ((truth) ? (void)0 : fuzz_fail(__FILE__, __LINE__, #truth))
void fuzz_fail(const char *file, int line, const char *what) __attribute__((__noreturn__));

/* From now on the allocation with this number fails, of those that this program and cJSON
 * make: '!' is the first, a blank none. */
void fuzz_starve(uint8_t letter);
/* … until here. Returns whether it was asked for. */
bool fuzz_feed(void);

/* A copy of just this size and a NUL, so that a sanitizer sees any step outside; the
 * caller's. */
char *fuzz_copy(const void *bytes, size_t n);

/* Length of the character at the start of @s[@n], or 0 where it is not UTF-8: worked out
 * from the code point, and not as core/text.c does it. */
size_t fuzz_utf8(const char *s, size_t n);
bool fuzz_is_utf8(const char *s, size_t n);

/* Whether it is valid UTF-8 without ASCII's control characters. */
bool fuzz_is_printable(const char *s, size_t n);
