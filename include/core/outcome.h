/* SPDX-License-Identifier: MIT */
/* Every way in which a line can end. The list is the source for the enum, the
 * names in replies and metrics, and the ledger's columns; see docs/PROTOCOL.md
 * for what each means to a writer. */
#pragma once

#include <stdint.h>

#include "core/base.h"

/* X(enum fate, outcome, reason): the reason of the one good outcome is empty. */
/* clang-format off */
#define FATES(X)                                           \
	X(FATE_SENT,             "sent",     "")                 \
	X(FATE_QUEUE_FULL,       "dropped",  "queue_full")       \
	X(FATE_EXPIRED,          "dropped",  "expired")          \
	X(FATE_SHUTDOWN,         "dropped",  "shutdown")         \
	X(FATE_APP_REMOVED,      "dropped",  "app_removed")      \
	X(FATE_NO_ROOM,          "dropped",  "no_room")          \
	X(FATE_API,              "failed",   "api")              \
	X(FATE_HTTP,             "failed",   "http")             \
	X(FATE_TIMEOUT,          "failed",   "timeout")          \
	X(FATE_DNS,              "failed",   "dns")              \
	X(FATE_CONNECT,          "failed",   "connect")          \
	X(FATE_TLS,              "failed",   "tls")              \
	X(FATE_NETWORK,          "failed",   "network")          \
	X(FATE_ANSWER,           "failed",   "answer")           \
	X(FATE_HALTED,           "failed",   "halted")           \
	X(FATE_MEMORY,           "failed",   "memory")           \
	X(FATE_INTERNAL,         "failed",   "internal")         \
	X(FATE_INVALID,          "rejected", "invalid")          \
	X(FATE_TOO_LONG,         "rejected", "too_long")         \
	X(FATE_UNKNOWN_APP,      "rejected", "unknown_app")      \
	X(FATE_TOO_MANY_CLIENTS, "rejected", "too_many_clients")
/* clang-format on */

enum fate {
#define X(fate, outcome, reason) fate,
	FATES(X)
#undef X
	_FATE_N
};

/* "sent", "dropped", "failed" or "rejected". */
const char *fate_outcome_name(enum fate f);

/* As in a reply's "reason"; "" for FATE_SENT. */
const char *fate_reason_name(enum fate f);

/* How many lines met each fate. */
struct ledger {
	uint64_t n[_FATE_N];
};

uint64_t ledger_total(const struct ledger *l);

void ledger_add(struct ledger *to, const struct ledger *l);
