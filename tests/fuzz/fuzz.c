/* SPDX-License-Identifier: MIT */
#include "fuzz.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fuzz_fail(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
	abort();
}

/* The linker puts these in the place of malloc() and its kin. */
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_reallocarray(void *p, size_t n, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_reallocarray(void *p, size_t n, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t n);

static struct {
	unsigned left; /* until one fails; 0: none will */
	bool failed;
} memory;

static bool is_refused(void)
{
	if (memory.left == 0 || --memory.left > 0)
		return false;
	memory.failed = true;
	return true;
}

void *__wrap_malloc(size_t n)
{
	return is_refused() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return is_refused() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return is_refused() ? NULL : __real_realloc(p, n);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
	return is_refused() ? NULL : __real_reallocarray(p, n, size);
}

char *__wrap_strdup(const char *text)
{
	return is_refused() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t n)
{
	return is_refused() ? NULL : __real_strndup(text, n);
}

static void *json_malloc(size_t n)
{
	return malloc(n);
}

void fuzz_starve(uint8_t letter)
{
	/* A library of its own, so the linker does not do it. */
	cJSON_InitHooks(&(cJSON_Hooks){ .malloc_fn = json_malloc, .free_fn = free });
	memory.left = (uint8_t)(letter - ' ');
	memory.failed = false;
}

bool fuzz_feed(void)
{
	memory.left = 0;
	return memory.failed;
}

char *fuzz_copy(const void *bytes, size_t n)
{
	char *copy = __real_malloc(n + 1); /* never fails on purpose */

	CHECK(copy);
	if (n > 0)
		memcpy(copy, bytes, n);
	copy[n] = '\0';
	return copy;
}

size_t fuzz_utf8(const char *s, size_t n)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned char first = (unsigned char)*s;
	size_t length = first < 0x80   ? 1
			: first < 0xc0 ? 0
			: first < 0xe0 ? 2
			: first < 0xf0 ? 3
				       : 4;
	uint32_t c = length < 2 ? first : first & (0x7fu >> length);

	if (first >= 0xf8 || length == 0 || length > n)
		return 0;
	for (size_t i = 1; i < length; i++) {
		if (((unsigned char)s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | ((unsigned char)s[i] & 0x3f);
	}
	return c >= least[length] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff) ? length : 0;
}

bool fuzz_is_utf8(const char *s, size_t n)
{
	while (n > 0) {
		size_t length = fuzz_utf8(s, n);

		if (length == 0)
			return false;
		s += length;
		n -= length;
	}
	return true;
}

bool fuzz_is_printable(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			return false;
	}
	return fuzz_is_utf8(s, n);
}
