# SPDX-License-Identifier: MIT
"""What the end-to-end tests share: a host of their own, with ZEGO's stand-in, the daemon and its writers.

A test asks for fixtures (conftest.py) and says what it needs beyond the usual:

    def test_a_line_is_sent(zego, daemon):
        writer = daemon.connect()
        writer.send(message("hello", id=1))
        assert writer.reply()["outcome"] == "sent"
        assert zego.contents() == ["hello"]

    def test_a_slow_upstream_lets_messages_age(host):
        zego = host.zego(latency=300)                          # options of sandbox.py
        daemon = host.daemon(zego, queue={"max_age": "100ms"}, app={"rate": 10})
        ...

    def test_two_appids(host):
        zego = host.zego(apps={APP: 100, OTHER_APP: 10})       # AppID: its limit at the server
        daemon = host.daemon(zego, apps={APP: {}, OTHER_APP: {"rate": 10}})

`host.daemon(zego, ...)` writes a configuration, starts the daemon and waits until it listens. Keywords `daemon`,
`upstream`, `queue`, `shared` and `app` (each AppID's section) give keys of those sections, a value of None leaves one out;
startup_hold is 0 unless given. The log is read from the daemon's standard error, so leave log_level at info or debug.
The sandbox speaks plain HTTP unless asked for http=False, and then the daemon trusts its certificate.

When the test is over, each daemon is looked into as far as other users may, told to stop, and must exit with status 0,
free of sanitizers' and valgrind's findings, with a ledger that adds up, and without a secret in anything it has put
out or left; and each sandbox must not have been called too often or in a wrong way, unless the test sets
zego.expects_faults. No program outlives its test.
"""

import concurrent.futures
import contextlib
import ctypes
import functools
import json
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
sys.path.insert(0, str(TESTS))

from sandbox import Sandbox  # noqa: E402

BARRAGED = Path(os.environ.get("BARRAGED", ROOT / "build/daemon/barraged")).absolute()

BARRAGECTL = BARRAGED.parent / "barragectl"

APP = 1234567890
OTHER_APP = 1234567891

# Users without any right, for tests that run as root.
NOBODY, SOMEBODY = 65534, 4711

# Where nobody listens, for daemons that have nothing to send.
NOWHERE = "http://127.0.0.1:1/"

# Exit statuses, as in sysexits.h.
EX_USAGE = 64
EX_CONFIG = 78

SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:halt_on_error=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}

# What the daemon and barragectl are run under, such as valgrind with its options.
UNDER = shlex.split(os.environ.get("UNDER", ""))

# What must never be found in the daemon's standard error.
ALARMS = re.compile(
    "ERROR: AddressSanitizer|LeakSanitizer|runtime error:|WARNING: ThreadSanitizer|does not add up"
    # valgrind's errors and leaks, and descriptors that are open at the end and not from the start
    r"|^==\d+== (?:Open .*\n==\d+==    (?!<inherited from parent>)|(?!Process term)\S.*\n==\d+==    at 0x)",
    re.MULTILINE,
)


@functools.lru_cache(maxsize=None)
def has_sanitizers():
    return any(init in BARRAGED.read_bytes() for init in (b"__asan_init", b"__tsan_init"))


def is_sanitized():
    """Whether something watches the daemon that costs time and memory: sanitizers, or what UNDER says."""
    return bool(UNDER) or has_sanitizers()


@functools.lru_cache(maxsize=None)
def libraries():
    return subprocess.run(["ldd", BARRAGED], capture_output=True, text=True, check=True).stdout


def has_systemd():
    """Whether the daemon was built with libsystemd."""
    return "libsystemd" in libraries()


def has_exposition():
    """Whether it was built with libmicrohttpd."""
    return "libmicrohttpd" in libraries()


def has_hiredis():
    """Whether it was built with hiredis."""
    return "libhiredis" in libraries()


def some_ms(n):
    """A duration for the configuration: n milliseconds, or more where something slows the daemon down a lot."""
    return f"{n * 20 if UNDER else n}ms"


def patience():
    """Seconds after which something that should have happened has not."""
    return 100 if is_sanitized() else 20


def eventually(condition, what):
    """Wait until condition() is true, and give what it gave."""
    deadline = time.monotonic() + patience()
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


def message(content="hello", room="room", user="user", **fields):
    """A line for the daemon. Fields replace those of the same name; None leaves one out."""
    line = {"RoomId": room, "UserId": user, "MessageContent": content} | fields
    return {name: value for name, value in line.items() if value is not None}


