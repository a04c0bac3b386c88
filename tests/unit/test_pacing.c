/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/limit.h"
#include "core/pacer.h"

#define MS NSEC_PER_MSEC

static const uint64_t rates[] = { 1, 3, 10, 100, 1000, 100000 };

/* Starts all that may be started in a backlog of ten seconds and returns the most that
 * any 100 ms held, not counting the first second, in which the rest is spent. */
static uint64_t most_in_100ms(uint64_t rate, uint64_t burst)
{
	static uint64_t starts[2000000];
	size_t n = 0;
	size_t from = 0;
	uint64_t most = 0;
	uint64_t now = 0;
	struct pacer p;

	pacer_init(&p, rate, burst, 0);
	pacer_set_busy(&p, true, rate, burst, 0);
	while (now < 10 * NSEC_PER_SEC) {
		uint64_t at = pacer_ready_at(&p, rate, burst, now);

		if (at > now) {
			now = at;
			continue;
		}
		pacer_spend(&p, rate);
		if (now >= NSEC_PER_SEC)
			starts[n++] = now;
	}
	for (size_t i = 0; i < n; i++) {
		while (starts[i] - starts[from] >= 100 * MS)
			from++;
		if (i - from + 1 > most)
			most = i - from + 1;
	}
	return most;
}

static void test_a_backlog_never_has_more_than_a_quarter_of_n_in_100_ms(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++)
		assert_in_range(most_in_100ms(rates[i], 10), 1, rates[i] < 4 ? 1 : rates[i] / 4);
}

static void test_a_rested_appid_may_send_its_burst_at_once_and_no_more(void **state)
{
	struct pacer p;
	uint64_t n = 0;

	pacer_init(&p, 100, 10, 0);
	while (pacer_ready_at(&p, 100, 10, 0) == 0 && n < 100) {
		pacer_spend(&p, 100);
		n++;
	}
	assert_int_equal(n, 10);
	/* An hour later it is no more. */
	for (n = 0; pacer_ready_at(&p, 100, 10, 3600 * NSEC_PER_SEC) == 3600 * NSEC_PER_SEC; n++)
		pacer_spend(&p, 100);
	assert_int_equal(n, 10);
}

static void test_rest_is_gathered_only_while_nothing_waits(void **state)
{
	struct pacer p;
	uint64_t n = 0;

	pacer_init(&p, 10, 10, 0);
	while (pacer_ready_at(&p, 10, 10, 0) == 0)
		pacer_spend(&p, 10);
	pacer_set_busy(&p, true, 10, 10, 0);
	for (; pacer_ready_at(&p, 10, 10, 5 * NSEC_PER_SEC) == 5 * NSEC_PER_SEC; n++)
		pacer_spend(&p, 10);
	assert_int_equal(n, 1);
	pacer_set_busy(&p, false, 10, 10, 5 * NSEC_PER_SEC);
	for (n = 0; pacer_ready_at(&p, 10, 10, 7 * NSEC_PER_SEC) == 7 * NSEC_PER_SEC; n++)
		pacer_spend(&p, 10);
	assert_int_equal(n, 10);
}

static void test_rest_is_lost_to_a_backlog_that_is_held(void **state)
{
	struct pacer p;
	uint64_t n = 0;

	pacer_init(&p, 10, 10, 0);
	pacer_set_busy(&p, true, 10, 10, 0);
	for (; pacer_ready_at(&p, 10, 10, NSEC_PER_SEC) == NSEC_PER_SEC; n++)
		pacer_spend(&p, 10);
	assert_int_equal(n, 1);
}

/* Timers have whole milliseconds, and what they are late must not be lost. */
static void test_a_small_burst_holds_no_backlog_back(void **state)
{
	for (uint64_t rate = 100; rate <= 400; rate *= 2) {
		uint64_t now = 0;
		uint64_t n = 0;
		struct pacer p;

		pacer_init(&p, rate, 1, 0);
		pacer_set_busy(&p, true, rate, 1, 0);
		while (now < 10 * NSEC_PER_SEC) {
			uint64_t at = pacer_ready_at(&p, rate, 1, now);

			if (at > now) {
				now = (at + MS - 1) / MS * MS;
				continue;
			}
			pacer_spend(&p, rate);
			n++;
		}
		assert_true(n >= rate * 10);
	}
}

