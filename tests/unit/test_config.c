/* SPDX-License-Identifier: MIT */
/* The table of keys and what follows from it, without a file. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/config.h"
#include "core/config_key.h"

#define MSEC NSEC_PER_MSEC
#define SEC  NSEC_PER_SEC

/* The least that config_finish() is content with. */
#define APP    "[app 1]\n"
#define SECRET "server_secret_file = /s\n"

/* Cuts one line off and feeds it; a plain reader for plain test text. */
static int feed_line(struct config *c, char *line, unsigned number, struct config_error *why)
{
	char *value = strstr(line, " =");
	int r;

	why->text[0] = '\0';
	if (*line == '\0' || *line == '#')
		return 0;
	if (*line == '[') {
		line[strlen(line) - 1] = '\0';
		return config_section(c, line + 1, number, why);
	}
	assert_non_null(value);
	*value = '\0';
	value += value[2] == ' ' ? 3 : 2;
	r = config_set(c, line, value, why);
	if (r == CONFIG_E_INVALID)
		assert_true(*why->text);
	return r;
}

/* Feeds @text; @errors gets one "LINE: sentence\n" per refusal. */
static void feed(struct config *c, const char *text, struct buffer *errors)
{
	char *copy = strdup(text);
	char *next = copy;
	unsigned number = 0;
	char *line;

	assert_non_null(copy);
	while ((line = strsep(&next, "\n"))) {
		struct config_error why;
		int r = feed_line(c, line, ++number, &why);

		assert_true(r >= 0);
		if (r == CONFIG_E_INVALID)
			buffer_printf(errors, "%u: %s\n", number, why.text);
	}
	free(copy);
}

static void on_finding(void *arg, unsigned line, const char *text)
{
	buffer_printf(arg, "%u: %s\n", line, text);
}

/* A finished configuration, which must be valid. */
static struct config *configured(const char *text)
{
	struct buffer errors = { 0 };
	struct config *c = NULL;

	assert_int_equal(config_new(&c), 0);
	feed(c, text, &errors);
	assert_int_equal(config_finish(c, on_finding, &errors), 0);
	if (errors.len > 0)
		fail_msg("%s", errors.data);
	buffer_deinit(&errors);
	return c;
}

/* What is refused of a configuration, "" if nothing. */
static void assert_refused(const char *text, const char *expected)
{
	struct buffer errors = { 0 };
	struct config *c = NULL;

	assert_int_equal(config_new(&c), 0);
	buffer_puts(&errors, "");
	feed(c, text, &errors);
	(void)config_finish(c, on_finding, &errors);
	assert_string_equal(errors.data ? errors.data : "", expected);
	buffer_deinit(&errors);
	config_free(c);
}

static void test_defaults_are_those_of_the_manual(void **state)
{
	struct config *c = configured(APP SECRET);

	assert_string_equal(c->socket, "/run/barraged/barraged.sock");
	assert_int_equal(c->socket_mode, 0660);
	assert_string_equal(c->socket_group, "");
	assert_int_equal(c->socket_gid, (gid_t)-1);
	assert_string_equal(c->control_socket, "/run/barraged/control.sock");
	assert_int_equal(c->max_clients, 1024);
	assert_int_equal(c->max_line, 16384);
	assert_int_equal(c->max_reply_backlog, 262144);
	assert_int_equal(c->drain_timeout, 5 * SEC);
	assert_int_equal(c->startup_hold, SEC);
	assert_int_equal(c->log_level, 2);
	assert_string_equal(c->metrics_listen, "");
	assert_string_equal(c->url, "https://rtc-api.zego.im/");
	assert_string_equal(c->ca_file, "");
	assert_string_equal(c->proxy, "");
	assert_int_equal(c->connect_timeout, 2 * SEC);
	assert_int_equal(c->timeout, 5 * SEC);
	assert_int_equal(c->http_version, HTTP_1_1);
	assert_int_equal(c->max_in_flight, 256);
	assert_int_equal(c->credit, CREDIT_AUTO);
	assert_int_equal(c->retries, 2);
	assert_int_equal(c->retry_ambiguous, 0);
	assert_int_equal(c->probe_interval, 30 * SEC);
	assert_int_equal(c->queue_bytes, 64 << 20);
	assert_string_equal(c->redis, "");
	assert_string_equal(c->redis_user, "");
	assert_string_equal(c->redis_password_file, "");
	assert_null(c->redis_password);
	assert_string_equal(c->shared_prefix, "barraged:");
	assert_int_equal(c->shared_hosts, 1);
	assert_int_equal(c->on_lost, ON_LOST_SHARE);
	assert_string_equal(c->shared_name, "");
	config_free(c);
}

