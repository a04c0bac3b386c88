/* SPDX-License-Identifier: MIT */
/*
 * libcurl's multi interface on libuv's loop, driven the cheap way: a constant URL that is
 * parsed once, with the query in CURLOPT_REQUEST_TARGET; small buffers, since libcurl takes
 * and returns them for each request; and sockets that stay watched (watch.c).
 *
 * Rules that hold this together:
 * - No libcurl call from a libcurl callback. Callbacks note and arm, nothing else.
 * - Ended transfers are collected after every curl_multi_socket_action().
 * - One attempt is one request on the wire: when libcurl wants to send a request again on
 *   a fresh connection because a kept one died, CURLOPT_PREREQFUNCTION refuses, and the
 *   core decides whether another token is spent.
 * - The request's URL carries its signature and is never logged.
 */
#include "edge/transfer.h"

#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include "build.h"
#include "core/buffer.h"
#include "core/hash.h"
#include "core/list.h"
#include "core/target.h"
#include "edge/clock.h"
#include "edge/log.h"
#include "edge/resolver.h"
#include "edge/retry_after.h"
#include "edge/watch.h"

#define BODY_MOST    ((size_t)64 * 1024)
#define HEADERS_MOST ((size_t)64 * 1024)
#define BODY_KEPT    4096 /* memory that an idle slot may keep for its next answer */
#define TURNS_MOST   16

/* A connection unused for so long is not used again: shorter than servers commonly keep
 * theirs, so that a request rarely meets one that is just being closed. */
#define CONNECTION_IDLE_SECONDS 50L
/* And none lives longer than this, so that a change of address or certificate is
 * followed. */
#define CONNECTION_LIFE_SECONDS 300L

/* libcurl's buffers for an answer and for a request, in bytes: the least that it takes. What
 * is larger comes and goes in pieces. From 64 KiB on, libcurl's default, each free() would
 * tidy up the whole heap. */
#define ANSWER_BUFFER  1024L
#define REQUEST_BUFFER 16384L

/* One libcurl handle, used again and again. */
struct slot {
	struct transfers *transfers;
	struct list link; /* idle or parked; under way it is on no list */
	CURL *easy;
	CURLU *url;              /* the handle's */
	struct request *request; /* NULL: idle */
	struct buffer target;
	struct buffer body;
	struct curl_slist *resolve; /* while a transfer carries new addresses */
	uint64_t parked_at;
	uint64_t place;    /* whose address it waits for while parked */
	uint64_t settings; /* which ones it was set up with */
	uint64_t order;    /* of the addresses that it was started with */
	size_t headers;    /* bytes of the answer's */
	unsigned sent;     /* times that libcurl was about to send */
	char error[CURL_ERROR_SIZE];
	bool parked; /* waits for the host's address */
};

struct transfers {
	struct transport transport;
	struct transfers_ops ops;
	void *arg;
	CURLM *multi;
	uv_timer_t timer;      /* libcurl's */
	uv_timer_t park_timer; /* of the first parked */
	bool kick;             /* libcurl wants to be called at once */
	bool ended;            /* an attempt ended since transfers_turn() began */
	struct resolver *resolver;
	bool new_addresses; /* the next transfer tells them to libcurl */
	uint64_t order;     /* how often they were rotated */
	const struct config *config;
	uint64_t settings;
	char *host; /* of the URL, or of the proxy: what is looked up */
	char *port;
	uint64_t place; /* how often host or port have changed */
	char *scheme;
	char *path;
	CURLU *url;
	struct curl_slist *headers; /* of every request */
	struct list idle;
	struct list parked;
	struct watches watches;
	uint64_t opened;    /* connections, since the start */
	uint64_t address;   /* a hash of the one connected to last */
	uint64_t asleep;    /* clock_asleep() when the connections were last known to be good */
	int64_t clock_skew; /* the server's clock less ours, ns */
	uint64_t clock_compared; /* when */
	struct log_limit failed;
	struct log_limit skewed;
	unsigned open_timers; /* not yet closed */
	bool closing;
};

