/* SPDX-License-Identifier: MIT */
/*
 * A live view, drawn with the few escape sequences that every terminal knows. What has
 * happened in a second is the difference of two answers, by the daemon's own clock, so a
 * slow terminal or a suspended view does not distort it.
 *
 * The terminal is put back as it was however the view ends. Where there is none, or it is
 * a dumb one, one view is printed as plain text.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "core/buffer.h"
#include "core/text.h"
#include "ctl/link.h"
#include "ctl/options.h"
#include "ctl/print.h"

#define ENTER "\033[?1049h\033[?25l" /* another screen, no cursor */
#define LEAVE "\033[?25h\033[?1049l"

/* Without a terminal. */
#define WIDTH  120
#define HEIGHT SIZE_MAX

/* One AppID, as of one answer; what has "_s" is of a second since the answer before. */
struct row {
	double app_id;
	char state[16];
	double n;
	double used_s;
	double queued;
	double in_flight;
	double oldest_s;
	double sent_s;
	double dropped_s;
	double failed_s;
	double p50;
	double p99;
	/* Since the daemon's start. */
	double attempts;
	double sent;
	double dropped;
	double failed;
};

struct view {
	double uptime_ms;
	double started_at;
	struct row *rows;
	size_t n;
};

enum order {
	ORDER_APP,
	ORDER_USED,
	ORDER_QUEUED,
	ORDER_DROPPED,
	ORDER_FAILED,
	ORDER_WAIT,
	_ORDER_N
};

static const struct {
	const char *title;
	int width;
	int decimals;
	size_t offset;
} columns[] = {
	{ "N", 6, 0, offsetof(struct row, n) },
	{ "USED/s", 8, 1, offsetof(struct row, used_s) },
	{ "QUEUED", 8, 0, offsetof(struct row, queued) },
	{ "FLIGHT", 7, 0, offsetof(struct row, in_flight) },
	{ "OLDEST s", 9, 1, offsetof(struct row, oldest_s) },
	{ "SENT/s", 8, 1, offsetof(struct row, sent_s) },
	{ "DROPPED/s", 10, 1, offsetof(struct row, dropped_s) },
	{ "FAILED/s", 9, 1, offsetof(struct row, failed_s) },
	{ "WAIT50 ms", 10, 0, offsetof(struct row, p50) },
	{ "WAIT99 ms", 10, 0, offsetof(struct row, p99) },
};

/* The first one falls, all others are largest first. */
static const struct {
	const char *name;
	size_t offset;
} orders[] = {
	[ORDER_APP] = { "AppID", offsetof(struct row, app_id) },
	[ORDER_USED] = { "use", offsetof(struct row, used_s) },
	[ORDER_QUEUED] = { "queue", offsetof(struct row, queued) },
	[ORDER_DROPPED] = { "drops", offsetof(struct row, dropped_s) },
	[ORDER_FAILED] = { "failures", offsetof(struct row, failed_s) },
	[ORDER_WAIT] = { "oldest", offsetof(struct row, oldest_s) },
};
static_assert(ARRAY_SIZE(orders) == _ORDER_N, "each order is a column");

struct top {
	const struct options *o;
	int fd; /* of the daemon; -1: to be connected */
	cJSON *answer;
	struct buffer why; /* why there is none */
	struct view now;
	enum order order;
	bool reversed;
	bool live;
	bool colour;
	bool input_ended;
	struct termios before;
	bool raw;         /* the terminal has been changed */
	sigset_t waiting; /* the signals that are blocked while we wait */
};

static volatile sig_atomic_t told_to_end;

/* From answers to rows. */

static double value_at(const struct row *row, size_t offset)
{
	return *(const double *)(const void *)((const char *)row + offset);
}

static int compare_apps(const void *x, const void *y)
{
	const struct row *a = x;
	const struct row *b = y;

	return (a->app_id > b->app_id) - (a->app_id < b->app_id);
}

static void fill_row(struct row *row, const cJSON *app)
{
	const cJSON *fates = cJSON_GetObjectItemCaseSensitive(app, "fates");
	const cJSON *waited = cJSON_GetObjectItemCaseSensitive(app, "waited_ms");

	*row = (struct row){
		.app_id = print_number(app, "AppId"),
		.n = print_number(app, "limit"),
		.queued = print_number(app, "queued") + print_number(app, "waiting"),
		.in_flight = print_number(app, "in_flight"),
		.oldest_s = print_number(app, "oldest_ms") / 1000,
		.p50 = print_number(waited, "p50"),
		.p99 = print_number(waited, "p99"),
		.attempts = print_number(app, "attempts"),
		.sent = print_number(fates, "sent"),
		.dropped = print_number(fates, "dropped"),
		.failed = print_number(fates, "failed"),
	};
	snprintf(row->state, sizeof(row->state), "%s", print_text(app, "state"));
}

