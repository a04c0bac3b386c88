/* SPDX-License-Identifier: MIT */
/* The commands that ask one thing and print the answer. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "build.h"
#include "core/text.h"
#include "ctl/link.h"
#include "ctl/options.h"
#include "ctl/print.h"

/* With --json the answer itself is printed, whatever it is. */
static int print_answer(const struct options *o, int status, struct buffer *line)
{
	if (!o->json || status == CTL_UNREACHABLE)
		return status;
	buffer_puts(line, "\n");
	return print_out(line, stdout) == EXIT_SUCCESS ? status : CTL_REFUSED;
}

static int ask_and_print(const struct options *o, const char *op, const char *name, cJSON *value)
{
	_cleanup_(cjson_deletep) cJSON *answer = NULL;
	_cleanup_(buffer_deinit) struct buffer line = { 0 };
	int status = link_command(o, op, name, value, &line, &answer);

	return print_answer(o, status, &line);
}

/* Reload. */

static void print_list(FILE *to, const char *prefix, const cJSON *answer, const char *name)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(answer, name);
	const cJSON *item;

	cJSON_ArrayForEach(item, list)
	{
		_cleanup_(buffer_deinit) struct buffer text = { 0 };

		if (!cJSON_IsString(item))
			continue;
		print_foreign(&text, item->valuestring);
		if (text.data)
			fprintf(to, "%s%s\n", prefix, text.data);
	}
}

int ctl_reload(const struct options *o)
{
	_cleanup_(cjson_deletep) cJSON *answer = NULL;
	_cleanup_(buffer_deinit) struct buffer line = { 0 };
	int status = link_command(o, "reload", NULL, NULL, &line, &answer);

	print_list(stderr, "", answer, "errors");
	print_list(stderr, "warning: ", answer, "warnings");
	return print_answer(o, status, &line);
}

/* Pause and resume. */

static int pause_or_resume(const struct options *o, const char *op)
{
	const char *text = o->arguments[0];
	uint64_t app_id;

	if (!parse_u64(text, strlen(text), UINT32_MAX, &app_id) || app_id == 0) {
		fprintf(stderr, "barragectl: \"%s\" is not an AppID: 1 to 4294967295\n", text);
		return EX_USAGE;
	}
	return ask_and_print(o, op, "AppId", cJSON_CreateNumber((double)app_id));
}

int ctl_pause(const struct options *o)
{
	return pause_or_resume(o, "pause");
}

int ctl_resume(const struct options *o)
{
	return pause_or_resume(o, "resume");
}

int ctl_log(const struct options *o)
{
	return ask_and_print(o, "log", "level", cJSON_CreateString(o->arguments[0]));
}

int ctl_metrics(const struct options *o)
{
	_cleanup_(cjson_deletep) cJSON *answer = NULL;
	_cleanup_(buffer_deinit) struct buffer line = { 0 };
	_cleanup_(buffer_deinit) struct buffer text = { 0 };
	const char *format = o->prometheus ? "prometheus" : "openmetrics";
	int status =
		link_command(o, "metrics", "format", cJSON_CreateString(format), &line, &answer);

	if (o->json || status != CTL_OK)
		return print_answer(o, status, &line);
	buffer_puts(&text, print_text(answer, "metrics"));
	return print_out(&text, stdout);
}

/* Status. */

static void put_time(struct buffer *out, double unix_seconds)
{
	time_t at = (time_t)unix_seconds;
	char text[64];
	struct tm tm;

	if (localtime_r(&at, &tm) && strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm) > 0)
		buffer_puts(out, text);
}

static void put_daemon(struct buffer *out, const cJSON *s)
{
	const cJSON *config = cJSON_GetObjectItemCaseSensitive(s, "config");

	buffer_printf(out, "barraged %s, pid %.0f, %s since ", print_text(s, "version"),
		      print_number(s, "pid"), print_text(s, "phase"));
	put_time(out, print_number(s, "started_at"));
	buffer_puts(out, ", for ");
	print_duration(out, print_number(s, "uptime_ms"));
	buffer_puts(out, "\nconfiguration  ");
	print_foreign(out, print_text(config, "path"));
	buffer_puts(out, ", in force since ");
	put_time(out, print_number(config, "in_force_since"));
	if (!print_flag(config, "last_reload_ok"))
		buffer_puts(out, "; THE LAST RELOAD WAS REFUSED");
	buffer_puts(out, "\n");
}

static void put_upstream(struct buffer *out, const cJSON *s)
{
	const cJSON *u = cJSON_GetObjectItemCaseSensitive(s, "upstream");

	buffer_puts(out, "API            ");
	print_foreign(out, print_text(u, "host"));
	buffer_printf(out,
		      " is %s; %.0f of %.0f in flight, %.0f connections opened, credit %.1f ms\n",
		      strcmp(print_text(u, "state"), "up") == 0 ? "up" : "UNREACHABLE",
		      print_number(u, "in_flight"), print_number(u, "max_in_flight"),
		      print_number(u, "connections_opened"), print_number(u, "credit_us") / 1000);
}

/* Names, with blanks between them. */
static void put_names(struct buffer *out, const cJSON *names)
{
	const char *separator = "";
	const cJSON *name;

	cJSON_ArrayForEach(name, names)
	{
		buffer_puts(out, separator);
		print_foreign(out, cJSON_IsString(name) ? name->valuestring : "?");
		separator = " ";
	}
}

