/* SPDX-License-Identifier: MIT */
/* Many coarse deadlines at O(1) each: the age limits of all queued messages. */
#pragma once

#include "core/list.h"

/* A tick is 2^24 ns, 16.8 ms: well within the 50 ms in which a message past its age
 * limit must be told so. The slots span 68.7 s, more than the longest age limit (60 s). */
#define WHEEL_TICK_SHIFT 24
#define WHEEL_SLOTS      4096

struct wheel {
	uint64_t tick; /* no node is in a slot before this one */
	uint64_t words;
	uint64_t bits[WHEEL_SLOTS / 64];
	struct list slots[WHEEL_SLOTS];
};

void wheel_init(struct wheel *w, uint64_t now);

/* Links @node so that it comes out at most one tick after @at. What lies beyond the span
 * comes out early: whoever takes it out looks at its own deadline and adds it again. A
 * node leaves before its time by list_unlink(). */
void wheel_add(struct wheel *w, struct list *node, uint64_t at);

/* Takes out a node whose tick is over, or returns NULL when none is. */
struct list *wheel_pop(struct wheel *w, uint64_t now);

/* When wheel_pop() next has something, NEVER when the wheel is empty. */
uint64_t wheel_next(struct wheel *w);
