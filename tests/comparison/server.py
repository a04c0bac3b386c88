#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The sandbox, with one thing more: a POST whose body is what would be the query is taken for the GET with that query.

For those who cannot say it as a GET. When the body is complete, all is stamped, checked and counted as for a GET.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sandbox  # noqa: E402

POST = re.compile(rb"POST / HTTP/1\.1\r\n")
OF_THE_BODY = re.compile(rb"(?i)\r\n(?:content-type|content-length):[^\r]*")
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


class Connection(sandbox.Connection):
    def __init__(self, server):
        super().__init__(server)
        self.unread = b""

    def data_received(self, data):
        self.unread += data
        while self.unread:
            request, self.unread = self.cut(self.unread)
            if not request:
                break
            super().data_received(request)

    @staticmethod
    def cut(data):
        """The first request, as a GET if it was such a POST (b"" if it is not complete), and what follows it."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            # So that the sandbox sees a head that grows too long.
            return (data, b"") if len(data) > sandbox.HEAD_MAX else (b"", data)
        head, rest = data[:end], data[end + 4 :]
        length = LENGTH.search(head)
        if not POST.match(head) or not length:
            return head + b"\r\n\r\n", rest
        size = int(length[1])
        if len(rest) < size:
            return b"", data
        query, rest = rest[:size], rest[size:]
        headers = OF_THE_BODY.sub(b"", head[head.index(b"\r\n") :])
        return b"GET /?" + query + b" HTTP/1.1" + headers + b"\r\n\r\n", rest


if __name__ == "__main__":
    sandbox.Connection = Connection
    sandbox.main()
