/* SPDX-License-Identifier: MIT */
/* Which URLs the configuration may hold. */
#pragma once

#include "core/config.h"

/* [upstream] url. Returns 0, CONFIG_E_INVALID with @why filled, or -ENOMEM. */
int url_check(const char *text, struct config_error *why);

/* [upstream] proxy, which may be empty. Returns as url_check(). */
int url_check_proxy(const char *text, struct config_error *why);
