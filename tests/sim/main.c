/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "many.h"
#include "random_run.h"
#include "sim.h"

typedef const char *(*run_fn)(uint64_t seed, uint64_t *trace);

/* Ends early when @most of them have broken a promise. */
static int run_seeds(run_fn run, uint64_t first, uint64_t n, uint64_t most)
{
	uint64_t broken = 0;
	uint64_t traces = 0;

	printf("seeds %" PRIu64 " to %" PRIu64 "\n", first, first + n - 1);
	fflush(stdout);
	for (uint64_t seed = first; seed < first + n && broken < most; seed++) {
		uint64_t trace;
		const char *failure = run(seed, &trace);

		traces = traces * 31 + trace;
		if (!*failure)
			continue;
		broken++;
		printf("seed %" PRIu64 ": %s\n", seed, failure);
		fflush(stdout);
	}
	printf("%" PRIu64 " runs, trace %016" PRIx64 ", %" PRIu64 " broke a promise\n", n, traces,
	       broken);
	return broken > 0;
}

static double processor_seconds(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* An hour of one AppID that always has a message waiting: how fast the simulator is. */
static int run_hour(void)
{
	double before = processor_seconds();
	struct sim *sim = sim_new(1, &network_wan, LIMITER_SLIDING_LOG);
	struct host *h = sim_host(sim, &(struct sim_config){ 0 });
	bool kept;

	sim_write(sim, &(struct writer){ .host = h, .app_id = 1, .rooms = 30, .rate = 250 });
	sim_run(sim, 3600 * SEC);
	sim_settle(sim);
	printf("an hour, %" PRIu64 " lines, %" PRIu64 " of them sent, %" PRIu64 " events: %.2f s\n",
	       h->accepted, h->fates[FATE_SENT], sim->n_handled, processor_seconds() - before);
	kept = !*sim->failure;
	if (!kept)
		printf("%s\n", sim->failure);
	sim_free(sim);
	return !kept;
}

/* sim [FIRST [N [MOST]]]: as many random runs of one host, or less if MOST have broken a
 * promise. sim many ...: of several that share. sim hour: how long a long one takes. */
int main(int argc, char **argv)
{
	bool many = argc > 1 && strcmp(argv[1], "many") == 0;
	char **numbers = argv + many;
	int n_numbers = argc - many;
	uint64_t first = n_numbers > 1 ? strtoull(numbers[1], NULL, 10) : 1;
	uint64_t n = n_numbers > 2 ? strtoull(numbers[2], NULL, 10) : 100;
	uint64_t most = n_numbers > 3 ? strtoull(numbers[3], NULL, 10) : UINT64_MAX;

	if (argc > 1 && strcmp(argv[1], "hour") == 0)
		return run_hour();
	return run_seeds(many ? many_run : random_run, first, n, most);
}
