/* SPDX-License-Identifier: MIT */
/* A room as the scheduler sees it: two lanes of messages, a limit of its own. It exists
 * only while something of it is queued, under way, or limited. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/heap.h"
#include "core/limit.h"
#include "core/list.h"
#include "core/request.h"
#include "core/timer.h"
#include "core/tokens.h"

struct app;

/* One class of a room's messages, first in first out. */
struct lane {
	struct room *room;
	struct list turn;         /* in its AppID's turns while it may start a message */
	struct list queue;        /* of struct request */
	size_t n;                 /* in the queue */
	struct heap_node longest; /* in its AppID's heap while n > 0; key ~n */
};

struct room {
	struct room *next; /* in its hash chain */
	uint64_t hash;
	struct app *app;
	struct list link; /* in its AppID's rooms */
	struct lane lanes[_CLASS_N];
	size_t in_flight;
	size_t waiting;
	struct tokens tokens;
	struct limit limit;
	struct timer timer;    /* when it may start again or be forgotten */
	uint64_t absent_until; /* the API said that it does not exist */
	bool limited;          /* out of tokens: not in its AppID's turns */
	uint8_t id_len;
	char id[];
};

/* All rooms of all AppIDs by (AppID, RoomId). Zeroed is empty. */
struct rooms {
	struct room **heads;
	size_t size; /* a power of two, or 0 */
	size_t n;
	uint64_t seed; /* of the hash, so that chains cannot be guessed */
};

/* The room, or NULL. */
struct room *rooms_find(const struct rooms *rs, const struct app *app, const char *id, size_t len);

/* Makes a room that is not there yet and links it to its AppID. Returns 0 or -ENOMEM. */
int rooms_add(struct rooms *rs, struct room **out, struct app *app, const char *id, size_t len);

/* Frees a room with nothing queued or under way. */
void rooms_remove(struct rooms *rs, struct room *room);

void rooms_deinit(struct rooms *rs);

static inline bool room_is_idle(const struct room *room)
{
	return room->lanes[CLASS_SYSTEM].n == 0 && room->lanes[CLASS_CHAT].n == 0 &&
	       room->in_flight == 0 && room->waiting == 0;
}
