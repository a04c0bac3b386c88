/* SPDX-License-Identifier: MIT */
/* The lines that are written to the daemon, made before the time is taken. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct lines {
	char *bytes;
	size_t *at; /* where each begins, and the end */
	size_t n;
};

struct lines_shape {
	unsigned first_app;
	unsigned apps;
	unsigned rooms;
	size_t bytes; /* of a line with its newline */
	bool id;
	size_t least; /* lines to make */
};

/* As many as asked for or some more, a multiple of both, so that writing them again and again
 * is fair to each AppID and room. These come in an order that is random, but always the
 * same. */
void lines_make(struct lines *l, const struct lines_shape *shape);
void lines_free(struct lines *l);
