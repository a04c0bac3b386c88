/* SPDX-License-Identifier: MIT */
/* What several hosts make of one budget, each fault by itself and in figures; many.c has
 * them all at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "many.h"

#define ENGINE_WAY (250 * NSEC_PER_USEC) /* half a millisecond away */

static struct host *hosts[SIM_HOSTS];
static char app_keys[64];
static char pledges[SIM_HOSTS][SHARED_INCARNATION];
static const char *upstream_keys = "timeout = 2s";

/* The host of that number among @k, or its next process. */
static void start(struct sim *sim, unsigned i, unsigned k, unsigned apps, const char *on_lost)
{
	char name[16];

	(void)snprintf(name, sizeof(name), "h%u", i);
	hosts[i] = many_host(sim, &(struct many_host){ .name = name,
						       .on_lost = on_lost,
						       .app = app_keys,
						       .upstream = upstream_keys,
						       .hosts = k,
						       .n_apps = apps,
						       .way = ENGINE_WAY,
						       .pledge = pledges[i] });
}

/* A world of @k hosts. */
static struct sim *begin_many(unsigned k, unsigned n, unsigned apps, const char *on_lost)
{
	struct sim *sim = sim_new(1, &network_wan, LIMITER_NONE);

	redis_new(sim);
	(void)snprintf(app_keys, sizeof(app_keys), "rate = %u; room_rate = 0", n);
	for (unsigned i = 0; i < k; i++) {
		*pledges[i] = '\0';
		start(sim, i, k, apps, on_lost);
	}
	return sim;
}

/* So many a second for the first AppID, in thirty rooms; @for_ns as in struct writer. */
static void write_lines(struct host *h, double rate, uint64_t for_ns)
{
	sim_write(h->sim,
		  &(struct writer){
			  .host = h, .app_id = 1, .rooms = 30, .rate = rate, .for_ns = for_ns });
}

/* One AppID; @writing: each host always has a message waiting. */
static struct sim *begin(unsigned k, unsigned n, const char *on_lost, bool writing)
{
	struct sim *sim = begin_many(k, n, 1, on_lost);

	for (unsigned i = 0; writing && i < k; i++)
		write_lines(hosts[i], 1.5 * n, 0);
	return sim;
}

static void end(struct sim *sim)
{
	assert_string_equal(sim->failure, "");
	sim_free(sim);
}

static uint64_t arrivals_in(struct sim *sim, uint64_t ns)
{
	uint64_t before = sim_account(sim, 1)->arrivals;

	sim_run(sim, ns);
	assert_string_equal(sim->failure, "");
	return sim_account(sim, 1)->arrivals - before;
}

static const char *book_of(struct sim *sim, const char *field)
{
	const char *text = engine_get(sim->redis->engine, "barraged:hosts", field);

	return text ? text : "";
}

static uint64_t allotment(const struct host *h)
{
	return app_allotment(h->scheduler.apps[0], h->sim->now);
}

/* Each host's part, over ten seconds, of what all send: within 10 % of an equal one, or the
 * one message that there is no half of. */
static void check_parts(struct sim *sim, unsigned k, unsigned n)
{
	uint64_t before[SIM_HOSTS];
	uint64_t sum;

	for (unsigned i = 0; i < k; i++)
		before[i] = hosts[i]->seen[1].arrivals;
	sum = arrivals_in(sim, 10 * SEC);
	for (unsigned i = 0; i < k; i++) {
		double part = (double)(hosts[i]->seen[1].arrivals - before[i]);
		double equal = (double)sum / k;

		if (part < 0.9 * equal - 1 || part > 1.1 * equal + 1)
			fail_msg("%u hosts, N = %u: %.0f of %.1f", k, n, part, equal);
	}
}

static void test_all_of_n_is_used_and_each_has_its_part(void **state)
{
	static const unsigned ks[] = { 1, 2, 4, 8 };
	static const unsigned ns[] = { 10, 100 };

	for (size_t i = 0; i < ARRAY_SIZE(ks); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(ns); j++) {
			struct sim *sim = begin(ks[i], ns[j], "share", true);
			uint64_t calls;
			double used;
			double per_message;

			sim_run(sim, 60 * SEC); /* until the way to the server is known */
			calls = sim->redis->calls;
			used = (double)arrivals_in(sim, 60 * SEC) / (60.0 * ns[j]);
			per_message = (double)(sim->redis->calls - calls) / (60.0 * ns[j]);
			print_message("%u hosts, N = %u: %.2f %% used, %.2f calls a message\n",
				      ks[i], ns[j], used * 100, per_message);
			assert_true(used > 0.97);
			assert_true(per_message < 1.7);
			for (unsigned t = 0; t < 6; t++)
				check_parts(sim, ks[i], ns[j]);
			assert_true(sim_account(sim, 1)->most <= ns[j]);
			end(sim);
		}
	}
}

/* Calls for each message, while @apps AppIDs have so many a second on each host. */
static double calls_a_message(unsigned k, unsigned n, unsigned apps, double rate)
{
	struct sim *sim = begin_many(k, n, apps, "share");
	uint64_t calls;
	uint64_t sent = 0;

	sim_run(sim, 5 * SEC);
	for (unsigned i = 0; i < k; i++) {
		for (unsigned id = 1; id <= apps; id++)
			sim_write(sim, &(struct writer){ .host = hosts[i],
							 .app_id = id,
							 .rooms = 30,
							 .rate = rate });
	}
	sim_run(sim, 10 * SEC);
	for (unsigned id = 1; id <= apps; id++)
		sent -= sim_account(sim, id)->arrivals;
	calls = sim->redis->calls;
	sim_run(sim, 30 * SEC);
	for (unsigned id = 1; id <= apps; id++)
		sent += sim_account(sim, id)->arrivals;
	calls = sim->redis->calls - calls;
	end(sim);
	print_message("%u hosts, %u AppIDs of N = %u, %.2f a second each: %.2f calls a message\n",
		      k, apps, n, rate, (double)calls / (double)sent);
	return (double)calls / (double)sent;
}

static void test_a_message_costs_less_than_two_calls(void **state)
{
	/* More than may be sent, by so much that it sometimes is not. */
	assert_true(calls_a_message(8, 10, 1, 2.5) < 1.8);
	assert_true(calls_a_message(4, 10, 1, 3.75) < 1.8);
	assert_true(calls_a_message(4, 100, 1, 37.5) < 0.2);
	/* A little for many. */
	assert_true(calls_a_message(4, 10, 50, 1) < 1.7);
	assert_true(calls_a_message(4, 10, 50, 2) < 1.7);
}

/* Who has what cannot be divided when all begin is a matter of chance, and does not stay so. */
static void test_what_cannot_be_divided_goes_round(void **state)
{
	for (unsigned rate = 5; rate <= 40; rate++) {
		struct sim *sim = begin(3, 10, "share", false);

		sim_run(sim, 3 * SEC);
		for (unsigned i = 0; i < 3; i++)
			write_lines(hosts[i], rate, 0);
		sim_run(sim, 10 * SEC);
		for (unsigned t = 0; t < 3; t++)
			check_parts(sim, 3, 10);
		end(sim);
	}
}

/* Also where there are many times more hosts than messages a second: a turn is as long as a
 * token takes to get to whose turn it is. */
static void test_every_host_has_its_turn(void **state)
{
	static const struct {
		unsigned k, n;
	} worlds[] = { { 12, 1 }, { 24, 2 }, { 50, 3 } };

	for (size_t i = 0; i < ARRAY_SIZE(worlds); i++) {
		unsigned k = worlds[i].k;
		struct sim *sim = begin(k, worlds[i].n, "hold", true);
		uint64_t before[SIM_HOSTS];
		uint64_t least = UINT64_MAX;
		uint64_t most = 0;
		uint64_t sum;

		sim_run(sim, 30 * SEC);
		for (unsigned j = 0; j < k; j++)
			before[j] = hosts[j]->seen[1].arrivals;
		sum = arrivals_in(sim, 240 * SEC);
		for (unsigned j = 0; j < k; j++) {
			least = min_u64(least, hosts[j]->seen[1].arrivals - before[j]);
			most = max_u64(most, hosts[j]->seen[1].arrivals - before[j]);
		}
		print_message("%u hosts, N = %u: %.1f %% used, %d to %d of %.1f each\n", k,
			      worlds[i].n, (double)sum / (2.4 * worlds[i].n), (int)least, (int)most,
			      (double)sum / k);
		assert_true(least >= sum / k / 2);
		assert_true(sum >= 180 * worlds[i].n);
		end(sim);
	}
}

static void test_what_an_idle_host_does_not_use_others_do(void **state)
{
	struct sim *sim = begin(4, 100, "share", false);

	for (unsigned i = 1; i < 4; i++)
		write_lines(hosts[i], 200, 30 * SEC);
	sim_run(sim, 10 * SEC);
	assert_true(arrivals_in(sim, 10 * SEC) > 970);
	/* It wants its part, and has it within a second or so. */
	write_lines(hosts[0], 200, 0);
	sim_run(sim, 1500 * MS);
	assert_int_equal(allotment(hosts[0]), 25);
	check_parts(sim, 4, 100);
	/* The others stop, one second after which it has all. */
	sim_run(sim, 20 * SEC);
	assert_true(arrivals_in(sim, 5 * SEC) > 485);
	end(sim);
}

