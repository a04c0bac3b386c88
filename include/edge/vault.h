/* SPDX-License-Identifier: MIT */
/* The only memory that holds ServerSecrets and the password for Redis. */
#pragma once

#include <stddef.h>

#include "core/base.h"
#include "core/config.h"

struct vault;

/* Longest secret, in bytes. */
#define VAULT_SECRET_MAX 256

/* Room for @n secrets. Returns 0 or -errno. */
int vault_new(struct vault **out, size_t n);

/* Wipes and unmaps it all. Accepts NULL. */
void vault_free(struct vault *v);
DEFINE_CLEANUP(struct vault *, vault_free)

/* Reads the secret that the value of @key points to straight into the vault. Returns
 * 0 with *@out borrowed from the vault, CONFIG_E_INVALID with @why filled, or -errno. */
int vault_read(struct vault *v, const char **out, const char *key, const char *where,
	       struct config_error *why);
