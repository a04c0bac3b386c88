#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A long and unsteady line between two ports of this host.

Each piece of data takes --delay and, on top, an exponential time of mean --jitter, each way; every hundredth of them
or so also takes --spike. Within a connection nothing overtakes anything; connections know nothing of each other.
"""

import argparse
import asyncio
import json
import random


class Line:
    def __init__(self, arguments):
        self.delay, self.jitter, self.spike = arguments.delay / 1000, arguments.jitter / 1000, arguments.spike / 1000
        self.port = arguments.to
        self.chance = random.Random(arguments.seed)
        self.ways = set()

    def time_taken(self):
        spike = self.spike if self.chance.random() < 0.01 else 0
        return self.delay + self.chance.expovariate(1 / self.jitter) + spike

    async def way(self, reader, writer):
        """Carry what `reader` gives to `writer`, then its end."""
        loop = asyncio.get_running_loop()
        due = 0
        data = None
        while data != b"":
            try:
                data = await reader.read(1 << 16)
            except ConnectionError:
                data = b""
            due = max(due + 1e-6, loop.time() + self.time_taken())  # a loop's timers of one time have no order
            if data:
                loop.call_at(due, writer.write, data)
        loop.call_at(due, writer.close)

    async def connect(self, reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        for way in self.way(reader, back), self.way(there, writer):
            task = asyncio.create_task(way)
            self.ways.add(task)
            task.add_done_callback(self.ways.discard)


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("to", type=int, help="the port that it leads to")
    parser.add_argument("--delay", type=float, default=15, help="ms (15)")
    parser.add_argument("--jitter", type=float, default=3, help="ms (3)")
    parser.add_argument("--spike", type=float, default=80, help="ms (80)")
    parser.add_argument("--seed", type=int, default=1)
    line = Line(parser.parse_args())
    server = await asyncio.start_server(line.connect, "127.0.0.1", 0, backlog=1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


asyncio.run(main())
