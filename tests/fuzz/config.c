/* SPDX-License-Identifier: MIT */
/* An operator's file. What is accepted is within every range, and means the same when its dump
 * is read; what is not is told line by line, without a secret.
 *
 * The files that it may name are made in memory and stand in /proc/self/fd under fixed
 * numbers, so that an input means the same everywhere. No other path is opened, and names
 * are looked up in fate_of().
 *
 * Input: what fails, how the file comes, the file. */
#include "edge/configfile.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/config_key.h"
#include "core/config_value.h"
#include "fuzz.h"

#define HEADER 2

#define FILES "/proc/self/fd/"

/* Must not be seen in anything that is printed. */
#define CANARY "c4nary0123456789abcdef0123456789"

/* A certificate of nobody. */
static const char certificate[] =
	"-----BEGIN CERTIFICATE-----\n"
	"MIIBdTCCARugAwIBAgIUIRhGQwoT0blhbKTXUzjmy+9jL6wwCgYIKoZIzj0EAwIw\n"
	"DzENMAsGA1UEAwwEZnV6ejAgFw0yNjExMjQwOTIwMzVaGA8yMTI2MTAzMTA5MjAz\n"
	"NVowDzENMAsGA1UEAwwEZnV6ejBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABITW\n"
	"SkPSYqvKqo//nrqJEqTsZwofSkxckNmMPyC4HkKLxwG0fNgva//mCSo2bODWx6zn\n"
	"+9a9no1V1PNuLm2Qv7OjUzBRMB0GA1UdDgQWBBRmiLYX/efpYEKEsowIisZNWY2m\n"
	"FzAfBgNVHSMEGDAWgBRmiLYX/efpYEKEsowIisZNWY2mFzAPBgNVHRMBAf8EBTAD\n"
	"AQH/MAoGCCqGSM49BAMCA0gAMEUCIHmPLG4pyrilQd71QUfbwCe5nOjgnqVjADEA\n"
	"/o0h2lpNAiEA34AgjHH3lamiSZM5SCKWJlI7/Qt4KnOW4PalNvIlnug=\n"
	"-----END CERTIFICATE-----\n";

enum {
	FILE_SECRET = 100,
	FILE_OPEN_SECRET, /* readable by others */
	FILE_NO_SECRET,   /* two lines */
	FILE_EMPTY,
	FILE_CERTIFICATES,
	FILE_CONFIG, /* the input */
	FILE_PIPE,   /* the input, as a shell's <(…) passes it */
	_FILE_END
};

/* The linker puts these in the place of open() and its kin; large files are
 * meson's default. */
int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_getpwnam_r(const char *name, struct passwd *entry, char *text, size_t size,
		      struct passwd **found);
int __wrap_getgrnam_r(const char *name, struct group *entry, char *text, size_t size,
		      struct group **found);

int __wrap_open64(const char *path, int flags, ...)
{
	char allowed[sizeof(FILES) + 3];

	for (int file = FILE_SECRET; file < _FILE_END; file++) {
		snprintf(allowed, sizeof(allowed), FILES "%d", file);
		if (strcmp(path, allowed) == 0)
			return __real_open64(path, flags);
	}
	if (strcmp(path, "/") == 0)
		return __real_open64(path, flags);
	errno = ENOENT;
	return -1;
}

/* root is there, large needs a large entry, broken cannot be looked up, and no other is. */
static int fate_of(const char *name, size_t size)
{
	if (strcmp(name, "root") == 0)
		return 0;
	if (strcmp(name, "large") == 0)
		return size < 10000 ? ERANGE : 0;
	return strcmp(name, "broken") == 0 ? EIO : ENOENT;
}

int __wrap_getpwnam_r(const char *name, struct passwd *entry, char *text, size_t size,
		      struct passwd **found)
{
	int r = fate_of(name, size);

	*entry = (struct passwd){ .pw_uid = 0 };
	*found = r ? NULL : entry;
	return r;
}

