/* SPDX-License-Identifier: MIT */
#include "core/app.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int app_new(struct app **out, const struct app_config *config, uint64_t now)
{
	struct app *app = calloc(1, sizeof(*app));

	if (!app)
		return -ENOMEM;
	if (bucket_new_local(&app->bucket) < 0) {
		free(app);
		return -ENOMEM;
	}
	app->app_id = config->app_id;
	app->config = config;
	app->timer.owner = TIMER_APP;
	pacer_init(&app->pacer, config->rate, config->burst, now);
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
	bucket_free(app->bucket);
	free(app);
}

uint64_t app_rate(const struct app *app, uint64_t now)
{
	return limit_at(&app->limit, app->config->rate, now);
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

bool app_adds_up(const struct app *app)
{
	return app->accepted == ledger_total(&app->ledger) + app->n[REQUEST_QUEUED] +
					app->n[REQUEST_WAITING] + app->n[REQUEST_IN_FLIGHT];
}
