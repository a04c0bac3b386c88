/* SPDX-License-Identifier: MIT */
/*
 * It is not made to last: when a host has been switched off nothing is on its way from it
 * any more by the time it is up again, so what an older state of the file would say is as
 * true then.
 */
#include "edge/pledge.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/buffer.h"

static void lose(struct pledge *p, const char *path, const char *why)
{
	pledge_close(p);
	log_info("shared: should this process be killed, the next one waits for its share until "
		 "what this one may have sent is over: %s: %s",
		 path, why);
}

static void path_of(struct buffer *out, const char *socket)
{
	const char *folders = getenv("RUNTIME_DIRECTORY"); /* systemd.exec(5) */

	if (folders && *folders == '/')
		buffer_printf(out, "%.*s/pledge", (int)strcspn(folders, ":"), folders);
	else
		buffer_printf(out, "%s.pledge", socket);
}

static void find(const struct pledge *p, struct shared *s)
{
	char found[SHARED_INCARNATION];
	ssize_t n = pread(p->fd, found, sizeof(found) - 1, 0);

	if (n <= 0)
		return;
	found[n] = '\0';
	if (strspn(found, "0123456789abcdefghijklmnopqrstuvwxyz") == (size_t)n)
		shared_found(s, found);
}

void pledge_open(struct pledge *p, struct shared *s, const char *socket)
{
	_cleanup_(buffer_deinit) struct buffer path = { 0 };

	if (p->is_open)
		return;
	p->is_open = true;
	p->fd = -1;
	path_of(&path, socket);
	if (path.failed) {
		lose(p, socket, strerror(ENOMEM));
		return;
	}
	p->fd = open(path.data, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (p->fd < 0)
		lose(p, path.data, strerror(errno));
	else if (flock(p->fd, LOCK_EX | LOCK_NB) < 0)
		lose(p, path.data,
		     errno == EWOULDBLOCK ? "another process has it" : strerror(errno));
	else
		find(p, s);
}

/* Whatever of it cannot be written is nobody's incarnation. */
static bool put(const struct pledge *p, const char *incarnation)
{
	size_t n = strlen(incarnation);

	errno = ENOSPC; /* should it be cut short */
	return ftruncate(p->fd, 0) == 0 && pwrite(p->fd, incarnation, n, 0) == (ssize_t)n;
}

bool pledge_keep(struct pledge *p, struct shared *s, uint64_t now)
{
	uint64_t before;

	if (!p->is_open || p->fd < 0 || !shared_has_to_pledge(s, now))
		return false;
	if (put(p, s->in_touch ? s->incarnation : "")) {
		shared_pledge(s, now);
		return true;
	}
	if (!s->has_pledged)
		lose(p, "the pledge", strerror(errno));
	else if (log_permit(&p->stuck, &before, now))
		log_error("shared: out of touch, and what this host has pledged for that cannot be "
			  "taken back, so what is shared waits: %s%s",
			  strerror(errno), log_repeats(before).text);
	return false;
}

void pledge_close(struct pledge *p)
{
	if (p->is_open && p->fd >= 0)
		close(p->fd);
	p->fd = -1;
}
