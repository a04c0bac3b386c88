#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Push live chat through the daemon into the sandbox in real time, and judge what both sides saw.

Without --trace the chat is made up: rooms of unequal size, one of them going wild now and then. A trace is a text file
(or .gz) of rows "milliseconds TAB room TAB text". Whatever the chat, these are checked, and the exit status tells:

- every line has exactly one fate, told to its writer;
- the sandbox saw at most N requests in any sliding second and no fault of the client;
- while a backlog stood, from its first second on, at least 99 % of N were used (reported; required with --strict);
- no room's requests were started out of order; with --in-order they did not arrive so either.
"""

import argparse
import bisect
import collections
import contextlib
import gzip
import io
import random
import re
import signal
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "e2e"))

from support import APP, Host  # noqa: E402

SECOND = 1_000_000_000

PHRASES = """主播好 哈哈哈哈哈 笑死我了 666 太强了 这波可以 冲冲冲 草 什么情况 前方高能 真的假的 学到了 来了来了 晚上好 第一次来
gg wp lol that_was_close 嗨🎉 ¡vamos! すごい 응원합니다 👏👏👏 +1 100% a&b=c #1 再来一局 我先睡了 泪目 好听 求歌名""".split()


def made_up_chat(seconds, rate, seed):
    """Rows (seconds, room, text): eleven rooms in unequal parts, the first of them wild in the middle third."""
    chance = random.Random(seed)
    rooms = [f"room{i:02}" for i in range(12)]
    weights = [1 / (i + 1) for i in range(12)]
    now = 0.0
    while now < seconds:
        wild = seconds / 3 < now < seconds * 2 / 3
        weights[0] = 6 if wild else 1
        now += chance.expovariate(rate)
        yield now, chance.choices(rooms, weights)[0], " ".join(chance.choices(PHRASES, k=chance.randint(1, 4)))


def read_trace(path, seconds):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8", newline="\n") as rows:
        for row in rows:
            ms, room, text = row.rstrip("\n").split("\t", 2)
            if seconds and int(ms) >= seconds * 1000:
                return
            yield int(ms) / 1000, room, text


def fits(text):
    """What the API takes as MessageContent."""
    return 0 < len(text.encode()) <= 1024


class Replay:
    """One run: what was sent when, and what was heard when."""

    def __init__(self, writer, rows):
        self.writer = writer
        self.rows = rows
        self.sent = []  # ns, by id
        self.rooms = []  # by id
        self.heard = []  # (ns, reply)

    def listen(self):
        while True:
            try:
                reply = self.writer.reply()
            except AssertionError:
                return  # the end of the connection
            self.heard.append((time.monotonic_ns(), reply))

    def run(self):
        listener = threading.Thread(target=self.listen)
        listener.start()
        start = time.monotonic()
        shown = start
        for at, room, text in self.rows:
            pause = start + at - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            line = {"id": len(self.sent), "RoomId": room, "UserId": f"user{len(self.sent)}", "MessageContent": text}
            self.rooms.append(room)
            self.sent.append(time.monotonic_ns())
            self.writer.send(line)
            if time.monotonic() - shown >= 1:
                shown = time.monotonic()
                self.show(shown - start)
        self.writer.half_close()
        listener.join()

    def show(self, seconds):
        fates = collections.Counter(reply["outcome"] for _, reply in self.heard[:])
        waiting = len(self.sent) - sum(fates.values())
        told = "  ".join(f"{outcome} {n}" for outcome, n in sorted(fates.items()))
        print(f"{seconds:5.0f} s  offered {len(self.sent):5}  waiting {waiting:4}  {told}", flush=True)


def name_of(reply):
    return "/".join(filter(None, [reply["outcome"], reply.get("reason")]))


def check_fates(replay, problems):
    told = collections.Counter(reply.get("id") for _, reply in replay.heard)
    if sorted(told.elements(), key=str) != sorted(range(len(replay.sent)), key=str):
        problems.append("not every line was told exactly one fate")
    fates = collections.Counter(name_of(reply) for _, reply in replay.heard)
    print(f"\n{len(replay.sent)} lines, {sum(told.values())} fates told:")
    for name, n in fates.most_common():
        print(f"  {n:6}  {name}")
    waits = sorted(reply["waited_ms"] for _, reply in replay.heard if reply["outcome"] == "sent")
    if waits:
        print(f"  waits of what was sent: median {waits[len(waits) // 2]} ms, "
              f"99th percentile {waits[len(waits) * 99 // 100]} ms, longest {waits[-1]} ms")


def backlogs(replay):
    """Maximal intervals (from, to) in which at least one line was waiting to be started."""
    changes = []
    for at, reply in replay.heard:
        changes.append((replay.sent[reply["id"]], 1))
        changes.append((at - reply.get("took_ms", 0) * 1_000_000, -1))
    depth = 0
    since = None
    for at, change in sorted(changes, key=lambda c: (c[0], -c[1])):
        depth += change
        if depth > 0 and since is None:
            since = at
        if depth == 0 and since is not None:
            yield since, at
            since = None


