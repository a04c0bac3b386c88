/* SPDX-License-Identifier: MIT */
/*
 * cJSON is lenient where we may not be. It passes on invalid UTF-8 and control
 * characters, cuts strings at a NUL (written raw or as an escape), takes 01 for a number,
 * rounds large ones, ignores what follows the object, and builds whatever tree it is told
 * to, at forty times the size of the text. So every line is looked at here first: one
 * pass, no allocation, and only flat objects come through. It also remembers where each
 * value stands, so that numbers and ids can be judged by what was written rather
 * than by what became of it in a double.
 *
 * Rule: what is accepted here, cJSON accepts too, and reads as we do. request.c takes a
 * failure of it for lack of memory.
 */
#include "core/scan.h"

#include <endian.h>
#include <stddef.h>
#include <string.h>

#include "core/text.h"

/* cJSON reads at most 63; all that we know fit into 20. */
#define NUMBER_LEN_MAX 40

/* The readers below take where to read and return where they stopped, or NULL for a
 * fault. A line ends with a NUL, so that none of them needs to ask for its end
 * before looking at the next byte. */
static const char *fault(struct scan *s, const char *what, const char *at)
{
	if (!s->fault) {
		s->fault = what;
		s->fault_at = (size_t)(at - s->line);
	}
	return NULL;
}

/* @at is not what had to stand there. */
static const char *unexpected(struct scan *s, const char *at)
{
	unsigned char c = (unsigned char)*at;

	if (at == s->end)
		return fault(s, "unfinished JSON", at);
	if (c == '\0')
		return fault(s, "NUL", at);
	if (c < ' ')
		return fault(s, "control character", at);
	if (utf8_length(at, (size_t)(s->end - at)) == 0)
		return fault(s, "invalid UTF-8", at);
	return fault(s, "not JSON", at);
}

static const char *skip_blanks(const char *p)
{
	while (*p == ' ' || *p == '\t' || *p == '\r')
		p++;
	return p;
}

static bool hex4(const char *p, unsigned *out)
{
	unsigned value = 0;

	for (size_t i = 0; i < 4; i++) {
		unsigned c = (unsigned char)p[i];
		unsigned letter = (c | 0x20) - 'a';

		if (c - '0' <= 9)
			value = value << 4 | (c - '0');
		else if (letter <= 5)
			value = value << 4 | (letter + 10);
		else
			return false;
	}
	*out = value;
	return true;
}

static bool is_between(unsigned n, unsigned low, unsigned high)
{
	return n >= low && n <= high;
}

/* @p is a backslash. @surplus grows by what the escape is longer than its meaning. */
static const char *read_escape(struct scan *s, const char *p, size_t *surplus)
{
	unsigned unit;
	unsigned low;

	if (p[1] != 'u') {
		if (p[1] == '\0' || !strchr("\"\\/bfnrt", p[1]))
			return unexpected(s, p + 1);
		*surplus += 1;
		return p + 2;
	}
	if (!hex4(p + 2, &unit))
		return fault(s, "\\u without four hex digits", p);
	if (unit == 0)
		return fault(s, "NUL", p);
	if (!is_between(unit, 0xd800, 0xdfff)) {
		*surplus += unit < 0x80 ? 5 : unit < 0x800 ? 4 : 3;
		return p + 6;
	}
	if (unit > 0xdbff || p[6] != '\\' || p[7] != 'u' || !hex4(p + 8, &low) ||
	    !is_between(low, 0xdc00, 0xdfff))
		return fault(s, "lone surrogate", p);
	*surplus += 12 - 4;
	return p + 12;
}

/* Not zero if any of the eight bytes of @w is not plain ASCII; the lowest bit set is then
 * in the first of these, a borrow can only have set others behind it. */
static uint64_t not_plain(uint64_t w)
{
	const uint64_t each = 0x0101010101010101;
	uint64_t control = w - each * ' ';
	uint64_t quote = (w ^ each * '"') - each;
	uint64_t backslash = (w ^ each * '\\') - each;

	return (w | control | quote | backslash) & each * 0x80;
}

/* ASCII that stands for itself, in steps of eight bytes where there are eight. */
static const char *skip_ascii(const char *p, const char *end)
{
	uint64_t w;

	while (end - p >= (ptrdiff_t)sizeof(w)) {
		memcpy(&w, p, sizeof(w));
		w = not_plain(le64toh(w));
		if (w)
			return p + __builtin_ctzll(w) / 8;
		p += sizeof(w);
	}
	while ((unsigned char)*p >= ' ' && (unsigned char)*p < 0x80 && *p != '"' && *p != '\\')
		p++;
	return p;
}

/* A three-byte sequence such as Chinese is written in; only those that need no look at
 * their second byte's range. The others can wait for utf8_length(). */
static bool is_common(const char *p)
{
	const unsigned char *u = (const unsigned char *)p;

	return u[0] > 0xe0 && u[0] < 0xf0 && u[0] != 0xed && (u[1] & 0xc0) == 0x80 &&
	       (u[2] & 0xc0) == 0x80;
}

