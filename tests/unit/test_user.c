/* SPDX-License-Identifier: MIT */
#include "core/user.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* More than any number of idle users that is kept. */
#define CROWD 5000

static void test_a_user_is_one_however_often_it_comes(void **state)
{
	struct users us;
	struct user *a;
	struct user *b;

	users_init(&us);
	a = users_get(&us, 1000);
	b = users_get(&us, 0);
	assert_ptr_not_equal(a, b);
	assert_ptr_equal(users_get(&us, 1000), a);
	assert_ptr_equal(user_ref(a), a);
	assert_int_equal(us.n, 2);
	assert_int_equal(a->n_references, 3);

	users_put(&us, b);
	users_put(&us, a);
	users_put(&us, a);
	assert_int_equal(us.n, 1);
	users_put(&us, a);
	assert_int_equal(us.n, 0);
	users_deinit(&us);
}

static void test_each_breach_is_told_once_of_each_user(void **state)
{
	struct users us;
	struct user *a;
	struct user *b;

	users_init(&us);
	a = users_get(&us, 1);
	b = users_get(&us, 2);
	for (enum user_breach breach = 0; breach < _USER_BREACH_N; breach++) {
		assert_true(user_tell(a, breach));
		assert_false(user_tell(a, breach));
		assert_true(user_tell(b, breach));
	}
	users_forget_told(&us);
	assert_true(user_tell(a, USER_QUEUE));
	assert_false(user_tell(a, USER_QUEUE));
	users_put(&us, a);
	users_put(&us, b);
	users_deinit(&us);
}

static void test_who_was_told_of_is_known_when_it_comes_back(void **state)
{
	struct users us;
	struct user *a;

	users_init(&us);
	a = users_get(&us, 1);
	assert_true(user_tell(a, _USER_BREACH_N - 1));
	users_put(&us, a);
	assert_int_equal(us.n_idle, 1);

	a = users_get(&us, 1);
	assert_int_equal(us.n_idle, 0);
	assert_false(user_tell(a, _USER_BREACH_N - 1));
	users_put(&us, a);

	/* A reload has it told again, and so nothing has to be kept. */
	users_forget_told(&us);
	assert_int_equal(us.n, 0);
	assert_int_equal(us.n_idle, 0);
	users_deinit(&us);
}

static void test_however_many_come_and_go_few_are_kept(void **state)
{
	struct users us;
	size_t kept;

	users_init(&us);
	for (uint32_t uid = 0; uid < CROWD; uid++) {
		struct user *u = users_get(&us, uid);

		assert_true(user_tell(u, USER_CONNECTIONS));
		users_put(&us, u);
		assert_int_equal(us.n, us.n_idle);
	}
	kept = us.n;
	assert_in_range(kept, 1, CROWD / 2);
	assert_int_equal(users_get(&us, 0)->uid, 0); /* the first is among them */
	assert_int_equal(us.n_idle, kept - 1);
	users_put(&us, users_get(&us, 0));
	users_put(&us, users_get(&us, CROWD)); /* who was not told of is not kept */
	assert_int_equal(us.n, kept);
	users_forget_told(&us);
	assert_int_equal(us.n, 1);
	users_put(&us, list_first(&us.list, struct user, link));
	users_deinit(&us);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_user_is_one_however_often_it_comes),
		cmocka_unit_test(test_each_breach_is_told_once_of_each_user),
		cmocka_unit_test(test_who_was_told_of_is_known_when_it_comes_back),
		cmocka_unit_test(test_however_many_come_and_go_few_are_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
