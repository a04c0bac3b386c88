/* SPDX-License-Identifier: MIT */
/*
 * Memory may run out at any allocation. Each thing that the core does is done once for
 * every allocation that it makes, and that one fails: the first, the second, …, until
 * none is left to fail. Whatever happens must be an end that is documented, leave all
 * else as it was, and leak nothing (which is for the address sanitizer to see).
 *
 * The linker puts the functions below in the place of malloc() and its kin wherever this
 * program calls them; cJSON and OpenSSL, which are libraries of their own, are asked to
 * call them too.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/line.h"
#include "core/reply.h"
#include "sim.h"

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_reallocarray(void *p, size_t n, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_reallocarray(void *p, size_t n, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t n);

static struct {
	uint64_t seen;
	uint64_t fail_at; /* 0: none */
	bool failed;
} memory;

static bool is_refused(void)
{
	if (!sim_in_core || ++memory.seen != memory.fail_at)
		return false;
	memory.failed = true;
	return true;
}

void *__wrap_malloc(size_t n)
{
	return is_refused() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return is_refused() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return is_refused() ? NULL : __real_realloc(p, n);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
	return is_refused() ? NULL : __real_reallocarray(p, n, size);
}

char *__wrap_strdup(const char *text)
{
	return is_refused() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t n)
{
	return is_refused() ? NULL : __real_strndup(text, n);
}

static void *json_malloc(size_t n)
{
	return malloc(n);
}

static void *crypto_malloc(size_t n, const char *file, int line)
{
	return malloc(n);
}

static void *crypto_realloc(void *p, size_t n, const char *file, int line)
{
	return realloc(p, n);
}

static void crypto_free(void *p, const char *file, int line)
{
	free(p);
}

/* Calls @fn until it has made no allocation that could fail. */
static void torture(const char *name, void (*fn)(void))
{
	uint64_t points = 0;

	memory.fail_at = 0;
	memory.failed = false;
	fn(); /* whatever is allocated once and for all */
	do {
		memory.seen = 0;
		memory.fail_at = points + 1;
		memory.failed = false;
		fn();
		points += memory.failed;
	} while (memory.failed);
	print_message("# %s: %" PRIu64 " allocations\n", name, points);
	assert_true(points > 0);
}

#define IN_CORE(call)                                                                              \
	({                                                                                         \
		sim_in_core = true;                                                                \
		__auto_type result_ = (call);                                                      \
		sim_in_core = false;                                                               \
		result_;                                                                           \
	})

#define DO_IN_CORE(call)                                                                           \
	do {                                                                                       \
		sim_in_core = true;                                                                \
		call;                                                                              \
		sim_in_core = false;                                                               \
	} while (0)

/* A run of the simulator that comes by everything for which the core needs memory: more
 * rooms and tokens than any table holds at first, retries, overflow, a halted AppID, reloads
 * that add and remove AppIDs. */

#define ROOMS 150

static uint64_t refused_reloads;

static void answer(struct sim *sim, struct flight *f)
{
	const struct message *m = f->request ? f->request->writer : NULL;

	if (f->app_id == 2 && m && m->starts == 1)
		f->code = 1;
	else if (f->app_id == 3 && m && m->number == 5)
		f->code = 100000005;
}

/* Whatever a failed reload may not have touched. */
struct before {
	const struct config *config;
	struct app **apps;
	size_t n_apps;
	size_t n_timed;
	size_t bytes;
	size_t n_rooms;
	struct ledger sum;
	const struct app_config *configs[8];
};

static struct before look(const struct scheduler *s)
{
	struct before b = {
		.config = s->config,
		.apps = s->apps,
		.n_apps = s->n_apps,
		.n_timed = s->n_timed,
		.bytes = s->bytes,
		.n_rooms = s->rooms.n,
	};

	scheduler_sum(s, &b.sum);
	for (size_t i = 0; i < s->n_apps; i++)
		b.configs[i] = s->apps[i]->config;
	return b;
}

static void reload(struct sim *sim, uint32_t n_apps)
{
	struct host *h = sim->hosts[0];
	struct sim_config c = { .n_apps = n_apps, .app = "queue_max = 60" };
	struct before before = look(&h->scheduler);
	struct before after;
	int r = sim_reload(h, &c);

	if (r == 0)
		return;
	after = look(&h->scheduler);
	assert_int_equal(r, -ENOMEM);
	assert_memory_equal(&before, &after, sizeof(before));
	refused_reloads++;
	assert_int_equal(sim_reload(h, &c), 0);
}

