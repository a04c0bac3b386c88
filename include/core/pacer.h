/* SPDX-License-Identifier: MIT */
/* Spreads an AppID's starts over the second without making a lone message wait. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base.h"

struct pacer {
	uint64_t level; /* what may be started at once, in ns of dripping at @rate */
	uint64_t rate;
	uint64_t spare; /* starts that a backlog may save up more than is said in pacer.c */
	uint64_t since; /* when level was last brought up to date */
	bool busy;      /* messages have been waiting since then */
};

/* A rested pacer. @burst: starts that a rested AppID may make at once. */
void pacer_init(struct pacer *p, uint64_t rate, uint64_t burst, uint64_t now);

/* Says whether messages are waiting from now on. */
void pacer_set_busy(struct pacer *p, bool busy, uint64_t rate, uint64_t burst, uint64_t now);

/* When the next start is due: at or before @now means now. */
uint64_t pacer_ready_at(struct pacer *p, uint64_t rate, uint64_t burst, uint64_t now);

/* @n starts more may be made at once, for tokens that have come from elsewhere and have
 * rested there. */
void pacer_allow(struct pacer *p, uint64_t n, uint64_t rate, uint64_t burst, uint64_t now);

/* Accounts for one start, after pacer_ready_at() has said now. */
void pacer_spend(struct pacer *p, uint64_t rate);