/* Nearly all bytes of nearly all lines pass through here. */
static const char *skip_plain(const char *p, const char *end)
{
	for (;;) {
		p = skip_ascii(p, end);
		if (!is_common(p))
			return p;
		while (is_common(p))
			p += 3;
	}
}

/* @p is the opening quote. */
static const char *read_string(struct scan *s, const char *p, struct scan_text *t)
{
	const char *start = p + 1;
	size_t surplus = 0;
	size_t length;

	p = skip_plain(start, s->end);
	while (*p != '"') {
		if (*p == '\\') {
			p = read_escape(s, p, &surplus);
			if (!p)
				return NULL;
		} else {
			length = (unsigned char)*p < ' ' ? 0 : utf8_length(p, (size_t)(s->end - p));
			if (length == 0)
				return unexpected(s, p);
			p += length;
		}
		p = skip_plain(p, s->end);
	}
	t->text = start - 1;
	t->len = (size_t)(p - start) + 2;
	t->decoded = (size_t)(p - start) - surplus;
	return p + 1;
}

static const char *skip_digits(const char *p)
{
	while (*p >= '0' && *p <= '9')
		p++;
	return p;
}

/* One digit or more, which the grammar of numbers wants in three places. */
static const char *read_digits(struct scan *s, const char *p)
{
	const char *end = skip_digits(p);

	return end > p ? end : unexpected(s, p);
}

static const char *read_number(struct scan *s, const char *start)
{
	const char *p = *start == '-' ? start + 1 : start;

	p = *p == '0' ? p + 1 : read_digits(s, p);
	if (p && *p == '.')
		p = read_digits(s, p + 1);
	if (p && (*p == 'e' || *p == 'E')) {
		p++;
		if (*p == '+' || *p == '-')
			p++;
		p = read_digits(s, p);
	}
	if (p && p - start > NUMBER_LEN_MAX)
		return fault(s, "overlong number", start);
	return p;
}

static const char *read_literal(struct scan *s, const char *p)
{
	static const char *const literals[] = { "true", "false", "null" };

	for (size_t i = 0; i < ARRAY_SIZE(literals); i++) {
		size_t len = strlen(literals[i]);

		if (strncmp(p, literals[i], len) == 0)
			return p + len;
	}
	return unexpected(s, p);
}

/* Refused, but gone past: a writer that sent an id after it should see that id again. */
static const char *skip_nested(struct scan *s, const char *p)
{
	struct scan_text inner;
	size_t depth = 0;

	fault(s, "nested array or object", p);
	do {
		if (*p == '"') {
			p = read_string(s, p, &inner);
			if (!p)
				return NULL;
			continue;
		}
		if (*p == '\0')
			return NULL;
		if (*p == '{' || *p == '[')
			depth++;
		if (*p == '}' || *p == ']')
			depth--;
		p++;
	} while (depth > 0);
	return p;
}

static const char *read_value(struct scan *s, const char *start, struct scan_member *m)
{
	const char *p;

	switch (*start) {
	case '"':
		m->kind = SCAN_STRING;
		return read_string(s, start, &m->value);
	case '{':
	case '[':
		m->kind = SCAN_NESTED;
		p = skip_nested(s, start);
		break;
	case '-':
	case '0' ... '9':
		m->kind = SCAN_NUMBER;
		p = read_number(s, start);
		break;
	default:
		m->kind = SCAN_LITERAL;
		p = read_literal(s, start);
	}
	if (p)
		m->value = (struct scan_text){ .text = start, .len = (size_t)(p - start) };
	return p;
}

static const char *read_member(struct scan *s, const char *p)
{
	struct scan_member *m = &s->members[s->n];

	if (*p != '"')
		return unexpected(s, p);
	if (s->n == SCAN_MEMBERS_MAX)
		return fault(s, "more than 32 fields", p);
	p = read_string(s, p, &m->name);
	if (!p)
		return NULL;
	p = skip_blanks(p);
	if (*p != ':')
		return unexpected(s, p);
	p = read_value(s, skip_blanks(p + 1), m);
	if (p)
		s->n++;
	return p;
}

/* @p is behind the opening brace; stops behind the closing one. */
static const char *read_members(struct scan *s, const char *p)
{
	p = skip_blanks(p);
	if (*p == '}')
		return p + 1;
	for (;;) {
		p = read_member(s, p);
		if (!p)
			return NULL;
		p = skip_blanks(p);
		if (*p == '}')
			return p + 1;
		if (*p != ',')
			return unexpected(s, p);
		p = skip_blanks(p + 1);
	}
}

bool scan_object(struct scan *s, const char *line, size_t n)
{
	const char *p = skip_blanks(line);

	s->n = 0;
	s->fault = NULL;
	s->fault_at = 0;
	s->line = line;
	s->end = line + n;
	if (strncmp(line, "\xef\xbb\xbf", 3) == 0) {
		fault(s, "byte order mark", line);
		return false;
	}
	if (*p != '{') {
		fault(s, "not a JSON object", p);
		return false;
	}
	p = read_members(s, p + 1);
	if (p)
		p = skip_blanks(p);
	if (p && p != s->end)
		fault(s, "bytes after the object", p);
	return !s->fault;
}
