/* SPDX-License-Identifier: MIT */
/*
 * A metric that appears only once something has happened cannot be alerted on: what was
 * never there cannot rise. So every series that can be named beforehand is printed from
 * the start, at 0. Those that cannot are return codes; they are counted by number for the
 * first APP_CODES different ones of an AppID, and together from then on, since a server
 * that makes them up must not fill whoever collects them.
 *
 * All is printed as of one moment, so what belongs together adds up in every scrape: for
 * each AppID the lines are its requests by outcome, and what is queued, waiting and in
 * flight. Lines that were refused before it was clear which AppID they are for have an
 * empty one.
 *
 * OpenMetrics names a family without what the samples of its type append, and the older
 * text format with it; there are few other differences (see print_head()).
 */
#include "core/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

struct metrics_print {
	struct buffer *out;
	enum metrics_format format;
	const struct scheduler *scheduler;
	const struct facts *facts;
	uint64_t now;
	unsigned labels; /* of the sample being printed */
};

/* One sample: sample(), then label() for each, then one of the value()s. */

static void sample(struct metrics_print *p, const struct metric *m, const char *suffix)
{
	buffer_puts(p->out, m->name);
	buffer_puts(p->out, suffix);
	p->labels = 0;
}

static void label_name(struct metrics_print *p, const char *name)
{
	buffer_puts(p->out, p->labels++ > 0 ? "," : "{");
	buffer_puts(p->out, name);
	buffer_puts(p->out, "=\"");
}

static void label(struct metrics_print *p, const char *name, const char *value)
{
	label_name(p, name);
	while (*value) {
		size_t plain = strcspn(value, "\"\\\n");

		buffer_append(p->out, value, plain);
		value += plain;
		if (*value == '\0')
			break;
		buffer_append(p->out, (char[]){ '\\', (char)(*value == '\n' ? 'n' : *value) }, 2);
		value++;
	}
	buffer_puts(p->out, "\"");
}

/* @app is NULL for lines that are of none. */
static void label_app(struct metrics_print *p, const struct app *app)
{
	label_name(p, "app");
	if (app)
		buffer_put_u64(p->out, app->app_id);
	buffer_puts(p->out, "\"");
}

static void before_value(struct metrics_print *p)
{
	buffer_puts(p->out, p->labels > 0 ? "} " : " ");
}

static void value(struct metrics_print *p, uint64_t n)
{
	before_value(p);
	buffer_put_u64(p->out, n);
	buffer_puts(p->out, "\n");
}

/* With at least one decimal, as OpenMetrics wants to see it in bounds of buckets. */
static void put_seconds(struct buffer *out, uint64_t ns)
{
	uint64_t rest = ns % NSEC_PER_SEC;
	char decimals[9];
	size_t n = sizeof(decimals);

	for (size_t i = n; i > 0; i--, rest /= 10)
		decimals[i - 1] = (char)('0' + rest % 10);
	while (n > 1 && decimals[n - 1] == '0')
		n--;
	buffer_put_u64(out, ns / NSEC_PER_SEC);
	buffer_append(out, ".", 1);
	buffer_append(out, decimals, n);
}

static void value_seconds(struct metrics_print *p, int64_t ns)
{
	before_value(p);
	if (ns < 0)
		buffer_puts(p->out, "-");
	put_seconds(p->out, ns < 0 ? -(uint64_t)ns : (uint64_t)ns);
	buffer_puts(p->out, "\n");
}

typedef void (*app_fn)(struct metrics_print *p, const struct metric *m, struct app *app);

static void for_each_app(struct metrics_print *p, const struct metric *m, app_fn fn)
{
	for (size_t i = 0; i < p->scheduler->n_apps; i++)
		fn(p, m, p->scheduler->apps[i]);
	list_for_each (node, &p->scheduler->retired)
		fn(p, m, list_entry(node, struct app, link));
}

/* Families. */

static void print_build(struct metrics_print *p, const struct metric *m)
{
	sample(p, m, metric_suffix(m));
	label(p, "version", p->facts->version);
	value(p, 1);
}

