/* SPDX-License-Identifier: MIT */
/* Prints the sample configuration. conf/barraged.conf is its output, and a test keeps
 * it so. */
#include <stdio.h>

#include "core/config.h"

int main(void)
{
	_cleanup_(buffer_deinit) struct buffer sample = { 0 };

	config_sample(&sample);
	if (sample.failed || fwrite(sample.data, 1, sample.len, stdout) != sample.len)
		return 1;
	return fflush(stdout) == 0 ? 0 : 1;
}
