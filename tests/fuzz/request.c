/* SPDX-License-Identifier: MIT */
/* A line from a writer. What is taken in must mean to cJSON what it means to us, and what is
 * refused must be told in a sentence that can be shown.
 *
 * Input: what fails, one of the configurations, the line. */
#include "core/request.h"

#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "core/reply.h"
#include "core/scan.h"
#include "fuzz.h"

#define HEADER 2

DEFINE_CLEANUP(cJSON *, cJSON_Delete)

static uint32_t somebody[] = { 1000 };
static uint32_t app_ids[] = { 5, 7, 9 };
static struct app_config apps[] = {
	{ .app_id = 5, .max_content = 1024 },
	{ .app_id = 7, .max_content = 40 },
	{ .app_id = 9, .max_content = 16384, .users = { somebody, 1 } },
};
static const struct config configs[] = {
	{ .apps = apps, .app_ids = app_ids, .n_apps = 1 },
	{ .apps = apps, .app_ids = app_ids, .n_apps = 3 },
	{ .apps = &apps[2], .app_ids = &app_ids[2], .n_apps = 1 },
	{ .apps = NULL, .n_apps = 0 },
};
static const struct peer peer = { .uid = 2000, .gid = 2000 };

/* The whole of a text as cJSON reads it, or NULL. */
static cJSON *parse(const char *text, size_t n)
{
	_cleanup_(cJSON_Deletep) cJSON *tree = NULL;
	char *copy = fuzz_copy(text, n);
	cJSON *result;

	tree = cJSON_ParseWithLengthOpts(copy, n + 1, NULL, 1);
	free(copy);
	result = tree;
	tree = NULL;
	return result;
}

/* How many members of the tree this one is, having compared it: 0 or 1. */
static int check_text(const cJSON *tree, const char *name, const char *text, size_t n)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(tree, name);

	CHECK(strlen(text) == n);
	if (!item) {
		CHECK(n == 0);
		return 0;
	}
	CHECK(n > 0 && fuzz_is_utf8(text, n));
	CHECK(cJSON_IsString(item) && strcmp(item->valuestring, text) == 0);
	return 1;
}

static int check_number(const cJSON *tree, const char *name, double value, double absent)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(tree, name);

	if (!item) {
		CHECK(value == absent);
		return 0;
	}
	CHECK(cJSON_IsNumber(item) && item->valuedouble == value);
	return 1;
}

/* Plain digits, and few enough for every JSON library. */
static bool is_integer(const char *text, size_t n)
{
	bool negative = *text == '-';

	text += negative;
	n -= negative;
	if (n == 0 || n > 16 || (*text == '0' && (n > 1 || negative)))
		return false;
	for (size_t i = 0; i < n; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
	}
	return n < 16 || memcmp(text, "9007199254740991", n) <= 0;
}

/* The id as it was written, which is repeated in replies. */
static int check_id(const cJSON *tree, const char *id, size_t n)
{
	_cleanup_(cJSON_Deletep) cJSON *written = n > 0 ? parse(id, n) : NULL;
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(tree, "id");

	CHECK(strlen(id) == n);
	CHECK((item != NULL) == (written != NULL));
	if (!item)
		return 0;
	CHECK(cJSON_IsString(item) || is_integer(id, n));
	CHECK(cJSON_Compare(item, written, 1));
	return 1;
}

/* Where cJSON is lenient: no control characters, no escapes but JSON's, and between the
 * strings nothing but what an object of strings and integers is made of. */
static void check_strictness(const char *line, size_t n)
{
	bool inside = false;

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)line[i];

		if (c == '"')
			inside = !inside;
		else if (!inside)
			CHECK(memchr("{}:,- \t\r0123456789", c, 18));
		else if (c == '\\')
			CHECK(memchr("\"\\/bfnrtu", line[++i], 9) &&
			      strncmp(line + i, "u0000", 5) != 0);
		else
			CHECK(c >= ' ');
	}
	CHECK(!inside);
}

static void check_request(const struct request *r, const char *line, size_t n)
{
	_cleanup_(cJSON_Deletep) cJSON *tree = parse(line, n);
	int members = 0;

	CHECK(fuzz_is_utf8(line, n));
	check_strictness(line, n);
	CHECK(cJSON_IsObject(tree));
	members += check_text(tree, "RoomId", request_room_id(r), r->room_id_len);
	members += check_text(tree, "UserId", request_user_id(r), r->user_id_len);
	members += check_text(tree, "UserName", request_user_name(r), r->user_name_len);
	members += check_text(tree, "MessageContent", request_content(r), r->content_len);
	members += check_id(tree, request_id(r), r->id_len);
	members += check_number(tree, "AppId", r->app->app_id, r->app->app_id);
	members += check_number(tree, "MessageCategory", r->class + 1, 2);
	members += check_number(tree, "ttl_ms", r->ttl_ms, 0);
	CHECK(members == cJSON_GetArraySize(tree));

	CHECK(r->room_id_len <= 127 && r->user_id_len <= 63 && r->ttl_ms <= 60000);
	CHECK(r->content_len > 0 && r->content_len <= r->app->max_content);
	CHECK(config_admits(r->app, &peer));
}

static void check_refusal(const struct refusal *why, const char *line, size_t n)
{
	_cleanup_(buffer_deinit) struct buffer reply = { 0 };
	struct scan s;

	CHECK(why->fate == FATE_INVALID || why->fate == FATE_UNKNOWN_APP ||
	      why->fate == FATE_MEMORY);
	CHECK(memchr(why->error, '\0', sizeof(why->error)) && *why->error);
	CHECK(fuzz_is_utf8(why->error, strlen(why->error)));
	for (const char *c = why->error; *c; c++)
		CHECK((unsigned char)*c >= ' ');
	if (why->id) {
		_cleanup_(cJSON_Deletep) cJSON *id = parse(why->id, why->id_len);

		CHECK(why->id >= line && why->id_len <= n);
		CHECK(why->id + why->id_len <= line + n);
		CHECK(cJSON_IsNumber(id) ||
		      (cJSON_IsString(id) && *id->valuestring && strlen(id->valuestring) <= 64));
	}

	/* docs/PROTOCOL.md: shorter than 4096 bytes, and as strict JSON as we want it. */
	reply_refusal(&reply, why, 1);
	CHECK(reply.len < 4096 && reply.data[reply.len - 1] == '\n');
	reply.data[reply.len - 1] = '\0';
	CHECK(scan_object(&s, reply.data, reply.len - 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(request_freep) struct request *r = NULL;
	struct refusal why;
	char *line;
	size_t n;
	bool failed;
	int e;

	if (size <= HEADER)
		return 0;
	n = size - HEADER;
	line = fuzz_copy(data + HEADER, n);
	fuzz_starve(data[0]);
	e = request_parse(&r, &configs[(uint8_t)(data[1] - '0') % ARRAY_SIZE(configs)], &peer, line,
			  n, &why);
	failed = fuzz_feed();
	CHECK(e == 0 || e == REQUEST_E_REFUSED);
	CHECK((e == 0) == (r != NULL));
	CHECK(!failed || e == REQUEST_E_REFUSED);
	CHECK(failed || !r == (why.fate != FATE_MEMORY && *why.error));
	if (r)
		check_request(r, line, n);
	else
		check_refusal(&why, line, n);
	free(line);
	return 0;
}
