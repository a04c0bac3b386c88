/* SPDX-License-Identifier: MIT */
/* One budget over many hosts: how many tokens of each shared AppID this host holds, by the
 * word of an engine (Redis or Valkey) that all of them ask. Pure: it makes the calls and
 * judges the answers; the edge carries them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base.h"
#include "core/heap.h"
#include "core/lease.h"
#include "core/list.h"

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

/* A call of a lease, or one of the host itself. */
struct shared_host_call {
	struct shared_sent sent;
	enum shared_op {
		SHARED_HELLO,
		SHARED_BEAT,
		SHARED_LEAVE
	} op;
};

#define SHARED_LIFE        128
#define SHARED_INCARNATION 24

/* Zeroed is SHARED_OFF. */
struct shared {
	const struct config *config;          /* borrowed */
	char incarnation[SHARED_INCARNATION]; /* of this process */
	char found[SHARED_INCARNATION]; /* of one before it, that has left a pledge; "": none */
	uint64_t sequence;              /* of the last call */
	uint64_t settle;                /* after what time nothing is under way or resting, ns */

	/* The connection. */
	bool up;
	bool stuck;
	char run_id[64];
	uint64_t hello_at; /* when to say hello; NEVER: said */
	uint64_t helloed_at;
	bool says_again;              /* hello, at once */
	uint64_t beat_at;             /* when the next beat is due */
	uint64_t beaten_at;           /* when the last one, or hello, was sent */
	struct shared_host_call call; /* one at a time */
	size_t n_sent;
	uint64_t may_send; /* of n_sent: when there are as many, AppIDs wait */
	struct list sent;  /* of struct shared_sent, the oldest first */

	/* What the engine knows of us, and we of it. */
	char life[SHARED_LIFE]; /* "": it never knew us */
	bool joined;            /* it has a record of us, as far as we know */
	bool taken;
	bool in_touch;
	bool has_grown;       /* out of touch for so long that shares are used in full */
	uint64_t lease_until; /* in touch: until then, unless an answer comes */
	uint64_t grows_at;
	uint64_t shares_at;  /* when to ask for shares: from then on the others know our name */
	uint64_t heard;      /* the engine's time at the last whole call, ms */
	uint64_t greatest;   /* of everybody's settle, ms */
	char *members;       /* names of those who share when they are cut off */
	uint64_t members_at; /* the engine's time of that, ms */

	struct list leases; /* of struct lease, in each of these */
	struct list noted;  /* something happened to them in this turn */
	struct list active; /* what they want may not be what was told */
	struct list changed;
	struct heap timers; /* of leases: when one is due */
	size_t n_unsaid;    /* leases */

	bool has_pledged; /* as shared_pledge() said last */

	bool leaving;
	bool left;
};

/* For the scheduler. */

void shared_init(struct shared *s);
void shared_deinit(struct shared *s);

/* Puts @c in force; @incarnation is random. lease_configure() follows for each AppID. */
void shared_configure(struct shared *s, const struct config *c, uint64_t incarnation, uint64_t now);

/* The next lease that holds more than before, or that has ended; NULL: none. */
struct lease *shared_pop_changed(struct shared *s, uint64_t now);

/* Looks at what happened in this turn. */
void shared_plan(struct shared *s, uint64_t now);

/* Whether the engine's word holds. */
bool shared_is_in_touch(const struct shared *s, uint64_t now);

/* When the shares may be used in full, though nobody says a word; NEVER. */
uint64_t shared_grows_at(const struct shared *s, uint64_t now);

/* For the edge. It connects whenever shared_state() is not SHARED_OFF, loads the script,
 * subscribes to the channels and learns the server's run_id (INFO server) before it says
 * shared_up(). After each scheduler_run(), and after each function here, it drains
 * shared_next(). It runs the scheduler after each function that takes in something. */

/* A process that is killed may have been one that was cut off and had gone on with its share
 * until just now; so what that may have been is counted beside the share of the next process,
 * which comes back to it late. But for one that has left behind a pledge that it sends by the
 * engine's word alone. */

/* Whether it is to be left, or taken back, in this turn: the edge writes s->incarnation where
 * the next process of this host will find it, or nothing in its place, and says
 * shared_pledge(). What was there before is left alone until then. */
bool shared_has_to_pledge(struct shared *s, uint64_t now);

/* That is done. A pledge that was not taken back is kept. */
void shared_pledge(struct shared *s, uint64_t now);

/* What the process before this one has left, before the first shared_up(). It must have
 * ended. */
void shared_found(struct shared *s, const char *incarnation);

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

/* The names of those for whom a share is kept, as the last beat told, this host among them:
 * those who share when they are cut off, in touch or not. With a blank between each two. */
const char *shared_members(const struct shared *s);

/* The last words: from now on shared_next() gives the tokens back and says goodbye.
 * Nothing that is shared may be started any more. */
void shared_leave(struct shared *s, uint64_t now);

/* Whether all that was to be said has been answered, or cannot be: there is no connection. */
bool shared_is_silent(const struct shared *s);
