/* SPDX-License-Identifier: MIT */
/* Who has a ServerSecret can speak for the AppID. So secrets are never on the heap or
 * the stack, where copies stay behind: each configuration that was loaded maps one
 * region for them, which core dumps leave out, which stays off the swap where the
 * limits allow it, and which is wiped before it is given back. read(2) puts a secret
 * there directly, since stdio would keep a copy in its buffer.
 *
 * A file that others may read is refused, as ssh does with keys: the time to learn of
 * it is the start, not the day it was read. */
#include "edge/vault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/config_key.h"

/* The secret, its "\r\n", one byte that tells "too long", and a NUL. */
#define SLOT (VAULT_SECRET_MAX + 4)

/* The beginning of its own mapping. */
struct vault {
	size_t n; /* slots */
	size_t used;
	char slots[][SLOT];
};

int vault_new(struct vault **out, size_t n)
{
	struct vault *v;
	size_t size;

	if (__builtin_mul_overflow(n, sizeof(v->slots[0]), &size) ||
	    __builtin_add_overflow(size, sizeof(*v), &size))
		return -ENOMEM;
	/* cppcheck-suppress invalidFunctionArg; without a file, mmap() is given -1 */
	v = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (v == MAP_FAILED)
		return -errno;
	if (madvise(v, size, MADV_DONTDUMP) < 0) {
		int r = -errno;

		munmap(v, size);
		return r;
	}
	/* RLIMIT_MEMLOCK may forbid it; a daemon that then did not start would help no
	 * one. */
	(void)mlock(v, size);

	v->n = n;
	*out = v;
	return 0;
}

void vault_free(struct vault *v)
{
	size_t size;

	if (!v)
		return;
	size = sizeof(*v) + v->n * sizeof(v->slots[0]);
	explicit_bzero(v, size);
	munmap(v, size);
}

/* As much of the file as there is, up to @size. */
static ssize_t read_all(int fd, char *out, size_t size)
{
	size_t n = 0;

	while (n < size) {
		ssize_t got = read(fd, out + n, size - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		n += (size_t)got;
	}
	return (ssize_t)n;
}

/* Takes the line's end off and says whether the rest can be a secret. */
static bool trim(char *secret, size_t n)
{
	if (n > 0 && secret[n - 1] == '\n') {
		n--;
		if (n > 0 && secret[n - 1] == '\r')
			n--;
	}
	secret[n] = '\0';
	if (n == 0 || n > VAULT_SECRET_MAX)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (secret[i] <= ' ' || secret[i] > '~')
			return false;
	}
	return true;
}

/* systemd makes its credentials readable for their owner, or owned by root with an ACL
 * for the service's user, which shows as the group's permission to read. */
static int check_file(int fd, const char *key, const char *where, bool credential,
		      struct config_error *why)
{
	mode_t forbidden = credential ? 037 : 077;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return config_refuse(why, "%s: %s cannot be examined: %s", key, where,
				     strerror(errno));
	if (!S_ISREG(st.st_mode))
		return config_refuse(why, "%s: %s is not a regular file", key, where);
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return config_refuse(why, "%s: %s belongs to user %ju, not to the daemon's or root",
				     key, where, (uintmax_t)st.st_uid);
	if (st.st_mode & forbidden)
		return config_refuse(why, "%s: %s can be read by others (mode %04o); chmod 600 it",
				     key, where, st.st_mode & 07777u);
	return 0;
}

static int read_slot(struct vault *v, const char **out, int fd, const char *key, const char *where,
		     struct config_error *why)
{
	char *slot;
	ssize_t n;

	if (v->used == v->n)
		return -ENOSPC;
	slot = v->slots[v->used];
	n = read_all(fd, slot, SLOT - 1);
	if (n >= 0 && trim(slot, (size_t)n)) {
		v->used++;
		*out = slot;
		return 0;
	}

	/* What was read is left for the next one to overwrite and for vault_free() to
	 * wipe. */
	if (n < 0)
		return config_refuse(why, "%s: %s cannot be read: %s", key, where,
				     strerror((int)-n));
	return config_refuse(why,
			     "%s: %s is not one line of 1 to %d printable ASCII characters "
			     "without blanks",
			     key, where, VAULT_SECRET_MAX);
}

/* Where a credential is, on the heap. */
static int find_credential(char **out, const char *key, const char *where, struct config_error *why)
{
	const char *folder = getenv("CREDENTIALS_DIRECTORY");

	if (!folder)
		return config_refuse(why, "%s: %s is not there: systemd passed no credentials", key,
				     where);
	if (asprintf(out, "%s/%s", folder, where + strlen(CREDENTIAL_PREFIX)) < 0) {
		*out = NULL;
		return -ENOMEM;
	}
	return 0;
}

int vault_read(struct vault *v, const char **out, const char *key, const char *where,
	       struct config_error *why)
{
	bool credential = strncmp(where, CREDENTIAL_PREFIX, strlen(CREDENTIAL_PREFIX)) == 0;
	char *path = NULL;
	int fd;
	int r;

	if (credential) {
		r = find_credential(&path, key, where, why);
		if (r)
			return r;
	}
	/* Without O_NONBLOCK, opening a pipe would wait for its writer. */
	fd = open(path ? path : where, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	r = errno;
	free(path);
	if (fd < 0)
		return config_refuse(why, "%s: %s cannot be opened: %s", key, where, strerror(r));

	r = check_file(fd, key, where, credential, why);
	if (!r)
		r = read_slot(v, out, fd, key, where, why);
	close(fd);
	return r;
}
