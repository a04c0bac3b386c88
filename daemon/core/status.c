/* SPDX-License-Identifier: MIT */
#include "core/status.h"

#include <inttypes.h>
#include <string.h>

static void put_text(struct buffer *out, const char *name, const char *text)
{
	buffer_puts(out, name);
	buffer_put_json(out, text, strlen(text), SIZE_MAX);
}

static void put_number(struct buffer *out, const char *name, uint64_t n)
{
	buffer_puts(out, name);
	buffer_put_u64(out, n);
}

static void put_flag(struct buffer *out, const char *name, bool flag)
{
	buffer_puts(out, name);
	buffer_puts(out, flag ? "true" : "false");
}

static uint64_t total_of(const struct ledger *l, const char *outcome)
{
	uint64_t total = 0;

	for (enum fate f = 0; f < _FATE_N; f++) {
		if (strcmp(fate_outcome_name(f), outcome) == 0)
			total += l->n[f];
	}
	return total;
}

/* Every outcome with its count, and those reasons that there were. */
static void put_fates(struct buffer *out, const struct ledger *l)
{
	const char *separator = "";

	buffer_puts(out, ",\"fates\":{");
	put_number(out, "\"sent\":", total_of(l, "sent"));
	put_number(out, ",\"dropped\":", total_of(l, "dropped"));
	put_number(out, ",\"failed\":", total_of(l, "failed"));
	put_number(out, ",\"rejected\":", total_of(l, "rejected"));
	buffer_puts(out, "},\"reasons\":{");
	for (enum fate f = 0; f < _FATE_N; f++) {
		if (l->n[f] == 0 || f == FATE_SENT)
			continue;
		buffer_puts(out, separator);
		buffer_printf(out, "\"%s\":%" PRIu64, fate_reason_name(f), l->n[f]);
		separator = ",";
	}
	buffer_puts(out, "}");
}

static void put_percentiles(struct buffer *out, const char *name, const struct histogram *h)
{
	buffer_printf(out, ",\"%s\":{\"p50\":%" PRIu64 ",\"p99\":%" PRIu64 "}", name,
		      histogram_percentile(h, 50) / NSEC_PER_MSEC,
		      histogram_percentile(h, 99) / NSEC_PER_MSEC);
}

static void put_app(struct buffer *out, const struct scheduler *s, struct app *app, uint64_t now)
{
	const struct ledger l = app_ledger(app);

	put_number(out, "{\"AppId\":", app->app_id);
	put_text(out, ",\"state\":", app_state_name(app_state(app, now)));
	if (app->halted)
		buffer_printf(out, ",\"halt_code\":%" PRId64, app->halt_code);
	put_number(out, ",\"rate\":", app->config ? app->config->rate : 0);
	put_number(out, ",\"limit\":", app->config ? app_rate(app, now) : 0);
	put_number(out, ",\"allotment\":", app->config ? app_allotment(app, now) : 0);
	put_number(out, ",\"share\":", app_share(app));
	put_number(out, ",\"tokens\":", app_tokens(app, s->credit.value, now));
	put_number(out, ",\"queued\":", app->n[REQUEST_QUEUED]);
	put_number(out, ",\"waiting\":", app->n[REQUEST_WAITING]);
	put_number(out, ",\"in_flight\":", app->n[REQUEST_IN_FLIGHT]);
	put_number(out, ",\"oldest_ms\":", app_oldest(app, now) / NSEC_PER_MSEC);
	put_number(out, ",\"lines\":", app_accepted(app));
	put_number(out, ",\"attempts\":", histogram_count(&app->upstream));
	put_number(out, ",\"retries\":", app->retries);
	put_fates(out, &l);
	put_percentiles(out, "waited_ms", &app->waits);
	put_percentiles(out, "took_ms", &app->upstream);
	buffer_puts(out, "}");
}

static void put_apps(struct buffer *out, const struct scheduler *s, uint64_t now)
{
	const char *separator = "";

	buffer_puts(out, ",\"apps\":[");
	for (size_t i = 0; i < s->n_apps; i++) {
		buffer_puts(out, separator);
		put_app(out, s, s->apps[i], now);
		separator = ",";
	}
	list_for_each (node, &s->retired) {
		buffer_puts(out, separator);
		put_app(out, s, list_entry(node, struct app, link), now);
		separator = ",";
	}
	buffer_puts(out, "]");
}