static void test_a_lone_message_hardly_waits(void **state)
{
	struct sim *sim = begin(4, 100, "share", false);

	sim_run(sim, 5 * SEC);
	for (unsigned i = 0; i < 4; i++)
		sim_write(sim,
			  &(struct writer){ .host = hosts[i], .app_id = 1, .rooms = 9, .rate = 5 });
	sim_run(sim, 60 * SEC);
	for (unsigned i = 0; i < 4; i++) {
		assert_in_range(sim_wait(hosts[i], 0, 0.5), 0, 2);
		assert_in_range(sim_wait(hosts[i], 0, 0.95), 0, 2);
	}
	end(sim);
}

static void test_without_the_engine_each_goes_on_with_its_share(void **state)
{
	struct sim *sim = begin(4, 100, "share", true);

	sim_run(sim, 20 * SEC);
	redis_kill(sim->redis);
	/* At once, as each has its share in hand. */
	assert_true(arrivals_in(sim, 10 * SEC) > 950);
	assert_true(arrivals_in(sim, 30 * SEC) > 2850);
	assert_int_equal(shared_state(&hosts[0]->scheduler.shared, sim->now), SHARED_LOST);
	redis_start(sim->redis, false);
	assert_true(arrivals_in(sim, 10 * SEC) > 950);
	assert_int_equal(shared_state(&hosts[0]->scheduler.shared, sim->now), SHARED_IN_TOUCH);
	end(sim);
}

static void test_who_holds_less_than_its_share_has_all_of_it_in_the_end(void **state)
{
	struct sim *sim = begin(4, 100, "share", false);

	/* One host has all, the others nothing, when the engine is lost. */
	sim_run(sim, 5 * SEC);
	write_lines(hosts[0], 400, 0);
	sim_run(sim, 10 * SEC);
	assert_true(allotment(hosts[0]) > 90);
	redis_kill(sim->redis);
	for (unsigned i = 1; i < 4; i++)
		write_lines(hosts[i], 200, 0);
	sim_run(sim, 3 * SEC);
	assert_int_equal(allotment(hosts[0]), 25);
	sim_run(sim, 12 * SEC);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(allotment(hosts[i]), 25);
	assert_true(arrivals_in(sim, 30 * SEC) > 2850);
	end(sim);
}

static void test_hold_sends_nothing_without_the_engine(void **state)
{
	struct sim *sim = begin(4, 100, "hold", true);

	sim_run(sim, 20 * SEC);
	redis_kill(sim->redis);
	sim_run(sim, 1500 * MS); /* a lease, and the way to the server */
	assert_int_equal(arrivals_in(sim, 30 * SEC), 0);
	redis_start(sim->redis, false);
	sim_run(sim, 6 * SEC); /* what others may have held must rest first */
	assert_true(arrivals_in(sim, 10 * SEC) > 970);
	end(sim);
}

static void test_a_host_that_is_cut_off_has_its_share_and_the_others_the_rest(void **state)
{
	struct sim *sim = begin(4, 100, "share", true);
	uint64_t before;

	sim_run(sim, 20 * SEC);
	hosts[0]->link->cut_until = sim->now + 60 * SEC;
	sim_run(sim, 20 * SEC);
	before = hosts[0]->seen[1].arrivals;
	assert_true(arrivals_in(sim, 30 * SEC) > 2900);
	assert_in_range(hosts[0]->seen[1].arrivals - before, 720, 750);
	for (unsigned i = 1; i < 4; i++)
		assert_int_equal(allotment(hosts[i]), 25);
	end(sim);
}

static void test_an_engine_that_comes_back_empty_costs_little(void **state)
{
	struct sim *sim = begin(4, 100, "hold", true);

	sim_run(sim, 20 * SEC);
	redis_kill(sim->redis);
	sim_run(sim, 200 * MS);
	redis_start(sim->redis, false);
	assert_true(arrivals_in(sim, 10 * SEC) > 970);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(allotment(hosts[i]), 25);
	end(sim);
}

static void test_what_a_killed_host_held_comes_home(void **state)
{
	struct sim *sim = begin(2, 100, "hold", true);
	uint64_t pokes;

	sim_run(sim, 10 * SEC);
	assert_int_equal(allotment(hosts[0]), 50);
	sim_kill(hosts[1]);
	sim_run(sim, 3 * SEC);
	assert_int_equal(allotment(hosts[0]), 50); /* it may have sent just now */
	while (engine_get(sim->redis->engine, "barraged:hosts", "h1"))
		sim_run(sim, MS);
	pokes = sim->redis->pokes;
	sim_run(sim, 3 * SEC);
	assert_int_equal(allotment(hosts[0]), 100);
	assert_int_equal(sim->redis->pokes, pokes); /* all is said once */
	end(sim);
}

/* Two engines behind one address, or one that forgets all the time. */
static void test_who_is_unknown_again_and_again_does_not_ask_again_and_again(void **state)
{
	struct sim *sim = begin(4, 100, "share", true);
	uint64_t calls;

	sim_run(sim, 10 * SEC);
	calls = sim->redis->calls;
	for (unsigned i = 0; i < 10000; i++) {
		engine_flush(sim->redis->engine);
		sim_run(sim, MS);
	}
	assert_true(sim->redis->calls - calls < 400); /* one a millisecond and host: 40000 */
	sim_run(sim, 10 * SEC);
	assert_true(arrivals_in(sim, 10 * SEC) > 970);
	end(sim);
}

/* All have so much to ask after a loss that a slow engine takes most of a lease for it; what
 * they ask must not keep their leases from being renewed, or they would have to ask again. */
static void test_a_slow_engine_is_not_asked_for_more_than_it_can_do(void **state)
{
	/* Too short for the connections to be given up, and not. */
	static const uint64_t losses[] = { 900 * MS, 5 * SEC };

	for (size_t loss = 0; loss < ARRAY_SIZE(losses); loss++) {
		struct sim *sim = begin_many(8, 10, 5, "share");
		uint64_t calls;

		sim_run(sim, 20 * SEC);
		sim->redis->takes = 18 * MS;
		sim->redis->frozen_until = sim->now + losses[loss];
		sim_run(sim, 20 * SEC);
		calls = sim->redis->calls;
		for (unsigned t = 0; t < 100; t++) {
			sim_run(sim, 100 * MS);
			for (unsigned i = 0; i < 8; i++)
				assert_int_equal(
					shared_state(&hosts[i]->scheduler.shared, sim->now),
					SHARED_IN_TOUCH);
		}
		assert_in_range(sim->redis->calls - calls, 80, 200); /* nothing but beats */
		end(sim);
	}
}

static void test_the_share_of_a_killed_host_is_kept_for_it(void **state)
{
	struct sim *sim = begin(2, 100, "share", true);

	sim_run(sim, 10 * SEC);
	sim_kill(hosts[1]);
	sim_run(sim, 60 * SEC);
	assert_int_equal(allotment(hosts[0]), 50);
	/* The operator knows that it will not come back. */
	engine_forget(sim->redis->engine, "barraged:hosts", "h1");
	sim_run(sim, 2 * SEC);
	assert_int_equal(allotment(hosts[0]), 100);
	end(sim);
}

/* With nothing under way any more, but what rests. */
static void say_goodbye(struct sim *sim, struct host *h)
{
	scheduler_drop(&h->scheduler, sim->now);
	sim_turn(h);
	while (!scheduler_is_empty(&h->scheduler))
		sim_run(sim, MS);
	shared_leave(&h->scheduler.shared, sim->now);
	sim_turn(h);
	sim_run(sim, 10 * MS);
	assert_true(shared_is_silent(&h->scheduler.shared));
	sim_kill(h);
}

/* It was not cut off, so what it sent is over, and nobody need wait for it. */
static void test_a_killed_host_that_is_back_has_its_part_at_once(void **state)
{
	static const unsigned ks[] = { 2, 4, 8 };

	for (size_t i = 0; i < ARRAY_SIZE(ks); i++) {
		struct sim *sim = begin(ks[i], 100, "share", true);
		uint64_t used;

		sim_run(sim, 20 * SEC);
		sim_kill(hosts[0]);
		sim_run(sim, 6 * SEC);
		start(sim, 0, ks[i], 1, "share");
		write_lines(hosts[0], 150, 0);
		sim_run(sim, SEC);
		used = arrivals_in(sim, 5 * SEC);
		print_message("%u hosts: %.1f %% used\n", ks[i], (double)used / 5);
		assert_true(used >= 485);
		assert_true(hosts[0]->seen[1].arrivals >= 400 / ks[i]);
		end(sim);
	}
}

