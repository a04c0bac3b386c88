/* SPDX-License-Identifier: MIT */
/* An operator's slip should cost a glance, not a search: each refusal names the key,
 * what was found and what is allowed. Spelling is strict, since what is nearly right
 * ("5 sec", "64MB", "010") is what two people read differently.
 *
 * Numbers saturate: what does not fit in 64 bits is beyond every key's range, and is
 * then refused for that. */
#include "core/config_value.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/text.h"

#define DIGITS "0123456789"

/* All choices of one key, in a sentence. */
#define CHOICES 64

struct unit {
	const char *name;
	uint64_t size;
};

/* From large to small: a value is written in the largest that divides it. */
static const struct unit durations[] = {
	{ "h", 3600 * NSEC_PER_SEC },
	{ "m", 60 * NSEC_PER_SEC },
	{ "s", NSEC_PER_SEC },
	{ "ms", NSEC_PER_MSEC },
	{ NULL },
};
static const struct unit sizes[] = {
	{ "GiB", UINT64_C(1) << 30 },
	{ "MiB", UINT64_C(1) << 20 },
	{ "KiB", UINT64_C(1) << 10 },
	{ NULL },
};

static bool read_digits(const char *text, size_t n, uint64_t *out)
{
	if (parse_u64(text, n, UINT64_MAX, out))
		return true;
	/* All digits, and yet not a number: too large for 64 bits. */
	*out = UINT64_MAX;
	return n > 1 && text[0] != '0' && strspn(text, DIGITS) >= n;
}

static bool read_number(const struct config_key *k, const char *text, uint64_t *out)
{
	return read_digits(text, strlen(text), out);
}

static bool read_units(const struct unit *units, const char *text, uint64_t *out)
{
	size_t digits = strspn(text, DIGITS);
	const struct unit *u = units;

	if (!read_digits(text, digits, out))
		return false;
	if (*out == 0 && text[digits] == '\0')
		return true;
	while (u->name && strcmp(u->name, text + digits) != 0)
		u++;
	if (!u->name)
		return false;
	if (__builtin_mul_overflow(*out, u->size, out))
		*out = UINT64_MAX;
	return true;
}

static bool read_size(const struct config_key *k, const char *text, uint64_t *out)
{
	return read_units(sizes, text, out);
}

static bool read_duration(const struct config_key *k, const char *text, uint64_t *out)
{
	return read_units(durations, text, out);
}

static bool read_mode(const struct config_key *k, const char *text, uint64_t *out)
{
	size_t n = strlen(text);

	if ((n != 3 && n != 4) || strspn(text, "01234567") != n)
		return false;
	*out = 0;
	for (size_t i = 0; i < n; i++)
		*out = *out * 8 + (uint64_t)(text[i] - '0');
	return true;
}

static bool read_choice(const struct config_key *k, const char *text, uint64_t *out)
{
	for (*out = 0; k->choices[*out]; ++*out) {
		if (strcmp(k->choices[*out], text) == 0)
			return true;
	}
	return false;
}

static const char *spell_number(const struct config_key *k, uint64_t v, char out[CONFIG_SPELLED])
{
	snprintf(out, CONFIG_SPELLED, "%" PRIu64, v);
	return out;
}

static const char *spell_units(const struct unit *u, uint64_t v, char out[CONFIG_SPELLED])
{
	if (v == 0)
		return "0";
	while (v % u->size != 0 && u[1].name)
		u++;
	snprintf(out, CONFIG_SPELLED, "%" PRIu64 "%s", v / u->size, u->name);
	return out;
}

static const char *spell_size(const struct config_key *k, uint64_t v, char out[CONFIG_SPELLED])
{
	return spell_units(sizes, v, out);
}

static const char *spell_duration(const struct config_key *k, uint64_t v, char out[CONFIG_SPELLED])
{
	return spell_units(durations, v, out);
}

static const char *spell_mode(const struct config_key *k, uint64_t v, char out[CONFIG_SPELLED])
{
	snprintf(out, CONFIG_SPELLED, "%04" PRIo64, v);
	return out;
}

static const char *spell_choice(const struct config_key *k, uint64_t v, char out[CONFIG_SPELLED])
{
	return k->choices[v];
}

/* "oldest, newest", without an empty one. */
static void list_choices(const struct config_key *k, char out[CHOICES])
{
	size_t n = 0;

	for (size_t i = 0; k->choices[i]; i++) {
		if (*k->choices[i])
			n += (size_t)snprintf(out + n, CHOICES - n, "%s%s", n ? ", " : "",
					      k->choices[i]);
		assert(n < CHOICES);
	}
}

static bool is_path(const char *text)
{
	return *text == '/';
}

static bool is_listen(const char *text)
{
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN];
	struct in6_addr address;
	uint64_t port;
	size_t n;

	if (!colon || !parse_u64(colon + 1, strlen(colon + 1), 65535, &port) || port == 0)
		return false;

	n = (size_t)(colon - text);
	if (n > 2 && text[0] == '[' && text[n - 1] == ']') {
		snprintf(host, sizeof(host), "%.*s", (int)n - 2, text + 1);
		return n - 2 < sizeof(host) && inet_pton(AF_INET6, host, &address) == 1;
	}
	snprintf(host, sizeof(host), "%.*s", (int)n, text);
	return n < sizeof(host) && inet_pton(AF_INET, host, &address) == 1;
}

