/* SPDX-License-Identifier: MIT */
/* What operators are told, held against what is, while much goes on in virtual time; and
 * what they steer by it. */
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/metrics.h"
#include "core/status.h"
#include "core/text.h"
#include "sim.h"

#define MSEC NSEC_PER_MSEC

static const struct facts facts = {
	.version = "0.0.1-\"a\\b\n",
	.config_path = "/etc/barraged/\"x\".conf",
	.phase = "running",
	.pid = 4711,
	.started_at = 1500 * (int64_t)NSEC_PER_MSEC,
	.uptime = 3 * NSEC_PER_SEC,
	.reload_ok = true,
	.reloaded_at = 2 * (int64_t)NSEC_PER_SEC,
	.clients = 3,
	.replies_discarded = 5,
	.clock_skew = -1250 * (int64_t)NSEC_PER_MSEC,
};

static struct sim *begin(struct host **h, const struct sim_config *c)
{
	struct sim *sim = sim_new(1, &network_wan, LIMITER_SLIDING_LOG);

	*h = sim_host(sim, c);
	return sim;
}

static void end(struct sim *sim)
{
	sim_settle(sim);
	if (*sim->failure)
		fail_msg("%s", sim->failure);
	sim_free(sim);
}

static struct buffer scrape(const struct host *h, enum metrics_format format)
{
	struct buffer text = { 0 };

	metrics_print(&text, format, &h->scheduler, &facts, h->sim->now);
	assert_false(text.failed);
	return text;
}

/* The value of a series, which must be there once. */
static uint64_t value(const struct buffer *text, const char *series)
{
	size_t n = strlen(series);
	const char *found = NULL;
	uint64_t result;

	for (const char *line = text->data; *line; line += strcspn(line, "\n") + 1) {
		if (strncmp(line, series, n) != 0 || line[n] != ' ')
			continue;
		if (found)
			fail_msg("%s is there twice", series);
		found = line + n + 1;
	}
	if (!found)
		fail_msg("%s is not there", series);
	if (!parse_u64(found, strcspn(found, "\n"), UINT64_MAX, &result))
		fail_msg("%s has no whole number", series);
	return result;
}

static uint64_t value_of(const struct buffer *text, const char *name, unsigned app)
{
	char series[128];

	snprintf(series, sizeof(series), "%s{app=\"%u\"}", name, app);
	return value(text, series);
}

static uint64_t fates_of(const struct buffer *text, unsigned app)
{
	uint64_t sum = 0;
	char series[128];

	for (enum fate f = 0; f < FATE_INVALID; f++) {
		snprintf(series, sizeof(series),
			 "barraged_requests_total{app=\"%u\",outcome=\"%s\",reason=\"%s\"}", app,
			 fate_outcome_name(f), fate_reason_name(f));
		sum += value(text, series);
	}
	return sum;
}

static void check_ledger(const struct host *h, unsigned app)
{
	_cleanup_(buffer_deinit) struct buffer text = scrape(h, METRICS_OPENMETRICS);

	assert_int_equal(fates_of(&text, app) + value_of(&text, "barraged_queued", app) +
				 value_of(&text, "barraged_waiting", app) +
				 value_of(&text, "barraged_in_flight", app),
			 value_of(&text, "barraged_lines_total", app));
	assert_int_equal(value(&text, "barraged_ledger_consistent"), 1);
}

/* A server that has every kind of answer. */
static void answer_anything(struct sim *sim, struct flight *f)
{
	static const int64_t codes[] = { 0, 0, 0, 50012, 206, 207, 1, 50009 };
	uint64_t i = sim_below(sim, ARRAY_SIZE(codes) + 1);

	if (i < ARRAY_SIZE(codes))
		f->code = codes[i];
	else
		f->result = TRANSPORT_TIMEOUT;
}

