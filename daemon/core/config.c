/* SPDX-License-Identifier: MIT */
/* Sections and keys arrive one by one, in the order of the file, and are judged one
 * by one, so that a reader can go on after an error and show all of them at once.
 * What depends on several keys waits for config_finish(), because the order of
 * sections in a file means nothing: [queue] may stand after the [app …] that
 * inherits from it.
 *
 * A section that is refused takes its keys with it: they would only be reported as
 * unknown too. */
#include "core/config.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/config_key.h"
#include "core/config_value.h"
#include "core/text.h"

/* What ZEGO's test environment takes in a second. */
#define TEST_MODE_RATE 10

/* Values of reading.section that are no section. */
enum {
	BEFORE_SECTIONS = -1,
	IN_REFUSED_SECTION = -2
};

int config_refuse(struct config_error *why, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(why->text, sizeof(why->text), format, args);
	va_end(args);
	return CONFIG_E_INVALID;
}

/* Whether a well-formed character prints: C0, DEL and C1 do not. */
static bool is_printable(const char *s, size_t length)
{
	unsigned char c = (unsigned char)s[0];

	if (length == 1)
		return c >= 0x20 && c != 0x7f;
	return length > 2 || c != 0xc2 || (unsigned char)s[1] >= 0xa0;
}

const char *config_quoted(char out[CONFIG_QUOTED], const char *text)
{
	const size_t most = CONFIG_QUOTED - sizeof("...");
	size_t left = strlen(text);
	size_t n = 0;

	while (left > 0) {
		size_t length = utf8_length(text, left);
		bool prints = length > 0 && is_printable(text, length);

		length = length > 0 ? length : 1;
		if (n + length > most)
			break;
		if (prints)
			memcpy(out + n, text, length);
		else
			memset(out + n, '?', length);
		n += length;
		text += length;
		left -= length;
	}
	snprintf(out + n, CONFIG_QUOTED - n, "%s", left > 0 ? "..." : "");
	return out;
}

static void *slot_of(const struct config_key *k, enum config_section section, void *base)
{
	return (char *)base + config_key_offset(k, section);
}

/* Every key of a section in its default, read as strictly as a file is. */
static int set_defaults(enum config_section section, void *base)
{
	struct config_error why;

	for (const struct config_key *k = config_keys; k->name; k++) {
		int r;

		if (!(k->sections & 1u << section) || !k->standard)
			continue;
		r = config_value_read(k, slot_of(k, section, base), k->standard, &why);
		assert(r <= 0);
		if (r < 0)
			return r;
	}
	return 0;
}

static void free_texts(enum config_section section, void *base)
{
	for (const struct config_key *k = config_keys; k->name; k++) {
		if (k->sections & 1u << section && config_key_is_text(k))
			free(*(char **)slot_of(k, section, base));
	}
}

static void app_deinit(struct app_config *a)
{
	free_texts(SECTION_APP, a);
	free(a->users.ids);
	free(a->groups.ids);
}

int config_new(struct config **out)
{
	_cleanup_(config_freep) struct config *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->socket_gid = (gid_t)-1;
	c->reading.section = BEFORE_SECTIONS;
	for (enum config_section s = 0; s < SECTION_APP; s++) {
		int r = set_defaults(s, c);

		if (r < 0)
			return r;
	}

	*out = c;
	c = NULL; /* the caller's now */
	return 0;
}

void config_free(struct config *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n_apps; i++)
		app_deinit(&c->apps[i]);
	free(c->apps);
	free(c->app_ids);
	free(c->app_open);
	for (enum config_section s = 0; s < SECTION_APP; s++)
		free_texts(s, c);
	free(c);
}

/* The AppID's section that is being read, or NULL. */
static struct app_config *current_app(const struct config *c)
{
	return c->reading.section == SECTION_APP ? &c->apps[c->n_apps - 1] : NULL;
}

