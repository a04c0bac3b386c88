/* SPDX-License-Identifier: MIT */
#include "core/histogram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#define MS NSEC_PER_MSEC

static void test_a_duration_counts_in_the_first_bucket_that_holds_it(void **state)
{
	struct histogram h = { 0 };

	for (size_t i = 0; i < HISTOGRAM_BOUNDS; i++) {
		histogram_add(&h, histogram_bounds[i]);
		assert_int_equal(h.n[i], 1);
		histogram_add(&h, histogram_bounds[i] + 1);
		assert_int_equal(h.n[i + 1], 1);
		h = (struct histogram){ 0 };
	}
	histogram_add(&h, 0);
	histogram_add(&h, UINT64_MAX / 2);
	assert_int_equal(h.n[0], 1);
	assert_int_equal(h.n[HISTOGRAM_BOUNDS], 1);
	assert_int_equal(histogram_count(&h), 2);
	assert_int_equal(h.sum, UINT64_MAX / 2);
}

static void test_bounds_ascend(void **state)
{
	for (size_t i = 1; i < HISTOGRAM_BOUNDS; i++)
		assert_true(histogram_bounds[i] > histogram_bounds[i - 1]);
}

static void test_a_percentile_lies_in_the_bucket_of_its_duration(void **state)
{
	struct histogram h = { 0 };

	assert_int_equal(histogram_percentile(&h, 50), 0);
	for (int i = 0; i < 98; i++)
		histogram_add(&h, 15 * MS);
	histogram_add(&h, 1500 * MS);
	histogram_add(&h, 1500 * MS);
	assert_in_range(histogram_percentile(&h, 50), 10 * MS, 20 * MS);
	assert_int_equal(histogram_percentile(&h, 98), 20 * MS);
	assert_in_range(histogram_percentile(&h, 99), 1000 * MS, 2000 * MS);
	assert_int_equal(histogram_percentile(&h, 100), 2000 * MS);
}

static void test_of_what_is_beyond_all_bounds_only_that_is_known(void **state)
{
	struct histogram h = { 0 };

	histogram_add(&h, 100 * NSEC_PER_SEC);
	assert_int_equal(histogram_percentile(&h, 50), histogram_bounds[HISTOGRAM_BOUNDS - 1]);
}

static void test_large_counts_have_percentiles_too(void **state)
{
	struct histogram h = { .n[0] = UINT64_MAX / 4, .n[5] = UINT64_MAX / 4 };

	assert_in_range(histogram_percentile(&h, 50), 0, 1 * MS);
	assert_in_range(histogram_percentile(&h, 75), 20 * MS, 50 * MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_duration_counts_in_the_first_bucket_that_holds_it),
		cmocka_unit_test(test_bounds_ascend),
		cmocka_unit_test(test_a_percentile_lies_in_the_bucket_of_its_duration),
		cmocka_unit_test(test_of_what_is_beyond_all_bounds_only_that_is_known),
		cmocka_unit_test(test_large_counts_have_percentiles_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