static void test_every_scrape_adds_up_while_much_goes_on(void **state)
{
	const struct sim_config c = { .app = "room_rate = 0; max_age = 500ms", .n_apps = 2 };
	struct host *h;
	struct sim *sim = begin(&h, &c);
	uint64_t seen_waiting = 0;

	sim->server.answer = answer_anything;
	for (uint32_t app = 1; app <= 2; app++)
		sim_write(sim,
			  &(struct writer){ .host = h, .app_id = app, .rooms = 20, .rate = 150 });
	for (int i = 0; i < 300; i++) {
		sim_run(sim, 37 * MSEC);
		check_ledger(h, 1);
		check_ledger(h, 2);
		seen_waiting += h->scheduler.apps[0]->n[REQUEST_WAITING];
	}
	assert_true(seen_waiting > 0);
	end(sim);
}

static void test_every_metric_is_there_from_the_start(void **state)
{
	struct host *h;
	struct sim *sim = begin(&h, &(struct sim_config){ 0 });
	_cleanup_(buffer_deinit) struct buffer text = scrape(h, METRICS_OPENMETRICS);

	for (const struct metric *m = metrics; m->name; m++) {
		char sample[128];

		snprintf(sample, sizeof(sample), "\n%s%s", m->name,
			 m->type == METRIC_HISTOGRAM ? "_bucket" : metric_suffix(m));
		if (!strstr(text.data, sample))
			fail_msg("%s has no sample", m->name);
		if (*m->unit && strcmp(m->name + strlen(m->name) - strlen(m->unit), m->unit) != 0)
			fail_msg("%s does not end with its unit", m->name);
		assert_true(strlen(m->help) > 0);
	}
	assert_int_equal(fates_of(&text, 1), 0);
	assert_int_equal(value(&text, "barraged_requests_total{app=\"\",outcome=\"rejected\","
				      "reason=\"too_long\"}"),
			 0);
	assert_int_equal(value(&text, "barraged_api_codes_total{app=\"1\",code=\"0\"}"), 0);
	assert_int_equal(value(&text, "barraged_api_codes_total{app=\"1\",code=\"other\"}"), 0);
	assert_int_equal(value(&text, "barraged_app_state{app=\"1\",state=\"running\"}"), 1);
	assert_int_equal(value(&text, "barraged_app_state{app=\"1\",state=\"halted\"}"), 0);
	assert_int_equal(value_of(&text, "barraged_tokens", 1), 100);
	end(sim);
}

static void test_what_the_edge_knows_is_printed(void **state)
{
	struct host *h;
	struct sim *sim = begin(&h, &(struct sim_config){ 0 });
	_cleanup_(buffer_deinit) struct buffer text = scrape(h, METRICS_OPENMETRICS);

	assert_non_null(
		strstr(text.data, "\nbarraged_build_info{version=\"0.0.1-\\\"a\\\\b\\n\"} 1\n"));
	assert_non_null(strstr(text.data, "\nbarraged_start_time_seconds 1.5\n"));
	assert_non_null(strstr(text.data, "\nbarraged_clock_skew_seconds -1.25\n"));
	assert_int_equal(value(&text, "barraged_config_last_reload_successful"), 1);
	assert_int_equal(value(&text, "barraged_clients"), 3);
	assert_int_equal(value(&text, "barraged_replies_discarded_total"), 5);
	end(sim);
}

static void test_what_is_used_is_told_beside_what_there_is(void **state)
{
	const struct sim_config c = { .upstream = "max_in_flight = 7",
				      .queue = "queue_bytes = 1MiB",
				      .app = "rate = 20; queue_max = 30" };
	struct host *h;
	struct sim *sim = begin(&h, &c);
	_cleanup_(buffer_deinit) struct buffer text = scrape(h, METRICS_OPENMETRICS);

	assert_int_equal(value(&text, "barraged_max_in_flight"), 7);
	assert_int_equal(value(&text, "barraged_queue_max_bytes"), 1 << 20);
	assert_int_equal(value_of(&text, "barraged_rate_max", 1), 20);
	assert_int_equal(value_of(&text, "barraged_queue_max", 1), 30);
	end(sim);
}

