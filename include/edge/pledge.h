/* SPDX-License-Identifier: MIT */
/* A file that tells the next process of this host how this one sent, should it be killed:
 * core/shared.h says what for. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/shared.h"
#include "edge/log.h"

/* Zeroed is not yet opened. */
struct pledge {
	int fd; /* -1: it cannot be kept */
	bool is_open;
	struct log_limit stuck;
};

/* Opens the file, unless it is open: in the first folder of $RUNTIME_DIRECTORY, or else beside
 * @socket. Tells @s what is there. It stays locked: whoever has left it has ended. What
 * stands in the way of it is logged. */
void pledge_open(struct pledge *p, struct shared *s, const char *socket);

/* Writes what is to be there, if it is another than before. Returns whether it has, and the
 * scheduler is to run. */
bool pledge_keep(struct pledge *p, struct shared *s, uint64_t now);

void pledge_close(struct pledge *p);