int __wrap_getgrnam_r(const char *name, struct group *entry, char *text, size_t size,
		      struct group **found)
{
	int r = fate_of(name, size);

	*entry = (struct group){ .gr_gid = 0 };
	*found = r ? NULL : entry;
	return r;
}

static void put(int fd, const char *bytes, size_t n)
{
	CHECK(ftruncate(fd, 0) == 0);
	CHECK(pwrite(fd, bytes, n, 0) == (ssize_t)n);
}

static void make(int file, const char *text, mode_t mode)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	CHECK(fd >= 0 && fchmod(fd, mode) == 0);
	CHECK(dup3(fd, file, O_CLOEXEC) == file);
	close(fd);
	put(file, text, strlen(text));
}

static void make_all(void)
{
	make(FILE_SECRET, CANARY "\n", 0600);
	make(FILE_OPEN_SECRET, CANARY "\n", 0644);
	make(FILE_NO_SECRET, CANARY "\n" CANARY "\n", 0600);
	make(FILE_EMPTY, "", 0600);
	make(FILE_CERTIFICATES, certificate, 0644);
	make(FILE_CONFIG, "", 0600);
	CHECK(setenv("CREDENTIALS_DIRECTORY", "/proc/self/fd", 1) == 0);
}

static void fill_pipe(const char *text, size_t n)
{
	int fds[2];

	CHECK(pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0);
	CHECK(dup3(fds[0], FILE_PIPE, O_CLOEXEC) == FILE_PIPE);
	close(fds[0]);
	(void)!write(fds[1], text, n); /* what does not fit is not there */
	close(fds[1]);
}

struct result {
	struct config *config;
	struct vault *vault;
	struct buffer errors;
	int r;
};

static void result_deinit(struct result *x)
{
	config_free(x->config);
	vault_free(x->vault);
	buffer_deinit(&x->errors);
}

static void load(struct result *x, const char *path, bool patient)
{
	x->r = configfile_load(&x->config, &x->vault, path, patient, &x->errors);
}

static void read_text(struct result *x, const char *text, size_t n, uint8_t letter)
{
	FILE *file = fmemopen((char *)(uintptr_t)text, n, "r");

	CHECK(file);
	fuzz_starve(letter);
	x->r = configfile_read(&x->config, &x->vault, file, "fuzz", &x->errors);
	CHECK(fuzz_feed() == (x->r == -ENOMEM));
	CHECK(fclose(file) == 0);
}

static void read_some_way(struct result *x, const char *text, size_t n, const uint8_t *letters)
{
	if (letters[1] == 'f') {
		put(FILE_CONFIG, text, n);
		load(x, FILES "105", false);
	} else if (letters[1] == 'p') {
		fill_pipe(text, n);
		load(x, FILES "106", true);
	} else if (letters[1] == 'P') {
		fill_pipe(text, n);
		load(x, FILES "106", false);
	} else if (letters[1] == '/') {
		load(x, "/", true);
	} else if (letters[1] == '-') {
		load(x, "/no/such/file", true);
	} else {
		read_text(x, text, n, letters[0]);
	}
}

/* Text for people: whole lines, each about one place, in the order of the file. */
static void check_errors(const struct buffer *errors, bool input_is_utf8)
{
	unsigned long before = 0;

	CHECK(errors->data && *errors->data && strlen(errors->data) == errors->len);
	for (const char *at = errors->data; *at; at = strchr(at, '\n') + 1) {
		const char *end = strchr(at, '\n');
		const char *colon = strchr(at, ':');
		unsigned long line = 0;

		CHECK(end && colon && colon < end && end - at < 400);
		for (const char *c = at; c < end; c++)
			CHECK((unsigned char)*c >= ' ' && *c != 0x7f);
		CHECK(!input_is_utf8 || fuzz_is_utf8(at, (size_t)(end - at)));
		if (colon[1] != ' ')
			line = strtoul(colon + 1, NULL, 10);
		CHECK(line >= before);
		before = line;
	}
}

