/* SPDX-License-Identifier: MIT */
/* What the operator asked for, as plain data. The keys, their ranges and defaults
 * are in core/config_key.h's table. Nothing here opens a file: edge/configfile.c
 * reads, this decides. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/base.h"
#include "core/buffer.h"

/* Who is on the other end of a socket, by the kernel's word (SO_PEERCRED,
 * SO_PEERGROUPS). @groups are the supplementary ones, owned by the holder. */
struct peer {
	uid_t uid;
	gid_t gid;
	pid_t pid;
	gid_t *groups;
	size_t n_groups;
};

struct id_list {
	uint32_t *ids;
	size_t n;
};

enum overflow {
	OVERFLOW_OLDEST,
	OVERFLOW_NEWEST
};
enum credit {
	CREDIT_AUTO,
	CREDIT_NONE
};
enum on_lost {
	ON_LOST_SHARE,
	ON_LOST_HOLD
};
enum http_version {
	HTTP_1_1,
	HTTP_2
};
enum is_test {
	IS_TEST_UNSET, /* written as nothing */
	IS_TEST_TRUE,
	IS_TEST_FALSE
};

/* Keys that stand in [queue] and, overriding it, in [app …]. */
struct queue_config {
	uint64_t overflow;  /* enum overflow */
	uint64_t max_age;   /* ns */
	uint64_t queue_max; /* messages; 0 in the file: N × max_age, here already worked out */
};

struct app_config {
	uint32_t app_id;
	unsigned line;        /* of its section, for messages */
	unsigned secret_line; /* of its server_secret_file, set by the edge */
	uint64_t given;       /* bit per key in the file; config.c's own */
	char *server_secret_file;
	/* The ServerSecret itself, NUL-terminated, in the vault of whoever loaded
	 * the configuration; not owned. NULL until it is loaded. */
	const char *secret;
	uint64_t test_mode; /* bool */
	uint64_t is_test;   /* enum is_test */
	uint64_t rate;      /* N, requests a second */
	uint64_t burst;
	uint64_t max_content;    /* bytes */
	uint64_t room_rate;      /* requests a second; 0: no limit */
	uint64_t room_in_flight; /* 0: no limit */
	uint64_t shared;         /* bool; means something with [shared] only */
	struct queue_config queue;
	char *allow_users; /* as written */
	char *allow_groups;
	struct id_list users; /* looked up by the edge */
	struct id_list groups;
};

struct config {
	/* [daemon] */
	char *socket;
	uint64_t socket_mode;
	char *socket_group; /* "": left alone */
	gid_t socket_gid;   /* looked up by the edge; (gid_t)-1: left alone */
	char *control_socket;
	uint64_t max_clients;
	uint64_t max_line;          /* bytes */
	uint64_t max_reply_backlog; /* bytes */
	uint64_t drain_timeout;     /* ns */
	uint64_t startup_hold;      /* ns */
	uint64_t log_level;         /* 0 error … 3 debug */
	char *metrics_listen;
	/* [upstream] */
	char *url;
	char *ca_file;
	char *proxy;
	uint64_t connect_timeout; /* ns */
	uint64_t timeout;         /* ns */
	uint64_t http_version;    /* enum http_version */
	uint64_t max_in_flight;
	uint64_t credit; /* enum credit */
	uint64_t retries;
	uint64_t retry_ambiguous; /* bool */
	uint64_t probe_interval;  /* ns */
	/* [queue] */
	uint64_t queue_bytes;
	struct queue_config queue;
	/* [shared] */
	char *redis; /* "": AppIDs are this host's own */
	char *redis_user;
	char *redis_password_file;
	char *shared_prefix; /* of keys and channels, at most 64 bytes */
	uint64_t shared_hosts;
	uint64_t on_lost;  /* enum on_lost */
	char *shared_name; /* this host's among them; the edge fills in the host's where it is "" */
	/* The password, as an app_config's secret; NULL: none. Set by the edge, as the line. */
	const char *redis_password;
	unsigned redis_password_line;
	/* [app …], in the order of the file, after config_finish() sorted by AppId */
	struct app_config *apps;
	/* Of these, what each line meets, close together: there may be very many. */
	uint32_t *app_ids;
	uint16_t *app_open; /* max_content where everyone may use it, or 0; NULL: see each */
	size_t n_apps;
	/* While it is read; config.c's own. */
	struct {
		int section;       /* enum config_section, or none */
		unsigned lines[5]; /* where each section begins, 0: nowhere */
		uint64_t given;    /* bit per key */
	} reading;
};

/* An empty configuration with every default in force. Returns 0 or -ENOMEM. */
int config_new(struct config **out);

/* Accepts NULL. */
void config_free(struct config *c);
DEFINE_CLEANUP(struct config *, config_free)

/* Why a section, key or value was refused: one sentence that names what was found
 * and what is allowed, cut to fit. */
struct config_error {
	char text[256];
};

enum {
	_CONFIG_E_SUCCESS,
	CONFIG_E_INVALID,
	CONFIG_E_IGNORED
};

/* Fills @why and returns CONFIG_E_INVALID. */
int config_refuse(struct config_error *why, const char *format, ...)
	__attribute__((__format__(__printf__, 2, 3)));

/* @text fit to be quoted in a sentence: at most 64 bytes, then an ellipsis, and a
 * question mark for each byte that does not print. Returns @out. */
#define CONFIG_QUOTED 68
const char *config_quoted(char out[CONFIG_QUOTED], const char *text);

/* Starts the section written as [@name] on @line. Later config_set() calls go
 * there. Returns 0, CONFIG_E_INVALID with @why filled, or -ENOMEM. */
int config_section(struct config *c, const char *name, unsigned line, struct config_error *why);

/* Sets one key of the current section. Returns as config_section(), or
 * CONFIG_E_IGNORED where the section itself was refused: its keys are not looked at. */
int config_set(struct config *c, const char *key, const char *value, struct config_error *why);

/* Told of each finding, line 0 where it concerns the file as a whole. */
typedef void (*config_report_fn)(void *arg, unsigned line, const char *text);

/* Works out what depends on other keys (rate by test_mode, [app …] inheriting from
 * [queue], queue_max), checks what concerns several, sorts the AppIDs. To be called
 * once, after the last config_set(). Returns 0 or CONFIG_E_INVALID. */
int config_finish(struct config *c, config_report_fn report, void *arg);

/* Told of what is in order and yet hardly what is meant: a [shared] that does not say by
 * what, so that each host would send N; less than a message for each host, which cannot be
 * divided. After config_finish(). */
void config_warn(const struct config *c, config_report_fn report, void *arg);

/* The AppID's section, or NULL. */
const struct app_config *config_app(const struct config *c, uint32_t app_id);

/* How many bytes of MessageContent this AppID takes from everyone; 0: config_admits() and its
 * max_content say. */
static inline uint64_t config_open(const struct config *c, const struct app_config *a)
{
	return c->app_open ? c->app_open[a - c->apps] : 0;
}

/* Whether @p may use this AppID (allow_users, allow_groups; both empty: everyone). */
bool config_admits(const struct app_config *a, const struct peer *p);

/* Every key in force, readable as a configuration file. No secret is in it. */
void config_dump(const struct config *c, struct buffer *out);

/* The commented sample, conf/barraged.conf, byte for byte. */
void config_sample(struct buffer *out);
