/* SPDX-License-Identifier: MIT */
#include "core/shared.h"

#include <assert.h>

void shared_up(struct shared *s, const char *run_id, uint64_t now)
{
}

void shared_down(struct shared *s, uint64_t now)
{
}

bool shared_next(struct shared *s, struct shared_call *out, uint64_t now)
{
	return false;
}

void shared_answer(struct shared *s, const struct shared_value *v, size_t n, uint64_t now)
{
}

void shared_poked(struct shared *s, const char *message, size_t len, uint64_t now)
{
}

bool shared_is_stuck(const struct shared *s, uint64_t now)
{
	return false;
}

uint64_t shared_due(const struct shared *s, uint64_t now)
{
	return NEVER;
}

void shared_channels(const struct shared *s, char own[SHARED_KEY], char all[SHARED_KEY])
{
	*own = '\0';
	*all = '\0';
}

enum shared_state shared_state(const struct shared *s, uint64_t now)
{
	return s->state;
}

const char *shared_state_name(enum shared_state state)
{
	static const char *const names[] = { "off", "joining", "in touch", "lost", "taken" };

	assert(state < _SHARED_STATE_N);
	return names[state];
}

void shared_leave(struct shared *s, uint64_t now)
{
}

bool shared_is_silent(const struct shared *s)
{
	return true;
}
