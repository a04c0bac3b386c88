#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Many writers at once, as fast as they can, and what it does to the daemon.

Each writer sends its share of the lines without a pause, a quarter of them asking for a reply, one in a hundred of them
garbage, and reads what it is told. Meanwhile a new writer comes every 100 ms, sends one line that is refused on the
spot and waits for the answer. Checked, and told by the exit status:

- the ledger adds up to the last line: fates counted = lines sent, and each writer was told as many as it was owed;
- the daemon's memory stays within --memory MiB;
- the sandbox saw at most N requests in any second.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import re
import signal
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "e2e"))

from support import APP, Host, Writer  # noqa: E402

ASKS, GARBAGE = 4, 100  # every so many lines


def chunk_of(writer, start, n):
    """Lines start to start + n of a writer, and how many of them are owed an answer."""
    lines = []
    owed = 0
    for i in range(start, start + n):
        if i % GARBAGE == 0:
            lines.append('{"RoomId":"r","UserId":"u","MessageContent":7}\n')
            owed += 1
            continue
        asks = i % ASKS == 0
        owed += asks
        ask = f'"id":"{writer}-{i}",' if asks else ""
        lines.append(f'{{{ask}"RoomId":"room{(writer * 7 + i) % 200}","UserId":"user{writer}",'
                     f'"MessageContent":"主播好，第 {i} 条弹幕，来自 {writer}"}}\n')
    return "".join(lines).encode(), owed


def listen(writer, heard):
    while writer.hear():
        heard[0] += writer.heard.count(b"\n")
        writer.heard = b""


def write_all(path, number, n, results):
    """One writer, in a process of its own."""
    writer = Writer(path)
    writer.socket.settimeout(None)
    heard = [0]
    listener = threading.Thread(target=listen, args=(writer, heard))
    listener.start()
    owed = 0
    for start in range(0, n, 1000):
        data, asked = chunk_of(number, start, min(1000, n - start))
        owed += asked
        writer.send_bytes(data)
    writer.half_close()
    listener.join()
    results.put((owed, heard[0]))


class Watch(threading.Thread):
    """Watches the daemon's memory, and how long a newcomer waits for an answer."""

    def __init__(self, daemon):
        super().__init__()
        self.daemon_process = daemon
        self.waits = []
        self.most = 0
        self.ended = threading.Event()

    def run(self):
        while not self.ended.wait(0.1):
            self.most = max(self.most, self.daemon_process.resident())
            begun = time.monotonic()
            writer = Writer(self.daemon_process.socket)
            reply = writer.ask({"RoomId": "r"})
            self.waits.append(time.monotonic() - begun)
            assert reply["outcome"] == "rejected"
            writer.close()


def flood(daemon, writers, lines):
    """Gives (owed, heard) of each writer, the watch, and the seconds it took."""
    results = multiprocessing.Queue()
    context = multiprocessing.get_context("fork")
    share = lines // writers
    processes = [
        context.Process(target=write_all, args=(daemon.socket, i, share + (i < lines % writers), results))
        for i in range(writers)
    ]
    watch = Watch(daemon)
    begun = time.monotonic()
    for process in processes:
        process.start()
    watch.start()
    told = [results.get() for _ in processes]
    took = time.monotonic() - begun
    watch.ended.set()
    watch.join()
    for process in processes:
        process.join()
    return told, watch, took


def fates_of(log):
    """The fates of the daemon's last line, and their sum by its own count."""
    summary = log.strip().splitlines()[-1]
    fates = {name: int(n) for name, n in re.findall(r"([\w/]+)=(\d+)", summary)}
    return fates.pop("lines"), fates


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=50)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--memory", type=int, default=64, help="MiB that the daemon may occupy (64)")
    arguments = parser.parse_args()
    problems = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        host = Host(stack)
        zego = host.zego(apps={APP: 100}, http=False, latency=20)
        daemon = host.daemon(zego)
        told, watch, took = flood(daemon, arguments.writers, arguments.lines)
        ticks = Path(f"/proc/{daemon.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        daemon.signal(signal.SIGTERM)
        daemon.wait()
        lines, fates = fates_of(daemon.log)
        most = zego.report()["apps"][str(APP)]["most_in_a_second"]

    newcomers = len(watch.waits)
    waits = sorted(watch.waits)
    print(f"{arguments.lines} lines of {arguments.writers} writers in {took:.1f} s; fates: {json.dumps(fates)}")
    print(f"newcomers: {newcomers}, answered after {waits[newcomers // 2] * 1000:.1f} ms at the median, "
          f"{waits[-1] * 1000:.1f} ms at most")
    print(f"daemon: at most {watch.most / 2**20:.1f} MiB resident, {sum(map(int, ticks)) / 100:.1f} s of CPU; "
          f"at most {most} requests in any second")
    if lines != arguments.lines + newcomers or sum(fates.values()) != lines:
        problems.append(f"{lines} lines are in the ledger, {sum(fates.values())} fates")
    if any(owed != heard for owed, heard in told):
        problems.append(f"writers were owed {sum(o for o, _ in told)} replies and told {sum(h for _, h in told)}")
    if watch.most > arguments.memory * 2**20:
        problems.append("too much memory")
    if most > 100:
        problems.append("more than N in a second")
    print("; ".join(problems) if problems else "All adds up.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
