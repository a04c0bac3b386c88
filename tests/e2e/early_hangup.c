/* SPDX-License-Identifier: MIT */
/* A SIGHUP as early as somebody else may send one, who sees the socket; for LD_PRELOAD. */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int listen(int fd, int backlog)
{
	int r = (int)syscall(SYS_listen, fd, backlog);

	kill(getpid(), SIGHUP);
	return r;
}