static void test_the_two_formats_differ_only_in_their_comments(void **state)
{
	struct host *h;
	struct sim *sim = begin(&h, &(struct sim_config){ 0 });
	_cleanup_(buffer_deinit) struct buffer open = scrape(h, METRICS_OPENMETRICS);
	_cleanup_(buffer_deinit) struct buffer old = scrape(h, METRICS_PROMETHEUS);
	const char *a = open.data;
	const char *b = old.data;

	assert_non_null(strstr(open.data, "# TYPE barraged_lines counter\n"));
	assert_non_null(strstr(open.data, "# UNIT barraged_wait_seconds seconds\n"));
	assert_string_equal(open.data + open.len - strlen("\n# EOF\n"), "\n# EOF\n");
	assert_non_null(strstr(old.data, "# TYPE barraged_lines_total counter\n"));
	assert_non_null(strstr(old.data, "# TYPE barraged_build_info gauge\n"));
	assert_null(strstr(old.data, "# UNIT"));
	while (*a || *b) {
		size_t n = strcspn(a, "\n") + 1;
		size_t m = strcspn(b, "\n") + 1;

		if (*a == '#') {
			a += n;
		} else if (*b == '#') {
			b += m;
		} else {
			assert_int_equal(n, m);
			assert_memory_equal(a, b, n);
			a += n;
			b += m;
		}
	}
	end(sim);
}

/* A server that makes up another code each time. */
static void answer_endlessly(struct sim *sim, struct flight *f)
{
	static int64_t code = 7000000;

	f->code = code++;
}

static void test_return_codes_do_not_fill_whoever_collects_them(void **state)
{
	struct host *h;
	struct sim *sim = begin(&h, &(struct sim_config){ 0 });
	size_t n = 0;

	sim->server.answer = answer_endlessly;
	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 9, .rate = 90 });
	sim_run(sim, 5 * SEC);
	{
		_cleanup_(buffer_deinit) struct buffer text = scrape(h, METRICS_OPENMETRICS);

		for (const char *at = text.data; (at = strstr(at, "\nbarraged_api_codes_total{"));
		     at++)
			n++;
		assert_in_range(n, APP_CODES + 1, APP_CODES + 2);
		assert_true(value(&text, "barraged_api_codes_total{app=\"1\",code=\"other\"}") > 0);
	}
	end(sim);
}

static const cJSON *member(const cJSON *tree, const char *name)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(tree, name);

	if (!m)
		fail_msg("no %s", name);
	return m;
}

static cJSON *ask(const struct host *h)
{
	_cleanup_(buffer_deinit) struct buffer text = { 0 };
	cJSON *tree;

	buffer_puts(&text, "{");
	status_print(&text, &h->scheduler, &facts, h->sim->now);
	buffer_puts(&text, "}");
	assert_false(text.failed);
	tree = cJSON_ParseWithOpts(text.data, NULL, 1);
	assert_non_null(tree);
	return tree;
}

/* The first AppID's state. */
static void assert_state(const struct host *h, const char *state)
{
	_cleanup_(buffer_deinit) struct buffer text = scrape(h, METRICS_OPENMETRICS);
	char series[128];
	cJSON *tree = ask(h);
	const cJSON *app = member(tree, "apps")->child;

	assert_string_equal(member(app, "state")->valuestring, state);
	cJSON_Delete(tree);
	snprintf(series, sizeof(series), "barraged_app_state{app=\"1\",state=\"%s\"}", state);
	assert_int_equal(value(&text, series), 1);
}

