/* SPDX-License-Identifier: MIT */
#include "core/outcome.h"

#include <assert.h>

static const struct {
	const char *outcome;
	const char *reason;
} names[] = {
#define X(fate, outcome, reason) [fate] = { outcome, reason },
	FATES(X)
#undef X
};

const char *fate_outcome_name(enum fate f)
{
	assert(f < _FATE_N);
	return names[f].outcome;
}

const char *fate_reason_name(enum fate f)
{
	assert(f < _FATE_N);
	return names[f].reason;
}

uint64_t ledger_total(const struct ledger *l)
{
	uint64_t total = 0;

	for (size_t i = 0; i < _FATE_N; i++)
		total += l->n[i];
	return total;
}

void ledger_add(struct ledger *to, const struct ledger *l)
{
	for (size_t i = 0; i < _FATE_N; i++)
		to->n[i] += l->n[i];
}