static size_t check_text(const char *text)
{
	for (const char *c = text; *c; c++)
		CHECK((unsigned char)*c >= ' ' && *c != 0x7f);
	return strlen(text);
}

static void check_section(enum config_section section, const void *base)
{
	for (const struct config_key *k = config_keys; k->name; k++) {
		const void *slot = (const char *)base + config_key_offset(k, section);
		uint64_t v;

		if (!(k->sections & 1u << section))
			continue;
		if (config_key_is_text(k))
			v = check_text(*(const char *const *)slot);
		else
			v = *(const uint64_t *)slot;
		CHECK(v >= k->min && v <= k->max);
	}
}

static bool is_among(const struct id_list *l, uint32_t id)
{
	for (size_t i = 0; i < l->n; i++) {
		if (l->ids[i] == id)
			return true;
	}
	return false;
}

static void check_app(const struct app_config *a)
{
	gid_t group = 9;
	const struct peer root = { .uid = 0, .gid = 6 };
	const struct peer other = { .uid = 7, .gid = 8, .groups = &group, .n_groups = 1 };
	bool open = a->users.n == 0 && a->groups.n == 0;

	check_section(SECTION_APP, a);
	CHECK(a->app_id > 0 && a->queue.queue_max > 0);
	CHECK(a->secret && strcmp(a->secret, CANARY) == 0);
	CHECK(a->users.n > 0 || !*a->allow_users);
	CHECK(a->groups.n > 0 || !*a->allow_groups);
	CHECK(config_admits(a, &root) ==
	      (open || is_among(&a->users, 0) || is_among(&a->groups, 6)));
	CHECK(config_admits(a, &other) == (open || is_among(&a->users, 7) ||
					   is_among(&a->groups, 8) || is_among(&a->groups, 9)));
}

static void check_config(const struct config *c)
{
	for (enum config_section s = 0; s < SECTION_APP; s++)
		check_section(s, c);
	CHECK(c->n_apps > 0);
	CHECK(strncasecmp(c->url, "https://", 8) == 0 || strstr(c->url, "127.") ||
	      strcasestr(c->url, "localhost") || strstr(c->url, "[::1]"));
	CHECK(!strpbrk(c->url, "?#") && !strpbrk(c->proxy, "?#@"));
	CHECK(!*c->control_socket || strcmp(c->socket, c->control_socket) != 0);
	for (size_t i = 0; i < c->n_apps; i++) {
		check_app(&c->apps[i]);
		CHECK(i == 0 || c->apps[i - 1].app_id < c->apps[i].app_id);
		CHECK(config_app(c, c->apps[i].app_id) == &c->apps[i]);
	}
	CHECK(config_app(c, 0) == NULL);
}

/* A value of which config_finish() makes another. */
static bool is_derived(const struct config_key *k, const char *value)
{
	return (strcmp(k->name, "is_test") == 0 && *value == '\0') ||
	       (strcmp(k->name, "queue_max") == 0 && strcmp(value, "0") == 0);
}

/* Whether @value as such would be kept as @slot is. */
static void check_value(const struct config_key *k, const void *slot, const char *value)
{
	char spelled[CONFIG_SPELLED];
	char expected[CONFIG_SPELLED];
	struct config_error why;
	uint64_t v = 0;

	if (is_derived(k, value))
		return;
	if (config_key_is_text(k)) {
		CHECK(strcmp(config_value_text(k, slot, spelled), value) == 0);
		return;
	}
	CHECK(config_value_read(k, &v, value, &why) == 0);
	CHECK(strcmp(config_value_text(k, slot, spelled), config_value_text(k, &v, expected)) == 0);
}

