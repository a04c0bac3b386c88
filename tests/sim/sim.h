/* SPDX-License-Identifier: MIT */
/* A world in virtual time around the daemon's own core: hosts with a scheduler each, a
 * network with vices, a server that counts what arrives. One seed is one run, the same to
 * the byte every time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/scheduler.h"

#define MS  NSEC_PER_MSEC
#define SEC NSEC_PER_SEC

#define SIM_HOSTS  128
#define SIM_APPS   1024
#define SIM_GROUPS 3
#define WAIT_MOST  70000

/* A message that is past its age is told so within 50 ms of it (design, "What goes first,
 * and what goes at all"). */
#define EXPIRY_MOST (50 * MS)

struct sim;
struct host;
struct link;
struct redis;

/* One way of the network is base + jitter + now and then a spike; the two ways and every
 * request are independent, so requests overtake each other. */
struct network {
	const char *name;
	uint64_t out;    /* ns, least time from the host to the server */
	uint64_t back;   /* ns, least time from the server to the host */
	uint64_t jitter; /* ns, on each way: exponential with this mean, cut at eight times it */
	double spikes;   /* part of the requests that meet one, on either way */
	uint64_t spike_least;
	uint64_t spike_most;
	double lost; /* part of the requests or answers that never arrive, or so late that the
		      * host has given up */
};

extern const struct network network_lan;
extern const struct network network_wan;
extern const struct network network_wan_spikes;
extern const struct network network_mobile_bad;

/* What the server enforces. All count every arrival, refused or not. */
enum limiter {
	LIMITER_NONE,
	LIMITER_SLIDING_LOG,
	LIMITER_FIXED_WINDOW, /* aligned anywhere: server.window_offset */
	LIMITER_TOKEN_BUCKET, /* depth and rate N */
	LIMITER_GCRA,         /* no burst at all */
	_LIMITER_N,
};

extern const char *const limiter_names[_LIMITER_N];

/* One AppID's account at the server. */
struct account {
	uint32_t app_id;
	uint64_t n;
	uint64_t next_n; /* from next_at on, after a reload */
	uint64_t room_n; /* of each of its rooms */
	uint64_t next_room_n;
	uint64_t next_at;
	/* The arrivals of the last second, for the verdict and the sliding log. A second by
	 * the server's clock; our own accounts are for the slowest that NTP would steer. */
	uint64_t second;
	uint64_t *recent;
	size_t size;
	size_t head;
	size_t used;
	uint64_t most; /* in any second */
	uint64_t arrivals;
	uint64_t refused;
	uint64_t window; /* fixed window: its number, and how many came in it */
	uint64_t in_window;
	double level; /* token bucket, GCRA */
	uint64_t level_at;
};

/* A message under way. */
struct flight {
	struct host *host;
	struct request *request; /* NULL once the host has its end */
	uint32_t app_id;
	uint32_t room;
	uint64_t started;
	uint64_t written; /* after a handshake, if any */
	bool kept;        /* on a kept connection */
	bool lost;
	bool is_shared;  /* its AppID was, when it was started */
	uint64_t back;   /* the answer's way */
	unsigned events; /* that still refer to it */
	/* The answer, once the server has made it. */
	enum transport_result result;
	unsigned status;
	uint64_t retry_after;
	int64_t code;
};

/* What the server answers to one arrival: sets f->code, or status, or result. */
typedef void (*answer_fn)(struct sim *sim, struct flight *f);

struct server {
	enum limiter limiter;
	uint64_t window_offset;
	uint64_t busy;    /* ns from arrival to answer */
	answer_fn answer; /* NULL: Code 0 */
	struct account accounts[SIM_APPS];
	size_t n_accounts;
};

/* One submitted line. */
struct message {
	uint32_t app_id;
	uint32_t room; /* the number in its RoomId */
	uint8_t class;
	uint64_t number; /* in its room and class, from 1 */
	uint64_t submitted;
	uint64_t deadline;
	uint64_t started; /* first; 0: never */
	size_t size;
	unsigned starts;
	bool accepted;     /* the host knows that the server took it */
	bool in_doubt;     /* the host cannot know whether it did */
	bool signed_again; /* the server found a signature expired */
	int group;
};

