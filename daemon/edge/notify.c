/* SPDX-License-Identifier: MIT */
#include "edge/notify.h"

#include "build.h"

#if HAVE_SYSTEMD

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

void notify(const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	(void)sd_notify(0, text);
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

int notify_passed_socket(const char *name, struct buffer *why)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names);
	int found = -1;

	if (n < 0) {
		buffer_printf(why, "the sockets that systemd passes cannot be used: %s",
			      strerror(-n));
		return -EINVAL;
	}
	for (int i = 0; i < n && found != -EINVAL; i++) {
		if (found < 0 && strcmp(names[i], name) == 0) {
			found = SD_LISTEN_FDS_START + i;
			continue;
		}
		buffer_printf(why,
			      "systemd passed a socket named \"%s\"; one named \"%s\" "
			      "(FileDescriptorName=) is what is used here",
			      names[i], name);
		found = -EINVAL;
	}
	free_names(names);
	return found;
}

#else

void notify(const char *format, ...)
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

#endif
