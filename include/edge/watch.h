/* SPDX-License-Identifier: MIT */
/* libcurl's sockets on libuv's loop: one uv_poll for each, from first sight to its closing. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct watch;

struct watches {
	uv_loop_t *loop;
	struct watch **by_fd;
	size_t n;
	unsigned open;  /* not yet closed by libuv */
	uint64_t calls; /* see watches_begin_call() */
	/* libcurl is to be told of @flags (CURL_CSELECT_*) on @fd. */
	void (*ready)(void *arg, int fd, int flags);
	/* One has been closed by libuv for good; @open is up to date. */
	void (*closed)(void *arg);
	void *arg;
};

/* To be called before every call of libcurl that may close a connection. */
void watches_begin_call(struct watches *ws);

/* Resets a connection in use: nothing that the kernel still has of it reaches the server. */
void watches_reset_fd(int fd);

/* Ends every connection, kept or in use; libcurl finds out before it uses it again. */
void watches_give_up(struct watches *ws);

/* CURLMOPT_SOCKETFUNCTION: what libcurl wants to know of @fd, CURL_POLL_*. Returns 0, or
 * -1 when there is no memory: then nobody watches it. */
int watches_want(struct watches *ws, int fd, int what);

/* The same socket under a descriptor that no watch is left of, or -1: @fd is then closed. */
int watches_renumber(struct watches *ws, int fd);

/* CURLOPT_CLOSESOCKETFUNCTION: closes @fd and its watch. */
int watches_close_fd(struct watches *ws, int fd);

/* Closes all watches that are left, but not their descriptors. */
void watches_deinit(struct watches *ws);
