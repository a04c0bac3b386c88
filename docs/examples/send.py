#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Send each TEXT to a room and print the replies: send.py SOCKET ROOM USER TEXT...

The exit status is 0 if every message was sent.
"""

import json
import socket
import sys


def main():
    path, room, user, *texts = sys.argv[1:]
    sent = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
        daemon.connect(path)
        for number, text in enumerate(texts, 1):
            message = {"id": number, "RoomId": room, "UserId": user, "MessageContent": text}
            daemon.sendall(json.dumps(message).encode() + b"\n")
        daemon.shutdown(socket.SHUT_WR)  # no more lines; the replies still come

        with daemon.makefile("rb") as replies:
            for line in replies:  # whole lines, in whatever pieces they arrive
                reply = json.loads(line)
                print(line.decode(), end="")
                sent += reply["outcome"] == "sent"
    return 0 if sent == len(texts) else 1


if __name__ == "__main__":
    sys.exit(main())