static void put_shared(struct buffer *out, const cJSON *s)
{
	const cJSON *shared = cJSON_GetObjectItemCaseSensitive(s, "shared");
	const cJSON *members = cJSON_GetObjectItemCaseSensitive(shared, "members");
	const char *state = print_shared(s);

	if (!state)
		return;
	buffer_printf(out, "shared         %s, as ", state);
	print_foreign(out, print_text(shared, "name"));
	buffer_printf(out, " of %.0f hosts, by ", print_number(shared, "hosts"));
	print_foreign(out, print_text(shared, "redis"));
	buffer_puts(out, ", since ");
	put_time(out, print_number(shared, "since"));
	if (cJSON_GetArraySize(members) > 0) {
		buffer_puts(out, "\nshare kept for ");
		put_names(out, members);
	}
	if (*print_text(shared, "trouble")) {
		buffer_puts(out, "\nconnection     ");
		print_foreign(out, print_text(shared, "trouble"));
	}
	buffer_puts(out, "\n");
}

static void put_rest(struct buffer *out, const cJSON *s)
{
	buffer_printf(out, "writers        %.0f; replies discarded %.0f, lost %.0f%s\n",
		      print_number(s, "clients"), print_number(s, "replies_discarded"),
		      print_number(s, "replies_lost"),
		      print_flag(s, "socket_lost") ? "; THE SOCKET'S FILE IS GONE" : "");
	buffer_printf(out, "queue          %.1f of %.1f MiB\n",
		      print_number(s, "queue_bytes") / 1048576,
		      print_number(s, "queue_bytes_max") / 1048576);
	buffer_puts(out, "lines          ");
	print_fates(out, s);
	buffer_puts(out, print_flag(s, "ledger_consistent")
				 ? "\n"
				 : "; THEY DO NOT ADD UP: a bug in barraged\n");
}

static void put_app(struct buffer *out, const cJSON *app, bool shared)
{
	const cJSON *waited = cJSON_GetObjectItemCaseSensitive(app, "waited_ms");
	const cJSON *code = cJSON_GetObjectItemCaseSensitive(app, "halt_code");

	buffer_printf(out, "\nAppID %-10.0f %s", print_number(app, "AppId"),
		      print_text(app, "state"));
	if (code)
		buffer_printf(out, " by Code %.0f", code->valuedouble);
	buffer_printf(out, "; N %.0f of %.0f, %.0f tokens free", print_number(app, "limit"),
		      print_number(app, "rate"), print_number(app, "tokens"));
	if (shared)
		buffer_printf(out, "; %.0f here now, %.0f if cut off",
			      print_number(app, "allotment"), print_number(app, "share"));
	buffer_puts(out, "\n");
	buffer_printf(out,
		      "  now          %.0f queued, %.0f waiting for another try, %.0f in flight",
		      print_number(app, "queued"), print_number(app, "waiting"),
		      print_number(app, "in_flight"));
	if (print_number(app, "oldest_ms") > 0) {
		buffer_puts(out, "; the oldest for ");
		print_duration(out, print_number(app, "oldest_ms"));
	}
	buffer_printf(out, "\n  lines        %.0f: ", print_number(app, "lines"));
	print_fates(out, app);
	buffer_printf(out, "; %.0f retries\n  waits        median ", print_number(app, "retries"));
	print_duration(out, print_number(waited, "p50"));
	buffer_puts(out, ", 99th percentile ");
	print_duration(out, print_number(waited, "p99"));
	buffer_puts(out, "\n");
}

int ctl_status(const struct options *o)
{
	_cleanup_(cjson_deletep) cJSON *answer = NULL;
	_cleanup_(buffer_deinit) struct buffer line = { 0 };
	_cleanup_(buffer_deinit) struct buffer text = { 0 };
	int status = link_command(o, "status", NULL, NULL, &line, &answer);
	const cJSON *app;

	if (o->json || status != CTL_OK)
		return print_answer(o, status, &line);
	put_daemon(&text, answer);
	put_upstream(&text, answer);
	put_shared(&text, answer);
	put_rest(&text, answer);
	cJSON_ArrayForEach(app, cJSON_GetObjectItemCaseSensitive(answer, "apps"))
	{
		put_app(&text, app, print_shared(answer) != NULL);
	}
	return print_out(&text, stdout);
}

/* Check: barraged does that; from a build folder, the one that was built there. */

static void find_barraged(char *out, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", out, size - sizeof("barraged"));
	char *slash;

	out[n > 0 ? n : 0] = '\0';
	slash = strrchr(out, '/');
	if (slash)
		memcpy(slash + 1, "barraged", sizeof("barraged"));
	if (!slash || access(out, X_OK) < 0)
		snprintf(out, size, "%s", BARRAGED_PATH);
}

int ctl_check(const struct options *o)
{
	char path[4096];

	find_barraged(path, sizeof(path));
	execl(path, "barraged", "--check-config", "--config",
	      o->n_arguments > 0 ? o->arguments[0] : o->config, (char *)NULL);
	fprintf(stderr, "barragectl: %s cannot be run: %s\n", path, strerror(errno));
	return EX_OSERR;
}