/* Until it was killed; the next process has nothing of it while that is under way. */
static void test_a_host_that_was_cut_off_may_have_sent(void **state)
{
	struct sim *sim = begin(2, 100, "share", true);

	sim_run(sim, 20 * SEC);
	assert_int_not_equal(*pledges[0], '\0');
	hosts[0]->link->cut_until = NEVER;
	sim_run(sim, 20 * SEC);
	assert_int_equal(*pledges[0], '\0');
	assert_int_equal(allotment(hosts[0]), 50);
	sim_kill(hosts[0]);
	start(sim, 0, 2, 1, "share");
	assert_true(arrivals_in(sim, SEC) <= 100);
	assert_true(arrivals_in(sim, 2 * SEC) <= 102); /* what the other has */
	sim_run(sim, 3 * SEC);
	assert_true(arrivals_in(sim, SEC) >= 97);
	end(sim);
}

/* Also where the engine knows it by the word of others alone, and not which process it was. */
static void test_a_host_that_was_cut_off_may_have_sent_in_another_life(void **state)
{
	struct sim *sim = begin(2, 100, "share", true);

	sim_run(sim, 20 * SEC);
	hosts[0]->link->cut_until = NEVER;
	sim_run(sim, 20 * SEC);
	engine_flush(sim->redis->engine);
	sim_run(sim, 10 * SEC);
	assert_int_equal(allotment(hosts[0]), 50);
	assert_int_equal(allotment(hosts[1]), 50);
	sim_kill(hosts[0]);
	start(sim, 0, 2, 1, "share");
	assert_true(arrivals_in(sim, 3 * SEC) <= 210);
	sim_run(sim, 3 * SEC);
	assert_true(arrivals_in(sim, SEC) >= 97);
	end(sim);
}

/* Also where it was killed when it had found the engine again, which is in another life, and had
 * not yet said what it has, or just had. */
static void test_who_is_killed_on_coming_back_to_another_life_may_have_sent(void **state)
{
	for (uint64_t after = 0; after <= 400 * MS; after += 50 * MS) {
		struct network slow = network_wan;
		struct sim *sim;

		upstream_keys = "timeout = 10s";
		sim = begin(2, 100, "share", true);
		sim_run(sim, 20 * SEC);
		hosts[0]->link->cut_until = sim->now + 60 * SEC;
		sim_run(sim, 30 * SEC);
		engine_flush(sim->redis->engine);
		sim_run(sim, 20 * SEC);
		slow.out = SEC;
		hosts[0]->network = &slow;
		sim_run(sim, 9 * SEC);
		assert_int_equal(allotment(hosts[0]), 50);
		hosts[0]->link->way = 100 * MS;
		while (strncmp(book_of(sim, "h0"), "- ", 2) == 0)
			sim_run(sim, MS);
		sim_run(sim, after);
		sim_kill(hosts[0]);
		start(sim, 0, 2, 1, "share");
		upstream_keys = "timeout = 2s";
		write_lines(hosts[0], 150, 0);
		for (unsigned i = 0; i < 20; i++) {
			sim_run(sim, 500 * MS);
			assert_string_equal(sim->failure, "");
			/* Half of what is left; not of what would be left if that were counted twice. */
			assert_true(allotment(hosts[1]) >= 25);
		}
		sim_run(sim, 5 * SEC);
		assert_int_equal(allotment(hosts[0]), 50);
		end(sim);
	}
}

/* Likewise where it is told to end. */
static void test_who_ends_on_coming_back_to_another_life_may_have_sent(void **state)
{
	for (uint64_t after = 0; after <= 600 * MS; after += 50 * MS) {
		struct network slow = network_wan;
		struct sim *sim;

		upstream_keys = "timeout = 10s";
		sim = begin_many(2, 100, 6, "share");
		upstream_keys = "timeout = 2s";
		for (unsigned i = 0; i < 12; i++)
			sim_write(sim, &(struct writer){ .host = hosts[i / 6],
							 .app_id = 1 + i % 6,
							 .rooms = 30,
							 .rate = 150 });
		sim_run(sim, 20 * SEC);
		hosts[0]->link->cut_until = sim->now + 60 * SEC;
		sim_run(sim, 30 * SEC);
		engine_flush(sim->redis->engine);
		sim_run(sim, 20 * SEC);
		slow.out = SEC;
		hosts[0]->network = &slow;
		sim_run(sim, 9 * SEC);
		hosts[0]->link->way = 100 * MS;
		while (strncmp(book_of(sim, "h0"), "- ", 2) == 0)
			sim_run(sim, MS);
		sim_run(sim, after);
		scheduler_abort(&hosts[0]->scheduler, sim->now);
		shared_leave(&hosts[0]->scheduler.shared, sim->now);
		sim_turn(hosts[0]);
		sim_run(sim, 3 * SEC);
		assert_string_equal(sim->failure, "");
		assert_true(shared_is_silent(&hosts[0]->scheduler.shared));
		sim_kill(hosts[0]);
		sim_run(sim, 15 * SEC);
		/* Whoever had told says goodbye. */
		if (after == 0)
			assert_string_not_equal(book_of(sim, "h0"), "");
		else if (after == 600 * MS)
			assert_string_equal(book_of(sim, "h0"), "");
		end(sim);
	}
}

/* It had been on its way for longer than the process lived. */
static void test_a_first_word_that_arrives_after_the_next_one_s_is_none(void **state)
{
	struct sim *sim = begin(2, 100, "share", true);

	sim_run(sim, 10 * SEC);
	sim_kill(hosts[0]);
	start(sim, 0, 2, 1, "share");
	hosts[0]->link->way = 20 * SEC;
	while (!hosts[0]->link->is_up)
		sim_run(sim, MS);
	sim_kill(hosts[0]);
	start(sim, 0, 2, 1, "share");
	write_lines(hosts[0], 150, 0);
	sim_run(sim, 10 * SEC);
	assert_int_equal(allotment(hosts[0]), 50);
	hosts[0]->link->cut_until = sim->now + 3600 * SEC;
	sim_run(sim, 60 * SEC);
	assert_string_equal(sim->failure, "");
	assert_int_equal(allotment(hosts[0]), 50);
	assert_int_equal(allotment(hosts[1]), 50);
	end(sim);
}

/* What cannot be taken back is kept. */
static void test_who_has_pledged_and_is_cut_off_sends_nothing(void **state)
{
	struct sim *sim = begin(2, 100, "share", true);

	sim_run(sim, 20 * SEC);
	hosts[0]->link->sticks = 1;
	hosts[0]->link->cut_until = sim->now + 20 * SEC;
	sim_run(sim, 5 * SEC);
	assert_int_equal(allotment(hosts[0]), 0);
	sim_run(sim, 14 * SEC);
	assert_int_equal(allotment(hosts[0]), 0);
	sim_run(sim, 5 * SEC);
	assert_int_equal(allotment(hosts[0]), 50);
	end(sim);
}

static void test_who_says_goodbye_leaves_its_part_at_once(void **state)
{
	struct sim *sim = begin(2, 100, "share", true);

	sim_run(sim, 10 * SEC);
	say_goodbye(sim, hosts[1]);
	sim_run(sim, 1200 * MS);
	assert_int_equal(allotment(hosts[0]), 100);
	end(sim);
}

/* What it had under way is the others' as it comes home, and not when all of it has. */
static void test_who_says_goodbye_costs_little(void **state)
{
	struct sim *sim = begin(5, 100, "share", true);

	sim_run(sim, 60 * SEC);
	say_goodbye(sim, hosts[1]);
	assert_true(arrivals_in(sim, 6 * SEC) > 588); /* all at once: 580 */
	end(sim);
}

static void test_of_two_by_one_name_the_later_goes_on(void **state)
{
	struct sim *sim = begin(2, 100, "share", true);
	struct host *twin;

	sim_run(sim, 10 * SEC);
	twin = many_host(sim, &(struct many_host){ .name = "h1",
						   .app = app_keys,
						   .upstream = "timeout = 2s",
						   .hosts = 2,
						   .way = ENGINE_WAY });
	write_lines(twin, 150, 0);
	sim_run(sim, 15 * SEC);
	assert_int_equal(shared_state(&hosts[1]->scheduler.shared, sim->now), SHARED_TAKEN);
	assert_int_equal(allotment(hosts[1]), 0);
	assert_int_equal(allotment(twin), 50);
	assert_int_equal(allotment(hosts[0]), 50);
	/* And the other comes back when it has gone. */
	sim_kill(twin);
	sim_run(sim, 15 * SEC);
	assert_int_equal(shared_state(&hosts[1]->scheduler.shared, sim->now), SHARED_IN_TOUCH);
	assert_int_equal(allotment(hosts[1]), 50);
	end(sim);
}

