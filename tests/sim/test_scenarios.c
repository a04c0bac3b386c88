/* SPDX-License-Identifier: MIT */
/* The promises, one situation at a time, in virtual time. What sim.c checks after every
 * event (never more than N, one fate each, first in first out, nothing past its age, …)
 * holds in each of them without being said again. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random_run.h"
#include "sim.h"

#define assert_kept(sim)                                                                           \
	do {                                                                                       \
		if (*(sim)->failure)                                                               \
			fail_msg("seed %" PRIu64 ": %s", (sim)->seed, (sim)->failure);             \
	} while (0)

static struct sim *begin(const struct network *n)
{
	struct sim *sim = sim_new(1, n, LIMITER_SLIDING_LOG);

	return sim;
}

static void end(struct sim *sim)
{
	sim_settle(sim);
	assert_kept(sim);
	sim_free(sim);
}

static void submit(struct host *h, uint32_t room, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		sim_submit(h, 1, room, CLASS_CHAT, 0, 0);
}

static uint64_t fates_but_sent(const struct host *h)
{
	uint64_t n = 0;

	for (size_t i = FATE_SENT + 1; i < _FATE_N; i++)
		n += h->fates[i];
	return n;
}

/* How much of N an endless backlog uses, from the tenth second on. */
static double use_of(const struct network *n, const char *app)
{
	struct sim *sim = begin(n);
	const struct sim_config c = { .app = app };
	struct host *h = sim_host(sim, &c);
	uint64_t before;
	double used;

	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 30, .rate = 250 });
	sim_run(sim, 10 * SEC);
	before = h->seen[1].arrivals;
	sim_run(sim, 120 * SEC);
	used = (double)(h->seen[1].arrivals - before) / ((double)h->seen[1].n * 120);
	assert_int_equal(sim_account(sim, 1)->refused, 0);
	end(sim);
	return used;
}

static void test_a_backlog_uses_nearly_all_of_n(void **state)
{
	assert_true(use_of(&network_lan, NULL) >= 0.998);
	assert_true(use_of(&network_wan, NULL) >= 0.995);
	assert_true(use_of(&network_wan_spikes, NULL) >= 0.992);
	assert_true(use_of(&network_mobile_bad, NULL) >= 0.93);
	assert_true(use_of(&network_wan, "rate = 10") >= 0.99);
}

static void test_a_rested_appid_sends_its_burst_at_once(void **state)
{
	struct sim *sim = begin(&network_lan);
	struct host *h = sim_host(sim, &(struct sim_config){ .app = "room_rate = 0" });

	sim_run(sim, 60 * SEC);
	submit(h, 1, 30);
	sim_run(sim, 2 * MS);
	assert_in_range(h->seen[1].arrivals, 10, 11);
	sim_run(sim, SEC);
	assert_int_equal(h->fates[FATE_SENT], 30);
	end(sim);
}

static void test_a_week_of_rest_is_worth_one_burst(void **state)
{
	struct sim *sim = begin(&network_lan);
	struct host *h = sim_host(
		sim, &(struct sim_config){ .queue = "queue_max = 5000", .app = "room_rate = 0" });

	submit(h, 1, 1);
	sim_run(sim, UINT64_C(7) * 24 * 3600 * SEC);
	submit(h, 2, 1000);
	sim_run(sim, 2 * MS);
	assert_in_range(h->seen[1].arrivals, 11, 12); /* the first one, and the burst */
	sim_run(sim, 5 * SEC);
	assert_int_equal(h->seen[1].most, 100);
	end(sim);
}

static void test_an_appid_that_floods_costs_the_others_nothing(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){ .n_apps = 3 });

	sim_write(sim, &(struct writer){
			       .host = h, .app_id = 1, .rooms = 30, .rate = 200, .burst = 50 });
	for (uint32_t id = 2; id <= 3; id++)
		sim_write(sim,
			  &(struct writer){
				  .host = h, .app_id = id, .rooms = 30, .rate = 40, .group = 1 });
	sim_run(sim, 60 * SEC);
	assert_true(h->fates[FATE_QUEUE_FULL] > 1000);
	assert_true(h->sent[1] + 10 >= h->offered[1]); /* the rest is on its way */
	assert_true(sim_wait(h, 1, 0.99) <= 100);
	end(sim);
}

/* Where a clock of milliseconds in 32 bits begins anew, where a double no longer holds
 * every nanosecond, and where one of nanoseconds in 63 bits would; the numbers that keep
 * messages in order begin anew in the midst of it. */
static void test_no_clock_and_no_number_runs_over(void **state)
{
	static const uint64_t wraps[] = {
		(UINT64_C(1) << 31) * MS, (UINT64_C(1) << 32) * MS,  UINT64_C(1) << 53,
		UINT64_C(1) << 54,        (UINT64_C(1) << 32) * SEC, UINT64_C(1) << 63,
	};

	for (size_t i = 0; i < ARRAY_SIZE(wraps); i++) {
		struct sim *sim = begin(&network_wan);
		struct host *h;

		sim->now = wraps[i] - 10 * SEC;
		sim->wall = (int64_t)(UINT64_C(1700000000) * SEC - sim->now);
		h = sim_host(sim, &(struct sim_config){ 0 });
		h->scheduler.sequence = UINT32_MAX - 1500;
		sim_write(sim,
			  &(struct writer){ .host = h, .app_id = 1, .rooms = 30, .rate = 250 });
		sim_run(sim, 20 * SEC);
		assert_true(h->scheduler.sequence < UINT32_MAX / 2);
		assert_true(h->fates[FATE_SENT] >= 1900);
		end(sim);
	}
}

