/* SPDX-License-Identifier: MIT */
/* What came back for one attempt, and what it means. The table of ZEGO's return
 * codes lives in answer.c and nowhere else. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/base.h"
#include "core/outcome.h"

/* How an attempt ended, as the transport saw it. */
enum transport_result {
	TRANSPORT_ANSWERED, /* a whole HTTP answer; status and body are set */
	TRANSPORT_DNS,
	TRANSPORT_CONNECT,
	TRANSPORT_TLS,
	TRANSPORT_TIMEOUT,
	TRANSPORT_NETWORK, /* lost on the way */
	TRANSPORT_BROKEN,  /* an answer that is not HTTP, or too large */
	TRANSPORT_MEMORY,
	TRANSPORT_INTERNAL,
	_TRANSPORT_N,
};

struct answer {
	enum transport_result result;
	bool written;         /* false: surely no byte of the request left */
	unsigned status;      /* HTTP, 0 unless TRANSPORT_ANSWERED */
	uint64_t retry_after; /* ns, 0: not given; already clamped to 0.1 s … 60 s */
	uint64_t
		round_trip; /* ns from request written to first byte on a kept connection; 0: unknown */
	const char *body; /* body[body_len] is a NUL; NULL where body_len is 0 */
	size_t body_len;
};

/* What to do about it (zego-api.md, "Return codes, by what to do"). */
enum verdict_class {
	VERDICT_OK,
	VERDICT_RETRY,      /* surely not accepted: try again */
	VERDICT_SLOW_APP,   /* 206, 7, HTTP 429: and try again */
	VERDICT_SLOW_ROOM,  /* 207: and try again */
	VERDICT_SIGN_AGAIN, /* 100000004: once, then halt */
	VERDICT_DROP,
	VERDICT_DROP_ROOM, /* the room does not exist */
	VERDICT_HALT,      /* a configuration fault of the AppID */
	VERDICT_UNKNOWN,   /* a code not in the table: one more try, then drop */
	VERDICT_UNREACHED, /* nothing was written: try again, it is safe */
	VERDICT_AMBIGUOUS, /* unknown whether it was accepted */
	_VERDICT_N,
};

/* Strings are NUL-terminated, cut between characters; "" where absent. They are raw:
 * whoever prints them escapes them. */
struct verdict {
	enum verdict_class class;
	enum fate fate; /* what the message ends as if there is no other try */
	bool has_code;
	int64_t code;
	unsigned status;
	char message[256];
	char message_id[128];
	char request_id[64];
};

/* Reads an attempt's answer. A body that parses and has an integer Code decides,
 * whatever the HTTP status; else status and transport decide. Never fails: what cannot be
 * read is VERDICT_AMBIGUOUS with FATE_ANSWER. */
void answer_judge(const struct answer *a, struct verdict *v);

/* The class of one return code. */
enum verdict_class answer_class(int64_t code);
