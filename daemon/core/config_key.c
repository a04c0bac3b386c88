/* SPDX-License-Identifier: MIT */
/* A key that is parsed in one place, ranged in a second and documented in a third
 * will sooner or later be three keys. Here each is one row: the help is what the
 * sample file prints, the default is read by the same code as the operator's file,
 * and the man page is checked against the same rows. */
#include "core/config_key.h"

#include <assert.h>
#include <string.h>

/* sun_path holds 108 bytes with the NUL; libuv cuts a longer path without a word. */
#define SOCKET_PATH_MAX 107

/* Every line of a dump can be read back: inih takes 197 bytes, the longest key and
 * " = " take 21. */
#define TEXT_MAX 176

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

#define MSEC   NSEC_PER_MSEC
#define SEC    NSEC_PER_SEC
#define MINUTE (60 * SEC)
#define HOUR   (60 * MINUTE)

#define IN_DAEMON(field)       #field, 1u << SECTION_DAEMON, offsetof(struct config, field)
#define IN_UPSTREAM(field)     #field, 1u << SECTION_UPSTREAM, offsetof(struct config, field)
#define IN_QUEUE(field)        #field, 1u << SECTION_QUEUE, offsetof(struct config, field)
#define IN_SHARED(name, field) #name, 1u << SECTION_SHARED, offsetof(struct config, field)
#define IN_APP(field)          #field, 1u << SECTION_APP, offsetof(struct app_config, field)
#define IN_BOTH(field)                                                                             \
#field, 1u << SECTION_QUEUE | 1u << SECTION_APP, offsetof(struct queue_config, field)

static const char *const no_or_yes[] = { "no", "yes", NULL };
static const char *const log_levels[] = { "error", "warning", "info", "debug", NULL };
static const char *const http_versions[] = { [HTTP_1_1] = "1.1", [HTTP_2] = "2", NULL };
static const char *const credits[] = { [CREDIT_AUTO] = "auto", [CREDIT_NONE] = "none", NULL };
static const char *const on_losts[] = {
	[ON_LOST_SHARE] = "share",
	[ON_LOST_HOLD] = "hold",
	NULL,
};
static const char *const overflows[] = {
	[OVERFLOW_OLDEST] = "oldest",
	[OVERFLOW_NEWEST] = "newest",
	NULL,
};
static const char *const is_tests[] = {
	[IS_TEST_UNSET] = "",
	[IS_TEST_TRUE] = "true",
	[IS_TEST_FALSE] = "false",
	NULL,
};

/* A choice's range is that of its index; nobody is shown it. */
#define CHOICE(names) KEY_CHOICE, 0, ARRAY_SIZE(names) - 2
#define BOOLEAN       CHOICE(no_or_yes)

