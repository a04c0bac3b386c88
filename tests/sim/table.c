/* SPDX-License-Identifier: MIT */
/*
 * Prints the tables of docs/PROMISES.md: the daemon's core and the ways of others in the
 * same network before the same servers. One seed, one output.
 *
 * Two loads are used. "Backlog": five seconds with a lone message now and then, which lets
 * every way rest and start its windows where it likes, then 2.5 N lines a second, so that
 * there is always one waiting; this shows the most that arrives in a second and how much
 * of N is used. "Busy": 0.9 N lines a second at random times; this shows how long a line
 * takes while there is room for it.
 *
 * The models hear nothing of answers, so what they start is known before any of it
 * arrives: no events are needed for them, and one run is put before every limiter.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models.h"
#include "sim.h"

#define WARM_UP   (10 * SEC) /* before anything but the most in a second is measured */
#define LONE      (5 * SEC)  /* how long the lone messages go on */
#define LONE_RATE 2.0

static const struct network *const networks[] = {
	&network_lan,
	&network_wan,
	&network_wan_spikes,
	&network_mobile_bad,
};

static uint64_t duration = 600 * SEC;
static uint64_t seed = 1;

/* Samples. */

struct samples {
	uint64_t *at;
	size_t n;
	size_t size;
};

static void add(struct samples *s, uint64_t sample)
{
	if (s->n == s->size) {
		s->size = s->size ? s->size * 2 : 4096;
		s->at = reallocarray(s->at, s->size, sizeof(*s->at));
		if (!s->at)
			abort();
	}
	s->at[s->n++] = sample;
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a;
	const uint64_t *y = b;

	return (*x > *y) - (*x < *y);
}

/* In ms; sorts. */
static double quantile(struct samples *s, double part)
{
	if (s->n == 0)
		return NAN;
	qsort(s->at, s->n, sizeof(*s->at), compare);
	return (double)s->at[(size_t)(part * (double)(s->n - 1))] / (double)MS;
}

/* What is found out about one way in one network. */
struct figures {
	uint64_t most;              /* in any second, limiters that refuse nothing */
	double used;                /* part of N that arrived */
	double refused[_LIMITER_N]; /* part of what arrived */
	double through_gcra;        /* part of N that got past the limiter without burst */
	double excess;              /* s, mean of what a token was away beyond a second */
	double credit;              /* s, at the end */
	struct samples took;        /* line to answer, of what was let through */
};

/* The daemon's core. */

struct listener {
	uint64_t from;
	struct samples took;
	struct samples waited[SIM_GROUPS];
	double excess;
	uint64_t n;
};

static void on_told(struct sim *sim, const struct message *m, const struct fate_report *f)
{
	struct listener *l = sim->told_arg;

	if (f->fate != FATE_SENT || sim->now < l->from)
		return;
	add(&l->took, f->waited + f->took);
	add(&l->waited[m->group], f->waited);
	l->excess += (double)f->took + (double)(TOKENS_WINDOW - SEC) -
		     (double)sim->hosts[0]->scheduler.credit.value;
	l->n++;
}

static void listen_to(struct sim *sim, struct listener *l)
{
	l->from = sim->now + WARM_UP;
	sim->told = on_told;
	sim->told_arg = l;
	sim->relaxed = true; /* a breach is a figure here */
}

static void keep_or_die(const struct sim *sim)
{
	if (!*sim->failure)
		return;
	fprintf(stderr, "seed %" PRIu64 ": %s\n", sim->seed, sim->failure);
	exit(1);
}

struct core_setting {
	const char *name;
	const char *upstream;
};

static const struct core_setting core_settings[] = {
	{ "**barraged**", NULL },
	{ "**barraged**, `credit = none`", "credit = none" },
};

static struct host *core_begin(struct sim *sim, const struct core_setting *c, uint64_t n)
{
	char app[32];

	snprintf(app, sizeof(app), "rate = %" PRIu64, n);
	return sim_host(sim, &(struct sim_config){ .upstream = c->upstream, .app = app });
}