static void test_nothing_is_sent_in_the_first_second_of_a_process(void **state)
{
	struct sim *sim = begin(&network_lan);
	struct host *h = sim_host(sim, &(struct sim_config){ .daemon = "startup_hold = 1s" });

	submit(h, 1, 5);
	sim_run(sim, 999 * MS);
	assert_int_equal(h->seen[1].arrivals, 0);
	sim_run(sim, SEC);
	assert_int_equal(h->fates[FATE_SENT], 5);
	end(sim);
}

static void test_the_oldest_of_the_fullest_room_makes_way(void **state)
{
	struct sim *sim = begin(&network_lan);
	struct host *h = sim_host(sim, &(struct sim_config){ .daemon = "startup_hold = 1s",
							     .app = "queue_max = 10" });

	submit(h, 1, 2);
	submit(h, 2, 8);
	sim_submit(h, 1, 3, CLASS_CHAT, 0, 1);
	assert_int_equal(h->fates[FATE_QUEUE_FULL], 1);
	sim_run(sim, 2 * SEC);
	/* Room 2 lost one, its first; all others were sent. */
	assert_int_equal(h->fates[FATE_SENT], 10);
	assert_int_equal(h->sent[1], 1);
	end(sim);
}

static void test_with_newest_the_incoming_one_is_refused(void **state)
{
	struct sim *sim = begin(&network_lan);
	struct host *h =
		sim_host(sim, &(struct sim_config){ .daemon = "startup_hold = 1s",
						    .app = "queue_max = 10; overflow = newest" });

	submit(h, 2, 10);
	sim_submit(h, 1, 3, CLASS_SYSTEM, 0, 1);
	assert_int_equal(h->fates[FATE_QUEUE_FULL], 1);
	sim_run(sim, 2 * SEC);
	assert_int_equal(h->sent[0], 10);
	assert_int_equal(h->sent[1], 0);
	end(sim);
}

static void test_a_queue_is_full_for_as_long_as_it_is(void **state)
{
	struct sim *sim = begin(&network_lan);
	struct sim_config c = { .app = "queue_max = 10; overflow = newest",
				.daemon = "startup_hold = 1s" };
	struct host *h = sim_host(sim, &c);

	submit(h, 2, 11);
	assert_int_equal(h->fates[FATE_QUEUE_FULL], 1);
	c.app = "queue_max = 12; overflow = newest";
	assert_int_equal(sim_reload(h, &c), 0);
	submit(h, 2, 3);
	assert_int_equal(h->fates[FATE_QUEUE_FULL], 2);
	c.app = "queue_max = 12; overflow = oldest";
	assert_int_equal(sim_reload(h, &c), 0);
	submit(h, 3, 1);
	assert_int_equal(h->fates[FATE_QUEUE_FULL], 3);
	c.app = "queue_max = 10; overflow = newest";
	assert_int_equal(sim_reload(h, &c), 0);
	submit(h, 2, 1);
	assert_int_equal(h->fates[FATE_QUEUE_FULL], 4);
	assert_int_equal(app_accepted(h->scheduler.apps[0]), 16);
	assert_int_equal(app_ledger(h->scheduler.apps[0]).n[FATE_QUEUE_FULL], 4);
	sim_run(sim, 2 * SEC);
	assert_int_equal(h->sent[0], 12);
	submit(h, 2, 1);
	assert_int_equal(h->fates[FATE_QUEUE_FULL], 4);
	sim_run(sim, SEC);

	scheduler_pause(&h->scheduler, h->scheduler.apps[0], true);
	submit(h, 2, 11);
	assert_int_equal(h->fates[FATE_QUEUE_FULL], 5);
	scheduler_drain(&h->scheduler);
	submit(h, 2, 1);
	assert_int_equal(h->fates[FATE_SHUTDOWN], 1);
	assert_int_equal(h->fates[FATE_QUEUE_FULL], 5);
	scheduler_pause(&h->scheduler, h->scheduler.apps[0], false);
	end(sim);
}

static void test_chat_makes_way_for_system_messages_and_never_the_reverse(void **state)
{
	struct sim *sim = begin(&network_lan);
	struct host *h = sim_host(
		sim, &(struct sim_config){ .daemon = "startup_hold = 1s", .app = "queue_max = 2" });

	submit(h, 1, 2);
	sim_submit(h, 1, 2, CLASS_SYSTEM, 0, 1);
	sim_submit(h, 1, 2, CLASS_SYSTEM, 0, 1);
	assert_int_equal(h->fates[FATE_QUEUE_FULL], 2);
	submit(h, 1, 1); /* nothing makes way for it */
	assert_int_equal(h->fates[FATE_QUEUE_FULL], 3);
	sim_submit(h, 1, 3, CLASS_SYSTEM, 0, 1); /* the oldest system message does */
	assert_int_equal(h->fates[FATE_QUEUE_FULL], 4);
	sim_run(sim, 2 * SEC);
	assert_int_equal(h->sent[1], 2);
	assert_int_equal(h->sent[0], 0);
	end(sim);
}

static void test_system_messages_go_before_chat(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){ .app = "room_rate = 0" });

	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 20, .rate = 300 });
	sim_write(sim,
		  &(struct writer){ .host = h, .app_id = 1, .rate = 10, .system = 1, .group = 1 });
	sim_run(sim, 60 * SEC);
	assert_true(sim_wait(h, 1, 0.99) <= 100);
	assert_true(sim_wait(h, 0, 0.5) >= 300);
	assert_true(h->sent[1] + 4 >= h->offered[1]);
	end(sim);
}

static void test_a_flooding_room_never_silences_quiet_ones(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){ .app = "room_rate = 0" });

	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .room = 60, .rate = 1000 });
	sim_write(sim,
		  &(struct writer){ .host = h, .app_id = 1, .rooms = 20, .rate = 40, .group = 1 });
	sim_run(sim, 120 * SEC);
	assert_true(h->sent[1] + 8 >= h->offered[1]); /* the rest is on its way */
	assert_true(sim_wait(h, 1, 0.99) <= 100);
	end(sim);
}

