#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Measure what the daemon costs, each thing beside its reference."""

import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "e2e")]

from sandbox import make_certificates  # noqa: E402
from support import (  # noqa: E402
    APP, BARRAGED, NOWHERE, Daemon, Host, die_with_the_tests, eventually, free_port,
)

TOOLS = BARRAGED.parent.parent / "tests"
LINE = 215  # bytes
IN_FLIGHT = 32
UNLIMITED = {"rate": 100_000, "burst": 100_000, "room_rate": 0}

# The daemon and what it is held against run on the one processor, all others on the other.
MEASURED, REST = {0}, {os.cpu_count() - 1}


def on(cpus):
    def prepare():
        die_with_the_tests()
        os.sched_setaffinity(0, cpus)

    return prepare


class Measured(Daemon):
    """A daemon whose processor time is taken."""

    def __init__(self, host, **options):
        super().__init__(host, None, **options)
        host.daemons.append(self)
        host.stack.callback(self.finish)
        self.launch(preexec_fn=on(MEASURED))
        self.wait_for_log("listens on")

    def write(self, lines, **order):
        """Write lines as ordered (struct order in writer.c); gives what the writer tells when the daemon is through."""
        order = {"lines": lines, "app": APP, "bytes": LINE} | order
        command = [TOOLS / "bench_writer", self.socket, self.pid, *(f"{name}={int(n)}" for name, n in order.items())]
        told = subprocess.run(list(map(str, command)), preexec_fn=on(REST), stdout=subprocess.PIPE, check=True)
        return json.loads(told.stdout)

    def check_itself(self):
        """Not by AppID, of which there may be thousands."""
        assert self.control("status")["ledger_consistent"]


NGINX = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_protocols TLSv1.3;
        ssl_certificate server.pem;
        ssl_certificate_key server.key;
        default_type application/json;
        location / {{
            return 200 '{body}';
        }}
    }}
}}
"""
# As the API answers.
BODY = ('{"Code":0,"Message":"success","RequestId":"2237080460466033406",'
        '"Data":{"MessageId":"1_1611647493487_29"}}')
# As the daemon asks: h2load shall send as many bytes.
TARGET = ("/?AppId=1234567890&Signature=0123456789abcdef0123456789abcdef&SignatureNonce=0123456789abcdef"
          "&SignatureVersion=2.0&Timestamp=1700000000&Action=SendBarrageMessage&RoomId=room-000000"
          "&UserId=user-000000&UserName=%E8%A7%82%E4%BC%97000000&MessageCategory=2&MessageContent=")


def is_listening(port):
    import socket
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


class Nginx:
    def __init__(self, host):
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        self.port = free_port()
        make_certificates(host.directory, "good")
        config = host.write("nginx.conf", NGINX.format(port=self.port, body=BODY))
        self.process = subprocess.Popen([program, "-p", host.directory, "-c", config, "-e", "stderr"],
                                        preexec_fn=on(REST))
        host.stack.callback(self.end)
        eventually(lambda: is_listening(self.port), "nginx listens")
        self.upstream = {"url": f"https://127.0.0.1:{self.port}/", "ca_file": host.directory / "ca.pem",
                         "max_in_flight": IN_FLIGHT}

    def end(self):
        self.process.terminate()
        self.process.wait()

    def h2load(self, requests):
        """Processor time of h2load, in ns a request; what it takes to connect is taken off."""
        def run(n):
            command = ["h2load", "--h1", "-c", str(IN_FLIGHT), "-n", str(n), "-t", "1",
                       f"https://127.0.0.1:{self.port}{TARGET}{'%E4' * 128}"]
            process = subprocess.Popen(command, preexec_fn=on(MEASURED), stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = status
            assert status == 0
            return usage.ru_utime + usage.ru_stime

        return (run(requests + IN_FLIGHT) - run(IN_FLIGHT)) / requests * 1e9


class Pair(NamedTuple):
    """ns of processor time for one, ours and the reference's, run by run."""

    ours: list
    reference: list

    @property
    def ratios(self):
        return sorted(o / r for o, r in zip(self.ours, self.reference))


def interleave(ours, reference, runs):
    """The first run of each only warms up."""
    pair = Pair([], [])
    for i in range(runs + 1):
        values = ours(), reference()
        if i:
            pair.ours.append(values[0])
            pair.reference.append(values[1])
    return pair


def show(name, pair, most, unit=1000, of="µs"):
    ratios = pair.ratios
    n = len(ratios)
    ratio = statistics.median(ratios)
    print(f"{name:58} {statistics.median(pair.ours) / unit:8.2f} {statistics.median(pair.reference) / unit:8.2f} {of}"
          f"  {ratio:5.2f}  {ratios[n // 4]:.2f}-{ratios[n - 1 - n // 4]:.2f}  <= {most}"
          f"  {'yes' if ratio <= most else 'NO'}", flush=True)


@contextlib.contextmanager
def fresh_host():
    with contextlib.ExitStack() as stack:
        quiet = io.StringIO()
        with contextlib.redirect_stderr(quiet):
            yield Host(stack)
            stack.close()


def delivered_ns(daemon, lines, **shape):
    shape = {"window": 2 * IN_FLIGHT} | shape
    told = daemon.write(lines, id=True, **shape)
    assert told["sent"] == lines, told
    return told["cpu_ns"] / lines


