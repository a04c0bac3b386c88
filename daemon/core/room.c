/* SPDX-License-Identifier: MIT */
#include "core/room.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/app.h"
#include "core/hash.h"

/* Over the RoomId, begun from the seed and the AppID. */
static uint64_t hash_of(const struct rooms *rs, const struct app *app, const char *id, size_t len)
{
	uint64_t h = hash_bytes(rs->seed ^ (HASH_BASIS + app->app_id), id, len);

	return h ^ h >> 32;
}

struct room *rooms_find(const struct rooms *rs, const struct app *app, const char *id, size_t len)
{
	uint64_t hash;
	struct room *room;

	if (rs->size == 0)
		return NULL;
	hash = hash_of(rs, app, id, len);
	for (room = rs->heads[hash & (rs->size - 1)]; room; room = room->next) {
		if (room->hash == hash && room->app == app && room->id_len == len &&
		    memcmp(room->id, id, len) == 0)
			return room;
	}
	return NULL;
}

/* Without memory to grow the chains just become longer, unless there is no table yet. */
static int grow(struct rooms *rs)
{
	size_t size = rs->size ? rs->size * 2 : 64;
	struct room **heads = calloc(size, sizeof(struct room *));

	if (!heads)
		return rs->size ? 0 : -ENOMEM;
	for (size_t i = 0; i < rs->size; i++) {
		for (struct room *room = rs->heads[i], *next; room; room = next) {
			next = room->next;
			room->next = heads[room->hash & (size - 1)];
			heads[room->hash & (size - 1)] = room;
		}
	}
	free(rs->heads);
	rs->heads = heads;
	rs->size = size;
	return 0;
}

int rooms_add(struct rooms *rs, struct room **out, struct app *app, const char *id, size_t len)
{
	struct room *room;
	int r;

	if (rs->n >= rs->size) {
		r = grow(rs);
		if (r < 0)
			return r;
	}
	room = calloc(1, sizeof(*room) + len + 1);
	if (!room)
		return -ENOMEM;
	room->app = app;
	room->id_len = (uint8_t)len;
	memcpy(room->id, id, len);
	room->hash = hash_of(rs, app, id, len);
	room->timer.owner = TIMER_ROOM;
	for (size_t i = 0; i < _CLASS_N; i++) {
		room->lanes[i].room = room;
		list_init(&room->lanes[i].turn);
		list_init(&room->lanes[i].queue);
	}
	room->next = rs->heads[room->hash & (rs->size - 1)];
	rs->heads[room->hash & (rs->size - 1)] = room;
	rs->n++;
	list_push_back(&app->rooms, &room->link);
	app->n_rooms++;
	*out = room;
	return 0;
}

void rooms_remove(struct rooms *rs, struct room *room)
{
	struct room **where = &rs->heads[room->hash & (rs->size - 1)];

	assert(room_is_idle(room));
	assert(!heap_holds(&room->timer.node));
	while (*where != room)
		where = &(*where)->next;
	*where = room->next;
	rs->n--;
	list_unlink(&room->link);
	room->app->n_rooms--;
	tokens_deinit(&room->tokens);
	free(room);
}

void rooms_deinit(struct rooms *rs)
{
	assert(rs->n == 0);
	free(rs->heads);
	*rs = (struct rooms){ 0 };
}