static int push_app(struct config *c, uint32_t app_id, unsigned line)
{
	struct app_config a = { .app_id = app_id, .line = line };
	int r;

	/* Full at each power of two: then twice as many. */
	if ((c->n_apps & (c->n_apps - 1)) == 0) {
		size_t n = c->n_apps ? 2 * c->n_apps : 1;
		struct app_config *apps = reallocarray(c->apps, n, sizeof(*apps));
		uint32_t *app_ids;
		uint16_t *app_open;

		if (!apps)
			return -ENOMEM;
		c->apps = apps;
		app_ids = reallocarray(c->app_ids, n, sizeof(*app_ids));
		if (!app_ids)
			return -ENOMEM;
		c->app_ids = app_ids;
		app_open = reallocarray(c->app_open, n, sizeof(*app_open));
		if (!app_open)
			return -ENOMEM;
		c->app_open = app_open;
	}

	r = set_defaults(SECTION_APP, &a);
	if (r < 0) {
		app_deinit(&a);
		return r;
	}
	c->apps[c->n_apps++] = a;
	c->reading.section = SECTION_APP;
	return 0;
}

/* @id is what follows "app" in the section's name. An AppID that cannot be read
 * still gets a section, with 0 for its number, so that its keys are checked. */
static int begin_app(struct config *c, const char *id, unsigned line, struct config_error *why)
{
	char quoted[CONFIG_QUOTED];
	uint64_t app_id = 0;
	bool valid =
		*id == ' ' && parse_u64(id + 1, strlen(id + 1), UINT32_MAX, &app_id) && app_id > 0;
	int r = push_app(c, valid ? (uint32_t)app_id : 0, line);

	if (r < 0 || valid)
		return r;
	if (!*id)
		return config_refuse(why, "[app] names no AppID (as [app 1234567890] does)");
	return config_refuse(why, "[app %s] names no AppID (1 to 4294967295)",
			     config_quoted(quoted, id + 1));
}

static int refuse_section(const char *name, struct config_error *why)
{
	const char *names[_SECTION_N];
	char quoted[CONFIG_QUOTED];
	char word[16];
	const char *meant;
	uint64_t app_id;

	if (parse_u64(name, strlen(name), UINT32_MAX, &app_id) && app_id > 0)
		return config_refuse(why, "unknown section [%s]; did you mean [app %s]?", name,
				     name);

	for (enum config_section s = 0; s < _SECTION_N; s++)
		names[s] = config_section_name(s);
	snprintf(word, sizeof(word), "%.*s", (int)strcspn(name, " "), name);
	meant = nearest(word, names, _SECTION_N);

	config_quoted(quoted, name);
	if (!meant)
		return config_refuse(why, "unknown section [%s]", quoted);
	return config_refuse(why, "unknown section [%s]; did you mean [%s%s]?", quoted, meant,
			     meant == names[SECTION_APP] ? " 1234567890" : "");
}

int config_section(struct config *c, const char *name, unsigned line, struct config_error *why)
{
	enum config_section s = config_section_find(name);

	if (strncmp(name, "app", 3) == 0 && (name[3] == ' ' || !name[3]))
		return begin_app(c, name + 3, line, why);

	if (s == _SECTION_N) {
		c->reading.section = IN_REFUSED_SECTION;
		return refuse_section(name, why);
	}

	c->reading.section = (int)s;
	if (c->reading.lines[s])
		return config_refuse(why, "[%s] stands twice; the first is on line %u", name,
				     c->reading.lines[s]);
	c->reading.lines[s] = line;
	return 0;
}

/* "queue" or "app 1234567890". */
static const char *current_name(const struct config *c, char out[CONFIG_QUOTED])
{
	const struct app_config *a = current_app(c);

	if (!a)
		return config_section_name((enum config_section)c->reading.section);
	if (a->app_id == 0) /* its section was refused */
		return "app";
	snprintf(out, CONFIG_QUOTED, "app %" PRIu32, a->app_id);
	return out;
}

/* The section that has a key of this name, or _SECTION_N. */
static enum config_section home_of(const char *key)
{
	enum config_section s = 0;

	while (s < _SECTION_N && !config_key_find(s, key))
		s++;
	return s;
}

