/* SPDX-License-Identifier: MIT */
/* What edge/redis.c is to the core, in virtual time: connections to one engine that delay
 * what they carry, hang, break, and deliver what was given up long ago. */
#pragma once

#include "engine.h"
#include "sim.h"

/* The engine as a process on some machine. */
struct redis {
	struct sim *sim;
	struct engine *engine;
	unsigned process; /* a number for each that was started */
	bool is_down;
	uint64_t frozen_until;
	uint64_t refuses_until; /* answers with an error, and does nothing */
	bool is_full;           /* no memory for more: writes fail, unless something is written */
	uint64_t takes;         /* ns for a call, in which it does nothing else */
	uint64_t busy_until;
	int64_t ahead;  /* ns, its clock less ours */
	double drift;   /* of its clock */
	uint64_t calls; /* that it has answered */
	uint64_t pokes; /* messages that it has published */
};

struct link {
	struct host *host;
	uint64_t way;    /* ns, least, in either direction */
	uint64_t jitter; /* ns, exponential with this mean */
	double spikes;   /* part of what is carried that takes up to two seconds more */
	double lost;     /* part of the pokes that are */
	bool is_up;
	bool is_connecting;
	unsigned connection; /* a number for each */
	unsigned process;    /* of the engine, that it goes to */
	unsigned broken;     /* that of one which carries nothing more, though nobody knows */
	uint64_t to_last;    /* when what was sent last arrives: nothing overtakes it */
	uint64_t from_last;
	uint64_t cut_until;  /* nothing passes */
	uint64_t deaf_until; /* nothing comes back */
	uint64_t mute_until; /* nothing goes there */
	char *pledge; /* a file of SHARED_INCARNATION bytes, which outlives the process; NULL: none */
	double sticks; /* chance that this file cannot be changed any more */
};

/* Gives a world an engine. */
struct redis *redis_new(struct sim *sim);

/* Accepts NULL. */
void redis_free(struct redis *r);

/* The process is killed; redis_start() starts another, with what engine_dump() kept of the
 * store, or with nothing. */
void redis_kill(struct redis *r);
void redis_start(struct redis *r, bool with_dump);

/* Microseconds of its clock. */
uint64_t redis_time(const struct redis *r);

struct link *link_new(struct host *h);

/* After the scheduler has run and wants to be called at @next: carries what is to be carried.
 * Returns when to run again. */
uint64_t link_turn(struct host *h, uint64_t next);

/* The connection breaks, and the host sees it. */
void link_break(struct host *h);
