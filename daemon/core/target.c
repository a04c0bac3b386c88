/* SPDX-License-Identifier: MIT */
#include "core/target.h"

#include <string.h>

#include "core/app.h"
#include "core/room.h"

/* RFC 3986's unreserved characters: the only ones that ZEGO wants bare. */
static const bool is_bare[256] = {
	['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['-'] = true,
	['.'] = true,         ['_'] = true,         ['~'] = true,
};

static char *escape(char *out, unsigned char c)
{
	static const char digits[] = "0123456789ABCDEF";

	out[0] = '%';
	out[1] = digits[c >> 4];
	out[2] = digits[c & 15];
	return out + 3;
}

static void put_encoded(struct buffer *out, const char *text)
{
	const unsigned char *p = (const unsigned char *)text;

	while (*p) {
		char run[768];
		char *end = run;

		for (; *p && end + 3 <= run + sizeof(run); p++) {
			if (is_bare[*p])
				*end++ = (char)*p;
			else
				end = escape(end, *p);
		}
		buffer_append(out, run, (size_t)(end - run));
	}
}

static void put_parameter(struct buffer *out, const char *name, const char *value)
{
	buffer_puts(out, name);
	put_encoded(out, value);
}

void target_print(struct buffer *out, const char *path, const struct request *r,
		  const struct signature *s)
{
	const struct app *app = r->room->app;

	buffer_puts(out, path);
	buffer_puts(out, "?Action=SendBarrageMessage&AppId=");
	buffer_put_u64(out, app->app_id);
	put_parameter(out, "&SignatureNonce=", s->nonce);
	put_parameter(out, "&Timestamp=", s->timestamp);
	put_parameter(out, "&Signature=", s->hex);
	buffer_puts(out, "&SignatureVersion=2.0");
	if (app->config->is_test != IS_TEST_UNSET)
		buffer_puts(out, app->config->is_test == IS_TEST_TRUE ? "&IsTest=true"
								      : "&IsTest=false");
	put_parameter(out, "&RoomId=", request_room_id(r));
	put_parameter(out, "&UserId=", request_user_id(r));
	if (r->user_name_len > 0)
		put_parameter(out, "&UserName=", request_user_name(r));
	buffer_puts(out, "&MessageCategory=");
	buffer_put_u64(out, r->class + 1U);
	put_parameter(out, "&MessageContent=", request_content(r));
}