/* The URL's host and port. Whether there is one has been seen to when it was configured. */
static void put_host(struct buffer *out, const char *url)
{
	const char *host = strstr(url, "://");
	size_t n;

	host = host ? host + strlen("://") : url;
	n = strcspn(host, "/?");
	buffer_puts(out, ",\"host\":");
	buffer_put_json(out, host, n, n);
}

static void put_upstream(struct buffer *out, const struct scheduler *s, const struct facts *facts)
{
	put_text(out, ",\"upstream\":{\"state\":", s->upstream.down ? "down" : "up");
	put_host(out, s->config->url);
	put_number(out, ",\"credit_us\":", s->credit.value / NSEC_PER_USEC);
	put_number(out, ",\"in_flight\":", s->in_flight);
	put_number(out, ",\"max_in_flight\":", s->config->max_in_flight);
	put_number(out, ",\"connections_opened\":", facts->connections_opened);
	buffer_printf(out, ",\"clock_skew_ms\":%" PRId64 "}",
		      facts->clock_skew / (int64_t)NSEC_PER_MSEC);
}

static void put_seconds(struct buffer *out, const char *name, int64_t unix_ns)
{
	buffer_printf(out, "%s%" PRId64, name, unix_ns / (int64_t)NSEC_PER_SEC);
}

/* Names with blanks between them, as strings. */
static void put_names(struct buffer *out, const char *names)
{
	const char *separator = "";

	for (size_t n; *names; names += n + (names[n] == ' ')) {
		n = strcspn(names, " ");
		buffer_puts(out, separator);
		buffer_put_json(out, names, n, n);
		separator = ",";
	}
}

static void put_shared(struct buffer *out, const struct scheduler *s, const struct facts *facts,
		       uint64_t now)
{
	put_text(out, ",\"shared\":{\"state\":", shared_state_name(shared_state(&s->shared, now)));
	put_seconds(out, ",\"since\":", facts->shared_since);
	put_text(out, ",\"redis\":", s->config->redis);
	put_text(out, ",\"name\":", s->config->shared_name);
	put_number(out, ",\"hosts\":", s->config->shared_hosts);
	put_text(out, ",\"on_lost\":", s->config->on_lost == ON_LOST_HOLD ? "hold" : "share");
	buffer_puts(out, ",\"members\":[");
	put_names(out, shared_members(&s->shared));
	put_text(out, "],\"trouble\":", facts->shared_trouble ? facts->shared_trouble : "");
	put_number(out, ",\"calls\":", facts->shared_calls);
	put_number(out, ",\"hints\":", facts->shared_hints);
	put_number(out, ",\"connections_opened\":", facts->shared_opened);
	put_number(out, ",\"connections_failed\":", facts->shared_failed);
	buffer_puts(out, "}");
}

void status_print(struct buffer *out, const struct scheduler *s, const struct facts *facts,
		  uint64_t now)
{
	struct ledger sum;

	scheduler_sum(s, &sum);
	put_text(out, "\"version\":", facts->version);
	buffer_printf(out, ",\"pid\":%" PRId64, facts->pid);
	put_text(out, ",\"phase\":", facts->phase);
	put_seconds(out, ",\"started_at\":", facts->started_at);
	put_number(out, ",\"uptime_ms\":", facts->uptime / NSEC_PER_MSEC);
	put_text(out, ",\"config\":{\"path\":", facts->config_path);
	put_flag(out, ",\"last_reload_ok\":", facts->reload_ok);
	put_seconds(out, ",\"in_force_since\":", facts->reloaded_at);
	buffer_puts(out, "}");
	put_upstream(out, s, facts);
	put_shared(out, s, facts, now);
	put_number(out, ",\"clients\":", facts->clients);
	put_flag(out, ",\"socket_lost\":", facts->socket_lost);
	put_number(out, ",\"replies_discarded\":", facts->replies_discarded);
	put_number(out, ",\"replies_lost\":", facts->replies_lost);
	put_number(out, ",\"log_lines_lost\":", facts->log_lines_lost);
	put_number(out, ",\"queue_bytes\":", s->bytes);
	put_number(out, ",\"queue_bytes_max\":", s->config->queue_bytes);
	put_flag(out, ",\"ledger_consistent\":", scheduler_adds_up(s));
	put_fates(out, &sum);
	put_apps(out, s, now);
}
