/* SPDX-License-Identifier: MIT */
/* Texts for people. */
#pragma once

#include <cjson/cJSON.h>
#include <stdio.h>

#include "core/buffer.h"

/* A member of an object, as a number (0 if there is none), a text (""), a truth (false). */
double print_number(const cJSON *tree, const char *name);
const char *print_text(const cJSON *tree, const char *name);
bool print_flag(const cJSON *tree, const char *name);

/* Appends what came from elsewhere, without what a terminal would obey. */
void print_foreign(struct buffer *out, const char *text);

/* "850 ms", "1.2 s", "3 min 04 s", "2 d 03 h" */
void print_duration(struct buffer *out, double ms);

/* "in touch", "LOST", … of the answer to status; NULL: this host shares no AppID, or the
 * daemon knows nothing of that. */
const char *print_shared(const cJSON *answer);

/* "12 sent, 3 dropped (expired 3), …" of a status or one of its AppIDs. */
void print_fates(struct buffer *out, const cJSON *of);

/* Writes it all to a stream. Returns an exit status. */
int print_out(const struct buffer *text, FILE *to);
