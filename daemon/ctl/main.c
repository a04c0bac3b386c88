/* SPDX-License-Identifier: MIT */
/*
 * barragectl: the daemon's command line. What a command is called, takes and does is one
 * row of a table, and so is each option. Plain blocking sockets are enough: whoever runs it
 * waits for it.
 */
#include <fcntl.h>
#include <getopt.h>
#include <ini.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "build.h"
#include "core/config_key.h"
#include "core/text.h"
#include "ctl/options.h"

static const char usage[] =
	"Usage: barragectl [OPTION…] COMMAND\n"
	"\n"
	"  send                 send one message, given by options\n"
	"  send                 send lines of JSON from standard input, a few at a time\n"
	"  status               what barraged does, and has done\n"
	"  top                  the same live; keys: s another order, r the other way round, q "
	"quit\n"
	"  reload               read the configuration again; wait, and say what is wrong with it\n"
	"  pause APPID          start no more of its messages; they wait, and age\n"
	"  resume APPID         go on with them\n"
	"  metrics              all metrics, as OpenMetrics text\n"
	"  log LEVEL            log that much until the next reload: error warning info debug\n"
	"  check [FILE]         say what is wrong with a configuration, if anything\n"
	"\n"
	"send: --app APPID --room ROOM --user USER --content TEXT for one message, with --app "
	"only\n"
	"where there are several AppIDs; also --name NAME, --category 1|2, --ttl MS\n"
	"  --window N           at most N lines without their fate at a time (20)\n"
	"top:\n"
	"  --once               print one view and exit, as it does where there is no terminal\n"
	"  --interval SECONDS   between two views (1)\n"
	"metrics:\n"
	"  --prometheus         as Prometheus' older text format\n"
	"\n"
	"  --json               print what barraged answered, for scripts\n"
	"  --config FILE        where the sockets' paths are looked up (" CONFIG_PATH ")\n"
	"  --socket PATH        the socket to write messages to\n"
	"  --control PATH       the socket to steer barraged by\n"
	"  --version            print the version and exit\n"
	"  --help               print this and exit\n"
	"\n"
	"Exit status: 0 done; 1 barraged refused it, or a message was not sent; 2 barraged cannot\n"
	"be reached; 64 wrong command line; 71 no memory, or (check) barraged cannot be run;\n"
	"78 (check) the configuration is wrong.\n";

enum option_id {
	OPTION_CONFIG = 1,
	OPTION_SOCKET,
	OPTION_CONTROL,
	OPTION_JSON,
	OPTION_ONCE,
	OPTION_INTERVAL,
	OPTION_PROMETHEUS,
	OPTION_WINDOW,
	OPTION_APP,
	OPTION_ROOM,
	OPTION_USER,
	OPTION_NAME,
	OPTION_CATEGORY,
	OPTION_TTL,
	OPTION_CONTENT,
	_OPTION_N,
	OPTION_VERSION = _OPTION_N,
	OPTION_HELP,
};

static const struct option long_options[] = {
	{ "config", required_argument, NULL, OPTION_CONFIG },
	{ "socket", required_argument, NULL, OPTION_SOCKET },
	{ "control", required_argument, NULL, OPTION_CONTROL },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "once", no_argument, NULL, OPTION_ONCE },
	{ "interval", required_argument, NULL, OPTION_INTERVAL },
	{ "prometheus", no_argument, NULL, OPTION_PROMETHEUS },
	{ "window", required_argument, NULL, OPTION_WINDOW },
	{ "app", required_argument, NULL, OPTION_APP },
	{ "room", required_argument, NULL, OPTION_ROOM },
	{ "user", required_argument, NULL, OPTION_USER },
	{ "name", required_argument, NULL, OPTION_NAME },
	{ "category", required_argument, NULL, OPTION_CATEGORY },
	{ "ttl", required_argument, NULL, OPTION_TTL },
	{ "content", required_argument, NULL, OPTION_CONTENT },
	{ "version", no_argument, NULL, OPTION_VERSION },
	{ "help", no_argument, NULL, OPTION_HELP },
	{ NULL, 0, NULL, 0 },
};

#define BIT(option) (1u << (option))
#define EVERYWHERE  (BIT(OPTION_CONFIG) | BIT(OPTION_SOCKET) | BIT(OPTION_CONTROL))
#define MESSAGE                                                                                    \
	(BIT(OPTION_APP) | BIT(OPTION_ROOM) | BIT(OPTION_USER) | BIT(OPTION_NAME) |                \
	 BIT(OPTION_CATEGORY) | BIT(OPTION_TTL) | BIT(OPTION_CONTENT))

/* name, what it does, how many arguments follow it, options besides those for all */
/* clang-format off */
static const struct {
	const char *name;
	int (*run)(const struct options *o);
	int least;
	int most;
	unsigned options;
} commands[] = {
	{ "send",    ctl_send,    0, 0, MESSAGE | BIT(OPTION_JSON) | BIT(OPTION_WINDOW) },
	{ "status",  ctl_status,  0, 0, BIT(OPTION_JSON) },
	{ "top",     ctl_top,     0, 0, BIT(OPTION_ONCE) | BIT(OPTION_INTERVAL) },
	{ "reload",  ctl_reload,  0, 0, BIT(OPTION_JSON) },
	{ "pause",   ctl_pause,   1, 1, BIT(OPTION_JSON) },
	{ "resume",  ctl_resume,  1, 1, BIT(OPTION_JSON) },
	{ "metrics", ctl_metrics, 0, 0, BIT(OPTION_JSON) | BIT(OPTION_PROMETHEUS) },
	{ "log",     ctl_log,     1, 1, BIT(OPTION_JSON) },
	{ "check",   ctl_check,   0, 1, 0 },
};
/* clang-format on */

