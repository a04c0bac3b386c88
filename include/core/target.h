/* SPDX-License-Identifier: MIT */
/* The request line's target: every parameter of SendBarrageMessage, encoded. */
#pragma once

#include "core/buffer.h"
#include "core/request.h"
#include "core/sign.h"

/* Appends @path and the query for @r, which is queued or in flight (its room tells the
 * AppID), with the parameters of zego-api.md, "The call". */
void target_print(struct buffer *out, const char *path, const struct request *r,
		  const struct signature *s);
