/* SPDX-License-Identifier: MIT */
/* What no end-to-end test can bring about: accounts that do not balance. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "edge/checks.h"

static void on_fate(void *arg, struct request *r, const struct fate_report *f)
{
}

static void on_event(void *arg, const struct scheduler_event *e)
{
}

static int on_random(void *arg, void *out, size_t n)
{
	memset(out, 0, n);
	return 0;
}

static const struct scheduler_ops ops = { .fate = on_fate, .event = on_event, .random = on_random };

/* What @c logs when it looks. */
static const char *checked(struct checks *c, const struct scheduler *s, uint64_t now)
{
	static const struct listener passed = { .fd = -1, .lock = -1 };
	static char text[512];
	int ends[2];
	int kept = dup(STDERR_FILENO);
	ssize_t n;

	assert_int_equal(pipe(ends), 0);
	assert_true(kept >= 0 && dup2(ends[1], STDERR_FILENO) >= 0);
	close(ends[1]);
	checks_run(c, s, &passed, now);
	assert_true(dup2(kept, STDERR_FILENO) >= 0);
	close(kept);
	n = read(ends[0], text, sizeof(text) - 1);
	close(ends[0]);
	assert_true(n >= 0);
	text[n] = '\0';
	return text;
}

static void test_accounts_that_do_not_balance_are_told_once(void **state)
{
	static const char bug[] = "the ledger does not add up";
	struct app_config app = { .app_id = 1, .secret = "secret", .rate = 1, .burst = 1 };
	struct config config = { .apps = &app, .app_ids = &app.app_id, .n_apps = 1 };
	struct checks c = { 0 };
	struct scheduler s;

	assert_int_equal(scheduler_init(&s, NULL, &ops, NULL, NSEC_PER_SEC), 0);
	assert_int_equal(scheduler_configure(&s, &config, NSEC_PER_SEC), 0);
	assert_string_equal(checked(&c, &s, NSEC_PER_SEC), "");
	s.apps[0]->accepted++;
	/* Too soon after the last time. */
	assert_string_equal(checked(&c, &s, 2 * NSEC_PER_SEC - 1), "");
	assert_non_null(strstr(checked(&c, &s, 2 * NSEC_PER_SEC), bug));
	assert_null(strstr(checked(&c, &s, 4 * NSEC_PER_SEC), bug));
	s.apps[0]->accepted--;
	assert_null(strstr(checked(&c, &s, 6 * NSEC_PER_SEC), bug));
	s.apps[0]->accepted++;
	assert_non_null(strstr(checked(&c, &s, 8 * NSEC_PER_SEC), bug));
	s.apps[0]->accepted--;
	scheduler_deinit(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accounts_that_do_not_balance_are_told_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