static void test_an_appid_that_is_no_longer_shared_is_the_host_s_own(void **state)
{
	struct sim *sim = begin(1, 100, "share", true);
	struct sim_config c = {
		.app = "rate = 100; room_rate = 0; shared = no",
		.upstream = "timeout = 2s",
		.shared = "redis = unix:/redis; hosts = 1; name = h0",
	};

	sim_run(sim, 10 * SEC);
	assert_int_equal(sim_reload(hosts[0], &c), 0);
	sim_run(sim, SEC);
	assert_false(hosts[0]->scheduler.apps[0]->lease.shared);
	assert_int_equal(allotment(hosts[0]), 100);
	/* And shared again, with what it has under way. */
	c.app = app_keys;
	assert_int_equal(sim_reload(hosts[0], &c), 0);
	sim_run(sim, 3 * SEC);
	assert_int_equal(allotment(hosts[0]), 100);
	assert_true(arrivals_in(sim, 10 * SEC) > 970);
	end(sim);
}

/* Nobody can be told, so it takes until the engine's word no longer holds; no message has to
 * come for it. */
static void test_an_appid_taken_out_when_the_engine_is_lost_is_sent_at_once(void **state)
{
	struct sim *sim = begin(1, 10, "hold", false);

	sim_run(sim, 5 * SEC);
	redis_kill(sim->redis);
	assert_int_equal(sim_reload(hosts[0],
				    &(struct sim_config){
					    .app = "rate = 10; burst = 5; shared = no",
					    .upstream = "timeout = 2s",
					    .shared = "redis = unix:/redis; hosts = 1; "
						      "name = h0",
				    }),
			 0);
	for (unsigned i = 0; i < 5; i++)
		sim_submit(hosts[0], 1, i, CLASS_CHAT, 0, 0);
	assert_int_equal(arrivals_in(sim, 1100 * MS), 5);
	end(sim);
}

/* What a host had under way when it was stopped others have had since, when it runs again; to
 * an engine without memory it says that it has it, but it may not use it. */
static void test_who_was_silent_brings_nothing_to_a_new_life(void **state)
{
	struct sim *sim = begin(2, 10, "hold", true);

	sim_run(sim, 20 * SEC);
	hosts[0]->stalled_until = sim->now + 8 * SEC;
	sim_run(sim, 7950 * MS);
	assert_int_equal(allotment(hosts[1]), 10);
	redis_kill(sim->redis);
	redis_start(sim->redis, false);
	hosts[1]->link->cut_until = sim->now + SEC;
	sim_run(sim, 2 * SEC);
	assert_int_equal(allotment(hosts[0]), 0);
	sim_run(sim, 8 * SEC);
	assert_int_equal(allotment(hosts[0]), 5);
	end(sim);
}

static void test_a_small_part_is_not_a_slow_one(void **state)
{
	struct sim *sim = begin(8, 100, "share", true);

	sim_run(sim, 20 * SEC);
	for (unsigned i = 0; i < 8; i++) {
		const struct app *app = hosts[i]->scheduler.apps[0];

		assert_in_range(app_allotment(app, sim->now), 12, 13);
		assert_int_equal(app_rate(app, sim->now), 100);
		assert_int_equal(app_state(app, sim->now), APP_RUNNING);
	}
	end(sim);
}

/* What is granted all at once does not leave all at once. */
static void test_a_backlog_that_is_given_all_leaves_evenly(void **state)
{
	struct sim *sim = begin(2, 100, "hold", false);
	uint64_t most = 0;

	sim_run(sim, 5 * SEC);
	write_lines(hosts[0], 200, 10 * SEC);
	sim_run(sim, 5 * SEC);
	write_lines(hosts[1], 200, 0);
	for (unsigned i = 0; i < 200; i++)
		most = max_u64(most, arrivals_in(sim, 100 * MS));
	assert_in_range(most, 10, 25);
	end(sim);
}

/* Two hosts, of which the first has all of N, at home. */
static struct sim *begin_with_one_rich(const char *on_lost)
{
	struct sim *sim = begin(2, 100, on_lost, false);

	sim_run(sim, 5 * SEC);
	write_lines(hosts[0], 400, 10 * SEC);
	sim_run(sim, 20 * SEC);
	return sim;
}

static void submit_many(struct host *h, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		sim_submit(h, 1, i % 30, CLASS_CHAT, 60000, 0);
}

static void test_nobody_gives_back_what_nobody_needs(void **state)
{
	struct sim *sim = begin_with_one_rich("share");

	assert_int_equal(allotment(hosts[0]), 100);
	sim_run(sim, 20 * SEC);
	assert_int_equal(allotment(hosts[0]), 100);
	end(sim);
}

static void test_who_needs_more_asks_at_once(void **state)
{
	for (unsigned phase = 0; phase < 10; phase++) {
		struct sim *sim = begin_with_one_rich("share");
		uint64_t began;

		sim_run(sim, phase * 30 * MS);
		began = sim->now;
		submit_many(hosts[1], 60);
		while (allotment(hosts[1]) < 60 && sim->now < began + SEC)
			sim_run(sim, MS);
		assert_in_range(sim->now - began, 0, 25 * MS);
		end(sim);
	}
}

static void test_who_is_given_much_does_not_send_it_all_at_once(void **state)
{
	struct sim *sim = begin_with_one_rich("hold");
	submit_many(hosts[1], 100);
	sim_run(sim, 50 * MS);
	assert_true(allotment(hosts[1]) > 90);
	sim_run(sim, 50 * MS);
	/* Ten are due by then, ten are a burst, and four of what was gained may begin. */
	assert_in_range(hosts[1]->in_flight, 5, 26);
	end(sim);
}

static void test_a_share_grows_though_nothing_happens(void **state)
{
	struct sim *sim = begin_with_one_rich("share");
	uint64_t before;

	redis_kill(sim->redis);
	sim_run(sim, SEC);
	before = hosts[1]->seen[1].arrivals;
	submit_many(hosts[1], 40);
	sim_run(sim, 2 * SEC);
	assert_int_equal(hosts[1]->seen[1].arrivals, before);
	/* Eight seconds and the longest timeout and two. */
	sim_run(sim, 9 * SEC + 200 * MS);
	assert_int_equal(allotment(hosts[1]), 50);
	end(sim);
}

/* When somebody's share must be free, each keeps of what it has, and nobody what another is
 * told to keep as well, whatever they want meanwhile. */
static void test_what_must_be_free_is_given_by_what_each_has(void **state)
{
	for (unsigned at = 0; at < 30; at++) {
		struct sim *sim = begin(4, 100, "share", false);
		bool are_told = false;

		sim_run(sim, 5 * SEC);
		/* Both have half; one will have nothing to send for a while. */
		for (unsigned i = 0; i < 2; i++)
			write_lines(hosts[i], 200, (i ? 10 : 60) * SEC);
		sim_run(sim, 15 * SEC);
		hosts[2]->link->cut_until = hosts[3]->link->cut_until = sim->now + 60 * SEC;
		sim_run(sim, 900 * MS + at * 30 * MS);
		submit_many(hosts[1], 60);
		for (unsigned ms = 0; ms < 3000; ms += 10) {
			sim_run(sim, 10 * MS);
			are_told |= allotment(hosts[0]) < 50 && allotment(hosts[1]) < 50;
			if (are_told)
				assert_in_range(allotment(hosts[0]) + allotment(hosts[1]), 0, 50);
		}
		assert_true(are_told);
		end(sim);
	}
}

static void reload(struct host *h, const char *shared, const char *app)
{
	const struct sim_config c = {
		.app = app, .upstream = upstream_keys, .shared = shared, .n_apps = 1
	};

	assert_int_equal(sim_reload(h, &c), 0);
}

/* What is sent from then on may take longer than those know who are cut off just then. */
static void test_a_longer_timeout_is_in_force_when_all_know(void **state)
{
	struct network slow = network_wan;
	static const char shared[] = "redis = unix:/redis; hosts = 2; name = h1";
	struct sim *sim = begin(2, 100, "share", false);

	write_lines(hosts[1], 300, 0);
	sim_run(sim, 20 * SEC);
	assert_int_equal(allotment(hosts[1]), 100);
	hosts[1]->link->way = 100 * MS;
	shared_poked(&hosts[1]->scheduler.shared, "1", 1, sim->now);
	sim_turn(hosts[1]); /* it asks, and has the answer after the reload */
	upstream_keys = "timeout = 4s";
	reload(hosts[1], shared, app_keys);
	sim_run(sim, 300 * MS);
	assert_int_equal(allotment(hosts[1]), 50);
	sim_run(sim, 700 * MS);
	assert_int_equal(allotment(hosts[1]), 50);
	sim_run(sim, 2 * SEC);
	assert_int_equal(allotment(hosts[1]), 100);
	hosts[0]->link->cut_until = sim->now + 90 * SEC;
	sim_run(sim, 200 * MS);
	upstream_keys = "timeout = 60s";
	reload(hosts[1], shared, app_keys);
	upstream_keys = "timeout = 2s";
	slow.out = 7 * SEC; /* and eight times as long on a new connection */
	hosts[1]->network = &slow;
	write_lines(hosts[0], 300, 0);
	sim_run(sim, 80 * SEC);
	assert_string_equal(sim->failure, "");
	assert_int_equal(allotment(hosts[0]), 50);
	end(sim);
}