static long to_ms(uint64_t ns)
{
	return (long)((ns + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC);
}

/* Ending an attempt. */

static const struct {
	CURLcode code;
	enum transport_result result;
} results[] = {
	{ CURLE_OK, TRANSPORT_ANSWERED },
	{ CURLE_COULDNT_RESOLVE_HOST, TRANSPORT_DNS },
	{ CURLE_COULDNT_RESOLVE_PROXY, TRANSPORT_DNS },
	{ CURLE_COULDNT_CONNECT, TRANSPORT_CONNECT },
	{ CURLE_PROXY, TRANSPORT_CONNECT },
	{ CURLE_SSL_CONNECT_ERROR, TRANSPORT_TLS },
	{ CURLE_PEER_FAILED_VERIFICATION, TRANSPORT_TLS },
	{ CURLE_SSL_CERTPROBLEM, TRANSPORT_TLS },
	{ CURLE_SSL_CIPHER, TRANSPORT_TLS },
	{ CURLE_SSL_CACERT_BADFILE, TRANSPORT_TLS },
	{ CURLE_SSL_ISSUER_ERROR, TRANSPORT_TLS },
	{ CURLE_OPERATION_TIMEDOUT, TRANSPORT_TIMEOUT },
	{ CURLE_UNSUPPORTED_PROTOCOL, TRANSPORT_BROKEN }, /* HTTP/0.9 */
	{ CURLE_WEIRD_SERVER_REPLY, TRANSPORT_BROKEN },
	{ CURLE_WRITE_ERROR, TRANSPORT_BROKEN }, /* our own limit of the body */
	{ CURLE_FILESIZE_EXCEEDED, TRANSPORT_BROKEN },
	{ CURLE_BAD_CONTENT_ENCODING, TRANSPORT_BROKEN },
};

static enum transport_result result_of(CURLcode code, bool written)
{
	/* What a giant header line is reported as, too. */
	if (code == CURLE_OUT_OF_MEMORY)
		return written ? TRANSPORT_BROKEN : TRANSPORT_MEMORY;
	for (size_t i = 0; i < ARRAY_SIZE(results); i++) {
		if (results[i].code == code)
			return results[i].result;
	}
	return TRANSPORT_NETWORK;
}

static long info_long(CURL *easy, CURLINFO what)
{
	long value = 0;

	return curl_easy_getinfo(easy, what, &value) == CURLE_OK ? value : 0;
}

static uint64_t info_time(CURL *easy, CURLINFO what)
{
	curl_off_t us = 0;

	if (curl_easy_getinfo(easy, what, &us) != CURLE_OK || us < 0)
		return 0;
	return (uint64_t)us * NSEC_PER_USEC;
}

/* Time to first byte on a connection that was there already, or 0. */
static uint64_t round_trip_of(CURL *easy)
{
	uint64_t sent = info_time(easy, CURLINFO_PRETRANSFER_TIME_T);
	uint64_t first = info_time(easy, CURLINFO_STARTTRANSFER_TIME_T);

	if (info_long(easy, CURLINFO_NUM_CONNECTS) != 0 || first <= sent)
		return 0;
	return first - sent;
}

static void slot_rest(struct slot *slot)
{
	slot->request = NULL;
	slot->parked = false;
	slot->sent = 0;
	slot->headers = 0;
	if (slot->resolve) {
		curl_easy_setopt(slot->easy, CURLOPT_RESOLVE, NULL);
		curl_slist_free_all(slot->resolve);
		slot->resolve = NULL;
	}
	if (slot->body.failed || slot->body.size > BODY_KEPT)
		buffer_deinit(&slot->body);
	slot->body.len = 0;
	list_unlink(&slot->link);
	list_push_front(&slot->transfers->idle, &slot->link);
}

static void slot_end(struct slot *slot, const struct answer *a)
{
	struct transfers *t = slot->transfers;
	struct request *r = slot->request;

	assert(r);
	t->ended = true;
	r->transfer = NULL;
	t->ops.complete(t->arg, r, a);
	slot_rest(slot);
}

/* The reason in libcurl's words, which name hosts and certificates but no request. */
static void log_failure(struct slot *slot, CURLcode code)
{
	struct transfers *t = slot->transfers;
	const char *words = *slot->error ? slot->error : curl_easy_strerror(code);
	uint64_t before;

	log_debug("attempt failed: %s (libcurl's %d)", log_quote(words, strlen(words)).text, code);
	if (log_permit(&t->failed, &before, clock_now()))
		log_warning("an attempt failed: %s%s", log_quote(words, strlen(words)).text,
			    log_repeats(before).text);
}

/* libcurl 7.88 gives up an address after half of connect_timeout but tries the next only
 * when all of it is over: one that leads nowhere would be in front of the others for ever. */
static void try_another_address_first(struct slot *slot)
{
	struct transfers *t = slot->transfers;

	if (slot->order != t->order)
		return; /* it has been done since this attempt was started */
	t->order++;
	t->new_addresses = true;
	resolver_rotate(t->resolver);
}

/* With HTTP/2 a request that times out leaves its connection standing, and in the kernel
 * what it still has of the request: that must not reach the server when the token is long
 * at home, nor may a connection that has died go on being used. Other requests on it are
 * lost with it. With HTTP/1.1 it is closed by now. */
static void reset_connection(CURL *easy)
{
	curl_socket_t fd = CURL_SOCKET_BAD;

	if (curl_easy_getinfo(easy, CURLINFO_ACTIVESOCKET, &fd) == CURLE_OK &&
	    fd != CURL_SOCKET_BAD)
		watches_reset_fd(fd);
}

/* Beyond this the operator is told; the API refuses signatures that are off by more than ten
 * minutes. */
#define SKEW_MOST (60 * (int64_t)NSEC_PER_SEC)

/* Holds this host's clock against the server's, which tells whole seconds. */
static void compare_clocks(struct transfers *t, CURL *easy)
{
	uint64_t now = clock_now();
	struct curl_header *date;
	uint64_t before;
	time_t seconds;

	if (now - t->clock_compared < NSEC_PER_SEC ||
	    curl_easy_header(easy, "Date", 0, CURLH_HEADER, -1, &date) != CURLHE_OK)
		return;
	seconds = curl_getdate(date->value, NULL);
	if (seconds < 0 || seconds > UINT32_MAX)
		return;
	t->clock_compared = now;
	t->clock_skew = seconds * (int64_t)NSEC_PER_SEC + (int64_t)NSEC_PER_SEC / 2 - clock_wall();
	if (llabs(t->clock_skew) > SKEW_MOST && log_permit(&t->skewed, &before, now))
		log_warning("this host's clock is %lld s %s the API's, which refuses signatures "
			    "that are ten minutes off%s",
			    llabs(t->clock_skew) / (long long)NSEC_PER_SEC,
			    t->clock_skew > 0 ? "behind" : "ahead of", log_repeats(before).text);
}

/* Chunks that are none are told like a connection that was lost, but for libcurl's words. */
static bool is_bad_chunk(const struct slot *slot, CURLcode code)
{
	return code == CURLE_RECV_ERROR && strstr(slot->error, "chunked-encoding");
}

static void slot_done(struct slot *slot, CURLcode code)
{
	CURL *easy = slot->easy;
	/* libcurl counts a proxy's CONNECT as written; before on_send() nothing of ours is. */
	struct answer a = { .written =
				    slot->sent > 0 && info_long(easy, CURLINFO_REQUEST_SIZE) > 0 };

	a.result = result_of(code, a.written);
	if (a.result == TRANSPORT_TIMEOUT && !a.written &&
	    info_long(easy, CURLINFO_NUM_CONNECTS) > 0)
		a.result = TRANSPORT_TLS; /* connected, and the handshake hung */
	if (slot->body.failed || is_bad_chunk(slot, code))
		a.result = TRANSPORT_BROKEN;
	if (code != CURLE_OK && !a.written)
		try_another_address_first(slot);
	if (a.result == TRANSPORT_ANSWERED) {
		a.status = (unsigned)info_long(easy, CURLINFO_RESPONSE_CODE);
		a.retry_after = retry_after_of(easy);
		a.round_trip = round_trip_of(easy);
		compare_clocks(slot->transfers, easy);
		a.body = slot->body.len > 0 ? slot->body.data : "";
		a.body_len = slot->body.len;
	} else {
		log_failure(slot, code);
	}
	if (code == CURLE_OPERATION_TIMEDOUT && a.written)
		reset_connection(easy);
	curl_multi_remove_handle(slot->transfers->multi, easy);
	slot_end(slot, &a);
}

static void collect(struct transfers *t)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(t->multi, &left))) {
		struct slot *slot = NULL;
		CURLcode code = message->data.result; /* the message dies with the handle */

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&slot);
		slot_done(slot, code);
	}
}

