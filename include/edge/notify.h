/* SPDX-License-Identifier: MIT */
/* What systemd is told and what it passes. Built without libsystemd, or not started by
 * systemd, all of it does nothing. */
#pragma once

#include <stdint.h>

#include "core/buffer.h"

/* sd_notify(3): newline-separated assignments such as "READY=1". Failure is ignored: there
 * is nobody to tell. */
void notify(const char *format, ...) __attribute__((__format__(__printf__, 1, 2)));

/* "WATCHDOG=1", unless systemd's queue is full. */
void notify_alive(void);

/* How often the watchdog must be fed, in ms, halved for safety; 0: there is none. */
uint64_t notify_watchdog_ms(void);

/* The descriptor that systemd passed as @name ("intake" or "control"), -1 if it passed none,
 * or -EINVAL with a sentence in @why when it passed what we do not know, or one twice. */
int notify_passed_socket(const char *name, struct buffer *why);

/* No more will be asked for: what says that sockets were passed is taken out of the
 * environment, so that no other code takes them for its own. */
void notify_sockets_taken(void);
