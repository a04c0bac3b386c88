/* SPDX-License-Identifier: MIT */
/*
 * One loop, one thread. Whatever happens (a line came, an answer came, a timer fired)
 * only changes the scheduler's state; once a turn, before the loop sleeps, turn() reads
 * the clock, lets the scheduler start what may be started, lets libcurl act on it, sends
 * the replies that have come together and arms the one timer for the scheduler's next
 * deadline.
 */
#include "edge/daemon.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <uv.h>

#include "build.h"
#include "core/buffer.h"
#include "core/config_key.h"
#include "core/metrics.h"
#include "core/scheduler.h"
#include "core/status.h"
#include "edge/checks.h"
#include "edge/clock.h"
#include "edge/configfile.h"
#include "edge/control.h"
#include "edge/entropy.h"
#include "edge/exposition.h"
#include "edge/intake.h"
#include "edge/listener.h"
#include "edge/log.h"
#include "edge/notify.h"
#include "edge/redis.h"
#include "edge/transfer.h"

/* Rounds of "start, let libcurl act" in one turn; what is left is done in the next. */
#define ROUNDS_MOST 8

/* What is under way when drain_timeout is over may still be answered. */
#define DRAIN_GRACE_MS 1000

/* Writers that are slow to read get this long to fetch their last replies. */
#define FLUSH_MS 1000

/* A name look-up that is under way at the end gets this long: its thread cannot be stopped. */
#define LOOK_UP_GRACE_MS 500

/* Descriptors beyond those for writers and connections: loop, sockets, files. */
#define DESCRIPTORS_SPARE 64

enum phase {
	PHASE_RUNNING,
	PHASE_DRAINING, /* no lines are taken, what is queued is sent */
	PHASE_DROPPED,  /* what was queued is dropped, what is under way may be answered */
	PHASE_FLUSHING, /* every fate has fallen, replies are still leaving */
	PHASE_ENDED,
};

static const char *const phase_names[] = {
	[PHASE_RUNNING] = "running",   [PHASE_DRAINING] = "draining", [PHASE_DROPPED] = "dropped",
	[PHASE_FLUSHING] = "flushing", [PHASE_ENDED] = "ended",
};

struct daemon {
	const char *path;
	struct config *config;
	struct vault *vault;
	uv_loop_t loop;
	uv_prepare_t prepare;
	uv_timer_t timer; /* for the scheduler's next deadline */
	uv_timer_t phase_timer;
	uv_timer_t watchdog;
	uv_signal_t signals[3];
	struct listener listener;
	struct listener control_listener; /* fd -1: control_socket is empty */
	struct scheduler scheduler;
	struct transfers *transfers;
	struct intake *intake;
	struct control *control;       /* NULL: there is none */
	struct exposition *exposition; /* likewise */
	struct redis *redis;           /* NULL: there has been no [shared] yet */
	enum phase phase;
	struct checks checks;
	uv_fs_event_t folder; /* of our socket */
	uint64_t started;
	int64_t started_at; /* Unix time, ns */
	int64_t reloaded_at;
	bool reload_failed;         /* the last one */
	struct log_limit slowed[2]; /* AppIDs, rooms */
	struct entropy entropy;
	struct log_limit random;
};

static const int signal_numbers[] = { SIGHUP, SIGTERM, SIGINT };

/* What the core asks of the world. */

static void on_fate(void *arg, struct request *r, const struct fate_report *f)
{
	struct daemon *d = arg;

	if (log_wants(LOG_LEVEL_DEBUG))
		log_debug("id=%.*s outcome=%s reason=%s attempts=%u waited_ms=%" PRIu64
			  " took_ms=%" PRIu64,
			  r->id_len, request_id(r), fate_outcome_name(f->fate),
			  fate_reason_name(f->fate), r->attempts, f->waited / NSEC_PER_MSEC,
			  f->took / NSEC_PER_MSEC);
	if (r->writer)
		intake_fate(d->intake, r, f);
}