/* libcurl's documentation leaves all transfers undefined after such an error, and a
 * sender that does not know what it has sent must stop. */
static void act(struct transfers *t, curl_socket_t fd, int flags)
{
	int running;
	CURLMcode code;

	watches_begin_call(&t->watches);
	code = curl_multi_socket_action(t->multi, fd, flags, &running);
	if (code != CURLM_OK) {
		log_error("libcurl: %s", curl_multi_strerror(code));
		abort();
	}
	collect(t);
}

/* libcurl's timer. */

static void on_timeout(uv_timer_t *timer)
{
	struct transfers *t = timer->data;

	act(t, CURL_SOCKET_TIMEOUT, 0);
}

static int want_timer(CURLM *multi, long ms, void *arg)
{
	struct transfers *t = arg;

	t->kick = ms == 0;
	if (t->closing)
		return 0;
	if (ms > 0)
		uv_timer_start(&t->timer, on_timeout, (uint64_t)ms, 0);
	else
		uv_timer_stop(&t->timer);
	return 0;
}

static void fail_parked(struct transfers *t, uint64_t parked_before);

uint64_t transfers_opened(const struct transfers *t)
{
	return t->opened;
}

bool transfers_turn(struct transfers *t)
{
	bool ended;

	/* The last look-up has failed just now, and the next is not due. */
	if (!list_is_empty(&t->parked) && !resolver_is_asking(t->resolver))
		fail_parked(t, NEVER);
	for (int i = 0; i < TURNS_MOST && t->kick; i++) {
		t->kick = false;
		act(t, CURL_SOCKET_TIMEOUT, 0);
	}
	if (t->kick) {
		t->kick = false;
		uv_timer_start(&t->timer, on_timeout, 1, 0); /* 0 would starve the loop */
	}
	ended = t->ended;
	t->ended = false;
	return ended;
}

