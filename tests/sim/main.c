/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random_run.h"

static int run_seeds(uint64_t first, uint64_t n)
{
	uint64_t broken = 0;

	printf("seeds %" PRIu64 " to %" PRIu64 "\n", first, first + n - 1);
	fflush(stdout);
	for (uint64_t seed = first; seed < first + n; seed++) {
		const char *failure = random_run(seed);

		if (!*failure)
			continue;
		broken++;
		printf("seed %" PRIu64 ": %s\n", seed, failure);
		fflush(stdout);
	}
	printf("%" PRIu64 " runs, %" PRIu64 " broke a promise\n", n, broken);
	return broken > 0;
}

int main(int argc, char **argv)
{
	uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	uint64_t n = argc > 2 ? strtoull(argv[2], NULL, 10) : 100;

	return run_seeds(first, n);
}