/* name, section and offset; type, least and most; default; unit; choices; help */
/* clang-format off */
const struct config_key config_keys[] = {
	{ IN_DAEMON(socket), KEY_PATH, 1, SOCKET_PATH_MAX, "/run/barraged/barraged.sock", "", NULL,
	  "Where programs write their lines, unless systemd passes a socket named intake. An absolute "
	  "path of at most 107 bytes." },
	{ IN_DAEMON(socket_mode), KEY_MODE, 0, 0777, "0660", "", NULL,
	  "Permissions of that socket: who may write to it, may send." },
	{ IN_DAEMON(socket_group), KEY_TEXT, 0, TEXT_MAX, "", "", NULL,
	  "Group that owns that socket, by name or number; empty: the daemon's own." },
	{ IN_DAEMON(control_socket), KEY_PATH, 0, SOCKET_PATH_MAX, "/run/barraged/control.sock", "", NULL,
	  "Where barragectl steers the daemon, open to root and the daemon's own user; empty: nowhere." },
	{ IN_DAEMON(max_clients), KEY_NUMBER, 1, 65536, "1024", "connections", NULL,
	  "Writers of one user that may be connected at once; of all users, twice as many." },
	{ IN_DAEMON(max_line), KEY_SIZE, KIB, MIB, "16KiB", "", NULL,
	  "Longest line taken from a writer; a longer one is refused." },
	{ IN_DAEMON(max_reply_backlog), KEY_SIZE, 4 * KIB, 64 * MIB, "256KiB", "", NULL,
	  "Replies kept for a writer that does not read them; what is beyond is discarded and counted." },
	{ IN_DAEMON(drain_timeout), KEY_DURATION, 0, 10 * MINUTE, "5s", "", NULL,
	  "How long to go on sending what is queued after being told to stop." },
	{ IN_DAEMON(startup_hold), KEY_DURATION, 0, MINUTE, "1s", "", NULL,
	  "How long to send nothing after the start, since the process before this one may just have "
	  "spent the second's budget." },
	{ IN_DAEMON(log_level), CHOICE(log_levels), "info", "", log_levels,
	  "How much to log." },
	{ IN_DAEMON(metrics_listen), KEY_LISTEN, 0, TEXT_MAX, "", "", NULL,
	  "Loopback address and port that serve the metrics over HTTP, such as 127.0.0.1:9464 or "
	  "[::1]:9464; empty: none." },

	{ IN_UPSTREAM(url), KEY_TEXT, 1, TEXT_MAX, "https://rtc-api.zego.im/", "", NULL,
	  "The server API. https only, except on a loopback address." },
	{ IN_UPSTREAM(ca_file), KEY_PATH, 0, TEXT_MAX, "", "", NULL,
	  "File of certificates to trust instead of the system's; empty: the system's." },
	{ IN_UPSTREAM(proxy), KEY_TEXT, 0, TEXT_MAX, "", "", NULL,
	  "Proxy to go through, such as http://proxy.example:3128; empty: none, whatever the "
	  "environment says." },
	{ IN_UPSTREAM(connect_timeout), KEY_DURATION, 10 * MSEC, MINUTE, "2s", "", NULL,
	  "Time to look up, connect and shake hands." },
	{ IN_UPSTREAM(timeout), KEY_DURATION, 10 * MSEC, 2 * MINUTE, "5s", "", NULL,
	  "Time for a whole attempt, connecting included." },
	{ IN_UPSTREAM(http_version), CHOICE(http_versions), "1.1", "", http_versions,
	  "Version of HTTP to speak." },
	{ IN_UPSTREAM(max_in_flight), KEY_NUMBER, 1, 10000, "256", "requests", NULL,
	  "Requests under way at the same time, over all AppIDs. With HTTP/1.1 each has a connection of "
	  "its own, with HTTP/2 a hundred share one." },
	{ IN_UPSTREAM(credit), CHOICE(credits), "auto", "", credits,
	  "Whether to measure the way to the server and take it off the second that a token rests. "
	  "none is slower and needs no measurement to be right." },
	{ IN_UPSTREAM(retries), KEY_NUMBER, 0, 10, "2", "attempts", NULL,
	  "Further attempts for a message that was surely not accepted." },
	{ IN_UPSTREAM(retry_ambiguous), BOOLEAN, "no", "", no_or_yes,
	  "Whether to try again where a message may have been accepted, and so may appear twice." },
	{ IN_UPSTREAM(probe_interval), KEY_DURATION, 100 * MSEC, HOUR, "30s", "", NULL,
	  "How often an AppID that the server refuses as a whole lets one message through, to see "
	  "whether that has been mended." },

	{ IN_APP(server_secret_file), KEY_SECRET, 1, TEXT_MAX, NULL, "", NULL,
	  "File with the AppID's ServerSecret on its one line, readable by its owner only; or "
	  "credential:NAME for what systemd passes by LoadCredential=. An absolute path." },
	{ IN_APP(test_mode), BOOLEAN, "no", "", no_or_yes,
	  "Whether the AppID is in ZEGO's test environment: 10 messages a second instead of 100." },
	{ IN_APP(is_test), CHOICE(is_tests), "", "", is_tests,
	  "What is sent as IsTest; empty: true with test_mode = yes, else nothing is sent." },
	{ IN_APP(rate), KEY_NUMBER, 1, 100000, "100", "messages", NULL,
	  "Messages that may be sent in any second; 10 with test_mode = yes where it is not given." },
	{ IN_APP(burst), KEY_NUMBER, 1, 100000, "10", "messages", NULL,
	  "Messages that may be sent at once after a rest." },
	{ IN_APP(max_content), KEY_NUMBER, 1, 16384, "1024", "bytes", NULL,
	  "Longest MessageContent; a longer one is refused." },
	{ IN_APP(room_rate), KEY_NUMBER, 0, 100000, "20", "messages", NULL,
	  "Messages that may be sent to one room in any second; 0: no limit but the AppID's." },
	{ IN_APP(room_in_flight), KEY_NUMBER, 0, 100000, "0", "messages", NULL,
	  "Messages to one room under way at the same time; 1 keeps a room's order at the server, at "
	  "one message a round trip; 0: no limit." },
	{ IN_APP(shared), BOOLEAN, "yes", "", no_or_yes,
	  "Whether its budget is shared with other hosts, where [shared] says how; no: it is this "
	  "host's alone." },
	{ IN_APP(allow_users), KEY_TEXT, 0, TEXT_MAX, "", "", NULL,
	  "Users that may use this AppID, by names or numbers, with blanks or commas between them; with "
	  "allow_groups empty too: everyone who may open the socket." },
	{ IN_APP(allow_groups), KEY_TEXT, 0, TEXT_MAX, "", "", NULL,
	  "Groups whose members may use this AppID as well." },

	{ IN_QUEUE(queue_bytes), KEY_SIZE, 64 * KIB, 64 * GIB, "64MiB", "", NULL,
	  "Memory for waiting messages, over all AppIDs." },
	{ IN_BOTH(overflow), CHOICE(overflows), "oldest", "", overflows,
	  "Which message is dropped when the queue is full: the oldest of the AppID's longest room, or "
	  "the newest, which is the one coming in." },
	{ IN_BOTH(max_age), KEY_DURATION, 10 * MSEC, MINUTE, "3s", "", NULL,
	  "How long a message is worth sending; an older one is dropped." },
	{ IN_BOTH(queue_max), KEY_NUMBER, 0, 10000000, "0", "messages", NULL,
	  "Messages that may wait for one AppID; 0: as many as can be sent within max_age." },

	{ IN_SHARED(redis, redis), KEY_TEXT, 0, TEXT_MAX, "", "", NULL,
	  "The Redis or Valkey that keeps the AppIDs' budgets for all hosts, as unix:/absolute/path or "
	  "tcp:host:port; empty: every AppID's budget is this host's alone." },
	{ IN_SHARED(user, redis_user), KEY_TEXT, 0, 64, "", "", NULL,
	  "User to log in to it as, with the password; empty: its default user." },
	{ IN_SHARED(password_file, redis_password_file), KEY_SECRET, 0, TEXT_MAX, "", "", NULL,
	  "File with its password on the one line, readable by its owner only; or credential:NAME for "
	  "what systemd passes by LoadCredential=; empty: it asks for none." },
	{ IN_SHARED(prefix, shared_prefix), KEY_TEXT, 1, 64, "barraged:", "", NULL,
	  "What the names of all keys and channels there begin with; the same on all hosts that "
	  "share." },
	{ IN_SHARED(hosts, shared_hosts), KEY_NUMBER, 1, 1000, "1", "hosts", NULL,
	  "How many hosts are meant to share, the same on all of them; has to be given where redis is." },
	{ IN_SHARED(on_lost, on_lost), CHOICE(on_losts), "share", "", on_losts,
	  "What to do while it cannot be reached: go on with this host's share of each AppID, its rate "
	  "divided by hosts, or hold, which sends nothing for them." },
	{ IN_SHARED(name, shared_name), KEY_TEXT, 0, 64, "", "", NULL,
	  "What this host is called among them, no two alike: letters, digits, dots, dashes and "
	  "underscores; empty: the host's name." },
	{ NULL },
};

