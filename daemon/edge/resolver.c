/* SPDX-License-Identifier: MIT */
/*
 * libcurl 7.88 joins its resolver thread when a transfer ends, and so a name server that
 * does not answer freezes the whole loop. Names are therefore resolved here, on libuv's
 * thread pool, and handed to libcurl as CURLOPT_RESOLVE. getaddrinfo() tells no TTL; the
 * addresses count as fresh for a minute and go on being used while a refresh fails.
 */
#include "edge/resolver.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "core/buffer.h"
#include "edge/clock.h"

#define FRESH        (60 * NSEC_PER_SEC)
#define FAILED_PAUSE (1 * NSEC_PER_SEC)

struct resolver {
	uv_getaddrinfo_t request;
	uv_loop_t *loop;
	resolver_fn fn;
	void *arg;
	char *host;
	char *asked; /* the host of the look-up under way; NULL: none */
	char *addresses;
	uint64_t next; /* when to look up again */
	bool literal;
	bool closing;
};

int resolver_new(struct resolver **out, uv_loop_t *loop, resolver_fn fn, void *arg)
{
	struct resolver *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->loop = loop;
	r->fn = fn;
	r->arg = arg;
	*out = r;
	return 0;
}

static bool is_literal(const char *host)
{
	struct in6_addr address;

	return uv_inet_pton(AF_INET, host, &address) == 0 ||
	       uv_inet_pton(AF_INET6, host, &address) == 0;
}

int resolver_set_host(struct resolver *r, const char *host)
{
	char *copy;

	if (r->host && strcmp(r->host, host) == 0)
		return 0;
	copy = strdup(host);
	if (!copy)
		return -ENOMEM;
	free(r->host);
	free(r->addresses);
	r->host = copy;
	r->addresses = NULL;
	r->next = 0;
	r->literal = is_literal(host);
	return 0;
}

bool resolver_is_literal(const struct resolver *r)
{
	return r->literal;
}

static char *join(const struct addrinfo *list)
{
	struct buffer b = { 0 };

	for (const struct addrinfo *a = list; a; a = a->ai_next) {
		bool v6 = a->ai_family == AF_INET6;
		char text[INET6_ADDRSTRLEN];

		if (getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof(text), NULL, 0,
				NI_NUMERICHOST) != 0)
			continue;
		buffer_printf(&b, v6 ? "%s[%s]" : "%s%s", b.len > 0 ? "," : "", text);
	}
	if (b.failed || b.len == 0)
		buffer_deinit(&b);
	return b.data; /* the caller's now */
}

static void resolver_free(struct resolver *r)
{
	free(r->host);
	free(r->asked);
	free(r->addresses);
	free(r);
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
	struct resolver *r = container_of(request, struct resolver, request);
	char *found = status == 0 ? join(list) : NULL;
	bool mine = !r->closing && strcmp(r->asked, r->host) == 0;
	bool changed = false;

	uv_freeaddrinfo(list);
	free(r->asked);
	r->asked = NULL;
	if (r->closing) {
		free(found);
		resolver_free(r);
		return;
	}
	if (found && mine) {
		changed = !r->addresses || strcmp(found, r->addresses) != 0;
		free(r->addresses);
		r->addresses = found;
	} else {
		free(found);
	}
	if (mine)
		r->next = clock_now() + (status == 0 ? FRESH : FAILED_PAUSE);
	r->fn(r->arg, r->addresses, changed);
}

static void look_up(struct resolver *r, uint64_t now)
{
	static const struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
					       .ai_flags = AI_ADDRCONFIG };

	r->next = now + FAILED_PAUSE;
	r->asked = strdup(r->host);
	if (!r->asked)
		return;
	if (uv_getaddrinfo(r->loop, &r->request, on_resolved, r->host, NULL, &hints) < 0) {
		free(r->asked);
		r->asked = NULL;
	}
}

const char *resolver_addresses(struct resolver *r, uint64_t now)
{
	if (r->literal)
		return r->host;
	if (!r->asked && (!r->addresses || now >= r->next))
		look_up(r, now);
	return r->addresses;
}

bool resolver_close(struct resolver *r)
{
	r->closing = true;
	if (!r->asked) {
		resolver_free(r);
		return true;
	}
	/* Succeeds only for a look-up that no thread has begun; its callback comes either
	 * way. */
	uv_cancel((uv_req_t *)&r->request);
	return false;
}
