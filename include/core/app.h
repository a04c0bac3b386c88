/* SPDX-License-Identifier: MIT */
/* One AppID: its budget, its rooms, its ledger. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/config.h"
#include "core/heap.h"
#include "core/histogram.h"
#include "core/limit.h"
#include "core/list.h"
#include "core/outcome.h"
#include "core/pacer.h"
#include "core/request.h"
#include "core/shared.h"
#include "core/timer.h"
#include "core/tokens.h"

/* How many different return codes are counted by their number; the rest share one count. */
#define APP_CODES 64

/* What an AppID is about, the gravest first. X(enum app_state, name in metrics) */
/* clang-format off */
#define APP_STATES(X)                                                                      \
	X(APP_REMOVED, "removed") /* no longer configured, but something is under way */     \
	X(APP_HALTED,  "halted")  /* the API refuses its configuration */                    \
	X(APP_PAUSED,  "paused")  /* by the operator */                                      \
	X(APP_HELD,    "held")    /* startup_hold, or the API's Retry-After */               \
	X(APP_SLOWED,  "slowed")  /* the API finds it too fast */                            \
	X(APP_RUNNING, "running")
/* clang-format on */

enum app_state {
#define X(state, name) state,
	APP_STATES(X)
#undef X
	_APP_STATE_N
};

/* All that a line meets for which there is no place: of very many AppIDs these still lie
 * near the processor when the AppIDs themselves do not. */
struct app_gate {
	uint64_t closed : 1;   /* the queue is full, and nothing makes way for what comes */
	uint64_t refused : 63; /* lines since then; app_accepted() and app_ledger() add them */
};

struct app {
	/* What each other line meets, close together. */
	uint32_t app_id;
	bool halted;
	const struct app_config *config; /* NULL: no longer configured */
	struct app_gate *gate;           /* the scheduler's; NULL: none */
	struct request *probe;           /* halted: the one that is being tried */
	size_t n[_REQUEST_STATE_N];      /* how many requests are in each state */
	uint64_t accepted;               /* lines, but for those at the gate */
	struct ledger ledger;            /* of those */

	struct tokens tokens;
	struct lease lease; /* how many of them, where hosts share */
	struct limit limit;
	struct pacer pacer;
	uint64_t held_until; /* startup_hold */
	bool paused;

	int64_t halt_code;
	uint64_t probe_at; /* halted: when a message may be tried */

	struct list link;       /* in the scheduler's retired, once removed */
	struct list runnable;   /* in the scheduler's runnable, when worth a look */
	struct timer timer;     /* when it is worth a look */
	struct heap_node crowd; /* in the scheduler's crowded, while it has its share */

	struct list rooms;
	size_t n_rooms;
	struct list turns[_CLASS_N];      /* of struct lane, the next on top */
	struct heap longest[_CLASS_N];    /* of struct lane, the longest queue on top */
	struct list in[_REQUEST_STATE_N]; /* in flight, waiting; the queued are in their rooms */

	size_t queued_bytes; /* of those in its rooms' queues */

	uint64_t retries;
	struct {
		int64_t code;
		uint64_t n;
	} codes[APP_CODES];
	size_t n_codes;
	uint64_t other_codes;
	struct histogram waits;    /* of messages that were started: taken to last start */
	struct histogram upstream; /* of attempts: start to end */
};

/* Returns 0 with the caller owning *@out, or -ENOMEM. */
int app_new(struct app **out, const struct app_config *config, uint64_t now);

/* Frees an AppID without rooms. Accepts NULL. */
void app_free(struct app *app);

/* N in force (limit.h), for all who share it. */
uint64_t app_rate(const struct app *app, uint64_t now);

/* How many of its N tokens this host holds: all of them unless they are shared. */
uint64_t app_allotment(const struct app *app, uint64_t now);

/* How many may be away here at once: N in force, or as much of it as this host holds. */
uint64_t app_limit(const struct app *app, uint64_t now);

/* How many are kept for this host when it is cut off from those that it shares with. */
uint64_t app_share(const struct app *app);

enum app_state app_state(const struct app *app, uint64_t now);
const char *app_state_name(enum app_state state);

/* Tokens that could be taken now. */
uint64_t app_tokens(struct app *app, uint64_t credit, uint64_t now);

/* How long its oldest message has waited; 0 if none waits. */
uint64_t app_oldest(const struct app *app, uint64_t now);

/* Counts one return code by its number. */
void app_count_code(struct app *app, int64_t code);

/* Whether what is queued, or waits for another try, is all that may be. */
bool app_is_full(const struct app *app);

/* How many lines it was given. */
uint64_t app_accepted(const struct app *app);

/* What became of them. */
struct ledger app_ledger(const struct app *app);

/* Has @gate, which is new or NULL, in place of the one before. */
void app_set_gate(struct app *app, struct app_gate *gate);

/* Opens or closes its gate, when its queue, state or configuration has changed. */
void app_settle_gate(struct app *app);

/* Whether every accepted line is accounted for (design: promise 2):
 * accepted = total + queued + waiting + in flight. */
bool app_adds_up(const struct app *app);
