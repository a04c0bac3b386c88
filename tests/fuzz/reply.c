/* SPDX-License-Identifier: MIT */
/* Replies carry bytes of strangers: ZEGO's, or whoever answers in its place, and those that a
 * refusal quotes. Whatever they are, a reply is one line of strict JSON, and what can be
 * said in UTF-8 is said unharmed.
 *
 * Input: what fails, a fate, an id, which numbers and limits, three texts with NULs between
 * them. */
#include "core/reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "core/scan.h"
#include "fuzz.h"

#define HEADER 4

/* An id was judged when it came in, and is repeated as it was written. */
static const char *const ids[] = {
	"",
	"7",
	"-9007199254740991",
	"\"a\\\"\\u00e4\\n\"",
	"\"\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061"
	"\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061"
	"\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061"
	"\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061"
	"\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061"
	"\\u0061\\u0061\\u0061\\u0061\"",
};

static const int64_t codes[] = { 0, 206, -1, INT64_MIN, INT64_MAX, 9007199254740991 };

/* What buffer_put_json() is to say of @s[@n], of which it may use @most bytes; the
 * caller's. Three bytes for one is the most it makes of any. */
static char *expected(const char *s, size_t n, size_t most, size_t *length)
{
	char *out = malloc(3 * n + 1);
	size_t at = 0;

	CHECK(out);
	for (size_t i = 0; i < n && i < most;) {
		size_t c = fuzz_utf8(s + i, n - i);

		if (c > most - i)
			break;
		memcpy(out + at, c > 0 ? s + i : "\xef\xbf\xbd", c > 0 ? c : 3);
		at += c > 0 ? c : 3;
		i += c > 0 ? c : 1;
	}
	out[at] = '\0';
	*length = at;
	return out;
}

/* Reads one JSON string back, also with NULs in it, which cJSON cannot. */
static size_t decode(const char *text, size_t n, char *out, size_t most)
{
	static const char escapes[] = "b\bt\tn\nf\fr\r\"\"\\\\";
	size_t length = 0;

	CHECK(n >= 2 && text[0] == '"' && text[n - 1] == '"');
	for (size_t i = 1; i < n - 1; i++) {
		unsigned char c = (unsigned char)text[i];
		const char *escape;

		CHECK(c >= 0x20 && c != 0x7f && c != '"');
		CHECK(c != 0xc2 || (unsigned char)text[i + 1] >= 0xa0); /* no C1 */
		if (c == '\\' && text[i + 1] == 'u') {
			c = (unsigned char)strtoul((char[]){ text[i + 4], text[i + 5], 0 }, NULL,
						   16);
			CHECK(memcmp(text + i, "\\u00", 4) == 0);
			i += 5;
			if (c >= 0x80) {
				CHECK(c < 0xa0 && length + 1 < most);
				out[length++] = '\xc2';
			}
		} else if (c == '\\') {
			escape = strchr(escapes, text[++i]);
			CHECK(escape && (escape - escapes) % 2 == 0);
			c = (unsigned char)escape[1];
		}
		CHECK(length < most);
		out[length++] = (char)c;
	}
	return length;
}

static void check_string(const char *s, size_t n, size_t most, uint8_t letter)
{
	struct buffer b = { 0 };
	size_t length;
	char *whole = expected(s, n, most, &length);
	char *back = fuzz_copy(whole, length);
	size_t text;

	fuzz_starve(letter);
	buffer_put_json(&b, s, n, most);
	text = b.len;
	buffer_printf(&b, "%zu", length);
	CHECK(fuzz_feed() == b.failed);
	if (!b.failed) {
		CHECK(decode(b.data, text, back, length) == length);
		CHECK(memcmp(back, whole, length) == 0);
		buffer_consume(&b, text);
		CHECK(strtoull(b.data, NULL, 10) == length);
	}
	buffer_deinit(&b);
	free(back);
	free(whole);
}

static void check_member(const cJSON *tree, const char *name, const char *text)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(tree, name);
	size_t length;
	char *whole;

	if (!item)
		return;
	whole = expected(text, strlen(text), SIZE_MAX, &length);
	CHECK(cJSON_IsString(item) && strcmp(item->valuestring, whole) == 0);
	free(whole);
}

/* One line, an object as strict as those we take in, and as short as is promised. */
static cJSON *parse_line(const struct buffer *b, const char *id, enum fate fate)
{
	const char *reason = fate_reason_name(fate);
	char *line = fuzz_copy(b->data, b->len);
	struct scan s;
	cJSON *tree;

	CHECK(b->len < 4096 && strchr(line, '\n') == line + b->len - 1);
	line[b->len - 1] = '\0';
	CHECK(scan_object(&s, line, b->len - 1));
	if (*id) {
		CHECK(s.members[0].value.len == strlen(id));
		CHECK(memcmp(s.members[0].value.text, id, strlen(id)) == 0);
	}
	tree = cJSON_ParseWithOpts(line, NULL, 1);
	free(line);
	CHECK(cJSON_IsObject(tree));
	CHECK((cJSON_GetObjectItemCaseSensitive(tree, "id") != NULL) == (*id != '\0'));
	check_member(tree, "outcome", fate_outcome_name(fate));
	check_member(tree, "reason", reason);
	CHECK((cJSON_GetObjectItemCaseSensitive(tree, "reason") != NULL) == (*reason != '\0'));
	return tree;
}

