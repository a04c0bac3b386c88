/* SPDX-License-Identifier: MIT */
/* What can be asked of the daemon on its control socket (docs/CONTROL.md). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base.h"
#include "core/metrics.h"

enum command_op {
	COMMAND_STATUS,
	COMMAND_RELOAD,
	COMMAND_PAUSE,
	COMMAND_RESUME,
	COMMAND_METRICS,
	COMMAND_LOG,
	_COMMAND_N
};

struct command {
	enum command_op op;
	uint32_t app_id;            /* pause, resume */
	uint64_t level;             /* log: as config's log_level */
	enum metrics_format format; /* metrics */
};

struct command_error {
	char text[256];
};

enum {
	_COMMAND_E_SUCCESS,
	COMMAND_E_INVALID
};

/* Parses one line. @line[@n] is a NUL. Returns 0, or COMMAND_E_INVALID with one sentence in
 * @why. */
int command_parse(struct command *out, const char *line, size_t n, struct command_error *why);

/* "status", … */
const char *command_name(enum command_op op);
