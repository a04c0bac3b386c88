/* SPDX-License-Identifier: MIT */
/* A strict first look at a line that should be one flat JSON object: members that are
 * strings, numbers, true, false or null. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base.h"

/* An object with more members is none of ours; the tree of a line is bounded by it. */
#define SCAN_MEMBERS_MAX 32

enum scan_kind {
	SCAN_STRING,
	SCAN_NUMBER,
	SCAN_LITERAL, /* true, false, null */
	SCAN_NESTED,  /* only in an object that was refused for it */
};

/* Points into the line. */
struct scan_text {
	const char *text; /* as written, a string with its quotes */
	size_t len;
	size_t decoded; /* bytes of a string when its escapes are resolved */
};

struct scan_member {
	struct scan_text name;
	struct scan_text value;
	enum scan_kind kind; /* the value's */
};

struct scan {
	struct scan_member members[SCAN_MEMBERS_MAX];
	size_t n;          /* members that were read whole, also where the line was refused */
	const char *fault; /* what is wrong, NULL if nothing is; no foreign text */
	size_t fault_at;   /* where: bytes from the line's first */
	const char *line;
	const char *end;
};

/* Whether a string means something else than the bytes between its quotes. */
static inline bool scan_is_escaped(const struct scan_text *t)
{
	return t->len != t->decoded + 2;
}

/* Reads @line[@n], which is a NUL. Returns whether the line is valid UTF-8 and exactly one
 * flat JSON object (RFC 8259; spaces, tabs and CRs around its tokens are fine), without
 * control characters and without U+0000, however written. Then cJSON takes each of its
 * strings, and the line as a whole, and can only fail for want of memory. */
bool scan_object(struct scan *s, const char *line, size_t n);
