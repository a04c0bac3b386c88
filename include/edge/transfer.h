/* SPDX-License-Identifier: MIT */
/* Requests over HTTPS, many at once, on the loop: the daemon's transport. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "core/answer.h"
#include "core/config.h"
#include "core/scheduler.h"

struct transfers;

struct transfers_ops {
	/* An attempt has ended. May not start another; @a is borrowed. */
	void (*complete)(void *arg, struct request *r, const struct answer *a);
	/* A connection is being opened to an address not seen before. */
	void (*address_changed)(void *arg);
};

/* Prepares to send as @c says; @c is borrowed until the next transfers_apply().
 * Returns 0 with the caller owning *@out, -ENOMEM, or -EINVAL when libcurl refuses a
 * setting (logged). */
int transfers_new(struct transfers **out, uv_loop_t *loop, const struct config *c,
		  const struct transfers_ops *ops, void *arg);

/* Another configuration, ready to be used for what is started from then on: what can fail
 * is done before anything changes. @c is borrowed as by transfers_new(). Returns 0, -ENOMEM
 * or -EINVAL, and *@out is then for transfers_apply() or transfers_discard(). */
struct transfers_change;
int transfers_prepare(struct transfers_change **out, const struct config *c);
void transfers_apply(struct transfers *t, struct transfers_change *change);
void transfers_discard(struct transfers_change *change);

struct transport *transfers_transport(struct transfers *t);

/* How many connections have been opened. */
uint64_t transfers_opened(const struct transfers *t);

/* The server's clock less ours, in ns, as its last answers told; they tell whole seconds. */
int64_t transfers_clock_skew(const struct transfers *t);

/* Lets libcurl do what it wants done at once, instead of a millisecond later by timer.
 * Call it after starting requests. Returns whether any attempt ended. */
bool transfers_turn(struct transfers *t);

/* Closes all connections and handles; nothing may be in flight. The object is freed when
 * the loop has run; @t is gone for the caller. A name look-up under way holds the loop
 * until it has ended. */
void transfers_close(struct transfers *t);
