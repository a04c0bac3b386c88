#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Put the same lines through barraged and through what else one might take, and measure both ends.

Each contender gets a stand-in for ZEGO's API of its own (tests/sandbox.py over TLS, with a POST taken for a GET), a
long and unsteady line to it (link.py), a Unix socket, and the same loads one after the other. docs/COMPARISON.md says
what the rows of the table mean, and why the settings are fair.
"""

import argparse
import bisect
import collections
import contextlib
import json
import multiprocessing
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
sys.path[:0] = [str(TESTS), str(TESTS / "e2e")]

from replay import PHRASES, fits, read_trace  # noqa: E402
from sandbox import LIMITERS, SECOND, Sandbox, most_in_window  # noqa: E402
from support import BARRAGED, die_with_the_tests, eventually  # noqa: E402

APP = 1234567890
N = 100
PACKAGES = TESTS.parent / "build-comparison"  # made by tests/compare

# The loads.


class Load:
    """Rows (seconds, room, text) to be written in real time.

    With `most` they are written over and over instead, by four writers as fast as they are taken, for so many seconds
    and at most so many in all.
    """

    writers = 4

    def __init__(self, name, rows, seconds=0, most=0):
        self.name = name
        self.rows = rows
        self.seconds = seconds
        self.most = most


def chat(chance, seconds, rate, rooms, weights=None):
    now = 0.0
    while (now := now + chance.expovariate(rate)) < seconds:
        yield now, chance.choices(rooms, weights)[0], " ".join(chance.choices(PHRASES, k=chance.randint(1, 4)))


ROOMS = [f"room{i:02}" for i in range(40)]
UNEQUAL = [(i + 1) ** -0.5 for i in range(40)]


def backlog(arguments, chance, seconds):
    if not arguments.trace:
        return list(chat(chance, seconds, 280, ROOMS, UNEQUAL))
    faster = 2
    rows = read_trace(arguments.trace, seconds * faster)
    return [(at / faster, room, text) for at, room, text in rows if fits(text)]


def loads(arguments):
    chance = random.Random(arguments.seed)
    part = arguments.part
    yield Load("warm-up", list(chat(chance, 10 * part, 60, ROOMS, UNEQUAL)))
    yield Load("calm", list(chat(chance, 15 * part, 50, ROOMS, UNEQUAL)))
    yield Load("backlog", backlog(arguments, chance, 30 * part))
    flood = [(400, ["flood"]), (100, ROOMS[:20]), (2, ["quiet"])]
    yield Load("flood", sorted(row for rate, rooms in flood for row in chat(chance, 20 * part, rate, rooms)))
    yield Load("overload", list(chat(chance, 20, 500, ROOMS)), seconds=6 * part, most=arguments.lines)


def line_of(number, room, text):
    line = {"id": number, "RoomId": room, "UserId": f"user{number}", "MessageContent": text}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


class Writing:
    """What became of a load at its writers' end. Times are by time.monotonic_ns()."""

    def __init__(self):
        self.written = {}  # when the writing of a line began, by its number
        self.longest = 0  # that a write took
        self.began = self.ended = 0
        self.told = 0  # replies of any other outcome than sent


def connect(path):
    writer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    writer.connect(str(path))
    return writer


class Listener(threading.Thread):
    """Reads what a writer is told until the end of the connection, and counts the fates that are not "sent"."""

    def __init__(self, writer):
        super().__init__(daemon=True)
        self.writer = writer
        self.told = 0
        self.start()

    def run(self):
        rest = b""
        with contextlib.suppress(OSError):
            while data := self.writer.recv(1 << 18):
                whole, newline, rest = (rest + data).rpartition(b"\n")
                self.told += whole.count(b"\n") + len(newline) - whole.count(b'"outcome":"sent"')


def write_paced(path, load, first):
    writing = Writing()
    writer = connect(path)
    listener = Listener(writer)
    start = time.monotonic()
    writing.began = time.monotonic_ns()
    for number, (at, room, text) in enumerate(load.rows, first):
        data = line_of(number, room, text)
        pause = start + at - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        writing.written[number] = began = time.monotonic_ns()
        writer.sendall(data)
        writing.longest = max(writing.longest, time.monotonic_ns() - began)
    writing.ended = time.monotonic_ns()
    return writing, [(writer, listener)]


LINES_AT_ONCE = 100


def chunk_of(rows):
    """Lines with room for their numbers: making them costs the writer next to nothing."""
    lines = []
    for _, room, text in rows:
        line = json.dumps({"RoomId": room, "MessageContent": text}, ensure_ascii=False, separators=(",", ":"))
        lines.append('{"id":%d,"UserId":"user%d",' + line[1:].replace("%", "%%") + "\n")
    return "".join(lines).encode()


