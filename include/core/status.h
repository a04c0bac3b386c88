/* SPDX-License-Identifier: MIT */
/* What the daemon tells an operator who asks how it is. */
#pragma once

#include <stdint.h>

#include "core/buffer.h"
#include "core/facts.h"
#include "core/scheduler.h"

/* Appends the members of a JSON object, without its braces: docs/CONTROL.md, "status". */
void status_print(struct buffer *out, const struct scheduler *s, const struct facts *facts,
		  uint64_t now);
