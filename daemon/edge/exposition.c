/* SPDX-License-Identifier: MIT */
/*
 * HTTP is left to libmicrohttpd, which neither blocks nor starts threads here: it shows one
 * descriptor to watch, is called when there is something to do, and says when it wants to
 * be called again for the sake of time.
 *
 * Metrics hold no secret, but they tell how busy a host is and whose it is; and there is no
 * password and no TLS. So only those on this host may ask. Whoever collects them from
 * elsewhere has an agent here, or a proxy that sees to both.
 */
#include "edge/exposition.h"

#include "build.h"

#if HAVE_EXPOSITION

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/text.h"

#define BACKLOG      16
#define SILENT_MOST  15u                   /* s without a byte from or to a client */
#define REQUEST_MOST ((size_t)(16 * 1024)) /* bytes of a request's head, and its buffers */

#define OPENMETRICS_TYPE "application/openmetrics-text"

struct exposition {
	exposition_fn fn;
	void *arg;
	struct MHD_Daemon *http;
	uv_poll_t poll;
	uv_timer_t timer;
	unsigned open_handles;
};

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* Returns the size, or 0 for what is not an address. */
static socklen_t parse_address(union address *out, const char *listen)
{
	const char *colon = strrchr(listen, ':');
	char host[INET6_ADDRSTRLEN + 2];
	uint64_t port;
	size_t n = colon ? (size_t)(colon - listen) : 0;

	*out = (union address){ .any.sa_family = AF_UNSPEC };
	if (n == 0 || n >= sizeof(host) ||
	    !parse_u64(colon + 1, strlen(colon + 1), UINT16_MAX, &port))
		return 0;
	memcpy(host, listen, n);
	host[n] = '\0';
	if (host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = '\0';
		out->v6.sin6_family = AF_INET6;
		out->v6.sin6_port = htons((uint16_t)port);
		return inet_pton(AF_INET6, host + 1, &out->v6.sin6_addr) == 1 ? sizeof(out->v6) : 0;
	}
	out->v4.sin_family = AF_INET;
	out->v4.sin_port = htons((uint16_t)port);
	return inet_pton(AF_INET, host, &out->v4.sin_addr) == 1 ? sizeof(out->v4) : 0;
}

static bool is_loopback(const union address *a)
{
	if (a->any.sa_family == AF_INET)
		return ntohl(a->v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	return IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr);
}

int exposition_check(const char *listen, struct config_error *why)
{
	union address address;

	if (!*listen || (parse_address(&address, listen) > 0 && is_loopback(&address)))
		return 0;
	return config_refuse(why, "metrics_listen: only a loopback address may be listened on, "
				  "such as 127.0.0.1:9464 or [::1]:9464");
}

/* Requests. */

static enum MHD_Result reply(struct MHD_Connection *c, unsigned status, const char *type,
			     const char *allow, struct buffer *body)
{
	struct MHD_Response *r =
		MHD_create_response_from_buffer_with_free_callback(body->len, body->data, free);
	enum MHD_Result result = MHD_NO;

	if (!r) {
		buffer_deinit(body);
		return MHD_NO;
	}
	*body = (struct buffer){ 0 }; /* the response's now */
	if (MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type) == MHD_YES &&
	    (!allow || MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, allow) == MHD_YES))
		result = MHD_queue_response(c, status, r);
	MHD_destroy_response(r);
	return result;
}

static enum MHD_Result reply_text(struct MHD_Connection *c, unsigned status, const char *allow,
				  const char *text)
{
	struct buffer body = { 0 };

	buffer_puts(&body, text);
	return body.failed ? MHD_NO : reply(c, status, "text/plain; charset=utf-8", allow, &body);
}

/* Prometheus asks for OpenMetrics, people with a browser or curl do not. */
static enum MHD_Result reply_metrics(struct exposition *e, struct MHD_Connection *c)
{
	const char *accept =
		MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT);
	bool open = accept && strcasestr(accept, OPENMETRICS_TYPE);
	struct buffer body = { 0 };

	e->fn(e->arg, open ? METRICS_OPENMETRICS : METRICS_PROMETHEUS, &body);
	if (body.failed) {
		buffer_deinit(&body);
		return reply_text(c, MHD_HTTP_SERVICE_UNAVAILABLE, NULL, "out of memory\n");
	}
	return reply(c, MHD_HTTP_OK,
		     open ? OPENMETRICS_TYPE "; version=1.0.0; charset=utf-8"
			  : "text/plain; version=0.0.4; charset=utf-8",
		     NULL, &body);
}

