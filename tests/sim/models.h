/* SPDX-License-Identifier: MIT */
/* How others keep to N a second, to be measured beside the daemon's own way: each looks
 * only at what it has started itself, never at an answer. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct model;

struct model_way {
	const char *name;
	/* When the next may start; at or before @now means now. */
	uint64_t (*ready_at)(struct model *m, uint64_t now);
	/* Accounts for a start. */
	void (*start)(struct model *m, uint64_t now);
};

struct model {
	const struct model_way *way;
	uint64_t n;      /* a second */
	double level;    /* token bucket */
	uint64_t since;  /* token bucket: level is of then; windows: begin of this one */
	uint64_t count;  /* windows: starts in this one */
	uint64_t next;   /* even pacing: not before */
	uint64_t *log;   /* sliding log: the last N starts, a ring */
	uint64_t starts; /* in all */
};

extern const struct model_way model_ways[];
extern const size_t n_model_ways;

/* A model that has rested. Fixed windows begin at @now and every second after it. */
void model_init(struct model *m, const struct model_way *way, uint64_t n, uint64_t now);
void model_deinit(struct model *m);

/* Starts the next one as soon at or after @now as the model and a timer allow, which is
 * @late. Returns when. */
uint64_t model_next(struct model *m, uint64_t now, uint64_t late);
