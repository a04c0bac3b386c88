/* SPDX-License-Identifier: MIT */
#include "core/reply.h"

#include <cjson/cJSON.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A request with this id and nothing else worth telling. */
static struct request *with_id(const char *id)
{
	struct request *r = calloc(1, sizeof(*r) + strlen(id) + 5);

	assert_non_null(r);
	r->id_len = (uint16_t)strlen(id);
	memcpy(r->data + 4, id, strlen(id));
	assert_string_equal(request_id(r), id);
	return r;
}

/* One line, and JSON at that. */
static void check_line(const struct buffer *b, const char *expected)
{
	cJSON *tree;

	assert_false(b->failed);
	assert_string_equal(b->data, expected);
	assert_ptr_equal(strchr(b->data, '\n'), b->data + b->len - 1);
	tree = cJSON_ParseWithOpts(b->data, NULL, 1);
	assert_true(cJSON_IsObject(tree));
	cJSON_Delete(tree);
}

static const struct verdict sent = {
	.class = VERDICT_OK,
	.fate = FATE_SENT,
	.has_code = true,
	.status = 200,
	.message = "success",
	.message_id = "1_1611647493487_29",
	.request_id = "2237080460466033406",
};
static const struct verdict sent_barely = { .class = VERDICT_OK, .has_code = true };
static const struct verdict refused = {
	.class = VERDICT_DROP,
	.fate = FATE_API,
	.has_code = true,
	.code = 50012,
	.status = 200,
	.message = "too \"long\"\n\x80",
	.request_id = "22",
};
static const struct verdict strange = { .fate = FATE_API, .has_code = true, .code = INT64_MIN };
static const struct verdict halting = {
	.class = VERDICT_HALT,
	.fate = FATE_API,
	.has_code = true,
	.code = 100000005,
	.message = "not to be repeated",
	.request_id = "22",
};
static const struct verdict http = { .class = VERDICT_DROP, .fate = FATE_HTTP, .status = 302 };

#define MS(n) ((n)*NSEC_PER_MSEC)

static void test_each_fate_has_its_members_in_their_order(void **state)
{
	static const struct {
		struct fate_report report;
		const char *line; /* after the id */
	} cases[] = {
		{ { FATE_SENT, &sent, MS(3), MS(41) },
		  "\"outcome\":\"sent\",\"MessageId\":\"1_1611647493487_29\","
		  "\"RequestId\":\"2237080460466033406\",\"waited_ms\":3,\"took_ms\":41}\n" },
		{ { FATE_SENT, &sent_barely, MS(3), MS(41) },
		  "\"outcome\":\"sent\",\"waited_ms\":3,\"took_ms\":41}\n" },
		{ { FATE_QUEUE_FULL, NULL, MS(1890), 0 },
		  "\"outcome\":\"dropped\",\"reason\":\"queue_full\",\"waited_ms\":1890}\n" },
		{ { FATE_EXPIRED, NULL, MS(3000), MS(5) },
		  "\"outcome\":\"dropped\",\"reason\":\"expired\",\"waited_ms\":3000}\n" },
		{ { FATE_SHUTDOWN, NULL, 0, 0 },
		  "\"outcome\":\"dropped\",\"reason\":\"shutdown\",\"waited_ms\":0}\n" },
		{ { FATE_APP_REMOVED, NULL, MS(1), 0 },
		  "\"outcome\":\"dropped\",\"reason\":\"app_removed\",\"waited_ms\":1}\n" },
		{ { FATE_NO_ROOM, NULL, MS(1), 0 },
		  "\"outcome\":\"dropped\",\"reason\":\"no_room\",\"waited_ms\":1}\n" },
		{ { FATE_API, &refused, MS(3), MS(40) },
		  "\"outcome\":\"failed\",\"reason\":\"api\",\"Code\":50012,"
		  "\"Message\":\"too \\\"long\\\"\\n\xef\xbf\xbd\",\"RequestId\":\"22\","
		  "\"waited_ms\":3,\"took_ms\":40}\n" },
		{ { FATE_API, &strange, 0, MS(1) },
		  "\"outcome\":\"failed\",\"reason\":\"api\",\"Code\":-9223372036854775808,"
		  "\"waited_ms\":0,\"took_ms\":1}\n" },
		{ { FATE_HTTP, &http, MS(3), MS(40) },
		  "\"outcome\":\"failed\",\"reason\":\"http\",\"status\":302,"
		  "\"waited_ms\":3,\"took_ms\":40}\n" },
		{ { FATE_TIMEOUT, NULL, MS(3), MS(5000) },
		  "\"outcome\":\"failed\",\"reason\":\"timeout\",\"waited_ms\":3,"
		  "\"took_ms\":5000}\n" },
		{ { FATE_NETWORK, &http, MS(3), 1 },
		  "\"outcome\":\"failed\",\"reason\":\"network\",\"waited_ms\":3,"
		  "\"took_ms\":0}\n" },
		{ { FATE_HALTED, &halting, MS(2), 0 },
		  "\"outcome\":\"failed\",\"reason\":\"halted\",\"Code\":100000005,"
		  "\"waited_ms\":2}\n" },
		{ { FATE_MEMORY, NULL, MS(2), 0 },
		  "\"outcome\":\"failed\",\"reason\":\"memory\",\"waited_ms\":2}\n" },
		{ { FATE_INTERNAL, NULL, MS(2), 0 },
		  "\"outcome\":\"failed\",\"reason\":\"internal\",\"waited_ms\":2}\n" },
	};
	struct request *r = with_id("\"a1\"");

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buffer expected = { 0 };
		struct buffer out = { 0 };

		buffer_printf(&expected, "{\"id\":\"a1\",%s", cases[i].line);
		reply_fate(&out, r, &cases[i].report);
		check_line(&out, expected.data);
		buffer_deinit(&expected);
		buffer_deinit(&out);
	}
	request_free(r);
}