static const void *fact(const struct metrics_print *p, const struct metric *m)
{
	return (const char *)p->facts + m->offset;
}

static void print_count(struct metrics_print *p, const struct metric *m)
{
	sample(p, m, metric_suffix(m));
	value(p, *(const uint64_t *)fact(p, m));
}

static void print_flag(struct metrics_print *p, const struct metric *m)
{
	sample(p, m, metric_suffix(m));
	value(p, *(const bool *)fact(p, m) ? 1 : 0);
}

static void print_seconds(struct metrics_print *p, const struct metric *m)
{
	sample(p, m, metric_suffix(m));
	value_seconds(p, *(const int64_t *)fact(p, m));
}

static void print_ledger_consistent(struct metrics_print *p, const struct metric *m)
{
	sample(p, m, "");
	value(p, scheduler_adds_up(p->scheduler) ? 1 : 0);
}

static void print_upstream_up(struct metrics_print *p, const struct metric *m)
{
	sample(p, m, "");
	value(p, p->scheduler->upstream.down ? 0 : 1);
}

static void print_queue_bytes(struct metrics_print *p, const struct metric *m)
{
	sample(p, m, "");
	value(p, p->scheduler->bytes);
}

static void print_queue_max_bytes(struct metrics_print *p, const struct metric *m)
{
	sample(p, m, "");
	value(p, p->scheduler->config->queue_bytes);
}

static void print_max_in_flight(struct metrics_print *p, const struct metric *m)
{
	sample(p, m, "");
	value(p, p->scheduler->config->max_in_flight);
}

static void print_credit(struct metrics_print *p, const struct metric *m)
{
	sample(p, m, "");
	value_seconds(p, (int64_t)p->scheduler->credit.value);
}

static void print_fate(struct metrics_print *p, const struct metric *m, const struct app *app,
		       enum fate f, uint64_t n)
{
	sample(p, m, metric_suffix(m));
	label_app(p, app);
	label(p, "outcome", fate_outcome_name(f));
	label(p, "reason", fate_reason_name(f));
	value(p, n);
}

/* Whether lines end so before they are an AppID's. */
static bool is_refusal(enum fate f)
{
	return f == FATE_INVALID || f == FATE_TOO_LONG || f == FATE_UNKNOWN_APP ||
	       f == FATE_TOO_MANY_CLIENTS;
}

static void print_fates_of_app(struct metrics_print *p, const struct metric *m, struct app *app)
{
	const struct ledger l = app_ledger(app);

	for (enum fate f = 0; f < _FATE_N; f++) {
		if (!is_refusal(f))
			print_fate(p, m, app, f, l.n[f]);
	}
}

static void print_fates(struct metrics_print *p, const struct metric *m)
{
	for_each_app(p, m, print_fates_of_app);
	/* A line that there was no memory for is not an AppID's either. */
	for (enum fate f = 0; f < _FATE_N; f++) {
		if (is_refusal(f) || f == FATE_MEMORY)
			print_fate(p, m, NULL, f, p->scheduler->refused.n[f]);
	}
}

static void print_code(struct metrics_print *p, const struct metric *m, const struct app *app,
		       int64_t code, uint64_t n)
{
	sample(p, m, metric_suffix(m));
	label_app(p, app);
	label_name(p, "code");
	buffer_printf(p->out, "%" PRId64 "\"", code);
	value(p, n);
}

static void print_codes_of_app(struct metrics_print *p, const struct metric *m, struct app *app)
{
	bool has_success = false;

	for (size_t i = 0; i < app->n_codes; i++) {
		has_success = has_success || app->codes[i].code == 0;
		print_code(p, m, app, app->codes[i].code, app->codes[i].n);
	}
	if (!has_success)
		print_code(p, m, app, 0, 0);
	sample(p, m, metric_suffix(m));
	label_app(p, app);
	label(p, "code", "other");
	value(p, app->other_codes);
}

static void print_codes(struct metrics_print *p, const struct metric *m)
{
	for_each_app(p, m, print_codes_of_app);
}