/* Whoever was cut off, or was killed at once, could not tell that it sends with a longer one. */
static void test_a_longer_timeout_that_was_not_told_is_waited_for(void **state)
{
	static const struct {
		uint64_t cut_for, sends_for, dead_for;
		bool has_pledged;
	} cases[] = {
		{ 0, 600 * MS, 0, false },
		{ 20 * SEC, 600 * MS, 0, false },
		{ 0, 300 * MS, 5500 * MS, true },
	};
	static const char shared[] = "redis = unix:/redis; hosts = 2; name = h0";

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct network slow = network_wan;
		struct sim *sim = begin(2, 100, "share", true);

		sim_run(sim, 20 * SEC);
		hosts[0]->link->cut_until = sim->now + 3600 * SEC;
		sim_run(sim, cases[i].cut_for);
		upstream_keys = "timeout = 60s";
		reload(hosts[0], shared, app_keys);
		slow.out = 7 * SEC;
		hosts[0]->network = &slow;
		sim_run(sim, cases[i].sends_for);
		assert_int_equal(*pledges[0] != '\0', cases[i].has_pledged);
		sim_kill(hosts[0]);
		sim_run(sim, cases[i].dead_for);
		start(sim, 0, 2, 1, "share");
		upstream_keys = "timeout = 2s";
		write_lines(hosts[0], 150, 0);
		sim_run(sim, 70 * SEC);
		assert_string_equal(sim->failure, "");
		assert_int_equal(allotment(hosts[0]), 50);
		end(sim);
	}
}

/* Idle AppIDs have nothing else to say. */
static void test_shares_follow_the_configuration_one_host_after_the_other(void **state)
{
	static const char *const halves[] = { "redis = unix:/redis; hosts = 2; name = h0",
					      "redis = unix:/redis; hosts = 2; name = h1" };
	static const char *const quarters[] = { "redis = unix:/redis; hosts = 4; name = h0",
						"redis = unix:/redis; hosts = 4; name = h1" };
	struct sim *sim = begin(2, 100, "share", false);

	sim_run(sim, 10 * SEC);
	for (unsigned i = 0; i < 2; i++) {
		reload(hosts[i], halves[i], "rate = 200; room_rate = 0");
		sim_run(sim, SEC);
	}
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(app_share(hosts[i]->scheduler.apps[0]), 100);

	/* One for whom nothing was left. */
	hosts[2] = many_host(sim, &(struct many_host){ .name = "h2",
						       .app = "rate = 200; room_rate = 0",
						       .upstream = upstream_keys,
						       .hosts = 4,
						       .n_apps = 1,
						       .way = ENGINE_WAY });
	sim_run(sim, 10 * SEC);
	assert_int_equal(app_share(hosts[2]->scheduler.apps[0]), 0);
	for (unsigned i = 0; i < 2; i++)
		reload(hosts[i], quarters[i], "rate = 200; room_rate = 0");
	sim_run(sim, SEC);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(app_share(hosts[i]->scheduler.apps[0]), 50);
	end(sim);
}

/* When it comes to its last words, all that it sent could be at home; but what was aborted
 * arrived later than that. */
static void test_what_was_aborted_is_told_as_it_was_then(void **state)
{
	static const struct network slow = { .name = "slow", .out = SEC, .back = MS, .jitter = MS };
	struct sim *sim;

	upstream_keys = "timeout = 10s";
	sim = begin(2, 100, "share", true);
	upstream_keys = "timeout = 2s";
	hosts[0]->network = &slow;
	sim_run(sim, 20 * SEC);
	assert_in_range(hosts[0]->scheduler.in_flight, 40, 50);
	hosts[0]->link->cut_until = sim->now + 1020 * MS;
	link_break(hosts[0]);
	scheduler_abort(&hosts[0]->scheduler, sim->now);
	shared_leave(&hosts[0]->scheduler.shared, sim->now);
	sim_turn(hosts[0]);
	sim_run(sim, 10 * SEC);
	end(sim);
}

/* Whether something is noted that the first host is to be told by a beat. */
static bool is_noted(struct sim *sim)
{
	return *book_of(sim, "!h0") != '\0';
}

/* Whether the engine has noticed that the second one fell silent. */
static bool is_silent(struct sim *sim)
{
	const char *text = book_of(sim, "h1"); /* shared.lua, put_host() */

	for (unsigned i = 0; i < 6; i++)
		text = strchr(text, ' ') + 1;
	return *text == '1';
}

static void run_until(struct sim *sim, bool (*is_so)(struct sim *), bool so)
{
	for (unsigned i = 0; i < 20000 && is_so(sim) != so; i++)
		sim_run(sim, 200 * NSEC_PER_USEC);
	assert_true(is_so(sim) == so);
}

/* No word of the engine has reached the first host for a while; now its connection breaks,
 * and it goes on by another one. */
static void reconnect(struct sim *sim)
{
	link_break(hosts[0]);
	sim_turn(hosts[0]);
	sim_run(sim, 500 * MS);
	hosts[0]->link->lost = 0;
}

/* Two hosts of 100 tokens, of which the first holds all. */
static struct sim *begin_with_one_that_has_all(void)
{
	struct sim *sim = begin(2, 100, "share", false);

	hosts[0]->link->way = 5 * MS;
	write_lines(hosts[0], 400, 10 * SEC);
	sim_run(sim, 30 * SEC);
	assert_int_equal(allotment(hosts[0]), 100);
	return sim;
}

static void test_what_was_to_be_asked_about_is_asked_though_the_answer_was_lost(void **state)
{
	struct sim *sim = begin_with_one_that_has_all();

	write_lines(hosts[0], 70, 0);
	sim_run(sim, 5 * SEC);
	hosts[0]->link->lost = 1;
	write_lines(hosts[1], 200, 0);
	run_until(sim, is_noted, true);
	run_until(sim, is_noted, false);
	reconnect(sim);
	sim_run(sim, 10 * SEC);
	assert_int_equal(allotment(hosts[1]), 50);
	end(sim);
}

static void test_that_somebody_fell_silent_is_known_though_the_answer_was_lost(void **state)
{
	static const struct network near = { .name = "near", .out = SEC, .back = MS, .jitter = MS };
	static const struct network far = {
		.name = "far", .out = 20 * SEC, .back = MS, .jitter = MS
	};
	struct sim *sim;

	upstream_keys = "timeout = 60s";
	sim = begin_with_one_that_has_all();
	upstream_keys = "timeout = 2s";
	/* So that it has a connection for each token. */
	hosts[0]->network = &near;
	write_lines(hosts[0], 200, 10 * SEC);
	sim_run(sim, 20 * SEC);
	hosts[0]->link->lost = 1;
	hosts[1]->link->cut_until = sim->now + 120 * SEC;
	run_until(sim, is_silent, true);
	reconnect(sim);
	/* What it sends now comes home when the other has long relied on its share. */
	hosts[0]->network = &far;
	sim_run(sim, 25 * SEC);
	submit_many(hosts[0], 100);
	write_lines(hosts[1], 70, 0);
	sim_run(sim, 60 * SEC);
	end(sim);
}

/* A host far away uses its tokens again on credit. What it took and could not send after all is
 * at home no sooner for that, and another host may be near. */
static void test_what_could_not_be_sent_comes_home_no_sooner(void **state)
{
	static const struct network far = {
		.name = "far", .out = 150 * MS, .back = 150 * MS, .jitter = 100 * NSEC_PER_USEC
	};
	struct sim *sim = begin(2, 10, "hold", false);

	hosts[0]->network = &far;
	hosts[1]->network = &network_lan;
	write_lines(hosts[0], 20, 60 * SEC);
	sim_run(sim, 140 * SEC);
	assert_int_equal(allotment(hosts[0]), 10);
	submit_many(hosts[0], 10);
	sim_run(sim, 1050 * MS);
	sim->start_failures = 1;
	submit_many(hosts[0], 10);
	sim->start_failures = 0;
	submit_many(hosts[1], 10);
	assert_int_equal(arrivals_in(sim, 10 * SEC), 10);
	end(sim);
}

/* Two hosts of ten tokens, of which the second holds all, in touch from afar, with a connection
 * for each of them, whose beats come @phase later. What it sends now arrives after it was given up, as late as anything may. */
static struct sim *begin_with_one_that_is_slow(uint64_t phase)
{
	static const struct network near = { .name = "near", .out = SEC, .back = MS, .jitter = MS };
	static const struct network far = {
		.name = "far", .out = 10900 * MS, .back = MS, .jitter = MS
	};
	struct sim *sim;