/* An AppID that came back counts from 0 again. */
static double per_second(double now, double before, double seconds)
{
	return seconds > 0 && now >= before ? (now - before) / seconds : 0;
}

static void compare_with(struct view *now, const struct view *before)
{
	double seconds = (now->uptime_ms - before->uptime_ms) / 1000;

	for (size_t i = 0; i < now->n && now->started_at == before->started_at; i++) {
		struct row *row = &now->rows[i];
		const struct row *old = before->n == 0 ? NULL
						       : bsearch(row, before->rows, before->n,
								 sizeof(*row), compare_apps);

		if (!old)
			continue;
		row->used_s = per_second(row->attempts, old->attempts, seconds);
		row->sent_s = per_second(row->sent, old->sent, seconds);
		row->dropped_s = per_second(row->dropped, old->dropped, seconds);
		row->failed_s = per_second(row->failed, old->failed, seconds);
	}
}

/* Leaves the rows sorted by AppID. */
static bool take_view(struct top *t)
{
	const cJSON *apps = cJSON_GetObjectItemCaseSensitive(t->answer, "apps");
	struct view before = t->now;
	const cJSON *app;
	size_t n = (size_t)cJSON_GetArraySize(apps);

	t->now = (struct view){
		.uptime_ms = print_number(t->answer, "uptime_ms"),
		.started_at = print_number(t->answer, "started_at"),
		.rows = calloc(n + 1, sizeof(*t->now.rows)),
	};
	if (t->now.rows) {
		cJSON_ArrayForEach(app, apps)
		{
			fill_row(&t->now.rows[t->now.n++], app);
		}
		qsort(t->now.rows, t->now.n, sizeof(*t->now.rows), compare_apps);
		compare_with(&t->now, &before);
	}
	free(before.rows);
	return t->now.rows != NULL;
}

/* From rows to lines. */

static void put_colour(const struct top *t, struct buffer *out, const char *code)
{
	if (t->colour)
		buffer_printf(out, "\033[%sm", code);
}

static const char *colour_of(const struct row *row)
{
	if (strcmp(row->state, "halted") == 0)
		return "31";
	return strcmp(row->state, "running") == 0 ? "0" : "33";
}

static void put_head(const struct top *t, struct buffer *lines)
{
	const cJSON *u = cJSON_GetObjectItemCaseSensitive(t->answer, "upstream");
	const cJSON *config = cJSON_GetObjectItemCaseSensitive(t->answer, "config");
	const char *shared = print_shared(t->answer);

	buffer_printf(lines, "barraged %s  pid %.0f  %s for ", print_text(t->answer, "version"),
		      print_number(t->answer, "pid"), print_text(t->answer, "phase"));
	print_duration(lines, t->now.uptime_ms);
	buffer_printf(lines, "  writers %.0f  queue %.1f/%.0f MiB%s%s\n",
		      print_number(t->answer, "clients"),
		      print_number(t->answer, "queue_bytes") / 1048576,
		      print_number(t->answer, "queue_bytes_max") / 1048576,
		      print_flag(config, "last_reload_ok") ? "" : "  LAST RELOAD REFUSED",
		      print_flag(t->answer, "ledger_consistent") ? "" : "  LEDGER DOES NOT ADD UP");
	buffer_puts(lines, "API ");
	print_foreign(lines, print_text(u, "host"));
	buffer_printf(lines, " %s  in flight %.0f/%.0f  credit %.1f ms%s%s\n",
		      strcmp(print_text(u, "state"), "up") == 0 ? "up" : "UNREACHABLE",
		      print_number(u, "in_flight"), print_number(u, "max_in_flight"),
		      print_number(u, "credit_us") / 1000, shared ? "  shared " : "",
		      shared ? shared : "");
	buffer_puts(lines, "all  ");
	print_fates(lines, t->answer);
	buffer_puts(lines, "\n\n");
}

/* As many columns as there is room for. */
static size_t columns_in(size_t width)
{
	size_t used = 10 + 1 + 8;
	size_t n = 0;

	while (n < ARRAY_SIZE(columns) && used + (size_t)columns[n].width + 1 <= width)
		used += (size_t)columns[n++].width + 1;
	return n;
}

static void put_titles(const struct top *t, struct buffer *lines, size_t n)
{
	put_colour(t, lines, "7");
	buffer_printf(lines, "%-10s %-8s", "APPID", "STATE");
	for (size_t i = 0; i < n; i++)
		buffer_printf(lines, " %*s", columns[i].width, columns[i].title);
	put_colour(t, lines, "0");
	buffer_puts(lines, "\n");
}