static int on_random(void *arg, void *out, size_t n)
{
	struct daemon *d = arg;
	uint64_t before;
	int r = entropy_draw(&d->entropy, out, n);

	if (r < 0 && log_permit(&d->random, &before, clock_now()))
		log_error("the kernel gives no random bytes, and without them nothing is signed%s",
			  log_repeats(before).text);
	return r;
}

static void log_verdict(struct buffer *out, const struct verdict *v)
{
	if (!v)
		return;
	if (v->has_code)
		buffer_printf(out, " Code=%" PRId64 " Message=%s", v->code,
			      log_quote(v->message, strlen(v->message)).text);
	else
		buffer_printf(out, " reason=%s", fate_reason_name(v->fate));
	if (v->status > 0 && v->status != 200)
		buffer_printf(out, " status=%u", v->status);
	if (v->class == VERDICT_SIGN_AGAIN)
		buffer_puts(out, " (is this host's clock right?)");
}

static const struct {
	enum log_level level;
	const char *sentence;
} event_lines[] = {
	[EVENT_STARTED] = { LOG_LEVEL_DEBUG, "started" },
	[EVENT_RETRY] = { LOG_LEVEL_DEBUG, "will be tried again" },
	[EVENT_SLOWED] = { LOG_LEVEL_WARNING,
			   "the API finds the AppID too fast; requests a second from now on:" },
	[EVENT_ROOM_SLOWED] = { LOG_LEVEL_WARNING,
				"the API finds the room too fast; requests a second from now on:" },
	[EVENT_HALTED] = { LOG_LEVEL_ERROR, "halted: the API refuses the AppID's configuration" },
	[EVENT_RESUMED] = { LOG_LEVEL_INFO, "no longer halted" },
	[EVENT_UPSTREAM_DOWN] = { LOG_LEVEL_ERROR, "the API cannot be reached" },
	[EVENT_UPSTREAM_UP] = { LOG_LEVEL_INFO, "the API can be reached again" },
	[EVENT_OVER_SHARE] = { LOG_LEVEL_WARNING, "the queue's memory is full, and messages of the "
						  "user with most of it "
						  "make way for those of others; uid:" },
};

static void on_event(void *arg, const struct scheduler_event *e)
{
	_cleanup_(buffer_deinit) struct buffer line = { 0 };
	const struct request *r = e->request;
	struct daemon *d = arg;
	uint64_t before = 0;

	if (!log_wants(event_lines[e->type].level))
		return;
	/* Rooms are many; whoever is too fast is so again and again. */
	if ((e->type == EVENT_SLOWED || e->type == EVENT_ROOM_SLOWED) &&
	    !log_permit(&d->slowed[e->type == EVENT_ROOM_SLOWED], &before, clock_now()))
		return;
	if (e->app)
		buffer_printf(&line, "app=%" PRIu32 " ", e->app->app_id);
	if (r)
		buffer_printf(&line, "room=%s id=%.*s attempt=%u ",
			      log_quote(request_room_id(r), r->room_id_len).text, r->id_len,
			      request_id(r), r->attempts);
	buffer_puts(&line, event_lines[e->type].sentence);
	if (e->value > 0 || e->type == EVENT_OVER_SHARE) /* root is 0 */
		buffer_printf(&line, " %" PRIu64, e->value);
	log_verdict(&line, e->verdict);
	buffer_puts(&line, log_repeats(before).text);
	if (!line.failed)
		log_line(event_lines[e->type].level, "%s", line.data);
}

static const struct scheduler_ops scheduler_ops = {
	.fate = on_fate,
	.event = on_event,
	.random = on_random,
};

/* What the transport tells. */

static void on_complete(void *arg, struct request *r, const struct answer *a)
{
	struct daemon *d = arg;

	scheduler_complete(&d->scheduler, r, a, clock_now());
}

static void on_address_changed(void *arg)
{
	struct daemon *d = arg;

	scheduler_upstream_changed(&d->scheduler, clock_now());
}

static const struct transfers_ops transfers_ops = {
	.complete = on_complete,
	.address_changed = on_address_changed,
};

/* The turn. */