static int refuse_key(const struct config *c, const char *key, struct config_error *why)
{
	enum config_section home = home_of(key);
	const char *names[CONFIG_KEYS_MAX];
	char section[CONFIG_QUOTED];
	char quoted[CONFIG_QUOTED];
	const char *here = current_name(c, section);
	const char *meant;
	size_t n = 0;

	config_quoted(quoted, key);
	if (home < _SECTION_N)
		return config_refuse(why, "unknown key \"%s\" in [%s]; it belongs in [%s%s]",
				     quoted, here, config_section_name(home),
				     home == SECTION_APP ? " 1234567890" : "");

	for (const struct config_key *k = config_keys; k->name; k++) {
		if (k->sections & 1u << c->reading.section)
			names[n++] = k->name;
	}
	meant = nearest(key, names, n);
	if (!meant)
		return config_refuse(why, "unknown key \"%s\" in [%s]", quoted, here);
	return config_refuse(why, "unknown key \"%s\" in [%s]; did you mean %s?", quoted, here,
			     meant);
}

int config_set(struct config *c, const char *key, const char *value, struct config_error *why)
{
	enum config_section section = (enum config_section)c->reading.section;
	struct app_config *a = current_app(c);
	uint64_t *given = a ? &a->given : &c->reading.given;
	const struct config_key *k;
	char name[CONFIG_QUOTED];

	if (c->reading.section == IN_REFUSED_SECTION)
		return CONFIG_E_IGNORED;
	if (c->reading.section == BEFORE_SECTIONS)
		return config_refuse(why, "\"%s\" stands before the first [section]",
				     config_quoted(name, key));

	k = config_key_find(section, key);
	if (!k)
		return refuse_key(c, key, why);
	if (*given & config_key_bit(k))
		return config_refuse(why, "%s is given twice in [%s]", key, current_name(c, name));
	*given |= config_key_bit(k);
	return config_value_read(k, slot_of(k, section, a ? (void *)a : c), value, why);
}

static bool is_given(const struct app_config *a, const char *key)
{
	return a->given & config_key_bit(config_key_find(SECTION_APP, key));
}

/* As many messages as can be sent while the last of them is still worth it. */
static uint64_t queue_max(uint64_t rate, uint64_t max_age)
{
	return max_u64(rate * max_age / NSEC_PER_SEC, 1);
}

static void derive(const struct config *c, struct app_config *a)
{
	if (!is_given(a, "overflow"))
		a->queue.overflow = c->queue.overflow;
	if (!is_given(a, "max_age"))
		a->queue.max_age = c->queue.max_age;
	if (!is_given(a, "queue_max"))
		a->queue.queue_max = c->queue.queue_max;

	if (a->test_mode && !is_given(a, "rate"))
		a->rate = TEST_MODE_RATE;
	if (a->test_mode && a->is_test == IS_TEST_UNSET)
		a->is_test = IS_TEST_TRUE;
	if (a->queue.queue_max == 0)
		a->queue.queue_max = queue_max(a->rate, a->queue.max_age);
}

/* By AppId, then in the order of the file. */
static int compare_apps(const void *x, const void *y)
{
	const struct app_config *a = x;
	const struct app_config *b = y;

	if (a->app_id != b->app_id)
		return a->app_id < b->app_id ? -1 : 1;
	return (a->line > b->line) - (a->line < b->line);
}

struct findings {
	config_report_fn report;
	void *arg;
	size_t n;
};

static void found(struct findings *f, unsigned line, const char *format, ...)
	__attribute__((__format__(__printf__, 3, 4)));

static void found(struct findings *f, unsigned line, const char *format, ...)
{
	struct config_error e;
	va_list args;

	va_start(args, format);
	(void)vsnprintf(e.text, sizeof(e.text), format, args);
	va_end(args);
	f->n++;
	f->report(f->arg, line, e.text);
}

