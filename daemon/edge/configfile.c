/* SPDX-License-Identifier: MIT */
/* inih is lenient where a daemon should not guess: it cuts long lines and reads their
 * tails as lines of their own, takes an indented line for more of the value above, cuts
 * values at " ;", and reads a folder as an empty file. So it does not see the file.
 * It sees what next_line() hands it: plain "key = value" lines that it can only read
 * one way. Everything else is dealt with, or refused, before it gets there.
 *
 * A reader that stops at the first error makes its user start it ten times. Here a
 * finding is noted and reading goes on; in the end all are shown, in the order of the
 * file. No finding repeats a line as it stands, since a secret may have strayed into
 * it. */
#include "edge/configfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ini.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>

#include "edge/account.h"
#include "edge/exposition.h"
#include "edge/redis.h"
#include "edge/url.h"

/* The library's callback has another type if it was built otherwise, and its line
 * buffer another size. These are the header's defaults, which distributions keep. */
#if INI_HANDLER_LINENO != 0 || INI_MAX_LINE != 200
#error "inih's build settings must not be defined here: they are those of the system's library"
#endif

/* Some editors begin a file with it. */
#define BYTE_ORDER_MARK "\xef\xbb\xbf"

struct finding {
	unsigned line;
	size_t n; /* findings of one line stay in their order */
	char *text;
};

struct reading {
	FILE *file;
	unsigned line; /* the last one read */
	struct config *config;
	struct vault *vault;
	struct finding *findings;
	size_t n_findings;
	int error; /* -errno: give up */
};

/* Makes room for one more. Full at each power of two: then twice as many. */
static bool grow(struct reading *r)
{
	size_t n = r->n_findings;
	struct finding *findings;

	if ((n & (n - 1)) != 0)
		return true;
	findings = reallocarray(r->findings, n ? 2 * n : 1, sizeof(*findings));
	if (!findings)
		return false;
	r->findings = findings;
	return true;
}

static void note(void *arg, unsigned line, const char *text)
{
	struct reading *r = arg;
	char *copy = grow(r) ? strdup(text) : NULL;

	if (!copy) {
		r->error = -ENOMEM;
		return;
	}
	r->findings[r->n_findings] = (struct finding){
		.line = line,
		.n = r->n_findings,
		.text = copy,
	};
	/* -Wanalyzer-malloc-leak: the reading has it now. */
	r->n_findings++;
}

/* Notes that the file as a whole could not be dealt with. */
static void note_error(struct reading *r, const char *what)
{
	struct config_error e;

	config_refuse(&e, "%s: %s", what, strerror(errno));
	note(r, 0, e.text);
}

/* Notes what one of our functions found out about the current line. */
static void judge(struct reading *r, int result, unsigned line, const struct config_error *why)
{
	if (result < 0)
		r->error = result;
	else if (result == CONFIG_E_INVALID)
		note(r, line, why->text);
}

static int compare_findings(const void *x, const void *y)
{
	const struct finding *a = x;
	const struct finding *b = y;

	if (a->line != b->line)
		return a->line < b->line ? -1 : 1;
	return (a->n > b->n) - (a->n < b->n);
}

static void report(struct reading *r, const char *path, struct buffer *errors)
{
	qsort(r->findings, r->n_findings, sizeof(*r->findings), compare_findings);
	for (size_t i = 0; i < r->n_findings; i++) {
		const struct finding *f = &r->findings[i];

		if (f->line > 0)
			buffer_printf(errors, "%s:%u: %s\n", path, f->line, f->text);
		else
			buffer_printf(errors, "%s: %s\n", path, f->text);
	}
}