static void test_a_room_has_a_limit_of_its_own(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){ 0 });

	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rate = 60 });
	sim_run(sim, 60 * SEC);
	assert_in_range(h->seen[1].most, 19, 20);
	assert_in_range(h->sent[0], 1150, 1220);
	end(sim);
}

/* Arrivals in order, one room, whatever the network does. */
static uint64_t last_arrived;

static void note_order(struct sim *sim, struct flight *f)
{
	const struct message *m = f->request ? f->request->writer : NULL;

	if (m && m->number < last_arrived + (m->starts == 1))
		sim_fail(sim, "message %" PRIu64 " arrived after %" PRIu64, m->number,
			 last_arrived);
	if (m)
		last_arrived = m->number;
	if (sim_chance(sim) < 0.1)
		f->code = 1; /* to be tried again: what comes after must wait for it */
}

static void test_one_in_flight_keeps_a_room_in_order_at_the_server(void **state)
{
	struct sim *sim = begin(&network_mobile_bad);
	struct host *h = sim_host(sim, &(struct sim_config){ .app = "room_in_flight = 1" });

	last_arrived = 0;
	sim->server.answer = note_order;
	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rate = 15 });
	sim_run(sim, 120 * SEC);
	assert_true(h->fates[FATE_SENT] > 200);
	end(sim);
}

static void note_order_and_be_busy(struct sim *sim, struct flight *f)
{
	note_order(sim, f);
	if (f->request && f->request->sequence > UINT32_MAX - 20 && f->request->attempts < 3)
		f->code = 1;
}

static void test_order_survives_numbers_that_begin_anew(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){ .app = "room_in_flight = 1" });

	last_arrived = 0;
	sim->server.answer = note_order_and_be_busy;
	h->scheduler.sequence = UINT32_MAX - 100;
	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rate = 15, .ttl_ms = 60000 });
	sim_run(sim, 30 * SEC);
	assert_true(h->scheduler.sequence < UINT32_MAX / 2);
	assert_true(h->fates[FATE_SENT] > 300);
	end(sim);
}

static void test_what_is_too_old_is_told_so_within_50_ms(void **state)
{
	struct sim *sim = begin(&network_lan);
	struct host *h = sim_host(sim, &(struct sim_config){ .app = "rate = 1" });

	submit(h, 1, 1);
	sim_submit(h, 1, 1, CLASS_CHAT, 500, 0);
	sim_submit(h, 1, 2, CLASS_CHAT, 700, 0);
	sim_run(sim, 499 * MS);
	assert_int_equal(h->fates[FATE_EXPIRED], 0);
	sim_run(sim, 51 * MS);
	assert_int_equal(h->fates[FATE_EXPIRED], 1);
	sim_run(sim, 200 * MS);
	assert_int_equal(h->fates[FATE_EXPIRED], 2);
	end(sim);
}

/* The API's moods. */

static int64_t code_to_answer;
static uint32_t only_room = UINT32_MAX;

static void answer_code(struct sim *sim, struct flight *f)
{
	if (only_room == UINT32_MAX || f->room == only_room)
		f->code = code_to_answer;
}

static struct host *with_code(struct sim *sim, int64_t code, const char *upstream)
{
	code_to_answer = code;
	only_room = UINT32_MAX;
	sim->server.answer = answer_code;
	return sim_host(sim, &(struct sim_config){ .upstream = upstream });
}

static void test_every_class_of_code_is_tried_as_often_as_it_should(void **state)
{
	static const struct {
		int64_t code;
		unsigned attempts;
		enum fate fate;
	} cases[] = {
		{ 0, 1, FATE_SENT },        { 1, 3, FATE_API },         { 5202, 3, FATE_API },
		{ 2, 1, FATE_API },         { 50012, 1, FATE_API },     { 104, 1, FATE_API },
		{ 4711, 2, FATE_API },      { 100000005, 1, FATE_API }, { 100000004, 2, FATE_API },
		{ 100000099, 1, FATE_API },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct sim *sim = begin(&network_lan);
		struct host *h = with_code(sim, cases[i].code, NULL);

		submit(h, 1, 1);
		sim_run(sim, 3 * SEC);
		assert_int_equal(h->seen[1].arrivals, cases[i].attempts);
		assert_int_equal(h->fates[cases[i].fate], 1);
		end(sim);
	}
}

static void answer_another_code(struct sim *sim, struct flight *f)
{
	f->code = 60000 + code_to_answer++ % 1000;
}

static void test_codes_without_end_are_counted_within_bounds(void **state)
{
	struct sim *sim = begin(&network_lan);
	struct host *h = sim_host(sim, &(struct sim_config){ 0 });
	const struct app *app = h->scheduler.apps[0];
	uint64_t counted = 0;

	code_to_answer = 0;
	sim->server.answer = answer_another_code;
	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 30, .rate = 90 });
	sim_run(sim, 30 * SEC);
	assert_int_equal(app->n_codes, APP_CODES);
	for (size_t i = 0; i < app->n_codes; i++)
		counted += app->codes[i].n;
	counted += app->other_codes;
	assert_int_equal(counted, code_to_answer - app->n[REQUEST_IN_FLIGHT]);
	assert_true(app->other_codes > 1000);
	end(sim);
}

static void test_a_wrong_secret_halts_and_recovers(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = with_code(sim, 100000005, "probe_interval = 2s");

	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 10, .rate = 50 });
	sim_run(sim, 10 * SEC);
	assert_int_equal(h->events[EVENT_HALTED], 1);
	/* What was in the air when it was halted, and a probe every two seconds. */
	assert_in_range(h->seen[1].arrivals, 2, 20);
	assert_true(h->fates[FATE_HALTED] > 400);
	code_to_answer = 0;
	sim_run(sim, 3 * SEC);
	assert_int_equal(h->events[EVENT_RESUMED], 1);
	assert_true(h->fates[FATE_SENT] > 40);
	end(sim);
}

