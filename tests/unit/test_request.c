/* SPDX-License-Identifier: MIT */
#include "core/request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#include "core/text.h"
#include "random.h"

#define ROOM    "\"RoomId\":\"r\""
#define USER    "\"UserId\":\"u\""
#define CONTENT "\"MessageContent\":\"c\""
#define LEAST   ROOM "," USER "," CONTENT

static uint32_t somebody[] = { 1000 };

static uint32_t app_ids[] = { 5, 7, 9 };
static struct app_config apps[] = {
	{ .app_id = 5, .max_content = 1024 },
	{ .app_id = 7, .max_content = 2000 },
	{ .app_id = 9, .max_content = 1024, .users = { somebody, 1 } },
};
static const struct config one_app = { .apps = apps, .app_ids = app_ids, .n_apps = 1 };
static const struct config three_apps = { .apps = apps, .app_ids = app_ids, .n_apps = 3 };
static const struct config private_app = { .apps = &apps[2], .app_ids = &app_ids[2], .n_apps = 1 };
static const struct peer peer = { .uid = 2000, .gid = 2000 };
static const struct peer admitted = { .uid = 1000, .gid = 2000 };

/* Parses a copy of just the right size, so that a sanitizer sees any step outside. A
 * reason's id is compared before the copy goes. */
static struct request *parse(const struct config *c, const struct peer *p, const char *text,
			     size_t n, struct refusal *why, const char *id)
{
	struct request *r = NULL;
	char *line = malloc(n + 1);

	assert_non_null(line);
	memcpy(line, text, n);
	line[n] = '\0';
	if (request_parse(&r, c, p, line, n, why) != 0) {
		assert_null(r);
		assert_int_equal(why->id != NULL, id != NULL);
		if (id) {
			assert_int_equal(why->id_len, strlen(id));
			assert_memory_equal(why->id, id, why->id_len);
		}
	}
	free(line);
	return r;
}

static struct request *accept_for(const struct config *c, const struct peer *p, const char *line)
{
	struct refusal why;
	struct request *r = parse(c, p, line, strlen(line), &why, NULL);

	if (!r)
		fail_msg("%s: %s", line, why.error);
	return r;
}

static struct request *accept(const char *line)
{
	return accept_for(&one_app, &peer, line);
}

static void refuse_bytes(const struct config *c, const char *line, size_t n, const char *id,
			 const char *error)
{
	struct refusal why;
	struct request *r = parse(c, &peer, line, n, &why, id);

	if (r)
		fail_msg("accepted: %s", line);
	assert_int_equal(why.fate, FATE_INVALID);
	assert_string_equal(why.error, error);
}

static void refuse(const char *line, const char *id, const char *error)
{
	refuse_bytes(&one_app, line, strlen(line), id, error);
}

static void test_a_line_becomes_a_request_with_all_that_it_said(void **state)
{
	struct request *r = accept("{\"RoomId\":\"房间\",\"UserId\":\"u1\",\"UserName\":\"小李\","
				   "\"MessageContent\":\"你好 😀\",\"MessageCategory\":1,"
				   "\"AppId\":5,\"id\":\"a1\",\"ttl_ms\":250}");

	assert_string_equal(request_room_id(r), "房间");
	assert_string_equal(request_user_id(r), "u1");
	assert_string_equal(request_user_name(r), "小李");
	assert_string_equal(request_content(r), "你好 😀");
	assert_string_equal(request_id(r), "\"a1\"");
	assert_int_equal(r->room_id_len, 6);
	assert_int_equal(r->user_id_len, 2);
	assert_int_equal(r->user_name_len, 6);
	assert_int_equal(r->content_len, 11);
	assert_int_equal(r->id_len, 4);
	assert_int_equal(r->class, CLASS_SYSTEM);
	assert_int_equal(r->ttl_ms, 250);
	assert_int_equal(r->state, REQUEST_NEW);
	assert_int_equal(r->attempts, 0);
	assert_ptr_equal(r->app, &apps[0]);
	assert_null(r->writer);
	assert_false(list_is_linked(&r->link));
	assert_false(list_is_linked(&r->tick));
	assert_int_equal(request_size(r), sizeof(*r) + 6 + 2 + 6 + 11 + 4 + 5);
	request_free(r);
}