static void test_an_app_has_the_defaults_of_the_manual(void **state)
{
	struct config *c = configured(APP SECRET);
	const struct app_config *a = config_app(c, 1);

	assert_non_null(a);
	assert_string_equal(a->server_secret_file, "/s");
	assert_null(a->secret);
	assert_int_equal(a->test_mode, 0);
	assert_int_equal(a->is_test, IS_TEST_UNSET);
	assert_int_equal(a->rate, 100);
	assert_int_equal(a->burst, 10);
	assert_int_equal(a->max_content, 1024);
	assert_int_equal(a->room_rate, 20);
	assert_int_equal(a->room_in_flight, 0);
	assert_int_equal(a->shared, 1);
	assert_int_equal(a->queue.overflow, OVERFLOW_OLDEST);
	assert_int_equal(a->queue.max_age, 3 * SEC);
	assert_int_equal(a->queue.queue_max, 300);
	assert_string_equal(a->allow_users, "");
	assert_string_equal(a->allow_groups, "");
	config_free(c);
}

static void test_values_are_read_as_they_are_written(void **state)
{
	static const struct {
		const char *key;
		const char *text;
		uint64_t value;
	} cases[] = {
		{ "max_age", "10ms", 10 * MSEC },
		{ "max_age", "250ms", 250 * MSEC },
		{ "max_age", "3s", 3 * SEC },
		{ "max_age", "1m", 60 * SEC },
		{ "probe_interval", "1h", 3600 * SEC },
		{ "probe_interval", "60m", 3600 * SEC },
		{ "drain_timeout", "0", 0 },
		{ "drain_timeout", "0s", 0 },
		{ "drain_timeout", "600000ms", 600 * SEC },
		{ "max_line", "1KiB", 1024 },
		{ "max_line", "1MiB", 1 << 20 },
		{ "queue_bytes", "64GiB", UINT64_C(64) << 30 },
		{ "queue_max", "0", 0 },
		{ "queue_max", "10000000", 10000000 },
		{ "socket_mode", "0000", 0 },
		{ "socket_mode", "0777", 0777 },
		{ "socket_mode", "600", 0600 },
		{ "retry_ambiguous", "yes", 1 },
		{ "retry_ambiguous", "no", 0 },
		{ "overflow", "newest", OVERFLOW_NEWEST },
		{ "log_level", "error", 0 },
		{ "log_level", "debug", 3 },
		{ "http_version", "2", HTTP_2 },
		{ "credit", "none", CREDIT_NONE },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		enum config_section s = 0;
		const struct config_key *k;
		struct config *c = NULL;
		struct config_error why;
		uint64_t value;

		while (!(k = config_key_find(s, cases[i].key)))
			s++;
		assert_int_equal(config_new(&c), 0);
		assert_int_equal(config_section(c, config_section_name(s), 1, &why), 0);
		if (config_set(c, cases[i].key, cases[i].text, &why) != 0)
			fail_msg("%s", why.text);
		memcpy(&value, (char *)c + config_key_offset(k, s), sizeof(value));
		assert_int_equal(value, cases[i].value);
		config_free(c);
	}
}

#define A64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

