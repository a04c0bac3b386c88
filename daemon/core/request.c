/* SPDX-License-Identifier: MIT */
/*
 * Writers may offer a thousand times what may be sent, so most lines are refused, and
 * refusing must be cheap; and a typing error in a field's name must not go unnoticed, so
 * nothing unknown is let through. Hence: core/scan says whether the line is one flat JSON
 * object, and one walk holds its members against one table of fields. Only a line that
 * passed both gets memory of its own. Strings are then copied as they stand or, where
 * there is a backslash in them, by way of cJSON, which knows what escapes mean. (Having
 * cJSON build a tree of each line tripled the cost of this file.)
 *
 * The first fault found is the one reported, but the walk goes on after it: a writer that
 * gave an id wants that id back, wherever in the line it stands.
 */
#include "core/request.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/scan.h"
#include "core/text.h"

/* A double holds every integer up to here, so every JSON library returns it unharmed. */
#define SAFE_INTEGER_MAX ((UINT64_C(1) << 53) - 1)

/* Foreign bytes in one of our sentences. */
#define QUOTED_MAX 40

/* No field's name is longer, and no typing error makes it so. */
#define NAME_MAX_LEN 63

enum field {
	/* These are kept, in this order, in a request's data. */
	FIELD_ROOM_ID,
	FIELD_USER_ID,
	FIELD_USER_NAME,
	FIELD_CONTENT,
	FIELD_ID,
	_FIELD_KEPT_N,
	FIELD_APP_ID = _FIELD_KEPT_N,
	FIELD_CATEGORY,
	FIELD_TTL,
	_FIELD_N,
};

enum field_type {
	TYPE_TEXT,
	TYPE_INTEGER,
	TYPE_ID,
};

/* min and max: of an integer its value, of text its bytes. How long MessageContent may be
 * depends on its AppID, so that is looked at last. */
/* clang-format off */
static const struct {
	const char *name;
	enum field_type type;
	bool required;
	uint64_t min;
	uint64_t max;
} fields[] = {
	[FIELD_ROOM_ID]   = { "RoomId",          TYPE_TEXT,    true,  1, 127 },
	[FIELD_USER_ID]   = { "UserId",          TYPE_TEXT,    true,  1, 63 },
	[FIELD_USER_NAME] = { "UserName",        TYPE_TEXT,    false, 1, 255 },
	[FIELD_CONTENT]   = { "MessageContent",  TYPE_TEXT,    true,  1, UINT64_MAX },
	[FIELD_ID]        = { "id",              TYPE_ID,      false, 1, 64 },
	[FIELD_APP_ID]    = { "AppId",           TYPE_INTEGER, false, 1, UINT32_MAX },
	[FIELD_CATEGORY]  = { "MessageCategory", TYPE_INTEGER, false, 1, 2 },
	[FIELD_TTL]       = { "ttl_ms",          TYPE_INTEGER, false, 1, 60000 },
};
/* clang-format on */
static_assert(ARRAY_SIZE(fields) == _FIELD_N, "a row for each field");

/* What the walk found for a field. */
struct value {
	bool given;
	const struct scan_text *text;
	size_t len; /* in a request */
	uint64_t number;
};

struct parse {
	struct scan scan;
	struct value values[_FIELD_N];
	struct refusal *why;
	bool refused;
};

/* The first reason stands. */
static void __attribute__((__format__(__printf__, 3, 4)))
refuse(struct parse *p, enum fate fate, const char *format, ...)
{
	va_list args;

	if (p->refused)
		return;
	p->refused = true;
	p->why->fate = fate;
	va_start(args, format);
	(void)vsnprintf(p->why->error, sizeof(p->why->error), format, args);
	va_end(args);
}

#define refuse_invalid(p, ...) refuse(p, FATE_INVALID, __VA_ARGS__)

static bool is_safe_integer(const char *digits, size_t n)
{
	uint64_t value;
	bool negative = digits[0] == '-';

	if (negative) {
		digits++;
		n--;
	}
	if (!parse_u64(digits, n, SAFE_INTEGER_MAX, &value))
		return false;
	return value > 0 || !negative;
}

/* Whether the length fits the field; else a reason is given. */
static bool check_length(struct parse *p, const char *name, size_t len, uint64_t max)
{
	if (len == 0)
		refuse_invalid(p, "%s is empty", name);
	else if (len > max)
		refuse_invalid(p, "%s is %zu bytes; at most %" PRIu64 " are allowed", name, len,
			       max);
	return len > 0 && len <= max;
}

