/* SPDX-License-Identifier: MIT */
/*
 * A hashed timing wheel. Each queued message has an age limit of its own, and a
 * flood passes hundreds of thousands of them a second through the queue, so a
 * deadline must cost no more than linking and unlinking a list node. Precision
 * is bought where it matters: the scheduler compares the exact deadline before
 * it starts a message; the wheel only finds those that nobody came to start.
 */
#include "core/wheel.h"

#include <assert.h>

static_assert(WHEEL_SLOTS == 64 * 64, "two levels of 64-bit words index the slots");

void wheel_init(struct wheel *w, uint64_t now)
{
	*w = (struct wheel){ .tick = now >> WHEEL_TICK_SHIFT };
	for (size_t i = 0; i < WHEEL_SLOTS; i++)
		list_init(&w->slots[i]);
}

static void mark(struct wheel *w, size_t slot)
{
	w->bits[slot / 64] |= UINT64_C(1) << (slot % 64);
	w->words |= UINT64_C(1) << (slot / 64);
}

static void unmark(struct wheel *w, size_t slot)
{
	w->bits[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
	if (!w->bits[slot / 64])
		w->words &= ~(UINT64_C(1) << (slot / 64));
}

/* The first marked slot at or after @slot, around the end of the array; there is one. */
static size_t next_marked(const struct wheel *w, size_t slot)
{
	size_t word = slot / 64;
	uint64_t bits = w->bits[word] & (~UINT64_C(0) << (slot % 64));
	uint64_t words;

	if (bits)
		return word * 64 + (size_t)__builtin_ctzll(bits);
	words = word == 63 ? 0 : w->words & (~UINT64_C(0) << (word + 1));
	if (!words)
		words = w->words;
	word = (size_t)__builtin_ctzll(words);
	return word * 64 + (size_t)__builtin_ctzll(w->bits[word]);
}

/* The tick of the first slot that holds a node; forgets marks of emptied ones. */
static bool first_tick(struct wheel *w, uint64_t *tick)
{
	while (w->words) {
		size_t from = w->tick % WHEEL_SLOTS;
		size_t slot = next_marked(w, from);

		if (!list_is_empty(&w->slots[slot])) {
			*tick = w->tick + (slot - from) % WHEEL_SLOTS;
			return true;
		}
		unmark(w, slot);
	}
	return false;
}

void wheel_add(struct wheel *w, struct list *node, uint64_t at)
{
	uint64_t tick = at >> WHEEL_TICK_SHIFT;

	tick = max_u64(tick, w->tick);
	tick = min_u64(tick, w->tick + WHEEL_SLOTS - 1);
	list_push_back(&w->slots[tick % WHEEL_SLOTS], node);
	mark(w, tick % WHEEL_SLOTS);
}

struct list *wheel_pop(struct wheel *w, uint64_t now)
{
	struct list *node;
	uint64_t tick;

	if (!first_tick(w, &tick) || tick >= now >> WHEEL_TICK_SHIFT) {
		w->tick = max_u64(w->tick, now >> WHEEL_TICK_SHIFT);
		return NULL;
	}
	w->tick = tick;
	node = w->slots[tick % WHEEL_SLOTS].next;
	list_unlink(node);
	return node;
}

uint64_t wheel_next(struct wheel *w)
{
	uint64_t tick;

	return first_tick(w, &tick) ? (tick + 1) << WHEEL_TICK_SHIFT : NEVER;
}
