/* SPDX-License-Identifier: MIT */
/* Tokens that come home one second after their request was answered. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base.h"

/* The window that no more than N requests may fall into, as we measure it: one second
 * and 500 µs, so that it is a second to a server whose clock runs slower than ours by the
 * 500 ppm within which NTP steers a clock. */
#define TOKENS_WINDOW (NSEC_PER_SEC + 500 * NSEC_PER_USEC)

/* Zeroed is "all at home". */
struct tokens {
	uint64_t *ring; /* when each comes home, oldest first; see tokens.c */
	uint32_t size;  /* a power of two, or 0 */
	uint32_t head;
	uint32_t cooling; /* used entries of the ring */
	uint32_t early;   /* the first of them that are at home by the credit alone */
	uint32_t reused;  /* entries whose token was taken again on credit */
	uint32_t held;    /* taken and not given back */
};

enum {
	_TOKENS_E_SUCCESS,
	TOKENS_E_NONE
};

/* Takes a token if fewer than @limit are away. @credit is what may be taken off each
 * answered token's time (credit.h). Returns 0; TOKENS_E_NONE with *@again set to when it
 * is worth asking again (NEVER: not before one is given back); or -ENOMEM. */
int tokens_take(struct tokens *t, uint64_t limit, uint64_t credit, uint64_t now, uint64_t *again);

/* When a token may be taken: at or before @now means now. Only a hint for the future. */
uint64_t tokens_ready_at(struct tokens *t, uint64_t limit, uint64_t credit, uint64_t now);

/* How many tokens are away: held, or not yet at home. */
uint64_t tokens_away(struct tokens *t, uint64_t credit, uint64_t now);

/* How many tokens have not come home by any measure: held, or answered less than a window
 * ago, whatever the credit. One that was taken again on credit is one. */
uint64_t tokens_resting(struct tokens *t, uint64_t now);

/* When fewer than @limit will be resting; NEVER: not before some are given back. */
uint64_t tokens_rested_at(struct tokens *t, uint64_t limit, uint64_t now);

/* Gives back a token that was taken. @answered: its own answer came, so that the credit
 * applies; else (timed out, reset, aborted) it may still be counted from now on. */
void tokens_give(struct tokens *t, bool answered, uint64_t now);

/* Gives back a token of which nothing was sent. */
void tokens_put_back(struct tokens *t);

/* When the last token is at home: NEVER while one is held, 0 when all are. */
uint64_t tokens_home_at(const struct tokens *t);

/* Frees the memory; all tokens are at home afterwards. */
void tokens_deinit(struct tokens *t);