static void stop_loop(struct daemon *d)
{
	d->phase = PHASE_ENDED;
	uv_stop(&d->loop);
}

static void on_phase_over(uv_timer_t *timer)
{
	struct daemon *d = timer->data;

	switch (d->phase) {
	case PHASE_RUNNING:
	case PHASE_ENDED:
		return;
	case PHASE_DRAINING:
		d->phase = PHASE_DROPPED;
		scheduler_drop(&d->scheduler, clock_now());
		uv_timer_start(timer, on_phase_over, DRAIN_GRACE_MS, 0);
		return;
	case PHASE_DROPPED:
		scheduler_abort(&d->scheduler, clock_now());
		return;
	case PHASE_FLUSHING:
		stop_loop(d);
		return;
	}
}

static void end_if_done(struct daemon *d)
{
	if (d->phase == PHASE_DRAINING || d->phase == PHASE_DROPPED) {
		if (!scheduler_is_empty(&d->scheduler))
			return;
		d->phase = PHASE_FLUSHING;
		uv_timer_start(&d->phase_timer, on_phase_over, FLUSH_MS, 0);
		/* What other hosts may have at once would come to them by itself only when this
		 * one had been silent for long. */
		if (d->redis)
			redis_leave(d->redis, clock_now());
	}
	if (d->phase == PHASE_FLUSHING && !intake_has_replies(d->intake) &&
	    (!d->redis || redis_has_left(d->redis, clock_now())))
		stop_loop(d);
}

static void on_deadline(uv_timer_t *timer)
{
	/* A timer is a hint: turn() reads the clock and asks the scheduler. */
}