static void more_apps(struct sim *sim)
{
	reload(sim, 5);
}

static void fewer_apps(struct sim *sim)
{
	reload(sim, 2);
}

static struct sim *script(void)
{
	struct sim *sim = sim_new(1, &network_lan, LIMITER_NONE);
	struct host *h;

	sim->starved = true;
	sim->rooms = ROOMS;
	sim->server.answer = answer;
	h = sim_host(sim, &(struct sim_config){ .n_apps = 3, .app = "queue_max = 60" });
	for (uint32_t room = 0; room < ROOMS; room++)
		sim_submit(h, 1, room, CLASS_CHAT, 0, 0);
	for (uint32_t i = 0; i < 20; i++)
		sim_submit(h, 2, i % 3, i % 4 ? CLASS_CHAT : CLASS_SYSTEM, 0, 0);
	for (uint32_t i = 0; i < 10; i++)
		sim_submit(h, 3, 1, CLASS_CHAT, 0, 0);
	sim_at(sim, 300 * MS, more_apps);
	sim_at(sim, 600 * MS, fewer_apps);
	sim_at(sim, 700 * MS, more_apps); /* back before their tokens are at home */
	sim_run(sim, 800 * MS);
	for (uint32_t id = 1; id <= 5; id++)
		sim_submit(h, id, id, CLASS_CHAT, 0, 0);
	sim_settle(sim);
	return sim;
}

static void test_a_message_ends_well_wherever_memory_runs_out(void **state)
{
	struct sim *sim;
	uint64_t points;
	uint64_t fates[_FATE_N] = { 0 };

	memory.fail_at = 0;
	sim_free(script());
	memory.seen = 0;
	sim = script();
	points = memory.seen;
	assert_string_equal(sim->failure, "");
	assert_int_equal(sim->hosts[0]->fates[FATE_MEMORY], 0);
	sim_free(sim);

	for (uint64_t i = 1; i <= points; i++) {
		memory.seen = 0;
		memory.fail_at = i;
		memory.failed = false;
		sim = script();
		if (*sim->failure)
			fail_msg("allocation %" PRIu64 " of %" PRIu64 ": %s", i, points,
				 sim->failure);
		assert_true(memory.failed);
		fates[FATE_MEMORY] += sim->hosts[0]->fates[FATE_MEMORY];
		fates[FATE_INTERNAL] += sim->hosts[0]->fates[FATE_INTERNAL];
		fates[FATE_ANSWER] += sim->hosts[0]->fates[FATE_ANSWER];
		assert_true(sim->hosts[0]->fates[FATE_MEMORY] <= 1);
		sim_free(sim);
	}
	print_message("# a run: %" PRIu64 " allocations; when they fail, %" PRIu64
		      " messages end as memory, %" PRIu64 " as internal, %" PRIu64
		      " as answer, %" PRIu64 " reloads are refused\n",
		      points, fates[FATE_MEMORY], fates[FATE_INTERNAL], fates[FATE_ANSWER],
		      refused_reloads);
	assert_true(fates[FATE_MEMORY] > 100 && refused_reloads > 5);
}

/* What stands alone. */

static void ignore_fate(void *arg, struct request *r, const struct fate_report *f)
{
}

static void ignore_event(void *arg, const struct scheduler_event *e)
{
}

static int no_random(void *arg, void *out, size_t n)
{
	memset(out, 0, n);
	return 0;
}

static const struct scheduler_ops ops = {
	.fate = ignore_fate,
	.event = ignore_event,
	.random = no_random,
};

static const struct {
	const char *section; /* NULL: the one before */
	const char *key;
	const char *value;
} settings[] = {
	{ "daemon", "socket", "/run/a" },
	{ NULL, "socket_group", "chat" },
	{ NULL, "metrics_listen", "127.0.0.1:9464" },
	{ "upstream", "url", "https://example.invalid/" },
	{ NULL, "ca_file", "/etc/ca" },
	{ "app 3", "server_secret_file", "/etc/c" },
	{ NULL, "allow_users", "alice 1000" },
	{ NULL, "allow_groups", "chat 1000" },
	{ "app 1", "server_secret_file", "credential:a" },
	{ "app 2", "server_secret_file", "/etc/b" },
};

