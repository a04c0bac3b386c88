/* SPDX-License-Identifier: MIT */
/* A listening Unix socket at a path that is ours, or one that systemd passed. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/buffer.h"

/* Zero it and set fd to -1 before use. */
struct listener {
	int fd;
	int lock;   /* held while we own the path; -1 for a socket that was passed */
	char *path; /* NULL for a socket that was passed */
	dev_t dev;  /* of the socket we made, so that only that one is removed */
	ino_t ino;
	bool was_stale; /* a socket was left at the path by a process that is gone */
};

/* Binds and listens at @path with @mode, and with @gid unless that is -1. A stale
 * socket is taken over; a live one, or anything that is not a socket, is left alone.
 * Returns 0, or a negative errno with one sentence in *@why. */
int listener_open(struct listener *l, const char *path, mode_t mode, gid_t gid, struct buffer *why);

/* Uses @fd, which systemd passed, if it is a listening Unix stream socket that no other
 * process has adopted. Returns as listener_open(). */
int listener_adopt(struct listener *l, int fd, struct buffer *why);

/* Whether the path still leads to our socket; for one that was passed that is not ours to
 * say, and it does. */
bool listener_is_reachable(const struct listener *l);

/* Closes the socket and removes it from its path if it is still ours. */
void listener_close(struct listener *l);
