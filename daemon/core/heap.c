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
	struct heap_node **nodes;
	size_t size = h->size ? h->size : 4;

	if (n <= h->size)
		return 0;
	while (size < n)
		size *= 2;
	nodes = reallocarray(h->nodes, size, sizeof(struct heap_node *));
	if (!nodes)
		return -ENOMEM;
	h->nodes = nodes;
	h->size = size;
	return 0;
}

static void put(struct heap *h, size_t i, struct heap_node *node)
{
	h->nodes[i] = node;
	node->place = i + 1;
}

static void sift_up(struct heap *h, size_t i)
{
	struct heap_node *node = h->nodes[i];

	while (i > 0 && node->key < h->nodes[(i - 1) / 2]->key) {
		put(h, i, h->nodes[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	put(h, i, node);
}

static void sift_down(struct heap *h, size_t i)
{
	struct heap_node *node = h->nodes[i];
	size_t child;

	while ((child = 2 * i + 1) < h->n) {
		if (child + 1 < h->n && h->nodes[child + 1]->key < h->nodes[child]->key)
			child++;
		if (h->nodes[child]->key >= node->key)
			break;
		put(h, i, h->nodes[child]);
		i = child;
	}
	put(h, i, node);
}

void heap_set(struct heap *h, struct heap_node *node, uint64_t key)
{
	uint64_t old = node->key;

	node->key = key;
	if (!heap_holds(node)) {
		assert(h->n < h->size);
		put(h, h->n++, node);
		sift_up(h, h->n - 1);
	} else if (key < old) {
		sift_up(h, node->place - 1);
	} else if (key > old) {
		sift_down(h, node->place - 1);
	}
}

void heap_remove(struct heap *h, struct heap_node *node)
{
	struct heap_node *last;
	size_t i;

	if (!heap_holds(node))
		return;
	i = node->place - 1;
	node->place = 0;
	last = h->nodes[--h->n];
	if (last == node)
		return;
	put(h, i, last);
	sift_up(h, i);
	sift_down(h, last->place - 1);
}

void heap_deinit(struct heap *h)
{
	assert(h->n == 0);
	free(h->nodes);
	*h = (struct heap){ 0 };
}