static const struct {
	const char *name;
	const char *help;
} sections[] = {
	[SECTION_DAEMON] = { "daemon", "What programs on this host, and its operator, meet." },
	[SECTION_UPSTREAM] = { "upstream", "The way to ZEGO's server API." },
	[SECTION_QUEUE] = { "queue",
	  "What waits, and for how long. overflow, max_age and queue_max may stand in an [app ...] "
	  "section too and then hold for that AppID." },
	[SECTION_SHARED] = { "shared",
	  "Where several hosts send for the same AppIDs: who keeps the one budget of each, so that all "
	  "hosts together keep to it. See docs/MANY-HOSTS.md." },
	[SECTION_APP] = { "app", "One such section for each AppID." },
};
/* clang-format on */

static_assert(ARRAY_SIZE(config_keys) - 1 <= CONFIG_KEYS_MAX, "every key has its bit");
static_assert(ARRAY_SIZE(sections) == _SECTION_N, "every section has its row");
static_assert(sizeof(((struct config *)NULL)->reading.lines) == _SECTION_N * sizeof(unsigned),
	      "every section has its line");

const char *config_section_name(enum config_section section)
{
	return sections[section].name;
}

const char *config_section_help(enum config_section section)
{
	return sections[section].help;
}

enum config_section config_section_find(const char *name)
{
	enum config_section s = 0;

	while (s < _SECTION_N && strcmp(sections[s].name, name) != 0)
		s++;
	return s;
}

const struct config_key *config_key_find(enum config_section section, const char *name)
{
	for (const struct config_key *k = config_keys; k->name; k++) {
		if (k->sections & 1u << section && strcmp(k->name, name) == 0)
			return k;
	}
	return NULL;
}

uint64_t config_key_bit(const struct config_key *k)
{
	return UINT64_C(1) << (k - config_keys);
}

size_t config_key_offset(const struct config_key *k, enum config_section section)
{
	if (k->sections != (1u << SECTION_QUEUE | 1u << SECTION_APP))
		return k->offset;
	return k->offset + (section == SECTION_APP ? offsetof(struct app_config, queue)
						   : offsetof(struct config, queue));
}
