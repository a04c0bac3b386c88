/* SPDX-License-Identifier: MIT */
/*
 * Sending what somebody has typed, or a file of lines. Who sends a file wants all of it to
 * arrive, and a daemon that is given all at once has to drop what it cannot send in time;
 * so only so many lines are under way at a time. The default suits the slowest AppID: 20
 * are 2 s of a test environment's 10 a second, and messages are worth sending for 3 s.
 *
 * A line that has no id is given its number, so that every line is answered once. How
 * lines are to be read is the daemon's to say: those that are not JSON are passed on as
 * they are, and it says what is wrong with them.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "core/buffer.h"
#include "core/line.h"
#include "core/text.h"
#include "ctl/link.h"
#include "ctl/options.h"
#include "ctl/print.h"

#define PROGRESS_MS 200
#define REPLY_MOST  (1 << 20) /* far more than any reply has */
#define REASONS     32        /* different ones to tell in the summary */

struct sending {
	const struct options *o;
	int fd;
	bool single;          /* one message by options */
	bool input_ended;     /* no more lines will come */
	bool half_closed;     /* and the daemon knows it */
	int input_error;      /* why it has ended early; an errno */
	bool shows;           /* progress, on a terminal */
	struct buffer input;  /* read, and not yet looked at */
	size_t looked;        /* of it */
	struct buffer output; /* not yet written */
	struct line_reader replies;
	uint64_t number;  /* of the last line */
	uint64_t n_lines; /* of those that are answered */
	uint64_t n_replies;
	uint64_t n_sent;
	struct {
		char text[64];
		uint64_t n;
	} reasons[REASONS];
	uint64_t shown_at; /* ms */
};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Replies. */

static void count_reason(struct sending *s, const cJSON *reply)
{
	char text[64];
	size_t i = 0;

	snprintf(text, sizeof(text), "%s%s%s", print_text(reply, "outcome"),
		 *print_text(reply, "reason") ? "/" : "", print_text(reply, "reason"));
	while (i < REASONS - 1 && s->reasons[i].n > 0 && strcmp(s->reasons[i].text, text) != 0)
		i++;
	if (s->reasons[i].n++ == 0)
		memcpy(s->reasons[i].text, text, sizeof(text));
}

static void put_member(struct buffer *out, const char *before, const cJSON *reply, const char *name)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(reply, name);

	if (cJSON_IsNumber(m)) {
		buffer_printf(out, "%s%.0f", before, m->valuedouble);
	} else if (cJSON_IsString(m)) {
		buffer_puts(out, before);
		print_foreign(out, m->valuestring);
	}
}

static void put_reply(struct buffer *out, const cJSON *reply)
{
	put_member(out, "", reply, "outcome");
	put_member(out, "/", reply, "reason");
	put_member(out, ": ", reply, "error");
	put_member(out, " Code=", reply, "Code");
	put_member(out, " Message=", reply, "Message");
	put_member(out, " status=", reply, "status");
	put_member(out, " MessageId=", reply, "MessageId");
	put_member(out, " RequestId=", reply, "RequestId");
	put_member(out, " waited_ms=", reply, "waited_ms");
	put_member(out, " took_ms=", reply, "took_ms");
}

/* Of many lines only those are told that were not sent. */
static void tell(struct sending *s, const cJSON *reply, const char *line, bool sent)
{
	_cleanup_(buffer_deinit) struct buffer text = { 0 };

	if (s->o->json) {
		printf("%s\n", line);
		return;
	}
	if (s->shows && !sent)
		fputs("\r\033[K", stderr);
	if (s->single) {
		put_reply(&text, reply);
	} else if (!sent) {
		if (cJSON_HasObjectItem(reply, "line"))
			put_member(&text, "line ", reply, "line");
		else
			put_member(&text, "id ", reply, "id");
		buffer_puts(&text, ": ");
		put_reply(&text, reply);
	}
	if (text.data)
		fprintf(s->single && sent ? stdout : stderr, "%s\n", text.data);
}

static void on_reply(void *arg, char *line, size_t n, uint64_t number)
{
	struct sending *s = arg;
	cJSON *reply = line ? cJSON_Parse(line) : NULL;
	bool sent = strcmp(print_text(reply, "outcome"), "sent") == 0;

	s->n_replies++;
	s->n_sent += sent;
	count_reason(s, reply);
	tell(s, reply, line ? line : "", sent);
	cJSON_Delete(reply);
}

/* Lines. */

static bool is_blank(const char *line, size_t n)
{
	return strspn(line, " \t\r") >= n;
}

