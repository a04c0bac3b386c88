/* SPDX-License-Identifier: MIT */
/* The operator's file and all that it points to, as real files: what is accepted means
 * one thing, what is not is told with its line, and secrets are told to no one. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "build.h"
#include "random.h"

#include "edge/configfile.h"
#include "edge/vault.h"

/* Must not be seen in anything that is printed. */
#define CANARY "c4nary0123456789abcdef0123456789"

/* A folder for each test, and the files that most of them need. */
struct place {
	char folder[64];
	char config[96];
	char secret[96];
};

static void put_file(const char *path, const char *bytes, size_t n, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	assert_int_equal(fchmod(fd, mode), 0);
	assert_int_equal(close(fd), 0);
}

static int set_up(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	snprintf(p->folder, sizeof(p->folder), "/tmp/test_configfile.XXXXXX");
	assert_non_null(mkdtemp(p->folder));
	snprintf(p->config, sizeof(p->config), "%s/conf", p->folder);
	snprintf(p->secret, sizeof(p->secret), "%s/secret", p->folder);
	put_file(p->secret, CANARY "\n", strlen(CANARY "\n"), 0600);
	*state = p;
	return 0;
}

static int tear_down(void **state)
{
	struct place *p = *state;

	unlink(p->config);
	unlink(p->secret);
	assert_int_equal(rmdir(p->folder), 0);
	free(p);
	return 0;
}

/* @text with "$" standing for the path of the secret and "%" for that of the file. */
static void expand(const struct place *p, const char *text, size_t n, struct buffer *out)
{
	buffer_puts(out, "");
	for (size_t i = 0; i < n; i++) {
		if (text[i] == '$')
			buffer_puts(out, p->secret);
		else if (text[i] == '%')
			buffer_puts(out, p->config);
		else
			buffer_append(out, text + i, 1);
	}
	assert_false(out->failed);
}

static void assert_errors(const struct place *p, const struct buffer *errors, const char *expected)
{
	struct buffer e = { 0 };

	expand(p, expected, strlen(expected), &e);
	assert_string_equal(errors->data ? errors->data : "", e.data ? e.data : "");
	assert_null(strstr(errors->data ? errors->data : "", CANARY));
	buffer_deinit(&e);
}

/* Loads @bytes as a file; "" for @expected: it is valid. */
static void assert_bytes_give(const struct place *p, const char *bytes, size_t n,
			      const char *expected)
{
	struct buffer text = { 0 };
	struct buffer errors = { 0 };
	struct config *c = NULL;
	struct vault *v = NULL;
	int r;

	expand(p, bytes, n, &text);
	put_file(p->config, text.data ? text.data : "", text.len, 0644);
	r = configfile_load(&c, &v, p->config, true, &errors);
	assert_errors(p, &errors, expected);
	assert_int_equal(r, *expected ? CONFIGFILE_E_INVALID : 0);
	if (*expected) {
		assert_null(c);
		assert_null(v);
	}
	config_free(c);
	vault_free(v);
	buffer_deinit(&text);
	buffer_deinit(&errors);
}

static void assert_gives(const struct place *p, const char *text, const char *expected)
{
	assert_bytes_give(p, text, strlen(text), expected);
}

#define APP "[app 1]\nserver_secret_file = $\n"

static void test_a_valid_file_comes_with_its_secrets(void **state)
{
	struct place *p = *state;
	struct buffer text = { 0 };
	struct buffer errors = { 0 };
	struct config *c = NULL;
	struct vault *v = NULL;
	const char *plain = "# a comment\n; another\n\n \t\n[app 2]\nserver_secret_file=$\nrate=7\n"
			    "[app 1]\nserver_secret_file = $\n[queue]\n";

	expand(p, plain, strlen(plain), &text);
	put_file(p->config, text.data, text.len, 0644);
	assert_int_equal(configfile_load(&c, &v, p->config, true, &errors), 0);
	assert_int_equal(errors.len, 0);
	assert_int_equal(c->n_apps, 2);
	assert_string_equal(config_app(c, 1)->secret, CANARY);
	assert_string_equal(config_app(c, 2)->secret, CANARY);
	assert_int_equal(config_app(c, 2)->rate, 7);
	config_dump(c, &errors);
	assert_null(strstr(errors.data, CANARY));
	config_free(c);
	vault_free(v);
	buffer_deinit(&text);
	buffer_deinit(&errors);
}