/* Called when a request's head has come, for each piece of its body, and at its end. */
/* NOLINTNEXTLINE(readability-function-size): the library wants eight parameters */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *path,
				  const char *method, const char *version, const char *data,
				  size_t *size, void **state)
{
	static char begun;

	if (!*state) {
		*state = &begun;
		return MHD_YES;
	}
	if (*size > 0) {
		*size = 0; /* whatever it is, nobody wants it */
		return MHD_YES;
	}
	if (strcmp(path, "/metrics") != 0)
		return reply_text(c, MHD_HTTP_NOT_FOUND, NULL, "the metrics are at /metrics\n");
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return reply_text(c, MHD_HTTP_METHOD_NOT_ALLOWED, "GET, HEAD",
				  "metrics can only be read\n");
	return reply_metrics(arg, c);
}

/* The loop. */

static void on_time(uv_timer_t *timer);

static unsigned connections_of(struct exposition *e)
{
	const union MHD_DaemonInfo *info =
		MHD_get_daemon_info(e->http, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);

	return info ? info->num_connections : 0;
}

/* With all places taken libmicrohttpd stops listening, and looks whether one has become
 * free only when it begins to run: after somebody has left it must do so once more. */
static void run(struct exposition *e)
{
	MHD_UNSIGNED_LONG_LONG ms;
	unsigned before;

	do {
		before = connections_of(e);
		(void)MHD_run(e->http);
	} while (connections_of(e) < before);
	if (MHD_get_timeout(e->http, &ms) == MHD_YES)
		uv_timer_start(&e->timer, on_time, ms, 0);
	else
		uv_timer_stop(&e->timer);
}

static void on_time(uv_timer_t *timer)
{
	run(timer->data);
}

static void on_event(uv_poll_t *poll, int status, int events)
{
	run(poll->data);
}

static int listen_at(const char *text, struct buffer *why)
{
	union address address;
	socklen_t size = parse_address(&address, text);
	int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1;
	int error;

	if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
	    bind(fd, &address.any, size) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	error = errno;
	buffer_printf(why, "metrics_listen: %s: %s", text, strerror(error));
	if (fd >= 0)
		close(fd);
	return -error;
}

static struct MHD_Daemon *start_http(struct exposition *e, int fd)
{
	return MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, on_request, e,
				MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
				(unsigned)EXPOSITION_CLIENTS, MHD_OPTION_CONNECTION_TIMEOUT,
				SILENT_MOST, MHD_OPTION_CONNECTION_MEMORY_LIMIT, REQUEST_MOST,
				MHD_OPTION_END);
}

static int epoll_of(struct exposition *e)
{
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(e->http, MHD_DAEMON_INFO_EPOLL_FD);

	return info ? info->epoll_fd : -1;
}

int exposition_new(struct exposition **out, uv_loop_t *loop, const char *listen, exposition_fn fn,
		   void *arg, struct buffer *why)
{
	struct exposition *e = calloc(1, sizeof(*e));
	int fd = e ? listen_at(listen, why) : -ENOMEM;
	int r = 0;

	if (fd < 0) {
		free(e);
		return fd;
	}
	e->fn = fn;
	e->arg = arg;
	e->http = start_http(e, fd);
	if (!e->http) {
		close(fd);
		free(e);
		return -ENOMEM;
	}
	r = uv_poll_init(loop, &e->poll, epoll_of(e));
	if (r < 0) {
		MHD_stop_daemon(e->http);
		free(e);
		return r;
	}
	uv_timer_init(loop, &e->timer);
	e->poll.data = e;
	e->timer.data = e;
	e->open_handles = 2;
	r = uv_poll_start(&e->poll, UV_READABLE, on_event);
	if (r < 0) {
		exposition_close(e);
		return r;
	}
	*out = e;
	return 0;
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct exposition *e = handle->data;

	if (--e->open_handles == 0)
		free(e);
}

void exposition_close(struct exposition *e)
{
	if (!e)
		return;
	uv_close((uv_handle_t *)&e->poll, on_handle_closed);
	uv_close((uv_handle_t *)&e->timer, on_handle_closed);
	MHD_stop_daemon(e->http); /* closes the sockets too */
}

#else

#include <errno.h>

/* Better said than metrics missed in the hour of need. */
int exposition_check(const char *listen, struct config_error *why)
{
	return *listen ? config_refuse(why, "metrics_listen: this build serves no metrics") : 0;
}

int exposition_new(struct exposition **out, uv_loop_t *loop, const char *listen, exposition_fn fn,
		   void *arg, struct buffer *why)
{
	return -ENOTSUP;
}

void exposition_close(struct exposition *e)
{
}

#endif
