/* SPDX-License-Identifier: MIT */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>

#include "build.h"
#include "core/buffer.h"
#include "core/config.h"
#include "edge/configfile.h"
#include "edge/daemon.h"
#include "edge/log.h"

static const char usage[] =
	"Usage: barraged [--config FILE] [--check-config | --dump-config]\n"
	"\n"
	"Takes chat messages as lines of JSON on a Unix socket and pushes them into ZEGO\n"
	"rooms: signed, paced to the API's limit, each with one fate that its writer is told.\n"
	"Runs in the foreground.\n"
	"\n"
	"  -c, --config FILE   the configuration (" CONFIG_PATH ")\n"
	"      --check-config  say what is wrong with it, if anything, and exit\n"
	"      --dump-config   print every key in force, without secrets, and exit\n"
	"      --version       print the version and exit\n"
	"  -h, --help          print this and exit\n"
	"\n"
	"Signals: SIGHUP reads the configuration again; SIGTERM sends what is queued for\n"
	"drain_timeout and exits; a second one exits at once.\n";

enum action {
	ACTION_RUN,
	ACTION_CHECK,
	ACTION_DUMP
};

struct options {
	const char *config;
	enum action action;
};

static const struct option long_options[] = {
	{ "config", required_argument, NULL, 'c' }, { "check-config", no_argument, NULL, 'k' },
	{ "dump-config", no_argument, NULL, 'd' },  { "version", no_argument, NULL, 'v' },
	{ "help", no_argument, NULL, 'h' },         { NULL, 0, NULL, 0 },
};

static int say(const char *text)
{
	return fputs(text, stdout) >= 0 && fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void parse_options(struct options *o, int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "c:h", long_options, NULL)) != -1) {
		switch (c) {
		case 'c':
			o->config = optarg;
			break;
		case 'k':
			o->action = ACTION_CHECK;
			break;
		case 'd':
			o->action = ACTION_DUMP;
			break;
		case 'v':
			exit(say("barraged " VERSION "\n"));
		case 'h':
			exit(say(usage));
		default:
			exit(EX_USAGE); /* getopt has said what is wrong */
		}
	}
	if (optind < argc) {
		fprintf(stderr, "barraged: \"%s\" is one argument too many; see --help\n",
			argv[optind]);
		exit(EX_USAGE);
	}
}

/* Returns an exit status. That of a wrong configuration is for that alone: whoever sees it
 * need not start us again. */
static int load(struct config **config, struct vault **vault, const struct options *o)
{
	struct buffer errors = { 0 };
	int r = configfile_load(config, vault, o->config, true, &errors);

	if (r > 0 && errors.failed)
		r = -ENOMEM;
	if (r < 0 && o->action == ACTION_RUN)
		log_error("%s: %s", o->config, strerror(-r));
	else if (r < 0)
		fprintf(stderr, "%s: %s\n", o->config, strerror(-r));
	else if (r > 0 && o->action == ACTION_RUN)
		log_lines(LOG_LEVEL_ERROR, &errors);
	else if (r > 0)
		fputs(errors.data, stderr);
	buffer_deinit(&errors);
	if (r < 0)
		return EXIT_FAILURE;
	return r > 0 ? EX_CONFIG : EXIT_SUCCESS;
}

static void print_warning(void *arg, unsigned line, const char *text)
{
	const char **path = arg;

	fprintf(stderr, "%s:%u: warning: %s\n", *path, line, text);
}

static int dump(const struct config *config)
{
	struct buffer text = { 0 };
	int status = EXIT_FAILURE;

	config_dump(config, &text);
	if (!text.failed && text.data)
		status = say(text.data);
	buffer_deinit(&text);
	return status;
}

static int act(const struct options *o, struct config *config, struct vault *vault)
{
	const char *path = o->config;
	int status = EXIT_SUCCESS;

	if (o->action == ACTION_RUN)
		return daemon_run(o->config, config, vault);
	if (o->action == ACTION_DUMP)
		status = dump(config);
	else
		config_warn(config, print_warning, &path);
	config_free(config);
	vault_free(vault);
	return status;
}

/* A descriptor below 3 that is closed would become the next file or socket, and what is
 * meant for standard error would be written into that. */
static void fill_standard_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

/* Secrets stay out of core dumps and of other processes' reach, from before they are read;
 * and neither a peer that is gone nor a signal that means nothing here (other daemons
 * reopen their logs at it) must end the process. */
static void protect(void)
{
	const struct rlimit none = { 0 };

	signal(SIGPIPE, SIG_IGN);
	signal(SIGUSR1, SIG_IGN);
	signal(SIGUSR2, SIG_IGN);
	signal(SIGHUP, SIG_IGN); /* until the daemon can follow it, which is after it listens */
	if (setrlimit(RLIMIT_CORE, &none) < 0 || (!HAVE_SANITIZER && prctl(PR_SET_DUMPABLE, 0) < 0))
		perror("core dumps cannot be turned off");
}

/* libcurl takes and returns dozens of blocks for each request. glibc's defaults tidy up the
 * whole heap whenever a large one is returned, and give its end back to the kernel to fetch
 * it again for the next. */
static void prepare_heap(void)
{
	mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
}

int main(int argc, char **argv)
{
	struct options options = { .config = CONFIG_PATH };
	struct config *config;
	struct vault *vault;
	int status;

	fill_standard_descriptors();
	protect();
	prepare_heap();
	parse_options(&options, argc, argv);
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		fputs("libcurl cannot be used\n", stderr);
		return EX_SOFTWARE;
	}
	status = load(&config, &vault, &options);
	if (status == EXIT_SUCCESS)
		status = act(&options, config, vault);
	curl_global_cleanup();
	return status;
}