static void test_what_is_optional_may_be_left_out(void **state)
{
	struct request *r = accept(" \t{" LEAST "}\r ");

	assert_string_equal(request_user_name(r), "");
	assert_string_equal(request_id(r), "");
	assert_int_equal(r->user_name_len, 0);
	assert_int_equal(r->id_len, 0);
	assert_int_equal(r->class, CLASS_CHAT);
	assert_int_equal(r->ttl_ms, 0);
	assert_ptr_equal(r->app, &apps[0]);
	request_free(r);
	request_free(NULL);
}

static void test_escapes_mean_what_they_mean_in_json(void **state)
{
	struct request *r = accept("{\"Room\\u0049d\":\"\\u623f\\u95f4\",\"UserId\":\"u\\/1\","
				   "\"UserName\":\"\\\"\\\\\",\"MessageContent\":"
				   "\"a\\n\\u0001\\t\\ud83d\\ude00\",\"id\":1}");

	assert_string_equal(request_room_id(r), "房间");
	assert_string_equal(request_user_id(r), "u/1");
	assert_string_equal(request_user_name(r), "\"\\");
	assert_string_equal(request_content(r), "a\n\x01\t😀");
	assert_int_equal(r->room_id_len, 6);
	assert_int_equal(r->content_len, 8);
	request_free(r);
}

static void test_text_from_right_to_left_and_of_no_width_passes_unchanged(void **state)
{
	struct request *r =
		accept("{" ROOM "," USER ",\"MessageContent\":\"שלום\u202e\u200b\u200d\"}");

	assert_string_equal(request_content(r), "שלום\u202e\u200b\u200d");
	request_free(r);
}

static void test_an_id_is_kept_byte_for_byte(void **state)
{
	static const char *const ids[] = {
		"\"a1\"",
		"7",
		"0",
		"-7",
		"9007199254740991",
		"-9007199254740991",
		"\"\\u0061\\/\\\"\"",
		"\"中文\"",
		"\"1234567890123456789012345678901234567890123456789012345678901234\"",
		"\"\\u4e2d\\ud83d\\ude00\\u4e2d\\ud83d\\ude00\\u4e2d\\ud83d\\ude00\\u4e2d\"",
	};

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		char line[512];
		struct request *r;

		snprintf(line, sizeof(line), "{\"id\" : %s ,%s}", ids[i], LEAST);
		r = accept(line);
		assert_string_equal(request_id(r), ids[i]);
		assert_int_equal(r->id_len, strlen(ids[i]));
		request_free(r);
	}
}

