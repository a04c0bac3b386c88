/* SPDX-License-Identifier: MIT */
/*
 * Deadlines of AppIDs and rooms, and the order of rooms by the length of their
 * queues, come from this one heap. Nodes are intrusive so that a change of key
 * is O(log n) without a search, and places are reserved ahead so that nothing
 * that must happen (arming a timer, counting a message out) needs memory.
 */
#include "core/heap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int heap_reserve(struct heap *h, size_t n)
{
	struct heap_slot *slots;
	size_t size = h->size ? h->size : 4;

	if (n <= h->size)
		return 0;
	while (size < n)
		size *= 2;
	slots = reallocarray(h->slots, size, sizeof(struct heap_slot));
	if (!slots)
		return -ENOMEM;
	h->slots = slots;
	h->size = size;
	return 0;
}

static void put(struct heap *h, size_t i, struct heap_slot slot)
{
	h->slots[i] = slot;
	slot.node->place = i + 1;
}

static void sift_up(struct heap *h, size_t i)
{
	struct heap_slot slot = h->slots[i];

	while (i > 0 && slot.key < h->slots[(i - 1) / 2].key) {
		put(h, i, h->slots[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	put(h, i, slot);
}

static void sift_down(struct heap *h, size_t i)
{
	struct heap_slot slot = h->slots[i];
	size_t child;

	while ((child = 2 * i + 1) < h->n) {
		if (child + 1 < h->n && h->slots[child + 1].key < h->slots[child].key)
			child++;
		if (h->slots[child].key >= slot.key)
			break;
		put(h, i, h->slots[child]);
		i = child;
	}
	put(h, i, slot);
}

void heap_set(struct heap *h, struct heap_node *node, uint64_t key)
{
	struct heap_slot slot = { .key = key, .node = node };
	uint64_t old = node->key;

	node->key = key;
	if (!heap_holds(node)) {
		assert(h->n < h->size);
		put(h, h->n++, slot);
		sift_up(h, h->n - 1);
	} else if (key < old) {
		put(h, node->place - 1, slot);
		sift_up(h, node->place - 1);
	} else if (key > old) {
		put(h, node->place - 1, slot);
		sift_down(h, node->place - 1);
	}
}

void heap_remove(struct heap *h, struct heap_node *node)
{
	struct heap_slot last;
	size_t i;

	if (!heap_holds(node))
		return;
	i = node->place - 1;
	node->place = 0;
	last = h->slots[--h->n];
	if (last.node == node)
		return;
	put(h, i, last);
	sift_up(h, i);
	sift_down(h, last.node->place - 1);
}

void heap_deinit(struct heap *h)
{
	assert(h->n == 0);
	free(h->slots);
	*h = (struct heap){ 0 };
}
