#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Measure what the daemon costs, each thing beside its reference in the same minutes.

Without options: all rows of the table, in some five minutes. Ratios are of processor time, which other load on the
machine changes little, and both sides alike; the times of the lone message are by the clock, so a machine that has
nothing else to do is needed for those.

- delivered: from line to reply, 32 in flight over TLS to nginx, beside h2load against the same nginx, and beside a
  program that does nothing but call libcurl
- refused: a line when the queue is full, beside cJSON_Parse() and cJSON_Delete() of it
- many: both with 10 000 AppIDs and with 100 000 rooms, beside one
- memory: of a queued message
- idle: with 1000 writers connected
- lone: from a writer's write to the request on the wire, beside a bare libcurl request
"""

import argparse
import contextlib
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from measure import (  # noqa: E402
    APP, BARRAGED, LINE, MEASURED, NGINX_PROGRAM, PATIENT, UNLIMITED, Full, Measured, Nginx, Spread,
    die_with_the_tests, eventually, fresh_host, free_port, interleave, parse_ns, tool,
)
import growth  # noqa: E402
from support import has_systemd  # noqa: E402

TEXT = LINE - len('{"AppId":1234567890,"RoomId":"","UserId":"","UserName":"","MessageContent":""}\n')
MANY_APPS, MANY_ROOMS = 10_000, 100_000


class Row(NamedTuple):
    """A line of the table, as it is shown. Without a limit it is told for information."""

    work: str
    ours: str
    reference: str
    result: str
    spread: str
    most: str = ""
    met: str = ""


HEAD = Row("work", "ours", "reference", "result", "half of the runs", "at most", "met")
WIDTHS = (66, 10, 10, 9, 17, 9, 3)


def show(row):
    print("  ".join(cell.ljust(width) for cell, width in zip(row, WIDTHS)).rstrip(), flush=True)


def compared(work, ours, reference, most=None):
    """The row of two series of nanoseconds, run by run."""
    ratio = Spread.of([a / b for a, b in zip(ours, reference)])
    return Row(work, *(f"{statistics.median(values) / 1000:.3g} µs" for values in (ours, reference)),
               f"× {ratio.median:.2f}", f"{ratio.low:.2f} to {ratio.high:.2f}",
               *(most and (f"× {most}", "yes" if ratio.median <= most else "no") or ()))


# The rows.


def delivered(quick):
    n = 2000 if quick else 10_000
    with fresh_host() as host:
        nginx = Nginx(host)
        daemon = Measured(host, upstream=nginx.upstream, app=UNLIMITED)
        ours, h2load, libcurl = interleave(1 if quick else 25, lambda: daemon.delivered_ns(n),
                                           lambda: nginx.h2load_ns(n), lambda: nginx.libcurl_ns(n))
    yield compared("delivered message, 32 in flight over TLS / request of h2load", ours, h2load, most=1.5)
    yield compared("delivered message / request of libcurl alone", ours, libcurl)
    yield compared("request of libcurl alone / of h2load", libcurl, h2load)


def refused(quick):
    n = 5000 if quick else 200_000
    for overflow, id in (("newest", False), ("newest", True), ("oldest", False), ("oldest", True)):
        left = 300 if overflow == "oldest" and id else 0
        with fresh_host() as host:
            daemon = Full(host, overflow=overflow)
            daemon.write(300)
            pair = interleave(1 if quick else 15, lambda: daemon.refused_ns(n, id, left), lambda: parse_ns(n, id))
        what = "refused line" if overflow == "newest" else "line that displaces the oldest"
        judged = overflow == "newest" and not id
        yield compared(f"{what}{', with a reply' if id else ''}, {LINE} bytes / cJSON", *pair,
                       most=1.5 if judged else None)


def told(apps, rooms):
    return f"{apps:,} AppIDs".replace(",", " ") if apps > 1 else f"{rooms:,} rooms".replace(",", " ")


def many(quick):
    for apps, rooms in ((MANY_APPS, 1), (1, MANY_ROOMS)):
        yield from many_delivered(quick, apps, rooms)
    for apps, rooms in ((MANY_APPS, 1), (1, MANY_ROOMS)):
        yield many_refused(quick, apps, rooms)
    yield scraped(100 if quick else MANY_APPS)


def many_delivered(quick, apps, rooms):
    """With little that waits, and where something waits for each."""
    with fresh_host() as host:
        nginx = Nginx(host)
        many = Measured(host, upstream=nginx.upstream, queue=PATIENT, apps={APP + i: UNLIMITED for i in range(apps)})
        one = Measured(host, upstream=nginx.upstream, queue=PATIENT, app=UNLIMITED)
        for window in (64, max(apps, rooms)):
            n = 2000 if quick else max(10_000, window)
            pair = interleave(
                1 if quick else 15 if window == 64 else 7,
                lambda: many.delivered_ns(n, min(window, n), apps=apps, rooms=rooms),
                lambda: one.delivered_ns(n, min(window, n)),
            )
            waiting = "" if window == 64 else ", each with one waiting"
            yield compared(f"delivered, {told(apps, rooms)}{waiting} / one", *pair, most=1.2)


def many_refused(quick, apps, rooms):
    depth = max(apps, rooms)
    n = max(depth, 5000 if quick else 200_000)
    with fresh_host() as host:
        many, one = Full(host, apps=apps, depth=depth), Full(host, depth=depth)
        many.write(depth, apps=apps, rooms=rooms)
        one.write(depth)
        pair = interleave(1 if quick else 15, lambda: many.refused_ns(n, apps=apps, rooms=rooms),
                          lambda: one.refused_ns(n))
    return compared(f"refused, {told(apps, rooms)}, each queue full / one", *pair, most=1.2)


def scraped(apps):
    """Nothing else is done meanwhile, so that the time matters too."""
    with fresh_host() as host:
        daemon = Full(host, apps=apps, depth=apps)
        daemon.write(apps, apps=apps)
        taken = []
        for _ in range(5):
            before = daemon.cpu_ns()
            daemon.control("metrics")
            taken.append(daemon.cpu_ns() - before)
    spread = Spread.of(taken)
    return Row(f"metrics of {told(apps, 1)} by the control socket, for each",
               f"{spread.median / apps / 1000:.1f} µs", "", f"{spread.median / 1e6:.0f} ms",
               f"{spread.low / 1e6:.0f} to {spread.high / 1e6:.0f} ms")


def memory(quick):
    n = 20_000 if quick else 200_000
    for rooms, most in ((1, 200), (n, None)):
        with fresh_host() as host:
            daemon = Full(host, depth=2 * n)
            daemon.write(1000)  # what a first line takes is taken
            before = daemon.resident()
            daemon.write(n, rooms=rooms)
            each = (daemon.resident() - before) / n
        yield Row(f"queued message in memory{'' if rooms == 1 else ', each in a room of its own'} / its text",
                  f"{each:.0f} B", f"{TEXT} B", f"+ {each - TEXT:.0f} B", "",
                  *(most and (f"+ {most} B", "yes" if each - TEXT <= most else "no") or ()))


def idle(quick):
    """Wakings are counted between two of those that the watchdog is told of."""
    writers, notes = (50, 2) if quick else (1000, 10)
    with fresh_host() as host:
        nginx = Nginx(host)
        watchdog = host.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        watchdog.bind(str(host.directory / "notify"))
        watchdog.settimeout(30)
        environment = {"NOTIFY_SOCKET": str(host.directory / "notify"), "WATCHDOG_USEC": "4000000"}
        daemon = Measured(host, upstream=nginx.upstream, app=UNLIMITED, environment=environment)
        daemon.delivered_ns(1000)  # so that there are connections that could need care
        connected = [daemon.connect() for _ in range(writers)]
        eventually(lambda: daemon.control("status")["clients"] == writers, "the writers to be taken in")
        counted = []
        if has_systemd():
            for expected in (1, notes):
                for _ in range(expected):
                    while b"WATCHDOG=1" not in watchdog.recv(4096):
                        pass
                time.sleep(0.2)
                counted.append(daemon.wakeups())
            wakings = counted[1] - counted[0]
        else:
            counted = [daemon.wakeups(), time.sleep(20), daemon.wakeups()]
            wakings, notes = counted[2] - counted[0], 0
        resident = daemon.resident() / 2**20
        del connected
    yield Row(f"idle with {writers} writers for {notes * 2 or 20} s: wakings / of the watchdog", str(wakings),
              str(notes), f"+ {wakings - notes}", "", "+ 0", "yes" if wakings <= notes else "no")
    yield Row("the same: memory resident", f"{resident:.1f} MiB", "", "", "", "16 MiB",
              "yes" if resident <= 16 else "no")
    yield Row("the same after 256 were in flight at once", f"{crowded_memory(writers):.1f} MiB", "", "", "")


def crowded_memory(writers):
    """Connections, and handles of libcurl, are kept for the next such crowd."""
    with fresh_host() as host:
        daemon = Measured(host, upstream=Nginx(host, 256).upstream, app=UNLIMITED)
        daemon.delivered_ns(20_000, window=1000)
        connected = [daemon.connect() for _ in range(writers)]
        eventually(lambda: daemon.control("status")["clients"] == writers, "the writers to be taken in")
        del connected
        return daemon.resident() / 2**20


def lone(quick):
    yield lone_beside(100 if quick else 1500)
    for part in (50, 95):
        yield lone_paced(part, 20 if quick else 20 * part)
    yield lone_refused(50 if quick else 1000)


def times_of(text, what="ours"):
    return [int(line.split("\t")[1]) for line in text.splitlines() if line.startswith(what)]


def lone_beside(times):
    port = free_port()
    with fresh_host() as host:
        daemon = Measured(host, upstream={"url": f"http://127.0.0.1:{port}/"}, app=UNLIMITED)
        text = tool("lone", "beside", daemon.socket, port, times, MEASURED)
        daemon.written += times
    ours, reference = times_of(text), times_of(text, "reference")
    more = Spread.of([(a - b) / 1000 for a, b in zip(ours, reference)])
    median = (statistics.median(ours) - statistics.median(reference)) / 1000
    return Row("lone message, line written to request on the wire / bare libcurl",
               *(f"{statistics.median(values) / 1000:.0f} µs" for values in (ours, reference)),
               f"+ {median:.0f} µs", f"{more.low:.0f} to {more.high:.0f}", "+ 100 µs",
               "yes" if median <= 100 else "no")


def lone_paced(part, times):
    """At N = 100, the default; the lines come at random, as from independent writers."""
    port = free_port()
    with fresh_host() as host:
        daemon = Measured(host, upstream={"url": f"http://127.0.0.1:{port}/"}, app={"room_rate": 0})
        values = times_of(tool("lone", "paced", daemon.socket, port, times, part))
        daemon.written += times
    return latency(f"line written to request on the wire, at {part} % of N = 100", values)


def lone_refused(times):
    with fresh_host() as host:
        daemon = Full(host)
        daemon.write(300)
        values = times_of(tool("lone", "refused", daemon.socket, free_port(), times))
        daemon.written += times
    return latency("line written to reply, refused", values)


def latency(work, values):
    values = sorted(values)
    spread = Spread.of(values)
    return Row(work, f"{spread.median / 1000:.0f} µs", "", "", f"{spread.low / 1000:.0f} to {spread.high / 1000:.0f}",
               f"99 %: {values[len(values) * 99 // 100] / 1000:.0f} µs")


ROWS = {"delivered": delivered, "refused": refused, "many": many, "memory": memory, "idle": idle, "lone": lone}


# Where the time goes.


class Share(NamedTuple):
    """Percent of the time, or how often for one message or line."""

    share: float
    where: str
    function: str


def profile(daemon, work, n, seconds):
    """The daemon's processor time by function while work() is done again and again, and system calls of its `n`."""
    return times(daemon, work, seconds) + calls(daemon, work, n)


