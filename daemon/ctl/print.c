/* SPDX-License-Identifier: MIT */
#include "ctl/print.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/outcome.h"
#include "core/text.h"

double print_number(const cJSON *tree, const char *name)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(tree, name);

	return cJSON_IsNumber(m) ? m->valuedouble : 0;
}

const char *print_text(const cJSON *tree, const char *name)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(tree, name);

	return cJSON_IsString(m) ? m->valuestring : "";
}

bool print_flag(const cJSON *tree, const char *name)
{
	return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(tree, name));
}

/* C0, DEL and C1 (U+0080 to U+009F, which some terminals take for escapes). */
static bool is_control(const char *text, size_t n)
{
	unsigned char first = (unsigned char)text[0];

	return n == 0 || (n == 1 && (first < 0x20 || first == 0x7f)) ||
	       (n == 2 && first == 0xc2 && (unsigned char)text[1] < 0xa0);
}

void print_foreign(struct buffer *out, const char *text)
{
	size_t left = strlen(text);

	while (left > 0) {
		size_t n = utf8_length(text, left);

		if (is_control(text, n))
			buffer_puts(out, "?");
		else
			buffer_append(out, text, n);
		n = n > 0 ? n : 1;
		text += n;
		left -= n;
	}
}

void print_duration(struct buffer *out, double ms)
{
	uint64_t seconds = (uint64_t)(ms / 1000);
	unsigned s = (unsigned)(seconds % 60);
	unsigned min = (unsigned)(seconds / 60 % 60);
	unsigned h = (unsigned)(seconds / 3600 % 24);
	unsigned long long d = seconds / 86400;

	if (ms < 1000)
		buffer_printf(out, "%.0f ms", ms);
	else if (seconds < 60)
		buffer_printf(out, "%.1f s", ms / 1000);
	else if (seconds < 3600)
		buffer_printf(out, "%u min %02u s", min, s);
	else if (d == 0)
		buffer_printf(out, "%u h %02u min", h, min);
	else
		buffer_printf(out, "%llu d %02u h", d, h);
}

/* The reasons are not kept by outcome: a reason belongs to one only, as the table of fates
 * in core/outcome.h says. */
static const char *outcome_of(const char *reason)
{
	for (enum fate f = 0; f < _FATE_N; f++) {
		if (strcmp(fate_reason_name(f), reason) == 0)
			return fate_outcome_name(f);
	}
	return "";
}

static void put_reasons(struct buffer *out, const cJSON *of, const char *outcome)
{
	const cJSON *reasons = cJSON_GetObjectItemCaseSensitive(of, "reasons");
	const char *before = " (";
	const cJSON *reason;

	cJSON_ArrayForEach(reason, reasons)
	{
		if (strcmp(outcome_of(reason->string), outcome) != 0)
			continue;
		buffer_printf(out, "%s%s %.0f", before, reason->string, reason->valuedouble);
		before = ", ";
	}
	if (*before == ',')
		buffer_puts(out, ")");
}

void print_fates(struct buffer *out, const cJSON *of)
{
	static const char *const outcomes[] = { "sent", "dropped", "failed", "rejected" };
	const cJSON *fates = cJSON_GetObjectItemCaseSensitive(of, "fates");

	for (size_t i = 0; i < ARRAY_SIZE(outcomes); i++) {
		buffer_printf(out, "%s%.0f %s", i > 0 ? ", " : "", print_number(fates, outcomes[i]),
			      outcomes[i]);
		put_reasons(out, of, outcomes[i]);
	}
}

int print_out(const struct buffer *text, FILE *to)
{
	bool ok = !text->failed && (!text->data || fputs(text->data, to) >= 0) && fflush(to) == 0;

	if (!ok)
		perror("barragectl: cannot write");
	return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

const char *print_shared(const cJSON *answer)
{
	static const struct {
		const char *state;
		const char *text;
	} texts[] = {
		{ "joining", "JOINING" },
		{ "in_touch", "in touch" },
		{ "lost", "OUT OF TOUCH" },
		{ "taken", "NAME TAKEN" },
	};
	const cJSON *shared = cJSON_GetObjectItemCaseSensitive(answer, "shared");

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (strcmp(texts[i].state, print_text(shared, "state")) == 0)
			return texts[i].text;
	}
	return NULL;
}
