/* SPDX-License-Identifier: MIT */
#include "core/command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/config.h"

static void test_each_operation_is_understood(void **state)
{
	static const struct {
		const char *line;
		struct command command;
	} cases[] = {
		{ "{\"op\":\"status\"}", { .op = COMMAND_STATUS } },
		{ " { \"op\" : \"reload\" } ", { .op = COMMAND_RELOAD } },
		{ "{\"op\":\"pause\",\"AppId\":4294967295}",
		  { .op = COMMAND_PAUSE, .app_id = UINT32_MAX } },
		{ "{\"AppId\":1,\"op\":\"resume\"}", { .op = COMMAND_RESUME, .app_id = 1 } },
		{ "{\"op\":\"metrics\"}", { .op = COMMAND_METRICS } },
		{ "{\"op\":\"metrics\",\"format\":\"prometheus\"}",
		  { .op = COMMAND_METRICS, .format = METRICS_PROMETHEUS } },
		{ "{\"op\":\"metrics\",\"format\":\"openmetrics\"}", { .op = COMMAND_METRICS } },
		{ "{\"op\":\"log\",\"level\":\"debug\"}", { .op = COMMAND_LOG, .level = 3 } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct command_error why;
		struct command c;

		assert_int_equal(command_parse(&c, cases[i].line, strlen(cases[i].line), &why), 0);
		assert_int_equal(c.op, cases[i].command.op);
		assert_int_equal(c.app_id, cases[i].command.app_id);
		assert_int_equal(c.level, cases[i].command.level);
		assert_int_equal(c.format, cases[i].command.format);
		assert_non_null(strstr(cases[i].line, command_name(c.op)));
	}
}

/* The levels of a command are those of the configuration, in the same order. */
static void test_levels_are_those_of_the_configuration(void **state)
{
	static const char *const levels[] = { "error", "warning", "info", "debug" };

	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		_cleanup_(config_freep) struct config *config = NULL;
		struct config_error error;
		struct command_error why;
		struct command c;
		char line[64];

		snprintf(line, sizeof(line), "{\"op\":\"log\",\"level\":\"%s\"}", levels[i]);
		assert_int_equal(command_parse(&c, line, strlen(line), &why), 0);
		assert_int_equal(config_new(&config), 0);
		assert_int_equal(config_section(config, "daemon", 1, &error), 0);
		assert_int_equal(config_set(config, "log_level", levels[i], &error), 0);
		assert_int_equal(c.level, config->log_level);
	}
}

static void test_anything_else_is_refused_with_a_sentence(void **state)
{
	static const char *const cases[][2] = {
		{ "x", "" },
		{ "[]", "" },
		{ "{}", "op is missing" },
		{ "{\"op\":1}", "op must be a string" },
		{ "{\"op\":\"stat\"}", "unknown op \"stat\"; did you mean \"status\"?" },
		{ "{\"op\":\"selfdestruct\"}", "unknown op \"selfdestruct\"" },
		{ "{\"op\":\"\"}", "unknown op \"\"" },
		{ "{\"op\":\"status\\u0000\"}", "" },
		{ "{\"op\":\"st\\u0061tus\"}", "unknown op \"st\\u0061tus\"" },
		{ "{\"op\":\"\xc3\xa4\x1b\"}", "" },
		{ "{\"op\":\"status\",\"op\":\"reload\"}", "op is given twice" },
		{ "{\"op\":\"status\",\"AppID\":1}",
		  "unknown field \"AppID\"; did you mean \"AppId\"?" },
		{ "{\"op\":\"status\",\"AppId\":1}", "status takes no AppId" },
		{ "{\"op\":\"pause\"}", "pause needs AppId" },
		{ "{\"op\":\"pause\",\"AppId\":0}",
		  "AppId must be an integer from 1 to 4294967295" },
		{ "{\"op\":\"pause\",\"AppId\":\"1\"}",
		  "AppId must be an integer from 1 to 4294967295" },
		{ "{\"op\":\"pause\",\"AppId\":4294967296}",
		  "AppId must be an integer from 1 to 4294967295" },
		{ "{\"op\":\"pause\",\"AppId\":1.0}",
		  "AppId must be an integer from 1 to 4294967295" },
		{ "{\"op\":\"log\"}", "log needs level" },
		{ "{\"op\":\"log\",\"level\":\"loud\"}", "unknown level \"loud\"" },
		{ "{\"op\":\"log\",\"level\":null}", "level must be a string" },
		{ "{\"op\":\"metrics\",\"format\":\"json\"}", "unknown format \"json\"" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct command_error why = { "" };
		struct command c;

		assert_int_equal(command_parse(&c, cases[i][0], strlen(cases[i][0]), &why),
				 COMMAND_E_INVALID);
		assert_true(strlen(why.text) > 0);
		if (*cases[i][1])
			assert_string_equal(why.text, cases[i][1]);
	}
}

static void test_a_long_word_is_cut(void **state)
{
	struct command_error why;
	struct command c;
	char line[4096] = "{\"op\":\"";
	size_t n = strlen(line);

	memset(line + n, 'x', sizeof(line) - n);
	memcpy(line + sizeof(line) - 3, "\"}", 3);
	assert_int_equal(command_parse(&c, line, sizeof(line) - 1, &why), COMMAND_E_INVALID);
	assert_true(strlen(why.text) < 128);
	assert_non_null(strstr(why.text, "xxx..."));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_operation_is_understood),
		cmocka_unit_test(test_levels_are_those_of_the_configuration),
		cmocka_unit_test(test_anything_else_is_refused_with_a_sentence),
		cmocka_unit_test(test_a_long_word_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
