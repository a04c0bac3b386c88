/* SPDX-License-Identifier: MIT */
#include "core/tokens.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/credit.h"
#include "random.h"

#define MS NSEC_PER_MSEC

static void take_all(struct tokens *t, uint64_t limit, uint64_t now)
{
	uint64_t again;

	for (uint64_t i = 0; i < limit; i++)
		assert_int_equal(tokens_take(t, limit, 0, now, &again), 0);
	assert_int_equal(tokens_take(t, limit, 0, now, &again), TOKENS_E_NONE);
	assert_int_equal(again, NEVER);
}

static void test_a_token_comes_home_a_window_after_its_answer(void **state)
{
	struct tokens t = { 0 };
	uint64_t again;

	take_all(&t, 10, 0);
	tokens_give(&t, true, 40 * MS);
	assert_int_equal(tokens_take(&t, 10, 0, 40 * MS + NSEC_PER_SEC, &again), TOKENS_E_NONE);
	assert_in_range(again, 40 * MS + TOKENS_WINDOW, 40 * MS + TOKENS_WINDOW + 1);
	assert_int_equal(tokens_take(&t, 10, 0, again - 1, &again), TOKENS_E_NONE);
	assert_int_equal(tokens_take(&t, 10, 0, again, &again), 0);
	tokens_deinit(&t);
}

static void test_credit_brings_answered_tokens_home_earlier_and_no_others(void **state)
{
	struct tokens t = { 0 };
	uint64_t again;

	take_all(&t, 2, 0);
	tokens_give(&t, true, 50 * MS);
	tokens_give(&t, false, 60 * MS); /* timed out: may still be counted now */
	assert_int_equal(tokens_take(&t, 2, 30 * MS, 50 * MS + TOKENS_WINDOW - 30 * MS + 1, &again),
			 0);
	assert_int_equal(tokens_take(&t, 2, 30 * MS, 60 * MS + TOKENS_WINDOW - 2, &again),
			 TOKENS_E_NONE);
	assert_int_equal(tokens_take(&t, 2, 30 * MS, 60 * MS + TOKENS_WINDOW + 1, &again), 0);
	tokens_deinit(&t);
}

static void test_credit_that_is_withdrawn_counts_for_tokens_on_their_way_home(void **state)
{
	struct tokens t = { 0 };
	uint64_t again;
	uint64_t with_credit = 50 * MS + TOKENS_WINDOW - 40 * MS + 1;

	take_all(&t, 1, 0);
	tokens_give(&t, true, 50 * MS);
	assert_true(tokens_ready_at(&t, 1, 40 * MS, 60 * MS) <= with_credit);
	assert_int_equal(tokens_take(&t, 1, 0, with_credit, &again), TOKENS_E_NONE);
	tokens_deinit(&t);
}

static void test_a_lower_limit_waits_for_enough_to_come_home(void **state)
{
	struct tokens t = { 0 };
	uint64_t again;

	take_all(&t, 10, 0);
	for (uint64_t i = 0; i < 10; i++)
		tokens_give(&t, true, i * MS);
	/* Of ten away at most two may be, before a third is taken. */
	assert_int_equal(tokens_take(&t, 3, 0, 500 * MS, &again), TOKENS_E_NONE);
	assert_in_range(again, 7 * MS + TOKENS_WINDOW, 7 * MS + TOKENS_WINDOW + 1);
	assert_int_equal(tokens_take(&t, 3, 0, again, &again), 0);
	tokens_deinit(&t);
}

static void test_the_moment_told_is_the_moment_however_many_are_waited_for(void **state)
{
	const uint64_t credit = 100 * MS;
	struct tokens t = { 0 };
	uint64_t again;

	take_all(&t, 3, 0);
	tokens_give(&t, true, 0);
	tokens_give(&t, false, 50 * MS); /* home last, as it has no credit */
	tokens_give(&t, true, 60 * MS);
	/* At a limit of 1 all three have to be back. */
	again = tokens_ready_at(&t, 1, credit, 70 * MS);
	assert_int_equal(tokens_take(&t, 1, credit, again - 1, &again), TOKENS_E_NONE);
	assert_int_equal(tokens_take(&t, 1, credit, again, &again), 0);
	tokens_deinit(&t);
}

