/* SPDX-License-Identifier: MIT */
/* Names are looked up once, when the configuration is read: a name that does not
 * exist would otherwise be noticed by the one who is turned away. */
#include "edge/account.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "core/text.h"

#define SEPARATORS " \t,"

/* A group with very many members needs a large entry; beyond this something is wrong. */
#define ENTRY_MIN 1024
#define ENTRY_MAX ((size_t)1024 * 1024)

/* Returns 0, ENOENT, ERANGE when @size is too small, or another errno. */
typedef int (*lookup_fn)(const char *name, char *entry, size_t size, uint32_t *id);

static int look_up_user(const char *name, char *entry, size_t size, uint32_t *id)
{
	struct passwd passwd;
	struct passwd *found = NULL;
	int r = getpwnam_r(name, &passwd, entry, size, &found);

	if (!found)
		return r ? r : ENOENT;
	*id = found->pw_uid;
	return 0;
}

static int look_up_group(const char *name, char *entry, size_t size, uint32_t *id)
{
	struct group group;
	struct group *found = NULL;
	int r = getgrnam_r(name, &group, entry, size, &found);

	if (!found)
		return r ? r : ENOENT;
	*id = found->gr_gid;
	return 0;
}

/* Returns as a lookup_fn, or ENOMEM. */
static int look_up(lookup_fn fn, const char *name, uint32_t *id)
{
	int r = ERANGE;

	for (size_t size = ENTRY_MIN; r == ERANGE && size <= ENTRY_MAX; size *= 2) {
		char *entry = malloc(size);

		if (!entry)
			return ENOMEM;
		r = fn(name, entry, size, id);
		free(entry);
	}
	return r;
}

struct kind {
	const char *name;
	lookup_fn look_up;
};
static const struct kind users = { "user", look_up_user };
static const struct kind groups = { "group", look_up_group };

static int find_id(const struct kind *kind, const char *key, const char *name, uint32_t *id,
		   struct config_error *why)
{
	char quoted[CONFIG_QUOTED];
	uint64_t number;
	int r;

	/* The highest number means "none" to the kernel. */
	if (parse_u64(name, strlen(name), UINT32_MAX - 1, &number)) {
		*id = (uint32_t)number;
		return 0;
	}
	r = look_up(kind->look_up, name, id);
	switch (r) {
	case 0:
		return 0;
	case ENOMEM:
		return -ENOMEM;
	case ENOENT:
	case ESRCH:
	case EBADF:
	case EPERM: /* all of these mean "not found" (getpwnam(3)) */
		return config_refuse(why, "%s: there is no %s \"%s\"", key, kind->name,
				     config_quoted(quoted, name));
	default:
		return config_refuse(why, "%s: looking up \"%s\" failed: %s", key,
				     config_quoted(quoted, name), strerror(r));
	}
}

static int push(struct id_list *l, uint32_t id)
{
	uint32_t *ids = reallocarray(l->ids, l->n + 1, sizeof(*ids));

	if (!ids)
		return -ENOMEM;
	l->ids = ids;
	l->ids[l->n++] = id;
	return 0;
}

static int find_ids(const struct kind *kind, const char *key, const char *text, struct id_list *l,
		    struct config_error *why)
{
	text += strspn(text, SEPARATORS);
	while (*text) {
		size_t n = strcspn(text, SEPARATORS);
		char *name = strndup(text, n);
		uint32_t id;
		int r;

		if (!name)
			return -ENOMEM;
		r = find_id(kind, key, name, &id, why);
		free(name);
		if (r)
			return r;
		r = push(l, id);
		if (r)
			return r;
		text += n;
		text += strspn(text, SEPARATORS);
	}
	return 0;
}

static int list(const struct kind *kind, const char *key, const char *text, struct id_list *out,
		struct config_error *why)
{
	struct id_list l = { 0 };
	int r = find_ids(kind, key, text, &l, why);

	/* An empty list would admit everyone, which nobody means who writes "," */
	if (!r && *text && l.n == 0)
		r = config_refuse(why, "%s: names no %s", key, kind->name);
	if (r) {
		free(l.ids);
		return r;
	}
	*out = l;
	return 0;
}

int account_users(const char *key, const char *text, struct id_list *out, struct config_error *why)
{
	return list(&users, key, text, out, why);
}

int account_groups(const char *key, const char *text, struct id_list *out, struct config_error *why)
{
	return list(&groups, key, text, out, why);
}