static void test_the_status_tells_what_is(void **state)
{
	const struct sim_config c = { .app = "rate = 10; room_rate = 0; queue_max = 30" };
	struct host *h;
	struct sim *sim = begin(&h, &c);
	const cJSON *app;
	cJSON *tree;

	for (int i = 0; i < 60; i++)
		sim_submit(h, 1, 1, CLASS_CHAT, 0, 0);
	sim_run(sim, 1500 * MSEC);
	tree = ask(h);
	app = member(tree, "apps")->child;
	assert_string_equal(member(tree, "version")->valuestring, facts.version);
	assert_string_equal(member(member(tree, "config"), "path")->valuestring, facts.config_path);
	assert_int_equal(member(member(tree, "upstream"), "credit_us")->valueint, 0);
	assert_int_equal(member(app, "AppId")->valueint, 1);
	assert_int_equal(member(app, "lines")->valueint, 60);
	assert_int_equal(member(app, "queued")->valueint,
			 (int)h->scheduler.apps[0]->n[REQUEST_QUEUED]);
	assert_int_equal(member(app, "oldest_ms")->valueint, 1500);
	/* Ten left at once, thirty had a place. */
	assert_int_equal(member(member(app, "reasons"), "queue_full")->valueint, 20);
	assert_int_equal(member(member(app, "fates"), "dropped")->valueint, 20);
	assert_int_equal(member(member(app, "fates"), "sent")->valueint, (int)h->fates[FATE_SENT]);
	assert_in_range(member(member(app, "waited_ms"), "p99")->valueint, 1, 2000);
	assert_true(cJSON_IsTrue(member(tree, "ledger_consistent")));
	cJSON_Delete(tree);
	sim_run(sim, 5 * SEC);
	end(sim);
}

static void answer_busy(struct sim *sim, struct flight *f)
{
	f->code = 1;
}

static void test_what_waits_for_another_try_has_its_age(void **state)
{
	struct host *h;
	struct sim *sim = begin(&h, &(struct sim_config){ 0 });
	const cJSON *app;
	cJSON *tree;

	sim->server.answer = answer_busy;
	sim_submit(h, 1, 1, CLASS_CHAT, 0, 0);
	while (h->scheduler.apps[0]->n[REQUEST_WAITING] == 0 && h->fates[FATE_API] == 0)
		sim_run(sim, MSEC);
	sim_run(sim, 10 * MSEC);
	assert_int_equal(h->scheduler.apps[0]->n[REQUEST_WAITING], 1);
	tree = ask(h);
	app = member(tree, "apps")->child;
	assert_int_equal(member(app, "waiting")->valueint, 1);
	assert_in_range(member(app, "oldest_ms")->valueint, 11, 1000);
	cJSON_Delete(tree);
	sim->server.answer = NULL;
	end(sim);
}

static void pause_first(struct host *h, bool paused)
{
	scheduler_pause(&h->scheduler, h->scheduler.apps[0], paused);
	sim_turn(h);
}

static void test_what_is_paused_waits_and_ages_and_goes_on(void **state)
{
	const struct sim_config c = { .app = "max_age = 2s" };
	struct host *h;
	struct sim *sim = begin(&h, &c);

	pause_first(h, true);
	assert_state(h, "paused");
	sim_submit(h, 1, 1, CLASS_CHAT, 0, 0);
	sim_run(sim, SEC);
	sim_submit(h, 1, 1, CLASS_CHAT, 0, 0);
	sim_run(sim, 1500 * MSEC);
	assert_int_equal(h->seen[1].arrivals, 0);
	assert_int_equal(h->fates[FATE_EXPIRED], 1);

	assert_int_equal(sim_reload(h, &c), 0);
	sim_run(sim, 100 * MSEC);
	assert_state(h, "paused");
	assert_int_equal(h->seen[1].arrivals, 0);

	pause_first(h, false);
	sim_run(sim, 300 * MSEC);
	assert_int_equal(h->fates[FATE_SENT], 1);
	assert_state(h, "running");
	end(sim);
}