static void test_an_expired_signature_is_renewed_once_also_for_a_probe(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = with_code(sim, 100000004, "probe_interval = 2s");

	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 10, .rate = 50 });
	sim_run(sim, 2 * SEC);
	assert_int_equal(h->events[EVENT_HALTED], 1);
	h->seen[1].arrivals = 0;
	sim_run(sim, 20 * SEC);
	assert_in_range(h->seen[1].arrivals, 18, 22); /* ten probes, twice each */
	end(sim);
}

static void doubtful_then_refused(struct sim *sim, struct flight *f)
{
	const struct message *m = f->request->writer;

	if (m->starts == 1)
		f->result = TRANSPORT_NETWORK;
	else
		f->code = 2;
}

static void test_what_may_have_arrived_is_never_said_not_to_have(void **state)
{
	struct sim *sim = begin(&network_lan);
	struct host *h = sim_host(sim, &(struct sim_config){ .upstream = "retry_ambiguous = yes" });

	sim->server.answer = doubtful_then_refused;
	submit(h, 1, 1);
	sim_run(sim, 2 * SEC);
	assert_int_equal(h->seen[1].arrivals, 2);
	assert_int_equal(h->fates[FATE_NETWORK], 1);
	end(sim);
}

static void test_a_room_that_does_not_exist_is_remembered_for_a_moment(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = with_code(sim, 104, NULL);

	only_room = 7;
	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .room = 7, .rate = 20 });
	sim_write(sim,
		  &(struct writer){ .host = h, .app_id = 1, .room = 8, .rate = 10, .group = 1 });
	sim_run(sim, 20 * SEC);
	assert_true(h->fates[FATE_API] <= 30);
	assert_true(h->fates[FATE_NO_ROOM] > 350);
	assert_int_equal(h->sent[1] + 2 >= h->offered[1], true);
	code_to_answer = 0;
	sim_run(sim, 3 * SEC);
	assert_true(h->sent[0] > 10);
	end(sim);
}

static void test_a_full_queue_hides_no_other_reason(void **state)
{
	const struct sim_config c = { .app = "queue_max = 1; overflow = newest",
				      .upstream = "probe_interval = 1s" };
	struct sim *sim = begin(&network_lan);
	struct host *h = with_code(sim, 104, NULL);

	assert_int_equal(sim_reload(h, &c), 0);
	sim_run(sim, 2 * SEC);
	submit(h, 7, 1);
	sim_run(sim, SEC);
	assert_int_equal(h->fates[FATE_API], 1);
	scheduler_pause(&h->scheduler, h->scheduler.apps[0], true);
	submit(h, 8, 2);
	assert_int_equal(h->fates[FATE_QUEUE_FULL], 1);
	submit(h, 7, 1);
	assert_int_equal(h->fates[FATE_NO_ROOM], 1);
	sim_run(sim, 2 * SEC); /* that there is no such room is forgotten */
	submit(h, 7, 1);
	assert_int_equal(h->fates[FATE_QUEUE_FULL], 2);

	code_to_answer = 100000005;
	scheduler_pause(&h->scheduler, h->scheduler.apps[0], false);
	sim_turn(h);
	submit(h, 8, 1);
	sim_run(sim, 2 * SEC);
	assert_int_equal(h->events[EVENT_HALTED], 1);
	scheduler_pause(&h->scheduler, h->scheduler.apps[0], true);
	submit(h, 8, 1); /* to find out whether it is so still */
	submit(h, 8, 1);
	assert_int_equal(h->fates[FATE_HALTED], 1);
	assert_int_equal(h->fates[FATE_QUEUE_FULL], 2);
	scheduler_pause(&h->scheduler, h->scheduler.apps[0], false);
	code_to_answer = 0;
	end(sim);
}

static void test_207_slows_one_room_alone(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = with_code(sim, 207, NULL);
	uint64_t before;

	only_room = 7;
	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .room = 7, .rate = 15 });
	sim_write(sim,
		  &(struct writer){ .host = h, .app_id = 1, .room = 8, .rate = 15, .group = 1 });
	sim_run(sim, 20 * SEC);
	assert_true(h->events[EVENT_ROOM_SLOWED] > 2);
	before = h->seen_rooms[sim->rooms + 7]->arrivals;
	sim_run(sim, 10 * SEC);
	assert_in_range(h->seen_rooms[sim->rooms + 7]->arrivals - before, 10, 80);
	assert_int_equal(h->events[EVENT_SLOWED], 0);
	assert_true(h->sent[1] + 4 >= h->offered[1]);
	assert_int_equal(limit_at(&h->scheduler.apps[0]->limit, 100, sim->now), 100);
	end(sim);
}

static void test_206_of_two_hosts_settles_near_a_fair_half(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct account *a;
	struct host *hosts[2];
	uint64_t before[2];

	for (int i = 0; i < 2; i++) {
		hosts[i] = sim_host(sim, &(struct sim_config){ 0 });
		sim_write(sim, &(struct writer){
				       .host = hosts[i], .app_id = 1, .rooms = 30, .rate = 200 });
	}
	sim_run(sim, 60 * SEC);
	a = sim_account(sim, 1);
	before[0] = hosts[0]->fates[FATE_SENT];
	before[1] = hosts[1]->fates[FATE_SENT];
	a->refused = 0;
	a->arrivals = 0;
	sim_run(sim, 120 * SEC);
	for (int i = 0; i < 2; i++)
		assert_in_range(hosts[i]->fates[FATE_SENT] - before[i], 120 * 35, 120 * 60);
	assert_true(a->refused * 20 < a->arrivals);
	end(sim);
}

static uint64_t dead_until;