static void test_what_was_not_sent_is_at_home_at_once(void **state)
{
	struct tokens t = { 0 };
	uint64_t again;

	take_all(&t, 1, 0);
	tokens_put_back(&t);
	assert_int_equal(tokens_home_at(&t), 0);
	assert_int_equal(tokens_take(&t, 1, 0, 0, &again), 0);
	assert_int_equal(tokens_home_at(&t), NEVER);
	tokens_deinit(&t);
}

/* Whatever the order of takes and answers, N + 1 takes lie more than a window apart
 * measured from the answers of the first: the rule of tokens.c, checked by brute force. */
static void test_no_token_is_used_again_within_a_window_of_its_answer(void **state)
{
	uint64_t seed = random_seed();
	uint64_t now = NSEC_PER_SEC * 10;
	uint64_t answered[5000];
	size_t n_answered = 0;
	size_t held = 0;
	struct tokens t = { 0 };

	while (n_answered < ARRAY_SIZE(answered)) {
		uint64_t again = now;

		if (held > 0 && random_next(&seed) % 2) {
			tokens_give(&t, true, now);
			answered[n_answered++] = now;
			held--;
		} else if (tokens_take(&t, 7, 0, now, &again) == 0) {
			size_t recent = 0;

			held++;
			for (size_t i = n_answered; i > 0 && answered[i - 1] + NSEC_PER_SEC > now;
			     i--)
				recent++;
			assert_true(held + recent <= 7);
		}
		now += random_next(&seed) % (100 * MS);
	}
	while (held-- > 0)
		tokens_put_back(&t);
	tokens_deinit(&t);
}

static void test_a_token_taken_again_on_credit_is_one(void **state)
{
	const uint64_t credit = 50 * MS;
	struct tokens t = { 0 };
	uint64_t again;

	take_all(&t, 2, 0);
	tokens_give(&t, true, 0);
	tokens_give(&t, true, 10 * MS);
	assert_int_equal(tokens_resting(&t, 970 * MS), 2);
	assert_int_equal(tokens_take(&t, 1, credit, 970 * MS, &again), 0);
	assert_int_equal(tokens_resting(&t, 970 * MS), 2);
	/* The one that came home last was taken: the other is soon at home without credit. */
	assert_in_range(tokens_rested_at(&t, 2, 970 * MS), TOKENS_WINDOW, TOKENS_WINDOW + 1);
	assert_int_equal(tokens_resting(&t, TOKENS_WINDOW + 1), 1);
	assert_int_equal(tokens_rested_at(&t, 1, TOKENS_WINDOW + 1), NEVER);
	/* If it was not used, it is again what it was. */
	tokens_put_back(&t);
	assert_int_equal(tokens_resting(&t, TOKENS_WINDOW + 1), 1);
	assert_int_equal(tokens_resting(&t, TOKENS_WINDOW + 10 * MS + 1), 0);
	tokens_deinit(&t);
}

/* Tokens as things: each was last given back at some time, or is held. */
struct thing {
	bool held;
	uint64_t given;
};

static uint64_t resting_things(const struct thing *things, size_t n, uint64_t now)
{
	uint64_t resting = 0;

	for (size_t i = 0; i < n; i++)
		resting += things[i].held ||
			   (things[i].given > 0 && things[i].given + TOKENS_WINDOW >= now);
	return resting;
}

/* The one that may be taken and was given back last, or any that has rested. */
static struct thing *thing_to_take(struct thing *things, size_t n, uint64_t credit, uint64_t now)
{
	struct thing *best = NULL;

