/* SPDX-License-Identifier: MIT */
/* The writers: their lines in, their replies out. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "core/config.h"
#include "core/reply.h"
#include "core/scheduler.h"
#include "edge/listener.h"

struct intake;

struct intake_counts {
	size_t clients;             /* now */
	uint64_t replies_discarded; /* to writers that do not read */
	uint64_t replies_lost;      /* the writer left, did not read to the end, or no memory */
};

/* Takes writers from @l, which stays the caller's, and hands their lines to @s. @c is
 * borrowed until the next intake_configure(). Returns 0 with the caller owning *@out, or a
 * negative errno. */
int intake_new(struct intake **out, uv_loop_t *loop, const struct listener *l, struct scheduler *s,
	       const struct config *c);

/* Has @fn called when reading lines has taken a while since the last intake_flush(): many
 * writers at once must not keep the loop from its turn. */
void intake_on_long_turn(struct intake *in, void (*fn)(void *arg), void *arg);

void intake_configure(struct intake *in, const struct config *c);

/* At most so many writers, whatever max_clients says: there are no descriptors for more. */
void intake_limit(struct intake *in, size_t most);

/* The scheduler's word on a request whose writer was one of ours (struct scheduler_ops). */
void intake_fate(struct intake *in, const struct request *r, const struct fate_report *f);

/* Sends the replies that have come together; once a turn of the loop. */
void intake_flush(struct intake *in);

/* Takes no more writers and reads no more lines. */
void intake_stop(struct intake *in);

/* Whether replies are still waiting for their writers to read. */
bool intake_has_replies(const struct intake *in);

/* Closes all connections; replies that still wait are lost, and counted. */
void intake_hang_up(struct intake *in);

const struct intake_counts *intake_counts(const struct intake *in);

/* Closes everything; no request may be under way any more. The object is freed when the
 * loop has run; it is gone for the caller. */
void intake_close(struct intake *in);