static void test_a_removed_appid_comes_back_running(void **state)
{
	const struct sim_config both = { .n_apps = 2 };
	const struct sim_config second = { .first_app = 2 };
	struct host *h;
	struct sim *sim = begin(&h, &both);

	sim_submit(h, 1, 1, CLASS_CHAT, 0, 0);
	sim_run(sim, MSEC);
	pause_first(h, true);
	assert_int_equal(sim_reload(h, &second), 0);
	{
		_cleanup_(buffer_deinit) struct buffer text = scrape(h, METRICS_OPENMETRICS);

		assert_int_equal(value(&text, "barraged_app_state{app=\"1\",state=\"removed\"}"),
				 1);
		assert_int_equal(value_of(&text, "barraged_in_flight", 1), 1);
		assert_int_equal(value_of(&text, "barraged_tokens", 1), 0);
		assert_int_equal(value_of(&text, "barraged_rate_max", 1), 0);
		assert_int_equal(value_of(&text, "barraged_queue_max", 1), 0);
	}
	{
		/* Whatever is still under way of it is told after those in force. */
		cJSON *tree = ask(h);
		const cJSON *app = member(tree, "apps")->child;

		assert_int_equal(member(app, "AppId")->valueint, 2);
		app = app->next;
		assert_int_equal(member(app, "AppId")->valueint, 1);
		assert_string_equal(member(app, "state")->valuestring, "removed");
		assert_int_equal(member(app, "in_flight")->valueint, 1);
		assert_int_equal(member(app, "limit")->valueint, 0);
		assert_true(cJSON_IsTrue(member(tree, "ledger_consistent")));
		cJSON_Delete(tree);
	}
	assert_int_equal(sim_reload(h, &both), 0);
	sim_run(sim, 100 * MSEC);
	assert_state(h, "running");
	end(sim);
}

static void answer_206(struct sim *sim, struct flight *f)
{
	f->code = 206;
}

static void answer_halting(struct sim *sim, struct flight *f)
{
	f->code = 100000005;
}

static void test_each_trouble_has_its_state(void **state)
{
	const struct sim_config c = { .daemon = "startup_hold = 1s" };
	struct host *h;
	struct sim *sim = begin(&h, &c);

	assert_state(h, "held");
	sim_run(sim, 1001 * MSEC);
	assert_state(h, "running");
	sim->server.answer = answer_206;
	sim_submit(h, 1, 1, CLASS_CHAT, 0, 0);
	sim_run(sim, 300 * MSEC);
	assert_state(h, "slowed");
	{
		_cleanup_(buffer_deinit) struct buffer text = scrape(h, METRICS_OPENMETRICS);

		assert_in_range(value_of(&text, "barraged_rate", 1), 70, 99);
		assert_int_equal(value_of(&text, "barraged_rate_max", 1), 100);
	}
	sim->server.answer = answer_halting;
	sim_submit(h, 1, 1, CLASS_CHAT, 0, 0);
	sim_run(sim, 5 * SEC);
	assert_state(h, "halted");
	sim->server.answer = NULL;
	end(sim);
}

static void test_attempts_and_waits_are_observed(void **state)
{
	struct host *h;
	struct sim *sim = begin(&h, &(struct sim_config){ .app = "room_rate = 0" });

	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 9, .rate = 150 });
	sim_run(sim, 10 * SEC);
	{
		_cleanup_(buffer_deinit) struct buffer text = scrape(h, METRICS_OPENMETRICS);

		assert_int_equal(value_of(&text, "barraged_wait_seconds_count", 1),
				 h->fates[FATE_SENT]);
		assert_int_equal(value_of(&text, "barraged_upstream_seconds_count", 1),
				 h->fates[FATE_SENT]);
		/* The queue is full of what has waited 2 s and more. */
		assert_in_range(histogram_percentile(&h->scheduler.apps[0]->waits, 99), 2 * SEC,
				3 * SEC);
	}
	end(sim);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_scrape_adds_up_while_much_goes_on),
		cmocka_unit_test(test_every_metric_is_there_from_the_start),
		cmocka_unit_test(test_what_the_edge_knows_is_printed),
		cmocka_unit_test(test_what_is_used_is_told_beside_what_there_is),
		cmocka_unit_test(test_the_two_formats_differ_only_in_their_comments),
		cmocka_unit_test(test_return_codes_do_not_fill_whoever_collects_them),
		cmocka_unit_test(test_the_status_tells_what_is),
		cmocka_unit_test(test_what_waits_for_another_try_has_its_age),
		cmocka_unit_test(test_what_is_paused_waits_and_ages_and_goes_on),
		cmocka_unit_test(test_a_removed_appid_comes_back_running),
		cmocka_unit_test(test_each_trouble_has_its_state),
		cmocka_unit_test(test_attempts_and_waits_are_observed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
