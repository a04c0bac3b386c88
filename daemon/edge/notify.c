/* SPDX-License-Identifier: MIT */
#include "edge/notify.h"

#include "build.h"

#if HAVE_SYSTEMD

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

void notify(const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	(void)sd_notify(0, text);
}

/* sd_notify() waits while systemd's queue is full, which it can be for seconds when systemd
 * is busy with itself. What systemd must learn is worth the wait; a sign of life is not,
 * since the next one follows soon. */
void notify_alive(void)
{
	static const char note[] = "WATCHDOG=1";
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *name = getenv("NOTIFY_SOCKET");
	size_t n = name ? strlen(name) : 0;
	int fd;

	if (n == 0 || n > sizeof(address.sun_path))
		return;
	memcpy(address.sun_path, name, n);
	if (name[0] == '@')
		address.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	(void)sendto(fd, note, strlen(note), MSG_DONTWAIT | MSG_NOSIGNAL,
		     (const struct sockaddr *)&address,
		     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
	close(fd);
}

uint64_t notify_watchdog_ms(void)
{
	uint64_t us = 0;

	return sd_watchdog_enabled(0, &us) > 0 ? us / 2000 : 0;
}

static void free_names(char **names)
{
	for (char **name = names; name && *name; name++)
		free(*name);
	free(names);
}

static bool is_known(const char *name)
{
	return strcmp(name, "intake") == 0 || strcmp(name, "control") == 0;
}

int notify_passed_socket(const char *name, struct buffer *why)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(0, &names);
	int found = -1;

	if (n < 0) {
		buffer_printf(why, "the sockets that systemd passes cannot be used: %s",
			      strerror(-n));
		return -EINVAL;
	}
	for (int i = 0; i < n && found != -EINVAL; i++) {
		bool asked_for = strcmp(names[i], name) == 0;

		if (is_known(names[i]) && !(asked_for && found >= 0)) {
			found = asked_for ? SD_LISTEN_FDS_START + i : found;
			continue;
		}
		buffer_printf(why,
			      "systemd passed a socket named \"%s\"%s; one named \"intake\" and "
			      "one named \"control\" (FileDescriptorName=) are what is used here",
			      names[i], asked_for ? " twice" : "");
		found = -EINVAL;
	}
	free_names(names);
	return found;
}

void notify_sockets_taken(void)
{
	(void)sd_listen_fds(1);
}

#else

void notify(const char *format, ...)
{
}

void notify_alive(void)
{
}

uint64_t notify_watchdog_ms(void)
{
	return 0;
}

int notify_passed_socket(const char *name, struct buffer *why)
{
	return -1;
}

void notify_sockets_taken(void)
{
}

#endif
