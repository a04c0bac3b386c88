#!/bin/sh
# SPDX-License-Identifier: MIT
# Sends each TEXT to a room and prints the replies: send.sh SOCKET ROOM USER TEXT...
# Needs netcat-openbsd. The exit status is 0 if every message was sent.
set -eu

socket=$1 room=$2 user=$3
shift 3

# A JSON string. Line feeds and tabs become spaces, other control characters go.
quote() {
	printf '"%s"' "$(printf '%s' "$1" | tr '\n\t' '  ' | tr -d '[:cntrl:]' | sed 's/[\\"]/\\&/g')"
}

lines() {
	id=0
	for text in "$@"; do
		id=$((id + 1))
		printf '{"id":%d,"RoomId":%s,"UserId":%s,"MessageContent":%s}\n' \
			"$id" "$(quote "$room")" "$(quote "$user")" "$(quote "$text")"
	done
}

# With -N nc tells the daemon that there are no more lines, and then prints replies until
# the daemon, which has answered all of them, closes.
lines "$@" | nc -N -U "$socket" | awk -v wanted=$# '
	{ print }
	/"outcome":"sent"/ { sent++ }
	END { exit sent < wanted }'