/* Sockets. */

/* The last handle takes the object with it. */
static void free_if_done(void *arg)
{
	struct transfers *t = arg;

	if (t->closing && t->open_timers == 0 && t->watches.open == 0)
		free(t);
}

static void on_ready(void *arg, int fd, int flags)
{
	act(arg, fd, flags);
}

static int want_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused)
{
	struct transfers *t = arg;

	/* To say so would abort every transfer. The one whose new connection cannot be watched
	 * for want of memory ends by its timeout. */
	(void)watches_want(&t->watches, fd, what);
	return 0;
}

static void note_address(struct transfers *t, const struct curl_sockaddr *a)
{
	uint64_t hash = hash_bytes(HASH_BASIS, &a->addr, a->addrlen);

	if (hash == t->address)
		return;
	t->address = hash;
	t->ops.address_changed(t->arg);
}

static curl_socket_t want_open(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	struct transfers *t = arg;
	unsigned unanswered = (unsigned)to_ms(t->config->timeout);
	int fd = socket(a->family, a->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->protocol);

	fd = watches_renumber(&t->watches, fd);
	if (fd < 0)
		return CURL_SOCKET_BAD;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered, sizeof(unanswered));
	t->opened++;
	note_address(t, a);
	return fd;
}

static int want_close(void *arg, curl_socket_t fd)
{
	struct transfers *t = arg;

	return watches_close_fd(&t->watches, fd);
}

/* A slot and its settings. */

static size_t on_header(char *bytes, size_t size, size_t n, void *arg)
{
	struct slot *slot = arg;

	slot->headers += size * n;
	return slot->headers <= HEADERS_MOST ? size * n : 0;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
	struct slot *slot = arg;

	n *= size;
	if (slot->body.len + n > BODY_MOST)
		return 0; /* ends the transfer with CURLE_WRITE_ERROR */
	buffer_append(&slot->body, bytes, n);
	return slot->body.failed ? 0 : n;
}