/* clang-format off */
static const struct {
	const char *section;
	const char *key;
	const char *text;
	const char *sentence;
} refusals[] = {
	{ "queue", "max_age", "5 sec", "max_age: \"5 sec\" is not a duration (such as 250ms, 3s or 1m)" },
	{ "queue", "max_age", "", "max_age: \"\" is not a duration (such as 250ms, 3s or 1m)" },
	{ "queue", "max_age", "s", "max_age: \"s\" is not a duration (such as 250ms, 3s or 1m)" },
	{ "queue", "max_age", "3", "max_age: \"3\" is not a duration (such as 250ms, 3s or 1m)" },
	{ "queue", "max_age", "3S", "max_age: \"3S\" is not a duration (such as 250ms, 3s or 1m)" },
	{ "queue", "max_age", "1.5s", "max_age: \"1.5s\" is not a duration (such as 250ms, 3s or 1m)" },
	{ "queue", "max_age", "-1s", "max_age: \"-1s\" is not a duration (such as 250ms, 3s or 1m)" },
	{ "queue", "max_age", "03s", "max_age: \"03s\" is not a duration (such as 250ms, 3s or 1m)" },
	{ "queue", "max_age", "00", "max_age: \"00\" is not a duration (such as 250ms, 3s or 1m)" },
	{ "queue", "max_age", "9ms", "max_age: 9ms is out of range (10ms to 1m)" },
	{ "queue", "max_age", "0", "max_age: 0 is out of range (10ms to 1m)" },
	{ "queue", "max_age", "61s", "max_age: 61s is out of range (10ms to 1m)" },
	{ "queue", "max_age", "5124095577h", "max_age: 5124095577h is out of range (10ms to 1m)" },
	{ "queue", "max_age", "99999999999999999999s",
	  "max_age: 99999999999999999999s is out of range (10ms to 1m)" },
	{ "queue", "queue_bytes", "64MB", "queue_bytes: \"64MB\" is not a size (such as 16KiB, 64MiB or 1GiB)" },
	{ "queue", "queue_bytes", "65536", "queue_bytes: \"65536\" is not a size (such as 16KiB, 64MiB or 1GiB)" },
	{ "queue", "queue_bytes", "63KiB", "queue_bytes: 63KiB is out of range (64KiB to 64GiB)" },
	{ "queue", "queue_bytes", "65GiB", "queue_bytes: 65GiB is out of range (64KiB to 64GiB)" },
	{ "queue", "queue_max", "10000001", "queue_max: 10000001 is out of range (0 to 10000000)" },
	{ "queue", "overflow", "Oldest", "overflow: \"Oldest\" is not one of oldest, newest" },
	{ "app 1", "rate", "0", "rate: 0 is out of range (1 to 100000)" },
	{ "app 1", "rate", "100001", "rate: 100001 is out of range (1 to 100000)" },
	{ "app 1", "rate", "18446744073709551616",
	  "rate: 18446744073709551616 is out of range (1 to 100000)" },
	{ "app 1", "rate", "ten", "rate: \"ten\" is not a whole number (such as 1 or 100)" },
	{ "app 1", "rate", "+10", "rate: \"+10\" is not a whole number (such as 1 or 100)" },
	{ "app 1", "rate", "0x10", "rate: \"0x10\" is not a whole number (such as 1 or 100)" },
	{ "app 1", "rate", "010", "rate: \"010\" is not a whole number (such as 1 or 100)" },
	{ "app 1", "rate", "10 ", "rate: \"10 \" is not a whole number (such as 1 or 100)" },
	{ "app 1", "rate", A64 "a", "rate: \"" A64 "...\" is not a whole number (such as 1 or 100)" },
	{ "app 1", "rate", A64, "rate: \"" A64 "\" is not a whole number (such as 1 or 100)" },
	{ "app 1", "rate", "\x1b[2J\xff\xc2\x9b\xc3\xa9",
	  "rate: \"?[2J???\xc3\xa9\" is not a whole number (such as 1 or 100)" },
	{ "app 1", "burst", "0", "burst: 0 is out of range (1 to 100000)" },
	{ "app 1", "max_content", "16385", "max_content: 16385 is out of range (1 to 16384)" },
	{ "app 1", "test_mode", "true", "test_mode: \"true\" is not one of no, yes" },
	{ "app 1", "is_test", "yes", "is_test: \"yes\" is not one of true, false" },
	{ "app 1", "server_secret_file", "", "server_secret_file: must not be empty" },
	{ "app 1", "server_secret_file", "0123456789abcdef0123456789abcdef",
	  "server_secret_file: must be an absolute path or credential:NAME" },
	{ "app 1", "server_secret_file", "credential:",
	  "server_secret_file: must be an absolute path or credential:NAME" },
	{ "app 1", "server_secret_file", "credential:a/b",
	  "server_secret_file: must be an absolute path or credential:NAME" },
	{ "app 1", "server_secret_file", "credential:..",
	  "server_secret_file: must be an absolute path or credential:NAME" },
	{ "daemon", "socket", "", "socket: must not be empty" },
	{ "daemon", "socket", "run/x", "socket: \"run/x\" is not an absolute path" },
	{ "daemon", "socket", "/a\tb", "socket: contains a control character" },
	{ "daemon", "socket", "/a\x7f", "socket: contains a control character" },
	{ "daemon", "socket", "/" A64 "1234567890123456789012345678901234567890123",
	  "socket: 108 bytes are too many (at most 107)" },
	{ "daemon", "control_socket", "x", "control_socket: \"x\" is not an absolute path" },
	{ "daemon", "socket_mode", "0888", "socket_mode: \"0888\" is not an octal mode (such as 0660)" },
	{ "daemon", "socket_mode", "rw", "socket_mode: \"rw\" is not an octal mode (such as 0660)" },
	{ "daemon", "socket_mode", "00660", "socket_mode: \"00660\" is not an octal mode (such as 0660)" },
	{ "daemon", "socket_mode", "1777", "socket_mode: 1777 is out of range (0000 to 0777)" },
	{ "daemon", "max_line", "1023KiB", "" },
	{ "daemon", "max_line", "2MiB", "max_line: 2MiB is out of range (1KiB to 1MiB)" },
	{ "daemon", "max_clients", "65537", "max_clients: 65537 is out of range (1 to 65536)" },
	{ "daemon", "max_reply_backlog", "3KiB", "max_reply_backlog: 3KiB is out of range (4KiB to 64MiB)" },
	{ "daemon", "drain_timeout", "11m", "drain_timeout: 11m is out of range (0 to 10m)" },
	{ "daemon", "startup_hold", "61s", "startup_hold: 61s is out of range (0 to 1m)" },
	{ "daemon", "metrics_listen", "localhost:9464",
	  "metrics_listen: \"localhost:9464\" is not an IP address and a port (such as 127.0.0.1:9464 or [::1]:9464)" },
	{ "daemon", "metrics_listen", "127.0.0.1",
	  "metrics_listen: \"127.0.0.1\" is not an IP address and a port (such as 127.0.0.1:9464 or [::1]:9464)" },
	{ "daemon", "metrics_listen", "127.0.0.1:0",
	  "metrics_listen: \"127.0.0.1:0\" is not an IP address and a port (such as 127.0.0.1:9464 or [::1]:9464)" },
	{ "daemon", "metrics_listen", "127.0.0.1:65536",
	  "metrics_listen: \"127.0.0.1:65536\" is not an IP address and a port (such as 127.0.0.1:9464 or [::1]:9464)" },
	{ "daemon", "metrics_listen", "::1:9464",
	  "metrics_listen: \"::1:9464\" is not an IP address and a port (such as 127.0.0.1:9464 or [::1]:9464)" },
	{ "daemon", "metrics_listen", ":9464",
	  "metrics_listen: \":9464\" is not an IP address and a port (such as 127.0.0.1:9464 or [::1]:9464)" },
	{ "daemon", "metrics_listen", "[]:9464",
	  "metrics_listen: \"[]:9464\" is not an IP address and a port (such as 127.0.0.1:9464 or [::1]:9464)" },
	{ "daemon", "metrics_listen", "[::1:9464",
	  "metrics_listen: \"[::1:9464\" is not an IP address and a port (such as 127.0.0.1:9464 or [::1]:9464)" },
	{ "daemon", "metrics_listen", "[127.0.0.1]:9464",
	  "metrics_listen: \"[127.0.0.1]:9464\" is not an IP address and a port (such as 127.0.0.1:9464 or [::1]:9464)" },
	{ "daemon", "metrics_listen", "[0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:1]:9464",
	  "metrics_listen: \"[0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:1]:9464\" is not an IP address and a port (such as 127.0.0.1:9464 or [::1]:9464)" },
	{ "daemon", "metrics_listen", "127.000000000000000000000000000000000000000.0.1:9464",
	  "metrics_listen: \"127.000000000000000000000000000000000000000.0.1:9464\" is not an IP address and a port (such as 127.0.0.1:9464 or [::1]:9464)" },
	{ "daemon", "metrics_listen", "[::1]:9464", "" },
	{ "daemon", "metrics_listen", "0.0.0.0:1", "" },
	{ "daemon", "metrics_listen", "127.0.0.1:65535", "" },
	{ "upstream", "connect_timeout", "9ms", "connect_timeout: 9ms is out of range (10ms to 1m)" },
	{ "upstream", "timeout", "121s", "timeout: 121s is out of range (10ms to 2m)" },
	{ "upstream", "max_in_flight", "10001", "max_in_flight: 10001 is out of range (1 to 10000)" },
	{ "upstream", "retries", "11", "retries: 11 is out of range (0 to 10)" },
	{ "upstream", "probe_interval", "99ms", "probe_interval: 99ms is out of range (100ms to 1h)" },
	{ "upstream", "http_version", "3", "http_version: \"3\" is not one of 1.1, 2" },
	{ "shared", "hosts", "0", "hosts: 0 is out of range (1 to 1000)" },
	{ "shared", "hosts", "1001", "hosts: 1001 is out of range (1 to 1000)" },
	{ "shared", "on_lost", "stop", "on_lost: \"stop\" is not one of share, hold" },
	{ "shared", "prefix", "", "prefix: must not be empty" },
	{ "shared", "name", A64 "a", "name: 65 bytes are too many (at most 64)" },
	{ "shared", "password_file", "hunter2", "password_file: must be an absolute path or credential:NAME" },
	{ "shared", "password_file", "", "" },
	{ "shared", "rediss", "x", "unknown key \"rediss\" in [shared]; did you mean redis?" },
	{ "shared", "rate", "3", "unknown key \"rate\" in [shared]; it belongs in [app 1234567890]" },
	{ "app 1", "shared", "true", "shared: \"true\" is not one of no, yes" },
	{ "queue", "max_aeg", "3s", "unknown key \"max_aeg\" in [queue]; did you mean max_age?" },
	{ "queue", "MAX_AGE", "3s", "unknown key \"MAX_AGE\" in [queue]; did you mean max_age?" },
	{ "queue", "colour", "red", "unknown key \"colour\" in [queue]" },
	{ "queue", "", "red", "unknown key \"\" in [queue]" },
	{ "daemon", "max_age", "3s", "unknown key \"max_age\" in [daemon]; it belongs in [queue]" },
	{ "queue", "rate", "3", "unknown key \"rate\" in [queue]; it belongs in [app 1234567890]" },
	{ "app 77", "queue_bytes", "1MiB", "unknown key \"queue_bytes\" in [app 77]; it belongs in [queue]" },
};
/* clang-format on */