@contextlib.contextmanager
def perf(*arguments):
    with subprocess.Popen(["perf", *arguments], preexec_fn=die_with_the_tests) as process:
        time.sleep(0.5)  # it does not tell when it has begun
        yield
        process.send_signal(signal.SIGINT)


def times(daemon, work, seconds):
    data = str(daemon.host.directory / "perf.data")
    begun = time.monotonic()
    with perf("record", "-q", "-F", "4000", "-p", str(daemon.pid), "-o", data):
        while time.monotonic() < begun + seconds:
            work()
    command = ["perf", "report", "-q", "--stdio", "-i", data, "--sort", "dso,symbol"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^\s+([\d.]+)%\s+(\S+)\s+\[.\] (\S+)", listed, re.MULTILINE)
    shares = Counter()
    for percent, where, function in found:
        if function.startswith("0x"):  # Debian's libcurl, for one, does not tell its functions
            function = "(without a name)"
        elif float(percent) < 0.2:
            function = "(smaller ones)"
        shares[where.strip("[]").split(".")[0], function.split("@")[0]] += float(percent)
    return [Share(percent, *where) for where, percent in shares.most_common()]


def calls(daemon, work, n):
    data = daemon.host.directory / "perf.calls"
    with perf("trace", "-s", "-p", str(daemon.pid), "-o", str(data)):
        work()
    found = re.findall(r"^\s+(\w+)\s+(\d+)\s+\d+\s+\d", data.read_text(), re.MULTILINE)
    return [Share(int(times) / n, "system call", function) for function, times in found]


def show_profile(found):
    called = [share for share in found if share.where == "system call"]
    timed = [share for share in found if share not in called]
    places = Counter()
    for percent, where, _ in timed:
        places[where] += percent
    for where, percent in places.most_common():
        print(f"{percent:6.1f} %  {where}")
    print()
    for percent, where, function in timed:
        if percent >= 0.5:
            print(f"{percent:6.1f} %  {where:12} {function}")
    print("\nSystem calls for one:")
    for number, _, function in called:
        print(f"{number:8.4f}  {function}")


def profile_delivered(seconds, **shape):
    apps = shape.get("apps", 1)
    with fresh_host() as host:
        daemon = Measured(host, upstream=Nginx(host).upstream, queue=PATIENT,
                          apps={APP + i: UNLIMITED for i in range(apps)})
        daemon.delivered_ns(20_000, **shape)
        n = max(50_000, shape.get("window", 0))
        return profile(daemon, lambda: daemon.delivered_ns(n, **shape), n, seconds)


def profile_refused(seconds, overflow="newest", id=False, **shape):
    depth = max(300, *shape.values())
    with fresh_host() as host:
        daemon = Full(host, apps=shape.get("apps", 1), depth=depth, overflow=overflow)
        daemon.write(depth, **shape)
        left = 300 if overflow == "oldest" and id else 0
        n = 1_000_000
        return profile(daemon, lambda: daemon.refused_ns(n, id, left, **shape), n, seconds)


PROFILES = {
    "delivered": profile_delivered,
    "delivered-apps": lambda seconds: profile_delivered(seconds, apps=MANY_APPS, window=MANY_APPS),
    "delivered-rooms": lambda seconds: profile_delivered(seconds, rooms=MANY_ROOMS, window=MANY_ROOMS),
    "refused": lambda seconds: profile_refused(seconds, apps=1),
    "refused-reply": lambda seconds: profile_refused(seconds, id=True, apps=1),
    "refused-apps": lambda seconds: profile_refused(seconds, apps=MANY_APPS),
    "refused-rooms": lambda seconds: profile_refused(seconds, rooms=MANY_ROOMS),
    "displacing": lambda seconds: profile_refused(seconds, overflow="oldest", apps=1),
}


# The program.


def version(program, option):
    try:
        told = subprocess.run([program, option], capture_output=True, text=True)
        return (told.stdout + told.stderr).splitlines()[0].strip()
    except FileNotFoundError:
        return f"no {program}"


def surroundings():
    """What the figures depend on."""
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    yield f"{time.strftime('%Y-%m-%d')}, {cpu}, {os.cpu_count()} processors, Linux {platform.release()}"
    yield f"{version(BARRAGED, '--version')}, built with {os.environ.get('BUILD', 'unknown options')}"
    yield f"{version('curl-config', '--version')}, {version('h2load', '--version')}, {version(NGINX_PROGRAM, '-v')}"
    yield "load average {:.1f} {:.1f} {:.1f}".format(*os.getloadavg())


def table(names, quick):
    show(HEAD)
    rows = []
    for name in names:
        for row in ROWS[name](quick):
            rows.append(row)
            show(row)
    return rows


def save(path, about, lines):
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*(f"# {line}" for line in about), *lines]) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ROWS, help="these rows alone")
    parser.add_argument("--quick", action="store_true", help="small and once: shows that it works, not what it costs")
    parser.add_argument("--save", type=Path, metavar="FILE",
                        help="write the table, or the profile, as tab-separated values too")
    parser.add_argument("--profile", choices=[*PROFILES, "all"],
                        help="list the processor time of some work by function; needs perf, and root for it")
    parser.add_argument("--seconds", type=float, default=10, help="how long for (10)")
    parser.add_argument("--growth", type=Path, metavar="DIR",
                        help="measure how the cost of a message grows, some ten minutes; writes DIR/growth.tsv")
    arguments = parser.parse_args()
    about = list(surroundings())
    print("\n".join(about), end="\n\n", flush=True)
    if arguments.profile:
        profiles = []
        for name in PROFILES if arguments.profile == "all" else [arguments.profile]:
            found = PROFILES[name](arguments.seconds)
            print(f"{name}:\n")
            show_profile(found)
            print(flush=True)
            profiles += ["\t".join([name, f"{share:.5g}", *where]) for share, *where in found if share >= 0.001]
        save(arguments.save, about, ["work\tshare\twhere\tfunction", *profiles])
    elif arguments.growth:
        save(arguments.growth / "growth.tsv", about, growth.measure(arguments.quick))
    else:
        rows = table([arguments.only] if arguments.only else ROWS, arguments.quick)
        save(arguments.save, about, ["\t".join(row) for row in [HEAD, *rows]])


if __name__ == "__main__":
    main()
