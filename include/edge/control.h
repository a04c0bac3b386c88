/* SPDX-License-Identifier: MIT */
/* The control socket: whoever runs the daemon asks and steers it (docs/CONTROL.md). */
#pragma once

#include <stdint.h>
#include <uv.h>

#include "core/buffer.h"
#include "core/command.h"
#include "edge/listener.h"

/* Connections at the same time, each with a descriptor. */
#define CONTROL_CLIENTS 16

struct control;

/* Does what is asked: appends the members of the reply's JSON object that follow "ok", each
 * with a comma before it. Returns 0; or a negative errno with a sentence in @error, which
 * may have members appended too. */
typedef int (*control_fn)(void *arg, const struct command *c, struct buffer *members,
			  struct buffer *error);

/* Serves whoever connects to @l, which stays the caller's. Returns 0 with the caller owning
 * *@out, or a negative errno. */
int control_new(struct control **out, uv_loop_t *loop, const struct listener *l, control_fn fn,
		void *arg);

/* Closes everything. The object is freed when the loop has run; it is gone for the caller.
 * Accepts NULL. */
void control_close(struct control *control);
