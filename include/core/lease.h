/* SPDX-License-Identifier: MIT */
/* What this host holds of one AppID's tokens, where hosts share them. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base.h"
#include "core/config.h"
#include "core/heap.h"
#include "core/list.h"

struct shared;

/* A call that has not been answered. */
struct shared_sent {
	struct list link;    /* in struct shared's sent */
	struct lease *lease; /* NULL: the host's own */
	uint64_t at;
	bool is_whole; /* the engine knew at that time all that this host may use */
};

struct lease {
	struct shared *shared;  /* NULL: the AppID is this host's own */
	struct list link;       /* in struct shared's leases */
	struct list noted;      /* in its noted */
	struct list active;     /* in its active */
	struct list changed;    /* in its changed */
	struct heap_node timer; /* when a call is due */
	struct shared_sent sent;
	bool is_bye; /* what was sent */

	uint64_t held;   /* tokens that are ours by the engine's word, or not yet home */
	uint64_t target; /* how many of them may be used; fewer: the rest is to be returned */
	uint64_t gained; /* since the scheduler looked last */
	uint64_t share;  /* that is kept for us when we are cut off */
	uint64_t told_want;
	uint64_t told_held;
	uint64_t again_at;  /* when the engine said to ask again */
	uint64_t called_at; /* the last call */
	bool is_known;      /* the engine may have it in the books of this life */
	bool is_unsaid;     /* we may use what the engine does not know of */
	bool say_again;     /* the call under way was overtaken by what happened here */
	bool is_asked;      /* to tell, whatever has changed */
	bool is_ending;     /* to say goodbye */
	uint64_t doubtful;  /* tokens of what was aborted: it may arrive until it had timed out */
};

void lease_init(struct lease *l);

/* Makes it one of @s if the AppID is to be shared, or ends it if not. */
void lease_configure(struct lease *l, struct shared *s, uint64_t now);

/* Nothing is taken any more; it is detached once the engine knows. */
void lease_end(struct lease *l);

/* Whether nothing of it is left to be said. */
bool lease_has_ended(const struct lease *l);

/* Forgets it, without a word to anybody. */
void lease_detach(struct lease *l);

/* Something has happened to the AppID that may change what it wants or what it can give. */
void lease_note(struct lease *l);

/* How many tokens may be away. */
uint64_t lease_allotment(const struct lease *l, const struct app_config *c, uint64_t now);

/* For struct shared. */

/* How many of those that it holds may be used while it is in touch. */
uint64_t lease_usable(const struct lease *l);

/* How many tokens the AppID could use. */
uint64_t lease_want(struct lease *l, uint64_t now);

/* The scheduler is to look at the AppID: what it may use has changed. */
void lease_changed(struct lease *l);

/* The share to ask for. */
uint64_t lease_share_wanted(struct lease *l);

/* When a call is due; NEVER: not before something happens. */
uint64_t lease_due(struct lease *l, uint64_t now);

/* Whether others may have use of what the engine was not told of it. */
bool lease_has_news(struct lease *l, uint64_t now);

/* Whether it should ask when others come or go. */
bool lease_is_concerned(struct lease *l, uint64_t now);

/* How many it has to count as its own if it returns all that it can. */
uint64_t lease_keeps(struct lease *l, uint64_t now);

/* Out of touch: no more than the share is used. */
void lease_lapse(struct lease *l);

/* Likewise until the engine has answered what is said from now on. */
void lease_retreat(struct lease *l);

/* Out of touch for so long that all others leave us our share: it is used in full. */
void lease_grow(struct lease *l);

/* The engine's books are lost, or are another's: it must be told what we have. */
void lease_forget_known(struct lease *l);

void lease_set_unsaid(struct lease *l, bool is_unsaid);