/* One of our functions, called twice: with memory enough, and with what there is. */
struct job {
	const struct request *request;
	const struct fate_report *report; /* NULL: the refusal is to be told */
	const struct refusal *why;
};

static void print(struct buffer *b, const struct job *j)
{
	if (j->report)
		reply_fate(b, j->request, j->report);
	else
		reply_refusal(b, j->why, 12);
}

static cJSON *check_line(const struct job *j, const char *id, enum fate fate, uint8_t letter)
{
	struct buffer whole = { 0 };
	struct buffer b = { 0 };
	cJSON *tree;

	print(&whole, j);
	fuzz_starve(letter);
	print(&b, j);
	CHECK(fuzz_feed() == b.failed);
	CHECK(b.failed ? b.len < whole.len : b.len == whole.len);
	CHECK(b.len == 0 || memcmp(b.data, whole.data, b.len) == 0);
	tree = parse_line(&whole, id, fate);
	buffer_deinit(&whole);
	buffer_deinit(&b);
	return tree;
}

static void check_fate(enum fate fate, const struct verdict *v, const char *id, uint8_t letter)
{
	size_t n = strlen(id);
	struct request *r = calloc(1, sizeof(*r) + n + 5);
	struct fate_report report = { fate, NULL, UINT64_MAX, n * NSEC_PER_MSEC };
	struct job job = { .request = r, .report = &report };
	const cJSON *code;
	cJSON *tree;

	CHECK(r);
	r->id_len = (uint16_t)n;
	memcpy(r->data + 4, id, n + 1);
	if (fate == FATE_SENT || fate == FATE_API || fate == FATE_HTTP || fate == FATE_HALTED)
		report.verdict = v;
	tree = check_line(&job, id, fate, letter);
	check_member(tree, "Message", v->message);
	check_member(tree, "MessageId", v->message_id);
	check_member(tree, "RequestId", v->request_id);
	code = cJSON_GetObjectItemCaseSensitive(tree, "Code");
	CHECK(!code || code->valuedouble == (double)v->code);
	CHECK(cJSON_HasObjectItem(tree, "Message") == (fate == FATE_API && *v->message));
	CHECK(cJSON_HasObjectItem(tree, "MessageId") == (fate == FATE_SENT && *v->message_id));
	cJSON_Delete(tree);
	free(r);
}

static void check_refusal(enum fate fate, const struct verdict *v, const char *id, uint8_t letter)
{
	struct refusal why = {
		.fate = fate,
		.id = *id ? id : NULL,
		.id_len = strlen(id),
	};
	struct job job = { .why = &why };
	cJSON *tree;

	snprintf(why.error, sizeof(why.error), "%s", v->message);
	tree = check_line(&job, id, fate, letter);
	check_member(tree, "error", why.error);
	CHECK(cJSON_HasObjectItem(tree, "error") == (*why.error != '\0'));
	cJSON_Delete(tree);
}

/* The next text, and where the one after it begins. */
static const char *take(const char *at, const char *end, char *out, size_t size)
{
	size_t n = strnlen(at, (size_t)(end - at));
	size_t cut = n < size ? n : size - 1;

	memcpy(out, at, cut);
	out[cut] = '\0';
	return at + n < end ? at + n + 1 : end;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct verdict v = { .has_code = true };
	enum fate fate;
	const char *id;
	const char *at;
	char *texts;
	size_t n;

	if (size < HEADER)
		return 0;
	n = size - HEADER;
	texts = fuzz_copy(data + HEADER, n);
	fate = (enum fate)((uint8_t)(data[1] - 'A') % _FATE_N);
	id = ids[(uint8_t)(data[2] - '0') % ARRAY_SIZE(ids)];
	v.code = codes[(uint8_t)(data[3] - '0') % ARRAY_SIZE(codes)];
	v.status = data[3] * 5u;
	at = take(texts, texts + n, v.message, sizeof(v.message));
	at = take(at, texts + n, v.message_id, sizeof(v.message_id));
	(void)take(at, texts + n, v.request_id, sizeof(v.request_id));

	check_string(texts, n, data[3] % 2 ? SIZE_MAX : data[3], data[0]);
	check_fate(fate, &v, id, data[0]);
	check_refusal(fate, &v, id, data[0]);
	free(texts);
	return 0;
}