static void test_a_fault_in_a_field_is_told_by_its_name(void **state)
{
	static const struct {
		const char *line;
		const char *error;
	} cases[] = {
		{ "{}", "RoomId is missing" },
		{ "{" USER "," CONTENT "}", "RoomId is missing" },
		{ "{" ROOM "," CONTENT "}", "UserId is missing" },
		{ "{" ROOM "," USER "}", "MessageContent is missing" },
		{ "{\"RoomId\":1}", "RoomId must be a string" },
		{ "{\"RoomId\":null}", "RoomId must be a string" },
		{ "{\"UserName\":true}", "UserName must be a string" },
		{ "{\"MessageContent\":false}", "MessageContent must be a string" },
		{ "{\"AppId\":\"5\"}", "AppId must be an integer" },
		{ "{\"AppId\":null}", "AppId must be an integer" },
		{ "{\"MessageCategory\":\"2\"}", "MessageCategory must be an integer" },
		{ "{\"ttl_ms\":true}", "ttl_ms must be an integer" },
		{ "{\"id\":null}", "id must be a string or an integer" },
		{ "{\"id\":true}", "id must be a string or an integer" },
		{ "{\"RoomId\":\"\"}", "RoomId is empty" },
		{ "{\"UserName\":\"\"}", "UserName is empty" },
		{ "{\"MessageContent\":\"\"}", "MessageContent is empty" },
		{ "{\"id\":\"\"}", "id is empty" },
		{ "{" ROOM "," ROOM "}", "RoomId is given twice" },
		{ "{\"AppId\":1,\"AppId\":2}", "AppId is given twice" },
		{ "{\"Room\\u0049d\":\"r\"," ROOM "}", "RoomId is given twice" },
		{ "{\"RoomID\":\"r\"}", "unknown field \"RoomID\"; did you mean RoomId?" },
		{ "{\"appid\":5}", "unknown field \"appid\"; did you mean AppId?" },
		{ "{\"Id\":5}", "unknown field \"Id\"; did you mean id?" },
		{ "{\"colour\":5}", "unknown field \"colour\"" },
		{ "{\"\":5}", "unknown field \"\"" },
		{ "{\"Action\":\"x\"}", "unknown field \"Action\"" },
		{ "{\"a\\n\\\"b\":5}", "unknown field \"a\\n\\\"b\"" },
		{ "{\"1234567890123456789012345678901234567890\":5}",
		  "unknown field \"1234567890123456789012345678901234567890\"" },
		{ "{\"12345678901234567890123456789012345678901\":5}",
		  "unknown field \"1234567890123456789012345678901234567890…\"" },
		{ "{\"123456789012345678901234567890123456789中\":5}",
		  "unknown field \"123456789012345678901234567890123456789…\"" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		refuse(cases[i].line, NULL, cases[i].error);
}

static void test_integers_are_plain_digits_in_range(void **state)
{
	static const struct {
		const char *field;
		const char *value;
		const char *range; /* NULL: accepted */
	} cases[] = {
		{ "AppId", "5", NULL },
		{ "AppId", "0", "from 1 to 4294967295" },
		{ "AppId", "4294967296", "from 1 to 4294967295" },
		{ "AppId", "-5", "from 1 to 4294967295" },
		{ "AppId", "-0", "from 1 to 4294967295" },
		{ "AppId", "5.0", "from 1 to 4294967295" },
		{ "AppId", "5e0", "from 1 to 4294967295" },
		{ "AppId", "1e999", "from 1 to 4294967295" },
		{ "AppId", "9007199254740993", "from 1 to 4294967295" },
		{ "AppId", "18446744073709551621", "from 1 to 4294967295" },
		{ "MessageCategory", "1", NULL },
		{ "MessageCategory", "2", NULL },
		{ "MessageCategory", "0", "from 1 to 2" },
		{ "MessageCategory", "3", "from 1 to 2" },
		{ "MessageCategory", "1.5", "from 1 to 2" },
		{ "ttl_ms", "1", NULL },
		{ "ttl_ms", "60000", NULL },
		{ "ttl_ms", "0", "from 1 to 60000" },
		{ "ttl_ms", "60001", "from 1 to 60000" },
		{ "id", "9007199254740992", "within ±9007199254740991" },
		{ "id", "-9007199254740992", "within ±9007199254740991" },
		{ "id", "-0", "within ±9007199254740991" },
		{ "id", "1.0", "within ±9007199254740991" },
		{ "id", "1e3", "within ±9007199254740991" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char line[256];
		char error[256];

		snprintf(line, sizeof(line), "{\"%s\":%s,%s}", cases[i].field, cases[i].value,
			 LEAST);
		snprintf(error, sizeof(error),
			 "%s is %s; a whole number in plain digits %s is allowed", cases[i].field,
			 cases[i].value, cases[i].range ? cases[i].range : "");
		if (cases[i].range)
			refuse(line, NULL, error);
		else
			request_free(accept(line));
	}
}

/* A line in which @field is @n times @unit, all else being right. */
static const char *line_with(const char *field, const char *unit, size_t n)
{
	static char line[1 << 18];
	static const char *const all[] = { "RoomId", "UserId", "MessageContent" };
	char *at = line;

	at += sprintf(at, "{\"%s\":\"", field);
	for (size_t i = 0; i < n; i++)
		at += sprintf(at, "%s", unit);
	at += sprintf(at, "\"");
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		if (strcmp(all[i], field) != 0)
			at += sprintf(at, ",\"%s\":\"x\"", all[i]);
	}
	strcpy(at, "}");
	return line;
}

static void test_lengths_are_bytes_of_decoded_utf8(void **state)
{
	static const struct {
		const char *field;
		const char *unit;
		size_t n;
		const char *error; /* NULL: accepted */
	} cases[] = {
		{ "RoomId", "r", 127, NULL },
		{ "RoomId", "r", 128, "RoomId is 128 bytes; at most 127 are allowed" },
		{ "RoomId", "中", 42, NULL },
		{ "RoomId", "中", 43, "RoomId is 129 bytes; at most 127 are allowed" },
		{ "UserId", "u", 63, NULL },
		{ "UserId", "u", 64, "UserId is 64 bytes; at most 63 are allowed" },
		{ "UserName", "n", 255, NULL },
		{ "UserName", "n", 256, "UserName is 256 bytes; at most 255 are allowed" },
		{ "MessageContent", "c", 1024, NULL },
		{ "MessageContent", "c", 1030,
		  "MessageContent is 1030 bytes; at most 1024 are allowed" },
		{ "MessageContent", "\\u4e2d", 341, NULL },
		{ "MessageContent", "\\u4e2d", 342,
		  "MessageContent is 1026 bytes; at most 1024 are allowed" },
		{ "MessageContent", "\\ud83d\\ude00", 256, NULL },
		{ "MessageContent", "\\ud83d\\ude00", 257,
		  "MessageContent is 1028 bytes; at most 1024 are allowed" },
		{ "MessageContent", "\\n", 1025,
		  "MessageContent is 1025 bytes; at most 1024 are allowed" },
		{ "MessageContent", "c", 70000,
		  "MessageContent is 70000 bytes; at most 1024 are allowed" },
		{ "id", "i", 64, NULL },
		{ "id", "i", 65, "id is 65 bytes; at most 64 are allowed" },
		{ "id", "\\u4e2d", 21, NULL },
		{ "id", "\\u4e2d", 22, "id is 66 bytes; at most 64 are allowed" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *line = line_with(cases[i].field, cases[i].unit, cases[i].n);

		if (cases[i].error)
			refuse(line, NULL, cases[i].error);
		else
			request_free(accept(line));
	}
}

static void test_max_content_is_the_appids_own(void **state)
{
	char line[4096];
	struct request *r;

	snprintf(line, sizeof(line),
		 "{\"AppId\":7,\"RoomId\":\"r\",\"UserId\":\"u\","
		 "\"MessageContent\":\"%02000d\"}",
		 0);
	r = accept_for(&three_apps, &peer, line);
	assert_int_equal(r->content_len, 2000);
	request_free(r);

	snprintf(line, sizeof(line),
		 "{\"AppId\":7,\"RoomId\":\"r\",\"UserId\":\"u\","
		 "\"MessageContent\":\"%02001d\"}",
		 0);
	refuse_bytes(&three_apps, line, strlen(line), NULL,
		     "MessageContent is 2001 bytes; at most 2000 are allowed");
}

/* The same by the short way, for what is everybody's. */
static void test_what_is_open_is_open_as_far_as_it_says(void **state)
{
	static uint16_t app_open[] = { 3, 0, 0 };
	const struct config c = {
		.apps = apps, .app_ids = app_ids, .app_open = app_open, .n_apps = 3
	};
	static const char long_one[] = "{\"AppId\":5,\"RoomId\":\"r\",\"UserId\":\"u\","
				       "\"MessageContent\":\"1234\"}";
	static const char other[] = "{\"AppId\":9,\"RoomId\":\"r\",\"UserId\":\"u\","
				    "\"MessageContent\":\"1234\"}";
	struct refusal why;
	struct request *r;

	refuse_bytes(&c, long_one, strlen(long_one), NULL,
		     "MessageContent is 4 bytes; at most 3 are allowed");
	assert_null(parse(&c, &peer, other, strlen(other), &why, NULL));
	assert_int_equal(why.fate, FATE_UNKNOWN_APP);
	r = accept_for(&c, &admitted, other);
	assert_int_equal(r->content_len, 4);
	request_free(r);
}

#define LINE(text) text, sizeof(text) - 1

static void test_what_is_not_a_flat_object_of_clean_text_is_refused(void **state)
{
	static const struct {
		const char *line;
		size_t n;
		const char *error;
	} cases[] = {
		/* not JSON, not an object, more than one value */
		{ LINE("hello"), "not a JSON object at byte offset 0" },
		{ LINE("   "), "not a JSON object at byte offset 3" },
		{ LINE("[{" LEAST "}]"), "not a JSON object at byte offset 0" },
		{ LINE("{" ROOM ",}"), "not JSON at byte offset 14" },
		{ LINE("{" ROOM), "unfinished JSON at byte offset 13" },
		{ LINE("{} {}"), "bytes after the object at byte offset 3" },
		{ LINE("{}garbage"), "bytes after the object at byte offset 2" },
		/* UTF-8 */
		{ LINE("{\"RoomId\":\"\xff\"}"), "invalid UTF-8 at byte offset 11" },
		{ LINE("{\"RoomId\":\"\xc0\xaf\"}"), "invalid UTF-8 at byte offset 11" },
		{ LINE("{\"RoomId\":\"\xed\xa0\xbd\"}"), "invalid UTF-8 at byte offset 11" },
		{ LINE("{\"RoomId\":\"\xe4\xb8"), "invalid UTF-8 at byte offset 11" },
		/* NUL */
		{ LINE("{\"RoomId\":\"a\0b\"}"), "NUL at byte offset 12" },
		{ LINE("{\"RoomId\":\"a\\u0000b\"}"), "NUL at byte offset 12" },
		{ LINE("{\"Room\\u0000Id\":\"a\"}"), "NUL at byte offset 6" },
		/* control characters */
		{ LINE("{\"RoomId\":\"a\tb\"}"), "control character at byte offset 12" },
		{ LINE("{\"RoomId\":\"a\rb\"}"), "control character at byte offset 12" },
		{ LINE("{\f\"RoomId\":\"ab\"}"), "control character at byte offset 1" },
		/* surrogates */
		{ LINE("{\"RoomId\":\"\\ud800\"}"), "lone surrogate at byte offset 11" },
		{ LINE("{\"RoomId\":\"\\ude00\\ud83d\"}"), "lone surrogate at byte offset 11" },
		{ LINE("{\"RoomId\":\"\\u12x4\"}"),
		  "\\u without four hex digits at byte offset 11" },
		/* numbers */
		{ LINE("{\"AppId\":05}"), "not JSON at byte offset 10" },
		{ LINE("{\"AppId\":5.}"), "not JSON at byte offset 11" },
		/* nesting */
		{ LINE("{\"RoomId\":[\"r\"]}"), "nested array or object at byte offset 10" },
		{ LINE("{\"RoomId\":{}}"), "nested array or object at byte offset 10" },
		{ LINE("{\"x\":[[[["), "nested array or object at byte offset 5" },
		/* byte order mark */
		{ LINE("\xef\xbb\xbf{" LEAST "}"), "byte order mark at byte offset 0" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		refuse_bytes(&one_app, cases[i].line, cases[i].n, NULL, cases[i].error);
}

static void test_a_deep_or_wide_line_is_refused_where_it_begins_to_be_one(void **state)
{
	static char line[1 << 17];
	char *at;

	memset(line, '[', sizeof(line) - 1);
	memcpy(line, "{\"a\":", 5);
	refuse(line, NULL, "nested array or object at byte offset 5");

	at = line + sprintf(line, "{\"a\":[0");
	while (at < line + (1 << 16))
		at += sprintf(at, ",0");
	strcpy(at, "]}");
	refuse(line, NULL, "nested array or object at byte offset 5");

	at = line + sprintf(line, "{\"a\":0");
	while (at < line + (1 << 16))
		at += sprintf(at, ",\"a\":0");
	strcpy(at, "}");
	refuse(line, NULL, "more than 32 fields at byte offset 193");
}

static void test_a_refusal_has_the_id_wherever_it_stands(void **state)
{
	static const struct {
		const char *line;
		const char *id;
		const char *error;
	} cases[] = {
		{ "{\"id\":\"a1\",\"RoomId\":1}", "\"a1\"", "RoomId must be a string" },
		{ "{\"RoomId\":1,\"id\":\"a1\"}", "\"a1\"", "RoomId must be a string" },
		{ "{\"bad\":1,\"id\":-7}", "-7", "unknown field \"bad\"" },
		{ "{\"id\":8}", "8", "RoomId is missing" },
		{ "{\"AppId\":0,\"\\u0069d\":8}", "8",
		  "AppId is 0; a whole number in plain digits from 1 to 4294967295 is allowed" },
		{ "{\"id\":1,\"id\":2}", "1", "id is given twice" },
		{ "{\"id\":\"\\u0061\",\"RoomId\":\"\"}", "\"\\u0061\"", "RoomId is empty" },
		{ "{\"RoomId\":[1,{\"id\":3}],\"id\":8}", "8",
		  "nested array or object at byte offset 10" },
		{ "{\"id\":8} x", "8", "bytes after the object at byte offset 9" },
		{ "{\"id\":8,\"RoomId\":\"\\ud800\"}", "8", "lone surrogate at byte offset 18" },
		{ "{\"RoomId\":\"\\ud800\",\"id\":8}", NULL, "lone surrogate at byte offset 11" },
		{ "{\"id\":8", "8", "unfinished JSON at byte offset 7" },
		{ "{\"id\":[8]}", NULL, "nested array or object at byte offset 6" },
		{ "{\"id\":1.5,\"RoomId\":1}", NULL,
		  "id is 1.5; a whole number in plain digits within ±9007199254740991 is allowed" },
		{ "{\"ID\":1}", NULL, "unknown field \"ID\"; did you mean id?" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		refuse(cases[i].line, cases[i].id, cases[i].error);
}

static void test_an_appid_unknown_or_of_others_is_refused_alike(void **state)
{
	static const struct {
		const struct config *config;
		const char *app_id; /* as a member, with its comma */
		uint32_t asked;
		bool not_admitted;
		const char *error;
	} cases[] = {
		{ &one_app, "\"AppId\":6,", 6, false, "AppId 6 is not configured for this writer" },
		{ &three_apps, "\"AppId\":6,", 6, false,
		  "AppId 6 is not configured for this writer" },
		{ &three_apps, "\"AppId\":9,", 9, true,
		  "AppId 9 is not configured for this writer" },
		{ &private_app, "\"AppId\":9,", 9, true,
		  "AppId 9 is not configured for this writer" },
		{ &private_app, "", 9, true, "no AppId is configured for this writer" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct refusal why;
		char line[256];

		snprintf(line, sizeof(line), "{%s%s,\"id\":3}", cases[i].app_id, LEAST);
		assert_null(parse(cases[i].config, &peer, line, strlen(line), &why, "3"));
		assert_int_equal(why.fate, FATE_UNKNOWN_APP);
		assert_int_equal(why.app_id, cases[i].asked);
		assert_int_equal(why.not_admitted, cases[i].not_admitted);
		assert_string_equal(why.error, cases[i].error);
	}
}

static void test_the_appid_may_be_left_out_where_just_one_is_configured(void **state)
{
	struct request *r = accept_for(&private_app, &admitted, "{" LEAST "}");

	assert_ptr_equal(r->app, &apps[2]);
	request_free(r);
	r = accept_for(&three_apps, &admitted, "{\"AppId\":9," LEAST "}");
	assert_ptr_equal(r->app, &apps[2]);
	request_free(r);
	refuse_bytes(&three_apps, LINE("{" LEAST "}"), NULL,
		     "AppId is missing; it is optional only where just one is configured");
}

static void *no_memory(size_t n)
{
	return NULL;
}

static void test_want_of_memory_is_no_fault_of_the_line(void **state)
{
	static const char *const lines[] = {
		"{\"id\":3,\"Room\\u0049d\":\"r\"}",
		"{\"id\":3," ROOM "," USER ",\"MessageContent\":\"a\\n\"}",
	};
	cJSON_Hooks hooks = { .malloc_fn = no_memory, .free_fn = free };

	cJSON_InitHooks(&hooks);
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct refusal why;

		assert_null(parse(&one_app, &peer, lines[i], strlen(lines[i]), &why, "3"));
		assert_int_equal(why.fate, FATE_MEMORY);
		assert_string_equal(why.error, "out of memory");
	}
	cJSON_InitHooks(NULL);
}

static void check_utf8(const char *text, size_t n)
{
	while (n > 0) {
		size_t length = utf8_length(text, n);

		assert_true(length > 0);
		assert_true((unsigned char)*text >= ' ');
		text += length;
		n -= length;
	}
}

/* Whatever was done to a line: a request that obeys all limits, or one good sentence. */
static void check_result(const char *line, size_t n)
{
	struct refusal why;
	struct request *r = NULL;

	if (request_parse(&r, &three_apps, &peer, line, n, &why) != 0) {
		assert_true(why.fate == FATE_INVALID || why.fate == FATE_UNKNOWN_APP);
		assert_true(strlen(why.error) > 0);
		check_utf8(why.error, strlen(why.error));
		if (why.id)
			assert_true(why.id > line && why.id + why.id_len < line + n);
		return;
	}
	assert_int_equal(strlen(request_room_id(r)), r->room_id_len);
	assert_int_equal(strlen(request_user_id(r)), r->user_id_len);
	assert_int_equal(strlen(request_user_name(r)), r->user_name_len);
	assert_int_equal(strlen(request_content(r)), r->content_len);
	assert_int_equal(strlen(request_id(r)), r->id_len);
	assert_in_range(r->room_id_len, 1, 127);
	assert_in_range(r->user_id_len, 1, 63);
	assert_in_range(r->content_len, 1, r->app->max_content);
	assert_in_range(r->ttl_ms, 0, 60000);
	assert_true(r->app == &apps[0] || r->app == &apps[1]);
	request_free(r);
}

static size_t mutate(char *line, size_t n, size_t size, uint64_t *seed)
{
	static const char *const tokens[] = { "\"", "\\",  "{",       "}",       "[",        "]",
					      ",",  ":",   "\\u0000", "\\ud83d", "\xc0",     "\xf0",
					      "中", "1e9", "null",    "\x01",    "\"id\":1," };
	const char *token = tokens[random_next(seed) % ARRAY_SIZE(tokens)];
	size_t at = random_next(seed) % n;
	size_t len;

	switch (random_next(seed) % 4) {
	case 0: /* a byte changes */
		line[at] = (char)random_next(seed);
		return n;
	case 1: /* some bytes are lost */
		len = 1 + random_next(seed) % 4;
		len = len < n - at ? len : n - at;
		memmove(line + at, line + at + len, n - at - len);
		return n - len;
	case 2: /* something is put in */
		len = strlen(token);
		if (n + len >= size)
			return n;
		memmove(line + at + len, line + at, n - at);
		memcpy(line + at, token, len);
		return n + len;
	default: /* a byte is written twice */
		if (n + 1 >= size)
			return n;
		memmove(line + at + 1, line + at, n - at);
		return n + 1;
	}
}

static void test_no_damage_to_a_line_does_harm(void **state)
{
	static const char *const lines[] = {
		"{\"RoomId\":\"房间\",\"UserId\":\"u1\",\"UserName\":\"小李\",\"MessageContent\":"
		"\"你好 😀\",\"MessageCategory\":1,\"AppId\":5,\"id\":\"a1\",\"ttl_ms\":250}",
		"{\"AppId\":7,\"RoomId\":\"\\u623f\",\"UserId\":\"u\\/\\n\",\"id\":-12,"
		"\"MessageContent\":\"\\ud83d\\ude00\"}",
		"{\"AppId\" : 5 , \"RoomId\" : \"r\" "
		",\t\"UserId\":\"u\",\"MessageContent\":\"c\"}\r",
	};
	uint64_t seed = random_seed();

	for (unsigned round = 0; round < 200000; round++) {
		const char *original = lines[round % ARRAY_SIZE(lines)];
		char work[512];
		size_t n = strlen(original);
		char *line;

		memcpy(work, original, n);
		for (uint64_t i = random_next(&seed) % 4; i > 0 && n > 1; i--)
			n = mutate(work, n, sizeof(work), &seed);
		if (n == 0)
			continue;
		line = malloc(n + 1);
		assert_non_null(line);
		memcpy(line, work, n);
		line[n] = '\0';
		check_result(line, n);
		free(line);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_line_becomes_a_request_with_all_that_it_said),
		cmocka_unit_test(test_what_is_optional_may_be_left_out),
		cmocka_unit_test(test_escapes_mean_what_they_mean_in_json),
		cmocka_unit_test(test_text_from_right_to_left_and_of_no_width_passes_unchanged),
		cmocka_unit_test(test_an_id_is_kept_byte_for_byte),
		cmocka_unit_test(test_a_fault_in_a_field_is_told_by_its_name),
		cmocka_unit_test(test_integers_are_plain_digits_in_range),
		cmocka_unit_test(test_lengths_are_bytes_of_decoded_utf8),
		cmocka_unit_test(test_max_content_is_the_appids_own),
		cmocka_unit_test(test_what_is_open_is_open_as_far_as_it_says),
		cmocka_unit_test(test_what_is_not_a_flat_object_of_clean_text_is_refused),
		cmocka_unit_test(test_a_deep_or_wide_line_is_refused_where_it_begins_to_be_one),
		cmocka_unit_test(test_a_refusal_has_the_id_wherever_it_stands),
		cmocka_unit_test(test_an_appid_unknown_or_of_others_is_refused_alike),
		cmocka_unit_test(test_the_appid_may_be_left_out_where_just_one_is_configured),
		cmocka_unit_test(test_want_of_memory_is_no_fault_of_the_line),
		cmocka_unit_test(test_no_damage_to_a_line_does_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