def write_fast(path, chunks, first, most, seconds, results, go):
    """A writer as a process of its own. Its lines have the numbers from `first` on, `most` at most."""
    writer = connect(path)
    listener = Listener(writer)
    go.wait()
    began = []
    longest = 0
    deadline = time.monotonic() + seconds
    for number in range(first, first + most, LINES_AT_ONCE):
        numbers = [n for n in range(number, number + LINES_AT_ONCE) for _ in range(2)]
        chunk = chunks[len(began) % len(chunks)] % tuple(numbers)
        before = time.monotonic_ns()
        writer.sendall(chunk)
        began.append(before)
        ended = time.monotonic_ns()
        longest = max(longest, ended - before)
        if ended / SECOND > deadline:
            break
    writer.shutdown(socket.SHUT_WR)
    listener.join(timeout=60)
    writer.close()
    results.put((began, ended, longest, listener.told))


class Written:
    """When the lines of fast writers were written, by their numbers."""

    def __init__(self, first, most):
        self.first, self.most = first, most
        self.began = []  # of each writer, of each chunk

    def __contains__(self, number):
        writer, n = divmod(number - self.first, self.most)
        return 0 <= writer < len(self.began) and n // LINES_AT_ONCE < len(self.began[writer])

    def __getitem__(self, number):
        writer, n = divmod(number - self.first, self.most)
        return self.began[writer][n // LINES_AT_ONCE]

    def __len__(self):
        return sum(map(len, self.began)) * LINES_AT_ONCE


def write_overload(path, load, first):
    """All writers at once; gives the writing when the last reply is there."""
    writing = Writing()
    context = multiprocessing.get_context("fork")
    go = context.Event()
    most = load.most // load.writers
    writing.written = Written(first, most)
    starts = range(0, len(load.rows) - LINES_AT_ONCE + 1, LINES_AT_ONCE)
    chunks = [chunk_of(load.rows[start : start + LINES_AT_ONCE]) for start in starts]
    writers = []
    for i in range(load.writers):
        results = context.Queue()
        arguments = (path, chunks, first + i * most, most, load.seconds, results, go)
        process = context.Process(target=write_fast, args=arguments)
        process.start()
        writers.append((process, results))
    time.sleep(1)
    writing.began = time.monotonic_ns()
    go.set()
    for process, results in writers:
        began, ended, longest, told = results.get(timeout=load.seconds + 120)  # it may have died
        process.join()
        writing.written.began.append(began)
        writing.ended = max(writing.ended, ended)
        writing.longest = max(writing.longest, longest)
        writing.told += told
    return writing


# The contenders.


class Place:
    """A folder of its own with a socket's path, the stand-in for ZEGO and the line to it."""

    def __init__(self, stack, seed):
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comparison-", dir="/tmp")))
        self.socket = self.directory / "sock"
        self.secret = secrets.token_hex(16)
        self.secret_file = self.directory / "secret"
        self.write("secret", self.secret + "\n")
        self.log = self.directory / "requests.tsv"
        self.zego = stack.enter_context(
            Tolerant(app=f"{APP}:{self.secret}:{N}", log=str(self.log), latency=5, seed=seed)
        )
        port = int(re.search(r":(\d+)/", self.zego.url)[1])
        line = subprocess.Popen(
            [sys.executable, HERE / "link.py", str(port), "--seed", str(seed)],
            stdout=subprocess.PIPE, text=True, preexec_fn=die_with_the_tests,
        )  # fmt: skip
        stack.callback(end, line)
        self.url = f"https://127.0.0.1:{json.loads(line.stdout.readline())['port']}/"
        self.ca_file = self.zego.ca_file

    def write(self, name, text):
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)
        return path


class Tolerant(Sandbox):
    program = str(HERE / "server.py")