def free_port(family=socket.AF_INET, address="127.0.0.1"):
    """A port that nobody listens on at this moment."""
    with socket.socket(family) as s:
        s.bind((address, 0))
        return s.getsockname()[1]


def outcome(reply):
    """A reply's fate in one word: "sent", or the reason why not."""
    return reply.get("reason", reply["outcome"])


def preload(*shims, **variables):
    """What a daemon's environment must hold to run with shared objects in front of the C library."""
    return variables | {
        "LD_PRELOAD": ":".join(str(shim) for shim in shims),
        "ASAN_OPTIONS": SANITIZERS["ASAN_OPTIONS"] + ":verify_asan_link_order=0",
    }


def die_with_the_tests():
    """Called in a child before it runs a program: the kernel kills it when the tests end, however they end."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def as_user(uid, look, groups=()):
    """What look() gives as bytes, done by another user in a process of its own, with no rights but that user's."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            with open(writer, "wb") as pipe:
                pipe.write(look())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as pipe:
        seen = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, "the look as another user has failed"
    return seen


# What /proc has of a process that could hold or lead to its secrets.
CLOSED_IN_PROC = ("auxv", "environ", "fd", "io", "map_files", "maps", "mem", "smaps", "syscall")


def look_into_proc(pid):
    """All that this user may read of a process in /proc, and "open: NAME" for what should be closed and is not."""
    seen = []
    for entry in Path(f"/proc/{pid}").iterdir():
        with contextlib.suppress(PermissionError, ProcessLookupError, FileNotFoundError, IsADirectoryError, OSError):
            if entry.name in ("fd", "map_files"):
                list(entry.iterdir())
            elif entry.is_dir():
                continue
            else:
                with open(entry, "rb", buffering=0) as file:
                    # Of these two, opening is what the kernel decides about.
                    if entry.name not in ("mem", "pagemap"):
                        seen.append(file.read(1 << 20) or b"")
            if entry.name in CLOSED_IN_PROC:
                seen.append(f"\nopen: {entry.name}\n".encode())
    return b"".join(seen)


class Arrival(NamedTuple):
    """A request that the sandbox has seen. `verdict` is the Code answered, or what was done instead of answering."""

    ns: int
    app_id: int
    room: str
    user: str
    verdict: str
    connection: int
    nonce: str
    content: str


class Zego(Sandbox):
    """The sandbox, and what it saw."""

    expects_faults = False  # set by tests that make the daemon do wrong on purpose

    def __init__(self, log, **options):
        super().__init__(log=log, **options)
        self.log = Path(log)

    def seen(self):
        """Every request since the start, in the order of arrival."""
        self.report()  # writes the log out
        rows = (row.split("\t") for row in self.log.read_text().splitlines())
        return [Arrival(int(row[0]), int(row[1]), *row[2:5], int(row[5]), row[6], json.loads(row[7])) for row in rows]

    def contents(self):
        return [arrival.content for arrival in self.seen()]

    def wait_for_requests(self, n):
        eventually(lambda: self.report()["requests"] >= n, f"{n} requests at the sandbox")

    def check(self):
        report = self.report()
        assert self.expects_faults or not report["client_faults"]
        for app_id, app in report["apps"].items():
            assert app["most_in_a_second"] <= app["limit"], f"too fast for AppID {app_id}"


class Writer:
    """A connection to the daemon's socket. All that it hears is kept in `heard`."""

    def __init__(self, path, connected=None):
        self.socket = connected or socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(patience())
        self.heard = b""
        self.taken = 0  # bytes of it that have been given out as replies
        if not connected:
            self.socket.connect(str(path))

    def send(self, *lines):
        """Send objects as lines, in one write; bytes are a line as they stand."""
        encoded = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
        self.send_bytes(b"".join(line + b"\n" for line in encoded))

    def send_bytes(self, data):
        self.socket.sendall(data)

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def close(self):
        self.socket.close()

    def hear(self):
        """Receive something; False at the end of the connection."""
        with contextlib.suppress(ConnectionResetError):
            data = self.socket.recv(1 << 16)
            self.heard += data
            return bool(data)
        return False

    def raw_reply(self):
        """The next reply as the bytes of its line."""
        while (end := self.heard.find(b"\n", self.taken)) < 0:
            assert self.hear(), "the daemon closed the connection instead of replying"
        line, self.taken = self.heard[self.taken : end], end + 1
        return line

    def reply(self):
        return json.loads(self.raw_reply())

    def replies(self, n):
        return [self.reply() for _ in range(n)]

    def ask(self, *lines):
        """Send lines that are all answered, and give their replies; of a single line, its reply."""
        self.send(*lines)
        replies = self.replies(len(lines))
        return replies[0] if len(lines) == 1 else replies

    def sync(self):
        """Wait until the daemon has taken in all lines sent so far; gives the replies that came meanwhile."""
        self.send(b"sync")
        replies = []
        while "error" not in (reply := self.reply()):
            replies.append(reply)
        return replies

    def rest(self):
        """All replies that still come until the daemon closes the connection."""
        while self.hear():
            pass
        lines, self.taken = self.heard[self.taken :].splitlines(), len(self.heard)
        return [json.loads(line) for line in lines]


