/* SPDX-License-Identifier: MIT */
/* Stands in for libFuzzer where there is none: gives a target every file of the folders
 * named, in the order of their names, so that what was once found stays found with any
 * compiler. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

static void __attribute__((__noreturn__)) die(const char *what, const char *path)
{
	fprintf(stderr, "%s: %s: %s\n", what, path, strerror(errno));
	exit(1);
}

static void replay(const char *path)
{
	FILE *file = fopen(path, "rb");
	struct stat st;
	uint8_t *data;

	if (!file || fstat(fileno(file), &st) < 0)
		die("cannot open", path);
	data = malloc((size_t)st.st_size + (st.st_size == 0));
	if (!data || fread(data, 1, (size_t)st.st_size, file) != (size_t)st.st_size)
		die("cannot read", path);
	(void)fclose(file); /* nothing was written */
	LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
	free(data);
}

static int is_visible(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

static int replay_all(const char *folder)
{
	struct dirent **entries;
	int n = scandir(folder, &entries, is_visible, alphasort);

	if (n < 0)
		die("cannot look into", folder);
	for (int i = 0; i < n; i++) {
		char path[4096];

		snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
		printf("%s\n", path);
		(void)fflush(stdout); /* what comes next may crash */
		replay(path);
		free(entries[i]);
	}
	free(entries);
	return n;
}

int main(int argc, char **argv)
{
	int n = 0;

	for (int i = 1; i < argc; i++)
		n += replay_all(argv[i]);
	printf("%d inputs\n", n);
	return n > 0 ? 0 : 1;
}
