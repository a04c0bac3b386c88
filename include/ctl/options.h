/* SPDX-License-Identifier: MIT */
/* What barragectl was asked to do. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Exit statuses, besides sysexits.h's. */
enum {
	CTL_OK,
	CTL_REFUSED,    /* by the daemon; or something was not sent */
	CTL_UNREACHABLE /* the daemon */
};

struct options {
	char *config;
	char *socket;  /* the writers' */
	char *control; /* its control socket */
	bool json;
	bool once;
	bool prometheus;
	uint64_t interval; /* ms */
	uint64_t window;   /* lines */
	/* A message, as given. */
	char *app;
	char *room;
	char *user;
	char *name;
	char *category;
	char *ttl;
	char *content;
	/* What follows the command. */
	char **arguments;
	int n_arguments;
};

/* The commands. Each returns barragectl's exit status. */
int ctl_send(const struct options *o);
int ctl_status(const struct options *o);
int ctl_top(const struct options *o);
int ctl_reload(const struct options *o);
int ctl_pause(const struct options *o);
int ctl_resume(const struct options *o);
int ctl_metrics(const struct options *o);
int ctl_log(const struct options *o);
int ctl_check(const struct options *o);
