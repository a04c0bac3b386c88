/* SPDX-License-Identifier: MIT */
/* How values are spelled in a configuration file, read and written. */
#pragma once

#include "core/buffer.h"
#include "core/config.h"
#include "core/config_key.h"

/* Reads @text into @slot, replacing what is there. Returns 0, CONFIG_E_INVALID with
 * @why filled, or -ENOMEM. */
int config_value_read(const struct config_key *k, void *slot, const char *text,
		      struct config_error *why);

/* The value in its canonical spelling. It may be put into @out or be borrowed from
 * the slot. */
#define CONFIG_SPELLED 32
const char *config_value_text(const struct config_key *k, const void *slot,
			      char out[CONFIG_SPELLED]);

/* Appends what is allowed as a sentence; nothing for texts, whose help tells. */
void config_value_print_range(const struct config_key *k, struct buffer *out);