static bool is_secret(const char *text)
{
	const size_t prefix = strlen(CREDENTIAL_PREFIX);

	if (strncmp(text, CREDENTIAL_PREFIX, prefix) != 0)
		return *text == '/';
	return text[prefix] != '\0' && text[prefix] != '.' && !strchr(text, '/');
}

/* clang-format off */
static const struct {
	const char *what; /* as in "is not …" */
	bool (*read)(const struct config_key *k, const char *text, uint64_t *out);
	const char *(*spell)(const struct config_key *k, uint64_t v, char out[CONFIG_SPELLED]);
	bool (*is)(const char *text); /* of texts; NULL: any will do */
} types[] = {
	[KEY_NUMBER]   = { "a whole number (such as 1 or 100)", read_number, spell_number },
	[KEY_SIZE]     = { "a size (such as 16KiB, 64MiB or 1GiB)", read_size, spell_size },
	[KEY_DURATION] = { "a duration (such as 250ms, 3s or 1m)", read_duration, spell_duration },
	[KEY_MODE]     = { "an octal mode (such as 0660)", read_mode, spell_mode },
	[KEY_CHOICE]   = { "one of", read_choice, spell_choice },
	[KEY_TEXT]     = { "a text" },
	[KEY_PATH]     = { "an absolute path", .is = is_path },
	[KEY_LISTEN]   = { "an IP address and a port (such as 127.0.0.1:9464 or [::1]:9464)",
			   .is = is_listen },
	[KEY_SECRET]   = { "an absolute path or credential:NAME", .is = is_secret },
};
/* clang-format on */

static_assert(ARRAY_SIZE(types) == _KEY_TYPE_N, "every type has its row");

static int refuse_text(const struct config_key *k, const char *text, struct config_error *why)
{
	char quoted[CONFIG_QUOTED];

	/* Who writes the secret itself where its file is asked for must not find it in
	 * the log. */
	if (k->type == KEY_SECRET)
		return config_refuse(why, "%s: must be %s", k->name, types[k->type].what);
	return config_refuse(why, "%s: \"%s\" is not %s", k->name, config_quoted(quoted, text),
			     types[k->type].what);
}

static bool has_control(const char *text)
{
	while (*text && (unsigned char)*text >= 0x20 && *text != 0x7f)
		text++;
	return *text != '\0';
}

static int read_text(const struct config_key *k, char **slot, const char *text,
		     struct config_error *why)
{
	size_t n = strlen(text);
	char *copy;

	if (n < k->min)
		return config_refuse(why, "%s: must not be empty", k->name);
	if (n > k->max)
		return config_refuse(why, "%s: %zu bytes are too many (at most %" PRIu64 ")",
				     k->name, n, k->max);
	if (has_control(text))
		return config_refuse(why, "%s: contains a control character", k->name);
	if (n > 0 && types[k->type].is && !types[k->type].is(text))
		return refuse_text(k, text, why);

	copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	free(*slot);
	*slot = copy;
	return 0;
}

static int refuse_number(const struct config_key *k, const char *text, struct config_error *why)
{
	char quoted[CONFIG_QUOTED];
	char choices[CHOICES] = "";

	if (k->type == KEY_CHOICE)
		list_choices(k, choices);
	return config_refuse(why, "%s: \"%s\" is not %s%s%s", k->name, config_quoted(quoted, text),
			     types[k->type].what, *choices ? " " : "", choices);
}

int config_value_read(const struct config_key *k, void *slot, const char *text,
		      struct config_error *why)
{
	char quoted[CONFIG_QUOTED];
	char least[CONFIG_SPELLED];
	char most[CONFIG_SPELLED];
	uint64_t v;

	if (config_key_is_text(k))
		return read_text(k, slot, text, why);

	if (!types[k->type].read(k, text, &v))
		return refuse_number(k, text, why);
	if (v < k->min || v > k->max)
		return config_refuse(why, "%s: %s is out of range (%s to %s)", k->name,
				     config_quoted(quoted, text),
				     types[k->type].spell(k, k->min, least),
				     types[k->type].spell(k, k->max, most));
	*(uint64_t *)slot = v;
	return 0;
}

const char *config_value_text(const struct config_key *k, const void *slot,
			      char out[CONFIG_SPELLED])
{
	const char *text;

	if (!config_key_is_text(k))
		return types[k->type].spell(k, *(const uint64_t *)slot, out);
	text = *(const char *const *)slot;
	return text ? text : "";
}

void config_value_print_range(const struct config_key *k, struct buffer *out)
{
	char choices[CHOICES];
	char least[CONFIG_SPELLED];
	char most[CONFIG_SPELLED];

	if (config_key_is_text(k) || k->type == KEY_MODE)
		return;
	if (k->type == KEY_CHOICE) {
		list_choices(k, choices);
		buffer_printf(out, "One of %s.", choices);
		return;
	}
	buffer_printf(out, "From %s to %s%s%s.", types[k->type].spell(k, k->min, least),
		      types[k->type].spell(k, k->max, most), *k->unit ? " " : "", k->unit);
}
