/* SPDX-License-Identifier: MIT */
/* Reads a configuration file, and all that it points to. */
#pragma once

#include <stdio.h>

#include "core/buffer.h"
#include "core/config.h"
#include "edge/vault.h"

enum {
	_CONFIGFILE_E_SUCCESS,
	CONFIGFILE_E_INVALID
};

/* @patient: a pipe may be waited for, as at the start, when nobody else is served.
 * Returns 0 with *@out ready for use and *@vault holding its secrets, which has to live
 * as long; CONFIGFILE_E_INVALID with one line "PATH:LINE: sentence\n" appended to
 * @errors for each finding, in the order of the file ("PATH: sentence\n" where none of
 * its lines is to blame); or -errno when that could not be found out. */
int configfile_load(struct config **out, struct vault **vault, const char *path, bool patient,
		    struct buffer *errors);

/* The same from an open stream, which stays the caller's. @path is for messages. */
int configfile_read(struct config **out, struct vault **vault, FILE *file, const char *path,
		    struct buffer *errors);
