/* SPDX-License-Identifier: MIT */
/*
 * A kernel in trouble, for LD_PRELOAD: accept4() and recv() fail with the errors whose
 * numbers ACCEPT_ERRORS and RECV_ERRORS list, one a call, before they work as usual. Only
 * Unix sockets are concerned. What cannot be seen from outside is told on standard error:
 * with TELL_SENDS each reply that leaves, with TELL_ENVIRONMENT what is left at the end of
 * the variables by which systemd passes sockets.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

typedef int (*accept4_fn)(int fd, struct sockaddr *address, socklen_t *size, int flags);
typedef ssize_t (*recv_fn)(int fd, void *out, size_t n, int flags);
typedef ssize_t (*send_fn)(int fd, const void *bytes, size_t n, int flags);

static int is_unix(int fd)
{
	int domain = 0;
	socklen_t size = sizeof(domain);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

/* The next of a list of numbers, 0 behind its end. */
static int next_error(const char *variable, const char **at)
{
	char *end;
	long error;

	if (!*at)
		*at = getenv(variable);
	if (!*at)
		return 0;
	error = strtol(*at, &end, 10);
	*at = end;
	return (int)error;
}

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
	static const char *at;
	accept4_fn real = (accept4_fn)dlsym(RTLD_NEXT, "accept4");
	int error = is_unix(fd) ? next_error("ACCEPT_ERRORS", &at) : 0;

	if (error == 0)
		return real(fd, address, size, flags);
	errno = error;
	return -1;
}

ssize_t recv(int fd, void *out, size_t n, int flags)
{
	static const char *at;
	recv_fn real = (recv_fn)dlsym(RTLD_NEXT, "recv");
	int error = is_unix(fd) ? next_error("RECV_ERRORS", &at) : 0;

	if (error == 0)
		return real(fd, out, n, flags);
	errno = error;
	return -1;
}

ssize_t send(int fd, const void *bytes, size_t n, int flags)
{
	send_fn real = (send_fn)dlsym(RTLD_NEXT, "send");

	if (getenv("TELL_SENDS") && is_unix(fd))
		fprintf(stderr, "send() of %zu bytes\n", n);
	return real(fd, bytes, n, flags);
}

__attribute__((destructor)) static void tell_environment(void)
{
	static const char *const variables[] = { "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES" };

	for (size_t i = 0; getenv("TELL_ENVIRONMENT") && i < 3; i++) {
		const char *value = getenv(variables[i]);

		fprintf(stderr, "at the end %s=%s\n", variables[i], value ? value : "(unset)");
	}
}
