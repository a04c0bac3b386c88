/* SPDX-License-Identifier: MIT */
/* The metrics over HTTP, for those that come to collect them. Built without libmicrohttpd,
 * there are none. */
#pragma once

#include <uv.h>

#include "core/buffer.h"
#include "core/config.h"
#include "core/metrics.h"

/* Connections at the same time, each with a descriptor. */
#define EXPOSITION_CLIENTS 16

struct exposition;

/* Appends all metrics. */
typedef void (*exposition_fn)(void *arg, enum metrics_format format, struct buffer *out);

/* [daemon] metrics_listen, already known to be an address and a port, or empty. Returns 0
 * or CONFIG_E_INVALID with @why filled. */
int exposition_check(const char *listen, struct config_error *why);

/* Serves the metrics at an address that exposition_check() took. Returns 0 with the caller
 * owning *@out; or a negative errno, with one sentence in @why if there is more to say. */
int exposition_new(struct exposition **out, uv_loop_t *loop, const char *listen, exposition_fn fn,
		   void *arg, struct buffer *why);

/* Closes everything. The object is freed when the loop has run; it is gone for the caller.
 * Accepts NULL. */
void exposition_close(struct exposition *e);