static void test_all_findings_come_at_once_in_order(void **state)
{
	assert_gives(*state,
		     "max_age = 3s\n[queue]\nmax_aeg = 3s\nmax_age = 5 sec\nqueue_max = 1\n"
		     "queue_max = 2\n[app 9]\nrate = 0\n[upstraem]\nurl = x\n[app 10]\n"
		     "server_secret_file = /nonexistent/s\nallow_users = no-such-user\n"
		     "  burst = 1\nroom_rate 5\n[app 11\n[app 10]\nserver_secret_file = $\n",
		     "%:1: \"max_age\" stands before the first [section]\n"
		     "%:3: unknown key \"max_aeg\" in [queue]; did you mean max_age?\n"
		     "%:4: max_age: \"5 sec\" is not a duration (such as 250ms, 3s or 1m)\n"
		     "%:6: queue_max is given twice in [queue]\n"
		     "%:7: server_secret_file is missing in this section\n"
		     "%:8: rate: 0 is out of range (1 to 100000)\n"
		     "%:9: unknown section [upstraem]; did you mean [upstream]?\n"
		     "%:12: server_secret_file: /nonexistent/s cannot be opened: "
		     "No such file or directory\n"
		     "%:13: allow_users: there is no user \"no-such-user\"\n"
		     "%:14: begins with a blank; a value cannot go on on a second line\n"
		     "%:15: is neither key = value nor a [section] nor a comment\n"
		     "%:16: a section is written [name], with nothing after it\n"
		     "%:17: [app 10] stands twice; the first is on line 11\n");
}

