/* SPDX-License-Identifier: MIT */
#include "core/heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "random.h"

#define NODES 200

static void assert_top_is_least(const struct heap *h, const struct heap_node *nodes)
{
	const struct heap_node *least = NULL;
	const struct heap_node *top;

	for (size_t i = 0; i < NODES; i++) {
		if (heap_holds(&nodes[i]) && (!least || nodes[i].key < least->key))
			least = &nodes[i];
	}
	top = heap_top(h);
	if (!least)
		assert_null(top);
	else
		assert_true(top && top->key == least->key);
}

static void test_the_smallest_key_is_on_top_whatever_comes_and_goes(void **state)
{
	uint64_t seed = random_seed();
	struct heap_node nodes[NODES] = { 0 };
	struct heap h = { 0 };

	assert_int_equal(heap_reserve(&h, NODES), 0);
	for (int i = 0; i < 20000; i++) {
		struct heap_node *node = &nodes[random_next(&seed) % NODES];

		if (random_next(&seed) % 3 == 0)
			heap_remove(&h, node);
		else
			heap_set(&h, node, random_next(&seed) % 50);
		assert_top_is_least(&h, nodes);
	}
	for (size_t i = 0; i < NODES; i++)
		heap_remove(&h, &nodes[i]);
	heap_deinit(&h);
}

static void test_reserved_places_survive_growth(void **state)
{
	struct heap_node a = { 0 };
	struct heap_node b = { 0 };
	struct heap h = { 0 };

	assert_int_equal(heap_reserve(&h, 1), 0);
	heap_set(&h, &a, 2);
	assert_int_equal(heap_reserve(&h, 1000), 0);
	heap_set(&h, &b, 1);
	assert_ptr_equal(heap_top(&h), &b);
	heap_remove(&h, &b);
	assert_ptr_equal(heap_top(&h), &a);
	heap_remove(&h, &a);
	heap_deinit(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_smallest_key_is_on_top_whatever_comes_and_goes),
		cmocka_unit_test(test_reserved_places_survive_growth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