static void dead(struct sim *sim, struct flight *f)
{
	if (sim->now < dead_until)
		f->result = TRANSPORT_TIMEOUT; /* nothing ever comes */
}

static void refusing(struct sim *sim, struct flight *f)
{
	if (sim->now < dead_until)
		f->result = TRANSPORT_CONNECT;
}

static void test_an_unreachable_upstream_is_probed_one_at_a_time(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){ 0 });
	uint64_t arrivals;

	dead_until = sim->now + 30 * SEC;
	sim->server.answer = refusing;
	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 20, .rate = 90 });
	sim_run(sim, 30 * SEC);
	assert_int_equal(h->events[EVENT_UPSTREAM_DOWN], 1);
	arrivals = h->seen[1].arrivals;
	assert_in_range(arrivals, UPSTREAM_FAILURES, 60);
	assert_true(h->fates[FATE_EXPIRED] > 2000);
	sim_run(sim, 10 * SEC);
	assert_int_equal(h->events[EVENT_UPSTREAM_UP], 1);
	assert_true(h->fates[FATE_SENT] > 300);
	end(sim);
}

static void refusing_then_no_memory(struct sim *sim, struct flight *f)
{
	if (sim->now < dead_until)
		f->result = f->host->scheduler.upstream.probes < 3 ? TRANSPORT_CONNECT
								   : TRANSPORT_MEMORY;
}

static void test_a_probe_that_ends_here_is_followed_by_another(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){ 0 });

	dead_until = sim->now + 10 * SEC;
	sim->server.answer = refusing_then_no_memory;
	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 20, .rate = 50 });
	sim_run(sim, 20 * SEC);
	assert_int_equal(h->events[EVENT_UPSTREAM_UP], 1);
	assert_true(h->fates[FATE_SENT] > 400);
	end(sim);
}

static void test_a_black_hole_does_not_hold_every_token_for_ever(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){ .upstream = "timeout = 2s" });

	dead_until = sim->now + 20 * SEC;
	sim->server.answer = dead;
	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 20, .rate = 90 });
	sim_run(sim, 20 * SEC);
	assert_int_equal(h->events[EVENT_UPSTREAM_DOWN], 1);
	sim_run(sim, 20 * SEC);
	assert_true(h->fates[FATE_SENT] > 900);
	end(sim);
}

static void brown(struct sim *sim, struct flight *f)
{
	if (sim->now >= dead_until)
		return;
	f->back += sim_below(sim, 3 * SEC);
	if (sim_chance(sim) < 0.3)
		f->status = 503;
}

static void test_a_brown_out_is_survived(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){ 0 });
	uint64_t before;

	dead_until = sim->now + 30 * SEC;
	sim->server.answer = brown;
	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 30, .rate = 200 });
	sim_run(sim, 40 * SEC);
	before = h->fates[FATE_SENT];
	sim_run(sim, 60 * SEC);
	assert_true(h->fates[FATE_SENT] - before >= 5900);
	end(sim);
}

static void test_a_clock_that_jumps_changes_nothing_but_the_timestamp(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){ 0 });

	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 30, .rate = 90 });
	sim_run(sim, 10 * SEC);
	sim->wall += (int64_t)(3600 * SEC);
	sim_run(sim, 10 * SEC);
	sim->wall -= (int64_t)(7200 * SEC);
	sim_run(sim, 10 * SEC);
	assert_int_equal(fates_but_sent(h), 0);
	end(sim);
}

static void test_after_ten_minutes_of_suspend_nothing_stale_is_sent(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){ 0 });
	uint64_t sent;

	sim_write(sim,
		  &(struct writer){
			  .host = h, .app_id = 1, .rooms = 30, .rate = 200, .for_ns = 5 * SEC });
	sim_run(sim, 5 * SEC);
	sent = h->fates[FATE_SENT];
	h->stalled_until = sim->now + 600 * SEC;
	sim_run(sim, 601 * SEC);
	/* Only what was in the air has still been sent. */
	assert_true(h->fates[FATE_SENT] <= sent + 100);
	assert_true(scheduler_is_empty(&h->scheduler));
	assert_true(h->fates[FATE_EXPIRED] > 100);
	end(sim);
}

static void test_a_reload_that_lowers_n_holds_at_once(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){ .upstream = "timeout = 1s" });
	uint64_t before;

	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 30, .rate = 200 });
	sim_run(sim, 10 * SEC);
	assert_int_equal(sim_reload(h, &(struct sim_config){ .app = "rate = 20",
							     .upstream = "timeout = 1s" }),
			 0);
	before = h->seen[1].arrivals;
	sim_run(sim, SEC);
	/* A hundred are away: until fewer than twenty are, none may follow. */
	assert_in_range(h->seen[1].arrivals - before, 0, 24);
	before = h->seen[1].arrivals;
	sim_run(sim, 60 * SEC);
	assert_in_range(h->seen[1].arrivals - before, 60 * 20 * 98 / 100, 60 * 20 + 1);
	end(sim);
}

static void test_a_reload_that_raises_n_is_used(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){ .app = "rate = 20" });
	uint64_t before;

	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 30, .rate = 200 });
	sim_run(sim, 10 * SEC);
	assert_int_equal(sim_reload(h, &(struct sim_config){ 0 }), 0);
	before = h->seen[1].arrivals;
	sim_run(sim, 60 * SEC);
	assert_in_range(h->seen[1].arrivals - before, 60 * 98, 60 * 101);
	end(sim);
}

static void test_a_reload_that_asks_for_order_has_it_at_once(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){ 0 });

	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 3, .rate = 90 });
	sim_run(sim, 10 * SEC);
	assert_int_equal(sim_reload(h, &(struct sim_config){ .app = "room_in_flight = 1" }), 0);
	sim_run(sim, 10 * SEC);
	end(sim);
}