#define X50 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static void test_what_inih_would_misread_is_refused(void **state)
{
	static const struct {
		const char *text;
		const char *errors;
	} cases[] = {
		{ APP "allow_users = " X50 X50 X50 X50 "\n",
		  "%:3: 214 bytes are too many for a line (at most 197)\n" },
		/* The tail must not be read as a line of its own. */
		{ APP "allow_users = " X50 X50 X50 X50 "\n=999999\n",
		  "%:3: 214 bytes are too many for a line (at most 197)\n%:4: names no key\n" },
		{ APP "# " X50 X50 X50 X50 " rate = x\n", "" },
		{ APP "ca_file = /a ;b\n", "%:3: a comment needs a line of its own\n" },
		{ APP "rate = ;5\n", "%:3: a comment needs a line of its own\n" },
		{ APP "rate = 5 # why\n", "%:3: a comment needs a line of its own\n" },
		{ APP "rate = 5\t;why\n", "%:3: a comment needs a line of its own\n" },
		{ APP "allow_users =;root\n", "%:3: allow_users: there is no user \";root\"\n" },
		{ "[app 1] ; one\nserver_secret_file = $\n",
		  "%: there is no [app APPID] section, so nothing could be sent\n"
		  "%:1: a comment needs a line of its own\n" },
		{ APP "rate : 5\n", "%:3: a key is separated from its value by =, not by :\n" },
		{ APP "https://a = b\n",
		  "%:3: a key is separated from its value by =, not by :\n" },
		{ APP "rate\n", "%:3: is neither key = value nor a [section] nor a comment\n" },
		{ APP "= 5\n", "%:3: names no key\n" },
		{ APP "\trate = 5\n",
		  "%:3: begins with a blank; a value cannot go on on a second line\n" },
		{ APP " [queue]\n",
		  "%:3: begins with a blank; a value cannot go on on a second line\n" },
		{ APP "rate = \"5\"\n",
		  "%:3: rate: \"\"5\"\" is not a whole number (such as 1 or 100)\n" },
		{ APP "rate = 5\vq\n", "%:3: a control character does not belong in a text\n" },
		{ APP "rate = 5\rburst = 5\n",
		  "%:3: a control character does not belong in a text\n" },
		{ APP "[queue\nmax_age = x\n",
		  "%:3: a section is written [name], with nothing after it\n" },
		{ APP "[queue] max_age = 3s\n",
		  "%:3: a section is written [name], with nothing after it\n" },
		{ APP "[" X50 X50 "]\n", "%:3: unknown section [" X50 "xxxxxxxxxxxxxx...]\n" },
		{ APP X50 X50 " = 1\n",
		  "%:3: unknown key \"" X50 "xxxxxxxxxxxxxx...\" in [app 1]\n" },
		{ "", "%: there is no [app APPID] section, so nothing could be sent\n" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_gives(*state, cases[i].text, cases[i].errors);
}

static void test_line_ends_and_marks_of_other_systems_are_taken(void **state)
{
	assert_gives(*state, "[app 1]\r\nserver_secret_file = $\r\n\r\n# x\r\nrate = 5\r\n", "");
	assert_gives(*state, "\xef\xbb\xbf[app 1]\nserver_secret_file = $", "");
	assert_gives(*state, "[app 1]   \nserver_secret_file = $   \t\n", "");
	assert_gives(*state, APP "\xef\xbb\xbfrate = 5\n",
		     "%:3: unknown key \"\xef\xbb\xbfrate\" in [app 1]\n");
}

static void test_nul_bytes_are_refused(void **state)
{
	static const char inside[] = APP "rate = 5\0 0\n";
	static const char first[] = APP "\0rate = 5\n";

	assert_bytes_give(*state, inside, sizeof(inside) - 1,
			  "%:3: a NUL byte does not belong in a text\n");
	assert_bytes_give(*state, first, sizeof(first) - 1,
			  "%:3: a NUL byte does not belong in a text\n");
}

static void test_a_line_of_197_bytes_is_read_whole(void **state)
{
	struct place *p = *state;
	char text[512];

	/* 12 bytes, then 184 blanks, then a number. */
	snprintf(text, sizeof(text), APP "allow_users=%184s%s\r\n", "", "5");
	assert_gives(p, text, "");
	snprintf(text, sizeof(text), APP "allow_users=%184s%s\r\n", "", "55");
	assert_gives(p, text, "%:3: 198 bytes are too many for a line (at most 197)\n");
}

static void assert_path_gives(const struct place *p, const char *path, const char *expected)
{
	struct buffer errors = { 0 };
	struct config *c = NULL;
	struct vault *v = NULL;

	assert_int_equal(configfile_load(&c, &v, path, true, &errors), CONFIGFILE_E_INVALID);
	assert_errors(p, &errors, expected);
	buffer_deinit(&errors);
}

static void test_what_is_no_file_is_not_an_empty_one(void **state)
{
	assert_path_gives(*state, "/", "/: is neither a file nor a pipe\n");
	assert_path_gives(*state, "/dev/null", "/dev/null: is neither a file nor a pipe\n");
	assert_path_gives(*state, "/nonexistent/x",
			  "/nonexistent/x: cannot be opened: No such file or directory\n");
}

static ssize_t fail_to_read(void *cookie, char *out, size_t n)
{
	bool *begun = cookie;

	if (*begun) {
		errno = EIO;
		return -1;
	}
	*begun = true;
	*out = '#';
	return 1;
}

static void test_a_file_that_breaks_off_is_not_a_short_one(void **state)
{
	cookie_io_functions_t broken = { .read = fail_to_read };
	struct buffer errors = { 0 };
	struct config *c = NULL;
	struct vault *v = NULL;
	bool begun = false;
	FILE *file = fopencookie(&begun, "r", broken);

	assert_non_null(file);
	assert_int_equal(configfile_read(&c, &v, file, "f", &errors), CONFIGFILE_E_INVALID);
	assert_non_null(strstr(errors.data, "f: cannot be read: Input/output error\n"));
	assert_int_equal(fclose(file), 0);
	buffer_deinit(&errors);
}

static void test_a_url_is_https_or_stays_on_this_host(void **state)
{
	static const struct {
		const char *text;
		const char *error; /* after "url: " */
	} cases[] = {
		{ "https://rtc-api.zego.im/", NULL },
		{ "https://rtc-api.zego.im", NULL },
		{ "HTTPS://rtc-api.zego.im:8443/some/path", NULL },
		{ "http://127.0.0.1:8080/", NULL },
		{ "http://127.9.9.9", NULL },
		{ "http://[::1]:80/", NULL },
		{ "http://localhost:8080/", NULL },
		{ "http://rtc-api.zego.im/", "must begin with https://, as only a loopback address "
					     "may do without" },
		{ "http://128.0.0.1/", "must begin with https://, as only a loopback address may "
				       "do without" },
		{ "http://localhost.example/", "must begin with https://, as only a loopback "
					       "address may do without" },
		{ "http://127.0.0.1.example/", "must begin with https://, as only a loopback "
					       "address may do without" },
		{ "ftp://127.0.0.1/", "must begin with https:// or http://" },
		{ "rtc-api.zego.im", "must begin with https:// or http://" },
		{ "https:/rtc-api.zego.im", "must begin with https:// or http://" },
		{ "https://u:" CANARY "@h/", "must not contain a user or password" },
		{ "https://u@h/", "must not contain a user or password" },
		{ "https://h/?a=b", "must not contain a query or fragment" },
		{ "https://h/?", "must not contain a query or fragment" },
		{ "https://h/#f", "must not contain a query or fragment" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[256];
		char errors[256] = "";

		snprintf(text, sizeof(text), "[upstream]\nurl = %s\n%s", cases[i].text, APP);
		if (cases[i].error)
			snprintf(errors, sizeof(errors), "%%:2: url: %s\n", cases[i].error);
		assert_gives(*state, text, errors);
	}
}

/* In whose words is libcurl's business. */
static void test_what_libcurl_cannot_parse_is_no_url(void **state)
{
	static const char *const cases[] = { "https://h:99999/", "https://", "https://h /" };
	struct place *p = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buffer text = { 0 };
		struct buffer errors = { 0 };
		struct config *c = NULL;
		struct vault *v = NULL;

		buffer_printf(&text, "[upstream]\nurl = %s\n", cases[i]);
		put_file(p->config, text.data, text.len, 0644);
		assert_int_equal(configfile_load(&c, &v, p->config, true, &errors),
				 CONFIGFILE_E_INVALID);
		assert_non_null(strstr(errors.data, ":2: url: is not a URL: "));
		buffer_deinit(&text);
		buffer_deinit(&errors);
	}
}

static void test_a_proxy_is_a_host_and_a_port(void **state)
{
	static const struct {
		const char *text;
		const char *error; /* after "proxy: " */
	} cases[] = {
		{ "", NULL },
		{ "http://proxy.example:3128", NULL },
		{ "https://proxy.example:443/", NULL },
		{ "http://[2001:db8::1]:3128", NULL },
		{ "proxy.example:3128", "must begin with https:// or http://" },
		{ "socks5://proxy.example:1080", "must begin with https:// or http://" },
		{ "http://proxy.example", "is not http://host:port or https://host:port" },
		{ "http://proxy.example:3128/x", "is not http://host:port or https://host:port" },
		{ "http://u:" CANARY "@h:3128", "must not contain a user or password" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[256];
		char errors[256] = "";

		snprintf(text, sizeof(text), "[upstream]\nproxy = %s\n%s", cases[i].text, APP);
		if (cases[i].error)
			snprintf(errors, sizeof(errors), "%%:2: proxy: %s\n", cases[i].error);
		assert_gives(*state, text, errors);
	}
}

/* A certificate for nothing; its key was thrown away. */
static const char certificate[] =
	"-----BEGIN CERTIFICATE-----\n"
	"MIIBdjCCARugAwIBAgIUYO7CjxUs3j2tIHTdyuj5FyIQe50wCgYIKoZIzj0EAwIw\n"
	"DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjQwNzIwMzBaGA8yMTI2MTAzMTA3MjAz\n"
	"MFowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABItL\n"
	"h0RynQJzS8VTX4D86+01hcDcgAiS9efXR8I+EWB77/80zKFJAx45XMBLCL2eOLoN\n"
	"UcKRRI6pOtSxaDH/I0mjUzBRMB0GA1UdDgQWBBQM3Uf1IfCRYlalRdGTpfK1c749\n"
	"rTAfBgNVHSMEGDAWgBQM3Uf1IfCRYlalRdGTpfK1c749rTAPBgNVHRMBAf8EBTAD\n"
	"AQH/MAoGCCqGSM49BAMCA0kAMEYCIQDC91zI8IDpqbm9u9uNoR3qEQZSwLZf2q/I\n"
	"9ohKErbExgIhAKpxvgz13+KGELElW7R/TEh6Vrpwxq23StYfJY6rMHSh\n"
	"-----END CERTIFICATE-----\n";

static void test_a_ca_file_can_be_read(void **state)
{
	const struct place *p = *state;
	struct buffer text = { 0 };
	char path[128];

	snprintf(path, sizeof(path), "%s/ca.pem", p->folder);
	assert_gives(*state, APP "[upstream]\nca_file = $\n",
		     "%:4: ca_file: has no certificate that OpenSSL can read\n");
	put_file(path, certificate, strlen(certificate), 0644);
	buffer_printf(&text, APP "[upstream]\nca_file = %s\n", path);
	assert_gives(*state, text.data, "");
	buffer_deinit(&text);
	assert_int_equal(unlink(path), 0);
	assert_gives(*state, APP "[upstream]\nca_file =\n", "");
	assert_gives(*state, APP "[upstream]\nca_file = /nonexistent\n",
		     "%:4: ca_file: cannot be opened: No such file or directory\n");
	assert_gives(*state, APP "[upstream]\nca_file = /tmp\n",
		     "%:4: ca_file: is not a regular file\n");
}

static void test_names_become_numbers(void **state)
{
	struct place *p = *state;
	const struct passwd *user = getpwuid(0);
	const struct group *group = getgrgid(0);
	struct buffer text = { 0 };
	struct buffer errors = { 0 };
	struct config *c = NULL;
	struct vault *v = NULL;
	const struct app_config *a;

	assert_non_null(user);
	assert_non_null(group);
	buffer_printf(&text,
		      "[app 1]\nserver_secret_file = %s\nallow_users = %s, 4294967294,7\n"
		      "allow_groups = 8 %s\n[daemon]\nsocket_group = %s\n",
		      p->secret, user->pw_name, group->gr_name, group->gr_name);
	put_file(p->config, text.data, text.len, 0644);
	assert_int_equal(configfile_load(&c, &v, p->config, true, &errors), 0);
	a = config_app(c, 1);
	assert_int_equal(a->users.n, 3);
	assert_int_equal(a->users.ids[0], 0);
	assert_int_equal(a->users.ids[1], 4294967294);
	assert_int_equal(a->users.ids[2], 7);
	assert_int_equal(a->groups.n, 2);
	assert_int_equal(a->groups.ids[0], 8);
	assert_int_equal(a->groups.ids[1], 0);
	assert_int_equal(c->socket_gid, 0);
	config_free(c);
	vault_free(v);
	buffer_deinit(&text);
	buffer_deinit(&errors);
}

static void test_names_that_do_not_exist_are_named(void **state)
{
	assert_gives(*state, APP "allow_users = root, no-such-user\n",
		     "%:3: allow_users: there is no user \"no-such-user\"\n");
	assert_gives(*state, APP "allow_groups = no-such-group\n",
		     "%:3: allow_groups: there is no group \"no-such-group\"\n");
	assert_gives(*state, APP "allow_users = 4294967295\n",
		     "%:3: allow_users: there is no user \"4294967295\"\n");
	/* It would otherwise admit everyone. */
	assert_gives(*state, APP "allow_users = ,\n", "%:3: allow_users: names no user\n");
	assert_gives(*state, APP "[daemon]\nsocket_group = 5 6\n",
		     "%:4: socket_group: a socket has one group only\n");
	assert_gives(*state, APP "[daemon]\nsocket_group = no-such-group\n",
		     "%:4: socket_group: there is no group \"no-such-group\"\n");
}

#define X64  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define X256 X64 X64 X64 X64

#define NOT_A_SECRET                                                                               \
	"%:2: server_secret_file: $ is not one line of 1 to 256 printable ASCII characters "       \
	"without blanks\n"

static void test_a_secret_is_one_line(void **state)
{
	static const struct {
		const char *bytes;
		const char *errors;
	} cases[] = {
		{ CANARY, "" },
		{ CANARY "\n", "" },
		{ CANARY "\r\n", "" },
		{ "x", "" },
		{ X256, "" },
		{ X256 "\r\n", "" },
		{ "", NOT_A_SECRET },
		{ "\n", NOT_A_SECRET },
		{ "\r\n", NOT_A_SECRET },
		{ CANARY "\n\n", NOT_A_SECRET },
		{ CANARY "\r", NOT_A_SECRET },
		{ CANARY "\nx\n", NOT_A_SECRET },
		{ " " CANARY "\n", NOT_A_SECRET },
		{ CANARY " \n", NOT_A_SECRET },
		{ "\xef\xbb\xbf" CANARY "\n", NOT_A_SECRET },
		{ CANARY "\xc3\xa9\n", NOT_A_SECRET },
		{ X256 "x", NOT_A_SECRET },
		{ X256 "x\n", NOT_A_SECRET },
		{ X256 "\r\nx", NOT_A_SECRET },
		{ X256 "\r\n" X256, NOT_A_SECRET },
	};
	struct place *p = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		put_file(p->secret, cases[i].bytes, strlen(cases[i].bytes), 0600);
		assert_gives(p, APP, cases[i].errors);
	}
	put_file(p->secret, "a\0b\n", 4, 0600);
	assert_gives(p, APP, NOT_A_SECRET);
}

static void test_a_secret_that_others_may_read_is_refused(void **state)
{
	static const struct {
		mode_t mode;
		bool fine;
	} cases[] = {
		{ 0400, true },  { 0600, true },  { 0700, true },  { 0640, false },
		{ 0604, false }, { 0644, false }, { 0620, false }, { 0601, false },
	};
	struct place *p = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char errors[160] = "";

		assert_int_equal(chmod(p->secret, cases[i].mode), 0);
		if (!cases[i].fine)
			snprintf(errors, sizeof(errors),
				 "%%:2: server_secret_file: $ can be read by others "
				 "(mode %04o); chmod 600 it\n",
				 cases[i].mode);
		assert_gives(p, APP, errors);
	}
}

static void test_a_secret_belongs_to_us_or_root(void **state)
{
	struct place *p = *state;

	/* Only root can give files away. */
	if (geteuid() != 0)
		return;
	assert_int_equal(chown(p->secret, 12345, 0), 0);
	assert_gives(p, APP,
		     "%:2: server_secret_file: $ belongs to user 12345, not to the daemon's or "
		     "root\n");
}

static void test_a_secret_is_a_regular_file(void **state)
{
	struct place *p = *state;

	assert_gives(p, "[app 1]\nserver_secret_file = /tmp\n",
		     "%:2: server_secret_file: /tmp is not a regular file\n");
	assert_int_equal(unlink(p->secret), 0);
	assert_int_equal(mkfifo(p->secret, 0600), 0);
	assert_gives(p, APP, "%:2: server_secret_file: $ is not a regular file\n");
}

static void test_a_credential_is_what_systemd_passes(void **state)
{
	static const char text[] = "[app 1]\nserver_secret_file = credential:secret\n";
	struct place *p = *state;

	assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
	assert_gives(p, text,
		     "%:2: server_secret_file: credential:secret is not there: systemd passed no "
		     "credentials\n");
	assert_int_equal(setenv("CREDENTIALS_DIRECTORY", p->folder, 1), 0);
	assert_int_equal(chmod(p->secret, 0400), 0);
	assert_gives(p, text, "");
	assert_int_equal(chmod(p->secret, 0440), 0);
	assert_gives(p, text, "");
	assert_int_equal(chmod(p->secret, 0444), 0);
	assert_gives(p, text,
		     "%:2: server_secret_file: credential:secret can be read by others "
		     "(mode 0444); chmod 600 it\n");
	assert_gives(p, "[app 1]\nserver_secret_file = credential:absent\n",
		     "%:2: server_secret_file: credential:absent cannot be opened: No such file or "
		     "directory\n");
	assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
}

/* What is said of a value of [shared] redis that is not one. */
#define NO_REDIS(value)                                                                            \
	"%:4: redis: \"" value "\" is neither unix:/absolute/path nor tcp:host:port (such as "     \
	"tcp:10.0.0.7:6379 or tcp:[fd00::7]:6379)\n"

#define A50 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void test_a_redis_is_a_socket_or_a_host_and_a_port(void **state)
{
	static const struct {
		const char *value;
		const char *errors;
	} cases[] = {
		{ "unix:/run/redis/redis.sock", "" },
		{ "tcp:localhost:6379", "" },
		{ "tcp:redis-1.example_net:1", "" },
		{ "tcp:10.0.0.7:65535", "" },
		{ "tcp:[fd00::7]:6379", "" },
		{ "", "" },
		{ "/run/redis/redis.sock", NO_REDIS("/run/redis/redis.sock") },
		{ "unix:redis.sock", NO_REDIS("unix:redis.sock") },
		{ "localhost:6379", NO_REDIS("localhost:6379") },
		{ "redis://localhost", NO_REDIS("redis://localhost") },
		{ "tcp:localhost", NO_REDIS("tcp:localhost") },
		{ "tcp:localhost:x", NO_REDIS("tcp:localhost:x") },
		{ "tcp:localhost:0", "%:4: redis: \"0\" is no port (1 to 65535)\n" },
		{ "tcp:localhost:65536", "%:4: redis: \"65536\" is no port (1 to 65535)\n" },
		{ "tcp:localhost:6379/1", "%:4: redis: \"6379/1\" is no port (1 to 65535)\n" },
		{ "tcp::6379", NO_REDIS("tcp::6379") },
		{ "tcp:[localhost]:6379", NO_REDIS("tcp:[localhost]:6379") },
		{ "tcp:[]:6379", NO_REDIS("tcp:[]:6379") },
		{ "tcp:fd00::7:6379", NO_REDIS("tcp:fd00::7:6379") },
		{ "tcp:user@host:6379", NO_REDIS("tcp:user@host:6379") },
		{ "unix:/" A50 A50 "123456",
		  "%:4: redis: the path has 107 bytes, and may have 106\n" },
		{ "unix:/" A50 A50 "12345", "" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *errors = cases[i].errors;
		char text[512];

		if (!HAVE_HIREDIS && *cases[i].value)
			errors = "%:4: redis: this barraged was built without hiredis\n";
		snprintf(text, sizeof(text), APP "[shared]\nredis = %s\nhosts = 2\nname = a\n",
			 cases[i].value);
		assert_gives(*state, text, errors);
	}
}

/* A valid file's configuration; its vault comes with it. */
static struct config *load(const struct place *p, const char *plain, struct vault **v)
{
	struct buffer text = { 0 };
	struct buffer errors = { 0 };
	struct config *c = NULL;

	expand(p, plain, strlen(plain), &text);
	put_file(p->config, text.data, text.len, 0644);
	assert_int_equal(configfile_load(&c, v, p->config, true, &errors), 0);
	assert_int_equal(errors.len, 0);
	buffer_deinit(&text);
	return c;
}

static void unload(struct config *c, struct vault *v)
{
	config_free(c);
	vault_free(v);
}

static void test_a_password_is_kept_as_a_secret(void **state)
{
	struct vault *v = NULL;
	struct buffer dump = { 0 };
	static const char text[] = APP "[shared]\nhosts = 2\npassword_file = $\n";
	struct place *p = *state;
	struct config *c = load(p, text, &v);

	assert_string_equal(c->redis_password, CANARY);
	config_dump(c, &dump);
	assert_null(strstr(dump.data, CANARY));
	buffer_deinit(&dump);
	unload(c, v);
	assert_int_equal(chmod(p->secret, 0640), 0);
	assert_gives(
		p, "[app 1]\nserver_secret_file = /absent\n[shared]\npassword_file = $\n",
		"%:2: server_secret_file: /absent cannot be opened: No such file or directory\n"
		"%:4: password_file: $ can be read by others (mode 0640); chmod 600 it\n");
	assert_gives(
		p, "[app 1]\nserver_secret_file = /absent\n[shared]\npassword_file = /absent\n",
		"%:2: server_secret_file: /absent cannot be opened: No such file or directory\n"
		"%:4: password_file: /absent cannot be opened: No such file or directory\n");
}

/* The host's own name stands in where none is given, but only where it is needed. */
static void test_a_host_has_a_name_among_those_that_share(void **state)
{
	struct place *p = *state;
	char own[256] = "";
	struct vault *v = NULL;
	struct config *c = load(p, APP "[shared]\nhosts = 2\n", &v);

	assert_string_equal(c->shared_name, "");
	unload(c, v);
	assert_gives(p, APP "[shared]\nname = a b\n",
		     "%:4: name: \"a b\" is not made of letters, digits, dots, dashes and "
		     "underscores\n");
	if (!HAVE_HIREDIS)
		return;
	c = load(p, APP "[shared]\nredis = unix:/r\nhosts = 2\nname = a_B-9.z\n", &v);
	assert_string_equal(c->shared_name, "a_B-9.z");
	unload(c, v);
	assert_int_equal(gethostname(own, sizeof(own) - 1), 0);
	c = load(p, APP "[shared]\nredis = unix:/r\nhosts = 2\n", &v);
	assert_string_equal(c->shared_name, own);
	unload(c, v);
}

/* Whether the kernel has a flag on the mapping that holds @address. */
static bool mapping_has(const void *address, const char *flag)
{
	FILE *maps = fopen("/proc/self/smaps", "r");
	char line[256];
	bool inside = false;
	bool has = false;

	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps)) {
		char *end;
		unsigned long long from = strtoull(line, &end, 16);

		if (*end == '-') {
			unsigned long long to = strtoull(end + 1, NULL, 16);

			inside = (uintptr_t)address >= from && (uintptr_t)address < to;
		}
		if (inside && strncmp(line, "VmFlags:", 8) == 0 && strstr(line, flag))
			has = true;
	}
	assert_int_equal(fclose(maps), 0);
	return has;
}

