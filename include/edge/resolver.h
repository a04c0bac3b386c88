/* SPDX-License-Identifier: MIT */
/* One host name and the addresses it stands for, looked up without ever holding up the
 * loop: single flight, kept when a later look-up fails, refreshed as they age. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct resolver;

/* A look-up has ended: @addresses are those in force, comma-separated, IPv6 in brackets,
 * or NULL when there are none. @changed: they are others than before. */
typedef void (*resolver_fn)(void *arg, const char *addresses, bool changed);

/* Returns 0 with the caller owning *@out, or -ENOMEM. */
int resolver_new(struct resolver **out, uv_loop_t *loop, resolver_fn fn, void *arg);

/* Names the host, a string that is the resolver's from now on. Another one than before
 * forgets the addresses. An address literal needs no look-up. */
void resolver_set_host(struct resolver *r, char *host);

/* The addresses, or NULL. Starts a look-up when there are none or they are old. */
const char *resolver_addresses(struct resolver *r, uint64_t now);

/* Whether a look-up of the host is under way. */
bool resolver_is_asking(const struct resolver *r);

/* Puts the first address last: it leads nowhere. */
void resolver_rotate(struct resolver *r);

/* Whether the host is an address, so that nothing is ever looked up. */
bool resolver_is_literal(const struct resolver *r);

/* Calls nothing any more and frees itself when a look-up under way lets it: the loop cannot
 * be closed before. */
void resolver_close(struct resolver *r);
