/* SPDX-License-Identifier: MIT */
/* A binary heap of nodes that live in their owners; the smallest key is on top. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base.h"

/* Zeroed is "in no heap". */
struct heap_node {
	uint64_t key;
	size_t place; /* index + 1 in its heap, 0: in none */
};

/* The key is here too, so that to compare is not to fetch the owners, who may be many. */
struct heap_slot {
	uint64_t key;
	struct heap_node *node;
};

/* Zeroed is empty. */
struct heap {
	struct heap_slot *slots;
	size_t n;
	size_t size;
};

/* Makes sure that @n nodes have a place, so that heap_set() cannot fail: every owner of
 * a node reserves its place when it is made. Returns 0 or -ENOMEM. */
int heap_reserve(struct heap *h, size_t n);

/* Puts a node in, or moves it to another key. */
void heap_set(struct heap *h, struct heap_node *node, uint64_t key);

/* Takes a node out; harmless if it is not in. */
void heap_remove(struct heap *h, struct heap_node *node);

static inline bool heap_holds(const struct heap_node *node)
{
	return node->place > 0;
}

/* The node with the smallest key, or NULL. */
static inline struct heap_node *heap_top(const struct heap *h)
{
	return h->n > 0 ? h->slots[0].node : NULL;
}

/* Frees the heap's own memory; nodes must be out. */
void heap_deinit(struct heap *h);