/* One line, without its end, cut to fit. *@length is what it was. */
static bool get_line(struct reading *r, char *text, size_t size, size_t *length)
{
	size_t n = 0;
	int last = EOF;
	int c;

	while ((c = getc(r->file)) != EOF && c != '\n') {
		if (n < size - 1)
			text[n] = (char)c;
		n++;
		last = c;
		if (n == 3 && r->line == 0 && memcmp(text, BYTE_ORDER_MARK, 3) == 0)
			n = 0;
	}
	if (c == EOF && ferror(r->file)) {
		note_error(r, "cannot be read");
		return false;
	}
	if (c == EOF && n == 0)
		return false;
	if (c == '\n' && last == '\r')
		n--;

	text[n < size ? n : size - 1] = '\0';
	*length = n;
	r->line++;
	return true;
}

static bool has_control(const char *text)
{
	for (; *text; text++) {
		if (((unsigned char)*text < ' ' && *text != '\t') || *text == 0x7f)
			return true;
	}
	return false;
}

/* A comment that follows something else. */
static bool has_comment(const char *text)
{
	for (; *text; text++) {
		if ((text[0] == ' ' || text[0] == '\t') && (text[1] == ';' || text[1] == '#'))
			return true;
	}
	return false;
}

/* Notes why a line that is neither empty nor a comment cannot be read one way only. */
static bool is_plain(struct reading *r, const char *text, size_t length, size_t most)
{
	struct config_error why;

	if (length > most)
		config_refuse(&why, "%zu bytes are too many for a line (at most %zu)", length,
			      most);
	else if (strlen(text) != length)
		config_refuse(&why, "a NUL byte does not belong in a text");
	else if (has_control(text))
		config_refuse(&why, "a control character does not belong in a text");
	else if (*text == ' ' || *text == '\t')
		config_refuse(&why, "begins with a blank; a value cannot go on on a second line");
	else if (has_comment(text))
		config_refuse(&why, "a comment needs a line of its own");
	else
		return true;
	note(r, r->line, why.text);
	return false;
}

/* After a section that cannot be read, its keys would be found wrong for standing in
 * the one before. */
static void leave_section(struct reading *r)
{
	struct config_error why;

	(void)config_section(r->config, "", r->line, &why);
}

/* Begins a section. inih is not told: it would cut a long name, and does not tell us
 * of a section that is empty. */
static void begin_section(struct reading *r, char *text)
{
	struct config_error why;
	char *end = strchr(text, ']');

	if (!end || end[1 + strspn(end + 1, " \t")] != '\0') {
		note(r, r->line, "a section is written [name], with nothing after it");
		leave_section(r);
		return;
	}
	*end = '\0';
	judge(r, config_section(r->config, text + 1, r->line, &why), r->line, &why);
}

static bool is_assignment(struct reading *r, const char *text)
{
	const char *separator = strpbrk(text, "=:");
	const char *fault;

	if (!separator)
		fault = "is neither key = value nor a [section] nor a comment";
	else if (separator == text)
		fault = "names no key";
	else if (*separator == ':')
		fault = "a key is separated from its value by =, not by :";
	else
		return true;
	note(r, r->line, fault);
	return false;
}

/* inih's fgets(): the next line that it can only read one way, or NULL. */
static char *next_line(char *text, int size, void *stream)
{
	/* inih takes "\r\n" and a NUL into account. */
	const size_t most = (size_t)size - 3;
	struct reading *r = stream;
	size_t length;

	while (!r->error && get_line(r, text, (size_t)size, &length)) {
		const char *start;

		start = text + strspn(text, " \t");
		if (*start == '#' || *start == ';' || start == text + length)
			continue;
		if (!is_plain(r, text, length, most)) {
			if (*start == '[')
				leave_section(r);
		} else if (*text == '[') {
			begin_section(r, text);
		} else if (is_assignment(r, text)) {
			return text;
		}
	}
	return NULL;
}

/* What a key's value means on this host, which the core cannot know. Called right
 * after config_set() took it. */
typedef int (*check_fn)(struct reading *r, const char *value, struct config_error *why);

static struct app_config *last_app(struct reading *r)
{
	return &r->config->apps[r->config->n_apps - 1];
}

static int check_url(struct reading *r, const char *value, struct config_error *why)
{
	return url_check(value, why);
}

