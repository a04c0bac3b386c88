/* SPDX-License-Identifier: MIT */
/* The one table of configuration keys. Parsing, ranges, defaults, suggestions, the
 * dump and the sample file walk it; a new key is a new row and a field to hold it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base.h"
#include "core/config.h"

enum config_section {
	SECTION_DAEMON,
	SECTION_UPSTREAM,
	SECTION_QUEUE,
	SECTION_SHARED,
	SECTION_APP, /* one for each AppID; the others at most once */
	_SECTION_N
};

/* How a value is written, and where it is kept: up to KEY_CHOICE in a uint64_t,
 * then in a char * on the heap. */
enum config_type {
	KEY_NUMBER,
	KEY_SIZE,     /* bytes, written with a unit */
	KEY_DURATION, /* ns, written with a unit */
	KEY_MODE,     /* permissions, octal */
	KEY_CHOICE,   /* index into @choices */
	KEY_TEXT,
	KEY_PATH,   /* absolute, or empty where @min is 0 */
	KEY_LISTEN, /* an IP address and a port, or empty */
	KEY_SECRET, /* where a secret is: an absolute path or credential:NAME */
	_KEY_TYPE_N
};

struct config_key {
	const char *name;
	unsigned sections; /* 1 << enum config_section, or several */
	size_t offset;     /* see config_key_offset() */
	enum config_type type;
	uint64_t min; /* of texts: bytes */
	uint64_t max;
	const char *standard;       /* as in a file; NULL: must be given */
	const char *unit;           /* of a KEY_NUMBER, plural */
	const char *const *choices; /* ends with NULL */
	const char *help;           /* sentences */
};

/* A set of keys is a uint64_t with a bit for each row. */
#define CONFIG_KEYS_MAX 64

/* Ends with a row without a name. */
extern const struct config_key config_keys[];

/* What comes before the NAME of a credential in a KEY_SECRET. */
#define CREDENTIAL_PREFIX "credential:"

/* "daemon", …, "app". */
const char *config_section_name(enum config_section section);

/* One sentence on what a section is for. */
const char *config_section_help(enum config_section section);

/* The section of that name, or _SECTION_N. */
enum config_section config_section_find(const char *name);

/* The row of a key in a section, or NULL. */
const struct config_key *config_key_find(enum config_section section, const char *name);

/* This key's bit in a set of keys. */
uint64_t config_key_bit(const struct config_key *k);

/* Where the key's value lies: in a struct app_config for SECTION_APP, else in a struct
 * config. */
size_t config_key_offset(const struct config_key *k, enum config_section section);

static inline bool config_key_is_text(const struct config_key *k)
{
	return k->type > KEY_CHOICE;
}