def check_use(replay, arrivals, n, strict, problems):
    """How much of N was used in backlogs of some length, each from its first second on.

    What is left when the last line has been offered is not counted: it may be all of one room, whose own limit rules.
    """
    used = seconds = 0
    for since, until in backlogs(replay):
        until = min(until, replay.sent[-1])
        if until - since < 2 * SECOND:
            continue
        used += bisect.bisect(arrivals, until) - bisect.bisect(arrivals, since + SECOND)
        seconds += (until - since) / SECOND - 1
    if not seconds:
        print("  there was no backlog of two seconds or more")
        return
    part = used / (n * seconds)
    print(f"  while a backlog stood ({seconds:.1f} s), {part:.2%} of {n} a second were used")
    if seconds < 5:
        print("  (in so short a time the credit for the way to the server is still being learnt)")
    if strict and part < 0.99:
        problems.append("less than 99 % of N were used while a backlog stood")


def check_order(replay, log, zego, in_order, problems):
    started = [int(found) for found in re.findall(r"id=(\d+) attempt=1 started", log)]
    arrived = [int(arrival.user[4:]) for arrival in zego.seen()]
    for what, ids, matters in (("started", started, True), ("arrived", arrived, in_order)):
        last = {}
        swapped = 0
        for number in ids:
            room = replay.rooms[number]
            swapped += last.get(room, -1) > number
            last[room] = max(number, last.get(room, -1))
        print(f"  {len(ids)} requests {what}, {swapped} of them after a younger one of their room")
        if swapped and matters:
            problems.append(f"a room's requests {what} out of order")
    if not started:
        problems.append("nothing was started")


def check_server(zego, n, problems):
    report = zego.report()
    app = report["apps"][str(APP)]
    print("\nThe sandbox's verdict:")
    print(f"  {app['requests']} requests on {report['connections']} connections, answered {app['answered']}")
    print(f"  at most {app['most_in_a_second']} in any second ({n} are allowed), "
          f"{app['most_in_100ms']} in any 100 ms")
    print(f"  faults of the client: {report['client_faults'] or 'none'}")
    if app["most_in_a_second"] > n:
        problems.append("more than N in a second")
    if report["client_faults"]:
        problems.append("faults of the client")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", metavar="FILE", help="real chat instead of made-up chat")
    parser.add_argument("--seconds", type=float, default=0, help="how much of it (8 s if made up, else all)")
    parser.add_argument("--overload", type=float, default=2, help="made-up chat: times N (2)")
    parser.add_argument("--test-mode", action="store_true", help="10 requests a second instead of 100")
    parser.add_argument("--in-order", action="store_true", help="room_in_flight = 1")
    parser.add_argument("--latency", type=int, default=20, help="ms from request to answer (20)")
    parser.add_argument("--jitter", type=int, default=10, help="ms, at most, on top (10)")
    parser.add_argument("--seed", type=int, default=None, help="of the made-up chat")
    parser.add_argument("--strict", action="store_true", help="also require 99 %% of N while a backlog stands")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    n = 10 if arguments.test_mode else 100
    seed = arguments.seed if arguments.seed is not None else random.randrange(1 << 32)
    if arguments.trace:
        rows = [row for row in read_trace(arguments.trace, arguments.seconds) if fits(row[2])]
    else:
        print(f"seed {seed}")
        rows = list(made_up_chat(arguments.seconds or 8, n * arguments.overload, seed))
    problems = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))  # where the daemon's log is shown at its end
        host = Host(stack)
        zego = host.zego(apps={APP: n}, http=False, latency=arguments.latency, jitter=arguments.jitter)
        app = {"test_mode": "yes" if arguments.test_mode else "no", "room_in_flight": int(arguments.in_order)}
        daemon = host.daemon(zego, daemon={"log_level": "debug", "startup_hold": "1s"}, app=app)
        print("The configuration:\n\n    " + daemon.config.read_text().strip().replace("\n", "\n    ") + "\n")
        writer = daemon.connect()
        writer.socket.settimeout(None)
        replay = Replay(writer, rows)
        replay.run()
        check_fates(replay, problems)
        check_server(zego, n, problems)
        check_use(replay, zego.arrivals(APP), n, arguments.strict, problems)
        check_order(replay, daemon.log, zego, arguments.in_order, problems)
        print(f"  daemon: {daemon.resident() // 1024} KiB resident; ", end="")
        daemon.signal(signal.SIGTERM)
        print(f"exit status {daemon.wait()}; {daemon.log.strip().splitlines()[-1]}")
    print("\n" + ("; ".join(problems) if problems else "Nothing wrong was found."))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
