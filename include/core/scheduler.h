/* SPDX-License-Identifier: MIT */
/* The heart: which message is started when, and what becomes of it. Pure: it is told the
 * time, it calls a transport, and it says when it wants to be called next. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/answer.h"
#include "core/app.h"
#include "core/config.h"
#include "core/credit.h"
#include "core/heap.h"
#include "core/list.h"
#include "core/outcome.h"
#include "core/reply.h"
#include "core/request.h"
#include "core/room.h"
#include "core/shared.h"
#include "core/sign.h"
#include "core/upstream.h"
#include "core/user.h"
#include "core/wheel.h"

/* What carries requests to the API: edge/transfer.c, or a simulator. */
struct transport {
	/* Sends one attempt. Never completes before it returns; later, unless aborted,
	 * scheduler_complete() is called exactly once. @s is borrowed until it returns.
	 * Returns 0; or a negative errno, and then nothing was sent and nothing follows. */
	int (*start)(struct transport *t, struct request *r, const struct signature *s);
	/* Ends an attempt at once; scheduler_complete() is not called for it. */
	void (*abort)(struct transport *t, struct request *r);
};

/* Things that an operator may want to know; the edge logs them. */
enum scheduler_event_type {
	EVENT_STARTED,       /* @request is on its way */
	EVENT_RETRY,         /* @request waits for another try, after @verdict */
	EVENT_SLOWED,        /* the AppID's N fell to @value, after @verdict */
	EVENT_ROOM_SLOWED,   /* the room's fell to @value */
	EVENT_HALTED,        /* the AppID is halted, after @verdict */
	EVENT_RESUMED,       /* the AppID is no longer halted */
	EVENT_UPSTREAM_DOWN, /* the last attempt ended as @verdict */
	EVENT_UPSTREAM_UP,
	EVENT_OVER_SHARE, /* messages of user @value make way for those of others */
	_EVENT_N
};

struct scheduler_event {
	enum scheduler_event_type type;
	const struct app *app;         /* NULL for the upstream's */
	const struct request *request; /* NULL where none is concerned */
	const struct verdict *verdict; /* NULL where none led to it */
	uint64_t value;
};

/* What the scheduler needs from the world. None of these may call it back. */
struct scheduler_ops {
	/* @r has met its fate; it is freed on return. */
	void (*fate)(void *arg, struct request *r, const struct fate_report *f);
	void (*event)(void *arg, const struct scheduler_event *e);
	/* Fills @out with random bytes; 0, or negative when there are none. */
	int (*random)(void *arg, void *out, size_t n);
};

struct scheduler {
	const struct config *config; /* borrowed */
	struct transport *transport; /* borrowed */
	const struct scheduler_ops *ops;
	void *arg; /* for ops */

	struct app **apps;      /* parallel to config->apps */
	struct app_gate *gates; /* likewise */
	size_t n_apps;
	struct list retired; /* removed AppIDs with something under way or tokens not yet home */
	struct rooms rooms;
	struct users users;

	struct wheel wheel;   /* age limits and retries of messages */
	struct heap timers;   /* of AppIDs and rooms */
	size_t n_timed;       /* how many AppIDs and rooms there are */
	struct list runnable; /* AppIDs that may be able to start something */
	struct heap crowded;  /* those that have their share of max_in_flight, by what they have */
	uint32_t crowded_turn;

	struct shared shared;
	struct signer signer;
	struct credit_estimate credit;
	struct upstream upstream;
	uint64_t upstream_since; /* what was started before went to another server */
	int64_t wall_offset;     /* wall clock less ours, ns */

	uint64_t absent_until; /* of the room that is remembered longest as absent */

	size_t in_flight;
	size_t bytes;      /* charged for messages, from submit to fate */
	uint32_t sequence; /* of the last submitted request */
	bool draining;
	struct ledger refused; /* lines that never became a request of an AppID */
	struct ledger gone;    /* of AppIDs that were removed */
};

/* Prepares a scheduler without AppIDs. Returns 0, -ENOMEM or -ENOTSUP (no MD5). */
int scheduler_init(struct scheduler *s, struct transport *t, const struct scheduler_ops *ops,
		   void *arg, uint64_t now);

/* Frees everything. Nothing may be queued or under way (scheduler_abort()). */
void scheduler_deinit(struct scheduler *s);

/* Puts @c in force, for the first time or in place of another; it is borrowed until the
 * next call or scheduler_deinit(). Queues, tokens and requests under way live on; what is
 * queued for a removed AppID is dropped. Returns 0, or -ENOMEM and nothing has changed. */
int scheduler_configure(struct scheduler *s, const struct config *c, uint64_t now);

/* Tells the wall clock, for the signatures' Timestamp. */
void scheduler_set_wall(struct scheduler *s, int64_t unix_ns, uint64_t now);

/* Takes a parsed request, whose @app is one of the configuration in force and whose @user
 * is a reference from users_get(). It is the scheduler's from here on and its fate may be
 * told before this returns. Returns 0. */
int scheduler_submit(struct scheduler *s, struct request *r, uint64_t now);

/* Counts a line that was refused before it became a request. */
void scheduler_refuse(struct scheduler *s, enum fate fate);

/* Starts what may be started, drops what is too old. Returns when it wants to be called
 * again, NEVER for "not before something happens"; always later than @now. */
uint64_t scheduler_run(struct scheduler *s, uint64_t now);

/* An attempt has ended; @a is borrowed. */
void scheduler_complete(struct scheduler *s, struct request *r, const struct answer *a,
			uint64_t now);

/* The server behind the transport is, or may be, another one than before. */
void scheduler_upstream_changed(struct scheduler *s, uint64_t now);

/* Stops or goes on starting messages of one AppID; they are taken in all the same. */
void scheduler_pause(struct scheduler *s, struct app *app, bool paused);

/* From now on what is submitted is dropped as FATE_SHUTDOWN; the rest goes on. */
void scheduler_drain(struct scheduler *s);

/* Drops everything that waits, as FATE_SHUTDOWN. */
void scheduler_drop(struct scheduler *s, uint64_t now);

/* Also aborts everything under way, as FATE_NETWORK: unknown whether it arrived. */
void scheduler_abort(struct scheduler *s, uint64_t now);

/* Whether nothing is queued, waiting or in flight. */
bool scheduler_is_empty(const struct scheduler *s);

/* The AppID, or NULL. */
struct app *scheduler_app(const struct scheduler *s, uint32_t app_id);

/* All fates since the start. */
void scheduler_sum(const struct scheduler *s, struct ledger *out);

/* Whether every line of every AppID is accounted for. */
bool scheduler_adds_up(const struct scheduler *s);