	upstream_keys = "timeout = 10s";
	sim = begin(2, 10, "share", false);
	upstream_keys = "timeout = 2s";
	for (unsigned i = 0; i < 2; i++)
		hosts[i]->link->way = 190 * MS;
	sim_run(sim, 5 * SEC + phase);
	link_break(hosts[1]);
	sim_turn(hosts[1]);
	sim_run(sim, 5 * SEC);
	hosts[1]->network = &near;
	write_lines(hosts[1], 40, 5 * SEC);
	sim_run(sim, 40 * SEC);
	assert_true(hosts[1]->kept >= 10);
	assert_int_equal(allotment(hosts[1]), 10);
	hosts[1]->network = &far;
	return sim;
}

/* Runs until a beat of the host is answered. */
static void run_until_answered(struct sim *sim, const struct host *h)
{
	uint64_t before = h->scheduler.shared.lease_until;

	while (h->scheduler.shared.lease_until == before)
		sim_run(sim, MS);
}

/* Whenever the other sends the last that it may, and whenever its beats are. */
static void test_a_share_grows_when_all_others_have_given_it_back(void **state)
{
	for (unsigned at = 0; at < 40; at++) {
		struct sim *sim = begin_with_one_that_is_slow(at % 5 * 160 * MS);

		run_until_answered(sim, hosts[0]);
		hosts[0]->link->deaf_until = sim->now + 120 * SEC;
		hosts[1]->link->lost = 1;
		sim_run(sim, SEC);
		submit_many(hosts[1], 1);
		sim_run(sim, at / 5 * 200 * MS);
		submit_many(hosts[1], 9);
		sim_run(sim, 5 * SEC);
		submit_many(hosts[0], 10);
		sim_run(sim, 20 * SEC);
		assert_int_equal(allotment(hosts[0]), 5);
		end(sim);
	}
}

/* So many AppIDs that a host far from the engine takes longer to ask for all of them than it
 * takes until a share is used in full. */
#define MANY_APPS 100
#define FAR_WAY   (170 * MS)

static void pass(struct sim *sim, uint64_t ns)
{
	sim_run(sim, ns);
	assert_string_equal(sim->failure, "");
}

static void write_for_all(struct host *h)
{
	for (unsigned id = 1; id <= MANY_APPS; id++)
		sim_write(h->sim,
			  &(struct writer){ .host = h, .app_id = id, .rooms = 9, .rate = 3 });
}

/* Two hosts of two tokens of each AppID, of which the second has all. */
static struct sim *begin_with_one_that_has_all_of_many(void)
{
	struct sim *sim = begin_many(2, 2, MANY_APPS, "share");

	pass(sim, 5 * SEC);
	write_for_all(hosts[1]);
	pass(sim, 10 * SEC);
	assert_int_equal(allotment(hosts[0]), 0);
	assert_int_equal(allotment(hosts[1]), 2);
	return sim;
}

/* The engine hears a host, but its answers come too late, so that it goes on with its share
 * until it has all of that. Then they come in time again: nobody else may have any of what it
 * uses now and could not tell yet. */
static void test_what_a_share_has_grown_to_is_told_before_it_is_in_touch(void **state)
{
	struct sim *sim = begin_with_one_that_has_all_of_many();

	hosts[0]->link->way = 600 * MS;
	pass(sim, 5 * SEC);
	write_for_all(hosts[0]);
	pass(sim, 10 * SEC);
	assert_int_equal(allotment(hosts[0]), 1);
	hosts[0]->link->way = FAR_WAY;
	pass(sim, 20 * SEC);
	end(sim);
}

/* Somebody falls silent, and will want his share; a host that cannot ask so soon what is left
 * of each AppID must not use all that it has for so long. */
static void test_who_cannot_ask_in_time_falls_back(void **state)
{
	struct sim *sim = begin_with_one_that_has_all_of_many();

	hosts[1]->link->way = FAR_WAY;
	pass(sim, 10 * SEC);
	hosts[0]->link->cut_until = sim->now + 60 * SEC;
	pass(sim, SEC);
	write_for_all(hosts[0]);
	pass(sim, 20 * SEC);
	assert_int_equal(allotment(hosts[0]), 1);
	end(sim);
}

static struct host *add_host(struct sim *sim, const char *name, const char *on_lost,
			     unsigned n_apps)
{
	return many_host(sim, &(struct many_host){ .name = name,
						   .on_lost = on_lost,
						   .app = app_keys,
						   .upstream = upstream_keys,
						   .hosts = 2,
						   .n_apps = n_apps,
						   .way = ENGINE_WAY });
}

static bool is_unsaid(const struct host *h, uint32_t app_id)
{
	return scheduler_app(&h->scheduler, app_id)->lease.is_unsaid;
}

/* A host has to tell of two AppIDs when it is back, and is cut off again when it has an answer
 * for one of them. The next time it has one for the other; somebody else has just got what was
 * not counted for it any more, and nobody has noticed yet. */
static void test_what_came_before_all_was_said_is_not_used_later(void **state)
{
	static const struct sim_config both = { .app = "rate = 10; room_rate = 0",
						.upstream = "timeout = 2s",
						.shared =
							"redis = unix:/redis; hosts = 2; name = h1",
						.n_apps = 2 };

	for (unsigned at = 0; at < 10; at++) {
		struct sim *sim = begin_many(0, 10, 2, "share");

		hosts[0] = add_host(sim, "h0", "share", 2);
		hosts[1] = add_host(sim, "h1", "share", 1);
		hosts[2] = add_host(sim, "h2", "hold", 2);
		sim_run(sim, 5 * SEC + at * 80 * MS);
		/* The first host has nothing of either. */
		for (unsigned i = 1; i <= 2; i++)
			sim_write(sim, &(struct writer){ .host = hosts[2],
							 .app_id = i,
							 .rooms = 30,
							 .rate = 40,
							 .for_ns = 5 * SEC });
		pass(sim, 30 * SEC);
		hosts[0]->link->cut_until = sim->now + 15 * SEC;
		sim_kill(hosts[2]);
		pass(sim, 14 * SEC);
		for (unsigned i = 0; i < 200; i++)
			sim_submit(hosts[0], 2, i % 30, CLASS_CHAT, 60000, 0);
		pass(sim, SEC);
		/* Both shares have grown. */
		assert_true(is_unsaid(hosts[0], 1) && is_unsaid(hosts[0], 2));
		sim->redis->takes = 10 * MS;
		while (is_unsaid(hosts[0], 2))
			pass(sim, MS);
		assert_true(is_unsaid(hosts[0], 1));
		link_break(hosts[0]);
		sim_turn(hosts[0]);
		hosts[0]->link->cut_until = sim->now + 5150 * MS;
		sim->redis->takes = 0;
		pass(sim, 5080 * MS);
		assert_int_equal(sim_reload(hosts[1], &both), 0);
		for (unsigned i = 0; i < 10; i++)
			sim_submit(hosts[1], 2, i, CLASS_CHAT, 60000, 0);
		pass(sim, 20 * SEC);
		end(sim);
	}
}

/* What a host asked for before a reload is answered after it, and more is not heard of. */
static void test_a_share_is_what_was_reloaded_last(void **state)
{
	struct sim *sim = begin(2, 100, "share", false);

	hosts[0]->link->way = 50 * MS;
	write_lines(hosts[1], 300, 0);
	sim_run(sim, 20 * SEC);
	submit_many(hosts[0], 1);
	sim_run(sim, 20 * MS);
	reload(hosts[0], "redis = unix:/redis; hosts = 4; name = h0", app_keys);
	sim_run(sim, 100 * MS);
	hosts[0]->link->deaf_until = sim->now + 60 * SEC;
	submit_many(hosts[0], 1000);
	pass(sim, 30 * SEC);
	assert_int_equal(allotment(hosts[0]), 25);
	end(sim);
}

/* Who is new is cut off, and the engine loses its memory, before any other can know of it. */
static void test_who_is_not_known_to_others_has_no_share(void **state)
{
	struct sim *sim = begin(2, 100, "share", true);

	reload(hosts[0], "redis = unix:/redis; hosts = 4; name = h0", app_keys);
	reload(hosts[1], "redis = unix:/redis; hosts = 4; name = h1", app_keys);
	pass(sim, 20 * SEC);
	hosts[0]->link->lost = hosts[1]->link->lost = 1;
	hosts[2] = many_host(sim, &(struct many_host){ .name = "h2",
						       .app = app_keys,
						       .upstream = upstream_keys,
						       .hosts = 4,
						       .n_apps = 1,
						       .way = ENGINE_WAY });
	submit_many(hosts[2], 1000);
	while (shared_state(&hosts[2]->scheduler.shared, sim->now) != SHARED_IN_TOUCH)
		pass(sim, MS);
	pass(sim, 5 * MS);
	hosts[2]->link->cut_until = sim->now + 60 * SEC;
	engine_flush(sim->redis->engine);
	pass(sim, 40 * SEC);
	end(sim);
}

/* A host that may have something under way for very long comes when another was just cut off,
 * and has not heard of it. */
