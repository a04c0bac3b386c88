/* SPDX-License-Identifier: MIT */
/* One budget over many hosts: how many tokens of each shared AppID this host holds, by the
 * word of an engine (Redis or Valkey) that all of them ask. Pure: it makes the calls and
 * judges the answers; the edge carries them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base.h"

/* The script that keeps the books in the engine, NUL-terminated: shared.lua. */
extern const char shared_script[];

/* Bytes of a key or a channel, with the NUL. */
#define SHARED_KEY 160

#define SHARED_ARGS 16

/* One call of the script: EVALSHA sha 2 keys[0] keys[1] args[0] … args[n_args - 1], and
 * @members as one more argument where it is not NULL. */
struct shared_call {
	char keys[2][SHARED_KEY];
	char args[SHARED_ARGS][256];
	size_t n_args;
	const char *members; /* borrowed until the next call of any function here */
};

/* One element of a reply, which is always a flat array of integers and texts. */
struct shared_value {
	bool is_text;
	int64_t number;
	const char *text; /* borrowed, need not end with a NUL */
	size_t len;
};

/* What this host is to the others. */
enum shared_state {
	SHARED_OFF,      /* no [shared], or no AppID that is */
	SHARED_JOINING,  /* never yet in touch: what is shared waits */
	SHARED_IN_TOUCH, /* holds what the engine says */
	SHARED_LOST,     /* out of touch: on_lost says what that means */
	SHARED_TAKEN,    /* another process goes by this host's name: what is shared waits */
	_SHARED_STATE_N
};

/* Zeroed is SHARED_OFF. */
struct shared {
	enum shared_state state;
};

/* For the edge. It connects whenever shared_state() is not SHARED_OFF, loads the script,
 * subscribes to the channels and learns the server's run_id (INFO server) before it says
 * shared_up(). After each scheduler_run(), and after each function here, it drains
 * shared_next(). It runs the scheduler after each function that takes in something. */

/* The connection is ready; @run_id names the server process. */
void shared_up(struct shared *s, const char *run_id, uint64_t now);

/* It is gone: nothing outstanding will be answered. */
void shared_down(struct shared *s, uint64_t now);

/* The next call to send, while up; false: none now. */
bool shared_next(struct shared *s, struct shared_call *out, uint64_t now);

/* The reply to the oldest call outstanding; they come in order. @n = 0: an error reply. */
void shared_answer(struct shared *s, const struct shared_value *v, size_t n, uint64_t now);

/* A message on this host's channel or on the one for all. */
void shared_poked(struct shared *s, const char *message, size_t len, uint64_t now);

/* Whether the connection must be given up: an answer is overdue, or was not understood.
 * The edge closes it, says shared_down() and makes another. */
bool shared_is_stuck(const struct shared *s, uint64_t now);

/* When shared_next() is worth another call, or shared_is_stuck() another look; NEVER: not
 * before something happens. At or before @now means now. */
uint64_t shared_due(const struct shared *s, uint64_t now);

/* The channels to subscribe to: this host's own, and the one for all. */
void shared_channels(const struct shared *s, char own[SHARED_KEY], char all[SHARED_KEY]);

enum shared_state shared_state(const struct shared *s, uint64_t now);
const char *shared_state_name(enum shared_state state);

/* The last words: from now on shared_next() gives the tokens back and says goodbye.
 * Nothing that is shared may be started any more. */
void shared_leave(struct shared *s, uint64_t now);

/* Whether all that was to be said has been answered, or cannot be: there is no connection. */
bool shared_is_silent(const struct shared *s);