	for (size_t i = 0; i < n; i++) {
		struct thing *t = &things[i];

		if (t->held || (t->given > 0 && t->given + TOKENS_WINDOW + 1 - credit > now))
			continue;
		if (!best || t->given > best->given)
			best = t;
	}
	return best;
}

static void test_as_many_rest_as_if_each_had_a_name(void **state)
{
	const uint64_t credit = 80 * MS;
	struct thing things[7] = { { 0 } };
	uint64_t now = 2 * NSEC_PER_SEC;
	struct tokens t = { 0 };
	uint64_t random = random_seed();

	for (int step = 0; step < 20000; step++) {
		struct thing *thing = &things[random_next(&random) % 7];
		uint64_t again;

		now += 2 * (random_next(&random) % (100 * MS));
		if (random_next(&random) % 2) {
			thing = thing_to_take(things, 7, credit, now);
			assert_int_equal(tokens_take(&t, 7, credit, now, &again) == 0,
					 thing != NULL);
			if (thing)
				thing->held = true;
		} else if (thing->held) {
			tokens_give(&t, true, now);
			thing->held = false;
			thing->given = now;
		}
		assert_int_equal(tokens_resting(&t, now), resting_things(things, 7, now));
	}
	while (t.held > 0)
		tokens_put_back(&t);
	tokens_deinit(&t);
}

static void test_nothing_is_credited_on_few_samples(void **state)
{
	struct credit_estimate c = { 0 };

	for (int i = 1; i < CREDIT_MIN_SAMPLES; i++) {
		credit_learn(&c, 20 * MS, (uint64_t)i * MS);
		assert_int_equal(c.value, 0);
	}
	credit_learn(&c, 20 * MS, 90 * MS);
	assert_int_equal(c.value, 20 * MS);
	credit_forget(&c);
	assert_int_equal(c.value, 0);
}

static void test_the_margin_grows_with_the_spread_of_the_lowest(void **state)
{
	struct credit_estimate c = { 0 };

	for (uint64_t i = 0; i < 80; i++)
		credit_learn(&c, 20 * MS + i * MS / 10, i * MS);
	/* The 32nd lowest is 3.1 ms above the least. */
	assert_int_equal(c.value, 20 * MS - 2 * (31 * MS / 10));
	credit_learn(&c, 1 * MS, 90 * MS);
	assert_int_equal(c.value, 0);
}

static void test_a_longer_line_is_noticed_within_some_minutes(void **state)
{
	struct credit_estimate c = { 0 };
	uint64_t now = 0;

	for (; now < 100 * NSEC_PER_SEC; now += 10 * MS)
		credit_learn(&c, 20 * MS, now);
	for (; now < 300 * NSEC_PER_SEC; now += 10 * MS)
		credit_learn(&c, 50 * MS, now);
	assert_int_equal(c.value, 50 * MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_token_comes_home_a_window_after_its_answer),
		cmocka_unit_test(test_credit_brings_answered_tokens_home_earlier_and_no_others),
		cmocka_unit_test(test_credit_that_is_withdrawn_counts_for_tokens_on_their_way_home),
		cmocka_unit_test(test_a_lower_limit_waits_for_enough_to_come_home),
		cmocka_unit_test(test_the_moment_told_is_the_moment_however_many_are_waited_for),
		cmocka_unit_test(test_what_was_not_sent_is_at_home_at_once),
		cmocka_unit_test(test_no_token_is_used_again_within_a_window_of_its_answer),
		cmocka_unit_test(test_a_token_taken_again_on_credit_is_one),
		cmocka_unit_test(test_as_many_rest_as_if_each_had_a_name),
		cmocka_unit_test(test_nothing_is_credited_on_few_samples),
		cmocka_unit_test(test_the_margin_grows_with_the_spread_of_the_lowest),
		cmocka_unit_test(test_a_longer_line_is_noticed_within_some_minutes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
