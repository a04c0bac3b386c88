/* SPDX-License-Identifier: MIT */
/*
 * What a refused line is held against: bare cJSON_Parse() and cJSON_Delete() of the same
 * line. Written are nanoseconds of processor time for one.
 *
 *     parse TIMES APP BYTES ID
 */
#include <cjson/cJSON.h>
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "lines.h"

static int64_t cpu_now(void)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts) < 0)
		err(EX_OSERR, "clock_gettime");
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int main(int argc, char **argv)
{
	struct lines_shape shape;
	struct lines l;
	size_t times;
	int64_t cpu;

	if (argc != 5)
		errx(EX_USAGE, "see the top of parse.c");
	times = strtoul(argv[1], NULL, 10);
	shape = (struct lines_shape){
		.first_app = (unsigned)strtoul(argv[2], NULL, 10),
		.apps = 1,
		.rooms = 1,
		.bytes = strtoul(argv[3], NULL, 10),
		.id = strtoul(argv[4], NULL, 10) > 0,
		.least = 1,
	};
	lines_make(&l, &shape);
	l.bytes[l.at[1] - 1] = '\0'; /* what cJSON_Parse() takes is a string */
	cpu = cpu_now();
	for (size_t i = 0; i < times; i++) {
		cJSON *json = cJSON_Parse(l.bytes);

		if (!json)
			errx(EX_SOFTWARE, "not JSON");
		cJSON_Delete(json);
	}
	cpu = cpu_now() - cpu;
	printf("%.1f\n", (double)cpu / (double)times);
	lines_free(&l);
	return 0;
}
