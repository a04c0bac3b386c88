/* SPDX-License-Identifier: MIT */
/* Whether the API can be reached at all (design, "Delivery"). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base.h"

struct request;

/* So many attempts in a row, over all AppIDs, that got no answer mean "unreachable". */
#define UPSTREAM_FAILURES 5

/* Zeroed is "reachable". */
struct upstream {
	unsigned failures; /* in a row */
	bool down;
	unsigned probes;       /* failed since it went down */
	uint64_t probe_at;     /* down: when the next probe may start */
	struct request *probe; /* down: the one under way */
};

/* Whether a request may be started: always, or while down one probe at a time. */
bool upstream_is_open(const struct upstream *u, uint64_t now);

/* When it next may, NEVER if that depends on the probe under way. */
uint64_t upstream_open_at(const struct upstream *u);

/* A request is started. */
void upstream_start(struct upstream *u, struct request *r);

/* A request got an answer, or none. Returns whether it went down or came up by this. */
bool upstream_answered(struct upstream *u);
bool upstream_failed(struct upstream *u, const struct request *r, uint32_t random, uint64_t now);

/* A request ended in a way that says nothing about the upstream. */
void upstream_forget(struct upstream *u, const struct request *r);