static void report(void *arg, unsigned line, const char *text)
{
	fail_msg("%s", text);
}

/* Returns NULL when there was no memory for it. */
static struct config *read_config(void)
{
	struct config_error why = { "" };
	struct config *c = NULL;
	int r = IN_CORE(config_new(&c));

	for (size_t i = 0; i < ARRAY_SIZE(settings) && r == 0; i++) {
		if (settings[i].section)
			r = IN_CORE(config_section(c, settings[i].section, 1, &why));
		if (r == 0)
			r = IN_CORE(config_set(c, settings[i].key, settings[i].value, &why));
	}
	if (r == 0)
		r = IN_CORE(config_finish(c, report, NULL));
	if (r == 0)
		return c;
	if (r != -ENOMEM)
		fail_msg("%d %s", r, why.text);
	assert_true(memory.failed);
	config_free(c);
	return NULL;
}

static void do_config(void)
{
	struct config *c = read_config();

	config_free(c);
}

static void test_a_configuration_is_read_or_not_at_all(void **state)
{
	torture("config", do_config);
}

static struct config *with_memory(void)
{
	uint64_t fail_at = memory.fail_at;
	uint64_t seen = memory.seen;
	struct config *c;

	memory.fail_at = 0;
	c = read_config();
	memory.fail_at = fail_at;
	memory.seen = seen;
	assert_non_null(c);
	return c;
}

static void do_scheduler(void)
{
	_cleanup_(config_freep) struct config *c = with_memory();
	struct scheduler s;
	bool before;
	int r = IN_CORE(scheduler_init(&s, NULL, &ops, NULL, SEC));

	before = memory.failed; /* OpenSSL may find another way */
	if (r < 0) {
		assert_true(before);
		return;
	}
	r = IN_CORE(scheduler_configure(&s, c, SEC));
	assert_int_equal(r, memory.failed && !before ? -ENOMEM : 0);
	assert_int_equal(s.n_apps, r < 0 ? 0 : 3);
	scheduler_deinit(&s);
}

static void test_a_scheduler_is_made_or_not_at_all(void **state)
{
	torture("scheduler", do_scheduler);
}

static void do_parse(void)
{
	static const char line[] =
		"{\"AppId\":2,\"Room\\u0049d\":\"r\",\"UserId\":\"\\u00e4\",\"id\":\"\\t1\","
		"\"MessageContent\":\"say \\\"hi\\\"\",\"UserName\":\"plain\"}";
	_cleanup_(config_freep) struct config *c = with_memory();
	struct peer peer = { .uid = 1 };
	struct refusal why;
	struct request *r = NULL;
	int e = IN_CORE(request_parse(&r, c, &peer, line, strlen(line), &why));

	assert_int_equal(e, memory.failed ? REQUEST_E_REFUSED : 0);
	if (memory.failed)
		assert_int_equal(why.fate, FATE_MEMORY);
	request_free(r);
}

static void test_a_line_that_finds_no_memory_is_told_so(void **state)
{
	torture("request", do_parse);
}

/* Two users come; the second may find no memory while the first is there. */
static void do_users(void)
{
	struct users us;
	struct user *a;
	struct user *b;

	users_init(&us);
	a = IN_CORE(users_get(&us, 1));
	b = IN_CORE(users_get(&us, 2));
	assert_true(memory.failed ? !a != !b : a && b);
	assert_int_equal(us.n, !!a + !!b);
	assert_int_equal(us.n_idle, 0);
	if (a)
		users_put(&us, a);
	if (b)
		users_put(&us, b);
	users_deinit(&us);
}

static void test_a_user_that_finds_no_memory_leaves_the_others(void **state)
{
	torture("users", do_users);
}

struct heard {
	unsigned lines;
	unsigned lost;
};

static void on_line(void *arg, char *line, size_t n, uint64_t number)
{
	struct heard *heard = arg;

	heard->lines += line != NULL;
	heard->lost += line == NULL;
	assert_int_equal(number, heard->lines + heard->lost);
}

