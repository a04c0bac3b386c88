/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base.h"
#include "core/retry.h"

#define MS NSEC_PER_MSEC

static const struct {
	uint64_t base;
	unsigned doublings;
	uint64_t most;
	uint64_t span;
} cases[] = {
	{ 100 * MS, 0, 2000 * MS, 100 * MS },     { 100 * MS, 1, 2000 * MS, 200 * MS },
	{ 100 * MS, 4, 2000 * MS, 1600 * MS },    { 100 * MS, 5, 2000 * MS, 2000 * MS },
	{ 100 * MS, 63, 2000 * MS, 2000 * MS },   { 100 * MS, 64, 2000 * MS, 2000 * MS },
	{ 100 * MS, 9999, 5000 * MS, 5000 * MS }, { 1, 0, 1, 1 },
};

static void test_pauses_double_up_to_a_limit_and_spread_by_a_quarter(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t least = cases[i].span - cases[i].span / 4;
		uint64_t most = cases[i].span + cases[i].span / 4;

#define PAUSE(random) backoff(cases[i].base, cases[i].doublings, cases[i].most, random)
		assert_int_equal(PAUSE(0), least);
		assert_in_range(PAUSE(UINT32_MAX / 2 + 1), cases[i].span - 1, cases[i].span + 1);
		assert_in_range(PAUSE(UINT32_MAX), most - most / 1000 - 1, most);
		for (uint32_t random = 1; random > 0 && random < 1U << 31; random *= 2)
			assert_in_range(PAUSE(random), least, most);
#undef PAUSE
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pauses_double_up_to_a_limit_and_spread_by_a_quarter),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