static void arm(struct daemon *d, uint64_t next, uint64_t now)
{
	uint64_t ms;

	if (next == NEVER) {
		uv_timer_stop(&d->timer);
		return;
	}
	ms = next > now ? (next - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC : 1;
	uv_timer_start(&d->timer, on_deadline, ms, 0);
}

/* Before the loop sleeps, and when handling events has taken long. */
static void turn(void *arg)
{
	struct daemon *d = arg;
	uint64_t next = 0;
	uint64_t now = 0;
	bool again = true;

	for (int i = 0; i < ROUNDS_MOST && again; i++) {
		now = clock_now();
		scheduler_set_wall(&d->scheduler, clock_wall(), now);
		next = scheduler_run(&d->scheduler, now);
		again = transfers_turn(d->transfers);
	}
	if (d->redis)
		next = min_u64(next, redis_turn(d->redis, now));
	if (again)
		next = now;
	checks_run(&d->checks, &d->scheduler, &d->listener, now);
	end_if_done(d);
	intake_flush(d->intake);
	end_if_done(d);
	arm(d, next, now);
}

static void on_prepare(uv_prepare_t *prepare)
{
	turn(prepare->data);
}

/* Reloading. */

/* One line for each key that is not in force before the next start. */
static void list_fixed_keys(const struct config *old, const struct config *new,
			    struct buffer *warnings)
{
	const struct {
		const char *key;
		bool changed;
	} fixed[] = {
		{ "socket", strcmp(old->socket, new->socket) != 0 },
		{ "socket_mode", old->socket_mode != new->socket_mode },
		{ "socket_group", strcmp(old->socket_group, new->socket_group) != 0 },
		{ "control_socket", strcmp(old->control_socket, new->control_socket) != 0 },
		{ "metrics_listen", strcmp(old->metrics_listen, new->metrics_listen) != 0 },
		{ "prefix", old->redis[0] && new->redis[0] &&
				    strcmp(old->shared_prefix, new->shared_prefix) != 0 },
		{ "name", old->redis[0] && new->redis[0] &&
				  strcmp(old->shared_name, new->shared_name) != 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
		if (fixed[i].changed)
			buffer_printf(warnings,
				      "%s has changed: that takes effect at the next start\n",
				      fixed[i].key);
	}
}

/* Idle writers must not take the descriptors that messages need to go out. */
static void limit_clients(struct daemon *d, const struct config *c)
{
	rlim_t kept = c->max_in_flight + CONTROL_CLIENTS + EXPOSITION_CLIENTS +
		      (*c->redis ? REDIS_DESCRIPTORS : 0) + DESCRIPTORS_SPARE;
	struct rlimit limit;
	size_t most;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	most = limit.rlim_cur > kept + 1 ? limit.rlim_cur - kept : 2;
	intake_limit(d->intake, most);
	/* One user may have max_clients, all together twice as many. */
	if (most < 2 * c->max_clients)
		log_warning(
			"%zu writers at most, half of them of one user, not max_clients (%" PRIu64
			"): %llu descriptors are allowed, and max_in_flight needs %" PRIu64
			" (LimitNOFILE=, ulimit -n)",
			most, c->max_clients, (unsigned long long)limit.rlim_cur, c->max_in_flight);
}

/* It connects only when the scheduler has something to share. */
static int want_redis(struct daemon *d, const struct config *c)
{
	if (d->redis || !*c->redis)
		return 0;
	/* What is in force until @c is; redis_configure() follows. */
	return redis_new(&d->redis, &d->loop, &d->scheduler.shared, d->config);
}

/* Puts a configuration in force, or leaves everything as it is. */
static int put_in_force(struct daemon *d, const struct config *c)
{
	struct transfers_change *change;
	int r = transfers_prepare(&change, c);

	if (r < 0)
		return r;
	r = want_redis(d, c);
	if (r == 0)
		r = scheduler_configure(&d->scheduler, c, clock_now());
	if (r < 0) {
		transfers_discard(change);
		return r;
	}
	if (d->redis)
		redis_configure(d->redis, c);
	transfers_apply(d->transfers, change);
	intake_configure(d->intake, c);
	limit_clients(d, c);
	log_set_level((enum log_level)c->log_level);
	return 0;
}

static void note_warning(void *arg, unsigned line, const char *text)
{
	buffer_printf(arg, "%s\n", text);
}

static void swap_texts(char **a, char **b)
{
	char *text = *a;

	*a = *b;
	*b = text;
}

/* What a host is known by to the others is for its lifetime: under another name it would
 * find its own tokens taken by a stranger. The configuration that is used from now on gets
 * what is in force, and the old one, which ends, what was meant. */
static void keep_identity(const struct daemon *d, struct config *new)
{
	struct config *old = d->config;

	/* It may not even have said goodbye. */
	if (!*old->redis && shared_state(&d->scheduler.shared, clock_now()) == SHARED_OFF)
		return;
	swap_texts(&old->shared_prefix, &new->shared_prefix);
	swap_texts(&old->shared_name, &new->shared_name);
}

/* Reads the configuration again. Returns 0 with lines in @warnings; or, with lines in
 * @errors, what configfile_load() returned or a negative errno. */
static int reload(struct daemon *d, struct buffer *errors, struct buffer *warnings)
{
	_cleanup_(config_freep) struct config *config = NULL;
	struct vault *vault = NULL;
	struct config *old = d->config;
	int r;

	notify("RELOADING=1\nMONOTONIC_USEC=%" PRIu64, uv_hrtime() / NSEC_PER_USEC);
	r = configfile_load(&config, &vault, d->path, false, errors);
	if (r == 0) {
		list_fixed_keys(old, config, warnings);
		config_warn(config, note_warning, warnings);
		keep_identity(d, config);
		r = put_in_force(d, config);
		if (r < 0)
			keep_identity(d, config); /* back again */
	}
	d->reload_failed = r != 0;
	if (r == 0) {
		log_lines(LOG_LEVEL_WARNING, warnings);
		d->reloaded_at = clock_wall();
		d->config = config;
		config = old;
		vault_free(d->vault);
		d->vault = vault;
		log_info("%s is in force, with %zu AppID%s", d->path, d->config->n_apps,
			 d->config->n_apps == 1 ? "" : "s");
	} else {
		vault_free(vault);
		log_lines(LOG_LEVEL_ERROR, errors);
		log_error("%s is not used, all stays as it was: %s", d->path,
			  r > 0 ? "it has errors" : strerror(-r));
	}
	notify("READY=1");
	return r;
}

static void reload_and_log(struct daemon *d)
{
	_cleanup_(buffer_deinit) struct buffer errors = { 0 };
	_cleanup_(buffer_deinit) struct buffer warnings = { 0 };

	(void)reload(d, &errors, &warnings);
}

/* What operators ask for. */

static void gather_facts(const struct daemon *d, struct facts *facts)
{
	const struct intake_counts *counts = intake_counts(d->intake);

	*facts = (struct facts){
		.version = VERSION,
		.config_path = d->path,
		.phase = phase_names[d->phase],
		.pid = getpid(),
		.started_at = d->started_at,
		.uptime = clock_now() - d->started,
		.reload_ok = !d->reload_failed,
		.reloaded_at = d->reloaded_at,
		.clients = counts->clients,
		.replies_discarded = counts->replies_discarded,
		.replies_lost = counts->replies_lost,
		.connections_opened = transfers_opened(d->transfers),
		.log_lines_lost = log_lines_lost(),
		.socket_lost = d->checks.is_socket_lost,
		.clock_skew = transfers_clock_skew(d->transfers),
		.clock_steps = d->checks.clock_steps,
	};
	if (d->redis) {
		const struct redis_counts *redis = redis_counts(d->redis);

		facts->shared_calls = redis->calls;
		facts->shared_hints = redis->hints;
		facts->shared_opened = redis->opened;
		facts->shared_failed = redis->failed;
		facts->shared_since = redis->since;
		facts->shared_trouble = redis_trouble(d->redis, clock_now());
	}
}

/* A member of that name: the lines as strings. */
static void put_lines(struct buffer *members, const char *name, const struct buffer *lines)
{
	const char *separator = "";

	buffer_printf(members, ",\"%s\":[", name);
	for (size_t i = 0; lines->data && i < lines->len;) {
		size_t n = strcspn(lines->data + i, "\n");

		buffer_puts(members, separator);
		buffer_put_json(members, lines->data + i, n, n);
		separator = ",";
		i += n + 1;
	}
	buffer_puts(members, "]");
}

static int reload_for(struct daemon *d, struct buffer *members, struct buffer *error)
{
	_cleanup_(buffer_deinit) struct buffer errors = { 0 };
	_cleanup_(buffer_deinit) struct buffer warnings = { 0 };
	int r;

	if (d->phase != PHASE_RUNNING) {
		buffer_puts(error, "the daemon is stopping");
		return -ESHUTDOWN;
	}
	r = reload(d, &errors, &warnings);
	if (r == 0) {
		put_lines(members, "warnings", &warnings);
		return 0;
	}
	buffer_printf(error, "%s is not used, all stays as it was: %s", d->path,
		      r > 0 ? "it has errors" : strerror(-r));
	put_lines(members, "errors", &errors);
	return r > 0 ? -EINVAL : r;
}

static int pause_app(struct daemon *d, uint32_t app_id, bool paused, struct buffer *error)
{
	struct app *app = scheduler_app(&d->scheduler, app_id);

	if (!app || !app->config) {
		buffer_printf(error, "AppId %" PRIu32 " is not configured", app_id);
		return -ENOENT;
	}
	scheduler_pause(&d->scheduler, app, paused);
	log_info("app=%" PRIu32 " is %s", app_id,
		 paused ? "paused: its messages wait, and age" : "no longer paused");
	return 0;
}

static void print_metrics(void *arg, enum metrics_format format, struct buffer *out)
{
	struct daemon *d = arg;
	struct facts facts;

	gather_facts(d, &facts);
	metrics_print(out, format, &d->scheduler, &facts, clock_now());
}

static int on_command(void *arg, const struct command *c, struct buffer *members,
		      struct buffer *error)
{
	_cleanup_(buffer_deinit) struct buffer text = { 0 };
	struct daemon *d = arg;
	struct facts facts;

	switch (c->op) {
	case COMMAND_STATUS:
		gather_facts(d, &facts);
		buffer_puts(members, ",");
		status_print(members, &d->scheduler, &facts, clock_now());
		return 0;
	case COMMAND_RELOAD:
		return reload_for(d, members, error);
	case COMMAND_PAUSE:
	case COMMAND_RESUME:
		return pause_app(d, c->app_id, c->op == COMMAND_PAUSE, error);
	case COMMAND_METRICS:
		print_metrics(d, c->format, &text);
		members->failed = members->failed || text.failed || !text.data;
		buffer_puts(members, ",\"metrics\":");
		if (text.data)
			buffer_put_json(members, text.data, text.len, text.len);
		return 0;
	case COMMAND_LOG:
		log_set_level((enum log_level)c->level);
		return 0;
	case _COMMAND_N:
		break;
	}
	return -EINVAL;
}

/* Stopping. */

static void shut_down(struct daemon *d)
{
	uint64_t ms = d->config->drain_timeout / NSEC_PER_MSEC;

	if (d->phase != PHASE_RUNNING) {
		log_info("stopping now");
		scheduler_abort(&d->scheduler, clock_now());
		intake_flush(d->intake);
		if (d->redis) /* it is said, but not waited for that it was heard */
			redis_leave(d->redis, clock_now());
		stop_loop(d);
		return;
	}
	log_info("stopping: taking no more lines, sending what is queued for up to %" PRIu64 " ms",
		 ms);
	notify("STOPPING=1");
	d->phase = PHASE_DRAINING;
	intake_stop(d->intake);
	scheduler_drain(&d->scheduler);
	if (ms == 0)
		on_phase_over(&d->phase_timer);
	else
		uv_timer_start(&d->phase_timer, on_phase_over, ms, 0);
}

static void on_signal(uv_signal_t *handle, int number)
{
	struct daemon *d = handle->data;

	if (number != SIGHUP)
		shut_down(d);
	else if (d->phase == PHASE_RUNNING)
		reload_and_log(d);
}

static void on_watchdog(uv_timer_t *timer)
{
	notify_alive();
}

/* Starting. */

static void raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* The socket that systemd passed as @name, or one of our own. No @path: none. */
static int open_socket(struct listener *l, const char *name, const char *path, mode_t mode,
		       gid_t gid)
{
	_cleanup_(buffer_deinit) struct buffer why = { 0 };
	int fd = notify_passed_socket(name, &why);
	int r = fd;

	if (fd >= 0)
		r = listener_adopt(l, fd, &why);
	else if (fd == -1)
		r = *path ? listener_open(l, path, mode, gid, &why) : 0;
	if (r < 0)
		log_error("%s", why.len > 0 ? why.data : strerror(-r));
	return r;
}

/* Messages matter more than steering: where nobody asked for a control socket, the daemon
 * does without it if the usual place cannot be had. */
static bool is_control_optional(const struct config *c)
{
	const struct config_key *k = config_key_find(SECTION_DAEMON, "control_socket");

	return strcmp(c->control_socket, k->standard) == 0;
}

static int open_sockets(struct daemon *d)
{
	const struct config *c = d->config;
	int r = open_socket(&d->listener, "intake", c->socket, (mode_t)c->socket_mode,
			    c->socket_gid);

	if (r < 0)
		return r;
	if (d->listener.was_stale)
		log_warning("the barraged before this one did not stop in order: what it had "
			    "queued is lost");
	r = open_socket(&d->control_listener, "control", c->control_socket, 0600, (gid_t)-1);
	notify_sockets_taken();
	if (r < 0 && is_control_optional(c)) {
		log_warning("there is no control socket, and barragectl cannot be used: set "
			    "control_socket");
		return 0;
	}
	return r;
}

static void close_sockets(struct daemon *d)
{
	listener_close(&d->control_listener);
	listener_close(&d->listener);
}

/* An idle daemon has no turn in which it would notice that its socket is gone. */
static void on_folder_changed(uv_fs_event_t *handle, const char *name, int events, int status)
{
	struct daemon *d = handle->data;
	const char *slash = strrchr(d->listener.path, '/');

	/* The folder may be one in which much happens. */
	if (!name || strcmp(name, slash ? slash + 1 : d->listener.path) == 0)
		d->checks.is_due = true;
}

static void watch_folder(struct daemon *d)
{
	char *path = d->listener.path ? strdup(d->listener.path) : NULL;

	uv_fs_event_init(&d->loop, &d->folder);
	d->folder.data = d;
	/* Without inotify it is noticed with the next line. */
	if (path)
		(void)uv_fs_event_start(&d->folder, on_folder_changed, dirname(path), 0);
	free(path);
}

/* Returns 0, or a negative errno with some of the signals left out. */
static int start_handles(struct daemon *d)
{
	uint64_t watchdog = notify_watchdog_ms();
	int r = 0;

	uv_prepare_init(&d->loop, &d->prepare);
	uv_timer_init(&d->loop, &d->timer);
	uv_timer_init(&d->loop, &d->phase_timer);
	uv_timer_init(&d->loop, &d->watchdog);
	d->prepare.data = d;
	d->phase_timer.data = d;
	uv_prepare_start(&d->prepare, on_prepare);
	watch_folder(d);
	if (watchdog > 0)
		uv_timer_start(&d->watchdog, on_watchdog, watchdog, watchdog);
	for (size_t i = 0; i < ARRAY_SIZE(signal_numbers) && r == 0; i++) {
		r = uv_signal_init(&d->loop, &d->signals[i]);
		d->signals[i].data = d;
		if (r == 0)
			r = uv_signal_start(&d->signals[i], on_signal, signal_numbers[i]);
	}
	return r;
}

/* All but the phase timer. */
static void stop_handles(struct daemon *d)
{
	uv_close((uv_handle_t *)&d->prepare, NULL);
	uv_close((uv_handle_t *)&d->timer, NULL);
	uv_close((uv_handle_t *)&d->folder, NULL);
	uv_close((uv_handle_t *)&d->watchdog, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(signal_numbers); i++) {
		if (d->signals[i].type == UV_SIGNAL) /* it got so far */
			uv_close((uv_handle_t *)&d->signals[i], NULL);
	}
}

static void log_summary(const struct daemon *d)
{
	_cleanup_(buffer_deinit) struct buffer line = { 0 };
	const struct intake_counts *counts = intake_counts(d->intake);
	struct ledger sum;

	scheduler_sum(&d->scheduler, &sum);
	/* Whoever was turned away has not sent a line. */
	buffer_printf(&line, "stopped: lines=%" PRIu64,
		      ledger_total(&sum) - sum.n[FATE_TOO_MANY_CLIENTS]);
	for (enum fate f = 0; f < _FATE_N; f++) {
		if (sum.n[f] > 0)
			buffer_printf(&line, " %s%s%s=%" PRIu64, fate_outcome_name(f),
				      *fate_reason_name(f) ? "/" : "", fate_reason_name(f),
				      sum.n[f]);
	}
	if (counts->replies_discarded > 0)
		buffer_printf(&line, " replies_discarded=%" PRIu64, counts->replies_discarded);
	if (counts->replies_lost > 0)
		buffer_printf(&line, " replies_lost=%" PRIu64, counts->replies_lost);
	if (!line.failed)
		log_info("%s", line.data);
}

static int start_watching(struct daemon *d)
{
	_cleanup_(buffer_deinit) struct buffer why = { 0 };
	int r = 0;

	if (d->control_listener.fd >= 0)
		r = control_new(&d->control, &d->loop, &d->control_listener, on_command, d);
	if (r == 0 && *d->config->metrics_listen)
		r = exposition_new(&d->exposition, &d->loop, d->config->metrics_listen,
				   print_metrics, d, &why);
	if (why.len > 0)
		log_error("%s", why.data);
	return r;
}

static int start_parts(struct daemon *d)
{
	_cleanup_(buffer_deinit) struct buffer warnings = { 0 };
	uint64_t now = clock_now();
	int r;

	r = transfers_new(&d->transfers, &d->loop, d->config, &transfers_ops, d);
	if (r < 0)
		return r;
	r = scheduler_init(&d->scheduler, transfers_transport(d->transfers), &scheduler_ops, d,
			   now);
	if (r == 0)
		r = scheduler_configure(&d->scheduler, d->config, now);
	if (r == 0)
		r = want_redis(d, d->config);
	if (r == 0)
		r = intake_new(&d->intake, &d->loop, &d->listener, &d->scheduler, d->config);
	if (r == 0) {
		intake_on_long_turn(d->intake, turn, d);
		limit_clients(d, d->config);
	}
	config_warn(d->config, note_warning, &warnings);
	log_lines(LOG_LEVEL_WARNING, &warnings);
	return r == 0 ? start_watching(d) : r;
}

static void on_grace_over(uv_timer_t *timer)
{
	uv_stop(timer->loop);
}

/* Runs what closing handles and a name look-up still have to tell, for a while. Returns
 * whether that is all. */
static bool finish_loop(struct daemon *d)
{
	bool done;

	uv_timer_start(&d->phase_timer, on_grace_over, LOOK_UP_GRACE_MS, 0);
	uv_unref((uv_handle_t *)&d->phase_timer);
	done = uv_run(&d->loop, UV_RUN_DEFAULT) == 0;
	uv_close((uv_handle_t *)&d->phase_timer, NULL);
	uv_run(&d->loop, UV_RUN_NOWAIT);
	return done;
}

/* Closes what start_parts() has opened, last things first. Returns whether the loop can be
 * closed. */
static bool stop_parts(struct daemon *d)
{
	exposition_close(d->exposition);
	control_close(d->control);
	if (d->intake)
		intake_close(d->intake);
	redis_close(d->redis);
	if (d->transfers) {
		scheduler_deinit(&d->scheduler);
		transfers_close(d->transfers);
	}
	stop_handles(d);
	return finish_loop(d);
}

static int run(struct daemon *d)
{
	int r = uv_loop_init(&d->loop);

	if (r < 0) {
		log_error("barraged cannot start: libuv's loop: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	d->started = clock_now();
	d->started_at = clock_wall();
	d->reloaded_at = d->started_at;
	r = start_handles(d);
	if (r == 0)
		r = start_parts(d);
	if (r == 0) {
		log_info("barraged " VERSION " listens on %s for %zu AppID%s, to %s",
			 d->listener.path ? d->listener.path : "systemd's socket",
			 d->config->n_apps, d->config->n_apps == 1 ? "" : "s", d->config->url);
		notify("READY=1");
		uv_run(&d->loop, UV_RUN_DEFAULT);
		intake_hang_up(d->intake);
		d->checks.is_due = true;
		checks_run(&d->checks, &d->scheduler, &d->listener, clock_now());
		log_summary(d);
	} else {
		log_error("barraged cannot start: %s",
			  r == -ENOTSUP ? "OpenSSL has no MD5 here, and ZEGO's signature is one"
					: strerror(-r));
	}
	if (!stop_parts(d)) {
		/* A name look-up hangs in a thread that nobody can stop; leave without it. */
		close_sockets(d);
		_exit(r < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
	}
	if (uv_loop_close(&d->loop) != 0)
		abort(); /* a handle was left open: a bug */
	return r < 0;
}

int daemon_run(const char *path, struct config *config, struct vault *vault)
{
	struct daemon d = { .path = path, .config = config, .vault = vault };
	int status = EXIT_FAILURE;

	log_set_level((enum log_level)config->log_level);
	raise_descriptors();
	if (geteuid() == 0)
		log_warning("barraged runs as root, and needs nothing that only root may do: give "
			    "it a user of its own");
	d.listener = (struct listener){ .fd = -1, .lock = -1 };
	d.control_listener = (struct listener){ .fd = -1, .lock = -1 };
	if (open_sockets(&d) == 0)
		status = run(&d);
	close_sockets(&d);
	config_free(d.config);
	vault_free(d.vault);
	return status;
}
