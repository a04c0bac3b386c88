/* SPDX-License-Identifier: MIT */
#include "core/answer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"

/* Judges a copy that ends with its NUL, and nothing after it. */
static struct verdict judge_bytes(unsigned status, const char *body, size_t n)
{
	struct answer a = { .result = TRANSPORT_ANSWERED, .written = true, .status = status };
	struct verdict v;
	char *copy = malloc(n + 1);

	assert_non_null(copy);
	memcpy(copy, body, n);
	copy[n] = '\0';
	a.body = copy;
	a.body_len = n;
	memset(&v, 0xa5, sizeof(v));
	answer_judge(&a, &v);
	free(copy);
	return v;
}

static struct verdict judge(unsigned status, const char *body)
{
	return judge_bytes(status, body, strlen(body));
}

static void test_each_code_has_its_class(void **state)
{
	static const struct {
		enum verdict_class class;
		int64_t codes[32];
	} classes[] = {
		{ VERDICT_RETRY, { 1, 122, 5202, 151, 100000012, 100000015 } },
		{ VERDICT_SLOW_APP, { 206, 7 } },
		{ VERDICT_SLOW_ROOM, { 207 } },
		{ VERDICT_SIGN_AGAIN, { 100000004 } },
		{ VERDICT_DROP, { 2, 3, 8, 105, 50002, 1008, 50012, 50014 } },
		{ VERDICT_DROP_ROOM, { 104, 5024, 50001, 5018 } },
		{ VERDICT_HALT,
		  { 9, 100000000, 100000001, 100000002, 100000003, 100000005, 100000006, 100000007,
		    100000008, 100000009, 100000010, 100000011, 100000013, 100000014, 100000016,
		    100000017, 100000018, 100000099 } },
		{ VERDICT_UNKNOWN,
		  { -1, 4, 10, 100, 208, 99999999, 100000100, INT64_MAX, INT64_MIN } },
	};

	assert_int_equal(answer_class(0), VERDICT_OK);
	for (size_t i = 0; i < ARRAY_SIZE(classes); i++) {
		for (size_t j = 0; classes[i].codes[j] != 0; j++)
			assert_int_equal(answer_class(classes[i].codes[j]), classes[i].class);
	}
}

static void test_code_0_is_sent_with_its_ids(void **state)
{
	struct verdict v = judge(200, "{\"Code\":0,\"Data\":{\"MessageId\":\"1_1611647493487_29\"},"
				      "\"Message\":\"success\","
				      "\"RequestId\":\"2237080460466033406\"}");

	assert_int_equal(v.class, VERDICT_OK);
	assert_int_equal(v.fate, FATE_SENT);
	assert_true(v.has_code);
	assert_int_equal(v.code, 0);
	assert_int_equal(v.status, 200);
	assert_string_equal(v.message, "success");
	assert_string_equal(v.message_id, "1_1611647493487_29");
	assert_string_equal(v.request_id, "2237080460466033406");
}

static void test_a_readable_code_decides_whatever_the_status(void **state)
{
	static const struct {
		unsigned status;
		const char *body;
		int64_t code;
		enum verdict_class class;
		enum fate fate;
	} cases[] = {
		{ 200, "{\"Code\":50012}", 50012, VERDICT_DROP, FATE_API },
		{ 200, " {\"Code\":206} \r\n", 206, VERDICT_SLOW_APP, FATE_API },
		{ 500, "{\"Code\":0}", 0, VERDICT_OK, FATE_SENT },
		{ 429, "{\"Code\":207}", 207, VERDICT_SLOW_ROOM, FATE_API },
		{ 403, "{\"Code\":100000005}", 100000005, VERDICT_HALT, FATE_API },
		{ 200, "{\"Code\":-3}", -3, VERDICT_UNKNOWN, FATE_API },
		{ 200, "{\"Code\":9007199254740991}", INT64_C(9007199254740991), VERDICT_UNKNOWN,
		  FATE_API },
		{ 200, "{\"code\":\"x\",\"Code\":104,\"more\":[1,{}]}", 104, VERDICT_DROP_ROOM,
		  FATE_API },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct verdict v = judge(cases[i].status, cases[i].body);

		assert_true(v.has_code);
		assert_int_equal(v.code, cases[i].code);
		assert_int_equal(v.class, cases[i].class);
		assert_int_equal(v.fate, cases[i].fate);
		assert_int_equal(v.status, cases[i].status);
		assert_string_equal(v.message, "");
		assert_string_equal(v.message_id, "");
		assert_string_equal(v.request_id, "");
	}
}

#define BODY(text) text, sizeof(text) - 1

