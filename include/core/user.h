/* SPDX-License-Identifier: MIT */
/* What each local user takes of what is there for all: connections, memory for replies
 * and queued messages. One who floods must not take the others' share. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/heap.h"
#include "core/list.h"
#include "core/request.h"

/* What an operator is told of a user, once. */
enum user_breach {
	USER_UNKNOWN_APP,  /* asked for an AppID that is not configured */
	USER_NOT_ADMITTED, /* asked for an AppID of others */
	USER_CONNECTIONS,  /* more of them than its share */
	USER_REPLIES,      /* leaves more of them unread than its share */
	USER_QUEUE,        /* its messages made way for those of others */
	_USER_BREACH_N
};

struct user {
	uint32_t uid;
	size_t n_references; /* of connections and requests */
	size_t connections;
	size_t reply_bytes;             /* that its writers have not read yet */
	size_t queued_bytes;            /* of its messages in rooms' queues */
	struct list queued[_CLASS_N];   /* those messages, in the order in which they were queued */
	struct heap_node heaviest;      /* in users' heaps while it has any of them, or */
	struct heap_node heaviest_chat; /* any chat; key ~queued_bytes in both */
	struct list link;               /* in users' list */
	bool has_been_told[_USER_BREACH_N];
};

/* Zero it and initialise the list before use. */
struct users {
	struct list list;
	size_t n;
	size_t n_idle; /* kept for what the operator has been told of them */
	struct heap heaviest;
	struct heap heaviest_chat;
};

void users_init(struct users *us);

/* All references must have been given back. */
void users_deinit(struct users *us);

/* The user with one more reference, or NULL when there is no memory. */
struct user *users_get(struct users *us, uint32_t uid);
void users_put(struct users *us, struct user *u);

/* One more reference. */
static inline struct user *user_ref(struct user *u)
{
	u->n_references++;
	return u;
}

/* Takes a message that has been queued into account, or no longer. */
void users_queue(struct users *us, struct request *r);
void users_unqueue(struct users *us, struct request *r);

/* The user with most bytes queued of those who have anything that may make way for a message
 * of @class, or NULL: chat makes way for anything, a system message only for another. */
struct user *users_heaviest(const struct users *us, enum message_class class);

/* Whether the operator should be told: true once for each user and kind. */
bool user_tell(struct user *u, enum user_breach breach);

/* Lets every breach be told once more. */
void users_forget_told(struct users *us);

/* The most that one may have of @total when all have @used and it has @mine: half of what
 * the others leave. However many take all they can, something is left for the next. */
static inline uint64_t share_of(uint64_t total, uint64_t used, uint64_t mine)
{
	uint64_t others = used - mine;

	return others < total ? (total - others) / 2 : 0;
}
