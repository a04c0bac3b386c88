/* SPDX-License-Identifier: MIT */
/*
 * Programs read these lines, so each fate has a fixed set of members in a fixed order, by
 * one table. What came from elsewhere (ZEGO's strings, our sentences that quote a
 * writer) goes through buffer_put_json(); an id was checked when it came in and
 * goes back as it was.
 */
#include "core/reply.h"

#include <string.h>

/* What a reply has besides id, outcome, reason and waited_ms; in this order. */
enum {
	PART_CODE = 1 << 0,
	PART_STATUS = 1 << 1,
	PART_MESSAGE = 1 << 2,
	PART_MESSAGE_ID = 1 << 3,
	PART_REQUEST_ID = 1 << 4,
	PART_TOOK = 1 << 5,
};

/* clang-format off */
static const unsigned parts[_FATE_N] = {
	[FATE_SENT]     = PART_MESSAGE_ID | PART_REQUEST_ID | PART_TOOK,
	[FATE_API]      = PART_CODE | PART_MESSAGE | PART_REQUEST_ID | PART_TOOK,
	[FATE_HTTP]     = PART_STATUS | PART_TOOK,
	[FATE_TIMEOUT]  = PART_TOOK,
	[FATE_DNS]      = PART_TOOK,
	[FATE_CONNECT]  = PART_TOOK,
	[FATE_TLS]      = PART_TOOK,
	[FATE_NETWORK]  = PART_TOOK,
	[FATE_ANSWER]   = PART_TOOK,
	[FATE_HALTED]   = PART_CODE | PART_TOOK,
	[FATE_MEMORY]   = PART_TOOK,
	[FATE_INTERNAL] = PART_TOOK,
};
/* clang-format on */

/* @name is one of ours: with its comma and colon, in quotes. */
static void put_number(struct buffer *out, const char *name, uint64_t number)
{
	buffer_puts(out, name);
	buffer_put_u64(out, number);
}

static void put_string(struct buffer *out, const char *name, const char *text)
{
	size_t n = strlen(text);

	buffer_puts(out, name);
	buffer_put_json(out, text, n, n);
}

/* Absent where the answer had none. */
static void put_answered(struct buffer *out, const char *name, const char *text)
{
	if (text[0] != '\0')
		put_string(out, name, text);
}

static void put_code(struct buffer *out, int64_t code)
{
	uint64_t size = code < 0 ? -(uint64_t)code : (uint64_t)code;

	put_number(out, code < 0 ? ",\"Code\":-" : ",\"Code\":", size);
}

static void put_verdict(struct buffer *out, const struct verdict *v, unsigned which)
{
	if ((which & PART_CODE) && v->has_code)
		put_code(out, v->code);
	if (which & PART_STATUS)
		put_number(out, ",\"status\":", v->status);
	if (which & PART_MESSAGE)
		put_answered(out, ",\"Message\":", v->message);
	if (which & PART_MESSAGE_ID)
		put_answered(out, ",\"MessageId\":", v->message_id);
	if (which & PART_REQUEST_ID)
		put_answered(out, ",\"RequestId\":", v->request_id);
}

/* From the opening brace to the reason. The good outcome needs none. */
static void put_head(struct buffer *out, const char *id, size_t id_len, enum fate fate)
{
	const char *reason = fate_reason_name(fate);

	buffer_puts(out, "{");
	if (id_len > 0) {
		buffer_puts(out, "\"id\":");
		buffer_append(out, id, id_len);
		buffer_puts(out, ",");
	}
	put_string(out, "\"outcome\":", fate_outcome_name(fate));
	if (reason[0] != '\0')
		put_string(out, ",\"reason\":", reason);
}

void reply_fate(struct buffer *out, const struct request *r, const struct fate_report *f)
{
	unsigned which = parts[f->fate];

	put_head(out, request_id(r), r->id_len, f->fate);
	if (f->verdict)
		put_verdict(out, f->verdict, which);
	put_number(out, ",\"waited_ms\":", f->waited / NSEC_PER_MSEC);
	if ((which & PART_TOOK) && f->took > 0)
		put_number(out, ",\"took_ms\":", f->took / NSEC_PER_MSEC);
	buffer_puts(out, "}\n");
}

void reply_refusal(struct buffer *out, const struct refusal *why, uint64_t line)
{
	put_head(out, why->id, why->id ? why->id_len : 0, why->fate);
	if (line > 0)
		put_number(out, ",\"line\":", line);
	if (why->error[0] != '\0')
		put_string(out, ",\"error\":", why->error);
	buffer_puts(out, "}\n");
}
