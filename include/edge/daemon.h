/* SPDX-License-Identifier: MIT */
/* The daemon as a whole: what the parts are, how they start, turn and end. */
#pragma once

#include "core/config.h"
#include "edge/vault.h"

/* Runs until it is told to stop. @path is read again on SIGHUP. Takes over @config and
 * @vault. Returns the process's exit status. */
int daemon_run(const char *path, struct config *config, struct vault *vault);
