/* SPDX-License-Identifier: MIT */
#include "ctl/link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl/print.h"

void link_say_late(struct buffer *why)
{
	buffer_printf(why, "barraged has not answered within %d s", LINK_PATIENCE_SECONDS);
}

static void explain(struct buffer *why, const char *path, int error)
{
	if (error == EAGAIN) {
		link_say_late(why);
		return;
	}
	print_foreign(why, path);
	if (error == ENOENT || error == ECONNREFUSED)
		buffer_puts(why, ": barraged is not running, or listens elsewhere "
				 "(--config FILE)");
	else if (error == EACCES)
		buffer_puts(why, ": not for this user. The control socket is for root and the "
				 "user that barraged runs as; for the writers' socket, see "
				 "socket_mode and socket_group");
	else
		buffer_printf(why, ": %s", strerror(error));
}

int link_connect(const char *path, struct buffer *why)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = LINK_PATIENCE_SECONDS };
	int fd;

	if (!*path) {
		buffer_puts(why, "control_socket is empty in the configuration, so barraged has no "
				 "control socket");
		return -1;
	}
	if (strlen(path) >= sizeof(address.sun_path)) {
		explain(why, path, ENAMETOOLONG);
		return -1;
	}
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0) {
		/* Connecting waits too where many do so already and nobody accepts them. */
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	}
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	explain(why, path, errno);
	if (fd >= 0)
		close(fd);
	return -1;
}

static void send_all(int fd, const char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return;
		bytes += sent;
		n -= (size_t)sent;
	}
}

/* Returns 0, or an errno. */
static int receive_line(int fd, struct buffer *line)
{
	char chunk[16 * 1024];

	while (line->len == 0 || line->data[line->len - 1] != '\n') {
		ssize_t n = recv(fd, chunk, sizeof(chunk), 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : ECONNRESET;
		buffer_append(line, chunk, (size_t)n);
		if (line->failed)
			return ENOMEM;
	}
	line->data[--line->len] = '\0';
	return 0;
}

int link_send(int fd, const cJSON *request, struct buffer *why)
{
	char *text = cJSON_PrintUnformatted(request);
	struct buffer whole = { 0 };
	bool ok;

	if (text)
		buffer_printf(&whole, "%s\n", text);
	ok = text && !whole.failed;
	if (ok)
		/* Who is turned away is told why and is not read from: that this has failed
		 * is seen when receiving. */
		send_all(fd, whole.data, whole.len);
	else
		buffer_puts(why, strerror(ENOMEM));
	cJSON_free(text);
	buffer_deinit(&whole);
	return ok ? 0 : -1;
}

int link_receive(int fd, struct buffer *line, cJSON **answer, struct buffer *why)
{
	int error = receive_line(fd, line);

	if (error == EAGAIN) {
		link_say_late(why);
		return -1;
	}
	if (error) {
		buffer_printf(why, "barraged has closed the connection without an answer: %s",
			      strerror(error));
		return -1;
	}
	*answer = cJSON_Parse(line->data);
	if (cJSON_IsObject(*answer))
		return 0;
	cJSON_Delete(*answer);
	*answer = NULL;
	buffer_puts(why, "what answers there is not barraged");
	return -1;
}

int link_ask(int fd, const cJSON *request, struct buffer *line, cJSON **answer, struct buffer *why)
{
	int r = link_send(fd, request, why);

	return r < 0 ? r : link_receive(fd, line, answer, why);
}

static void complain(const struct buffer *why)
{
	fprintf(stderr, "barragectl: %s\n", why->data ? why->data : "out of memory");
}

int link_command(const struct options *o, const char *op, const char *name, cJSON *value,
		 struct buffer *line, cJSON **answer)
{
	_cleanup_(buffer_deinit) struct buffer why = { 0 };
	cJSON *request = cJSON_CreateObject();
	int fd = link_connect(o->control, &why);
	int r = -1;

	cJSON_AddStringToObject(request, "op", op);
	if (name && !cJSON_AddItemToObject(request, name, value))
		cJSON_Delete(value);
	if (fd >= 0) {
		r = link_ask(fd, request, line, answer, &why);
		close(fd);
	}
	cJSON_Delete(request);
	if (r < 0) {
		complain(&why);
		return CTL_UNREACHABLE;
	}
	if (print_flag(*answer, "ok"))
		return CTL_OK;
	print_foreign(&why, print_text(*answer, "error"));
	complain(&why);
	return CTL_REFUSED;
}
