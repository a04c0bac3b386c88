/* SPDX-License-Identifier: MIT */
/* What metrics and status tell that the scheduler does not know. The edge fills it in. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base.h"

struct facts {
	const char *version;
	const char *config_path;
	const char *phase; /* "running", "draining", … */
	int64_t pid;
	int64_t started_at; /* Unix time, ns */
	uint64_t uptime;    /* ns */

	bool reload_ok;      /* the last one; true before the first */
	int64_t reloaded_at; /* when a configuration was put in force last; Unix time, ns */

	uint64_t clients;
	uint64_t replies_discarded;
	uint64_t replies_lost;
	uint64_t connections_opened;
	uint64_t log_lines_lost;
	bool socket_lost; /* the intake's socket is no longer at its path */

	/* Of the engine that hosts share AppIDs by. */
	uint64_t shared_calls;
	uint64_t shared_hints;
	uint64_t shared_opened; /* connections */
	uint64_t shared_failed;
	int64_t shared_since;       /* when the state changed last; Unix time, ns; 0: never */
	const char *shared_trouble; /* that a connection has; NULL: none */

	int64_t clock_skew; /* the server's clock less ours, ns */
	uint64_t clock_steps;
};
