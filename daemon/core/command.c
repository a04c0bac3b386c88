/* SPDX-License-Identifier: MIT */
/*
 * As strict as with writers' lines (request.c), for the same reason: what is misspelt must
 * not be taken for something else, least of all by a command that steers. Which operation
 * takes which fields is one table, and so is what a field may be.
 */
#include "core/command.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/config.h"
#include "core/scan.h"
#include "core/text.h"

enum field {
	FIELD_OP,
	FIELD_APP_ID,
	FIELD_LEVEL,
	FIELD_FORMAT,
	_FIELD_N
};

static const char *const field_names[] = {
	[FIELD_OP] = "op",
	[FIELD_APP_ID] = "AppId",
	[FIELD_LEVEL] = "level",
	[FIELD_FORMAT] = "format",
};
static_assert(ARRAY_SIZE(field_names) == _FIELD_N, "a name for each field");

static const char *const op_names[] = {
	[COMMAND_STATUS] = "status", [COMMAND_RELOAD] = "reload",   [COMMAND_PAUSE] = "pause",
	[COMMAND_RESUME] = "resume", [COMMAND_METRICS] = "metrics", [COMMAND_LOG] = "log",
};
static_assert(ARRAY_SIZE(op_names) == _COMMAND_N, "a name for each operation");

/* Besides op. */
static const struct {
	bool takes[_FIELD_N];
	bool needs[_FIELD_N];
} rules[_COMMAND_N] = {
	[COMMAND_PAUSE] = { .takes[FIELD_APP_ID] = true, .needs[FIELD_APP_ID] = true },
	[COMMAND_RESUME] = { .takes[FIELD_APP_ID] = true, .needs[FIELD_APP_ID] = true },
	[COMMAND_METRICS] = { .takes[FIELD_FORMAT] = true },
	[COMMAND_LOG] = { .takes[FIELD_LEVEL] = true, .needs[FIELD_LEVEL] = true },
};

static const char *const levels[] = { "error", "warning", "info", "debug" };
static const char *const formats[] = {
	[METRICS_OPENMETRICS] = "openmetrics",
	[METRICS_PROMETHEUS] = "prometheus",
};

static int __attribute__((__format__(__printf__, 2, 3)))
refuse(struct command_error *why, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(why->text, sizeof(why->text), format, args);
	va_end(args);
	return COMMAND_E_INVALID;
}

/* The bytes between a string's quotes; an escaped one is no word of ours. */
static void unquote(char *out, size_t size, const struct scan_text *t)
{
	size_t n = min_u64(t->len - 2, size - 1);

	memcpy(out, t->text + 1, n);
	out[n] = '\0';
}

/* The index of a string among @names, or @n with a sentence in @why. */
static size_t find(const char *what, const struct scan_text *t, const char *const names[], size_t n,
		   struct command_error *why)
{
	char word[CONFIG_QUOTED];
	char quoted[CONFIG_QUOTED];
	const char *meant;
	size_t i = 0;

	unquote(word, sizeof(word), t);
	while (i < n && (strlen(names[i]) != t->len - 2 || strcmp(word, names[i]) != 0))
		i++;
	if (i < n)
		return i;
	meant = nearest(word, names, n);
	config_quoted(quoted, word);
	if (meant)
		(void)refuse(why, "unknown %s \"%s\"; did you mean \"%s\"?", what, quoted, meant);
	else
		(void)refuse(why, "unknown %s \"%s\"", what, quoted);
	return n;
}

static int read_word(uint64_t *out, enum field f, const struct scan_member *m,
		     const char *const names[], size_t n, struct command_error *why)
{
	size_t i;

	if (m->kind != SCAN_STRING)
		return refuse(why, "%s must be a string", field_names[f]);
	i = find(field_names[f], &m->value, names, n, why);
	*out = i;
	return i < n ? 0 : COMMAND_E_INVALID;
}

static int read_app_id(uint32_t *out, const struct scan_member *m, struct command_error *why)
{
	uint64_t n;

	if (m->kind != SCAN_NUMBER || !parse_u64(m->value.text, m->value.len, UINT32_MAX, &n) ||
	    n == 0)
		return refuse(why, "AppId must be an integer from 1 to 4294967295");
	*out = (uint32_t)n;
	return 0;
}

static int read_field(struct command *c, enum field f, const struct scan_member *m,
		      struct command_error *why)
{
	uint64_t word = 0;
	int r = 0;

	switch (f) {
	case FIELD_OP:
		r = read_word(&word, f, m, op_names, _COMMAND_N, why);
		c->op = (enum command_op)word;
		break;
	case FIELD_APP_ID:
		r = read_app_id(&c->app_id, m, why);
		break;
	case FIELD_LEVEL:
		r = read_word(&c->level, f, m, levels, ARRAY_SIZE(levels), why);
		break;
	case FIELD_FORMAT:
		r = read_word(&word, f, m, formats, ARRAY_SIZE(formats), why);
		c->format = (enum metrics_format)word;
		break;
	case _FIELD_N:
		break;
	}
	return r;
}

static int check_fields(enum command_op op, const bool given[_FIELD_N], struct command_error *why)
{
	for (size_t f = FIELD_OP + 1; f < _FIELD_N; f++) {
		if (given[f] && !rules[op].takes[f])
			return refuse(why, "%s takes no %s", op_names[op], field_names[f]);
		if (!given[f] && rules[op].needs[f])
			return refuse(why, "%s needs %s", op_names[op], field_names[f]);
	}
	return 0;
}

int command_parse(struct command *out, const char *line, size_t n, struct command_error *why)
{
	bool given[_FIELD_N] = { false };
	struct scan scan;
	int r;

	*out = (struct command){ .op = _COMMAND_N };
	if (!scan_object(&scan, line, n))
		return refuse(why, "%s at byte offset %zu", scan.fault, scan.fault_at);
	for (size_t i = 0; i < scan.n; i++) {
		const struct scan_member *m = &scan.members[i];
		size_t f = find("field", &m->name, field_names, _FIELD_N, why);

		if (f == _FIELD_N)
			return COMMAND_E_INVALID;
		if (given[f])
			return refuse(why, "%s is given twice", field_names[f]);
		given[f] = true;
		r = read_field(out, (enum field)f, m, why);
		if (r > 0)
			return r;
	}
	if (!given[FIELD_OP])
		return refuse(why, "op is missing");
	return check_fields(out->op, given, why);
}

const char *command_name(enum command_op op)
{
	assert(op < _COMMAND_N);
	return op_names[op];
}
