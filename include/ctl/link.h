/* SPDX-License-Identifier: MIT */
/* The daemon at the other end of a socket. */
#pragma once

#include <cjson/cJSON.h>

#include "core/buffer.h"
#include "ctl/options.h"

/* Connects to a socket at @path. Returns its descriptor; or -1 with a sentence in @why
 * that helps whoever typed the command. */
int link_connect(const char *path, struct buffer *why);

/* How long the daemon is waited for. A reload may ask a name service, and the daemon waits
 * for that too. */
#define LINK_PATIENCE_SECONDS 60

/* Sends one request and waits for its answer. Returns 0 with the answer in @line, without
 * its newline, and the caller owning *@answer; or -1 with a sentence in @why. */
int link_ask(int fd, const cJSON *request, struct buffer *line, cJSON **answer, struct buffer *why);

/* Its two halves, for who has something else to wait for meanwhile; and what to say when
 * that has taken too long. */
int link_send(int fd, const cJSON *request, struct buffer *why);
int link_receive(int fd, struct buffer *line, cJSON **answer, struct buffer *why);
void link_say_late(struct buffer *why);

/* Asks {"op":@op, …} once, with the member @name (NULL: none) set to @value, which is taken
 * over. Says on standard error what went wrong, if anything. Returns an exit status; unless
 * that is CTL_UNREACHABLE the caller owns *@answer, and @line is what came. */
int link_command(const struct options *o, const char *op, const char *name, cJSON *value,
		 struct buffer *line, cJSON **answer);

static inline void cjson_deletep(cJSON **tree)
{
	cJSON_Delete(*tree);
}
