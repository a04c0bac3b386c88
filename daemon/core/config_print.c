/* SPDX-License-Identifier: MIT */
/* The table of keys as text for people: the dump tells what is in force and may be
 * used as a configuration file, the sample tells what there is. */
#include <inttypes.h>
#include <string.h>

#include "core/config.h"
#include "core/config_key.h"
#include "core/config_value.h"

/* The sample's comments are wrapped to fit a terminal. */
#define SAMPLE_WIDTH 80

/* What the sample gives for the keys that have no default. */
#define SAMPLE_APP    "1234567890"
#define SAMPLE_SECRET "/etc/barraged/secrets.d/" SAMPLE_APP

/* "key = value"; where there is no value, no blank that an editor would strip. */
static void put_key(struct buffer *out, const char *mark, const char *key, const char *value)
{
	buffer_printf(out, "%s%s =%s%s\n", mark, key, *value ? " " : "", value);
}

/* @base is a struct app_config for SECTION_APP, else a struct config. */
static void dump_section(enum config_section section, const void *base, struct buffer *out)
{
	char spelled[CONFIG_SPELLED];

	for (const struct config_key *k = config_keys; k->name; k++) {
		const void *slot = (const char *)base + config_key_offset(k, section);

		if (k->sections & 1u << section)
			put_key(out, "", k->name, config_value_text(k, slot, spelled));
	}
}

void config_dump(const struct config *c, struct buffer *out)
{
	for (enum config_section s = 0; s < SECTION_APP; s++) {
		buffer_printf(out, "%s[%s]\n", s ? "\n" : "", config_section_name(s));
		dump_section(s, c, out);
	}
	for (size_t i = 0; i < c->n_apps; i++) {
		buffer_printf(out, "\n[app %" PRIu32 "]\n", c->apps[i].app_id);
		dump_section(SECTION_APP, &c->apps[i], out);
	}
}

/* A paragraph, as comment lines wrapped between words. */
static void put_comment(struct buffer *out, const char *text)
{
	size_t column = 0;

	while (*text) {
		size_t n = strcspn(text, " ");

		if (column > 0 && column + 1 + n > SAMPLE_WIDTH) {
			buffer_puts(out, "\n");
			column = 0;
		}
		if (column == 0) {
			buffer_puts(out, "#");
			column = 1;
		}
		buffer_puts(out, " ");
		buffer_append(out, text, n);
		column += 1 + n;
		text += n + strspn(text + n, " ");
	}
	buffer_puts(out, "\n");
}

/* What a key is for and what it may be. */
static void put_help(struct buffer *out, const struct config_key *k, struct buffer *scratch)
{
	scratch->len = 0;
	buffer_printf(scratch, "%s ", k->help);
	config_value_print_range(k, scratch);
	put_comment(out, scratch->failed ? "" : scratch->data);
	out->failed |= scratch->failed;
}

static void sample_section(enum config_section section, struct buffer *out)
{
	_cleanup_(buffer_deinit) struct buffer scratch = { 0 };

	buffer_puts(out, "\n");
	put_comment(out, config_section_help(section));
	buffer_printf(out, "[%s%s]\n", config_section_name(section),
		      section == SECTION_APP ? " " SAMPLE_APP : "");

	for (const struct config_key *k = config_keys; k->name; k++) {
		if (!(k->sections & 1u << section))
			continue;
		buffer_puts(out, "\n");
		if (section == SECTION_APP && k->sections & 1u << SECTION_QUEUE)
			put_comment(out, "As in [queue], for this AppID.");
		else
			put_help(out, k, &scratch);
		if (k->standard)
			put_key(out, "#", k->name, k->standard);
		else
			put_key(out, "", k->name, SAMPLE_SECRET);
	}
}

void config_sample(struct buffer *out)
{
	put_comment(out,
		    "barraged's configuration. Every key is here with its default; what has to "
		    "be edited is the [app 1234567890] section. See barraged.conf(5).");
	buffer_puts(out, "#\n");
	put_comment(out,
		    "A line is empty, a comment that begins with # or ;, a [section], or key = "
		    "value, and has at most 197 bytes. There is no quoting, and no comment after "
		    "a value. Durations are written 250ms, 3s, 1m or 1h, sizes 16KiB, 64MiB or "
		    "1GiB, and a plain 0 is either. Anything else is an error: barraged "
		    "--config FILE --check-config shows them all.");
	for (enum config_section s = 0; s < _SECTION_N; s++)
		sample_section(s, out);
}