static void test_the_vault_stays_out_of_core_dumps(void **state)
{
	struct place *p = *state;
	struct vault *v = NULL;
	struct config_error why;
	const char *secret;

	assert_int_equal(vault_new(&v, 1), 0);
	assert_int_equal(vault_read(v, &secret, "server_secret_file", p->secret, &why), 0);
	assert_string_equal(secret, CANARY);
	assert_true(mapping_has(secret, " dd"));
	assert_int_equal(vault_read(v, &secret, "server_secret_file", p->secret, &why), -ENOSPC);
	vault_free(v);
	vault_free(NULL);
}

static char random_byte(uint64_t *x)
{
	static const char bytes[] = "[]=:;# \t\r\n\n\n\0\xef\xbb\xbf"
				    "0159mskKiBapp\"\\/,.-\xff";

	return bytes[random_next(x) % sizeof(bytes)];
}

/* Changes, removes, repeats or inserts some bytes of @b, in place. */
static void mutate(struct buffer *b, uint64_t *x)
{
	size_t at = random_next(x) % b->len;
	size_t n = 1 + random_next(x) % min_u64(300, b->len - at);
	struct buffer tail = { 0 };

	switch (random_next(x) % 4) {
	case 0:
		b->data[at] = random_byte(x);
		return;
	case 1:
		memmove(b->data + at, b->data + at + n, b->len - at - n);
		b->len = max_u64(b->len - n, 1);
		return;
	default:
		break;
	}

	buffer_append(&tail, b->data + at, b->len - at);
	b->len = at;
	if (random_next(x) % 2)
		buffer_append(b, tail.data, n);
	else
		buffer_append(b, (char[]){ random_byte(x), random_byte(x) }, 2);
	buffer_append(b, tail.data, tail.len);
	buffer_deinit(&tail);
}