static int check_proxy(struct reading *r, const char *value, struct config_error *why)
{
	return url_check_proxy(value, why);
}

/* Found now rather than with every message. */
static int find_certificates(const char *path, struct config_error *why)
{
	X509_STORE *store = X509_STORE_new();
	bool ok;

	if (!store)
		return -ENOMEM;
	ok = X509_STORE_load_file(store, path) == 1;
	X509_STORE_free(store);
	ERR_clear_error();
	if (!ok)
		return config_refuse(why, "ca_file: has no certificate that OpenSSL can read");
	return 0;
}

static int check_ca_file(struct reading *r, const char *value, struct config_error *why)
{
	struct stat st;
	int result;
	int fd;

	if (!*value)
		return 0;
	/* Without O_NONBLOCK, opening a pipe would wait for its writer. */
	fd = open(value, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return config_refuse(why, "ca_file: cannot be opened: %s", strerror(errno));
	if (fstat(fd, &st) < 0)
		result = config_refuse(why, "ca_file: cannot be examined: %s", strerror(errno));
	else if (!S_ISREG(st.st_mode))
		result = config_refuse(why, "ca_file: is not a regular file");
	else
		result = find_certificates(value, why);
	close(fd);
	return result;
}

static int check_listen(struct reading *r, const char *value, struct config_error *why)
{
	return exposition_check(value, why);
}

static int check_redis(struct reading *r, const char *value, struct config_error *why)
{
	return redis_check(value, why);
}

static int remember_password(struct reading *r, const char *value, struct config_error *why)
{
	r->config->redis_password_line = r->line;
	return 0;
}

/* It is part of keys and lists in the engine. */
static bool is_host_name(const char *name)
{
	static const char allowed[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

	return *name && strspn(name, allowed) == strlen(name);
}

static int check_host_name(struct reading *r, const char *value, struct config_error *why)
{
	char quoted[CONFIG_QUOTED];

	if (!*value || is_host_name(value))
		return 0;
	return config_refuse(why,
			     "name: \"%s\" is not made of letters, digits, dots, dashes and "
			     "underscores",
			     config_quoted(quoted, value));
}

static int find_socket_group(struct reading *r, const char *value, struct config_error *why)
{
	struct id_list l = { 0 };
	int result = account_groups("socket_group", value, &l, why);

	if (!result && l.n > 1)
		result = config_refuse(why, "socket_group: a socket has one group only");
	if (!result && l.n == 1)
		r->config->socket_gid = l.ids[0];
	free(l.ids);
	return result;
}

static int find_users(struct reading *r, const char *value, struct config_error *why)
{
	return account_users("allow_users", value, &last_app(r)->users, why);
}

static int find_groups(struct reading *r, const char *value, struct config_error *why)
{
	return account_groups("allow_groups", value, &last_app(r)->groups, why);
}

/* Secrets are read last, when it is known how many there are. */
static int remember_secret(struct reading *r, const char *value, struct config_error *why)
{
	last_app(r)->secret_line = r->line;
	return 0;
}

static const struct {
	const char *key;
	check_fn check;
} checks[] = {
	{ "url", check_url },
	{ "proxy", check_proxy },
	{ "ca_file", check_ca_file },
	{ "metrics_listen", check_listen },
	{ "socket_group", find_socket_group },
	{ "redis", check_redis },
	{ "password_file", remember_password },
	{ "name", check_host_name },
	{ "server_secret_file", remember_secret },
	{ "allow_users", find_users },
	{ "allow_groups", find_groups },
};

static int check(struct reading *r, const char *key, const char *value, struct config_error *why)
{
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		if (strcmp(checks[i].key, key) == 0)
			return checks[i].check(r, value, why);
	}
	return 0;
}

static int on_key(void *arg, const char *section, const char *key, const char *value)
{
	struct reading *r = arg;
	struct config_error why;
	int result = config_set(r->config, key, value, &why);

	if (!result)
		result = check(r, key, value, &why);
	judge(r, result, r->line, &why);
	return 1; /* inih's word for success */
}

static void parse(struct reading *r)
{
	int result = ini_parse_stream(next_line, r, on_key, r);

	if (r->error)
		return;
	if (result == -2) /* inih's word for it */
		r->error = -ENOMEM;
	else if (result)
		note(r, 0, "inih refused a line that should have been plain to it");
}

static void read_secrets(struct reading *r)
{
	struct config_error why;

	r->error = vault_new(&r->vault, r->config->n_apps + 1);
	for (size_t i = 0; i < r->config->n_apps && !r->error; i++) {
		struct app_config *a = &r->config->apps[i];

		if (a->server_secret_file)
			judge(r,
			      vault_read(r->vault, &a->secret, "server_secret_file",
					 a->server_secret_file, &why),
			      a->secret_line, &why);
	}
	if (!r->error && *r->config->redis_password_file)
		judge(r,
		      vault_read(r->vault, &r->config->redis_password, "password_file",
				 r->config->redis_password_file, &why),
		      r->config->redis_password_line, &why);
}

/* Hosts that share are told apart by their names, and have them already. */
static void find_host_name(struct reading *r)
{
	char name[HOST_NAME_MAX + 1] = "";
	char quoted[CONFIG_QUOTED];
	struct config_error why;

	if (!*r->config->redis || *r->config->shared_name)
		return;
	if (gethostname(name, sizeof(name)) != 0 || !is_host_name(name)) {
		config_refuse(
			&why,
			"name is missing in [shared]: the host's name, \"%s\", cannot be used",
			config_quoted(quoted, name));
		note(r, 0, why.text);
		return;
	}
	free(r->config->shared_name);
	r->config->shared_name = strdup(name);
	/* -Wanalyzer-malloc-leak: the configuration has it now. */
	if (!r->config->shared_name)
		r->error = -ENOMEM;
}

static void reading_deinit(struct reading *r)
{
	for (size_t i = 0; i < r->n_findings; i++)
		free(r->findings[i].text);
	free(r->findings);
	config_free(r->config);
	vault_free(r->vault);
}

int configfile_read(struct config **out, struct vault **vault, FILE *file, const char *path,
		    struct buffer *errors)
{
	_cleanup_(reading_deinit) struct reading r = { .file = file };

	r.error = config_new(&r.config);
	if (!r.error)
		parse(&r);
	if (!r.error)
		config_finish(r.config, note, &r);
	if (!r.error)
		read_secrets(&r);
	if (!r.error)
		find_host_name(&r);
	if (r.error)
		return r.error;

	if (r.n_findings > 0) {
		report(&r, path, errors);
		return errors->failed ? -ENOMEM : CONFIGFILE_E_INVALID;
	}
	*out = r.config;
	*vault = r.vault;
	r.config = NULL; /* the caller's now */
	r.vault = NULL;
	return 0;
}

int configfile_load(struct config **out, struct vault **vault, const char *path, bool patient,
		    struct buffer *errors)
{
	/* A pipe is what a shell's <(…) makes; opening it waits for its writer. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (patient ? 0 : O_NONBLOCK));
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
	struct stat st;
	int r = CONFIGFILE_E_INVALID;

	if (!file || fstat(fd, &st) < 0)
		buffer_printf(errors, "%s: cannot be opened: %s\n", path, strerror(errno));
	else if (!S_ISREG(st.st_mode) && !S_ISFIFO(st.st_mode))
		buffer_printf(errors, "%s: is neither a file nor a pipe\n", path);
	else if (!S_ISREG(st.st_mode) && !patient)
		buffer_printf(errors, "%s: is a pipe, which can be read at the start only\n", path);
	else
		r = configfile_read(out, vault, file, path, errors);

	if (file)
		(void)fclose(file); /* nothing was written */
	else if (fd >= 0)
		close(fd);
	return r;
}
