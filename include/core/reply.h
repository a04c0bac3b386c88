/* SPDX-License-Identifier: MIT */
/* The lines that writers get back (docs/PROTOCOL.md, "Replies"). */
#pragma once

#include <stdint.h>

#include "core/answer.h"
#include "core/buffer.h"
#include "core/outcome.h"
#include "core/request.h"

/* A request's end, as told to its writer. @verdict is NULL unless an answer led to it
 * (FATE_SENT, FATE_API, FATE_HTTP) or halted the AppID (FATE_HALTED: only code is used).
 * waited: accepted to its last start (or to its end if never started); took: last start
 * to answer, 0 if never started. */
struct fate_report {
	enum fate fate;
	const struct verdict *verdict;
	uint64_t waited;
	uint64_t took;
};

/* Appends the reply for a request that has an id. What the answer did not have (a Message,
 * a RequestId) is left out. */
void reply_fate(struct buffer *out, const struct request *r, const struct fate_report *f);

/* Appends the reply for a line refused before it became a request. @line 0: there was
 * none, the connection itself is refused. */
void reply_refusal(struct buffer *out, const struct refusal *why, uint64_t line);