static void put_row(const struct top *t, struct buffer *lines, const struct row *row, size_t n)
{
	put_colour(t, lines, colour_of(row));
	buffer_printf(lines, "%-10.0f %-8s", row->app_id, row->state);
	for (size_t i = 0; i < n; i++)
		buffer_printf(lines, " %*.*f", columns[i].width, columns[i].decimals,
			      value_at(row, columns[i].offset));
	put_colour(t, lines, "0");
	buffer_puts(lines, "\n");
}

static int compare_rows(const void *x, const void *y, void *arg)
{
	const struct top *t = arg;
	double a = value_at(x, orders[t->order].offset);
	double b = value_at(y, orders[t->order].offset);
	int falls = t->order == ORDER_APP ? 1 : -1;

	if (a == b)
		return compare_apps(x, y);
	return (a > b ? falls : -falls) * (t->reversed ? -1 : 1);
}

static void put_rows(struct top *t, struct buffer *lines, size_t width, size_t most)
{
	size_t n = columns_in(width);
	struct row *rows = calloc(t->now.n + 1, sizeof(*rows));

	put_titles(t, lines, n);
	if (!rows)
		return;
	memcpy(rows, t->now.rows, t->now.n * sizeof(*rows));
	qsort_r(rows, t->now.n, sizeof(*rows), compare_rows, t);
	for (size_t i = 0; i < t->now.n && i < most; i++)
		put_row(t, lines, &rows[i], n);
	if (t->now.n > most)
		buffer_printf(lines, "… and %zu more\n", t->now.n - most);
	free(rows);
}

/* Cuts every line to the width, and all to the height, lest it scrolls; and ends each so
 * that nothing older shines through. */
static void put_on_screen(struct buffer *out, const struct buffer *lines, size_t width,
			  size_t height)
{
	const char *at = lines->data ? lines->data : "";

	buffer_puts(out, "\033[H");
	for (size_t left = height; *at && left > 0; left--) {
		size_t n = strcspn(at, "\n");
		size_t shown = 0;

		for (size_t i = 0; i < n;) {
			size_t length = utf8_length(at + i, n - i);
			size_t escape = at[i] == '\033' ? strcspn(at + i, "m") + 1 : 0;

			length = escape ? escape : length > 0 ? length : 1;
			if (escape || shown < width)
				buffer_append(out, at + i, length);
			shown += !escape;
			i += length;
		}
		at += n + (at[n] == '\n');
		buffer_puts(out, *at && left > 1 ? "\033[K\r\n" : "\033[K");
	}
	buffer_puts(out, "\033[J");
}

static void screen_size(size_t *width, size_t *height)
{
	struct winsize size;

	*width = 80;
	*height = 24;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0 || size.ws_row == 0)
		return;
	*width = size.ws_col;
	*height = size.ws_row;
}

static int draw(struct top *t)
{
	_cleanup_(buffer_deinit) struct buffer lines = { 0 };
	_cleanup_(buffer_deinit) struct buffer out = { 0 };
	size_t width = WIDTH;
	size_t height = HEIGHT;
	const size_t others = 8; /* lines beside the AppIDs' */

	if (t->live)
		screen_size(&width, &height);
	if (t->answer && t->now.rows) {
		put_head(t, &lines);
		put_rows(t, &lines, width, height > others ? height - others : 1);
	} else {
		buffer_printf(&lines, "%s\n", t->why.data ? t->why.data : "out of memory");
	}
	if (!t->live)
		return print_out(&lines, stdout);
	buffer_printf(&lines, "\ns: order (%s%s)  r: reverse  q: quit", orders[t->order].name,
		      t->reversed ? ", reversed" : "");
	put_on_screen(&out, &lines, width, height);
	return print_out(&out, stdout);
}

/* The terminal. */

static void on_signal(int number)
{
	if (number != SIGWINCH) /* which only ends the wait, so that all is drawn anew */
		told_to_end = 1;
}

/* They come only while we wait, so none is missed. */
static void catch_signals(struct top *t)
{
	static const int numbers[] = { SIGWINCH, SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	struct sigaction action = { .sa_handler = on_signal };
	sigset_t blocked;

	sigemptyset(&blocked);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		sigaddset(&blocked, numbers[i]);
		sigaction(numbers[i], &action, NULL);
	}
	sigprocmask(SIG_BLOCK, &blocked, &t->waiting);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		sigdelset(&t->waiting, numbers[i]);
}

static void enter(struct top *t)
{
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, &t->before) == 0) {
		raw = t->before;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		/* What ppoll() saw may be gone: a Ctrl-C throws away what was typed before it. */
		raw.c_cc[VMIN] = 0;
		raw.c_cc[VTIME] = 0;
		raw.c_cc[VSUSP] = _POSIX_VDISABLE; /* stopped, it would leave the screen as it is */
		t->raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
	}
	fputs(ENTER, stdout);
}