def end(process):
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def output_of(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout


class Contender:
    def __init__(self, title, **settings):
        self.title = title
        self.settings = settings

    def environment(self, _place):
        return {}

    def losses_counted(self, _place):
        """What it has counted as lost since its start, by its own books; None if it keeps none."""
        return None


class Barraged(Contender):
    def version(self):
        return output_of(BARRAGED, "--version").strip()

    def command(self, place):
        text = (HERE / "barraged.conf").read_text()
        filled = {"SOCKET": place.socket, "CONTROL": place.directory / "control", "URL": place.url, "APPID": APP,
                  "CA_FILE": place.ca_file, "SECRET_FILE": place.secret_file}  # fmt: skip
        head, _, keys = text.partition("\n\n")
        for word, value in filled.items():
            keys = re.sub(rf"\b{word}\b", str(value), keys)
        return [BARRAGED, "--config", place.write("barraged.conf", head + "\n\n" + keys)]

    def losses_counted(self, place):
        metrics = output_of(BARRAGED.parent / "barragectl", "--config", place.directory / "barraged.conf", "metrics")
        return sum(
            int(n) for outcome, n in re.findall(r'(?m)^barraged_requests_total\{.*outcome="(\w+)".*\} (\d+)', metrics)
            if outcome != "sent"
        )  # fmt: skip


class SyslogNg(Contender):
    root = PACKAGES / "root"

    def environment(self, _place):
        return {"LD_LIBRARY_PATH": str(self.root / "usr/lib/syslog-ng")}

    def version(self):
        (package,) = PACKAGES.glob("syslog-ng-core_*.deb")
        return "syslog-ng " + output_of("dpkg-deb", "--field", package, "Version").strip()

    def command(self, place):
        defined = {"SOCKET": place.socket, "URL": place.url, "CA_FILE": place.ca_file, "APPID": APP,
                   "SECRET": place.secret, **self.settings}  # fmt: skip
        text = "@version: 3.38\n" + "".join(f'@define {name} "{value}"\n' for name, value in defined.items())
        file = place.write("syslog-ng.conf", f'{text}@include "{HERE / "syslog-ng.conf"}"\n')
        own = {"cfgfile": file, "persist-file": "persist", "control": "control", "pidfile": "pid"}
        return [
            self.root / "usr/sbin/syslog-ng", "--foreground", "--no-caps",
            f"--module-path={self.root / 'usr/lib/syslog-ng/3.38'}",
            *(f"--{name}={place.directory / value}" for name, value in own.items()),
        ]  # fmt: skip

    def losses_counted(self, place):
        ctl = self.root / "usr/sbin/syslog-ng-ctl"
        environment = os.environ | self.environment(place)
        rows = output_of(ctl, "stats", f"--control={place.directory / 'control'}", env=environment)
        return sum(
            int(n) for kind, what, n in re.findall(r"(?m)^([^;]*);.*;(\w+);(\d+)$", rows)
            if (kind, what) == ("filter", "not_matched") or (kind.startswith("dst.") and what == "dropped")
        )  # fmt: skip


class Node(Contender):
    def version(self):
        packages = (PACKAGES / "node_modules" / name / "package.json" for name in ("bottleneck", "undici"))
        found = [json.loads(package.read_text()) for package in packages]
        node = output_of("node", "--version").strip()
        return f"Node.js {node}, " + ", ".join(f"{package['name']} {package['version']}" for package in found)

    def environment(self, place):
        return {
            "SOCKET": str(place.socket), "URL": place.url, "CA_FILE": place.ca_file, "APPID": str(APP),
            "SECRET_FILE": str(place.secret_file), "NODE_PATH": str(PACKAGES / "node_modules"),
            "NODE_ENV": "production",
        }  # fmt: skip

    def command(self, _place):
        return ["node", HERE / "relay.js", self.settings["way"]]


CONTENDERS = {
    "barraged": [Barraged("barraged")],
    "syslog-ng": [
        SyslogNg("syslog-ng, 10 workers", WORKERS=10, THROTTLE=10, FIFO=30),
        SyslogNg("syslog-ng, 100 workers", WORKERS=100, THROTTLE=1, FIFO=3),
    ],
    "node": [Node("Node, reservoir", way="reservoir"), Node("Node, rooms", way="rooms")],
}

# A run.


def cpu(pid):
    """Seconds of processor that a process has used, all its threads, user and system."""
    CPUCLOCK_SCHED = 2
    return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)