/* Gives an object without an id its number as id. */
static void put_line(struct sending *s, const char *line, size_t n)
{
	cJSON *tree = strlen(line) == n ? cJSON_Parse(line) : NULL;
	const char *brace = strchr(line, '{');

	if (tree && cJSON_IsObject(tree) && brace &&
	    !cJSON_GetObjectItemCaseSensitive(tree, "id")) {
		buffer_append(&s->output, line, (size_t)(brace - line));
		buffer_printf(&s->output, "{\"id\":%" PRIu64 "%s%s\n", s->number,
			      tree->child ? "," : "", brace + 1);
	} else {
		buffer_append(&s->output, line, n);
		buffer_puts(&s->output, "\n");
	}
	cJSON_Delete(tree);
}

/* The next line of the input, with a NUL over its end; NULL if there is none yet. */
static char *next_line(struct sending *s, size_t *n)
{
	size_t left = s->input.len - s->looked;
	char *line;
	char *newline;

	if (left == 0)
		return NULL;
	line = s->input.data + s->looked;
	newline = memchr(line, '\n', left);
	if (!newline && !s->input_ended)
		return NULL;
	*n = newline ? (size_t)(newline - line) : left;
	line[*n] = '\0';
	s->looked += newline ? *n + 1 : *n;
	return line;
}

/* Hands on as many lines as may be under way. */
static void feed(struct sending *s)
{
	size_t n;
	char *line;

	while (s->n_lines < s->n_replies + s->o->window && (line = next_line(s, &n))) {
		s->number++;
		if (is_blank(line, n)) {
			buffer_puts(&s->output, "\n"); /* the daemon counts lines too */
			continue;
		}
		s->n_lines++;
		put_line(s, line, n);
	}
	buffer_consume(&s->input, s->looked);
	s->looked = 0;
}

/* One message, from the options. */

static bool add_number(cJSON *message, const char *name, const char *text, uint64_t most)
{
	uint64_t n;

	if (!text)
		return true;
	if (!parse_u64(text, strlen(text), most, &n)) {
		fprintf(stderr, "barragectl: \"%s\" is not a number for %s\n", text, name);
		return false;
	}
	return cJSON_AddNumberToObject(message, name, (double)n) != NULL;
}

static bool add_text(cJSON *message, const char *name, const char *text)
{
	return !text || cJSON_AddStringToObject(message, name, text) != NULL;
}

static int compose(struct sending *s)
{
	const struct options *o = s->o;
	_cleanup_(cjson_deletep) cJSON *message = cJSON_CreateObject();
	char *text;

	if (!o->room || !o->user || !o->content) {
		fputs("barragectl: a message needs --room, --user and --content; see --help\n",
		      stderr);
		return EX_USAGE;
	}
	if (!add_number(message, "AppId", o->app, UINT32_MAX) ||
	    !add_number(message, "MessageCategory", o->category, 2) ||
	    !add_number(message, "ttl_ms", o->ttl, 60000) ||
	    !add_text(message, "RoomId", o->room) || !add_text(message, "UserId", o->user) ||
	    !add_text(message, "UserName", o->name) ||
	    !add_text(message, "MessageContent", o->content))
		return EX_USAGE;
	text = cJSON_PrintUnformatted(message);
	if (text)
		buffer_puts(&s->input, text);
	cJSON_free(text);
	return s->input.data ? 0 : EX_OSERR;
}

/* Progress. */

static void show_progress(struct sending *s)
{
	uint64_t now = now_ms();

	if (!s->shows || now - s->shown_at < PROGRESS_MS)
		return;
	s->shown_at = now;
	fprintf(stderr, "\r\033[K%" PRIu64 " lines, %" PRIu64 " sent, %" PRIu64 " not", s->n_lines,
		s->n_sent, s->n_replies - s->n_sent);
}

/* Of lines that nobody has counted, since they were not read or not handed on. Returns
 * whether there may be any. */
static bool tell_of_the_rest(const struct sending *s)
{
	if (s->input_error)
		fprintf(stderr, "barragectl: cannot read standard input: %s\n",
			strerror(s->input_error));
	if (s->half_closed || s->single)
		return s->input_error != 0;
	fprintf(stderr, "barragectl: %s; nothing after line %" PRIu64 " was sent\n",
		s->input.failed || s->output.failed ? "out of memory"
						    : "barraged closed the connection",
		s->number);
	return true;
}

