/* SPDX-License-Identifier: MIT */
#pragma once

#include "link.h"

/* One run of several hosts that share their AppIDs' budgets, with faults of every kind, all
 * by the seed. Returns the broken promise, or ""; *@trace is a hash of all that happened. */
const char *many_run(uint64_t seed, uint64_t *trace);

/* A host that shares, by its name; @on_lost and so on as in [shared], NULL: the standard. */
struct many_host {
	const char *name;
	const char *on_lost;
	const char *app;      /* keys of its AppIDs */
	const char *upstream; /* keys */
	unsigned hosts;
	unsigned n_apps;
	uint64_t way; /* to the engine, ns */
	char *pledge; /* what is left behind, of SHARED_INCARNATION bytes; NULL: nothing */
};
struct host *many_host(struct sim *sim, const struct many_host *m);

/* Tells a host to end in good order; it is gone when it has said goodbye. */
void many_leave(struct sim *sim, struct host *h);

/* Whether what the engine has in its books is what hosts hold, and not more than N. */
void many_check_books(struct sim *sim, uint32_t app_id);
