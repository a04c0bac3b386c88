/* SPDX-License-Identifier: MIT */
#include "core/wheel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "random.h"

#define TICK (UINT64_C(1) << WHEEL_TICK_SHIFT)

struct entry {
	struct list node;
	uint64_t at;
};

static struct wheel wheel; /* 64 KiB: not for the stack */

static void test_a_node_comes_out_within_a_tick_of_its_time(void **state)
{
	static const uint64_t after[] = { 0, 1, TICK - 1, TICK, 5 * TICK + 3, 60 * NSEC_PER_SEC };
	uint64_t start = 12345 * NSEC_PER_SEC + 678;

	for (size_t i = 0; i < ARRAY_SIZE(after); i++) {
		struct entry e = { .at = start + after[i] };

		wheel_init(&wheel, start);
		wheel_add(&wheel, &e.node, e.at);
		assert_true(wheel_next(&wheel) > e.at);
		assert_true(wheel_next(&wheel) <= e.at + TICK);
		assert_null(wheel_pop(&wheel, wheel_next(&wheel) - 1));
		assert_ptr_equal(wheel_pop(&wheel, wheel_next(&wheel)), &e.node);
		assert_int_equal(wheel_next(&wheel), NEVER);
	}
}

static void test_what_is_beyond_the_span_comes_out_early_rather_than_never(void **state)
{
	struct entry e = { .at = 1000 * NSEC_PER_SEC };

	wheel_init(&wheel, 0);
	wheel_add(&wheel, &e.node, e.at);
	assert_true(wheel_next(&wheel) <= 69 * NSEC_PER_SEC);
	assert_ptr_equal(wheel_pop(&wheel, 70 * NSEC_PER_SEC), &e.node);
}

static void test_a_node_that_left_is_not_waited_for(void **state)
{
	struct entry early = { .at = TICK };
	struct entry late = { .at = 9 * TICK };

	wheel_init(&wheel, 0);
	wheel_add(&wheel, &early.node, early.at);
	wheel_add(&wheel, &late.node, late.at);
	list_unlink(&early.node);
	assert_int_equal(wheel_next(&wheel), 10 * TICK);
	list_unlink(&late.node);
	assert_int_equal(wheel_next(&wheel), NEVER);
	assert_null(wheel_pop(&wheel, NSEC_PER_SEC * 100));
}

static void test_after_a_long_silence_all_come_out_at_once(void **state)
{
	struct entry e[100];
	uint64_t now = 3600 * NSEC_PER_SEC;
	size_t n = 0;

	wheel_init(&wheel, 0);
	for (size_t i = 0; i < ARRAY_SIZE(e); i++)
		wheel_add(&wheel, &e[i].node, i * NSEC_PER_SEC / 3);
	while (wheel_pop(&wheel, now))
		n++;
	assert_int_equal(n, ARRAY_SIZE(e));
	/* And what is added then is not thought to be old. */
	wheel_add(&wheel, &e[0].node, now + NSEC_PER_SEC);
	assert_null(wheel_pop(&wheel, now + NSEC_PER_SEC / 2));
	assert_non_null(wheel_pop(&wheel, now + NSEC_PER_SEC + TICK));
}

static void test_random_traffic_never_comes_late(void **state)
{
	uint64_t seed = random_seed();
	struct entry e[64];
	uint64_t now = random_next(&seed) % (NSEC_PER_SEC * 1000);

	wheel_init(&wheel, now);
	for (size_t i = 0; i < ARRAY_SIZE(e); i++)
		list_init(&e[i].node);
	for (int i = 0; i < 50000; i++) {
		struct entry *some = &e[random_next(&seed) % ARRAY_SIZE(e)];
		struct list *node;

		list_unlink(&some->node);
		some->at = now + random_next(&seed) % (60 * NSEC_PER_SEC);
		wheel_add(&wheel, &some->node, some->at);
		now += random_next(&seed) % (NSEC_PER_SEC / 5);
		while ((node = wheel_pop(&wheel, now)))
			assert_true(list_entry(node, struct entry, node)->at <= now);
		for (size_t k = 0; k < ARRAY_SIZE(e); k++)
			assert_true(!list_is_linked(&e[k].node) || e[k].at + TICK > now);
		assert_true(wheel_next(&wheel) > now);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_node_comes_out_within_a_tick_of_its_time),
		cmocka_unit_test(test_what_is_beyond_the_span_comes_out_early_rather_than_never),
		cmocka_unit_test(test_a_node_that_left_is_not_waited_for),
		cmocka_unit_test(test_after_a_long_silence_all_come_out_at_once),
		cmocka_unit_test(test_random_traffic_never_comes_late),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