static void print_states_of_app(struct metrics_print *p, const struct metric *m, struct app *app)
{
	enum app_state now = app_state(app, p->now);

	for (enum app_state state = 0; state < _APP_STATE_N; state++) {
		sample(p, m, "");
		label_app(p, app);
		label(p, "state", app_state_name(state));
		value(p, state == now ? 1 : 0);
	}
}

static void print_states(struct metrics_print *p, const struct metric *m)
{
	for_each_app(p, m, print_states_of_app);
}

static void print_shared_states(struct metrics_print *p, const struct metric *m)
{
	enum shared_state now = shared_state(&p->scheduler->shared, p->now);

	for (enum shared_state state = 0; state < _SHARED_STATE_N; state++) {
		sample(p, m, "");
		label(p, "state", shared_state_name(state));
		value(p, state == now ? 1 : 0);
	}
}

static void print_shared_members(struct metrics_print *p, const struct metric *m)
{
	const char *names = shared_members(&p->scheduler->shared);
	uint64_t n = *names ? 1 : 0;

	for (; *names; names++)
		n += *names == ' ';
	sample(p, m, "");
	value(p, n);
}

static void print_value_of_app(struct metrics_print *p, const struct metric *m, struct app *app)
{
	sample(p, m, metric_suffix(m));
	label_app(p, app);
	value(p, m->of_app(p, app));
}

static void print_of_apps(struct metrics_print *p, const struct metric *m)
{
	for_each_app(p, m, print_value_of_app);
}

static void print_histogram_of_app(struct metrics_print *p, const struct metric *m, struct app *app)
{
	const struct histogram *h = (const void *)((const char *)app + m->offset);
	uint64_t n = 0;

	for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++) {
		n += h->n[i];
		sample(p, m, "_bucket");
		label_app(p, app);
		label_name(p, "le");
		if (i < HISTOGRAM_BOUNDS)
			put_seconds(p->out, histogram_bounds[i]);
		else
			buffer_puts(p->out, "+Inf");
		buffer_puts(p->out, "\"");
		value(p, n);
	}
	sample(p, m, "_count");
	label_app(p, app);
	value(p, n);
	sample(p, m, "_sum");
	label_app(p, app);
	value_seconds(p, (int64_t)h->sum);
}

static void print_histograms(struct metrics_print *p, const struct metric *m)
{
	for_each_app(p, m, print_histogram_of_app);
}

/* Values of AppIDs. */

static uint64_t app_lines(const struct metrics_print *p, struct app *app)
{
	return app_accepted(app);
}

static uint64_t app_retries(const struct metrics_print *p, struct app *app)
{
	return app->retries;
}

static uint64_t app_queued(const struct metrics_print *p, struct app *app)
{
	return app->n[REQUEST_QUEUED];
}

static uint64_t app_waiting(const struct metrics_print *p, struct app *app)
{
	return app->n[REQUEST_WAITING];
}

static uint64_t app_in_flight(const struct metrics_print *p, struct app *app)
{
	return app->n[REQUEST_IN_FLIGHT];
}

static uint64_t app_tokens_now(const struct metrics_print *p, struct app *app)
{
	return app_tokens(app, p->scheduler->credit.value, p->now);
}

static uint64_t app_rate_now(const struct metrics_print *p, struct app *app)
{
	return app->config ? app_rate(app, p->now) : 0;
}

static uint64_t app_share_now(const struct metrics_print *p, struct app *app)
{
	return app_share(app);
}

/* An AppID that was removed has no configuration any more. */

static uint64_t app_allotment_now(const struct metrics_print *p, struct app *app)
{
	return app->config ? app_allotment(app, p->now) : 0;
}

static uint64_t app_rate_max(const struct metrics_print *p, struct app *app)
{
	return app->config ? app->config->rate : 0;
}

static uint64_t app_queue_max(const struct metrics_print *p, struct app *app)
{
	return app->config ? app->config->queue.queue_max : 0;
}

/* Types as in enum metric_type. */
#define COUNT(field)         print_count, offsetof(struct facts, field)
#define FLAG(field)          print_flag, offsetof(struct facts, field)
#define SECONDS(field)       print_seconds, offsetof(struct facts, field)
#define OF_APPS(fn)          print_of_apps, 0, fn
#define HISTOGRAM_OF_APPS(h) print_histograms, offsetof(struct app, h)

