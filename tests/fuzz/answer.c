/* SPDX-License-Identifier: MIT */
/* Whatever a server, or what stands in its place, answers: only an integer Code of 0 that is
 * there once is a success, and only what says so or was never written is tried again.
 *
 * Input: what fails, how the attempt ended, whether it was written, the status in three
 * digits, whether a Retry-After came with it, the body. */
#include "core/answer.h"

#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "fuzz.h"

#define HEADER 7

static unsigned digit(uint8_t letter)
{
	return (uint8_t)(letter - '0') % 10u;
}

/* The only member of this name, as cJSON sees it; it takes the first of several. */
static cJSON *only(const cJSON *tree, const char *name)
{
	cJSON *first = cJSON_GetObjectItemCaseSensitive(tree, name);

	for (cJSON *item = first ? first->next : NULL; item; item = item->next) {
		if (strcmp(item->string, name) == 0)
			return NULL;
	}
	return first;
}

/* A string's value, or as much of its beginning as fits. */
static void check_text(const char *text, size_t size, const cJSON *item, bool is_utf8)
{
	size_t n = strnlen(text, size);
	size_t whole = cJSON_IsString(item) ? strlen(item->valuestring) : 0;

	CHECK(n < size && n <= whole);
	if (whole == 0)
		return;
	CHECK(memcmp(text, item->valuestring, n) == 0);
	CHECK(n == whole || n + 4 >= size);
	CHECK(!is_utf8 || fuzz_is_utf8(text, n));
}

static void check_message_id(const struct verdict *v, const cJSON *item, bool is_utf8)
{
	char *end;

	if (!cJSON_IsNumber(item)) {
		check_text(v->message_id, sizeof(v->message_id), item, is_utf8);
		return;
	}
	if (*v->message_id) {
		CHECK((double)strtoll(v->message_id, &end, 10) == item->valuedouble);
		CHECK(*end == '\0');
	}
}

/* What must be so where the body decided. */
static void check_code(const struct verdict *v, const cJSON *tree, bool is_utf8)
{
	CHECK((double)v->code == cJSON_GetNumberValue(only(tree, "Code")));
	CHECK(v->class == answer_class(v->code));
	CHECK(v->fate == (v->code == 0 ? FATE_SENT : FATE_API));
	CHECK((v->class == VERDICT_OK) == (v->code == 0));
	check_text(v->message, sizeof(v->message), only(tree, "Message"), is_utf8);
	check_text(v->request_id, sizeof(v->request_id), only(tree, "RequestId"), is_utf8);
	check_message_id(v, only(only(tree, "Data"), "MessageId"), is_utf8);
}

/* … and where it did not. */
static void check_ending(const struct verdict *v, const struct answer *a)
{
	bool again = v->class == VERDICT_RETRY || v->class == VERDICT_UNREACHED ||
		     v->class == VERDICT_SLOW_APP;

	CHECK(v->class != VERDICT_OK && v->fate != FATE_SENT && v->code == 0);
	CHECK(v->class < _VERDICT_N && v->fate < _FATE_N);
	CHECK(!*v->message && !*v->message_id && !*v->request_id);
	CHECK(v->class != VERDICT_SIGN_AGAIN && v->class != VERDICT_HALT);
	CHECK(v->class != VERDICT_SLOW_APP || v->status == 429);
	CHECK(v->class != VERDICT_RETRY || (v->status == 503 && a->retry_after > 0));
	CHECK(v->class != VERDICT_UNREACHED || !a->written);
	CHECK(!again || v->status == 429 || v->status == 503 || !a->written);
}

/* Where memory runs out the body might as well not have come. */
static void check_starved(const struct verdict *v, struct answer a)
{
	struct verdict without;

	a.body = "";
	a.body_len = 0;
	answer_judge(&a, &without);
	CHECK(!v->has_code && v->class == without.class && v->fate == without.fate);
}

/* Whether the body has one Code, an integer that a double holds exactly. */
static bool is_coded(const cJSON *tree)
{
	const double limit = (double)(INT64_C(1) << 53);
	double value = cJSON_IsObject(tree) ? cJSON_GetNumberValue(only(tree, "Code")) : limit;

	return value > -limit && value < limit && value == (double)(int64_t)value; /* no NaN */
}

static void check_verdict(const struct verdict *v, const struct answer *a)
{
	bool is_whole = !memchr(a->body, '\0', a->body_len);
	cJSON *tree =
		is_whole ? cJSON_ParseWithLengthOpts(a->body, a->body_len + 1, NULL, 1) : NULL;

	CHECK(v->has_code == (a->result == TRANSPORT_ANSWERED && is_coded(tree)));
	if (v->has_code)
		check_code(v, tree, fuzz_is_utf8(a->body, a->body_len));
	cJSON_Delete(tree);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct verdict v;
	struct answer a;
	char *body;

	if (size < HEADER)
		return 0;
	body = fuzz_copy(data + HEADER, size - HEADER);
	a = (struct answer){
		.result = digit(data[1]) % _TRANSPORT_N,
		.written = digit(data[2]) % 2,
		.status = digit(data[3]) * 100 + digit(data[4]) * 10 + digit(data[5]),
		.retry_after = digit(data[6]) % 2 * NSEC_PER_SEC,
		.body = body,
		.body_len = size - HEADER,
	};
	memset(&v, 0xa5, sizeof(v));
	fuzz_starve(data[0]);
	answer_judge(&a, &v);
	if (fuzz_feed())
		check_starved(&v, a);
	else
		check_verdict(&v, &a);
	CHECK(v.status == (a.result == TRANSPORT_ANSWERED ? a.status : 0));
	if (!v.has_code)
		check_ending(&v, &a);
	free(body);
	return 0;
}