/* The sample with every key given and a secret that is there. */
static void make_seed_text(const struct place *p, struct buffer *out)
{
	struct buffer sample = { 0 };

	config_sample(&sample);
	for (const char *c = sample.data; *c; c++) {
		bool begins = c == sample.data || c[-1] == '\n';

		if (begins && c[0] == '#' && c[1] >= 'a')
			continue;
		if (strncmp(c, "/etc/", 5) == 0) {
			buffer_puts(out, p->secret);
			c += strcspn(c, "\n") - 1;
			continue;
		}
		buffer_append(out, c, 1);
	}
	buffer_deinit(&sample);
}

/* What is accepted must dump to something that is accepted too, and is the same. */
static void assert_dump_is_valid(const struct config *c)
{
	struct buffer dumps[2] = { { 0 } };
	struct buffer errors = { 0 };
	struct config *again = NULL;
	struct vault *v = NULL;
	FILE *file;

	config_dump(c, &dumps[0]);
	file = fmemopen(dumps[0].data, dumps[0].len, "r");
	assert_non_null(file);
	if (configfile_read(&again, &v, file, "dump", &errors) != 0)
		fail_msg("%s%s", dumps[0].data, errors.data);
	config_dump(again, &dumps[1]);
	assert_string_equal(dumps[1].data, dumps[0].data);
	assert_int_equal(fclose(file), 0);
	config_free(again);
	vault_free(v);
	buffer_deinit(&dumps[0]);
	buffer_deinit(&dumps[1]);
	buffer_deinit(&errors);
}

