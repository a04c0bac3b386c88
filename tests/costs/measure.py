# SPDX-License-Identifier: MIT
"""What the measurements share: a daemon whose processor time is taken, nginx, the references, and figures of runs.

A figure is the median of runs that take turns with those of what it is compared with: whatever else the machine does,
it does to both. Processor time is what the kernel has counted for the process, user and system.
"""

import contextlib
import io
import json
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "e2e")]

from sandbox import make_certificates  # noqa: E402
from support import APP, BARRAGED, Daemon, Host, die_with_the_tests, eventually, free_port  # noqa: E402

TOOLS = BARRAGED.parent.parent / "tests"
LINE = 215  # bytes, with the newline
IN_FLIGHT = 32
UNLIMITED = {"rate": 100_000, "burst": 100_000, "room_rate": 0}
PATIENT = {"max_age": "60s", "queue_max": 1_000_000, "queue_bytes": "1GiB"}

# The daemon and what it is compared with run on one processor, everything else on another if there is one.
MEASURED, REST = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))


def on(cpu):
    """What a child does before it runs a program."""
    def prepare():
        die_with_the_tests()
        os.sched_setaffinity(0, {cpu})

    return prepare


def tool(name, *arguments, cpu=REST):
    """Run one of the programs in this folder; gives what it writes."""
    command = [str(TOOLS / f"bench_{name}"), *map(str, arguments)]
    return subprocess.run(command, preexec_fn=on(cpu), stdout=subprocess.PIPE, check=True, text=True).stdout


@contextlib.contextmanager
def fresh_host():
    """A host without what its daemons and sandboxes log, unless something fails."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    log = io.StringIO()
    try:
        with contextlib.redirect_stderr(log), contextlib.ExitStack() as stack:
            yield Host(stack)
    except BaseException:
        print(log.getvalue(), file=sys.stderr)
        raise


class Measured(Daemon):
    """A daemon whose processor time is taken. It must account for each line that was written."""

    def __init__(self, host, **options):
        super().__init__(host, None, **options)
        self.written = 0
        host.daemons.append(self)
        host.stack.callback(self.finish)
        self.launch(preexec_fn=on(MEASURED))
        self.wait_for_log("listens on")

    def write(self, lines, **order):
        """Write lines as ordered (struct order in writer.c); gives what the writer tells when the daemon is through."""
        order = {"lines": lines, "app": APP, "bytes": LINE} | order
        told = tool("writer", self.socket, self.pid, *(f"{name}={int(n)}" for name, n in order.items()))
        nonsense = order.get("clients", 1) * (1 if order.get("id") else 2)
        self.written += lines + nonsense
        return json.loads(told)

    def delivered_ns(self, lines, window=2 * IN_FLIGHT, **order):
        """Processor time for a message, from its line to its reply."""
        told = self.write(lines, window=window, id=True, **order)
        assert told["sent"] == lines, told
        return told["cpu_ns"] / lines

    def refused_ns(self, lines, id=False, left=0, **order):
        """Processor time for a line when the queue is full; `left` of them displace others and stay."""
        # With more under way the daemon would discard replies that are not fetched in time.
        told = self.write(lines, id=id, left=left, window=1000 if id else 0, **order)
        assert told["dropped"] == lines - left if id else told["rejected"] == order.get("clients", 1), told
        return told["cpu_ns"] / lines

    def cpu_ns(self):
        """What clock_getcpuclockid() would give, were it here."""
        return time.clock_gettime_ns(~self.pid << 3 | 2)

    def wakeups(self):
        """How often its threads have gone to sleep."""
        counts = [re.search(r"^voluntary_ctxt_switches:\s*(\d+)", task.read_text(), re.MULTILINE)
                  for task in Path(f"/proc/{self.pid}/task").glob("*/status")]
        return sum(int(count[1]) for count in counts)

    def check_itself(self):
        """Not AppID by AppID, of which there may be thousands."""
        assert self.control("status")["ledger_consistent"]

    def finish(self):
        super().finish()
        (told,) = re.findall("stopped: (.*)", self.log)
        counts = {name: int(n) for name, n in re.findall(r"([\w/]+)=(\d+)", told)}
        lines = counts.pop("lines")
        fates = sum(n for name, n in counts.items() if name == "sent" or "/" in name)
        assert lines == fates == self.written, f"{self.written} lines were written: {told}"
        return counts


class Full(Measured):
    """One with queues to be filled, of `depth` messages altogether.

    It sends nothing for its first minute, and lets nothing expire before. All must be over by then.
    """

    def __init__(self, host, apps=1, depth=300, overflow="newest", **daemon):
        super().__init__(host, daemon={"startup_hold": "60s", "drain_timeout": 0} | daemon,
                         queue=PATIENT | {"queue_max": depth // apps, "overflow": overflow},
                         apps={APP + i: {} for i in range(apps)})

    def finish(self):
        counts = super().finish()
        assert set(counts) <= {"dropped/queue_full", "dropped/shutdown", "rejected/invalid", "replies_lost"}, counts


NGINX_PROGRAM = shutil.which("nginx") or "/usr/sbin/nginx"
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
            return 200 '{answer}';
        }}
    }}
}}
"""
# As the API answers.
ANSWER = ('{"Code":0,"Message":"success","RequestId":"2237080460466033406",'
          '"Data":{"MessageId":"1_1611647493487_29"}}')