static char *trim(char *text)
{
	size_t n;

	text += strspn(text, " \t");
	n = strlen(text);
	while (n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\t'))
		text[--n] = '\0';
	return text;
}

/* "app 7", …: the section that the file goes on with, and where its values are kept. */
static enum config_section find_section(const struct config *c, const char *name, const void **base)
{
	uint64_t id;

	*base = c;
	if (strncmp(name, "app ", 4) != 0)
		return config_section_find(name);
	id = strtoull(name + 4, NULL, 10);
	*base = config_app(c, (uint32_t)id);
	CHECK(*base && id == (uint32_t)id);
	return SECTION_APP;
}

/* Reads an accepted file in the plainest way: it must mean what it says. */
static void check_meaning(const struct config *c, const char *text, size_t n)
{
	enum config_section section = _SECTION_N;
	const void *base = NULL;
	char *copy = fuzz_copy(text, n);
	char *rest = copy;
	char *line;

	for (size_t i = 0; i < n; i++) {
		if (copy[i] == '\0') /* in a comment it may be */
			copy[i] = '?';
	}
	if (strncmp(rest, "\xef\xbb\xbf", 3) == 0)
		rest += 3;
	while ((line = strsep(&rest, "\n"))) {
		const struct config_key *k;
		char *value;

		line[strcspn(line, "\r")] = '\0';
		line = trim(line);
		if (*line == '\0' || *line == '#' || *line == ';')
			continue;
		if (*line == '[') {
			line[strlen(line) - 1] = '\0';
			section = find_section(c, line + 1, &base);
			continue;
		}
		CHECK(section < _SECTION_N);
		value = strchr(line, '=');
		CHECK(value);
		*value++ = '\0';
		k = config_key_find(section, trim(line));
		CHECK(k);
		check_value(k, (const char *)base + config_key_offset(k, section), trim(value));
	}
	free(copy);
}

/* The same again from what it says of itself. */
static void check_dump(const struct config *c, bool canary_is_known)
{
	_cleanup_(buffer_deinit) struct buffer first = { 0 };
	_cleanup_(buffer_deinit) struct buffer second = { 0 };
	_cleanup_(result_deinit) struct result again = { 0 };

	config_dump(c, &first);
	CHECK(!first.failed && (canary_is_known || !strstr(first.data, CANARY)));
	read_text(&again, first.data, first.len, ' ');
	CHECK(again.r == 0 && again.errors.len == 0);
	config_dump(again.config, &second);
	CHECK(!second.failed && strcmp(first.data, second.data) == 0);
	CHECK(c->socket_gid == again.config->socket_gid);
}

/* Nothing is wrong with the sample but that its secret is not there. */
static void check_sample(void)
{
	_cleanup_(buffer_deinit) struct buffer sample = { 0 };
	_cleanup_(result_deinit) struct result x = { 0 };

	config_sample(&sample);
	CHECK(!sample.failed);
	read_text(&x, sample.data, sample.len, ' ');
	CHECK(x.r == CONFIGFILE_E_INVALID && strstr(x.errors.data, "cannot be opened"));
	CHECK(strchr(x.errors.data, '\n') == x.errors.data + x.errors.len - 1);
}

static void prepare(void)
{
	static bool done;

	if (done)
		return;
	done = true;
	make_all();
	check_sample();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(result_deinit) struct result x = { 0 };
	const char *text = (const char *)data + HEADER;
	bool canary_is_known;

	prepare();
	if (size < HEADER)
		return 0;
	size -= HEADER;
	canary_is_known = memmem(text, size, CANARY, strlen(CANARY));
	read_some_way(&x, text, size, data);
	CHECK(x.r == 0 || x.r == CONFIGFILE_E_INVALID || x.r == -ENOMEM);
	CHECK((x.r == 0) == (x.config != NULL) && (x.r == 0) == (x.vault != NULL));
	CHECK(canary_is_known || !x.errors.data || !strstr(x.errors.data, CANARY));
	if (x.r == CONFIGFILE_E_INVALID)
		check_errors(&x.errors, fuzz_is_utf8(text, size));
	if (x.r != 0)
		return 0;
	CHECK(x.errors.len == 0);
	check_config(x.config);
	check_meaning(x.config, text, size);
	check_dump(x.config, canary_is_known);
	return 0;
}