def peak(pid):
    """Bytes resident at most so far."""
    return int(re.search(r"(?m)^VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


class Arrivals:
    """The requests of one load as the server saw them."""

    def __init__(self, log, written):
        self.times = []
        self.rooms = collections.defaultdict(list)
        self.by_number = {}
        for row in log.read_text().splitlines():
            at, _, room, user, *_ = row.split("\t")
            number = int(user.removeprefix("user"))
            if number in written:
                self.times.append(int(at))
                self.rooms[room].append(int(at))
                self.by_number.setdefault(number, int(at))
        self.times.sort()

    def windows_breached(self):
        """How many of the seconds that begin with a request hold more than N."""
        return sum(bisect.bisect_left(self.times, at + SECOND) - i > N for i, at in enumerate(self.times))

    def beyond(self, limiter):
        """How many of them a limiter would have refused."""
        limit = LIMITERS[limiter](N)
        return sum(not limit.admit(at) for at in self.times)

    def used(self, since, until):
        """The part of N that was used between two times, not counting what is beyond the limit."""
        limit = LIMITERS["log"](N)
        admitted = sum(limit.admit(at) and since <= at < until for at in self.times)
        return admitted / (N * (until - since) / SECOND)


def settle(zego):
    """Wait until nothing has arrived for two seconds and a half."""
    deadline = time.monotonic() + 60
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 2.5 and time.monotonic() < deadline:
        time.sleep(0.25)
        size = zego.report()["requests"]
        if size != last:
            last, since = size, time.monotonic()


def run(contender, all_loads, seed):
    """Measure a contender; gives {load: {row: value}}."""
    with contextlib.ExitStack() as stack:
        place = Place(stack, seed)
        command = [str(word) for word in contender.command(place)]
        environment = os.environ | contender.environment(place)
        process = subprocess.Popen(command, env=environment, preexec_fn=die_with_the_tests, cwd=place.directory)
        stack.callback(end, process)
        eventually(place.socket.exists, f"{contender.title} to listen")
        time.sleep(2)  # whatever it does first is over
        results = {}
        first = 0
        for load in all_loads:
            print(f"  {contender.title}: {load.name}", file=sys.stderr, flush=True)
            counted, used = contender.losses_counted(place), cpu(process.pid)
            if not load.most:
                writing, connections = write_paced(place.socket, load, first)
            else:
                writing, connections = write_overload(place.socket, load, first), []
            settle(place.zego)
            used = cpu(process.pid) - used
            if counted is not None:
                counted = contender.losses_counted(place) - counted
            for writer, listener in connections:
                writer.shutdown(socket.SHUT_WR)
                listener.join(timeout=5)
                writer.close()
                writing.told += listener.told
            arrivals = Arrivals(place.log, writing.written)
            results[load.name] = measure(load, first, writing, arrivals, used, counted)
            first += load.most or len(load.rows)
            assert process.poll() is None, f"{contender.title} has ended"
        results["overload"]["peak"] = peak(process.pid)
        faults = place.zego.report()["client_faults"]
        if faults:
            sys.exit(f"{contender.title} has sent what is no good call: {faults}")
        return results


def percentile(values, part):
    values = sorted(values)
    return values[min(int(len(values) * part), len(values) - 1)] if values else None


def measure(load, first, writing, arrivals, used, counted):
    rooms = [room for _, room, _ in load.rows]
    ages = {n: (at - writing.written[n]) / 1e6 for n, at in arrivals.by_number.items()}
    quiet = [n for n, room in enumerate(rooms, first) if room == "quiet"]
    seconds = (writing.ended - writing.began) / SECOND
    return {
        "lines": len(writing.written),
        "delivered": len(ages),
        "most": most_in_window(arrivals.times, SECOND),
        "most_of_room": max((most_in_window(times, SECOND) for times in arrivals.rooms.values()), default=0),
        "breached": arrivals.windows_breached(),
        "beyond": {limiter: arrivals.beyond(limiter) for limiter in ("log", "fixed", "bucket")},
        # Not the first second, in which what is there to be used depends on what was sent in the last.
        "used": arrivals.used(writing.began + SECOND, writing.ended) if seconds > 1.5 else None,
        "cpu_delivered": used / len(ages) if ages else None,
        "cpu_line": used / len(writing.written),
        "age": percentile(ages.values(), 0.5),
        "age99": percentile(ages.values(), 0.99),
        "quiet_lines": len(quiet),
        "quiet_delivered": sum(n in ages for n in quiet),
        "quiet_age": percentile([ages[n] for n in quiet if n in ages], 0.5),
        "quiet_age99": percentile([ages[n] for n in quiet if n in ages], 0.99),
        "lost": len(writing.written) - len(ages),
        "told": writing.told,
        "counted": counted,
        "blocked": writing.longest / 1e6,
        "in": len(writing.written) / seconds,
    }


# The table.


def ms(value):
    return "–" if value is None else f"{value:.0f} ms" if value < 9950 else f"{value / 1000:.1f} s"


def us(value):
    return "–" if value is None else f"{value * 1e6:.0f} µs" if value * 1e6 >= 10 else f"{value * 1e6:.1f} µs"


def percent(value):
    return "–" if value is None else f"{value:.1%}"


def beyond(row):
    return " / ".join(str(row["beyond"][limiter]) for limiter in ("log", "fixed", "bucket"))


def number(value):
    return f"{value:,.0f}".replace(",", " ")


def part_of_lost(row, name):
    if not row["lost"]:
        return "–"
    if not row[name]:
        return "none"
    return "all" if row[name] == row["lost"] else number(row[name])


def times(value, reference):
    if not reference or value is None:
        return ""
    ratio = value / reference
    return f" ({ratio:.1f} ×)" if ratio >= 1 else f" ({ratio:.2g} ×)"


def cpu_delivered(row, ours):
    return us(row["cpu_delivered"]) + times(row["cpu_delivered"], ours["cpu_delivered"])


def taken_in(row, ours):
    return number(row["in"]) + times(row["in"], ours["in"])


LOSSES = (
    ("lost", lambda row, _: number(row["lost"])),
    ("of these told to the writer", lambda row, _: part_of_lost(row, "told")),
    ("of these counted", lambda row, _: part_of_lost(row, "counted")),
)
ROWS = {
    "calm": (
        ("delivered", lambda row, _: f"{row['delivered']} of {row['lines']}"),
        ("age, median", lambda row, _: ms(row["age"])),
        ("age, 99th percentile", lambda row, _: ms(row["age99"])),
        ("most in any second", lambda row, _: str(row["most"])),
        ("CPU for each delivered", cpu_delivered),
    ),
    "backlog": (
        ("most in any second", lambda row, _: str(row["most"])),
        ("seconds with more than N", lambda row, _: str(row["breached"])),
        ("beyond the limit: log / fixed / bucket", lambda row, _: beyond(row)),
        ("of N used", lambda row, _: percent(row["used"])),
        ("most to one room in any second", lambda row, _: str(row["most_of_room"])),
        ("age, median", lambda row, _: ms(row["age"])),
        ("age, 99th percentile", lambda row, _: ms(row["age99"])),
        ("CPU for each delivered", cpu_delivered),
        *LOSSES,
        ("longest write", lambda row, _: ms(row["blocked"])),
    ),
    "flood": (
        ("quiet room, delivered", lambda row, _: f"{row['quiet_delivered']} of {row['quiet_lines']}"),
        ("quiet room, age, median", lambda row, _: ms(row["quiet_age"])),
        ("quiet room, age, 99th percentile", lambda row, _: ms(row["quiet_age99"])),
        ("most in any second", lambda row, _: str(row["most"])),
        ("of N used", lambda row, _: percent(row["used"])),
        ("most to one room in any second", lambda row, _: str(row["most_of_room"])),
    ),
    "overload": (
        ("lines taken in a second", taken_in),
        ("CPU for each line", lambda row, ours: us(row["cpu_line"]) + times(row["cpu_line"], ours["cpu_line"])),
        ("of N used meanwhile", lambda row, _: percent(row["used"])),
        ("most in any second", lambda row, _: str(row["most"])),
        ("age, median", lambda row, _: ms(row["age"])),
        ("age, 99th percentile", lambda row, _: ms(row["age99"])),
        *LOSSES,
        ("longest write", lambda row, _: ms(row["blocked"])),
        ("memory at most", lambda row, ours: f"{row['peak'] / 2**20:.0f} MiB" + times(row["peak"], ours["peak"])),
    ),
}  # fmt: skip


def table(results):
    ours = results.get("barraged", collections.defaultdict(lambda: collections.defaultdict(lambda: None)))
    yield "| | " + " | ".join(results) + " |"
    yield "|---|" + "---|" * len(results)
    for load, rows in ROWS.items():
        yield f"| **{load}** |" + " |" * len(results)
        for name, show in rows:
            cells = [show(result[load], ours[load]) for result in results.values()]
            yield f"| {name} | " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", nargs="?", choices=[*CONTENDERS, "all"], default="all")
    parser.add_argument("--trace", metavar="FILE", help="real chat for the backlog, taken twice as fast as it was")
    parser.add_argument("--seed", type=int, default=1, help="of the chat and the line (1)")
    parser.add_argument("--part", type=float, default=1, help="of the usual length of the loads (1)")
    parser.add_argument("--lines", type=int, default=10_000_000, help="at most for overload (10000000)")
    parser.add_argument("--json", metavar="FILE", help="write all that was measured")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    all_loads = list(loads(arguments))
    chosen = [c for name, some in CONTENDERS.items() if arguments.contender in (name, "all") for c in some]
    results = {}
    versions = []
    for contender in chosen:
        if contender.version() not in versions:
            versions.append(contender.version())
        results[contender.title] = run(contender, all_loads, arguments.seed)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent="\t") + "\n")
    print(f"seed {arguments.seed}; " + "; ".join(versions) + "\n")
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