def bench_delivered(arguments):
    n = 2000 if arguments.quick else 20_000
    with fresh_host() as host:
        nginx = Nginx(host)
        daemon = Measured(host, upstream=nginx.upstream, app=UNLIMITED)
        pair = interleave(lambda: delivered_ns(daemon, n), lambda: nginx.h2load(n), arguments.runs)
    show("delivered message / h2load request", pair, 1.5)


def full(host, apps=1, depth=300, **queue):
    """A daemon whose queues are full for the first minute, and that sends nothing."""
    return Measured(host, daemon={"startup_hold": "60s"},
                    queue={"max_age": "60s", "queue_max": depth, "queue_bytes": "512MiB"} | queue,
                    apps={APP + i: {} for i in range(apps)})


def refused_ns(daemon, lines, id=False, left=0, **shape):
    # With more under way the daemon would discard replies that are not fetched in time.
    told = daemon.write(lines, id=id, left=left, window=1000 if id else 0, **shape)
    assert told["dropped"] == lines - left if id else told["rejected"] == 1, told
    return told["cpu_ns"] / lines


def parse_ns(times, id=False):
    command = [TOOLS / "bench_parse", times, APP, LINE, int(id)]
    told = subprocess.run(list(map(str, command)), preexec_fn=on(MEASURED), stdout=subprocess.PIPE, check=True)
    return float(told.stdout)


def bench_refused(arguments):
    n = 20_000 if arguments.quick else 200_000
    for overflow in ("newest", "oldest"):
        for id in (False, True):
            with fresh_host() as host:
                daemon = full(host, overflow=overflow)
                daemon.write(300)
                left = 300 if id and overflow == "oldest" else 0
                pair = interleave(lambda: refused_ns(daemon, n, id, left), lambda: parse_ns(n, id=id), arguments.runs)
            show(f"refused line / cJSON, overflow={overflow}{', id' if id else ''}", pair, 1.5)


def bench_many(arguments):
    for apps, rooms, window in ((10_000, 1, 64), (1, 100_000, 64), (10_000, 1, 50_000), (1, 100_000, 100_000)):
        n = 2000 if arguments.quick else max(20_000, window)
        keys = UNLIMITED | {"max_age": "60s", "queue_max": 1_000_000}
        with fresh_host() as host:
            nginx = Nginx(host)
            many = Measured(host, upstream=nginx.upstream, apps={APP + i: keys for i in range(apps)},
                            queue={"queue_bytes": "512MiB"})
            one = Measured(host, upstream=nginx.upstream, app=keys, queue={"queue_bytes": "512MiB"})
            pair = interleave(lambda: delivered_ns(many, n, apps=apps, rooms=rooms, window=window),
                              lambda: delivered_ns(one, n, window=window), arguments.runs)
        show(f"delivered, {apps} AppIDs, {rooms} rooms, {window} queued / one", pair, 1.2)
    for apps, rooms in ((10_000, 1), (1, 100_000)):
        depth = max(apps, rooms)
        n = max(depth, 20_000 if arguments.quick else 200_000)
        with fresh_host() as host:
            one = full(host, depth=depth, overflow="newest")
            many = full(host, apps=apps, depth=depth // apps, overflow="newest")
            one.write(depth)
            many.write(depth, apps=apps, rooms=rooms)
            pair = interleave(lambda: refused_ns(many, n, apps=apps, rooms=rooms), lambda: refused_ns(one, n),
                              arguments.runs)
        show(f"refused, {apps} AppIDs, {rooms} rooms / one", pair, 1.2)


def profile(daemon, work, seconds=8):
    """Where the daemon's time goes while work() is done again and again."""
    data = daemon.host.directory / "perf.data"
    command = ["perf", "record", "-q", "-F", "4000", "-p", str(daemon.pid), "-o", str(data)]
    with subprocess.Popen(command, preexec_fn=die_with_the_tests, stderr=subprocess.DEVNULL) as perf:
        begun = time.monotonic()
        while time.monotonic() < begun + seconds:
            work()
        perf.send_signal(2)
    for keys in ("dso", "dso,symbol"):
        told = subprocess.run(["perf", "report", "-q", "--stdio", "-i", str(data), "--sort", keys, "--percent-limit", "0.5"],
                              capture_output=True, text=True, check=True)
        print("\n".join(line.rstrip() for line in told.stdout.splitlines() if line.strip()))
        print()


def profile_delivered():
    with fresh_host() as host:
        daemon = Measured(host, upstream=Nginx(host).upstream, app=UNLIMITED)
        delivered_ns(daemon, 20_000)
        profile(daemon, lambda: delivered_ns(daemon, 50_000))


def profile_refused(apps=1, rooms=1, id=False):
    depth = max(apps, rooms, 300)
    with fresh_host() as host:
        daemon = full(host, apps=apps, depth=depth // apps, overflow="newest")
        daemon.write(depth, apps=apps, rooms=rooms)
        profile(daemon, lambda: refused_ns(daemon, 2_000_000, apps=apps, rooms=rooms, id=id))


PROFILES = {
    "delivered": profile_delivered,
    "refused": profile_refused,
    "refused-id": lambda: profile_refused(id=True),
    "refused-apps": lambda: profile_refused(apps=10_000),
    "refused-rooms": lambda: profile_refused(rooms=100_000),
}
BENCHES = {"delivered": bench_delivered, "refused": bench_refused, "many": bench_many}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=BENCHES)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--profile", choices=PROFILES)
    arguments = parser.parse_args()
    if arguments.profile:
        PROFILES[arguments.profile]()
        return
    for name in [arguments.only] if arguments.only else BENCHES:
        BENCHES[name](arguments)


if __name__ == "__main__":
    main()