/* A second account of an AppID's tokens (promise.c). */
struct purse {
	uint64_t held_until; /* by Retry-After */
	size_t in_flight;
	uint64_t *ended; /* when those that may not be at home ended: a ring */
	size_t size;
	size_t head;
	size_t used;
};

/* Times to come, in their order. */
struct air {
	uint64_t *at;
	size_t n;
	size_t size;
};

struct host {
	struct transport transport;
	struct sim *sim;
	struct scheduler scheduler;
	struct config *config;
	const struct network *network; /* its way to the server; NULL: the world's */
	struct link *link;             /* to redis; NULL: it shares nothing */
	bool is_dead;                  /* it was killed, or has ended */
	uint64_t run_at;               /* the deadline it asked for */
	uint64_t next_run;             /* that its scheduler asked for */
	uint64_t run_event;            /* that is to come at it */
	uint64_t stalled_until;        /* the process does not run before */
	size_t kept;                   /* idle connections */
	size_t in_flight;
	unsigned reloads; /* a lower limit does not undo what was taken under a higher one */
	size_t bytes;     /* charged by what we submitted and saw end */
	uint64_t accepted;
	uint64_t fates[_FATE_N];
	uint64_t events[_EVENT_N];
	struct account seen[SIM_APPS];   /* what arrived from this host, by AppID */
	struct account shared[SIM_APPS]; /* of that, what was started on a shared budget */
	uint64_t had[SIM_APPS];          /* its allotments in its last turn */
	struct air in_air[SIM_APPS];     /* when what of that is on its way will arrive */
	struct account **seen_rooms;     /* likewise, by AppID and room */
	size_t n_seen_rooms;
	struct purse purses[SIM_APPS];
	uint64_t least_credit[2]; /* of the last seconds; promise.c's own */
	uint64_t credit_since;
	uint64_t turns;
	uint64_t most_timeout; /* of any configuration so far */
	uint64_t most_retries; /* that any configuration so far allows */
	bool ever_ambiguous;   /* one allowed to retry where it is unknown what happened */
	uint8_t incoming;      /* the class of what is being submitted, its size and its user */
	size_t incoming_size;
	struct user *incoming_user;
	uint32_t incoming_app;
	struct user *users[SIM_GROUPS];          /* each group writes as a user of its own */
	uint64_t *numbers;                       /* last submitted, by AppID, room and class */
	uint64_t *last_started;                  /* first starts likewise */
	uint64_t wait_ms[SIM_GROUPS][WAIT_MOST]; /* histogram of the waits of what was sent */
	uint64_t sent[SIM_GROUPS];
	uint64_t offered[SIM_GROUPS];
};

/* A stream of lines. */
struct writer {
	struct host *host;
	uint32_t app_id;
	uint32_t room;   /* the first of its rooms */
	uint32_t rooms;  /* how many, taken at random; 0: 1 */
	double rate;     /* lines a second, at random times */
	unsigned burst;  /* lines at once; 0: 1 */
	double system;   /* part that are system messages */
	uint32_t ttl_ms; /* 0: max_age */
	uint64_t for_ns; /* how long it goes on; 0: until sim_settle() */
	int group;       /* whose waits are counted together; a user of its own */
	uint64_t until;  /* set by sim_write(), as the number */
	uint64_t number;
};

typedef void (*action_fn)(struct sim *sim);
typedef void (*told_fn)(struct sim *sim, const struct message *m, const struct fate_report *f);

struct event;