static void read_text(struct parse *p, enum field f, const struct scan_member *m)
{
	struct value *v = &p->values[f];

	if (m->kind != SCAN_STRING) {
		refuse_invalid(p, "%s must be a string", fields[f].name);
		return;
	}
	check_length(p, fields[f].name, m->value.decoded, fields[f].max);
	v->text = &m->value;
	v->len = m->value.decoded;
}

static void read_integer(struct parse *p, enum field f, const struct scan_member *m)
{
	uint64_t number;

	if (m->kind != SCAN_NUMBER) {
		refuse_invalid(p, "%s must be an integer", fields[f].name);
		return;
	}
	if (!parse_u64(m->value.text, m->value.len, fields[f].max, &number) ||
	    number < fields[f].min) {
		refuse_invalid(p,
			       "%s is %.*s; a whole number in plain digits from %" PRIu64
			       " to %" PRIu64 " is allowed",
			       fields[f].name, (int)m->value.len, m->value.text, fields[f].min,
			       fields[f].max);
		return;
	}
	p->values[f].number = number;
}

/* An id is kept as it was written, so that its writer recognises it byte for byte. */
static void read_id(struct parse *p, const struct scan_member *m)
{
	struct value *v = &p->values[FIELD_ID];

	if (m->kind != SCAN_STRING && m->kind != SCAN_NUMBER) {
		refuse_invalid(p, "id must be a string or an integer");
		return;
	}
	if (m->kind == SCAN_STRING &&
	    !check_length(p, "id", m->value.decoded, fields[FIELD_ID].max))
		return;
	if (m->kind == SCAN_NUMBER && !is_safe_integer(m->value.text, m->value.len)) {
		refuse_invalid(p,
			       "id is %.*s; a whole number in plain digits within ±%" PRIu64
			       " is allowed",
			       (int)m->value.len, m->value.text, SAFE_INTEGER_MAX);
		return;
	}
	v->text = &m->value;
	v->len = m->value.len;
	p->why->id = m->value.text;
	p->why->id_len = m->value.len;
}

static enum field find_field(const char *name)
{
	size_t f = 0;

	while (f < _FIELD_N && strcmp(fields[f].name, name) != 0)
		f++;
	return (enum field)f;
}

static void refuse_unknown(struct parse *p, const struct scan_text *written, const char *name)
{
	const char *names[_FIELD_N];
	const char *meant;
	size_t len = written->len - 2;
	size_t shown = utf8_prefix(written->text + 1, len, QUOTED_MAX);

	if (p->refused)
		return; /* looking for what was meant would be wasted */
	for (size_t f = 0; f < _FIELD_N; f++)
		names[f] = fields[f].name;
	meant = nearest(name, names, _FIELD_N);
	refuse_invalid(p, "unknown field \"%.*s%s\"%s%s%s", (int)shown, written->text + 1,
		       shown < len ? "…" : "", meant ? "; did you mean " : "", meant ? meant : "",
		       meant ? "?" : "");
}

/* Copies what a string means, written->decoded bytes. */
static bool copy_decoded(char *out, const struct scan_text *written)
{
	cJSON *string;

	if (!scan_is_escaped(written)) {
		memcpy(out, written->text + 1, written->decoded);
		return true;
	}
	string = cJSON_ParseWithLengthOpts(written->text, written->len, NULL, 0);
	if (!string)
		return false;
	assert(strlen(string->valuestring) == written->decoded);
	memcpy(out, string->valuestring, written->decoded);
	cJSON_Delete(string);
	return true;
}

static void read_member(struct parse *p, const struct scan_member *m)
{
	char name[NAME_MAX_LEN + 1] = "";
	enum field f;

	if (m->name.decoded <= NAME_MAX_LEN) {
		if (!copy_decoded(name, &m->name)) {
			refuse(p, FATE_MEMORY, "out of memory");
			return;
		}
		name[m->name.decoded] = '\0';
	}
	f = find_field(name);
	if (f == _FIELD_N) {
		refuse_unknown(p, &m->name, name);
		return;
	}
	if (p->values[f].given) {
		refuse_invalid(p, "%s is given twice", fields[f].name);
		return;
	}
	p->values[f].given = true;
	switch (fields[f].type) {
	case TYPE_TEXT:
		read_text(p, f, m);
		return;
	case TYPE_INTEGER:
		read_integer(p, f, m);
		return;
	case TYPE_ID:
		read_id(p, m);
		return;
	}
}

static void check_missing(struct parse *p)
{
	for (size_t f = 0; f < _FIELD_N; f++) {
		if (fields[f].required && !p->values[f].given)
			refuse_invalid(p, "%s is missing", fields[f].name);
	}
}

