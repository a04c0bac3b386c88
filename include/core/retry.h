/* SPDX-License-Identifier: MIT */
/* Whether and when an attempt that did not succeed is tried again. Pure arithmetic. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/answer.h"
#include "core/config.h"
#include "core/request.h"

/* When to try @r again, or NEVER: not worth it, not safe, no tries left, or too late for
 * its deadline. @random is any 32 random bits, for the jitter. */
uint64_t retry_at(const struct request *r, const struct verdict *v, const struct answer *a,
		  const struct config *c, uint32_t random, uint64_t now);

/* @base doubled @doublings times, at most @most, with jitter: 75 % to 125 % of that. */
uint64_t backoff(uint64_t base, unsigned doublings, uint64_t most, uint32_t random);