struct sim {
	uint64_t seed;
	uint64_t random;
	uint64_t now;
	int64_t wall; /* wall clock less ours */
	const struct network *network;
	struct redis *redis; /* where hosts share (link.h); NULL: there is none */
	struct server server;
	struct host *hosts[SIM_HOSTS];
	size_t n_hosts;
	struct event *events;
	size_t n_events;
	size_t events_size;
	uint64_t n_handled;
	uint64_t trace; /* a hash of all that has happened */
	uint64_t event_number;
	uint64_t lateness;      /* ns, most by which a timer is late */
	size_t content;         /* bytes of a MessageContent */
	double start_failures;  /* part of the attempts that the transport refuses */
	double random_failures; /* part of the draws that give no random bytes */
	bool starved;           /* allocations fail: answers may not be understood */
	uint32_t rooms;         /* more than any room's number; set before the first host */
	uint64_t n_writers;
	uint64_t writers_ended; /* those up to this number */
	bool relaxed;           /* more than N at the server is for the scenario to judge */
	told_fn told;           /* hears of every fate; may be NULL */
	void *told_arg;         /* for its use */
	char failure[256];      /* the first broken promise; "" while all are kept */
};

/* Whether the daemon's core is running, rather than the world around it: for those that
 * let its allocations fail. */
extern bool sim_in_core;

/* Makes a world at some random time. */
struct sim *sim_new(uint64_t seed, const struct network *n, enum limiter limiter);
void sim_free(struct sim *sim);

/* A configuration: for each section "key = value" pairs with ";" between them, or NULL.
 * AppIDs are numbered from @first_app (0: from 1) on; all have the keys of @app. */
struct sim_config {
	const char *daemon;
	const char *upstream;
	const char *queue;
	const char *app;
	const char *shared; /* redis, if it is given, is sim->redis */
	uint32_t n_apps;    /* 0: 1 */
	uint32_t first_app;
};

/* Adds a host. startup_hold is 0 unless given. */
struct host *sim_host(struct sim *sim, const struct sim_config *c);

/* Puts another configuration in force on a host. Returns 0, or -ENOMEM and nothing has
 * changed. */
int sim_reload(struct host *h, const struct sim_config *c);

/* kill -9: it says goodbye to nobody; what it has sent is under way. */
void sim_kill(struct host *h);

/* Its way to the server. */
const struct network *sim_network(const struct host *h);

/* What happens on a link: returns the host that wakes up by it, or NULL. @what is freed with
 * the world if it has not happened by then. */
typedef struct host *(*parcel_fn)(struct sim *sim, void *what);
void sim_post(struct sim *sim, uint64_t at, parcel_fn fn, void *what);

/* Lets a host's loop turn once, as it does after whatever is done to its scheduler. */
void sim_turn(struct host *h);

/* Starts a writer; it is copied. */
void sim_write(struct sim *sim, const struct writer *w);

/* Ends all writers. */
void sim_stop_writing(struct sim *sim);

/* Submits one line now. */
void sim_submit(struct host *h, uint32_t app_id, uint32_t room, enum message_class class,
		uint32_t ttl_ms, int group);

/* Calls @fn at a time from now. */
void sim_at(struct sim *sim, uint64_t after, action_fn fn);

/* Lets time pass, to the given time from now or to the first broken promise. */
void sim_run(struct sim *sim, uint64_t for_ns);

/* Ends all writers, waits until every host is empty and every token at home, and checks
 * that it is so. */
void sim_settle(struct sim *sim);

/* Notes a broken promise; the first is kept. */
void sim_fail(struct sim *sim, const char *format, ...)
	__attribute__((__format__(__printf__, 2, 3)));

/* Chance: 0 ≤ x < 1, any network, and 0 ≤ n < most. */
double sim_chance(struct sim *sim);
const struct network *sim_any_network(struct sim *sim);
uint64_t sim_below(struct sim *sim, uint64_t most);

/* The AppID's account at the server, or what came from one host. */
struct account *sim_account(struct sim *sim, uint32_t app_id);

/* What all hosts together may use and have used of a budget that they share. */
void sim_check_sum(struct sim *sim, uint32_t app_id);

/* Counts an arrival now. Returns whether the limiter lets it pass. */
bool sim_arrive(struct sim *sim, struct account *a);

/* How long one way through the network takes this time. */
uint64_t sim_way(struct sim *sim, uint64_t least, bool spike);

/* The wait in ms below which the given part of a group's sent messages stayed. */
uint64_t sim_wait(const struct host *h, int group, double part);

/* Arrivals ÷ (N × seconds). */
double sim_use(const struct account *a, uint64_t ns);
