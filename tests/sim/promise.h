/* SPDX-License-Identifier: MIT */
/* A second opinion on what a host's scheduler decides. sim.c asks for it; each of these
 * calls sim_fail() where the two differ. */
#pragma once

#include "sim.h"

/* A request of the AppID was started, or has ended; for the account of its tokens. */
void promise_note_start(struct host *h, uint32_t app_id);
void promise_note_end(struct host *h, uint32_t app_id, bool answered);

/* @r is being started. */
void promise_check_start(struct host *h, const struct request *r);

/* @r made way, or was refused, for want of room; @class is what came in. */
void promise_check_overflow(struct host *h, const struct request *r, enum message_class class);

/* The scheduler has run and wants to be called again at @next. */
void promise_check_run(struct host *h, uint64_t next);

void promise_deinit(struct host *h);