static void test_a_reload_that_wants_no_credit_has_none_at_once(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){ 0 });

	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 30, .rate = 200 });
	sim_run(sim, 10 * SEC);
	assert_true(h->scheduler.credit.value > 30 * MS);
	assert_int_equal(sim_reload(h, &(struct sim_config){ .upstream = "credit = none" }), 0);
	sim_run(sim, 10 * SEC);
	assert_int_equal(h->scheduler.credit.value, 0);
	end(sim);
}

static void test_a_removed_appid_drops_its_queue_and_keeps_its_tokens(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){ .n_apps = 2 });
	struct scheduler *s = &h->scheduler;

	sim_write(sim, &(struct writer){ .host = h, .app_id = 2, .rooms = 30, .rate = 200 });
	sim_run(sim, 10 * SEC);
	assert_int_equal(sim_reload(h, &(struct sim_config){ .n_apps = 1 }), 0);
	assert_int_equal(h->fates[FATE_APP_REMOVED] > 200, true);
	assert_false(list_is_empty(&s->retired));
	/* Back within the second: still never more than N in any second (sim.c looks). */
	sim_run(sim, 100 * MS);
	assert_int_equal(sim_reload(h, &(struct sim_config){ .n_apps = 2 }), 0);
	assert_true(list_is_empty(&s->retired));
	sim_write(sim, &(struct writer){ .host = h, .app_id = 2, .rooms = 30, .rate = 200 });
	sim_run(sim, 5 * SEC);
	assert_int_equal(sim_reload(h, &(struct sim_config){ .n_apps = 1 }), 0);
	end(sim);
}

static void test_a_drain_ends_at_its_deadline_with_a_fate_for_all(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){ .queue = "max_age = 60s" });
	uint64_t accepted;

	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 30, .rate = 300 });
	sim_run(sim, 10 * SEC);
	scheduler_drain(&h->scheduler);
	accepted = h->fates[FATE_SENT];
	sim_run(sim, 5 * SEC);
	assert_in_range(h->fates[FATE_SENT] - accepted, 480, 510);
	assert_true(h->fates[FATE_SHUTDOWN] > 1000); /* what came after */
	scheduler_drop(&h->scheduler, sim->now);
	sim_run(sim, SEC);
	assert_true(scheduler_is_empty(&h->scheduler));
	end(sim);
}

static uint64_t most_in_a_tenth;

static void note_tenth(struct sim *sim, struct flight *f)
{
	const struct account *a = &f->host->seen[1];
	size_t n = 0;

	while (n < a->used &&
	       sim->now - a->recent[(a->head + a->used - 1 - n) % a->size] < SEC / 10)
		n++;
	most_in_a_tenth = max_u64(most_in_a_tenth, n);
}

static void test_a_backlog_is_spread_out(void **state)
{
	struct sim *sim = begin(&network_lan);
	struct host *h = sim_host(sim, &(struct sim_config){ 0 });

	sim->server.answer = note_tenth;
	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 30, .rate = 250 });
	sim_run(sim, SEC);
	most_in_a_tenth = 0;
	sim_run(sim, 60 * SEC);
	assert_in_range(most_in_a_tenth, 10, 25);
	end(sim);
}

static const struct network far = {
	.name = "far", .out = 100 * MS, .back = 100 * MS, .jitter = MS / 10
};

static void test_a_nearer_server_is_not_told_too_much(void **state)
{
	struct sim *sim = begin(&far);
	struct host *h = sim_host(sim, &(struct sim_config){ .app = "burst = 50; room_rate = 0" });

	sim_write(sim,
		  &(struct writer){
			  .host = h, .app_id = 1, .rooms = 30, .rate = 90, .for_ns = 10 * SEC });
	sim_run(sim, 15 * SEC);
	submit(h, 1, 50);
	sim_run(sim, 1010 * MS);
	submit(h, 1, 1);
	/* The fifty seemed to be at home, for they take as long to the old server as the
	 * next would have; the new one would count both within a second. */
	sim->network = &network_lan;
	scheduler_upstream_changed(&h->scheduler, sim->now);
	submit(h, 1, 60);
	sim_run(sim, 5 * SEC);
	end(sim);
}

/* Two hundred of them, which is more than the credit is learnt from. */
static void test_answers_of_the_old_server_say_nothing_of_the_new_one(void **state)
{
	struct sim *sim = begin(&far);
	struct host *h = sim_host(sim, &(struct sim_config){ .app = "rate = 1000; room_rate = 0" });

	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 30, .rate = 1500 });
	sim_run(sim, 10 * SEC);
	sim->network = &network_lan;
	scheduler_upstream_changed(&h->scheduler, sim->now);
	sim_run(sim, 5 * SEC);
	end(sim);
}

static void test_retries_spend_tokens_too(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = with_code(sim, 1, "retries = 10");

	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 30, .rate = 300 });
	sim_run(sim, 20 * SEC);
	assert_int_equal(h->seen[1].most, 100);
	assert_int_equal(h->fates[FATE_SENT], 0);
	end(sim);
}

static void test_a_hundred_thousand_rooms_are_as_good_as_one(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h;

	sim->rooms = 100000;
	h = sim_host(sim, &(struct sim_config){ .queue = "queue_max = 200000; max_age = 60s" });
	for (uint32_t room = 0; room < 100000; room++)
		submit(h, room, 1);
	assert_int_equal(h->scheduler.rooms.n, 100000);
	sim_run(sim, 30 * SEC);
	assert_in_range(h->fates[FATE_SENT], 2900, 3010);
	sim_run(sim, 31 * SEC);
	assert_int_equal(h->fates[FATE_SENT] + h->fates[FATE_EXPIRED], 100000);
	end(sim);
}

