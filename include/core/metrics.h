/* SPDX-License-Identifier: MIT */
/* What the daemon tells whoever watches it, as OpenMetrics or Prometheus text. */
#pragma once

#include <stdint.h>

#include "core/buffer.h"
#include "core/facts.h"
#include "core/scheduler.h"

enum metrics_format {
	METRICS_OPENMETRICS, /* OpenMetrics 1.0 */
	METRICS_PROMETHEUS,  /* the text format 0.0.4 of Prometheus, which is its forerunner */
};

enum metric_type {
	METRIC_COUNTER,
	METRIC_GAUGE,
	METRIC_HISTOGRAM,
	METRIC_INFO,
};

struct metrics_print;

/* One family of metrics. */
struct metric {
	const char *name; /* without what the type appends to it */
	enum metric_type type;
	const char *unit;
	const char *help;
	void (*print)(struct metrics_print *p, const struct metric *m);
	/* Where the print function is shared, what it shows. */
	size_t offset;
	uint64_t (*of_app)(const struct metrics_print *p, struct app *app);
};

/* All there are, in the order in which they are printed. Ends with a row without a name. */
extern const struct metric metrics[];

/* What the type appends to a name: "_total", "_info" or "". */
const char *metric_suffix(const struct metric *m);

/* Appends all metrics as of @now. */
void metrics_print(struct buffer *out, enum metrics_format format, const struct scheduler *s,
		   const struct facts *facts, uint64_t now);