static void read_line(struct parse *p, const char *line, size_t n)
{
	struct scan *s = &p->scan;

	/* Also where it is no object of ours: the members before its fault, or beside it, may
	 * have an id among them. */
	if (!scan_object(s, line, n))
		refuse_invalid(p, "%s at byte offset %zu", s->fault, s->fault_at);
	for (size_t i = 0; i < s->n; i++)
		read_member(p, &s->members[i]);
	check_missing(p);
}

/* The AppID that the line is for, if this peer may use it. That it is not configured and
 * that it is somebody else's must look the same from outside. */
static const struct app_config *find_app(struct parse *p, const struct config *c,
					 const struct peer *peer)
{
	const struct value *v = &p->values[FIELD_APP_ID];
	const struct app_config *app = NULL;

	if (v->given)
		app = config_app(c, (uint32_t)v->number);
	else if (c->n_apps == 1)
		app = &c->apps[0];
	else
		refuse_invalid(
			p, "AppId is missing; it is optional only where just one is configured");
	if (app && (config_open(c, app) > 0 || config_admits(app, peer)))
		return app;

	p->why->not_admitted = app != NULL;
	p->why->app_id = app ? app->app_id : (uint32_t)v->number;
	if (v->given)
		refuse(p, FATE_UNKNOWN_APP, "AppId %" PRIu64 " is not configured for this writer",
		       v->number);
	else
		refuse(p, FATE_UNKNOWN_APP, "no AppId is configured for this writer");
	return NULL;
}

/* A request that holds no text yet, but has room for it. */
static struct request *new_request(const struct value *values, const struct app_config *app)
{
	size_t size = sizeof(struct request);
	struct request *r;

	for (size_t f = 0; f < _FIELD_KEPT_N; f++)
		size += values[f].len + 1;
	r = malloc(size);
	if (!r)
		return NULL;
	*r = (struct request){
		.app = app,
		.ttl_ms = (uint32_t)values[FIELD_TTL].number,
		.content_len = (uint16_t)values[FIELD_CONTENT].len,
		.id_len = (uint16_t)values[FIELD_ID].len,
		.room_id_len = (uint8_t)values[FIELD_ROOM_ID].len,
		.user_id_len = (uint8_t)values[FIELD_USER_ID].len,
		.user_name_len = (uint8_t)values[FIELD_USER_NAME].len,
		.class = values[FIELD_CATEGORY].number == 1 ? CLASS_SYSTEM : CLASS_CHAT,
		.state = REQUEST_NEW,
	};
	list_init(&r->link);
	list_init(&r->tick);
	return r;
}

/* Copies a field's text and its NUL. */
static bool put_text(char *out, enum field f, const struct value *v)
{
	out[v->len] = '\0';
	if (!v->text)
		return true;
	if (fields[f].type == TYPE_TEXT)
		return copy_decoded(out, v->text);
	memcpy(out, v->text->text, v->len); /* an id, as it was written */
	return true;
}

static struct request *build(const struct value *values, const struct app_config *app)
{
	_cleanup_(request_freep) struct request *r = new_request(values, app);
	struct request *result;
	char *at;

	if (!r)
		return NULL;
	at = r->data;
	for (size_t f = 0; f < _FIELD_KEPT_N; f++) {
		if (!put_text(at, (enum field)f, &values[f]))
			return NULL;
		at += values[f].len + 1;
	}
	result = r;
	r = NULL;
	return result;
}

static struct request *parse(struct parse *p, const struct config *c, const struct peer *peer,
			     const char *line, size_t n)
{
	const struct app_config *app;
	struct request *r;
	uint64_t most;

	read_line(p, line, n);
	if (p->refused)
		return NULL;
	app = find_app(p, c, peer);
	if (!app)
		return NULL;
	most = config_open(c, app);
	if (most == 0)
		most = min_u64(app->max_content, UINT16_MAX);
	if (!check_length(p, "MessageContent", p->values[FIELD_CONTENT].len, most))
		return NULL;
	r = build(p->values, app);
	if (!r)
		refuse(p, FATE_MEMORY, "out of memory");
	return r;
}

int request_parse(struct request **out, const struct config *c, const struct peer *peer,
		  const char *line, size_t n, struct refusal *why)
{
	struct parse p;
	struct request *r;

	/* Not the scan, which fills what it says is filled; nor all of the sentence. */
	memset(p.values, 0, sizeof(p.values));
	p.why = why;
	p.refused = false;
	why->fate = FATE_INVALID;
	why->id = NULL;
	why->id_len = 0;
	why->not_admitted = false;
	why->app_id = 0;
	why->error[0] = '\0';

	r = parse(&p, c, peer, line, n);
	if (!r)
		return REQUEST_E_REFUSED;
	*out = r;
	return 0;
}

void request_free(struct request *r)
{
	free(r);
}