static void core_backlog(const struct core_setting *c, struct sim *sim, uint64_t n,
			 struct figures *f)
{
	struct listener l = { 0 };
	struct host *h = core_begin(sim, c, n);
	const struct account *a = sim_account(sim, 1);
	uint64_t arrivals;
	uint64_t refused;

	listen_to(sim, &l);
	sim_write(sim,
		  &(struct writer){
			  .host = h, .app_id = 1, .rooms = 30, .rate = LONE_RATE, .for_ns = LONE });
	sim_run(sim, LONE);
	sim_write(sim,
		  &(struct writer){ .host = h, .app_id = 1, .rooms = 30, .rate = 2.5 * (double)n });
	sim_run(sim, WARM_UP - LONE);
	arrivals = a->arrivals;
	refused = a->refused;
	sim_run(sim, duration);
	arrivals = a->arrivals - arrivals;
	refused = a->refused - refused;
	f->refused[sim->server.limiter] = (double)a->refused / (double)a->arrivals;
	if (sim->server.limiter == LIMITER_GCRA) {
		f->through_gcra =
			(double)(arrivals - refused) * (double)SEC / (double)(n * duration);
	} else {
		f->most = max_u64(f->most, a->most);
		f->used = (double)arrivals * (double)SEC / (double)(n * duration);
		f->excess = l.excess / (double)l.n / (double)SEC;
		f->credit = (double)h->scheduler.credit.value / (double)SEC;
	}
	keep_or_die(sim);
	free(l.took.at);
	free(l.waited[0].at);
}

static void core_busy(const struct core_setting *c, struct sim *sim, uint64_t n, struct figures *f)
{
	struct listener l = { 0 };
	struct host *h = core_begin(sim, c, n);

	listen_to(sim, &l);
	sim_write(sim,
		  &(struct writer){ .host = h, .app_id = 1, .rooms = 30, .rate = 0.9 * (double)n });
	sim_run(sim, WARM_UP + duration);
	keep_or_die(sim);
	f->took = l.took;
	free(l.waited[0].at);
}

static void core_measure(const struct core_setting *c, const struct network *network, uint64_t n,
			 struct figures *f)
{
	struct sim *sim;

	*f = (struct figures){ 0 };
	for (enum limiter i = LIMITER_SLIDING_LOG; i < _LIMITER_N; i++) {
		sim = sim_new(seed, network, i);
		core_backlog(c, sim, n, f);
		sim_free(sim);
	}
	sim = sim_new(seed, network, LIMITER_SLIDING_LOG);
	core_busy(c, sim, n, f);
	sim_free(sim);
}

/* The models. */

struct passage {
	uint64_t arrival;
	uint64_t line;
	uint64_t back;
};

struct passages {
	struct passage *at;
	size_t n;
};

static int compare_passages(const void *a, const void *b)
{
	const struct passage *x = a;
	const struct passage *y = b;

	return (x->arrival > y->arrival) - (x->arrival < y->arrival);
}

static struct passage pass(struct sim *sim, uint64_t line, uint64_t start)
{
	const struct network *n = sim->network;
	bool spike = sim_chance(sim) < n->spikes;
	bool spike_back = spike && sim_chance(sim) < 0.5;

	return (struct passage){
		.line = line,
		.arrival = start + sim_way(sim, n->out, spike && !spike_back),
		.back = sim->server.busy + sim_way(sim, n->back, spike_back),
	};
}

/* When the next line comes, at a rate in lines a second. */
static uint64_t next_line(struct sim *sim, uint64_t now, double rate)
{
	return now + 1 + (uint64_t)(-log(1 - sim_chance(sim)) / rate * (double)SEC);
}

/* Everything that a model starts in the whole time, in the order of arrival. */
static struct passages model_run(const struct model_way *way, struct sim *sim, uint64_t n,
				 double before, double after)
{
	struct passages p = { 0 };
	struct model m;
	uint64_t begin = sim->now;
	uint64_t end = begin + WARM_UP + duration;
	uint64_t line = begin;
	uint64_t last = begin; /* start */

	p.at = calloc((size_t)(n * ((end - begin) / SEC + 2)), sizeof(*p.at));
	if (!p.at)
		abort();
	model_init(&m, way, n, begin - SEC + sim_below(sim, SEC));
	for (;;) {
		line = next_line(sim, line, line < begin + LONE ? before : after);
		last = model_next(&m, max_u64(line, last), sim_below(sim, sim->lateness + 1));
		if (line > end || last > end)
			break;
		p.at[p.n++] = pass(sim, line, last);
	}
	model_deinit(&m);
	qsort(p.at, p.n, sizeof(*p.at), compare_passages);
	return p;
}

