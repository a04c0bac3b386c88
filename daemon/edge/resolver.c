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

/* One look-up. It outlives a change of the host, which makes it nobody's. */
struct look_up {
	uv_getaddrinfo_t request;
	struct resolver *resolver;
};

struct resolver {
	uv_loop_t *loop;
	resolver_fn fn;
	void *arg;
	char *host;
	char *addresses;
	struct look_up *asked; /* for this host */
	unsigned under_way;    /* look-ups, nobody's included */
	uint64_t next;         /* when to look up again */
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

void resolver_set_host(struct resolver *r, char *host)
{
	if (r->host && strcmp(r->host, host) == 0) {
		free(host);
		return;
	}
	free(r->host);
	free(r->addresses);
	r->host = host;
	r->addresses = NULL;
	r->asked = NULL;
	r->next = 0;
	r->literal = is_literal(host);
}

bool resolver_is_literal(const struct resolver *r)
{
	return r->literal;
}

bool resolver_is_asking(const struct resolver *r)
{
	return r->asked != NULL;
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
	free(r->addresses);
	free(r);
}

static bool has_address(const char *list, const char *address, size_t n)
{
	size_t len;

	for (; *list; list += len + (list[len] == ',')) {
		len = strcspn(list, ",");
		if (len == n && memcmp(list, address, n) == 0)
			return true;
	}
	return false;
}

/* Whether two lists have the same addresses, in whatever order. */
static bool is_same(const char *a, const char *b)
{
	size_t len;

	if (strlen(a) != strlen(b))
		return false;
	for (; *a; a += len + (a[len] == ',')) {
		len = strcspn(a, ",");
		if (!has_address(b, a, len))
			return false;
	}
	return true;
}

/* Takes over the addresses found, or keeps the old ones if there are none, or the same in
 * another order: ours has those last that lead nowhere. Returns whether they are others
 * than before. */
static bool take_addresses(struct resolver *r, char *found)
{
	if (!found)
		return false;
	if (r->addresses && is_same(found, r->addresses)) {
		free(found);
		return false;
	}
	free(r->addresses);
	r->addresses = found;
	return true;
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
	struct look_up *l = container_of(request, struct look_up, request);
	struct resolver *r = l->resolver;
	bool mine = r->asked == l && !r->closing;
	bool changed;

	r->under_way--;
	if (mine) {
		char *found = status == 0 ? join(list) : NULL;

		r->asked = NULL;
		r->next = clock_now() + (found ? FRESH : FAILED_PAUSE);
		changed = take_addresses(r, found);
		r->fn(r->arg, r->addresses, changed);
	}
	uv_freeaddrinfo(list);
	free(l);
	if (r->closing && r->under_way == 0)
		resolver_free(r);
}

static void look_up(struct resolver *r, uint64_t now)
{
	static const struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
					       .ai_flags = AI_ADDRCONFIG };
	struct look_up *l = calloc(1, sizeof(*l));

	r->next = now + FAILED_PAUSE;
	if (!l)
		return;
	l->resolver = r;
	if (uv_getaddrinfo(r->loop, &l->request, on_resolved, r->host, NULL, &hints) < 0) {
		free(l);
		return;
	}
	r->asked = l;
	r->under_way++;
}

const char *resolver_addresses(struct resolver *r, uint64_t now)
{
	if (r->literal)
		return r->host;
	if (!r->asked && now >= r->next)
		look_up(r, now);
	return r->addresses;
}

void resolver_rotate(struct resolver *r)
{
	const char *comma = r->addresses ? strchr(r->addresses, ',') : NULL;
	struct buffer b = { 0 };

	if (!comma)
		return;
	buffer_printf(&b, "%s,%.*s", comma + 1, (int)(comma - r->addresses), r->addresses);
	if (b.failed) {
		buffer_deinit(&b);
		return;
	}
	free(r->addresses);
	r->addresses = b.data;
}

void resolver_close(struct resolver *r)
{
	r->closing = true;
	if (r->under_way == 0) {
		resolver_free(r);
		return;
	}
	/* Succeeds only for a look-up that no thread has begun; its callback comes either
	 * way. */
	if (r->asked)
		uv_cancel((uv_req_t *)&r->asked->request);
}
