/* SPDX-License-Identifier: MIT */
/* The exact deadlines of AppIDs and rooms, in the scheduler's one heap. */
#pragma once

#include "core/heap.h"

enum timer_owner {
	TIMER_APP,
	TIMER_ROOM
};

struct timer {
	struct heap_node node;
	enum timer_owner owner; /* what it is embedded in */
};