def target(line):
    """What h2load asks for: as long as what the daemon asks for when it has read a line of so many bytes."""
    text = line - len('{"id":"0000000","AppId":1234567890,"RoomId":"room-000000","UserId":"user-000000",'
                      '"UserName":"观众000000","MessageContent":""}\n'.encode())
    content = "%E4%B8%BB" * (text // 3) + "%21" * (text % 3)
    return ("/?AppId=1234567890&SignatureNonce=0123456789abcdef&Timestamp=1700000000"
            "&Signature=0123456789abcdef0123456789abcdef&SignatureVersion=2.0&Action=SendBarrageMessage"
            "&RoomId=room-000000&UserId=user-000000&UserName=%E8%A7%82%E4%BC%97000000&MessageCategory=2"
            f"&MessageContent={content}")


def is_listening(port):
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


class Nginx:
    """TLS 1.3, connections that are kept, and always the same answer."""

    def __init__(self, host, max_in_flight=IN_FLIGHT):
        self.port = free_port()
        make_certificates(host.directory, "good")
        config = host.write("nginx.conf", NGINX.format(port=self.port, answer=ANSWER))
        command = [NGINX_PROGRAM, "-p", host.directory, "-c", config, "-e", "stderr"]
        self.process = subprocess.Popen(command, preexec_fn=on(REST))
        host.stack.callback(self.end)
        eventually(lambda: is_listening(self.port), "nginx listens")
        self.upstream = {"url": f"https://127.0.0.1:{self.port}/", "ca_file": host.directory / "ca.pem",
                         "max_in_flight": max_in_flight}

    def end(self):
        self.process.terminate()
        self.process.wait()

    def h2load_ns(self, requests):
        """h2load's processor time for a request; what it takes to start and to connect is taken off."""
        return (self.h2load(requests + IN_FLIGHT) - self.h2load(IN_FLIGHT)) / requests * 1e9

    def h2load(self, requests):
        url = f"https://127.0.0.1:{self.port}{target(LINE)}"
        command = ["h2load", "--h1", "-t", "1", "-c", str(IN_FLIGHT), "-n", str(requests), url]
        with subprocess.Popen(command, preexec_fn=on(MEASURED), stdout=subprocess.PIPE, text=True) as process:
            told = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0 and f" {requests} 2xx" in told, told
        return usage.ru_utime + usage.ru_stime

    def libcurl_ns(self, requests):
        """Processor time for a request of a program that does nothing but call libcurl."""
        url = self.upstream["url"]
        return float(tool("bare", url, target(LINE), self.upstream["ca_file"], IN_FLIGHT, requests, cpu=MEASURED))


def parse_ns(times, id=False):
    """Processor time of cJSON_Parse() and cJSON_Delete() for a line."""
    return float(tool("parse", times, APP, LINE, int(id), cpu=MEASURED))


def interleave(runs, *measures):
    """What each measure gives, run by run in turn; a first one, which warms up, is left out."""
    results = [[] for _ in measures]
    for i in range(runs + 1):
        for result, measure in zip(results, measures):
            value = measure()
            if i > 0:
                result.append(value)
    return results


class Spread(NamedTuple):
    """The median, and between what the middle half lies."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values):
        values = sorted(values)
        quarter = len(values) // 4
        return cls(values[quarter], statistics.median(values), values[-1 - quarter])