static void test_a_refusal_names_key_finding_and_limits(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		struct config_error why = { "" };
		struct config *c = NULL;
		int r;

		assert_int_equal(config_new(&c), 0);
		assert_int_equal(config_section(c, refusals[i].section, 1, &why), 0);
		r = config_set(c, refusals[i].key, refusals[i].text, &why);
		assert_string_equal(why.text, refusals[i].sentence);
		assert_int_equal(r, *refusals[i].sentence ? CONFIG_E_INVALID : 0);
		config_free(c);
	}
}

static void test_sections_are_known_ones(void **state)
{
	static const struct {
		const char *text;
		const char *errors;
	} cases[] = {
		{ APP SECRET, "" },
		{ "[app 4294967295]\n" SECRET, "" },
		{ APP SECRET "[quue]\nmax_age = nonsense\n",
		  "3: unknown section [quue]; did you mean [queue]?\n" },
		{ APP SECRET "[ap 5]\nrate = 0\n",
		  "3: unknown section [ap 5]; did you mean [app 1234567890]?\n" },
		{ APP SECRET "[1234567891]\nrate = 0\n",
		  "3: unknown section [1234567891]; did you mean [app 1234567891]?\n" },
		{ APP SECRET "[4294967296]\n", "3: unknown section [4294967296]\n" },
		{ APP SECRET "[0]\n", "3: unknown section [0]\n" },
		{ APP SECRET "[kitchen]\n", "3: unknown section [kitchen]\n" },
		{ APP SECRET "[]\n", "3: unknown section []\n" },
		{ APP SECRET "[ daemon ]\n", "3: unknown section [ daemon ]\n" },
		{ "[app]\n" SECRET, "1: [app] names no AppID (as [app 1234567890] does)\n" },
		{ "[app 0]\n" SECRET, "1: [app 0] names no AppID (1 to 4294967295)\n" },
		{ "[app 4294967296]\n" SECRET,
		  "1: [app 4294967296] names no AppID (1 to 4294967295)\n" },
		{ "[app  1]\n" SECRET, "1: [app  1] names no AppID (1 to 4294967295)\n" },
		{ "[app x]\nrate = 0\n", "1: [app x] names no AppID (1 to 4294967295)\n"
					 "2: rate: 0 is out of range (1 to 100000)\n" },
		{ "max_age = 3s\n" APP SECRET,
		  "1: \"max_age\" stands before the first [section]\n" },
		{ APP SECRET "[queue]\nmax_age = 3s\n[queue]\nmax_age = 4s\nqueue_max = x\n",
		  "5: [queue] stands twice; the first is on line 3\n"
		  "6: max_age is given twice in [queue]\n"
		  "7: queue_max: \"x\" is not a whole number (such as 1 or 100)\n" },
		{ APP SECRET SECRET, "3: server_secret_file is given twice in [app 1]\n" },
		{ APP SECRET "rate = x\nrate = 5\n",
		  "3: rate: \"x\" is not a whole number (such as 1 or 100)\n"
		  "4: rate is given twice in [app 1]\n" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_refused(cases[i].text, cases[i].errors);
}

static void test_finishing_finds_what_concerns_several_keys(void **state)
{
	assert_refused("", "0: there is no [app APPID] section, so nothing could be sent\n");
	assert_refused(APP, "1: server_secret_file is missing in this section\n");
	assert_refused("[app 2]\n" SECRET "[app 1]\n" SECRET "[app 2]\n" SECRET "[app 2]\n" SECRET,
		       "5: [app 2] stands twice; the first is on line 1\n"
		       "7: [app 2] stands twice; the first is on line 1\n");
	assert_refused("[daemon]\nsocket = /s\ncontrol_socket = /s\n" APP SECRET,
		       "1: socket and control_socket are the same path\n");
	assert_refused("[daemon]\ncontrol_socket =\n" APP SECRET, "");
	assert_refused(APP SECRET "[shared]\nredis = unix:/r\n",
		       "3: hosts is missing in this section: how many are meant to share?\n");
	assert_refused(APP SECRET "[shared]\nredis = unix:/r\nhosts = 0\n",
		       "5: hosts: 0 is out of range (1 to 1000)\n");
	assert_refused(APP SECRET "[shared]\nredis = unix:/r\nhosts = 2\nuser = u\n",
		       "3: user is given without password_file\n");
	assert_refused(APP SECRET "[shared]\nredis = unix:/r\nhosts = 2\n", "");
	assert_refused(APP SECRET "[shared]\nhosts = 2\n", "");
}

static void test_an_app_inherits_from_queue_wherever_that_stands(void **state)
{
	struct config *c = configured(APP SECRET "[app 2]\n" SECRET
						 "overflow = oldest\nmax_age = 2s\nqueue_max = 7\n"
						 "[queue]\noverflow = newest\nmax_age = 500ms\n"
						 "queue_max = 9\n"
						 "[app 3]\n" SECRET "max_age = 10s\n");
	const struct app_config *a = config_app(c, 1);

	assert_int_equal(a->queue.overflow, OVERFLOW_NEWEST);
	assert_int_equal(a->queue.max_age, 500 * MSEC);
	assert_int_equal(a->queue.queue_max, 9);
	a = config_app(c, 2);
	assert_int_equal(a->queue.overflow, OVERFLOW_OLDEST);
	assert_int_equal(a->queue.max_age, 2 * SEC);
	assert_int_equal(a->queue.queue_max, 7);
	a = config_app(c, 3);
	assert_int_equal(a->queue.overflow, OVERFLOW_NEWEST);
	assert_int_equal(a->queue.max_age, 10 * SEC);
	assert_int_equal(a->queue.queue_max, 9);
	config_free(c);
}

static void test_a_queue_holds_what_can_be_sent_in_time(void **state)
{
	static const struct {
		const char *keys;
		uint64_t queue_max;
	} cases[] = {
		{ "", 300 },
		{ "test_mode = yes\n", 30 },
		{ "rate = 1\nmax_age = 10ms\n", 1 },
		{ "rate = 100000\nmax_age = 1m\n", 6000000 },
		{ "queue_max = 0\nrate = 7\n", 21 },
		{ "queue_max = 5\n", 5 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[128];
		struct config *c;

		snprintf(text, sizeof(text), "%s%s%s", APP, SECRET, cases[i].keys);
		c = configured(text);
		assert_int_equal(config_app(c, 1)->queue.queue_max, cases[i].queue_max);
		config_free(c);
	}
}

static void test_test_mode_decides_only_what_is_not_given(void **state)
{
	static const struct {
		const char *keys;
		uint64_t rate;
		enum is_test is_test;
	} cases[] = {
		{ "", 100, IS_TEST_UNSET },
		{ "test_mode = no\n", 100, IS_TEST_UNSET },
		{ "test_mode = yes\n", 10, IS_TEST_TRUE },
		{ "rate = 100\ntest_mode = yes\n", 100, IS_TEST_TRUE },
		{ "is_test = false\ntest_mode = yes\n", 10, IS_TEST_FALSE },
		{ "is_test = true\n", 100, IS_TEST_TRUE },
		{ "is_test =\ntest_mode = yes\n", 10, IS_TEST_TRUE },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[128];
		struct config *c;

		snprintf(text, sizeof(text), "%s%s%s", APP, SECRET, cases[i].keys);
		c = configured(text);
		assert_int_equal(config_app(c, 1)->rate, cases[i].rate);
		assert_int_equal(config_app(c, 1)->is_test, cases[i].is_test);
		config_free(c);
	}
}

static void test_apps_are_found_by_their_number(void **state)
{
	struct buffer text = { 0 };
	struct config *c;

	/* 1, 3, 5, … in an order of their own: 7 has no divisor in common with 1000. */
	for (unsigned i = 0; i < 1000; i++)
		buffer_printf(&text, "[app %u]\n" SECRET "rate = %u\n", i * 7 % 1000 * 2 + 1,
			      i * 7 % 1000 + 1);
	c = configured(text.data);
	for (uint32_t id = 1; id < 2000; id += 2) {
		assert_non_null(config_app(c, id));
		assert_int_equal(config_app(c, id)->app_id, id);
		assert_int_equal(config_app(c, id)->rate, id / 2 + 1);
		assert_null(config_app(c, id + 1));
	}
	assert_null(config_app(c, 0));
	assert_null(config_app(c, UINT32_MAX));
	buffer_deinit(&text);
	config_free(c);
}

static void test_only_listed_peers_are_admitted(void **state)
{
	uint32_t users[] = { 10, 11 };
	uint32_t groups[] = { 20, 21 };
	gid_t others[] = { 7, 21 };
	const struct app_config everyone = { 0 };
	const struct app_config by_user = { .users = { users, 2 } };
	const struct app_config by_group = { .groups = { groups, 2 } };
	const struct app_config by_both = { .users = { users, 2 }, .groups = { groups, 2 } };
	const struct peer stranger = { .uid = 20, .gid = 10 };
	const struct peer root = { .uid = 0, .gid = 0 };
	const struct peer user = { .uid = 11, .gid = 5 };
	const struct peer member = { .uid = 5, .gid = 20 };
	const struct peer also = { .uid = 5, .gid = 6, .groups = others, .n_groups = 2 };

	assert_true(config_admits(&everyone, &stranger));
	assert_false(config_admits(&by_user, &stranger));
	assert_false(config_admits(&by_user, &root));
	assert_true(config_admits(&by_user, &user));
	assert_false(config_admits(&by_user, &member));
	assert_false(config_admits(&by_group, &user));
	assert_true(config_admits(&by_group, &member));
	assert_true(config_admits(&by_group, &also));
	assert_false(config_admits(&by_group, &stranger));
	assert_true(config_admits(&by_both, &user));
	assert_true(config_admits(&by_both, &also));
	assert_false(config_admits(&by_both, &stranger));
}

static void test_what_is_open_is_known_without_a_look(void **state)
{
	uint32_t *user = malloc(sizeof(*user));
	struct buffer errors = { 0 };
	struct config *c;

	assert_non_null(user);
	assert_int_equal(config_new(&c), 0);
	feed(c, "[app 2]\n" SECRET "max_content = 16384\n[app 3]\n" SECRET "[app 1]\n" SECRET,
	     &errors);
	assert_int_equal(errors.len, 0);
	*user = 7;
	c->apps[1].users = (struct id_list){ user, 1 }; /* as the edge does */
	assert_int_equal(config_finish(c, on_finding, &errors), 0);
	assert_int_equal(config_open(c, config_app(c, 1)), 1024);
	assert_int_equal(config_open(c, config_app(c, 2)), 16384);
	assert_int_equal(config_open(c, config_app(c, 3)), 0);
	config_free(c);
}

/* Nothing in it is a default. */
static const char everything[] =
	"[daemon]\nsocket = /s\nsocket_mode = 0600\nsocket_group = chat\ncontrol_socket =\n"
	"max_clients = 7\nmax_line = 2KiB\nmax_reply_backlog = 5KiB\ndrain_timeout = 0\n"
	"startup_hold = 250ms\nlog_level = debug\nmetrics_listen = [::1]:9464\n\n"
	"[upstream]\nurl = http://127.0.0.1:8080/\nca_file = /ca\nproxy = http://p:3128\n"
	"connect_timeout = 1s\ntimeout = 2m\nhttp_version = 2\nmax_in_flight = 10000\n"
	"credit = none\nretries = 0\nretry_ambiguous = yes\nprobe_interval = 1h\n\n"
	"[queue]\nqueue_bytes = 1GiB\noverflow = newest\nmax_age = 1m\nqueue_max = 12\n\n"
	"[shared]\nredis = tcp:[::1]:6379\nuser = b\npassword_file = /p\nprefix = x/\nhosts = 4\n"
	"on_lost = hold\nname = a-1\n\n"
	"[app 5]\nserver_secret_file = credential:five\ntest_mode = yes\nis_test = false\n"
	"rate = 9\nburst = 8\nmax_content = 7\nroom_rate = 0\nroom_in_flight = 1\n"
	"shared = no\nallow_users = a, b\nallow_groups = c\noverflow = oldest\nmax_age = "
	"4s\nqueue_max = 3\n";

static void test_a_dump_holds_every_key_as_it_was_written(void **state)
{
	struct config *c = configured(everything);
	struct buffer dump = { 0 };

	config_dump(c, &dump);
	assert_string_equal(dump.data, everything);
	for (const struct config_key *k = config_keys; k->name; k++) {
		char line[80];

		snprintf(line, sizeof(line), "\n%s =", k->name);
		assert_non_null(strstr(everything, line));
	}
	buffer_deinit(&dump);
	config_free(c);
}

static void test_a_dump_reads_back_to_the_same(void **state)
{
	static const char *const texts[] = {
		everything,
		APP SECRET,
		APP SECRET "test_mode = yes\nroom_in_flight = 0\n[app 9]\n" SECRET
			   "max_age = 60000ms\n[app 8]\n" SECRET "is_test =\n",
		"[queue]\nqueue_max = 0\nmax_age = 1500ms\nqueue_bytes = 1025KiB\n" APP SECRET,
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct config *first = configured(texts[i]);
		struct buffer dump = { 0 };
		struct buffer again = { 0 };
		struct config *second;

		config_dump(first, &dump);
		second = configured(dump.data);
		config_dump(second, &again);
		assert_string_equal(again.data, dump.data);
		assert_int_equal(first->n_apps, second->n_apps);
		for (size_t n = 0; n < first->n_apps; n++) {
			assert_int_equal(first->apps[n].rate, second->apps[n].rate);
			assert_int_equal(first->apps[n].is_test, second->apps[n].is_test);
			assert_memory_equal(&first->apps[n].queue, &second->apps[n].queue,
					    sizeof(first->apps[n].queue));
		}
		buffer_deinit(&dump);
		buffer_deinit(&again);
		config_free(first);
		config_free(second);
	}
}

/* Takes the mark off every "#key = value", so that the sample gives all of it. */
static void uncomment(char *text)
{
	char *to = text;

	for (char *from = text; *from; from++) {
		bool begins = from == text || from[-1] == '\n';

		if (begins && from[0] == '#' && from[1] >= 'a' && from[1] <= 'z')
			continue;
		*to++ = *from;
	}
	*to = '\0';
}

static void test_the_sample_gives_the_defaults(void **state)
{
	struct config *plain = configured("[app 1234567890]\n"
					  "server_secret_file = "
					  "/etc/barraged/secrets.d/1234567890\n");
	struct buffer sample = { 0 };
	struct buffer dumps[3] = { { 0 } };
	struct config *c;

	config_dump(plain, &dumps[0]);
	config_sample(&sample);
	c = configured(sample.data);
	config_dump(c, &dumps[1]);
	config_free(c);
	uncomment(sample.data);
	c = configured(sample.data);
	config_dump(c, &dumps[2]);
	config_free(c);
	assert_string_equal(dumps[1].data, dumps[0].data);
	assert_string_equal(dumps[2].data, dumps[0].data);
	for (size_t i = 0; i < ARRAY_SIZE(dumps); i++)
		buffer_deinit(&dumps[i]);
	buffer_deinit(&sample);
	config_free(plain);
}

static void test_the_sample_fits_a_terminal(void **state)
{
	struct buffer sample = { 0 };
	const char *line;
	size_t n;

	config_sample(&sample);
	for (line = sample.data; *line; line += n + 1) {
		n = strcspn(line, "\n");
		assert_int_equal(line[n], '\n');
		assert_true(n <= 80);
		assert_true(n == 0 || line[n - 1] != ' ');
	}
	buffer_deinit(&sample);
}

static void test_an_appid_is_found_among_any_number(void **state)
{
	struct app_config apps[9];
	uint32_t ids[ARRAY_SIZE(apps)];

	for (uint32_t i = 0; i < ARRAY_SIZE(apps); i++) {
		ids[i] = 2 * i + 2;
		apps[i] = (struct app_config){ .app_id = ids[i] };
	}
	for (size_t n = 0; n <= ARRAY_SIZE(apps); n++) {
		const struct config c = { .apps = apps, .app_ids = ids, .n_apps = n };

		for (uint32_t id = 0; id <= 20; id++) {
			bool there = id % 2 == 0 && id > 0 && id / 2 <= n;

			assert_ptr_equal(config_app(&c, id), there ? &apps[id / 2 - 1] : NULL);
		}
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults_are_those_of_the_manual),
		cmocka_unit_test(test_an_app_has_the_defaults_of_the_manual),
		cmocka_unit_test(test_values_are_read_as_they_are_written),
		cmocka_unit_test(test_a_refusal_names_key_finding_and_limits),
		cmocka_unit_test(test_sections_are_known_ones),
		cmocka_unit_test(test_finishing_finds_what_concerns_several_keys),
		cmocka_unit_test(test_an_app_inherits_from_queue_wherever_that_stands),
		cmocka_unit_test(test_a_queue_holds_what_can_be_sent_in_time),
		cmocka_unit_test(test_test_mode_decides_only_what_is_not_given),
		cmocka_unit_test(test_apps_are_found_by_their_number),
		cmocka_unit_test(test_only_listed_peers_are_admitted),
		cmocka_unit_test(test_what_is_open_is_known_without_a_look),
		cmocka_unit_test(test_a_dump_holds_every_key_as_it_was_written),
		cmocka_unit_test(test_an_appid_is_found_among_any_number),
		cmocka_unit_test(test_a_dump_reads_back_to_the_same),
		cmocka_unit_test(test_the_sample_gives_the_defaults),
		cmocka_unit_test(test_the_sample_fits_a_terminal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
