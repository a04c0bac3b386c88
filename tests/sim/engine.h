/* SPDX-License-Identifier: MIT */
/* A stand-in for Redis: the real script (daemon/core/shared.lua) by the same Lua, over a
 * store in memory and whatever time the caller says it is. */
#pragma once

#include <stdint.h>

#include "core/shared.h"

struct engine;

/* Hears of what the script publishes. */
typedef void (*engine_publish_fn)(void *arg, const char *channel, const char *message);

struct engine *engine_new(engine_publish_fn publish, void *arg);
void engine_free(struct engine *e);

/* Runs one call at @ms of the engine's clock. Returns how many values there are in @out,
 * which live until the next call; 0: the script failed, and why is in engine_error(). */
size_t engine_call(struct engine *e, const struct shared_call *c, uint64_t us,
		   struct shared_value *out, size_t most);
const char *engine_error(const struct engine *e);

/* Whether maxmemory is reached. */
void engine_set_full(struct engine *e, bool is_full);

/* FLUSHALL. */
void engine_flush(struct engine *e);

/* What is there now, to come back to by engine_restore(): a dump. */
void engine_dump(struct engine *e);
void engine_restore(struct engine *e);

/* A field of a hash, or NULL; lives until the next call. */
const char *engine_get(struct engine *e, const char *key, const char *field);

/* HDEL. */
void engine_forget(struct engine *e, const char *key, const char *field);

/* The next field after @field (NULL: the first) of a hash; NULL: none. */
const char *engine_next(struct engine *e, const char *key, const char *field);
