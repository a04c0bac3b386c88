/* SPDX-License-Identifier: MIT */
/*
 * One place says what ZEGO's answers mean. The rule that must not break: a message is tried
 * again only where it was surely not accepted, and taken for sent only on an integer Code
 * that is there and 0. Whatever cannot be read is ambiguous, never a success.
 *
 * Codes mean other things in ZEGO's other API families, so the table is this one's alone.
 */
#include "core/answer.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/text.h"

DEFINE_CLEANUP(cJSON *, cJSON_Delete)

/* The gateway's own codes: whichever is new to us, it is the call that it dislikes and not
 * the message. */
#define GATEWAY_CODE_MIN 100000000
#define GATEWAY_CODE_MAX 100000099

/* clang-format off */
static const struct {
	int64_t code;
	enum verdict_class class;
} codes[] = {
	{ 0,         VERDICT_OK },
	{ 1,         VERDICT_RETRY },      /* busy */
	{ 122,       VERDICT_RETRY },      /* no id could be made */
	{ 5202,      VERDICT_RETRY },
	{ 151,       VERDICT_RETRY },      /* the push failed */
	{ 100000012, VERDICT_RETRY },      /* inside the gateway */
	{ 100000015, VERDICT_RETRY },
	{ 206,       VERDICT_SLOW_APP },
	{ 7,         VERDICT_SLOW_APP },   /* in older documents */
	{ 207,       VERDICT_SLOW_ROOM },
	{ 100000004, VERDICT_SIGN_AGAIN },
	{ 2,         VERDICT_DROP },       /* a parameter */
	{ 3,         VERDICT_DROP },
	{ 8,         VERDICT_DROP },       /* decoding */
	{ 105,       VERDICT_DROP },       /* the user */
	{ 50002,     VERDICT_DROP },
	{ 1008,      VERDICT_DROP },       /* no content */
	{ 50012,     VERDICT_DROP },       /* content too long */
	{ 50014,     VERDICT_DROP },       /* UserName too long */
	{ 104,       VERDICT_DROP_ROOM },
	{ 5024,      VERDICT_DROP_ROOM },
	{ 50001,     VERDICT_DROP_ROOM },
	{ 5018,      VERDICT_DROP_ROOM },
	{ 9,         VERDICT_HALT },       /* no permission */
	{ 100000000, VERDICT_HALT },       /* Host */
	{ 100000001, VERDICT_HALT },       /* AppId, its form */
	{ 100000002, VERDICT_HALT },       /* Timestamp */
	{ 100000003, VERDICT_HALT },
	{ 100000005, VERDICT_HALT },       /* signature wrong */
	{ 100000006, VERDICT_HALT },       /* Action */
	{ 100000007, VERDICT_HALT },
	{ 100000008, VERDICT_HALT },       /* nonce */
	{ 100000009, VERDICT_HALT },       /* no signature */
	{ 100000010, VERDICT_HALT },       /* no ServerSecret: AppId wrong */
	{ 100000011, VERDICT_HALT },       /* the AppID's configuration */
	{ 100000013, VERDICT_HALT },       /* SignatureVersion */
	{ 100000014, VERDICT_HALT },
	{ 100000016, VERDICT_HALT },       /* no production environment: IsTest */
	{ 100000017, VERDICT_HALT },       /* service not enabled */
};

struct ending {
	enum verdict_class class;
	enum fate fate;
};

/* An attempt without an answer of which nothing was written, … */
static const struct ending unwritten[] = {
	[TRANSPORT_DNS]      = { VERDICT_UNREACHED, FATE_DNS },
	[TRANSPORT_CONNECT]  = { VERDICT_UNREACHED, FATE_CONNECT },
	[TRANSPORT_TLS]      = { VERDICT_UNREACHED, FATE_TLS },
	[TRANSPORT_TIMEOUT]  = { VERDICT_UNREACHED, FATE_CONNECT },
	[TRANSPORT_NETWORK]  = { VERDICT_UNREACHED, FATE_NETWORK },
	[TRANSPORT_BROKEN]   = { VERDICT_AMBIGUOUS, FATE_ANSWER },
	[TRANSPORT_MEMORY]   = { VERDICT_DROP,      FATE_MEMORY },
	[TRANSPORT_INTERNAL] = { VERDICT_DROP,      FATE_INTERNAL },
};

/* … and one that may have arrived. Whatever breaks a connection then is a loss on the way,
 * also where it is TLS that complains. */
static const struct ending written[] = {
	[TRANSPORT_DNS]      = { VERDICT_AMBIGUOUS, FATE_NETWORK },
	[TRANSPORT_CONNECT]  = { VERDICT_AMBIGUOUS, FATE_NETWORK },
	[TRANSPORT_TLS]      = { VERDICT_AMBIGUOUS, FATE_NETWORK },
	[TRANSPORT_TIMEOUT]  = { VERDICT_AMBIGUOUS, FATE_TIMEOUT },
	[TRANSPORT_NETWORK]  = { VERDICT_AMBIGUOUS, FATE_NETWORK },
	[TRANSPORT_BROKEN]   = { VERDICT_AMBIGUOUS, FATE_ANSWER },
	[TRANSPORT_MEMORY]   = { VERDICT_DROP,      FATE_MEMORY },
	[TRANSPORT_INTERNAL] = { VERDICT_DROP,      FATE_INTERNAL },
};
/* clang-format on */
static_assert(ARRAY_SIZE(unwritten) == _TRANSPORT_N, "a row for each result");
static_assert(ARRAY_SIZE(written) == _TRANSPORT_N, "a row for each result");