static int summarize(struct sending *s)
{
	uint64_t unanswered = s->n_lines > s->n_replies ? s->n_lines - s->n_replies : 0;
	bool all = s->n_sent == s->n_lines && s->n_replies == s->n_lines;
	bool is_cut;

	if (s->shows)
		fputs("\r\033[K", stderr);
	if (!s->single && !s->o->json) {
		printf("%" PRIu64 " lines", s->n_lines);
		for (size_t i = 0; i < REASONS && s->reasons[i].n > 0; i++)
			printf("%s %" PRIu64 " %s", i > 0 ? "," : ":", s->reasons[i].n,
			       s->reasons[i].text);
		printf("\n");
	}
	if (unanswered > 0)
		fprintf(stderr,
			"barragectl: barraged closed the connection; unknown what became of "
			"%" PRIu64 " line%s\n",
			unanswered, unanswered == 1 ? "" : "s");
	is_cut = tell_of_the_rest(s);
	if (fflush(stdout) != 0 || ferror(stdout))
		return CTL_REFUSED;
	return all && !is_cut ? CTL_OK : CTL_REFUSED;
}

/* The loop. */

/* Returns false at the connection's end. */
static bool receive(struct sending *s)
{
	char chunk[16 * 1024 + 1];
	ssize_t n = recv(s->fd, chunk, sizeof(chunk) - 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0)
		return false;
	(void)line_feed(&s->replies, chunk, (size_t)n, REPLY_MOST, on_reply, s);
	(void)fflush(stdout); /* a script may wait for them; an error is told in the end */
	return true;
}

static void transmit(struct sending *s)
{
	ssize_t n = send(s->fd, s->output.data, s->output.len, MSG_DONTWAIT | MSG_NOSIGNAL);

	/* Whatever is wrong with the connection is seen when reading from it. */
	if (n > 0)
		buffer_consume(&s->output, (size_t)n);
}

static void read_input(struct sending *s)
{
	char chunk[64 * 1024];
	ssize_t n = read(STDIN_FILENO, chunk, sizeof(chunk));

	if (n > 0)
		buffer_append(&s->input, chunk, (size_t)n);
	else if (n == 0 || (errno != EINTR && errno != EAGAIN))
		s->input_ended = true;
	if (n < 0 && s->input_ended)
		s->input_error = errno;
}

static bool wants_input(const struct sending *s)
{
	bool has_line = s->input.len > 0 && memchr(s->input.data, '\n', s->input.len);

	return !s->input_ended && !has_line;
}

static void end_if_done(struct sending *s)
{
	bool done = s->input_ended && s->input.len == 0 && s->output.len == 0;

	if (done && !s->half_closed)
		s->half_closed = shutdown(s->fd, SHUT_WR) == 0;
}

/* One round. Returns false at the connection's end. */
static bool step(struct sending *s)
{
	struct pollfd fds[] = {
		{ .fd = s->fd, .events = POLLIN },
		{ .fd = wants_input(s) ? STDIN_FILENO : -1, .events = POLLIN },
	};

	if (s->output.len > 0)
		fds[0].events |= POLLOUT;
	if (poll(fds, ARRAY_SIZE(fds), s->shows ? PROGRESS_MS : -1) < 0 && errno != EINTR)
		return false;
	if (fds[1].revents)
		read_input(s);
	if (fds[0].revents & (POLLIN | POLLHUP | POLLERR) && !receive(s))
		return false;
	feed(s);
	if (s->output.len > 0)
		transmit(s);
	end_if_done(s);
	show_progress(s);
	return !s->input.failed && !s->output.failed;
}

int ctl_send(const struct options *o)
{
	_cleanup_(buffer_deinit) struct buffer why = { 0 };
	struct sending s = { .o = o, .fd = -1 };
	int status = 0;

	s.single = o->app || o->room || o->user || o->name || o->category || o->ttl || o->content;
	s.input_ended = s.single;
	s.shows = !s.single && !o->json && isatty(STDERR_FILENO);
	if (s.single)
		status = compose(&s);
	if (status == 0) {
		s.fd = link_connect(o->socket, &why);
		if (s.fd < 0) {
			fprintf(stderr, "barragectl: %s\n", why.data ? why.data : "out of memory");
			status = CTL_UNREACHABLE;
		}
	}
	if (status == 0) {
		feed(&s);
		while (step(&s))
			continue;
		status = summarize(&s);
	}
	if (s.fd >= 0)
		close(s.fd);
	line_deinit(&s.replies);
	buffer_deinit(&s.input);
	buffer_deinit(&s.output);
	return status;
}