static void read_mutant(struct buffer *text, unsigned *n_valid)
{
	struct buffer errors = { 0 };
	struct config *c = NULL;
	struct vault *v = NULL;
	FILE *file = fmemopen(text->data, text->len, "r");
	int r;

	assert_non_null(file);
	r = configfile_read(&c, &v, file, "mutant", &errors);
	assert_true(r == 0 || r == CONFIGFILE_E_INVALID);
	assert_true((r == 0) == (errors.len == 0));
	assert_true((r == 0) == (c && v));
	if (r == 0) {
		++*n_valid;
		assert_dump_is_valid(c);
	}
	assert_int_equal(fclose(file), 0);
	config_free(c);
	vault_free(v);
	buffer_deinit(&errors);
}

static void test_no_file_whatever_is_in_it_does_harm(void **state)
{
	uint64_t seed = random_seed();
	struct buffer original = { 0 };
	unsigned n_valid = 0;

	make_seed_text(*state, &original);
	for (int i = 0; i < 1000; i++) {
		struct buffer text = { 0 };

		buffer_append(&text, original.data, original.len);
		for (uint64_t n = random_next(&seed) % 16; n > 0; n--)
			mutate(&text, &seed);
		read_mutant(&text, &n_valid);
		buffer_deinit(&text);
	}
	/* Those left alone, and those changed within comments. */
	assert_true(n_valid > 50);
	buffer_deinit(&original);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_a_valid_file_comes_with_its_secrets),
		TEST(test_all_findings_come_at_once_in_order),
		TEST(test_what_inih_would_misread_is_refused),
		TEST(test_line_ends_and_marks_of_other_systems_are_taken),
		TEST(test_nul_bytes_are_refused),
		TEST(test_a_line_of_197_bytes_is_read_whole),
		TEST(test_what_is_no_file_is_not_an_empty_one),
		TEST(test_a_file_that_breaks_off_is_not_a_short_one),
		TEST(test_a_url_is_https_or_stays_on_this_host),
		TEST(test_what_libcurl_cannot_parse_is_no_url),
		TEST(test_a_proxy_is_a_host_and_a_port),
		TEST(test_a_ca_file_can_be_read),
		TEST(test_names_become_numbers),
		TEST(test_names_that_do_not_exist_are_named),
		TEST(test_a_secret_is_one_line),
		TEST(test_a_secret_that_others_may_read_is_refused),
		TEST(test_a_secret_belongs_to_us_or_root),
		TEST(test_a_secret_is_a_regular_file),
		TEST(test_a_credential_is_what_systemd_passes),
		TEST(test_a_redis_is_a_socket_or_a_host_and_a_port),
		TEST(test_a_password_is_kept_as_a_secret),
		TEST(test_a_host_has_a_name_among_those_that_share),
		TEST(test_the_vault_stays_out_of_core_dumps),
		TEST(test_no_file_whatever_is_in_it_does_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
