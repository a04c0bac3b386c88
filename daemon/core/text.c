/* SPDX-License-Identifier: MIT */
/*
 * Text from outside is judged here once and by the letter of the standards, so
 * that no two modules disagree on what a character or a number is. UTF-8 follows
 * RFC 3629, table "Well-Formed UTF-8 Byte Sequences" of the Unicode standard;
 * numbers are the plain digits that a careful person writes, and nothing that
 * strtoull() would also take (space, signs, "0x").
 */
#include "core/text.h"

#include <string.h>

/* Longer words are no typing errors of ours, and the distance costs n × m. */
#define WORD_MAX 48

static bool is_continuation(unsigned char c)
{
	return (c & 0xc0) == 0x80;
}

size_t utf8_length(const char *s, size_t n)
{
	const unsigned char *u = (const unsigned char *)s;

	if (u[0] < 0x80)
		return 1;
	if (u[0] < 0xc2 || n < 2 || !is_continuation(u[1]))
		return 0;
	if (u[0] < 0xe0)
		return 2;
	if (n < 3 || !is_continuation(u[2]))
		return 0;
	if (u[0] == 0xe0)
		return u[1] >= 0xa0 ? 3 : 0; /* less would be overlong */
	if (u[0] == 0xed)
		return u[1] <= 0x9f ? 3 : 0; /* more would be a surrogate */
	if (u[0] < 0xf0)
		return 3;
	if (n < 4 || !is_continuation(u[3]))
		return 0;
	if (u[0] == 0xf0)
		return u[1] >= 0x90 ? 4 : 0; /* less would be overlong */
	if (u[0] == 0xf4)
		return u[1] <= 0x8f ? 4 : 0; /* more would be above U+10FFFF */
	return u[0] < 0xf4 ? 4 : 0;
}

size_t utf8_prefix(const char *s, size_t n, size_t most)
{
	size_t cut = most;

	if (n <= most)
		return n;
	while (cut > 0 && most - cut < 4 && is_continuation((unsigned char)s[cut]))
		cut--;
	/* No character is longer than four bytes: then this is not UTF-8, and one
	 * cut is as good as another. */
	return most - cut < 4 ? cut : most;
}

bool parse_u64(const char *s, size_t n, uint64_t max, uint64_t *out)
{
	uint64_t value = 0;

	if (n == 0 || (s[0] == '0' && n > 1))
		return false;
	for (size_t i = 0; i < n; i++) {
		uint64_t digit = (uint64_t)((unsigned char)s[i] - '0');

		if (digit > 9 || digit > max || value > (max - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	*out = value;
	return true;
}

static unsigned lower(char c)
{
	unsigned letter = (unsigned char)c;

	return letter >= 'A' && letter <= 'Z' ? letter + ('a' - 'A') : letter;
}

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned least = a < b ? a : b;

	return least < c ? least : c;
}

/* How many insertions, deletions, replacements and swaps of neighbours lead from
 * @a to @b (optimal string alignment), both at most WORD_MAX long. */
static unsigned distance(const char *a, size_t n, const char *b, size_t m)
{
	unsigned rows[3][WORD_MAX + 1];
	unsigned *before = rows[0];
	unsigned *last = rows[1];
	unsigned *row = rows[2];

	for (size_t j = 0; j <= m; j++)
		last[j] = (unsigned)j;
	for (size_t i = 1; i <= n; i++) {
		row[0] = (unsigned)i;
		for (size_t j = 1; j <= m; j++) {
			unsigned differs = lower(a[i - 1]) != lower(b[j - 1]);

			row[j] = min3(last[j] + 1, row[j - 1] + 1, last[j - 1] + differs);
			if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
			    lower(a[i - 2]) == lower(b[j - 1]) && before[j - 2] + 1 < row[j])
				row[j] = before[j - 2] + 1;
		}

		unsigned *oldest = before;

		before = last;
		last = row;
		row = oldest;
	}
	return last[m];
}

const char *nearest(const char *word, const char *const names[], size_t n)
{
	size_t len = strnlen(word, WORD_MAX + 1);
	const char *best = NULL;
	unsigned least = 0;

	if (len == 0 || len > WORD_MAX)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		size_t name_len = strlen(names[i]);
		size_t longer = len > name_len ? len : name_len;
		size_t shorter = len + name_len - longer;
		size_t allowed = longer / 3 > 2 ? longer / 3 : 2;
		unsigned d;

		if (name_len > WORD_MAX || longer - shorter > allowed)
			continue;
		d = distance(word, len, names[i], name_len);
		/* With as many edits as letters nothing is left of the word. */
		if (d > allowed || d >= shorter || (best && d >= least))
			continue;
		best = names[i];
		least = d;
	}
	return best;
}