static void test_too_fast_shrinks_n_once_a_second_and_lets_it_grow_back(void **state)
{
	struct limit l = { 0 };
	uint64_t now = 50 * NSEC_PER_SEC;

	assert_int_equal(limit_at(&l, 100, now), 100);
	assert_true(limit_shrink(&l, 100, 0, now));
	assert_int_equal(limit_at(&l, 100, now), 70);
	assert_false(limit_shrink(&l, 100, 0, now + 999 * MS));
	assert_int_equal(limit_at(&l, 100, now + NSEC_PER_SEC), 75);
	assert_true(limit_shrink(&l, 100, 0, now + NSEC_PER_SEC));
	assert_int_equal(limit_at(&l, 100, now + NSEC_PER_SEC), 52);
	assert_int_equal(limit_at(&l, 100, now + 60 * NSEC_PER_SEC), 100);
}

/* A host's part of N may grow from one to a thousand at once. */
static void test_what_was_saved_is_as_many_messages_at_another_rate(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(rates); j++) {
			struct pacer p;
			uint64_t n = 0;

			pacer_init(&p, rates[i], 10, 0);
			while (pacer_ready_at(&p, rates[j], 10, 0) == 0 && n < 100) {
				pacer_spend(&p, rates[j]);
				n++;
			}
			assert_in_range(n, 9, 10);
		}
	}
}

static void test_what_is_allowed_comes_on_top(void **state)
{
	struct pacer p;
	uint64_t n = 0;

	pacer_init(&p, 10, 1, 0);
	pacer_set_busy(&p, true, 10, 1, 0);
	pacer_spend(&p, 10);
	assert_true(pacer_ready_at(&p, 10, 1, 0) > 0);
	pacer_allow(&p, 3, 12, 1, 0);
	for (; pacer_ready_at(&p, 12, 1, 0) == 0; n++)
		pacer_spend(&p, 12);
	assert_int_equal(n, 3);
}

static void test_n_is_never_below_one_and_never_above_itself(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		struct limit l = { 0 };
		uint64_t now = 1;

		for (int k = 0; k < 100; k++, now += NSEC_PER_SEC) {
			limit_shrink(&l, rates[i], 0, now);
			assert_in_range(limit_at(&l, rates[i], now), 1, rates[i]);
		}
		assert_true(limit_whole_at(&l, rates[i]) <= now + 20 * NSEC_PER_SEC);
		assert_int_equal(limit_at(&l, rates[i], limit_whole_at(&l, rates[i])), rates[i]);
	}
}

static void test_retry_after_holds_whatever_n_is(void **state)
{
	struct limit l = { 0 };

	limit_shrink(&l, 100, 3 * NSEC_PER_SEC, NSEC_PER_SEC);
	assert_int_equal(l.held_until, 4 * NSEC_PER_SEC);
	limit_shrink(&l, 100, NSEC_PER_SEC, NSEC_PER_SEC + MS);
	assert_int_equal(l.held_until, 4 * NSEC_PER_SEC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_backlog_never_has_more_than_a_quarter_of_n_in_100_ms),
		cmocka_unit_test(test_a_rested_appid_may_send_its_burst_at_once_and_no_more),
		cmocka_unit_test(test_rest_is_gathered_only_while_nothing_waits),
		cmocka_unit_test(test_rest_is_lost_to_a_backlog_that_is_held),
		cmocka_unit_test(test_a_small_burst_holds_no_backlog_back),
		cmocka_unit_test(test_what_was_saved_is_as_many_messages_at_another_rate),
		cmocka_unit_test(test_what_is_allowed_comes_on_top),
		cmocka_unit_test(test_too_fast_shrinks_n_once_a_second_and_lets_it_grow_back),
		cmocka_unit_test(test_n_is_never_below_one_and_never_above_itself),
		cmocka_unit_test(test_retry_after_holds_whatever_n_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