class Control:
    """A connection to the daemon's control socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(patience())
        self.socket.connect(str(path))
        self.answers = self.socket.makefile("rb")

    def ask(self, op, **fields):
        return self.ask_bytes(json.dumps({"op": op} | fields).encode())

    def ask_bytes(self, line):
        self.socket.sendall(line + b"\n")
        return self.answer()

    def answer(self):
        line = self.answers.readline()
        assert line.endswith(b"\n"), "the daemon closed the connection instead of answering"
        return json.loads(line)


class Sample(NamedTuple):
    """A metric and its labels, as pairs in their order."""

    name: str
    labels: tuple = ()


SAMPLE = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-z]+)="((?:[^"\\]|\\.)*)"')


def parse_metrics(text):
    """The values of all samples in a scrape."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    samples = {}
    for name, labels, value in (SAMPLE.fullmatch(line).groups() for line in lines):
        samples[Sample(name, tuple(LABEL.findall(labels or "")))] = float(value)
    assert len(samples) == len(lines), "a sample is there twice"
    return samples


def check_ledger(metrics):
    """Every line of every AppID must be accounted for within one scrape."""
    assert metrics[Sample("barraged_ledger_consistent")] == 1
    apps = {labels: lines for (name, labels), lines in metrics.items() if name == "barraged_lines_total"}
    assert apps
    for app, lines in apps.items():
        of_app = {name for name in metrics if name.name == "barraged_requests_total" and name.labels[:1] == app}
        fates = sum(metrics[name] for name in of_app)
        states = sum(metrics[Sample(f"barraged_{state}", app)] for state in ("queued", "waiting", "in_flight"))
        assert fates + states == lines, f"the ledger of {app} does not add up"