static void test_a_body_that_cannot_be_read_is_never_a_success(void **state)
{
	static const struct {
		const char *body;
		size_t n;
	} bodies[] = {
		{ BODY("") },
		{ BODY(" ") },
		{ BODY("<html>502 Bad Gateway</html>") },
		{ BODY("0") },
		{ BODY("[{\"Code\":0}]") },
		{ BODY("{}") },
		{ BODY("{\"code\":0}") },
		{ BODY("{\"Message\":\"success\"}") },
		{ BODY("{\"Data\":{\"Code\":0}}") },
		{ BODY("{\"Code\":\"0\"}") },
		{ BODY("{\"Code\":null}") },
		{ BODY("{\"Code\":false}") },
		{ BODY("{\"Code\":0.5}") },
		{ BODY("{\"Code\":9007199254740992}") },
		{ BODY("{\"Code\":1e999}") },
		{ BODY("{\"Code\":0,\"Code\":0}") },
		{ BODY("{\"Code\":0,\"Code\":206}") },
		{ BODY("{\"Code\":0") },
		{ BODY("{\"Code\":0,") },
		{ BODY("{\"Code\":0}x") },
		{ BODY("{\"Code\":0}{\"Code\":0}") },
		{ BODY("{\"Code\":0}\0") },
		{ BODY("{\"Code\":0\0}") },
		{ BODY("\x1f\x8b\x08\x00\x00\x00\x00\x00") }, /* gzip, unasked for */
	};

	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		struct verdict v = judge_bytes(200, bodies[i].body, bodies[i].n);

		assert_false(v.has_code);
		assert_int_equal(v.class, VERDICT_AMBIGUOUS);
		assert_int_equal(v.fate, FATE_ANSWER);
		assert_int_equal(v.status, 200);
	}
}

static void test_without_a_body_the_status_decides(void **state)
{
	static const struct {
		unsigned status;
		uint64_t retry_after;
		enum verdict_class class;
		enum fate fate;
	} cases[] = {
		{ 200, 0, VERDICT_AMBIGUOUS, FATE_ANSWER },
		{ 204, 0, VERDICT_AMBIGUOUS, FATE_ANSWER },
		{ 301, 0, VERDICT_DROP, FATE_HTTP },
		{ 302, 0, VERDICT_DROP, FATE_HTTP },
		{ 400, 0, VERDICT_DROP, FATE_HTTP },
		{ 404, NSEC_PER_SEC, VERDICT_DROP, FATE_HTTP },
		{ 429, 0, VERDICT_SLOW_APP, FATE_HTTP },
		{ 429, NSEC_PER_SEC, VERDICT_SLOW_APP, FATE_HTTP },
		{ 499, 0, VERDICT_DROP, FATE_HTTP },
		{ 500, 0, VERDICT_AMBIGUOUS, FATE_HTTP },
		{ 500, NSEC_PER_SEC, VERDICT_AMBIGUOUS, FATE_HTTP },
		{ 503, 0, VERDICT_AMBIGUOUS, FATE_HTTP },
		{ 503, NSEC_PER_SEC, VERDICT_RETRY, FATE_HTTP },
		{ 599, 0, VERDICT_AMBIGUOUS, FATE_HTTP },
		{ 100, 0, VERDICT_AMBIGUOUS, FATE_ANSWER },
		{ 999, 0, VERDICT_AMBIGUOUS, FATE_ANSWER },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct answer a = { .result = TRANSPORT_ANSWERED,
				    .written = true,
				    .status = cases[i].status,
				    .retry_after = cases[i].retry_after };
		struct verdict v;

		answer_judge(&a, &v);
		assert_int_equal(v.class, cases[i].class);
		assert_int_equal(v.fate, cases[i].fate);
		assert_int_equal(v.status, cases[i].status);
		assert_false(v.has_code);
	}
}

