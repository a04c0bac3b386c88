/* SPDX-License-Identifier: MIT */
/* The engine that keeps budgets for several hosts, Redis or Valkey: its connections, and
 * the core's calls over them. Built without hiredis, there is none. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "core/config.h"
#include "core/shared.h"

/* Descriptors that it may need. */
#define REDIS_DESCRIPTORS 3

struct redis;

struct redis_counts {
	uint64_t calls;  /* of the script */
	uint64_t hints;  /* messages heard on the channels */
	uint64_t opened; /* connections */
	uint64_t failed; /* of connections, in whatever phase */
	int64_t since;   /* when the core's state changed last; Unix time, ns; 0: never */
};

/* [shared] redis, which may be empty. Returns 0 or CONFIG_E_INVALID with @why filled. */
int redis_check(const char *text, struct config_error *why);

/* Carries the calls of @s, which stays the caller's, to where @c says; @c is borrowed until
 * the next redis_configure(). Returns 0 with the caller owning *@out, or -ENOMEM. */
int redis_new(struct redis **out, uv_loop_t *loop, struct shared *s, const struct config *c);

/* Another address, user or password means other connections. */
void redis_configure(struct redis *r, const struct config *c);

/* Once a turn, after the scheduler has run: sends what is to be sent, makes connections and
 * gives them up, logs how things are. Returns when it wants to be called again; at or
 * before @now: at once, and the scheduler is to run before. */
uint64_t redis_turn(struct redis *r, uint64_t now);

/* Has the core say goodbye. */
void redis_leave(struct redis *r, uint64_t now);

/* Whether that is done, or will not be in good time. Until it was asked to: no. */
bool redis_has_left(const struct redis *r, uint64_t now);

const struct redis_counts *redis_counts(const struct redis *r);

/* What befell a connection last, in the words of whoever found it out, unless there has been
 * a better one since; "": nothing. */
const char *redis_trouble(const struct redis *r, uint64_t now);

/* Closes everything. The object is freed when the loop has run; it is gone for the caller. A
 * name look-up under way holds the loop until it has ended. Accepts NULL. */
void redis_close(struct redis *r);
