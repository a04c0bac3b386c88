/* SPDX-License-Identifier: MIT */
/* Replies, dumps and metrics are printed piece by piece, and a caller that had to
 * check every piece would be mostly checks. So a buffer that cannot grow turns
 * deaf: what it holds stays whole, later pieces are ignored, and one look at
 * @failed at the end tells. A piece goes in completely or not at all. */
#include "core/buffer.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/text.h"

/* Most replies fit in this many bytes, so most buffers are allocated once. */
#define BUFFER_MIN 256

void buffer_deinit(struct buffer *b)
{
	free(b->data);
	*b = (struct buffer){ 0 };
}

/* Room for @n more bytes and their NUL. */
static bool make_room(struct buffer *b, size_t n)
{
	size_t need;
	size_t size;
	char *data;

	if (b->failed)
		return false;
	if (n < b->size - b->len)
		return true;

	size = b->size > SIZE_MAX / 2 ? SIZE_MAX : b->size * 2;
	if (size < BUFFER_MIN)
		size = BUFFER_MIN;
	if (__builtin_add_overflow(b->len, n, &need) || need == SIZE_MAX) {
		b->failed = true;
		return false;
	}
	if (size < need + 1)
		size = need + 1;

	data = realloc(b->data, size);
	if (!data) {
		b->failed = true;
		return false;
	}
	b->data = data;
	b->size = size;
	return true;
}

void buffer_append(struct buffer *b, const char *bytes, size_t n)
{
	if (n == 0 || !make_room(b, n))
		return;

	memcpy(b->data + b->len, bytes, n);
	b->len += n;
	b->data[b->len] = '\0';
}

void buffer_puts(struct buffer *b, const char *text)
{
	buffer_append(b, text, strlen(text));
}

void buffer_printf(struct buffer *b, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (n < 0)
		b->failed = true;
	if (n < 0 || !make_room(b, (size_t)n))
		return;

	va_start(args, format);
	(void)vsnprintf(b->data + b->len, (size_t)n + 1, format, args);
	va_end(args);
	b->len += (size_t)n;
}

void buffer_put_u64(struct buffer *b, uint64_t n)
{
	char digits[20]; /* of UINT64_MAX */
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + n % 10);
		n /= 10;
	} while (n > 0);
	buffer_append(b, digits + at, sizeof(digits) - at);
}

static bool is_plain(unsigned char c)
{
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

static void put_escaped(struct buffer *b, unsigned char c)
{
	static const char letters[] = {
		['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n',  ['\f'] = 'f',
		['\r'] = 'r', ['"'] = '"',  ['\\'] = '\\',
	};
	static const char hex[] = "0123456789abcdef";

	if (c < sizeof(letters) && letters[c])
		buffer_append(b, (char[]){ '\\', letters[c] }, 2);
	else
		buffer_append(b, (char[]){ '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] }, 6);
}

void buffer_put_json(struct buffer *b, const char *bytes, size_t n, size_t most)
{
	size_t i = 0;

	buffer_append(b, "\"", 1);
	while (i < n && i < most) {
		size_t end = i;
		size_t length;

		while (end < n && end < most && is_plain((unsigned char)bytes[end]))
			end++;
		buffer_append(b, bytes + i, end - i);
		i = end;
		if (i == n || i == most)
			break;

		length = utf8_length(bytes + i, n - i);
		if (length > most - i)
			break;
		if (length == 0)
			buffer_puts(b, "\xef\xbf\xbd"); /* U+FFFD */
		else if (length == 1)
			put_escaped(b, (unsigned char)bytes[i]);
		else if (bytes[i] == '\xc2' && (unsigned char)bytes[i + 1] < 0xa0)
			put_escaped(b, (unsigned char)bytes[i + 1]); /* U+0080 to U+009F */
		else
			buffer_append(b, bytes + i, length);
		i += length > 0 ? length : 1;
	}
	buffer_append(b, "\"", 1);
}

void buffer_consume(struct buffer *b, size_t n)
{
	assert(n <= b->len);
	if (n == 0)
		return;

	b->len -= n;
	memmove(b->data, b->data + n, b->len + 1);
}
