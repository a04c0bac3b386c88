/* SPDX-License-Identifier: MIT */
#include "core/bucket.h"

#include <errno.h>
#include <stdlib.h>

struct bucket_local {
	struct bucket bucket;
	struct tokens tokens;
};

static int local_take(struct bucket *b, uint64_t limit, uint64_t credit, uint64_t now,
		      uint64_t *again)
{
	struct bucket_local *l = container_of(b, struct bucket_local, bucket);

	return tokens_take(&l->tokens, limit, credit, now, again);
}

static void local_give(struct bucket *b, bool answered, uint64_t credit, uint64_t now)
{
	struct bucket_local *l = container_of(b, struct bucket_local, bucket);

	tokens_give(&l->tokens, answered, now);
}

static void local_put_back(struct bucket *b)
{
	tokens_put_back(&container_of(b, struct bucket_local, bucket)->tokens);
}

static uint64_t local_away(struct bucket *b, uint64_t credit, uint64_t now)
{
	return tokens_away(&container_of(b, struct bucket_local, bucket)->tokens, credit, now);
}

static uint64_t local_home_at(const struct bucket *b)
{
	const struct bucket_local *l = (const struct bucket_local *)b;

	return tokens_home_at(&l->tokens);
}

static void local_free(struct bucket *b)
{
	struct bucket_local *l = container_of(b, struct bucket_local, bucket);

	tokens_deinit(&l->tokens);
	free(l);
}

static const struct bucket_ops local_ops = {
	.take = local_take,
	.give = local_give,
	.put_back = local_put_back,
	.away = local_away,
	.home_at = local_home_at,
	.free = local_free,
};

int bucket_new_local(struct bucket **out)
{
	struct bucket_local *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->bucket.ops = &local_ops;
	*out = &l->bucket;
	/* -Wanalyzer-malloc-leak: it lives on as its bucket. */
	return 0;
}

void bucket_free(struct bucket *b)
{
	if (b)
		b->ops->free(b);
}