/* name, type, unit, help, how it is printed */
/* clang-format off */
const struct metric metrics[] = {
	{ "barraged_build", METRIC_INFO, "",
	  "What is running.", print_build },
	{ "barraged_start_time_seconds", METRIC_GAUGE, "seconds",
	  "When the daemon started, Unix time.", SECONDS(started_at) },
	{ "barraged_config_last_reload_successful", METRIC_GAUGE, "",
	  "Whether the last attempt to read the configuration succeeded.", FLAG(reload_ok) },
	{ "barraged_config_last_reload_timestamp_seconds", METRIC_GAUGE, "seconds",
	  "When a configuration was put in force last, Unix time.", SECONDS(reloaded_at) },
	{ "barraged_ledger_consistent", METRIC_GAUGE, "",
	  "Whether every line is accounted for; if not, that is a bug in barraged.",
	  print_ledger_consistent },

	{ "barraged_lines", METRIC_COUNTER, "",
	  "Lines taken in for an AppID.", OF_APPS(app_lines) },
	{ "barraged_requests", METRIC_COUNTER, "",
	  "Lines by what became of them; app is empty where that was not clear yet.", print_fates },
	{ "barraged_queued", METRIC_GAUGE, "",
	  "Messages in queues.", OF_APPS(app_queued) },
	{ "barraged_waiting", METRIC_GAUGE, "",
	  "Messages waiting for another try.", OF_APPS(app_waiting) },
	{ "barraged_in_flight", METRIC_GAUGE, "",
	  "Messages under way to the API.", OF_APPS(app_in_flight) },
	{ "barraged_queue_bytes", METRIC_GAUGE, "bytes",
	  "Memory charged for all messages that have no fate yet.", print_queue_bytes },
	{ "barraged_queue_max", METRIC_GAUGE, "",
	  "Messages that may be in the queue or wait for another try.", OF_APPS(app_queue_max) },
	{ "barraged_queue_max_bytes", METRIC_GAUGE, "bytes",
	  "Memory that may be charged for all messages.", print_queue_max_bytes },
	{ "barraged_max_in_flight", METRIC_GAUGE, "",
	  "Messages that may be under way, of all AppIDs together.", print_max_in_flight },
	{ "barraged_retries", METRIC_COUNTER, "",
	  "Further attempts for messages whose attempt had failed.", OF_APPS(app_retries) },
	{ "barraged_wait_seconds", METRIC_HISTOGRAM, "seconds",
	  "From a line's arrival to the start of its last attempt.", HISTOGRAM_OF_APPS(waits) },

	{ "barraged_rate", METRIC_GAUGE, "",
	  "Messages a second that are allowed now.", OF_APPS(app_rate_now) },
	{ "barraged_rate_max", METRIC_GAUGE, "",
	  "Messages a second that are allowed unless the API finds them too many.",
	  OF_APPS(app_rate_max) },
	{ "barraged_tokens", METRIC_GAUGE, "",
	  "Messages that the API's limit would allow at this moment.", OF_APPS(app_tokens_now) },
	{ "barraged_app_state", METRIC_GAUGE, "",
	  "1 for the state that the AppID is in.", print_states },

	{ "barraged_allotment", METRIC_GAUGE, "",
	  "How much of N is this host's now: all of it, unless hosts share the AppID.",
	  OF_APPS(app_allotment_now) },
	{ "barraged_share", METRIC_GAUGE, "",
	  "How much of N is kept for this host when it is cut off from the others.",
	  OF_APPS(app_share_now) },
	{ "barraged_shared_state", METRIC_GAUGE, "",
	  "1 for what this host is to those it shares AppIDs with.", print_shared_states },
	{ "barraged_shared_members", METRIC_GAUGE, "",
	  "Hosts for whom a share is kept, as the last beat told, this one among them.",
	  print_shared_members },
	{ "barraged_shared_calls", METRIC_COUNTER, "",
	  "Calls of the script in Redis.", COUNT(shared_calls) },
	{ "barraged_shared_hints", METRIC_COUNTER, "",
	  "Messages heard from other hosts by Redis.", COUNT(shared_hints) },
	{ "barraged_shared_connections_opened", METRIC_COUNTER, "",
	  "Connections opened to Redis.", COUNT(shared_opened) },
	{ "barraged_shared_connections_failed", METRIC_COUNTER, "",
	  "Connections to Redis that could not be made, or broke.", COUNT(shared_failed) },

	{ "barraged_upstream_up", METRIC_GAUGE, "",
	  "Whether the API can be reached.", print_upstream_up },
	{ "barraged_upstream_seconds", METRIC_HISTOGRAM, "seconds",
	  "From an attempt's start to its answer or failure.", HISTOGRAM_OF_APPS(upstream) },
	{ "barraged_api_codes", METRIC_COUNTER, "",
	  "Answers by the return code in them.", print_codes },
	{ "barraged_connections_opened", METRIC_COUNTER, "",
	  "Connections opened to the API.", COUNT(connections_opened) },
	{ "barraged_credit_seconds", METRIC_GAUGE, "seconds",
	  "Lower bound of the round trip, taken off the time that a token rests.", print_credit },
	{ "barraged_clock_skew_seconds", METRIC_GAUGE, "seconds",
	  "The API's clock less this host's, by its last answer.", SECONDS(clock_skew) },
	{ "barraged_clock_steps", METRIC_COUNTER, "",
	  "Jumps of this host's clock.", COUNT(clock_steps) },

	{ "barraged_clients", METRIC_GAUGE, "",
	  "Writers that are connected.", COUNT(clients) },
	{ "barraged_replies_discarded", METRIC_COUNTER, "",
	  "Replies discarded because their writer does not read.", COUNT(replies_discarded) },
	{ "barraged_replies_lost", METRIC_COUNTER, "",
	  "Replies to writers that had left, or did not read before the end.", COUNT(replies_lost) },
	{ "barraged_socket_lost", METRIC_GAUGE, "",
	  "Whether the socket's file is gone, so that no new writer can connect.", FLAG(socket_lost) },
	{ "barraged_log_lines_lost", METRIC_COUNTER, "",
	  "Log lines that could not be written at once.", COUNT(log_lines_lost) },
	{ NULL },
};
/* clang-format on */

