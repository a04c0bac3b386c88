/* SPDX-License-Identifier: MIT */
/* One message on its way: from a writer's line to its fate. One heap block. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base.h"
#include "core/config.h"
#include "core/list.h"
#include "core/outcome.h"

/* Each state is a list that a request is on (scheduler.c moves it between them). */
enum request_state {
	REQUEST_NEW,       /* on none: being parsed, or about to be freed */
	REQUEST_QUEUED,    /* its room's queue */
	REQUEST_IN_FLIGHT, /* its AppID's in flight */
	REQUEST_WAITING,   /* its AppID's waiting for another try */
	_REQUEST_STATE_N,
};

enum message_class {
	CLASS_SYSTEM,
	CLASS_CHAT,
	_CLASS_N
};

struct room;
struct user;

struct request {
	struct list link;   /* of its state */
	struct list tick;   /* in the scheduler's wheel while queued or waiting */
	struct list charge; /* in its user's while queued */
	struct user *user;  /* who wrote it; set before it is submitted */
	struct room *room;
	const struct app_config *app; /* from parse to submit only */
	void *writer;                 /* the edge's; whom to tell */
	void *transfer;               /* the transport's, while in flight */
	uint64_t accepted;            /* when it was submitted */
	uint64_t deadline;            /* not started after this */
	uint64_t at;                  /* in flight: started; waiting: next try */
	uint32_t sequence;            /* order of submission, modulo 2^32 */
	uint32_t ttl_ms;              /* 0: the AppID's max_age */
	uint16_t content_len;
	uint16_t id_len;     /* 0: no reply asked for */
	uint8_t room_id_len; /* lengths in bytes, without the NUL */
	uint8_t user_id_len;
	uint8_t user_name_len; /* 0: not given */
	uint8_t class;         /* enum message_class; MessageCategory is class + 1 */
	uint8_t state;         /* enum request_state */
	uint8_t attempts;      /* started so far */
	uint8_t signed_again;  /* after a "signature expired" */
	uint8_t in_doubt;      /* an attempt may have been accepted; see retry_ambiguous */
	char data[];           /* RoomId, UserId, UserName, MessageContent, id, each with a NUL */
};

static inline const char *request_room_id(const struct request *r)
{
	return r->data;
}

static inline const char *request_user_id(const struct request *r)
{
	return r->data + r->room_id_len + 1;
}

static inline const char *request_user_name(const struct request *r)
{
	return request_user_id(r) + r->user_id_len + 1;
}

static inline const char *request_content(const struct request *r)
{
	return request_user_name(r) + r->user_name_len + 1;
}

/* The id as the writer spelled it: a JSON string with its quotes, or an integer. */
static inline const char *request_id(const struct request *r)
{
	return request_content(r) + r->content_len + 1;
}

/* Bytes of memory that the request is charged for. */
static inline size_t request_size(const struct request *r)
{
	return sizeof(*r) + (size_t)r->room_id_len + r->user_id_len + r->user_name_len +
	       r->content_len + r->id_len + 5;
}

/* Why a line was refused. @id points into the line: the raw text of a valid id where
 * one was found, else NULL. @error is one sentence; what it quotes is valid UTF-8
 * without control characters, cut to 40 bytes. Bytes of a line are counted from 0.
 * request_parse() uses the first three fates; the edge those for lines that never got
 * so far. */
struct refusal {
	enum fate fate; /* FATE_INVALID, _UNKNOWN_APP, _MEMORY; _TOO_LONG, _TOO_MANY_CLIENTS */
	const char *id;
	size_t id_len;
	bool not_admitted; /* FATE_UNKNOWN_APP: it is configured, but not for this peer */
	uint32_t app_id;   /* FATE_UNKNOWN_APP: the AppId asked for */
	char error[256];
};

enum {
	_REQUEST_E_SUCCESS,
	REQUEST_E_REFUSED
};

/* Parses one line (docs/PROTOCOL.md, "A line"). @line[@n] is a NUL, put there by the
 * caller; @n > 0. On success the caller owns *@out, in state REQUEST_NEW with app set
 * and writer NULL. Returns 0 or REQUEST_E_REFUSED with *@why filled. */
int request_parse(struct request **out, const struct config *c, const struct peer *peer,
		  const char *line, size_t n, struct refusal *why);

/* Accepts NULL. */
void request_free(struct request *r);
DEFINE_CLEANUP(struct request *, request_free)
