/* SPDX-License-Identifier: MIT */
/* The users of a host who write are few, and one is looked up only when a writer
 * connects: a list will do. */
#include "core/user.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Users without a connection that are remembered, so that one who comes and goes is not
 * told of again and again. */
#define IDLE_MOST 1024

void users_init(struct users *us)
{
	*us = (struct users){ 0 };
	list_init(&us->list);
}

static void user_free(struct users *us, struct user *u)
{
	list_unlink(&u->link);
	us->n--;
	free(u);
}

void users_deinit(struct users *us)
{
	list_for_each_safe (node, &us->list) {
		struct user *u = list_entry(node, struct user, link);

		assert(u->n_references == 0 && u->connections == 0 && u->reply_bytes == 0 &&
		       u->queued_bytes == 0);
		user_free(us, u);
	}
	heap_deinit(&us->heaviest);
	heap_deinit(&us->heaviest_chat);
}

static struct user *find(const struct users *us, uint32_t uid)
{
	list_for_each (node, &us->list) {
		struct user *u = list_entry(node, struct user, link);

		if (u->uid == uid)
			return u;
	}
	return NULL;
}

static struct user *make(struct users *us, uint32_t uid)
{
	struct user *u;

	if (heap_reserve(&us->heaviest, us->n + 1) < 0 ||
	    heap_reserve(&us->heaviest_chat, us->n + 1) < 0)
		return NULL;
	u = calloc(1, sizeof(*u));
	if (!u)
		return NULL;
	u->uid = uid;
	for (size_t i = 0; i < _CLASS_N; i++)
		list_init(&u->queued[i]);
	list_push_back(&us->list, &u->link);
	us->n++;
	us->n_idle++;
	return u;
}

struct user *users_get(struct users *us, uint32_t uid)
{
	struct user *u = find(us, uid);

	if (!u)
		u = make(us, uid);
	if (u && u->n_references++ == 0)
		us->n_idle--;
	return u;
}

static bool has_been_told_of(const struct user *u)
{
	for (size_t i = 0; i < _USER_BREACH_N; i++) {
		if (u->has_been_told[i])
			return true;
	}
	return false;
}

void users_put(struct users *us, struct user *u)
{
	if (--u->n_references > 0)
		return;
	us->n_idle++;
	if (!has_been_told_of(u) || us->n_idle > IDLE_MOST) {
		us->n_idle--;
		user_free(us, u);
	}
}

static void place(struct heap *h, struct heap_node *node, bool belongs, uint64_t bytes)
{
	if (belongs)
		heap_set(h, node, ~bytes);
	else
		heap_remove(h, node);
}

static void weigh(struct users *us, struct user *u)
{
	place(&us->heaviest, &u->heaviest, u->queued_bytes > 0, u->queued_bytes);
	place(&us->heaviest_chat, &u->heaviest_chat, !list_is_empty(&u->queued[CLASS_CHAT]),
	      u->queued_bytes);
}

void users_queue(struct users *us, struct request *r)
{
	struct user *u = r->user;

	list_push_back(&u->queued[r->class], &r->charge);
	u->queued_bytes += request_size(r);
	weigh(us, u);
}

void users_unqueue(struct users *us, struct request *r)
{
	struct user *u = r->user;

	list_unlink(&r->charge);
	u->queued_bytes -= request_size(r);
	weigh(us, u);
}

struct user *users_heaviest(const struct users *us, enum message_class class)
{
	struct heap_node *top;

	if (class == CLASS_SYSTEM) {
		top = heap_top(&us->heaviest);
		return top ? container_of(top, struct user, heaviest) : NULL;
	}
	top = heap_top(&us->heaviest_chat);
	return top ? container_of(top, struct user, heaviest_chat) : NULL;
}

bool user_tell(struct user *u, enum user_breach breach)
{
	bool news = !u->has_been_told[breach];

	u->has_been_told[breach] = true;
	return news;
}

void users_forget_told(struct users *us)
{
	list_for_each_safe (node, &us->list) {
		struct user *u = list_entry(node, struct user, link);

		memset(u->has_been_told, 0, sizeof(u->has_been_told));
		if (u->n_references == 0) {
			us->n_idle--;
			user_free(us, u);
		}
	}
}