enum verdict_class answer_class(int64_t code)
{
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		if (codes[i].code == code)
			return codes[i].class;
	}
	if (code >= GATEWAY_CODE_MIN && code <= GATEWAY_CODE_MAX)
		return VERDICT_HALT;
	return VERDICT_UNKNOWN;
}

/* The number's value, if it is an integer that a double holds exactly. */
static bool read_integer(const cJSON *item, int64_t *out)
{
	const double limit = (double)(INT64_C(1) << 53);
	double value;

	if (!item || !cJSON_IsNumber(item))
		return false;
	value = item->valuedouble;
	if (!(value > -limit && value < limit)) /* NaN too */
		return false;
	*out = (int64_t)value;
	return (double)*out == value;
}

/* The member called @name, by its exact name, and whether there is just one. */
static const cJSON *find_only(const cJSON *object, const char *name)
{
	const cJSON *found = NULL;

	if (!object || !cJSON_IsObject(object))
		return NULL;
	for (const cJSON *item = object->child; item; item = item->next) {
		if (strcmp(item->string, name) != 0)
			continue;
		if (found)
			return NULL;
		found = item;
	}
	return found;
}

static void copy_string(char *out, size_t size, const cJSON *item)
{
	size_t len;

	if (!item || !cJSON_IsString(item))
		return;
	len = utf8_prefix(item->valuestring, strlen(item->valuestring), size - 1);
	memcpy(out, item->valuestring, len);
	out[len] = '\0';
}

/* A string here, a number in the sibling calls of the same API. */
static void copy_message_id(struct verdict *v, const cJSON *item)
{
	int64_t number;

	if (read_integer(item, &number))
		(void)snprintf(v->message_id, sizeof(v->message_id), "%" PRId64, number);
	else
		copy_string(v->message_id, sizeof(v->message_id), item);
}

/* The body as a tree, if it is one JSON object and nothing else. */
static cJSON *parse_body(const char *body, size_t n)
{
	cJSON *tree;

	if (n == 0 || memchr(body, '\0', n))
		return NULL;
	/* With its NUL counted in cJSON looks for the end of what it reads, and never past
	 * it: older ones look one byte too far behind a last comma. */
	tree = cJSON_ParseWithLengthOpts(body, n + 1, NULL, 1);
	if (cJSON_IsObject(tree))
		return tree;
	cJSON_Delete(tree);
	return NULL;
}

/* Whether the body is an answer of the API; then it decides. */
static bool judge_body(const struct answer *a, struct verdict *v)
{
	_cleanup_(cJSON_Deletep) cJSON *tree = parse_body(a->body, a->body_len);

	if (!tree || !read_integer(find_only(tree, "Code"), &v->code))
		return false;
	v->has_code = true;
	v->class = answer_class(v->code);
	v->fate = v->code == 0 ? FATE_SENT : FATE_API;
	copy_string(v->message, sizeof(v->message), find_only(tree, "Message"));
	copy_string(v->request_id, sizeof(v->request_id), find_only(tree, "RequestId"));
	copy_message_id(v, find_only(find_only(tree, "Data"), "MessageId"));
	return true;
}

/* What the HTTP status says where the body says nothing. */
static struct ending judge_status(const struct answer *a)
{
	if (a->status == 429)
		return (struct ending){ VERDICT_SLOW_APP, FATE_HTTP };
	/* A server that says when to come back has not taken the message. */
	if (a->status == 503 && a->retry_after > 0)
		return (struct ending){ VERDICT_RETRY, FATE_HTTP };
	if (a->status >= 300 && a->status <= 499)
		return (struct ending){ VERDICT_DROP, FATE_HTTP };
	if (a->status >= 500 && a->status <= 599)
		return (struct ending){ VERDICT_AMBIGUOUS, FATE_HTTP };
	return (struct ending){ VERDICT_AMBIGUOUS, FATE_ANSWER };
}

/* What is left to go by where no Code could be read. */
static struct ending judge_transport(const struct answer *a)
{
	if (a->result == TRANSPORT_ANSWERED)
		return judge_status(a);
	return a->written ? written[a->result] : unwritten[a->result];
}

void answer_judge(const struct answer *a, struct verdict *v)
{
	struct ending end;

	v->has_code = false;
	v->status = a->result == TRANSPORT_ANSWERED ? a->status : 0;
	v->message[0] = '\0';
	v->message_id[0] = '\0';
	v->request_id[0] = '\0';
	if (a->result == TRANSPORT_ANSWERED && judge_body(a, v))
		return;

	end = judge_transport(a);
	v->class = end.class;
	v->fate = end.fate;
	v->code = 0;
}