class Daemon:
    """The daemon's process, or what is needed to start one.

    `command` is what goes before the daemon's own command line, such as systemd-socket-activate.
    """

    def __init__(self, host, zego, command=(), environment=None, **config):
        self.host = host
        self.zego = zego
        self.name = f"daemon{len(host.daemons)}"
        self.socket = host.directory / f"{self.name}.sock"
        self.control_socket = host.directory / f"{self.name}.control"
        self.config = host.directory / f"{self.name}.conf"
        self.log_file = host.directory / f"{self.name}.log"
        self.command = [*command, *UNDER, str(BARRAGED), "--config", str(self.config)]
        self.environment = environment or {}
        self.sections = {"daemon": {"socket": self.socket, "control_socket": self.control_socket}}
        self.process = None
        self.has_been_awaited = False
        self.writers = []
        self.configure(**config)

    def configure(self, **config):
        """Write the configuration anew, with changes; `apps` replaces the AppIDs."""
        changed = {name: keys for name, keys in config.items() if name != "apps"}
        for name, keys in changed.items():
            self.sections[name] = self.sections.get(name, {}) | (keys or {})
        if "apps" in config:
            self.sections["apps"] = config["apps"]
        self.config.write_text(self.host.config_text(self.zego, **self.sections))

    def launch(self, **options):
        """Start it without waiting for anything; options are those of subprocess.Popen."""
        with open(self.log_file, "ab") as log:
            usual = {
                "stdin": subprocess.DEVNULL,
                "stdout": log,
                "stderr": log,
                "env": os.environ | SANITIZERS | self.environment,
                "preexec_fn": die_with_the_tests,
            }
            self.process = subprocess.Popen(self.command, **usual | options)
        self.has_been_awaited = False

    def start(self):
        listening = self.log.count("listens on") + 1
        self.launch()
        self.wait_for_log("listens on", listening)

    @property
    def pid(self):
        return self.process.pid

    @property
    def log(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def wait_for_log(self, text, count=1):
        def is_there():
            found = self.log.count(text) >= count
            assert found or self.is_running(), f"the daemon has ended:\n{self.log}"
            return found

        eventually(is_there, f'"{text}" in the log')

    def connect(self, path=None):
        writer = Writer(path or self.socket)
        self.writers.append(writer)
        return writer

    def control(self, op, **fields):
        """Ask over the control socket; gives the answer."""
        return Control(self.control_socket).ask(op, **fields)

    def ctl(self, *arguments, **options):
        """Run barragectl to its end."""
        return self.host.run("--config", self.config, *arguments, program=BARRAGECTL, **options)

    def metrics(self):
        """All samples there are: their values by Sample."""
        return parse_metrics(self.control("metrics", format="prometheus")["metrics"])

    def wait_for_attempts(self, n):
        """Wait until it has the answers to n requests."""

        def are_answered():
            return sum(app["attempts"] for app in self.control("status")["apps"]) >= n

        eventually(are_answered, f"{n} answers from the sandbox")

    def connect_as(self, uid, n=1, groups=()):
        """n connections that count as another user's, since that user makes them."""

        def connect():
            for _ in range(n):
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                    connection.connect(str(self.socket))
                    socket.send_fds(there, [b"x"], [connection.fileno()])
            return b""

        here, there = socket.socketpair()
        with here, there, concurrent.futures.ThreadPoolExecutor() as pool:
            received = pool.submit(lambda: [socket.recv_fds(here, 1, 1)[1][0] for _ in range(n)])
            as_user(uid, connect, groups)
            writers = [Writer(self.socket, socket.socket(fileno=fd)) for fd in received.result()]
        self.writers += writers
        return writers

    def connect_soon(self):
        """Connect to a daemon whose log does not tell when it listens."""

        def try_to():
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                return self.connect()

        return eventually(try_to, f"a connection to {self.socket}")

    def signal(self, number):
        self.process.send_signal(number)

    def reload(self, **config):
        """Send SIGHUP, after changing the configuration; gives whether it was taken."""
        if config:
            self.configure(**config)
        taken, refused = self.log.count("is in force"), self.log.count("is not used")
        self.signal(signal.SIGHUP)
        eventually(
            lambda: (self.log.count("is in force"), self.log.count("is not used")) != (taken, refused),
            "the result of a reload in the log",
        )
        return self.log.count("is in force") > taken

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def wait(self):
        """Wait until it has ended; gives its exit status, which is then the test's to judge."""
        self.has_been_awaited = True
        return self.process.wait(timeout=patience())

    def stop(self):
        self.signal(signal.SIGTERM)
        return self.wait()

    def descriptors(self):
        """What its descriptors are, as in "socket:[4711]"."""
        directory = Path(f"/proc/{self.pid}/fd")
        try:
            names = []
            for fd in directory.iterdir():
                with contextlib.suppress(FileNotFoundError):  # it has been closed meanwhile
                    names.append(os.readlink(fd))
            return sorted(names)
        except PermissionError:
            import pytest  # the demonstrations use this module too, and do without it

            pytest.skip("the daemon hides its descriptors from all but root, unless it is built with sanitizers")

    def resident(self):
        """Bytes of memory that it occupies."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ValueError("no VmRSS")

    def cpu_seconds(self):
        """Processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @contextlib.contextmanager
    def stopped(self):
        """While it stands still."""

        def stands_still():
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

        self.signal(signal.SIGSTOP)
        eventually(stands_still, "the daemon to stop")
        yield
        self.signal(signal.SIGCONT)

    def summary(self):
        """Stop it; gives the counts of its last log line, "lines" and each fate that there was."""
        assert self.stop() == 0
        (line,) = [line for line in self.log.splitlines() if "stopped: " in line]
        return {name: int(n) for name, n in (count.split("=") for count in line.split("stopped: ")[1].split())}

    def check_what_others_see(self):
        """Other users must find no secret in /proc, nor anything that leads to one."""
        if os.getuid() == 0:
            seen = as_user(NOBODY, lambda: look_into_proc(self.pid))
        elif not is_sanitized():  # which hides itself even from its own user
            seen = look_into_proc(self.pid)
        else:
            return
        self.host.check_secrecy(seen)
        assert b"open: " not in seen, seen

    def finish(self):
        """End it, if the test has not, and hold it against what every daemon must hold to."""
        status = 0
        try:
            if self.is_running():
                if "listens on" in self.log:
                    self.check_what_others_see()
                self.check_itself()
                status = self.stop()
            elif self.process and not self.has_been_awaited:
                status = self.wait()
        finally:
            self.kill()
            print(f"{self.name} wrote:\n{self.log}", file=sys.stderr)  # pytest shows it if the test fails
        assert status == 0
        assert not ALARMS.search(self.log)
        self.host.check_secrecy(self.log.encode(), *(writer.heard for writer in self.writers))
        self.host.check_secrecy(*(file.read_bytes() for file in self.host.directory.glob(f"{self.name}.*.[lp]*")))
        self.host.run("--config", self.config, "--dump-config", under=())  # as tests of their own show it

    def check_itself(self):
        """Hold what it says of itself against what every daemon must hold to, if it can be asked."""
        try:
            control = Control(self.control_socket)
        except (FileNotFoundError, ConnectionRefusedError):
            return  # it was started without, or is only just starting
        status = control.ask("status")
        assert status["ledger_consistent"]
        text = control.ask("metrics")["metrics"]
        check_ledger(parse_metrics(text))
        self.host.check_secrecy(json.dumps(status).encode(), text.encode())

    def kill(self):
        for writer in self.writers:
            writer.close()
        if self.process:
            self.process.kill()
            self.process.wait()


class Host:
    """A directory of its own and the programs that run there, for the length of one test."""

    def __init__(self, stack):
        self.stack = stack
        # Not pytest's tmp_path: a socket's path has at most 107 bytes.
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="barraged-", dir="/tmp")))
        self.secrets = {}  # AppID: the secret it has now
        self.canaries = []  # every secret that there has been
        self.daemons = []
        self.zegos = 0

    def secret(self, app_id):
        return self.secrets.get(app_id) or self.new_secret(app_id)

    def new_secret(self, app_id):
        """Give an AppID another secret, in its file too."""
        self.secrets[app_id] = secrets.token_hex(16)
        self.canaries.append(self.secrets[app_id])
        self.write(self.secret_file(app_id), self.secrets[app_id] + "\n")
        return self.secrets[app_id]

    def secret_file(self, app_id):
        return self.directory / f"{app_id}.secret"

    def write(self, name, text, mode=0o600):
        """Make a file in the directory; gives its path."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def zego(self, apps=None, http=True, **options):
        """Start a sandbox; `apps` maps AppIDs to their limits."""
        self.zegos += 1
        app = [f"{app_id}:{self.secret(app_id)}:{limit}" for app_id, limit in (apps or {APP: 100}).items()]
        log = self.directory / f"zego{self.zegos}.tsv"
        zego = self.stack.enter_context(Zego(str(log), app=app, http=http, **options))
        self.stack.callback(zego.check)
        return zego

    def daemon(self, zego=None, start=True, **options):
        """Start a daemon. Keywords are keys of sections, and those of Daemon."""
        daemon = Daemon(self, zego, **options)
        self.daemons.append(daemon)
        self.stack.callback(daemon.finish)
        if start:
            daemon.start()
        return daemon

    def config_text(self, zego=None, daemon=None, upstream=None, queue=None, shared=None, app=None, apps=None):
        sections = {
            "daemon": {"startup_hold": 0} | (daemon or {}),
            "upstream": {"url": zego.url, "ca_file": zego.ca_file} if zego else {"url": NOWHERE},
            "queue": queue or ({"max_age": "30s"} if UNDER else {}),
        }
        if UNDER:  # which may slow down a lot
            upstream = upstream or {"connect_timeout": "30s", "timeout": "30s"}
        sections["upstream"] = sections["upstream"] | (upstream or {})
        if shared:
            sections["shared"] = shared
        for app_id, keys in ({APP: {}} if apps is None else apps).items():
            self.secret(app_id)  # makes the file
            secret_file = {"server_secret_file": self.secret_file(app_id)}
            sections[f"app {app_id}"] = secret_file | (app or {}) | keys
        return "\n".join(section_text(name, keys) for name, keys in sections.items())

    def run(self, *arguments, program=BARRAGED, input="", command=(), under=UNDER):
        """Run the daemon's program, or another, to its end; `command` is what goes before it."""
        if program in (BARRAGED, BARRAGECTL):
            command = [*command, *under]
        result = subprocess.run(
            [*command, program, *arguments],
            input=input,
            capture_output=True,
            text=True,
            env=os.environ | SANITIZERS,
            timeout=patience(),
        )
        self.check_secrecy(result.stdout.encode(), result.stderr.encode())
        assert not ALARMS.search(result.stderr)
        return result

    def check_secrecy(self, *outputs):
        for canary in self.canaries:
            assert not any(canary.encode() in output for output in outputs), "a secret got out"


def section_text(name, keys):
    lines = [f"{key} = {value}\n" for key, value in keys.items() if value is not None]
    return f"[{name}]\n" + "".join(lines)
