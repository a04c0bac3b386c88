/* SPDX-License-Identifier: MIT */
/* Where an AppID's tokens come from: this process alone, or one that hosts share. */
#pragma once

#include "core/tokens.h"

struct bucket;

/* The contract between the scheduler and a maker of buckets. The scheduler does not know
 * whether it is answered from memory or from another host; a bucket that cannot answer at
 * once says TOKENS_E_NONE with *again = NEVER and calls scheduler_wake() when it can. */
struct bucket_ops {
	/* As tokens_take(). */
	int (*take)(struct bucket *b, uint64_t limit, uint64_t credit, uint64_t now,
		    uint64_t *again);
	/* As tokens_give(); @credit is the one in force at the answer. */
	void (*give)(struct bucket *b, bool answered, uint64_t credit, uint64_t now);
	/* As tokens_put_back(). */
	void (*put_back)(struct bucket *b);
	/* As tokens_away(), as far as this process knows. */
	uint64_t (*away)(struct bucket *b, uint64_t credit, uint64_t now);
	/* As tokens_home_at(). */
	uint64_t (*home_at)(const struct bucket *b);
	void (*free)(struct bucket *b);
};

struct bucket {
	const struct bucket_ops *ops;
};

/* A bucket of this process. Returns 0 with the caller owning *@out, or -ENOMEM. */
int bucket_new_local(struct bucket **out);

/* Accepts NULL. */
void bucket_free(struct bucket *b);