/* Of apps in order. One without a number has been reported when it began. */
static void check_apps(const struct config *c, struct findings *f)
{
	const struct app_config *first = c->apps;

	for (const struct app_config *a = c->apps; a < c->apps + c->n_apps; a++) {
		if (a->app_id != 0 && !is_given(a, "server_secret_file"))
			found(f, a->line, "server_secret_file is missing in this section");
		if (a->app_id != first->app_id)
			first = a;
		if (a != first && a->app_id != 0)
			found(f, a->line, "[app %" PRIu32 "] stands twice; the first is on line %u",
			      a->app_id, first->line);
	}
}

static void check_shared(const struct config *c, struct findings *f)
{
	unsigned line = c->reading.lines[SECTION_SHARED];
	const struct config_key *hosts = config_key_find(SECTION_SHARED, "hosts");

	if (*c->redis && !(c->reading.given & config_key_bit(hosts)))
		found(f, line, "hosts is missing in this section: how many are meant to share?");
	if (*c->redis_user && !*c->redis_password_file)
		found(f, line, "user is given without password_file");
}

static bool is_everyones(const struct app_config *a)
{
	return a->users.n == 0 && a->groups.n == 0;
}

static bool has_any_key(const struct config *c, enum config_section section)
{
	for (const struct config_key *k = config_keys; k->name; k++) {
		if (k->sections == 1U << section && (c->reading.given & config_key_bit(k)))
			return true;
	}
	return false;
}

void config_warn(const struct config *c, config_report_fn report, void *arg)
{
	struct findings f = { .report = report, .arg = arg };

	if (!*c->redis && has_any_key(c, SECTION_SHARED))
		found(&f, c->reading.lines[SECTION_SHARED],
		      "[shared] has no redis: every AppID's budget is this host's alone");
	if (!*c->redis || c->on_lost != ON_LOST_SHARE)
		return;
	for (const struct app_config *a = c->apps; a < c->apps + c->n_apps; a++) {
		if (a->shared && a->rate < c->shared_hosts)
			found(&f, a->line,
			      "app=%" PRIu32 " has a rate of %" PRIu64 " for %" PRIu64
			      " hosts: one that is cut off has no share, and sends nothing",
			      a->app_id, a->rate, c->shared_hosts);
	}
}

int config_finish(struct config *c, config_report_fn report, void *arg)
{
	struct findings f = { .report = report, .arg = arg };

	if (*c->control_socket && strcmp(c->socket, c->control_socket) == 0)
		found(&f, c->reading.lines[SECTION_DAEMON],
		      "socket and control_socket are the same path");
	check_shared(c, &f);
	if (c->n_apps == 0) {
		found(&f, 0, "there is no [app APPID] section, so nothing could be sent");
		return CONFIG_E_INVALID;
	}

	for (size_t i = 0; i < c->n_apps; i++)
		derive(c, &c->apps[i]);
	qsort(c->apps, c->n_apps, sizeof(*c->apps), compare_apps);
	for (size_t i = 0; i < c->n_apps; i++) {
		c->app_ids[i] = c->apps[i].app_id;
		c->app_open[i] = is_everyones(&c->apps[i]) ? (uint16_t)c->apps[i].max_content : 0;
	}
	check_apps(c, &f);
	return f.n > 0 ? CONFIG_E_INVALID : 0;
}

const struct app_config *config_app(const struct config *c, uint32_t app_id)
{
	const uint32_t *at = c->app_ids;

	if (c->n_apps == 0)
		return NULL;
	/* Halves with as many steps whatever is found, which no branch has to guess. */
	for (size_t n = c->n_apps; n > 1; n -= n / 2)
		at += at[n / 2] <= app_id ? n / 2 : 0;
	return *at == app_id ? &c->apps[at - c->app_ids] : NULL;
}

static bool contains(const struct id_list *l, uint32_t id)
{
	for (size_t i = 0; i < l->n; i++) {
		if (l->ids[i] == id)
			return true;
	}
	return false;
}

bool config_admits(const struct app_config *a, const struct peer *p)
{
	if (is_everyones(a))
		return true;
	if (contains(&a->users, p->uid) || contains(&a->groups, p->gid))
		return true;
	for (size_t i = 0; i < p->n_groups; i++) {
		if (contains(&a->groups, p->groups[i]))
			return true;
	}
	return false;
}