const char *metric_suffix(const struct metric *m)
{
	switch (m->type) {
	case METRIC_COUNTER:
		return "_total";
	case METRIC_INFO:
		return "_info";
	case METRIC_GAUGE:
	case METRIC_HISTOGRAM:
		break;
	}
	return "";
}

static const char *type_name(const struct metric *m, enum metrics_format format)
{
	switch (m->type) {
	case METRIC_COUNTER:
		return "counter";
	case METRIC_HISTOGRAM:
		return "histogram";
	case METRIC_INFO:
		return format == METRICS_OPENMETRICS ? "info" : "gauge";
	case METRIC_GAUGE:
		break;
	}
	return "gauge";
}

static void print_head(struct metrics_print *p, const struct metric *m)
{
	const char *suffix = p->format == METRICS_OPENMETRICS ? "" : metric_suffix(m);

	buffer_printf(p->out, "# TYPE %s%s %s\n", m->name, suffix, type_name(m, p->format));
	if (*m->unit && p->format == METRICS_OPENMETRICS)
		buffer_printf(p->out, "# UNIT %s%s %s\n", m->name, suffix, m->unit);
	buffer_printf(p->out, "# HELP %s%s %s\n", m->name, suffix, m->help);
}

void metrics_print(struct buffer *out, enum metrics_format format, const struct scheduler *s,
		   const struct facts *facts, uint64_t now)
{
	struct metrics_print p = {
		.out = out,
		.format = format,
		.scheduler = s,
		.facts = facts,
		.now = now,
	};

	for (const struct metric *m = metrics; m->name; m++) {
		print_head(&p, m);
		m->print(&p, m);
	}
	if (format == METRICS_OPENMETRICS)
		buffer_puts(out, "# EOF\n");
}