static struct account *model_account(struct sim *sim, enum limiter limiter, uint64_t n)
{
	struct account *a = sim_account(sim, (uint32_t)limiter);

	a->n = n;
	a->level = (double)n;
	sim->server.limiter = limiter;
	return a;
}

static void model_backlog(const struct model_way *way, struct sim *sim, uint64_t n,
			  struct figures *f)
{
	uint64_t from = sim->now + WARM_UP;
	struct passages p = model_run(way, sim, n, LONE_RATE, 2.5 * (double)n);

	for (enum limiter i = LIMITER_SLIDING_LOG; i < _LIMITER_N; i++) {
		struct account *a = model_account(sim, i, n);
		uint64_t arrived = 0;
		uint64_t let_through = 0;

		for (size_t j = 0; j < p.n; j++) {
			bool measured = p.at[j].arrival >= from;

			sim->now = p.at[j].arrival;
			if (sim_arrive(sim, a))
				let_through += measured;
			arrived += measured;
		}
		f->most = a->most;
		f->used = (double)arrived * (double)SEC / (double)(n * duration);
		f->refused[i] = (double)a->refused / (double)a->arrivals;
		f->through_gcra = (double)let_through * (double)SEC / (double)(n * duration);
	}
	free(p.at);
}

static void model_busy(const struct model_way *way, struct sim *sim, uint64_t n, struct figures *f)
{
	uint64_t from = sim->now + WARM_UP;
	double rate = 0.9 * (double)n;
	struct passages p = model_run(way, sim, n, rate, rate);
	struct account *a = model_account(sim, LIMITER_SLIDING_LOG, n);

	for (size_t i = 0; i < p.n; i++) {
		sim->now = p.at[i].arrival;
		if (sim_arrive(sim, a) && p.at[i].arrival >= from)
			add(&f->took, p.at[i].arrival + p.at[i].back - p.at[i].line);
	}
	free(p.at);
}

static void model_measure(const struct model_way *way, const struct network *network, uint64_t n,
			  struct figures *f)
{
	struct sim *sim = sim_new(seed, network, LIMITER_NONE);

	*f = (struct figures){ 0 };
	model_backlog(way, sim, n, f);
	sim_free(sim);
	sim = sim_new(seed, network, LIMITER_NONE);
	model_busy(way, sim, n, f);
	sim_free(sim);
}

/* The tables. */

static void print_part(double part)
{
	if (part == 0)
		printf(" 0 |");
	else if (part < 0.00005)
		printf(" < 0.01 %% |");
	else
		printf(" %.2f %% |", 100 * part);
}

static void print_row(const char *network, const char *name, struct figures *f)
{
	printf("| %s | %s | %" PRIu64 " | %.2f %% |", network, name, f->most, 100 * f->used);
	for (size_t i = LIMITER_SLIDING_LOG; i < _LIMITER_N; i++)
		print_part(f->refused[i]);
	printf(" %.1f %% | %.1f | %.1f |\n", 100 * f->through_gcra, quantile(&f->took, 0.5),
	       quantile(&f->took, 0.99));
	fflush(stdout);
}

static void print_ways(uint64_t n)
{
	struct figures f;

	printf("\n| network | way | most in 1 s | used | refused: log | window | bucket | GCRA "
	       "| through GCRA | p50 ms | p99 ms |\n"
	       "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n");
	for (size_t i = 0; i < ARRAY_SIZE(networks); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(core_settings); j++) {
			core_measure(&core_settings[j], networks[i], n, &f);
			print_row(networks[i]->name, core_settings[j].name, &f);
			free(f.took.at);
		}
		for (size_t j = 0; j < n_model_ways; j++) {
			model_measure(&model_ways[j], networks[i], n, &f);
			print_row(networks[i]->name, model_ways[j].name, &f);
			free(f.took.at);
		}
	}
}