static void leave(struct top *t)
{
	fputs(LEAVE, stdout);
	(void)fflush(stdout);
	if (t->raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &t->before);
}

static void on_key(struct top *t, char key)
{
	if (key == 'q' || key == 'Q')
		told_to_end = 1;
	else if (key == 's')
		t->order = (t->order + 1) % _ORDER_N;
	else if (key == 'r')
		t->reversed = !t->reversed;
}

static void read_keys(struct top *t, short events)
{
	char keys[32];
	ssize_t n = read(STDIN_FILENO, keys, sizeof(keys));
	bool ended = n == 0 && (!t->raw || events & POLLHUP);

	if (ended || (n < 0 && errno != EINTR && errno != EAGAIN))
		t->input_ended = true;
	for (ssize_t i = 0; i < n; i++)
		on_key(t, keys[i]);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Until @until, or something is to be read from @fd (-1: nothing), a key was pressed or a
 * signal has come. Returns whether it is @fd. */
static bool wait(struct top *t, int fd, uint64_t until)
{
	uint64_t now = now_ms();
	uint64_t ms = until > now ? until - now : 0;
	struct timespec timeout = { .tv_sec = (time_t)(ms / 1000),
				    .tv_nsec = (long)(ms % 1000) * 1000000 };
	struct pollfd p[] = {
		{ .fd = t->input_ended ? -1 : STDIN_FILENO, .events = POLLIN },
		{ .fd = fd, .events = POLLIN },
	};

	if (ppoll(p, ARRAY_SIZE(p), &timeout, &t->waiting) <= 0)
		return false;
	if (p[0].revents)
		read_keys(t, p[0].revents);
	return p[1].revents != 0;
}

/* The daemon. */

/* A daemon that hangs must not keep anybody from leaving the view. */
static int receive(struct top *t, struct buffer *line)
{
	uint64_t until = now_ms() + (uint64_t)LINK_PATIENCE_SECONDS * 1000;

	while (t->live && !wait(t, t->fd, until)) {
		if (told_to_end)
			return -1;
		if (now_ms() >= until) {
			link_say_late(&t->why);
			return -1;
		}
	}
	return link_receive(t->fd, line, &t->answer, &t->why);
}

static bool ask(struct top *t)
{
	_cleanup_(buffer_deinit) struct buffer line = { 0 };
	_cleanup_(cjson_deletep) cJSON *request = cJSON_CreateObject();
	int r = -1;

	cJSON_Delete(t->answer);
	t->answer = NULL;
	buffer_deinit(&t->why);
	if (t->fd < 0)
		t->fd = link_connect(t->o->control, &t->why);
	if (t->fd >= 0 && cJSON_AddStringToObject(request, "op", "status"))
		r = link_send(t->fd, request, &t->why);
	if (r == 0)
		r = receive(t, &line);
	if (r == 0 && !print_flag(t->answer, "ok")) {
		print_foreign(&t->why, print_text(t->answer, "error"));
		cJSON_Delete(t->answer);
		t->answer = NULL;
		r = -1;
	}
	if (r < 0 && t->fd >= 0) {
		close(t->fd);
		t->fd = -1;
	}
	return r == 0 && take_view(t);
}

/* The whole. */

static int watch(struct top *t)
{
	int status = CTL_OK;

	catch_signals(t);
	enter(t);
	while (!told_to_end && status == CTL_OK) {
		uint64_t until = now_ms() + t->o->interval;

		(void)ask(t);
		while (!told_to_end && status == CTL_OK) {
			status = draw(t) == EXIT_SUCCESS ? CTL_OK : CTL_REFUSED;
			(void)wait(t, -1, until);
			if (now_ms() >= until)
				break;
		}
	}
	leave(t);
	return status;
}

/* Two answers: what happens in a second is in neither alone. */
static int print_once(struct top *t)
{
	struct timespec pause = { .tv_sec = (time_t)(t->o->interval / 1000) };

	if (ask(t)) {
		nanosleep(&pause, NULL);
		if (ask(t))
			return draw(t) == EXIT_SUCCESS ? CTL_OK : CTL_REFUSED;
	}
	fprintf(stderr, "barragectl: %s\n", t->why.data ? t->why.data : "out of memory");
	return CTL_UNREACHABLE;
}

static bool is_able(void)
{
	const char *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

int ctl_top(const struct options *o)
{
	struct top t = { .o = o, .fd = -1, .order = ORDER_USED };
	const char *no_colour = getenv("NO_COLOR");
	int status;

	t.live = !o->once && is_able();
	t.colour = t.live && !(no_colour && *no_colour);
	status = t.live ? watch(&t) : print_once(&t);
	cJSON_Delete(t.answer);
	buffer_deinit(&t.why);
	free(t.now.rows);
	if (t.fd >= 0)
		close(t.fd);
	return status;
}