static void test_milliseconds_are_rounded_down(void **state)
{
	static const struct fate_report report = { FATE_TIMEOUT, NULL, MS(4) - 1,
						   MS(UINT64_C(1) << 40) + MS(1) - 1 };
	struct request *r = with_id("7");
	struct buffer out = { 0 };

	reply_fate(&out, r, &report);
	check_line(&out, "{\"id\":7,\"outcome\":\"failed\",\"reason\":\"timeout\",\"waited_ms\":3,"
			 "\"took_ms\":1099511627776}\n");
	buffer_deinit(&out);
	request_free(r);
}

static void test_an_id_comes_back_byte_for_byte(void **state)
{
	static const char *const ids[] = { "\"\\u0061\\/\\ud83d\\ude00\"", "-9007199254740991", "0",
					   "\"中\"" };

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		static const struct fate_report report = { .fate = FATE_SHUTDOWN };
		struct request *r = with_id(ids[i]);
		struct buffer expected = { 0 };
		struct buffer out = { 0 };

		buffer_printf(&expected,
			      "{\"id\":%s,\"outcome\":\"dropped\",\"reason\":\"shutdown\","
			      "\"waited_ms\":0}\n",
			      ids[i]);
		reply_fate(&out, r, &report);
		check_line(&out, expected.data);
		buffer_deinit(&expected);
		buffer_deinit(&out);
		request_free(r);
	}
}

static void test_a_refusal_names_the_line_and_the_reason(void **state)
{
	static const struct {
		struct refusal why;
		uint64_t line;
		const char *reply;
	} cases[] = {
		{ { .fate = FATE_INVALID,
		    .error = "MessageContent is 1030 bytes; at most 1024 are allowed" },
		  12,
		  "{\"outcome\":\"rejected\",\"reason\":\"invalid\",\"line\":12,\"error\":"
		  "\"MessageContent is 1030 bytes; at most 1024 are allowed\"}\n" },
		{ { .fate = FATE_INVALID,
		    .id = "\"a1\",rest of the line",
		    .id_len = 4,
		    .error = "unknown field \"a\\n\"" },
		  1,
		  "{\"id\":\"a1\",\"outcome\":\"rejected\",\"reason\":\"invalid\",\"line\":1,"
		  "\"error\":\"unknown field \\\"a\\\\n\\\"\"}\n" },
		{ { .fate = FATE_UNKNOWN_APP,
		    .id = "7",
		    .id_len = 1,
		    .not_admitted = true,
		    .app_id = 5,
		    .error = "AppId 5 is not configured for this writer" },
		  2,
		  "{\"id\":7,\"outcome\":\"rejected\",\"reason\":\"unknown_app\",\"line\":2,"
		  "\"error\":\"AppId 5 is not configured for this writer\"}\n" },
		{ { .fate = FATE_MEMORY, .error = "out of memory" },
		  3,
		  "{\"outcome\":\"failed\",\"reason\":\"memory\",\"line\":3,"
		  "\"error\":\"out of memory\"}\n" },
		{ { .fate = FATE_TOO_LONG, .error = "more than 16384 bytes" },
		  UINT64_MAX,
		  "{\"outcome\":\"rejected\",\"reason\":\"too_long\","
		  "\"line\":18446744073709551615,\"error\":\"more than 16384 bytes\"}\n" },
		{ { .fate = FATE_TOO_MANY_CLIENTS },
		  0,
		  "{\"outcome\":\"rejected\",\"reason\":\"too_many_clients\"}\n" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buffer out = { 0 };

		reply_refusal(&out, &cases[i].why, cases[i].line);
		check_line(&out, cases[i].reply);
		buffer_deinit(&out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_fate_has_its_members_in_their_order),
		cmocka_unit_test(test_milliseconds_are_rounded_down),
		cmocka_unit_test(test_an_id_comes_back_byte_for_byte),
		cmocka_unit_test(test_a_refusal_names_the_line_and_the_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