static void test_without_an_answer_it_counts_whether_anything_was_written(void **state)
{
	static const struct {
		enum transport_result result;
		bool written;
		enum verdict_class class;
		enum fate fate;
	} cases[] = {
		{ TRANSPORT_DNS, false, VERDICT_UNREACHED, FATE_DNS },
		{ TRANSPORT_CONNECT, false, VERDICT_UNREACHED, FATE_CONNECT },
		{ TRANSPORT_TLS, false, VERDICT_UNREACHED, FATE_TLS },
		{ TRANSPORT_TLS, true, VERDICT_AMBIGUOUS, FATE_NETWORK },
		{ TRANSPORT_TIMEOUT, false, VERDICT_UNREACHED, FATE_CONNECT },
		{ TRANSPORT_TIMEOUT, true, VERDICT_AMBIGUOUS, FATE_TIMEOUT },
		{ TRANSPORT_NETWORK, false, VERDICT_UNREACHED, FATE_NETWORK },
		{ TRANSPORT_NETWORK, true, VERDICT_AMBIGUOUS, FATE_NETWORK },
		{ TRANSPORT_BROKEN, true, VERDICT_AMBIGUOUS, FATE_ANSWER },
		{ TRANSPORT_MEMORY, false, VERDICT_DROP, FATE_MEMORY },
		{ TRANSPORT_INTERNAL, false, VERDICT_DROP, FATE_INTERNAL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		/* What a lost answer said so far is not listened to. */
		struct answer a = { .result = cases[i].result,
				    .written = cases[i].written,
				    .status = 200,
				    .body = "{\"Code\":0}",
				    .body_len = 10 };
		struct verdict v;

		answer_judge(&a, &v);
		assert_int_equal(v.class, cases[i].class);
		assert_int_equal(v.fate, cases[i].fate);
		assert_int_equal(v.status, 0);
		assert_false(v.has_code);
	}
}

static void test_strings_are_taken_only_from_what_should_hold_them(void **state)
{
	static const struct {
		const char *body;
		const char *message_id;
		const char *request_id;
		const char *message;
	} cases[] = {
		{ "{\"Code\":0,\"Data\":{\"MessageId\":1611647493487}}", "1611647493487", "", "" },
		{ "{\"Code\":0,\"Data\":{\"MessageId\":9007199254740991}}", "9007199254740991", "",
		  "" },
		{ "{\"Code\":0,\"Data\":{\"MessageId\":1.5}}", "", "", "" },
		{ "{\"Code\":0,\"Data\":{\"MessageId\":{}}}", "", "", "" },
		{ "{\"Code\":0,\"Data\":{\"messageid\":\"x\"}}", "", "", "" },
		{ "{\"Code\":0,\"Data\":\"x\"}", "", "", "" },
		{ "{\"Code\":0,\"Data\":[\"MessageId\"]}", "", "", "" },
		{ "{\"Code\":0,\"Data\":null,\"MessageId\":\"x\"}", "", "", "" },
		{ "{\"Code\":0,\"RequestId\":2237080460466033406}", "", "", "" },
		{ "{\"Code\":0,\"Message\":7,\"RequestId\":[]}", "", "", "" },
		{ "{\"Code\":0,\"Message\":\"\\u4e2d \\\"\",\"RequestId\":\"r\"}", "", "r",
		  "中 \"" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct verdict v = judge(200, cases[i].body);

		assert_int_equal(v.class, VERDICT_OK);
		assert_string_equal(v.message_id, cases[i].message_id);
		assert_string_equal(v.request_id, cases[i].request_id);
		assert_string_equal(v.message, cases[i].message);
	}
}

static void test_long_strings_are_cut_between_characters(void **state)
{
	char body[4096];
	char *at = body;
	struct verdict v;

	at += sprintf(at, "{\"Code\":8,\"Message\":\"x");
	for (unsigned i = 0; i < 300; i++)
		at += sprintf(at, "中");
	sprintf(at, "\",\"RequestId\":\"%0100d\",\"Data\":{\"MessageId\":\"%0200d\"}}", 0, 0);
	v = judge(200, body);
	assert_int_equal(strlen(v.message), 1 + 84 * 3);
	assert_string_equal(v.message + strlen(v.message) - 3, "中");
	assert_int_equal(strlen(v.request_id), 63);
	assert_int_equal(strlen(v.message_id), 127);
}

static void test_no_damage_to_a_body_does_harm(void **state)
{
	static const char body[] = "{\"Code\":50012,\"Data\":{\"MessageId\":\"1_16_29\"},"
				   "\"Message\":\"太长\\n\",\"RequestId\":\"22370804604660\"}";
	uint64_t seed = random_seed();

	for (unsigned round = 0; round < 100000; round++) {
		char copy[sizeof(body)];
		size_t n = sizeof(body) - 1;
		struct verdict v;

		memcpy(copy, body, sizeof(body));
		for (uint64_t i = random_next(&seed) % 4; i > 0; i--)
			copy[random_next(&seed) % n] = (char)random_next(&seed);
		if (random_next(&seed) % 2)
			n = random_next(&seed) % n;
		v = judge_bytes(200, copy, n);
		assert_true(v.class < _VERDICT_N);
		assert_true(v.fate == FATE_API || v.fate == FATE_ANSWER || v.code == 0);
		assert_non_null(memchr(v.message, '\0', sizeof(v.message)));
		assert_non_null(memchr(v.message_id, '\0', sizeof(v.message_id)));
		assert_non_null(memchr(v.request_id, '\0', sizeof(v.request_id)));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_code_has_its_class),
		cmocka_unit_test(test_code_0_is_sent_with_its_ids),
		cmocka_unit_test(test_a_readable_code_decides_whatever_the_status),
		cmocka_unit_test(test_a_body_that_cannot_be_read_is_never_a_success),
		cmocka_unit_test(test_without_a_body_the_status_decides),
		cmocka_unit_test(test_without_an_answer_it_counts_whether_anything_was_written),
		cmocka_unit_test(test_strings_are_taken_only_from_what_should_hold_them),
		cmocka_unit_test(test_long_strings_are_cut_between_characters),
		cmocka_unit_test(test_no_damage_to_a_body_does_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