static int on_send(void *arg, char *remote, char *local, int remote_port, int local_port)
{
	struct slot *slot = arg;

	return slot->sent++ > 0 ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

#define SET(option, value)                                                                         \
	do {                                                                                       \
		CURLcode code_ = curl_easy_setopt(easy, CURLOPT_##option, value);                  \
		if (code_ == CURLE_OUT_OF_MEMORY)                                                  \
			return -ENOMEM;                                                            \
		if (code_ != CURLE_OK) {                                                           \
			log_error("libcurl refuses " #option ": %s", curl_easy_strerror(code_));   \
			return -EINVAL;                                                            \
		}                                                                                  \
	} while (0)

/* What never changes. */
/* NOLINTNEXTLINE(readability-function-size): a SET is five statements */
static int slot_set_up(struct slot *slot)
{
	CURL *easy = slot->easy;
	struct transfers *t = slot->transfers;

	SET(PRIVATE, slot);
	SET(ERRORBUFFER, slot->error);
	SET(NOSIGNAL, 1L);
	SET(NOPROXY, "");
	SET(NETRC, (long)CURL_NETRC_IGNORED);
	SET(FOLLOWLOCATION, 0L);
	SET(HTTPHEADER, t->headers);
	SET(HTTP09_ALLOWED, 0L);
	SET(HEADERFUNCTION, on_header);
	SET(HEADERDATA, slot);
	SET(WRITEFUNCTION, on_body);
	SET(WRITEDATA, slot);
	SET(MAXFILESIZE, (long)BODY_MOST);
	SET(PREREQFUNCTION, on_send);
	SET(PREREQDATA, slot);
	SET(OPENSOCKETFUNCTION, want_open);
	SET(OPENSOCKETDATA, t);
	SET(CLOSESOCKETFUNCTION, want_close);
	SET(CLOSESOCKETDATA, t);
	SET(SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(SSL_VERIFYPEER, 1L);
	SET(SSL_VERIFYHOST, 2L);
	SET(TCP_KEEPALIVE, 1L);
	SET(MAXAGE_CONN, CONNECTION_IDLE_SECONDS);
	SET(MAXLIFETIME_CONN, CONNECTION_LIFE_SECONDS);
	SET(QUICK_EXIT, 1L);
	SET(BUFFERSIZE, ANSWER_BUFFER);
	SET(UPLOAD_BUFFERSIZE, REQUEST_BUFFER);
	SET(DNS_CACHE_TIMEOUT, -1L); /* resolver.c knows when to look again */
	return 0;
}

/* What the configuration says. */
/* NOLINTNEXTLINE(readability-function-size): a SET is five statements */
static int slot_configure(struct slot *slot)
{
	CURL *easy = slot->easy;
	struct transfers *t = slot->transfers;
	const struct config *c = t->config;

	/* Given as text, libcurl would parse and print it for each request. */
	slot->url = curl_url_dup(t->url);
	if (!slot->url)
		return -ENOMEM;
	SET(CURLU, slot->url);
	SET(PROTOCOLS_STR, t->scheme);
	SET(REDIR_PROTOCOLS_STR, "https");
	SET(PROXY, c->proxy);
	if (*c->ca_file) {
		SET(CAINFO, c->ca_file);
		SET(CAPATH, NULL);
	}
	SET(CONNECTTIMEOUT_MS, to_ms(c->connect_timeout));
	SET(TIMEOUT_MS, to_ms(c->timeout));
	if (c->http_version == HTTP_2) {
		SET(HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
		SET(PIPEWAIT, 1L);
	} else {
		SET(HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
		SET(PIPEWAIT, 0L);
	}
	slot->settings = t->settings;
	return 0;
}

static void slot_free(struct slot *slot)
{
	list_unlink(&slot->link);
	curl_easy_cleanup(slot->easy);
	curl_url_cleanup(slot->url);
	curl_slist_free_all(slot->resolve);
	buffer_deinit(&slot->target);
	buffer_deinit(&slot->body);
	free(slot);
}

static int slot_new(struct slot **out, struct transfers *t)
{
	struct slot *slot = calloc(1, sizeof(*slot));

	if (!slot)
		return -ENOMEM;
	list_init(&slot->link);
	slot->transfers = t;
	slot->easy = curl_easy_init();
	if (!slot->easy) {
		slot_free(slot);
		return -ENOMEM;
	}
	*out = slot;
	return 0;
}

/* An idle slot, set up as the configuration in force says; not on a list. */
static int slot_get(struct slot **out, struct transfers *t)
{
	struct slot *slot;
	int r;

	if (!list_is_empty(&t->idle)) {
		slot = list_first(&t->idle, struct slot, link);
		list_unlink(&slot->link);
		if (slot->settings == t->settings) {
			*out = slot;
			return 0;
		}
		/* curl_easy_reset() would forget what the new configuration no longer
		 * mentions; but when it finds no memory it says nothing and leaves a handle
		 * that can do no TLS, and never will. */
		slot_free(slot);
	}
	r = slot_new(&slot, t);
	if (r < 0)
		return r;
	r = slot_set_up(slot);
	if (r == 0)
		r = slot_configure(slot);
	if (r < 0) {
		slot_free(slot);
		return r;
	}
	*out = slot;
	return 0;
}

/* Starting and aborting. */

/* Tells libcurl the addresses by the next transfer; its cache is the multi handle's. */
static int carry_addresses(struct slot *slot, const char *addresses)
{
	struct transfers *t = slot->transfers;
	struct buffer entry = { 0 };

	if (!t->new_addresses || resolver_is_literal(t->resolver))
		return 0;
	buffer_printf(&entry, "%s:%s:%s", t->host, t->port, addresses);
	if (!entry.failed)
		slot->resolve = curl_slist_append(NULL, entry.data);
	buffer_deinit(&entry);
	if (!slot->resolve ||
	    curl_easy_setopt(slot->easy, CURLOPT_RESOLVE, slot->resolve) != CURLE_OK)
		return -ENOMEM;
	t->new_addresses = false;
	return 0;
}

/* What an attempt has waited for the host's address is part of its time. */
static void deduct_wait(struct slot *slot)
{
	uint64_t waited = clock_now() - slot->parked_at;
	uint64_t timeout = slot->transfers->config->timeout;

	curl_easy_setopt(slot->easy, CURLOPT_TIMEOUT_MS,
			 timeout > waited ? to_ms(timeout - waited) : 1L);
	slot->settings = 0; /* to be set up anew for the next */
}

static int slot_go(struct slot *slot, const char *addresses)
{
	struct transfers *t = slot->transfers;

	if (carry_addresses(slot, addresses) < 0)
		return -ENOMEM;
	slot->order = t->order;
	if (slot->parked)
		deduct_wait(slot);
	slot->parked = false;
	list_unlink(&slot->link);
	if (curl_multi_add_handle(t->multi, slot->easy) == CURLM_OK)
		return 0;
	if (slot->resolve)
		t->new_addresses = true; /* libcurl has not heard of them */
	return -ENOMEM;
}

static void on_park_timeout(uv_timer_t *timer);

static void arm_park_timer(struct transfers *t)
{
	uint64_t now = clock_now();
	uint64_t at;

	if (list_is_empty(&t->parked)) {
		uv_timer_stop(&t->park_timer);
		return;
	}
	at = list_first(&t->parked, struct slot, link)->parked_at + t->config->connect_timeout;
	uv_timer_start(&t->park_timer, on_park_timeout, at > now ? (uint64_t)to_ms(at - now) : 1,
		       0);
}

static void fail_parked(struct transfers *t, uint64_t parked_before)
{
	static const struct answer dns = { .result = TRANSPORT_DNS };

	while (!list_is_empty(&t->parked)) {
		struct slot *slot = list_first(&t->parked, struct slot, link);

		if (slot->parked_at > parked_before)
			break;
		slot_end(slot, &dns);
	}
	arm_park_timer(t);
}

static void on_park_timeout(uv_timer_t *timer)
{
	struct transfers *t = timer->data;

	fail_parked(t, clock_now() - t->config->connect_timeout);
}

static void on_addresses(void *arg, const char *addresses, bool changed)
{
	static const struct answer memory = { .result = TRANSPORT_MEMORY };
	static const struct answer dns = { .result = TRANSPORT_DNS };
	struct transfers *t = arg;

	if (changed)
		t->new_addresses = true;
	if (!addresses) {
		fail_parked(t, NEVER);
		return;
	}
	while (!list_is_empty(&t->parked)) {
		struct slot *slot = list_first(&t->parked, struct slot, link);

		/* It would go to where a reload has led away from, and libcurl would look that
		 * up itself. */
		if (slot->place != t->place)
			slot_end(slot, &dns);
		else if (slot_go(slot, addresses) < 0)
			slot_end(slot, &memory);
	}
	arm_park_timer(t);
}

static void park(struct slot *slot, uint64_t now)
{
	struct transfers *t = slot->transfers;

	slot->parked = true;
	slot->parked_at = now;
	slot->place = t->place;
	list_push_back(&t->parked, &slot->link);
	if (slot->link.prev == &t->parked)
		arm_park_timer(t);
}

/* libcurl's clock stands still while the host is suspended, and so connections do not grow
 * too old for it. The server, or something on the way, has long forgotten them: what is
 * sent on one would wait in vain for an answer. */
static void give_up_slept_through(struct transfers *t)
{
	uint64_t asleep = clock_asleep();

	if (asleep < t->asleep + CONNECTION_IDLE_SECONDS * NSEC_PER_SEC)
		return;
	t->asleep = asleep;
	watches_give_up(&t->watches);
}

static int start(struct transport *transport, struct request *r, const struct signature *s)
{
	struct transfers *t = container_of(transport, struct transfers, transport);
	uint64_t now = clock_now();
	const char *addresses;
	struct slot *slot;
	int e;

	give_up_slept_through(t);
	e = slot_get(&slot, t);
	if (e < 0)
		return e;
	slot->target.len = 0;
	target_print(&slot->target, t->path, r, s);
	if (slot->target.failed ||
	    curl_easy_setopt(slot->easy, CURLOPT_REQUEST_TARGET, slot->target.data) != CURLE_OK) {
		buffer_deinit(&slot->target);
		slot_rest(slot);
		return -ENOMEM;
	}
	addresses = resolver_addresses(t->resolver, now);
	slot->request = r;
	if (!addresses) {
		park(slot, now);
	} else if (slot_go(slot, addresses) < 0) {
		slot_rest(slot);
		return -ENOMEM;
	}
	r->transfer = slot;
	return 0;
}

static void stop(struct transport *transport, struct request *r)
{
	struct slot *slot = r->transfer;

	watches_begin_call(&slot->transfers->watches);
	if (!slot->parked)
		curl_multi_remove_handle(slot->transfers->multi, slot->easy);
	r->transfer = NULL;
	slot_rest(slot);
}

/* The whole. */

static int error_of(CURLUcode code)
{
	if (code == CURLUE_OK)
		return 0;
	return code == CURLUE_OUT_OF_MEMORY ? -ENOMEM : -EINVAL;
}

static int url_part(CURLU *url, CURLUPart part, char **out)
{
	char *text = NULL;
	CURLUcode code = curl_url_get(url, part, &text, CURLU_DEFAULT_PORT);

	*out = code == CURLUE_OK ? strdup(text) : NULL;
	curl_free(text);
	if (code != CURLUE_OK)
		return error_of(code);
	return *out ? 0 : -ENOMEM;
}

struct place {
	char *scheme;
	char *host; /* without an IPv6 address's brackets */
	char *port;
	char *path;
	CURLU *url; /* the whole */
};

static void place_deinit(struct place *p)
{
	free(p->scheme);
	free(p->host);
	free(p->port);
	free(p->path);
	curl_url_cleanup(p->url);
}

static int place_parse(struct place *p, const char *text)
{
	CURLU *url = curl_url();
	int e = -ENOMEM;

	p->url = url;
	if (url)
		e = error_of(curl_url_set(url, CURLUPART_URL, text, 0));
	if (e == 0)
		e = url_part(url, CURLUPART_SCHEME, &p->scheme);
	if (e == 0)
		e = url_part(url, CURLUPART_HOST, &p->host);
	if (e == 0)
		e = url_part(url, CURLUPART_PORT, &p->port);
	if (e == 0)
		e = url_part(url, CURLUPART_PATH, &p->path);
	/* -Wanalyzer-null-dereference: url_part() said 0, so there is a host. */
	if (e == 0 && p->host[0] == '[') {
		p->host[strcspn(p->host, "]")] = '\0';
		memmove(p->host, p->host + 1, strlen(p->host));
	}
	return e;
}

static void swap(char **a, char **b)
{
	char *kept = *a;

	*a = *b;
	*b = kept;
}

struct transfers_change {
	const struct config *config;
	struct place url;
	struct place proxy; /* empty without one */
	char *looked_up;    /* the host to resolve */
};

void transfers_discard(struct transfers_change *change)
{
	if (!change)
		return;
	place_deinit(&change->url);
	place_deinit(&change->proxy);
	free(change->looked_up);
	free(change);
}

int transfers_prepare(struct transfers_change **out, const struct config *c)
{
	struct transfers_change *change = calloc(1, sizeof(*change));
	int e;

	if (!change)
		return -ENOMEM;
	change->config = c;
	e = place_parse(&change->url, c->url);
	if (e == 0 && *c->proxy)
		e = place_parse(&change->proxy, c->proxy);
	if (e == 0) {
		change->looked_up = strdup(*c->proxy ? change->proxy.host : change->url.host);
		e = change->looked_up ? 0 : -ENOMEM;
	}
	if (e < 0) {
		transfers_discard(change);
		return e;
	}
	*out = change;
	return 0;
}

void transfers_apply(struct transfers *t, struct transfers_change *change)
{
	const struct config *c = change->config;
	struct place *reached = *c->proxy ? &change->proxy : &change->url;
	CURLU *url;

	resolver_set_host(t->resolver, change->looked_up);
	change->looked_up = NULL; /* the resolver's now */
	/* What is being reached may be another host or port: libcurl must be told anew. */
	t->new_addresses = true;
	if (!t->host || strcmp(t->host, reached->host) != 0 || strcmp(t->port, reached->port) != 0)
		t->place++;
	swap(&t->host, &reached->host);
	swap(&t->port, &reached->port);
	swap(&t->scheme, &change->url.scheme);
	swap(&t->path, &change->url.path);
	url = t->url;
	t->url = change->url.url;
	change->url.url = url;
	t->config = c;
	t->settings++;
	curl_multi_setopt(t->multi, CURLMOPT_MAXCONNECTS, (long)c->max_in_flight);
	/* libcurl's own 100 would open a connection for each request beyond; the server's
	 * limit holds all the same. */
	curl_multi_setopt(t->multi, CURLMOPT_MAX_CONCURRENT_STREAMS, (long)c->max_in_flight);
	transfers_discard(change);
}

#define SET_MULTI(option, value)                                                                   \
	do {                                                                                       \
		CURLMcode code_ = curl_multi_setopt(t->multi, CURLMOPT_##option, value);           \
		if (code_ != CURLM_OK) {                                                           \
			log_error("libcurl refuses " #option ": %s", curl_multi_strerror(code_));  \
			return -EINVAL;                                                            \
		}                                                                                  \
	} while (0)

static int set_up_multi(struct transfers *t)
{
	t->multi = curl_multi_init();
	if (!t->multi)
		return -ENOMEM;
	SET_MULTI(TIMERFUNCTION, want_timer);
	SET_MULTI(TIMERDATA, t);
	SET_MULTI(SOCKETFUNCTION, want_socket);
	SET_MULTI(SOCKETDATA, t);
	SET_MULTI(PIPELINING, (long)CURLPIPE_MULTIPLEX);
	return 0;
}

/* What cannot fail. */
static void begin(struct transfers *t, uv_loop_t *loop)
{
	t->transport = (struct transport){ .start = start, .abort = stop };
	t->asleep = clock_asleep();
	t->watches = (struct watches){
		.loop = loop, .ready = on_ready, .closed = free_if_done, .arg = t
	};
	list_init(&t->idle);
	list_init(&t->parked);
	uv_timer_init(loop, &t->timer);
	uv_timer_init(loop, &t->park_timer);
	t->timer.data = t;
	t->park_timer.data = t;
	t->open_timers = 2;
}

int transfers_new(struct transfers **out, uv_loop_t *loop, const struct config *c,
		  const struct transfers_ops *ops, void *arg)
{
	struct transfers *t = calloc(1, sizeof(*t));
	struct transfers_change *change;
	struct slot *slot;
	int e;

	if (!t)
		return -ENOMEM;
	t->ops = *ops;
	t->arg = arg;
	begin(t, loop);

	e = set_up_multi(t);
	/* As a header of its own it is printed once for each request, not twice. */
	t->headers = curl_slist_append(NULL, "User-Agent: barraged/" VERSION);
	if (e == 0 && !t->headers)
		e = -ENOMEM;
	if (e == 0)
		e = resolver_new(&t->resolver, loop, on_addresses, t);
	if (e == 0)
		e = transfers_prepare(&change, c);
	if (e == 0)
		/* -Wanalyzer-use-of-uninitialized-value: transfers_prepare() has set it. */
		transfers_apply(t, change);
	/* Every setting is tried once, now, rather than with the first message. */
	if (e == 0)
		e = slot_get(&slot, t);
	if (e != 0) {
		transfers_close(t);
		return e;
	}
	slot_rest(slot);
	*out = t;
	return 0;
}

int64_t transfers_clock_skew(const struct transfers *t)
{
	return t->clock_skew;
}

struct transport *transfers_transport(struct transfers *t)
{
	return &t->transport;
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct transfers *t = handle->data;

	t->open_timers--;
	free_if_done(t);
}

void transfers_close(struct transfers *t)
{
	if (t->resolver)
		resolver_close(t->resolver);
	t->closing = true;
	watches_begin_call(&t->watches);
	list_for_each_safe (node, &t->idle)
		slot_free(list_entry(node, struct slot, link));
	curl_multi_cleanup(t->multi); /* closes the sockets, and with them most watches */
	watches_deinit(&t->watches);
	curl_slist_free_all(t->headers);
	free(t->scheme);
	free(t->host);
	free(t->port);
	free(t->path);
	curl_url_cleanup(t->url);
	uv_close((uv_handle_t *)&t->timer, on_timer_closed);
	uv_close((uv_handle_t *)&t->park_timer, on_timer_closed);
}