static void test_a_slow_host_has_nothing_before_others_know_how_slow_it_is(void **state)
{
	/* A connection takes three ways there and back, and a request arrives when it is nearly
	 * given up. */
	static const struct network slow = {
		.name = "slow", .out = 7 * SEC, .back = 500 * MS, .jitter = MS
	};
	struct sim *sim = begin_with_one_rich("share");

	hosts[1]->link->cut_until = sim->now + 60 * SEC;
	say_goodbye(sim, hosts[0]);
	hosts[2] = many_host(sim, &(struct many_host){ .name = "h2",
						       .app = app_keys,
						       .upstream = "timeout = 30s",
						       .hosts = 2,
						       .n_apps = 1,
						       .way = ENGINE_WAY });
	hosts[2]->network = &slow;
	submit_many(hosts[2], 100);
	pass(sim, SEC);
	write_lines(hosts[1], 100, 0);
	pass(sim, 60 * SEC);
	end(sim);
}

/* The clock of the engine is set back again and again, while a host is silent: it must not be
 * thought to have just been heard each time. */
static void test_who_is_silent_is_so_though_the_clock_is_set_back(void **state)
{
	struct sim *sim = begin_with_one_that_is_slow(0);

	hosts[0]->link->cut_until = sim->now + 120 * SEC;
	for (unsigned i = 0; i < 8; i++) {
		pass(sim, 1200 * MS);
		sim->redis->ahead -= 2 * SEC;
	}
	submit_many(hosts[1], 10);
	pass(sim, SEC);
	submit_many(hosts[0], 10);
	pass(sim, 30 * SEC);
	assert_int_equal(allotment(hosts[0]), 5);
	end(sim);
}

/* When the books are lost, one who has not heard that somebody said goodbye comes first, and
 * then one who has. */
static void test_who_said_goodbye_is_not_restored_by_who_knew_it_longest(void **state)
{
	struct sim *sim = begin(3, 90, "share", true);

	sim_run(sim, 20 * SEC);
	hosts[0]->link->lost = 1;
	run_until_answered(sim, hosts[0]);
	say_goodbye(sim, hosts[2]);
	pass(sim, 20 * MS);
	engine_flush(sim->redis->engine);
	hosts[1]->stalled_until = sim->now + SEC;
	pass(sim, 20 * SEC);
	assert_int_equal(allotment(hosts[0]) + allotment(hosts[1]), 90);
	end(sim);
}

/* A host has long gone on with its share when it is killed; what it sent last is counted, though
 * the process that is started at once in its place is near. */
static void test_what_a_silent_process_sent_last_rests_when_it_is_killed(void **state)
{
	static const struct network far = {
		.name = "far", .out = 150 * MS, .back = 150 * MS, .jitter = MS
	};
	struct sim *sim = begin(2, 100, "share", true);

	hosts[0]->network = hosts[1]->network = &far;
	pass(sim, 20 * SEC);
	hosts[1]->link->cut_until = sim->now + 60 * SEC;
	pass(sim, 20 * SEC);
	assert_int_equal(allotment(hosts[1]), 50);
	sim_kill(hosts[1]);
	hosts[1] = add_host(sim, "h1", "share", 1);
	hosts[1]->network = &network_lan;
	submit_many(hosts[1], 100);
	pass(sim, 10 * SEC);
	assert_int_equal(hosts[1]->seen[1].arrivals, 100);
	end(sim);
}

/* A first word from before the books were lost arrives when the last one has been said since: it
 * is no reason to keep a share. */
static void test_a_first_word_that_arrives_after_the_last_one_is_none(void **state)
{
	struct sim *sim = begin(2, 100, "share", true);

	sim_run(sim, 10 * SEC);
	hosts[1]->link->way = 50 * MS;
	link_break(hosts[1]);
	sim_turn(hosts[1]);
	/* It is connecting now. */
	sim_run(sim, 100 * MS);
	hosts[1]->link->way = 20 * SEC;
	sim_run(sim, 200 * MS);
	hosts[1]->link->way = ENGINE_WAY;
	pass(sim, 2 * SEC);
	engine_flush(sim->redis->engine);
	pass(sim, 10 * SEC);
	say_goodbye(sim, hosts[1]);
	pass(sim, 2 * SEC);
	assert_int_equal(allotment(hosts[0]), 100);
	pass(sim, 20 * SEC);
	assert_int_equal(allotment(hosts[0]), 100);
	end(sim);
}

/* It asks now and then whether the name is free; while the later one lives it is not. */
static void test_a_name_that_was_taken_stays_taken(void **state)
{
	struct sim *sim = begin(2, 100, "share", true);
	struct host *twin;

	sim_run(sim, 10 * SEC);
	twin = add_host(sim, "h1", "share", 1);
	pass(sim, 2 * SEC);
	for (unsigned i = 0; i < 200; i++) {
		pass(sim, 100 * MS);
		assert_int_equal(shared_state(&twin->scheduler.shared, sim->now), SHARED_IN_TOUCH);
		assert_int_equal(shared_state(&hosts[1]->scheduler.shared, sim->now), SHARED_TAKEN);
	}
	end(sim);
}

/* Whatever it was that it had under way. */
static void test_what_was_under_way_in_a_silence_is_no_right_in_a_new_life(void **state)
{
	static const struct network far = {
		.name = "far", .out = 400 * MS, .back = 10 * MS, .jitter = MS
	};
	struct sim *sim = begin(2, 10, "hold", true);

	hosts[0]->network = &far;
	pass(sim, 20 * SEC);
	assert_int_equal(allotment(hosts[0]), 5);
	while (hosts[0]->in_flight < 2)
		pass(sim, MS);
	hosts[0]->stalled_until = sim->now + 8 * SEC;
	pass(sim, 7950 * MS);
	assert_int_equal(allotment(hosts[1]), 10);
	redis_kill(sim->redis);
	redis_start(sim->redis, false);
	hosts[1]->link->cut_until = sim->now + SEC;
	pass(sim, SEC);
	assert_int_equal(allotment(hosts[0]), 0);
	pass(sim, 10 * SEC);
	assert_int_equal(allotment(hosts[0]), 5);
	end(sim);
}

/* Whether the engine has noticed that a host fell silent. */
static bool is_noticed(struct sim *sim, const char *name)
{
	const char *text = book_of(sim, name); /* shared.lua, put_host() */

	for (unsigned i = 0; i < 6; i++)
		text = strchr(text, ' ') + 1;
	return *text != '0';
}

static void run_until_asked(struct sim *sim, const struct host *h, uint64_t since)
{
	while (h->scheduler.apps[0]->lease.called_at < since)
		pass(sim, MS);
	pass(sim, MS);
}

/* When two must leave room for those who fell silent, and both have an answer, there is room;
 * whatever each of them wanted when the other asked. */
static void test_who_has_an_answer_has_left_room(void **state)
{
	for (unsigned at = 0; at < 10; at++) {
		struct sim *sim = begin(4, 100, "share", false);
		uint64_t since;

		pass(sim, 5 * SEC + at * 80 * MS);
		link_break(hosts[0]);
		sim_turn(hosts[0]);
		for (unsigned i = 0; i < 2; i++) {
			hosts[i]->link->lost = 1;
			write_lines(hosts[i], 200, 5 * SEC);
		}
		pass(sim, 40 * SEC);
		/* Each has half; one sends by it, the other nothing. */
		write_lines(hosts[0], 40, 0);
		pass(sim, 5 * SEC);
		hosts[2]->link->cut_until = hosts[3]->link->cut_until = sim->now + 60 * SEC;
		while (!is_noticed(sim, "h2") || !is_noticed(sim, "h3"))
			pass(sim, MS);
		since = sim->now - MS;
		run_until_asked(sim, hosts[0], since);
		submit_many(hosts[1], 60);
		run_until_asked(sim, hosts[1], since);
		assert_in_range(allotment(hosts[0]) + allotment(hosts[1]), 0, 50);
		end(sim);
	}
}

/* Its share has grown when an answer comes to what it said before: it must not believe that it
 * has nothing, as it has begun to use it. */
static void test_an_answer_from_before_a_share_grew_does_not_take_it_back(void **state)
{
	static const struct network far = {
		.name = "far", .out = 1500 * MS, .back = 100 * MS, .jitter = MS
	};

	for (unsigned at = 0; at < 20; at++) {
		struct sim *sim = begin_with_one_that_is_slow(0);
		uint64_t grows_at;

		hosts[0]->link->way = (150 + 2 * at) * MS;
		hosts[0]->network = &far;
		hosts[1]->network = &network_wan;
		hosts[2] = add_host(sim, "h2", "hold", 1);
		for (unsigned i = 1; i < 3; i++)
			write_lines(hosts[i], 20, 0);
		pass(sim, 10 * SEC);
		hosts[0]->link->cut_until = sim->now + 60 * SEC;
		pass(sim, 9 * SEC);
		/* Its books are not complete before all that was then is over. */
		redis_kill(sim->redis);
		redis_start(sim->redis, false);
		grows_at = hosts[0]->scheduler.shared.grows_at;
		pass(sim, grows_at - sim->now - 700 * MS);
		submit_many(hosts[0], 20);
		hosts[0]->link->cut_until = sim->now;
		pass(sim, 20 * SEC);
		end(sim);
	}
}

