/* SPDX-License-Identifier: MIT */
#include "core/app.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "core/room.h"

int app_new(struct app **out, const struct app_config *config, uint64_t now)
{
	struct app *app = calloc(1, sizeof(*app));

	if (!app)
		return -ENOMEM;
	app->app_id = config->app_id;
	app->config = config;
	app->timer.owner = TIMER_APP;
	pacer_init(&app->pacer, config->rate, config->burst, now);
	lease_init(&app->lease);
	list_init(&app->link);
	list_init(&app->runnable);
	list_init(&app->rooms);
	for (size_t i = 0; i < _CLASS_N; i++)
		list_init(&app->turns[i]);
	for (size_t i = 0; i < _REQUEST_STATE_N; i++)
		list_init(&app->in[i]);
	*out = app;
	return 0;
}

void app_free(struct app *app)
{
	if (!app)
		return;
	assert(app->n_rooms == 0);
	assert(!heap_holds(&app->timer.node));
	list_unlink(&app->link);
	list_unlink(&app->runnable);
	for (size_t i = 0; i < _CLASS_N; i++)
		heap_deinit(&app->longest[i]);
	lease_detach(&app->lease);
	tokens_deinit(&app->tokens);
	free(app);
}

uint64_t app_rate(const struct app *app, uint64_t now)
{
	return limit_at(&app->limit, app->config->rate, now);
}

uint64_t app_allotment(const struct app *app, uint64_t now)
{
	return min_u64(lease_allotment(&app->lease, app->config, now), app->config->rate);
}

uint64_t app_limit(const struct app *app, uint64_t now)
{
	uint64_t allotment = app_allotment(app, now);
	uint64_t rate = app_rate(app, now);

	if (allotment == app->config->rate || allotment == 0)
		return min_u64(allotment, rate);
	/* Where the API finds all of us too fast, each gives way by as much. */
	return max_u64(allotment * rate / app->config->rate, 1);
}

uint64_t app_share(const struct app *app)
{
	if (app->lease.shared)
		return app->lease.share;
	return app->config ? app->config->rate : 0;
}

enum app_state app_state(const struct app *app, uint64_t now)
{
	if (!app->config)
		return APP_REMOVED;
	if (app->halted)
		return APP_HALTED;
	if (app->paused)
		return APP_PAUSED;
	if (max_u64(app->held_until, app->limit.held_until) > now)
		return APP_HELD;
	return app_rate(app, now) < app->config->rate ? APP_SLOWED : APP_RUNNING;
}

const char *app_state_name(enum app_state state)
{
	static const char *const names[] = {
#define X(state, name) [state] = name,
		APP_STATES(X)
#undef X
	};

	assert(state < _APP_STATE_N);
	return names[state];
}

uint64_t app_tokens(struct app *app, uint64_t credit, uint64_t now)
{
	uint64_t away = tokens_away(&app->tokens, credit, now);
	uint64_t limit = app->config ? app_limit(app, now) : 0;

	return limit > away ? limit - away : 0;
}

uint64_t app_oldest(const struct app *app, uint64_t now)
{
	uint64_t first = now;

	list_for_each (node, &app->rooms) {
		const struct room *room = list_entry(node, struct room, link);

		for (size_t i = 0; i < _CLASS_N; i++) {
			const struct lane *lane = &room->lanes[i];

			if (lane->n > 0)
				first = min_u64(
					first,
					list_first(&lane->queue, struct request, link)->accepted);
		}
	}
	list_for_each (node, &app->in[REQUEST_WAITING])
		first = min_u64(first, list_entry(node, struct request, link)->accepted);
	return now - first;
}

void app_count_code(struct app *app, int64_t code)
{
	size_t i = 0;

	while (i < app->n_codes && app->codes[i].code != code)
		i++;
	if (i == APP_CODES) {
		app->other_codes++;
		return;
	}
	if (i == app->n_codes) {
		app->codes[i].code = code;
		app->n_codes++;
	}
	app->codes[i].n++;
}

static uint64_t at_gate(const struct app *app)
{
	return app->gate ? app->gate->refused : 0;
}

uint64_t app_accepted(const struct app *app)
{
	return app->accepted + at_gate(app);
}

struct ledger app_ledger(const struct app *app)
{
	struct ledger l = app->ledger;

	l.n[FATE_QUEUE_FULL] += at_gate(app);
	return l;
}

void app_set_gate(struct app *app, struct app_gate *gate)
{
	app->accepted += at_gate(app);
	app->ledger.n[FATE_QUEUE_FULL] += at_gate(app);
	app->gate = gate;
}

bool app_is_full(const struct app *app)
{
	return app->n[REQUEST_QUEUED] + app->n[REQUEST_WAITING] >= app->config->queue.queue_max;
}

void app_settle_gate(struct app *app)
{
	if (!app->gate)
		return;
	app->gate->closed =
		!app->halted && app->config->queue.overflow == OVERFLOW_NEWEST && app_is_full(app);
}

bool app_adds_up(const struct app *app)
{
	return app->accepted == ledger_total(&app->ledger) + app->n[REQUEST_QUEUED] +
					app->n[REQUEST_WAITING] + app->n[REQUEST_IN_FLIGHT];
}