static void print_bound(uint64_t n)
{
	printf("\n| network | `credit` | credit at the end, ms | mean excess, ms | 1/(1 + mean "
	       "excess) "
	       "| used |\n|---|---|---:|---:|---:|---:|\n");
	for (size_t i = 0; i < ARRAY_SIZE(networks); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(core_settings); j++) {
			struct sim *sim = sim_new(seed, networks[i], LIMITER_SLIDING_LOG);
			struct figures f = { 0 };

			core_backlog(&core_settings[j], sim, n, &f);
			sim_free(sim);
			printf("| %s | %s | %.3f | %.3f | %.2f %% | %.2f %% |\n", networks[i]->name,
			       core_settings[j].upstream ? "none" : "auto", 1000 * f.credit,
			       1000 * f.excess, 100 / (1 + f.excess), 100 * f.used);
		}
	}
}

/* Fairness. With every line in one room the core's queue is a plain first-in-first-out of
 * the same size, paced by the same tokens. */

static const struct queue_setting {
	const char *name;
	const char *app;
	bool one_room;
} queue_settings[] = {
	{ "**barraged**, `room_rate = 0`", "room_rate = 0", false },
	{ "**barraged**, `room_rate = 20`", "room_rate = 20", false },
	{ "one queue, newest refused", "room_rate = 0; overflow = newest", true },
	{ "one queue, oldest dropped", "room_rate = 0; overflow = oldest", true },
};

#define QUIET_ROOMS 20
#define QUIET_SHARE 0.4 /* of N, over all quiet rooms; a fair share would be 20/21 */

static void measure_queue(const struct queue_setting *q, const struct network *network, uint64_t n)
{
	struct sim *sim = sim_new(seed, network, LIMITER_SLIDING_LOG);
	struct listener l = { 0 };
	char app[96];
	struct host *h;

	snprintf(app, sizeof(app), "rate = %" PRIu64 "; %s", n, q->app);
	h = sim_host(sim, &(struct sim_config){ .app = app });
	listen_to(sim, &l);
	sim_write(sim, &(struct writer){ .host = h,
					 .app_id = 1,
					 .room = q->one_room ? 0 : 60,
					 .rate = 10 * (double)n });
	sim_write(sim, &(struct writer){ .host = h,
					 .app_id = 1,
					 .rooms = q->one_room ? 1 : QUIET_ROOMS,
					 .rate = QUIET_SHARE * (double)n,
					 .group = 1 });
	sim_run(sim, WARM_UP + duration);
	sim_settle(sim);
	keep_or_die(sim);
	printf("| %s | %s | %.2f %% | %.0f | %.0f | %.1f | %.0f |\n", network->name, q->name,
	       100 * (double)h->sent[1] / (double)h->offered[1], quantile(&l.waited[1], 0.5),
	       quantile(&l.waited[1], 0.99),
	       (double)h->sent[0] * (double)SEC / (double)(WARM_UP + duration),
	       floor(fmax(quantile(&l.waited[0], 1), quantile(&l.waited[1], 1))));
	free(l.took.at);
	free(l.waited[0].at);
	free(l.waited[1].at);
	sim_free(sim);
}

static void print_fairness(uint64_t n)
{
	printf("\n| network | queue | quiet rooms' lines delivered | wait p50 ms | wait p99 ms "
	       "| flooding room, a second | oldest delivered, ms |\n"
	       "|---|---|---:|---:|---:|---:|---:|\n");
	for (size_t i = 0; i < ARRAY_SIZE(networks); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(queue_settings); j++)
			measure_queue(&queue_settings[j], networks[i], n);
	}
}

/* What happens when the assumption behind the credit fails: the line becomes shorter and
 * nobody says so. */

static struct network shorter;

static void shorten(struct sim *sim)
{
	sim->network = &shorter;
}