/* A host has one of the tokens for long, and sends one message now and then; what it saves by
 * that are so many messages, and not as many as there is time for when it gets all. */
static void test_what_was_saved_on_a_small_part_is_not_more_on_a_large_one(void **state)
{
	struct sim *sim = begin(2, 100, "hold", false);
	uint64_t most = 0;

	pass(sim, 5 * SEC);
	write_lines(hosts[1], 110, 30 * SEC);
	pass(sim, SEC);
	for (unsigned i = 0; i < 14; i++) {
		submit_many(hosts[0], 1);
		pass(sim, 2500 * MS);
	}
	pass(sim, 5 * SEC);
	submit_many(hosts[0], 200);
	for (unsigned i = 0; i < 100; i++)
		most = max_u64(most, arrivals_in(sim, 100 * MS));
	assert_in_range(most, 10, 26);
	end(sim);
}

/* Nor is it one where the books are as they were: but for its share others have it. */
static void test_what_was_under_way_in_a_silence_is_no_right_after_it(void **state)
{
	static const struct network far = {
		.name = "far", .out = 400 * MS, .back = 10 * MS, .jitter = MS
	};
	struct sim *sim = begin(2, 10, "share", true);

	reload(hosts[0], "redis = unix:/redis; hosts = 10; name = h0", app_keys);
	reload(hosts[1], "redis = unix:/redis; hosts = 10; name = h1", app_keys);
	hosts[0]->network = &far;
	pass(sim, 20 * SEC);
	while (hosts[0]->in_flight < 3)
		pass(sim, MS);
	hosts[0]->stalled_until = sim->now + 8 * SEC;
	pass(sim, 8 * SEC - MS);
	assert_int_equal(allotment(hosts[1]), 9);
	pass(sim, 10 * SEC);
	assert_int_equal(allotment(hosts[0]), 5);
	end(sim);
}

/* A host that goes on with its share is told not to share any more, while it cannot tell; and the
 * books have been lost meanwhile. What it sent last is counted until it says what it has. */
static void test_who_ceases_to_share_while_cut_off_has_what_it_sent(void **state)
{
	static const struct network slow = {
		.name = "slow", .out = 300 * MS, .back = MS, .jitter = MS
	};

	for (unsigned at = 0; at < 40; at++) {
		struct sim *sim = begin_many(2, 2, MANY_APPS, "share");
		bool is_killed = at % 2; /* on its first word */

		for (unsigned i = 0; i < 2; i++)
			write_for_all(hosts[i]);
		pass(sim, 20 * SEC);
		hosts[0]->network = &slow;
		hosts[0]->link->cut_until = sim->now + 60 * SEC;
		engine_flush(sim->redis->engine);
		pass(sim, 25 * SEC + at * 50 * MS);
		assert_int_equal(allotment(hosts[0]), 1);
		hosts[0]->link->way = FAR_WAY;
		assert_int_equal(sim_reload(hosts[0],
					    &(struct sim_config){
						    .app = app_keys,
						    .upstream = upstream_keys,
						    .shared = "redis = unix:/redis; hosts = 2; "
							      "name = h0; on_lost = hold",
						    .n_apps = MANY_APPS }),
				 0);
		hosts[0]->link->cut_until = sim->now;
		if (is_killed) {
			while (strncmp(book_of(sim, "h0"), "- ", 2) == 0)
				sim_run(sim, MS);
			sim_kill(hosts[0]);
			start(sim, 0, 2, MANY_APPS, "hold");
			write_for_all(hosts[0]);
		}
		pass(sim, 10 * SEC);
		end(sim);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_of_n_is_used_and_each_has_its_part),
		cmocka_unit_test(test_a_message_costs_less_than_two_calls),
		cmocka_unit_test(test_what_cannot_be_divided_goes_round),
		cmocka_unit_test(test_every_host_has_its_turn),
		cmocka_unit_test(test_what_an_idle_host_does_not_use_others_do),
		cmocka_unit_test(test_a_lone_message_hardly_waits),
		cmocka_unit_test(test_without_the_engine_each_goes_on_with_its_share),
		cmocka_unit_test(test_who_holds_less_than_its_share_has_all_of_it_in_the_end),
		cmocka_unit_test(test_hold_sends_nothing_without_the_engine),
		cmocka_unit_test(test_a_host_that_is_cut_off_has_its_share_and_the_others_the_rest),
		cmocka_unit_test(test_an_engine_that_comes_back_empty_costs_little),
		cmocka_unit_test(test_what_a_killed_host_held_comes_home),
		cmocka_unit_test(test_who_is_unknown_again_and_again_does_not_ask_again_and_again),
		cmocka_unit_test(test_a_slow_engine_is_not_asked_for_more_than_it_can_do),
		cmocka_unit_test(test_the_share_of_a_killed_host_is_kept_for_it),
		cmocka_unit_test(test_a_killed_host_that_is_back_has_its_part_at_once),
		cmocka_unit_test(test_a_host_that_was_cut_off_may_have_sent),
		cmocka_unit_test(test_a_host_that_was_cut_off_may_have_sent_in_another_life),
		cmocka_unit_test(test_who_is_killed_on_coming_back_to_another_life_may_have_sent),
		cmocka_unit_test(test_who_ends_on_coming_back_to_another_life_may_have_sent),
		cmocka_unit_test(test_a_first_word_that_arrives_after_the_next_one_s_is_none),
		cmocka_unit_test(test_who_has_pledged_and_is_cut_off_sends_nothing),
		cmocka_unit_test(test_who_says_goodbye_leaves_its_part_at_once),
		cmocka_unit_test(test_who_says_goodbye_costs_little),
		cmocka_unit_test(test_of_two_by_one_name_the_later_goes_on),
		cmocka_unit_test(test_an_appid_that_is_no_longer_shared_is_the_host_s_own),
		cmocka_unit_test(test_an_appid_taken_out_when_the_engine_is_lost_is_sent_at_once),
		cmocka_unit_test(test_who_was_silent_brings_nothing_to_a_new_life),
		cmocka_unit_test(test_a_small_part_is_not_a_slow_one),
		cmocka_unit_test(test_a_backlog_that_is_given_all_leaves_evenly),
		cmocka_unit_test(test_nobody_gives_back_what_nobody_needs),
		cmocka_unit_test(test_who_needs_more_asks_at_once),
		cmocka_unit_test(test_who_is_given_much_does_not_send_it_all_at_once),
		cmocka_unit_test(test_a_share_grows_though_nothing_happens),
		cmocka_unit_test(test_what_must_be_free_is_given_by_what_each_has),
		cmocka_unit_test(test_what_was_aborted_is_told_as_it_was_then),
		cmocka_unit_test(test_a_longer_timeout_is_in_force_when_all_know),
		cmocka_unit_test(test_a_longer_timeout_that_was_not_told_is_waited_for),
		cmocka_unit_test(test_shares_follow_the_configuration_one_host_after_the_other),
		cmocka_unit_test(
			test_what_was_to_be_asked_about_is_asked_though_the_answer_was_lost),
		cmocka_unit_test(
			test_that_somebody_fell_silent_is_known_though_the_answer_was_lost),
		cmocka_unit_test(test_what_could_not_be_sent_comes_home_no_sooner),
		cmocka_unit_test(test_a_share_grows_when_all_others_have_given_it_back),
		cmocka_unit_test(test_what_a_share_has_grown_to_is_told_before_it_is_in_touch),
		cmocka_unit_test(test_who_cannot_ask_in_time_falls_back),
		cmocka_unit_test(test_what_came_before_all_was_said_is_not_used_later),
		cmocka_unit_test(test_a_share_is_what_was_reloaded_last),
		cmocka_unit_test(test_who_is_not_known_to_others_has_no_share),
		cmocka_unit_test(test_a_slow_host_has_nothing_before_others_know_how_slow_it_is),
		cmocka_unit_test(test_who_is_silent_is_so_though_the_clock_is_set_back),
		cmocka_unit_test(test_who_said_goodbye_is_not_restored_by_who_knew_it_longest),
		cmocka_unit_test(test_what_a_silent_process_sent_last_rests_when_it_is_killed),
		cmocka_unit_test(test_a_first_word_that_arrives_after_the_last_one_is_none),
		cmocka_unit_test(test_a_name_that_was_taken_stays_taken),
		cmocka_unit_test(test_what_was_under_way_in_a_silence_is_no_right_in_a_new_life),
		cmocka_unit_test(test_who_has_an_answer_has_left_room),
		cmocka_unit_test(test_an_answer_from_before_a_share_grew_does_not_take_it_back),
		cmocka_unit_test(test_what_was_saved_on_a_small_part_is_not_more_on_a_large_one),
		cmocka_unit_test(test_what_was_under_way_in_a_silence_is_no_right_after_it),
		cmocka_unit_test(test_who_ceases_to_share_while_cut_off_has_what_it_sent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
