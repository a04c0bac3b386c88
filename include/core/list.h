/* SPDX-License-Identifier: MIT */
/* A circular, intrusive, doubly linked list; an unlinked node points to itself. */
#pragma once

#include <stdbool.h>

#include "core/base.h"

struct list {
	struct list *prev;
	struct list *next;
};

#define LIST_INIT(l)                                                                               \
	{                                                                                          \
		.prev = &(l), .next = &(l)                                                         \
	}

static inline void list_init(struct list *l)
{
	l->prev = l;
	l->next = l;
}

static inline bool list_is_empty(const struct list *l)
{
	return l->next == l;
}

/* Whether a node is on some list. */
static inline bool list_is_linked(const struct list *node)
{
	return node->next != node;
}

static inline void list_insert_before(struct list *where, struct list *node)
{
	node->prev = where->prev;
	node->next = where;
	where->prev->next = node;
	where->prev = node;
}

static inline void list_push_back(struct list *l, struct list *node)
{
	list_insert_before(l, node);
}

static inline void list_push_front(struct list *l, struct list *node)
{
	list_insert_before(l->next, node);
}

/* Takes a node off whatever list it is on; harmless if it is on none. */
static inline void list_unlink(struct list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

#define list_entry(node, type, member) container_of(node, type, member)
#define list_first(l, type, member)    list_entry((l)->next, type, member)

#define list_for_each(node, l) for (struct list *node = (l)->next; node != (l); node = node->next)

/* The current node may be unlinked; no other. */
#define list_for_each_safe(node, l)                                                                \
	for (struct list *node = (l)->next, *node##_next = node->next; node != (l);                \
	     node = node##_next, node##_next = node->next)