static void measure_shorter(const struct network *network, uint64_t by, uint64_t n)
{
	struct sim *sim = sim_new(seed, network, LIMITER_SLIDING_LOG);
	struct figures f = { 0 };

	shorter = *network;
	shorter.out -= by / 2;
	shorter.back -= by / 2;
	sim_at(sim, WARM_UP + duration / 2, shorten);
	core_backlog(&core_settings[0], sim, n, &f);
	printf("| %s | %.0f | %" PRIu64 " | %" PRIu64 " |\n", network->name,
	       (double)by / (double)MS, f.most, sim_account(sim, 1)->refused);
	sim_free(sim);
}

static void print_shorter(uint64_t n)
{
	static const uint64_t by[] = { 2 * MS, 5 * MS, 10 * MS, 20 * MS };

	printf("\n| network | shorter by, ms | most in a second | refused by a sliding log |\n"
	       "|---|---:|---:|---:|\n");
	for (size_t i = 0; i < ARRAY_SIZE(by); i++)
		measure_shorter(&network_wan, by[i], n);
}

/* How often chance alone makes the credit too large. A round trip is a floor and @alpha
 * exponential delays, so near the floor the delays pile up like x^alpha. */

#define TRIALS 1000
#define FLOOR  SEC /* so far up that the credit never ends at 0 */

static uint64_t delay(struct sim *sim, unsigned alpha)
{
	double product = 1;

	for (unsigned i = 0; i < alpha; i++)
		product *= 1 - sim_chance(sim);
	return (uint64_t)(-log(product) * (double)MS);
}

/* The part of all delays that stay below @ns. */
static double part_below(uint64_t ns, unsigned alpha)
{
	double x = (double)ns / (double)MS;
	double term = exp(-x);
	double sum = 0;

	for (unsigned i = 1; i < alpha + 60; i++) {
		term *= x / i;
		if (i >= alpha)
			sum += term;
	}
	return sum;
}

static void measure_chance(unsigned alpha, uint64_t n)
{
	struct sim *sim = sim_new(seed, &network_wan, LIMITER_NONE);
	unsigned above = 0;
	double pairs = 0;

	for (unsigned i = 0; i < TRIALS; i++) {
		struct credit_estimate c = { 0 };

		for (uint64_t j = 0; j < 60 * n; j++)
			credit_learn(&c, FLOOR + delay(sim, alpha), sim->now);
		if (c.value > FLOOR) {
			above++;
			pairs += part_below(c.value - FLOOR, alpha);
		}
	}
	printf("| %u | %.1f %% |", alpha, 100.0 * above / TRIALS);
	if (above > 0)
		printf(" %.1e | %.1g |\n", pairs / TRIALS, pairs / TRIALS * (double)(86400 * n));
	else
		printf(" – | – |\n");
	sim_free(sim);
}

static void print_chance(uint64_t n)
{
	static const unsigned alphas[] = { 1, 2, 4, 6, 8, 12, 16 };

	printf("\n| α | credit above the floor | part of the pairs that are too close "
	       "| pairs a day, always busy |\n|---:|---:|---:|---:|\n");
	for (size_t i = 0; i < ARRAY_SIZE(alphas); i++)
		measure_chance(alphas[i], n);
}

/* clang-format off */
static const struct {
	const char *title;
	uint64_t n;
	void (*print)(uint64_t n);
} tables[] = {
	{ "The ways",                     100, print_ways },
	{ "The ways",                      10, print_ways },
	{ "What bounds utilisation",      100, print_bound },
	{ "Fairness",                     100, print_fairness },
	{ "A line that becomes shorter",  100, print_shorter },
	{ "Chance",                       100, print_chance },
};
/* clang-format on */

int main(int argc, char **argv)
{
	if (argc > 1)
		duration = strtoull(argv[1], NULL, 10) * SEC;
	if (argc > 2)
		seed = strtoull(argv[2], NULL, 10);
	printf("%" PRIu64 " s of virtual time for each figure, seed %" PRIu64 "\n", duration / SEC,
	       seed);
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		printf("\n### %s, N = %" PRIu64 "\n", tables[i].title, tables[i].n);
		tables[i].print(tables[i].n);
	}
	return 0;
}
