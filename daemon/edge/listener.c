/* SPDX-License-Identifier: MIT */
/*
 * libuv would truncate a long path, take its mode from the umask and unlink the path on
 * close even when a new instance has already bound it; so the socket is made here and
 * only its descriptor is given to the loop.
 *
 * Two daemons on one path would both send at the full limit. A lock beside the socket,
 * held for life, decides who owns the path; whether a socket found there is alive is
 * asked by connecting to it. A socket that was passed is locked itself.
 */
#include "edge/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 4096 /* cut to net.core.somaxconn by the kernel */

static int refuse(struct buffer *why, int error, const char *path, const char *what)
{
	buffer_printf(why, "%s: %s", path, what);
	if (error != 0)
		buffer_printf(why, ": %s", strerror(error));
	return error != 0 ? -error : -EINVAL;
}

static int take_lock(struct listener *l, struct buffer *why)
{
	char lock[sizeof(((struct sockaddr_un *)0)->sun_path) + sizeof(".lock")];

	snprintf(lock, sizeof(lock), "%s.lock", l->path);
	l->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (l->lock < 0 && errno == ENOENT)
		return refuse(why, ENOENT, l->path, "its folder is not there");
	if (l->lock < 0)
		return refuse(why, errno, lock, "cannot be opened");
	if (flock(l->lock, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? refuse(why, EADDRINUSE, l->path,
						     "barraged is already running here")
					    : refuse(why, errno, lock, "cannot be locked");
	return 0;
}

/* Returns 0, 1 or a negative errno. */
static int is_alive(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool alive;

	if (fd < 0)
		return -errno;
	alive = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
		errno != ECONNREFUSED;
	close(fd);
	return alive;
}

static int clear_path(struct listener *l, const struct sockaddr_un *address, struct buffer *why)
{
	struct stat st;
	int alive;

	if (lstat(l->path, &st) < 0)
		return errno == ENOENT ? 0 : refuse(why, errno, l->path, "cannot be looked at");
	if (!S_ISSOCK(st.st_mode))
		return refuse(why, EEXIST, l->path, "is not a socket and is left alone");
	alive = is_alive(address);
	if (alive < 0)
		return refuse(why, -alive, l->path, "cannot be asked whether it is stale");
	if (alive)
		return refuse(why, EADDRINUSE, l->path, "something is already running here");
	if (unlink(l->path) < 0)
		return refuse(why, errno, l->path, "is stale and cannot be removed");
	l->was_stale = true;
	return 0;
}

static int set_owner(const struct listener *l, mode_t mode, gid_t gid, struct buffer *why)
{
	if (gid != (gid_t)-1 && chown(l->path, (uid_t)-1, gid) < 0)
		return refuse(why, errno, l->path, "cannot be given to socket_group");
	if (chmod(l->path, mode) < 0)
		return refuse(why, errno, l->path, "cannot be given socket_mode");
	return 0;
}

static int bind_path(struct listener *l, const struct sockaddr_un *address, struct buffer *why)
{
	mode_t mask = umask(0177); /* nobody gets in before the mode is set */
	int r = bind(l->fd, (const struct sockaddr *)address, sizeof(*address));
	int error = errno;
	struct stat st;

	umask(mask);
	if (r < 0)
		return refuse(why, error, l->path, "cannot be bound");
	if (lstat(l->path, &st) < 0)
		return refuse(why, errno, l->path, "is gone at once");
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	return 0;
}

int listener_open(struct listener *l, const char *path, mode_t mode, gid_t gid, struct buffer *why)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int r;

	*l = (struct listener){ .fd = -1, .lock = -1 };
	if (strlen(path) >= sizeof(address.sun_path))
		return refuse(why, ENAMETOOLONG, path, "cannot be bound");
	memcpy(address.sun_path, path, strlen(path) + 1);
	l->path = strdup(path);
	if (!l->path)
		return -ENOMEM;

	r = take_lock(l, why);
	if (r == 0)
		r = clear_path(l, &address, why);
	if (r == 0) {
		l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		r = l->fd < 0 ? refuse(why, errno, path, "no socket") : 0;
	}
	if (r == 0)
		r = bind_path(l, &address, why);
	if (r == 0)
		r = set_owner(l, mode, gid, why);
	if (r == 0 && listen(l->fd, BACKLOG) < 0)
		r = refuse(why, errno, path, "cannot be listened on");
	if (r < 0)
		listener_close(l);
	return r;
}

static int option(int fd, int name)
{
	int value = -1;
	socklen_t size = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
}

int listener_adopt(struct listener *l, int fd, struct buffer *why)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	*l = (struct listener){ .fd = -1, .lock = -1 };
	if (option(fd, SO_DOMAIN) != AF_UNIX || option(fd, SO_TYPE) != SOCK_STREAM ||
	    option(fd, SO_ACCEPTCONN) != 1) {
		buffer_printf(why,
			      "descriptor %d, passed by systemd, is not a listening Unix "
			      "stream socket",
			      fd);
		return -EINVAL;
	}
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
		buffer_printf(why, "descriptor %d: %s", fd, strerror(errno));
		return -EINVAL;
	}
	if (fcntl(fd, F_SETLK, &whole) < 0 && (errno == EACCES || errno == EAGAIN)) {
		buffer_printf(why,
			      "descriptor %d, passed by systemd, is served by another process: "
			      "barraged is already running here",
			      fd);
		return -EADDRINUSE;
	}
	l->fd = fd;
	return 0;
}

static bool is_still_ours(const struct listener *l)
{
	struct stat st;

	return l->path && l->ino != 0 && lstat(l->path, &st) == 0 && st.st_dev == l->dev &&
	       st.st_ino == l->ino;
}

bool listener_is_reachable(const struct listener *l)
{
	return !l->path || is_still_ours(l);
}

void listener_close(struct listener *l)
{
	if (is_still_ours(l))
		unlink(l->path);
	if (l->fd >= 0)
		close(l->fd);
	/* The lock's file stays: removing it would let two others lock two files. */
	if (l->lock >= 0)
		close(l->lock);
	free(l->path);
	*l = (struct listener){ .fd = -1, .lock = -1 };
}