static void do_lines(void)
{
	char stream[3000];
	struct line_reader reader = { 0 };
	struct heard heard = { 0 };
	bool told = false;

	memset(stream, 'x', sizeof(stream));
	for (size_t i = 599; i < sizeof(stream); i += 600)
		stream[i] = '\n';
	for (size_t at = 0; at < sizeof(stream); at += 250)
		told |= IN_CORE(line_feed(&reader, stream + at, 250, 1000, on_line, &heard)) < 0;
	DO_IN_CORE(line_end(&reader, on_line, &heard));
	line_deinit(&reader);
	assert_int_equal(heard.lines + heard.lost, 5);
	assert_int_equal(heard.lost, memory.failed);
	assert_int_equal(told, memory.failed);
}

static void test_only_the_line_that_finds_no_memory_is_lost(void **state)
{
	torture("line", do_lines);
}

static void print_all(struct buffer *b)
{
	static const struct refusal why = { .fate = FATE_INVALID, .id = "7", .id_len = 1 };
	struct config *c = with_memory();

	DO_IN_CORE(reply_refusal(b, &why, 1));
	for (int i = 0; i < 40; i++) {
		DO_IN_CORE(buffer_printf(b, "%d bottles of %s\n", i, "beer"));
		DO_IN_CORE(buffer_put_json(b, "\"\xff\n", 3, 10));
		DO_IN_CORE(buffer_put_u64(b, UINT64_MAX));
	}
	DO_IN_CORE(config_dump(c, b));
	config_free(c);
}

static void do_buffer(void)
{
	_cleanup_(buffer_deinit) struct buffer whole = { 0 };
	_cleanup_(buffer_deinit) struct buffer b = { 0 };
	uint64_t fail_at = memory.fail_at;

	print_all(&b);
	memory.fail_at = 0;
	print_all(&whole);
	memory.fail_at = fail_at;
	assert_false(whole.failed);
	assert_int_equal(b.failed, memory.failed);
	assert_true(b.len <= whole.len);
	if (b.len > 0)
		assert_memory_equal(b.data, whole.data, b.len);
}

static void do_sample(void)
{
	_cleanup_(buffer_deinit) struct buffer b = { 0 };

	DO_IN_CORE(config_sample(&b));
	assert_int_equal(b.failed, memory.failed);
}

static void test_what_could_not_be_printed_is_a_whole_beginning(void **state)
{
	torture("buffer", do_buffer);
	torture("sample", do_sample);
}

static void do_judge(void)
{
	static const char body[] = "{\"Code\":0,\"Data\":{\"MessageId\":\"1\"},"
				   "\"Message\":\"success\",\"RequestId\":\"2\"}";
	struct answer a = {
		.result = TRANSPORT_ANSWERED,
		.written = true,
		.status = 200,
		.body = body,
		.body_len = strlen(body),
	};
	struct verdict v;

	DO_IN_CORE(answer_judge(&a, &v));
	assert_int_equal(v.class, memory.failed ? VERDICT_AMBIGUOUS : VERDICT_OK);
	assert_int_equal(v.fate, memory.failed ? FATE_ANSWER : FATE_SENT);
}

static void test_an_answer_that_finds_no_memory_is_no_success(void **state)
{
	torture("answer", do_judge);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_message_ends_well_wherever_memory_runs_out),
		cmocka_unit_test(test_a_configuration_is_read_or_not_at_all),
		cmocka_unit_test(test_a_scheduler_is_made_or_not_at_all),
		cmocka_unit_test(test_a_line_that_finds_no_memory_is_told_so),
		cmocka_unit_test(test_a_user_that_finds_no_memory_leaves_the_others),
		cmocka_unit_test(test_only_the_line_that_finds_no_memory_is_lost),
		cmocka_unit_test(test_what_could_not_be_printed_is_a_whole_beginning),
		cmocka_unit_test(test_an_answer_that_finds_no_memory_is_no_success),
	};

	if (CRYPTO_set_mem_functions(crypto_malloc, crypto_realloc, crypto_free) != 1)
		return 1;
	cJSON_InitHooks(&(cJSON_Hooks){ .malloc_fn = json_malloc, .free_fn = free });
	return cmocka_run_group_tests(tests, NULL, NULL);
}