static void __attribute__((__noreturn__)) say(const char *text)
{
	exit(fputs(text, stdout) >= 0 && fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
}

static void __attribute__((__noreturn__, __format__(__printf__, 1, 2)))
misused(const char *format, ...)
{
	va_list args;

	fputs("barragectl: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputs("; see --help\n", stderr);
	exit(EX_USAGE);
}

static uint64_t number(const char *name, const char *text, uint64_t least, uint64_t most)
{
	uint64_t n;

	if (!parse_u64(text, strlen(text), most, &n) || n < least)
		misused("--%s: a whole number from %llu to %llu", name, (unsigned long long)least,
			(unsigned long long)most);
	return n;
}

static void take_option(struct options *o, int option, char *argument)
{
	char **const texts[_OPTION_N] = {
		[OPTION_CONFIG] = &o->config,   [OPTION_SOCKET] = &o->socket,
		[OPTION_CONTROL] = &o->control, [OPTION_APP] = &o->app,
		[OPTION_ROOM] = &o->room,       [OPTION_USER] = &o->user,
		[OPTION_NAME] = &o->name,       [OPTION_CATEGORY] = &o->category,
		[OPTION_TTL] = &o->ttl,         [OPTION_CONTENT] = &o->content,
	};

	switch (option) {
	case OPTION_JSON:
		o->json = true;
		break;
	case OPTION_ONCE:
		o->once = true;
		break;
	case OPTION_PROMETHEUS:
		o->prometheus = true;
		break;
	case OPTION_INTERVAL:
		o->interval = 1000 * number("interval", argument, 1, 30);
		break;
	case OPTION_WINDOW:
		o->window = number("window", argument, 1, 1000000);
		break;
	case OPTION_VERSION:
		say("barragectl " VERSION "\n");
		break;
	case OPTION_HELP:
		say(usage);
		break;
	default:
		*texts[option] = argument;
	}
}

/* Returns the bits of those given. */
static unsigned parse_options(struct options *o, int argc, char **argv)
{
	unsigned given = 0;
	int option;

	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (option == '?')
			exit(EX_USAGE); /* getopt has said what is wrong */
		take_option(o, option, optarg);
		given |= BIT(option);
	}
	o->arguments = argv + optind + 1;
	o->n_arguments = argc - optind - 1;
	return given;
}

static size_t find_command(const char *name)
{
	const char *names[ARRAY_SIZE(commands)];
	const char *meant;

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(commands[i].name, name) == 0)
			return i;
		names[i] = commands[i].name;
	}
	meant = nearest(name, names, ARRAY_SIZE(names));
	if (meant)
		misused("\"%s\" is not a command; did you mean %s?", name, meant);
	misused("\"%s\" is not a command", name);
}

static void check_use(size_t command, const struct options *o, unsigned given)
{
	unsigned wrong = given & ~(commands[command].options | EVERYWHERE);

	for (const struct option *option = long_options; option->name; option++) {
		if (wrong & BIT(option->val))
			misused("%s takes no --%s", commands[command].name, option->name);
	}
	if (o->n_arguments < commands[command].least)
		misused("%s needs an argument", commands[command].name);
	if (o->n_arguments > commands[command].most)
		misused("\"%s\" is one argument too many", o->arguments[commands[command].most]);
}

/* Where the sockets are. */

static const char *standard(const char *key)
{
	return config_key_find(SECTION_DAEMON, key)->standard;
}

static int on_key(void *arg, const char *section, const char *key, const char *value)
{
	struct options *o = arg;

	if (strcmp(section, "daemon") != 0)
		return 1;
	if (strcmp(key, "socket") == 0 && !o->socket)
		o->socket = strdup(value);
	else if (strcmp(key, "control_socket") == 0 && !o->control)
		o->control = strdup(value);
	return 1;
}

/* What is not given is looked up in the configuration, as far as that may be read; it may
 * be wrong in other places, and is then barraged's to judge. */
static void find_sockets(struct options *o)
{
	static char defaults[2][108];

	(void)ini_parse(o->config, on_key, o);
	snprintf(defaults[0], sizeof(defaults[0]), "%s", standard("socket"));
	snprintf(defaults[1], sizeof(defaults[1]), "%s", standard("control_socket"));
	if (!o->socket)
		o->socket = defaults[0];
	if (!o->control)
		o->control = defaults[1];
}

/* A descriptor below 3 that is closed would become the socket, and what is meant for
 * standard output would be sent to the daemon. What takes its place can be neither read nor
 * written, so that it is an error as before. */
static void fill_standard_descriptors(void)
{
	int fd;

	do
		fd = open("/", O_PATH | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	static char config[] = CONFIG_PATH;
	static struct options o = { .config = config, .interval = 1000, .window = 20 };
	unsigned given;
	size_t command;

	fill_standard_descriptors();
	signal(SIGPIPE, SIG_IGN);
	given = parse_options(&o, argc, argv);
	if (optind >= argc)
		misused("a command is missing");
	command = find_command(argv[optind]);
	check_use(command, &o, given);
	find_sockets(&o);
	return commands[command].run(&o);
}
