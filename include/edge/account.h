/* SPDX-License-Identifier: MIT */
/* The host's users and groups, by name or number. */
#pragma once

#include "core/config.h"

/* Looks up the names in @text, with blanks or commas between them, and puts their
 * numbers into *@out, which then belongs to the caller. @key is the key that they were
 * given for. Returns 0, CONFIG_E_INVALID with @why filled, or -ENOMEM. The name
 * service may take its time: not for use where others wait. */
int account_users(const char *key, const char *text, struct id_list *out, struct config_error *why);
int account_groups(const char *key, const char *text, struct id_list *out,
		   struct config_error *why);