static void test_a_thousand_appids_have_a_budget_each(void **state)
{
	struct sim *sim = begin(&network_lan);
	struct host *h = sim_host(sim, &(struct sim_config){ .n_apps = 1000,
							     .upstream = "max_in_flight = 10000",
							     .app = "rate = 2" });

	for (uint32_t id = 1; id <= 1000; id++) {
		for (unsigned i = 0; i < 5; i++)
			sim_submit(h, id, 1, CLASS_CHAT, 0, 0);
	}
	sim_run(sim, 1500 * MS);
	for (uint32_t id = 1; id <= 1000; id++)
		assert_in_range(h->seen[id].arrivals, 3, 4);
	end(sim);
}

static void test_appids_take_turns_when_connections_are_few(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h =
		sim_host(sim, &(struct sim_config){ .n_apps = 4, .upstream = "max_in_flight = 4" });

	for (uint32_t id = 1; id <= 4; id++)
		sim_write(sim, &(struct writer){
				       .host = h, .app_id = id, .rooms = 20, .rate = id * 60 });
	sim_run(sim, 60 * SEC);
	/* 4 in flight over 41 ms: some 97 a second in all, 24 for each. */
	for (uint32_t id = 1; id <= 4; id++)
		assert_in_range(h->seen[id].arrivals, 60 * 22, 60 * 26);
	end(sim);
}

/* AppID 1's requests arrive nowhere. */
static void swallow_the_firsts(struct sim *sim, struct flight *f)
{
	f->result = f->app_id == 1 ? TRANSPORT_TIMEOUT : TRANSPORT_ANSWERED;
}

static void test_an_appid_without_answers_leaves_connections_to_the_others(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(sim, &(struct sim_config){
					       .n_apps = 2,
					       .upstream = "max_in_flight = 8; timeout = 5s",
				       });

	sim->server.answer = swallow_the_firsts;
	for (uint32_t id = 1; id <= 2; id++)
		sim_write(sim,
			  &(struct writer){ .host = h, .app_id = id, .rooms = 20, .rate = 200 });
	sim_run(sim, 60 * SEC);
	/* Half of the connections hang, and half of what is left is two: 48 a second over
	 * 41 ms. */
	assert_in_range(h->seen[2].arrivals, 60 * 45, 60 * 49);
	end(sim);
}

/* Both write into one room of an AppID each. */
static void test_one_user_s_flood_makes_way_for_another_user(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(
		sim, &(struct sim_config){
			     .n_apps = 2,
			     .queue = "queue_bytes = 64KiB; queue_max = 100000; max_age = 60s",
			     .app = "rate = 1" });
	size_t least = 0;

	sim->content = 1000;
	for (unsigned i = 0; i < 500; i++)
		sim_submit(h, 1, i % 7, CLASS_CHAT, 0, 0);
	for (unsigned i = 0; i < 500; i++)
		sim_submit(h, 2, i % 3, CLASS_CHAT, 0, 1);
	assert_in_range(h->users[0]->queued_bytes, 30000, 33000);
	assert_in_range(h->users[1]->queued_bytes, 30000, 33000);
	assert_int_equal(h->events[EVENT_OVER_SHARE], 1);
	/* Neither can the one take the other's half back. */
	least = h->users[1]->queued_bytes;
	for (unsigned i = 0; i < 500; i++)
		sim_submit(h, 1, i % 7, CLASS_CHAT, 0, 0);
	assert_in_range(h->users[1]->queued_bytes, least - 1200, least);
	end(sim);
}

/* The longest room is the other's, and stays as it is. */
static void test_one_user_s_flood_of_many_rooms_costs_no_other_user(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h;
	size_t others;

	sim->rooms = 500;
	h = sim_host(sim, &(struct sim_config){
				  .n_apps = 1,
				  .queue = "queue_bytes = 64KiB; queue_max = 100000; max_age = 60s",
				  .app = "rate = 1" });
	sim->content = 1000;
	for (unsigned i = 0; i < 200; i++)
		sim_submit(h, 1, i, CLASS_CHAT, 0, 0);
	for (unsigned i = 0; i < 10; i++)
		sim_submit(h, 1, 400, CLASS_CHAT, 0, 1);
	others = h->users[1]->queued_bytes;
	assert_in_range(others, 10000, 13000);
	for (unsigned i = 0; i < 200; i++)
		sim_submit(h, 1, 200 + i, CLASS_CHAT, 0, 0);
	assert_int_equal(h->users[1]->queued_bytes, others);
	end(sim);
}

/* The second AppID's queue is as long as it may be, and the memory is full. */
/* Also where only the class keeps it out. */
static void test_what_is_refused_has_pushed_nothing_out(void **state)
{
	static const char *const queues[] = {
		"queue_bytes = 64KiB; queue_max = 60; max_age = 60s; overflow = newest",
		"queue_bytes = 64KiB; queue_max = 60; max_age = 60s; overflow = oldest",
	};

	for (size_t k = 0; k < ARRAY_SIZE(queues); k++) {
		struct sim *sim = begin(&network_wan);
		struct host *h = sim_host(
			sim,
			&(struct sim_config){ .n_apps = 2, .queue = queues[k], .app = "rate = 1" });
		size_t others;

		for (unsigned i = 0; i < 70; i++)
			sim_submit(h, 2, i % 3, CLASS_SYSTEM, 0, 1);
		sim->content = 1000;
		for (unsigned i = 0; i < 60; i++)
			sim_submit(h, 1, i % 7, CLASS_CHAT, 0, 0);
		others = h->users[0]->queued_bytes;
		assert_in_range(h->scheduler.bytes, 64000, 65536);
		for (unsigned i = 0; i < 10; i++)
			sim_submit(h, 2, i % 3, CLASS_CHAT, 0, 1);
		assert_int_equal(h->users[0]->queued_bytes, others);
		end(sim);
	}
}

/* The first has most, but nothing that makes way for chat. */
static void test_system_messages_of_one_user_do_not_shield_another_s_flood(void **state)
{
	struct sim *sim = begin(&network_wan);
	struct host *h = sim_host(
		sim, &(struct sim_config){ .n_apps = 3,
					   .queue = "queue_bytes = 64KiB; queue_max = 1000; "
						    "max_age = 60s",
					   .app = "rate = 1" });

	sim->content = 1000;
	for (unsigned i = 0; i < 40; i++)
		sim_submit(h, 1, i % 3, CLASS_SYSTEM, 0, 0);
	for (unsigned i = 0; i < 60; i++)
		sim_submit(h, 2, i % 3, CLASS_CHAT, 0, 1);
	assert_in_range(h->users[1]->queued_bytes, 17000, 20000);
	for (unsigned i = 0; i < 60; i++)
		sim_submit(h, 3, i % 3, CLASS_CHAT, 0, 2);
	assert_in_range(h->users[0]->queued_bytes, 43000, 46000);
	assert_in_range(h->users[1]->queued_bytes, 8000, 11000);
	assert_in_range(h->users[2]->queued_bytes, 8000, 11000);
	end(sim);
}

static void test_a_seed_is_the_same_run_every_time(void **state)
{
	for (uint64_t seed = 1; seed <= 30; seed++) {
		uint64_t traces[3];

		(void)random_run(seed, &traces[0]);
		(void)random_run(seed + 1000, &traces[1]);
		(void)random_run(seed, &traces[2]);
		assert_true(traces[0] == traces[2]);
		assert_true(traces[0] != traces[1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_backlog_uses_nearly_all_of_n),
		cmocka_unit_test(test_a_rested_appid_sends_its_burst_at_once),
		cmocka_unit_test(test_a_week_of_rest_is_worth_one_burst),
		cmocka_unit_test(test_an_appid_that_floods_costs_the_others_nothing),
		cmocka_unit_test(test_no_clock_and_no_number_runs_over),
		cmocka_unit_test(test_nothing_is_sent_in_the_first_second_of_a_process),
		cmocka_unit_test(test_the_oldest_of_the_fullest_room_makes_way),
		cmocka_unit_test(test_with_newest_the_incoming_one_is_refused),
		cmocka_unit_test(test_a_queue_is_full_for_as_long_as_it_is),
		cmocka_unit_test(test_chat_makes_way_for_system_messages_and_never_the_reverse),
		cmocka_unit_test(test_system_messages_go_before_chat),
		cmocka_unit_test(test_a_flooding_room_never_silences_quiet_ones),
		cmocka_unit_test(test_a_room_has_a_limit_of_its_own),
		cmocka_unit_test(test_one_in_flight_keeps_a_room_in_order_at_the_server),
		cmocka_unit_test(test_order_survives_numbers_that_begin_anew),
		cmocka_unit_test(test_what_is_too_old_is_told_so_within_50_ms),
		cmocka_unit_test(test_every_class_of_code_is_tried_as_often_as_it_should),
		cmocka_unit_test(test_codes_without_end_are_counted_within_bounds),
		cmocka_unit_test(test_a_wrong_secret_halts_and_recovers),
		cmocka_unit_test(test_an_expired_signature_is_renewed_once_also_for_a_probe),
		cmocka_unit_test(test_what_may_have_arrived_is_never_said_not_to_have),
		cmocka_unit_test(test_a_room_that_does_not_exist_is_remembered_for_a_moment),
		cmocka_unit_test(test_a_full_queue_hides_no_other_reason),
		cmocka_unit_test(test_207_slows_one_room_alone),
		cmocka_unit_test(test_206_of_two_hosts_settles_near_a_fair_half),
		cmocka_unit_test(test_an_unreachable_upstream_is_probed_one_at_a_time),
		cmocka_unit_test(test_a_probe_that_ends_here_is_followed_by_another),
		cmocka_unit_test(test_a_black_hole_does_not_hold_every_token_for_ever),
		cmocka_unit_test(test_a_brown_out_is_survived),
		cmocka_unit_test(test_a_clock_that_jumps_changes_nothing_but_the_timestamp),
		cmocka_unit_test(test_after_ten_minutes_of_suspend_nothing_stale_is_sent),
		cmocka_unit_test(test_a_reload_that_lowers_n_holds_at_once),
		cmocka_unit_test(test_a_reload_that_raises_n_is_used),
		cmocka_unit_test(test_a_reload_that_asks_for_order_has_it_at_once),
		cmocka_unit_test(test_a_reload_that_wants_no_credit_has_none_at_once),
		cmocka_unit_test(test_a_removed_appid_drops_its_queue_and_keeps_its_tokens),
		cmocka_unit_test(test_a_drain_ends_at_its_deadline_with_a_fate_for_all),
		cmocka_unit_test(test_a_backlog_is_spread_out),
		cmocka_unit_test(test_a_nearer_server_is_not_told_too_much),
		cmocka_unit_test(test_answers_of_the_old_server_say_nothing_of_the_new_one),
		cmocka_unit_test(test_retries_spend_tokens_too),
		cmocka_unit_test(test_a_seed_is_the_same_run_every_time),
		cmocka_unit_test(test_a_hundred_thousand_rooms_are_as_good_as_one),
		cmocka_unit_test(test_a_thousand_appids_have_a_budget_each),
		cmocka_unit_test(test_appids_take_turns_when_connections_are_few),
		cmocka_unit_test(test_an_appid_without_answers_leaves_connections_to_the_others),
		cmocka_unit_test(test_one_user_s_flood_makes_way_for_another_user),
		cmocka_unit_test(test_system_messages_of_one_user_do_not_shield_another_s_flood),
		cmocka_unit_test(test_what_is_refused_has_pushed_nothing_out),
		cmocka_unit_test(test_one_user_s_flood_of_many_rooms_costs_no_other_user),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
