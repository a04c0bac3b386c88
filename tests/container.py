# SPDX-License-Identifier: MIT
"""Boot Debian with barraged installed under a real systemd, and try there what only systemd can show.

Each step is printed as "ok" or "FAILED"; the exit status is 0 if none has failed, 77 if this machine cannot run it.

How it works: this program makes a tree of Debian with debootstrap (kept with --tree), then runs itself in namespaces
of its own for mounts, processes and the network, where there is only loopback. There it lays a temporary file system
over the tree, installs the daemon into it with `DESTDIR=... meson install`, and boots it with systemd-nspawn. The
sandbox that stands in for ZEGO runs beside the container and shares its network. When this program ends, however it
ends, the kernel ends everything in the namespaces, and the tree is as it was.

The container's systemd must own its cgroups, so it gets a cgroup2 subtree made by hand. (After a SIGKILL that, empty,
and a temporary folder are all that stays behind.) Where memory is not
controlled by cgroup2 (hosts with the old hierarchy), MemoryMax= does nothing in there, and the step says so.
"""

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import traceback
import urllib.request
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
sys.path.insert(0, str(TESTS / "e2e"))

import support  # noqa: E402
from support import APP, Writer, Zego, die_with_the_tests, message, outcome, section_text  # noqa: E402

# Nothing may take longer. A boot takes some seconds, the longest step twenty (WatchdogSec=).
DEBOOTSTRAP_MOST = 1800
ALL_STEPS_MOST = 900
PATIENCE = 60

CANNOT_RUN = 77

# What the daemon is linked with, and what a Debian host has anyway.
PACKAGES = "systemd systemd-sysv ca-certificates".split()
PACKAGES += "libuv1 libcurl4 libcjson1 libinih1 libssl3 libmicrohttpd12 libsystemd0 libhiredis0.14".split()

# Users of the container beside the daemon's: one of its group, and one that is nobody.
USERS = "u friend -\nm friend barraged\nu stranger -\n"

# Not needed, and slow or noisy in a container.
MASKED = "systemd-logind.service getty.target console-getty.service apt-daily.timer apt-daily-upgrade.timer".split()

SOCKET_UNITS = ("barraged.socket", "barraged-control.socket")
SOCKETS = "run/barraged"
CONFIG = "etc/barraged/barraged.conf"
SECRETS = "etc/barraged/secrets.d"
DROP_IN = "run/systemd/system/barraged.service.d/test.conf"


# Killing this kills everything that was started by it, and unmounts what was mounted.
IN_NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]


class CannotRun(Exception):
    """Not a failure of the daemon."""


# Outside: the tree, the cgroup, and the end of it all.


def codename():
    text = Path("/etc/os-release").read_text()
    return re.search(r'^VERSION_CODENAME="?(\w+)', text, re.M)[1]


def mirror(suite):
    """Where this machine gets its packages of Debian from."""
    command = ["apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Identifier: Packages"]
    for line in subprocess.check_output(command, text=True).splitlines():
        release, component, address = line.split(maxsplit=2)
        if (release, component) == (suite, "main"):
            return address
    raise CannotRun(f"apt on this machine knows no packages of {suite}")


def make_tree(tree):
    """Debian as it comes out of debootstrap, once for all runs. The folder is complete once it has its name."""
    wanted = tree / "etc/barraged-test-packages"
    if tree.exists():
        if not wanted.exists():
            raise CannotRun(f"{tree} exists and was not made by this program")
        if wanted.read_text().split() == PACKAGES:
            return
        shutil.rmtree(tree)
    suite = codename()
    print(f"making a tree of {suite} in {tree}; this takes some minutes", flush=True)
    half = tree.with_name(tree.name + ".half")
    shutil.rmtree(half, ignore_errors=True)
    half.parent.mkdir(parents=True, exist_ok=True)
    command = [*IN_NAMESPACES, "debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    command += [suite, str(half), mirror(suite)]
    made = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEBOOTSTRAP_MOST,
        preexec_fn=die_with_the_tests,
    )
    if made.returncode != 0:
        raise CannotRun(f"debootstrap failed:\n{made.stdout[-2000:]}")
    (half / wanted.relative_to(tree)).write_text("\n".join(PACKAGES) + "\n")
    half.rename(tree)


def cgroup2():
    """Where cgroup2 is mounted, as the root of what this process may see of it."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split()[0] == "cgroup2" and fields.split()[3] == "/":
            return Path(fields.split()[4])
    raise CannotRun("cgroup2 is not mounted")


def remove_cgroup(path):
    """Kill what is left in there, and take it away."""
    with contextlib.suppress(OSError):
        (path / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + PATIENCE
    while path.exists() and time.monotonic() < deadline:
        for folder, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        time.sleep(0.05)


@contextlib.contextmanager
def own_cgroup(name):
    top = cgroup2()
    path = top / name
    try:
        path.mkdir()
    except OSError as error:
        raise CannotRun(f"no cgroup can be made: {error}") from error
    try:
        # Where systemd runs this machine it has done so; where it cannot be done, steps do without.
        with contextlib.suppress(OSError):
            (top / "cgroup.subtree_control").write_text("+memory")
        yield path
    finally:
        remove_cgroup(path)


def run_inside(options, scratch, group):
    """This program again, in namespaces of its own."""
    command = [*IN_NAMESPACES, "--net", sys.executable, __file__, *options.step]
    command += ["--tree", str(options.tree), "--build", str(options.build)]
    command += ["--scratch", scratch, "--cgroup", group.name]
    inside = subprocess.Popen(command, preexec_fn=die_with_the_tests)
    try:
        return inside.wait(timeout=ALL_STEPS_MOST)
    except subprocess.TimeoutExpired:
        print(f"FAILED  not done within {ALL_STEPS_MOST} s", flush=True)
        return 1
    finally:
        inside.kill()
        inside.wait()


def outside(options):
    if os.geteuid() != 0:
        raise CannotRun("only root can do this")
    if not (options.build / "build.ninja").exists():
        raise CannotRun(f"{options.build} is not a build folder")
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="barraged-container-"))
        os.chmod(scratch, 0o755)
        options.tree = options.tree or Path(scratch) / "debian"
        make_tree(options.tree)
        group = stack.enter_context(own_cgroup(Path(scratch).name))
        return run_inside(options, scratch, group)


# Inside: the network, the tree, the container.


def bring_up_loopback():
    SIOCSIFFLAGS, IFF_UP = 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


class NameServer(threading.Thread):
    """Answers every question for an IPv4 address with 127.0.0.1, every other with nothing, and counts the names."""

    def __init__(self):
        super().__init__(daemon=True)
        self.asked = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))

    def run(self):
        while True:
            query, peer = self.socket.recvfrom(4096)
            end = query.index(b"\0", 12) + 5
            question = query[12:end]
            self.asked.append(self.name_of(question))
            is_ipv4 = question.endswith(b"\0\1\0\1")
            head = query[:2] + struct.pack(">HHHHH", 0x8180, 1, int(is_ipv4), 0, 0)
            answer = b"\xc0\x0c" + struct.pack(">HHIH4B", 1, 1, 60, 4, 127, 0, 0, 1) if is_ipv4 else b""
            self.socket.sendto(head + question + answer, peer)

    @staticmethod
    def name_of(question):
        labels = []
        while question[0]:
            labels.append(question[1 : 1 + question[0]].decode())
            question = question[1 + question[0] :]
        return ".".join(labels)


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)


def lay_over(tree, scratch):
    """The tree with a layer on top that takes all changes and vanishes with this namespace."""
    layer = scratch / "layer"
    layer.mkdir()
    mount("-t", "tmpfs", "-o", "size=1G", "barraged-test", layer)
    for name in ("upper", "work", "root"):
        (layer / name).mkdir()
    layers = f"lowerdir={tree},upperdir={layer}/upper,workdir={layer}/work"
    mount("-t", "overlay", "-o", layers, "overlay", layer / "root")
    return layer / "root"


def write(path, text, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def furnish(root):
    """What the steps need in the tree beside the daemon."""
    write(root / "usr/lib/sysusers.d/test.conf", USERS)
    write(root / "etc/resolv.conf", "nameserver 127.0.0.1\n")
    write(root / "etc/hosts", "# empty, so that names are looked up over the network\n")
    write(root / "etc/hostname", "container\n")
    for unit in MASKED:
        path = root / "etc/systemd/system" / unit
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/null")


def install(build, root):
    """As README.md says."""
    environment = os.environ | {"DESTDIR": str(root)}
    subprocess.run(["meson", "install", "--no-rebuild", "--quiet", "-C", str(build)], env=environment, check=True)
    subprocess.run(["systemd-sysusers", f"--root={root}"], check=True, capture_output=True)
    subprocess.run(["systemd-tmpfiles", f"--root={root}", "--create", "barraged.conf"], check=True)
    subprocess.run(["systemctl", f"--root={root}", "--quiet", "enable", "barraged.service"], check=True)


def eventually(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)
    return result


class Container:
    """A booted tree. Paths below `root` are as the container sees them, its /run included."""

    def __init__(self, tree, group, console):
        self.tree = tree
        self.group = group
        self.console = console

    def __enter__(self):
        command = ["systemd-nspawn", "--quiet", "--keep-unit", "--register=no", "--boot", "--machine=barraged-test"]
        # Without @memlock, mlock(2) is forbidden to all in there, and not by the unit.
        command += ["--system-call-filter=@memlock", "--link-journal=no", "--resolv-conf=off", "--timezone=off"]
        command += [f"--directory={self.tree}"]
        with open(self.console, "wb") as console:
            self.nspawn = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, preexec_fn=self.enter_cgroup
            )
        self.leader = eventually(self.find_leader, "the container's first process")
        self.root = Path(f"/proc/{self.leader}/root")
        eventually(lambda: self.state() in ("running", "degraded"), "the container to have booted")
        return self

    def __exit__(self, *_exception):
        # To its systemd this means to halt; the namespaces' end takes care of the rest.
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.kill(self.leader, signal.SIGRTMIN + 4)
            self.nspawn.wait(timeout=PATIENCE)

    def enter_cgroup(self):
        (self.group / "cgroup.procs").write_text("0")

    def find_leader(self):
        if self.nspawn.poll() is not None:
            raise CannotRun(f"systemd-nspawn does not run here:\n{self.console.read_text(errors='replace')}")
        children = Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children").read_text().split()
        for pid in children:
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                is_first = re.search(r"^NSpid:.*\t1$", status, re.M)
                if is_first and re.search(r"^Name:\tsystemd$", status, re.M):
                    return int(pid)
        return None

    def state(self):
        return self.run("systemctl", "is-system-running").stdout.strip()

    def run(self, *command):
        """A command in the container, as root."""
        inside = ["--mount", "--uts", "--ipc", "--pid", "--cgroup", "--root", "--wd", "--", *command]
        return subprocess.run(
            ["nsenter", f"--target={self.leader}", *inside],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
        )

    def must(self, *command):
        result = self.run(*command)
        assert result.returncode == 0, f"{' '.join(command)}: {result.stdout}{result.stderr}"
        return result.stdout


class World:
    """What the steps work with: the tree, the container and the daemon's unit in it, and ZEGO's stand-in."""

    def __init__(self, root, zego, scratch):
        self.root = root
        self.container = None
        self.zego = zego
        self.scratch = scratch
        self.secret = zego.secret
        shutil.copy(ROOT / "docs/examples/send.py", scratch)  # where every user can read it

    def boot(self, container):
        self.container = container
        self.root = container.root  # its /run included

    # Files.

    def path(self, name):
        return self.root / name

    def write_secret(self, secret, name=str(APP), owner="root"):
        path = self.path(SECRETS) / name
        write(path, secret + "\n", 0o600)
        uid, gid, _ = self.account(owner)
        os.chown(path, uid, gid)

    def account(self, name):
        """uid and gid of a user, and gids of all groups that have it as a member."""
        rows = [line.split(":") for line in self.path("etc/passwd").read_text().splitlines()]
        uid, gid = next((int(row[2]), int(row[3])) for row in rows if row[0] == name)
        groups = [line.split(":") for line in self.path("etc/group").read_text().splitlines()]
        return uid, gid, [int(row[2]) for row in groups if name in row[3].split(",")]

    def configure(self, daemon=None, upstream=None, queue=None, shared=None, app=None):
        """A whole configuration; keywords are keys of its sections."""
        sections = {
            "daemon": {"startup_hold": 0} | (daemon or {}),
            "upstream": {"url": self.zego.url} | (upstream or {}),
            "queue": queue or {},
            f"app {APP}": {"server_secret_file": f"credential:secrets_{APP}"} | (app or {}),
        }
        if shared:
            sections["shared"] = shared
        write(self.path(CONFIG), "".join(section_text(name, keys) for name, keys in sections.items()))

    def override(self, *directives):
        """Put directives of [Service] over the unit's own, or take them away again."""
        path = self.path(DROP_IN)
        if directives:
            write(path, "[Service]\n" + "\n".join(directives) + "\n")
        else:
            path.unlink(missing_ok=True)
        self.systemctl("daemon-reload")

    # The unit.

    def systemctl(self, *arguments):
        return self.container.must("systemctl", *arguments)

    def show(self, name, unit="barraged.service"):
        return self.systemctl("show", "--value", f"--property={name}", unit).strip()

    def main_pid(self):
        """The daemon's process, as the container numbers it."""
        return int(self.show("MainPID"))

    def process_status(self, pid=None):
        """/proc/PID/status as a dictionary, of the daemon unless told."""
        text = self.container.must("cat", f"/proc/{pid or self.main_pid()}/status")
        return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}

    def limits(self, name, pid=None):
        """One of /proc/PID/limits, soft and hard."""
        text = self.container.must("cat", f"/proc/{pid or self.main_pid()}/limits")
        return re.search(rf"^{name} +(\S+) +(\S+)", text, re.M).groups()

    def kill(self, name):
        self.systemctl("kill", "--kill-whom=main", f"--signal={name}", "barraged.service")

    def is_active(self, unit="barraged.service"):
        return self.show("ActiveState", unit) == "active"

    def sockets_are_up(self):
        return all(self.is_active(unit) for unit in SOCKET_UNITS)

    def journal(self, since=None):
        """Entries of the unit, (priority, message)."""
        command = ["journalctl", "--unit=barraged.service", "--output=json", "--no-pager", "--all"]
        command += [f"--after-cursor={since}"] if since else []
        entries = [json.loads(line) for line in self.container.must(*command).splitlines()]
        return [(int(entry["PRIORITY"]), str(entry["MESSAGE"])) for entry in entries]

    def cursor(self):
        """A place in the journal: everything later is new."""
        self.container.run("journalctl", "--sync")
        text = self.container.run("journalctl", "--lines=0", "--show-cursor", "--quiet", "--no-pager").stdout
        return text.rpartition("cursor: ")[2].strip()

    def wait_for_journal(self, text, since=None, priority=None):
        def is_there():
            return any(text in line and priority in (None, level) for level, line in self.journal(since))

        eventually(is_there, f'"{text}" in the journal' + (f" as <{priority}>" if priority is not None else ""))

    def start_afresh(self):
        """The beginning of each step: the shipped unit, a good configuration, the right secret, all started anew."""
        self.override()
        self.configure()
        self.write_secret(self.secret)
        self.container.run("systemctl", "stop", "barraged.service")
        self.container.run("systemctl", "reset-failed", "barraged.service", *SOCKET_UNITS)
        self.systemctl("restart", *SOCKET_UNITS)
        self.systemctl("start", "barraged.service")
        # Counts restarts from zero.
        self.container.run("systemctl", "reset-failed", "barraged.service")

    # Programs that write.

    def send(self, user, *texts, socket="barraged.sock"):
        """docs/examples/send.py as that user of the container, begun."""
        uid, gid, groups = self.account(user)
        return subprocess.Popen(
            ["/usr/bin/python3", str(self.scratch / "send.py"), socket, "room", user, *texts],
            cwd=self.path(SOCKETS),
            user=uid,
            group=gid,
            extra_groups=groups,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def is_sent(self, text, user="friend"):
        """Send one message, and assert that it arrived."""
        assert_sent(self.send(user, text))
        assert text in self.zego.contents(), "the stand-in has not seen it"

    def writer(self):
        return Writer(self.path(SOCKETS) / "barraged.sock")

    def fill(self, n):
        """A writer with so many lines in the queue."""
        writer = self.writer()
        writer.send(*(message(f"{i}", room=f"room{i % 50}", id=i) for i in range(n)))
        return writer


def assert_sent(program):
    out, err = program.communicate(timeout=PATIENCE)
    replies = [json.loads(line) for line in out.splitlines()]
    assert program.returncode == 0 and [outcome(reply) for reply in replies] == ["sent"], f"{out}{err}"


def assert_refused(program, error):
    out, err = program.communicate(timeout=PATIENCE)
    assert program.returncode != 0 and error in err and not out, f"{out}{err}"


# The steps. Each but the first begins with World.start_afresh(); its name is printed.

STEPS = []


def step(function):
    STEPS.append(function)
    return function


class Skipped(Exception):
    pass


@step
def enabled_it_starts_at_boot(world):
    eventually(world.is_active, "the daemon")
    assert world.sockets_are_up()
    world.is_sent("after the boot")


@step
def an_installed_daemon_starts_and_says_when_it_is_ready(world):
    assert world.show("Type") == "notify" and world.show("SubState") == "running"
    assert world.sockets_are_up()
    world.wait_for_journal("listens on systemd's socket", priority=6)
    world.is_sent("hello")


@step
def it_runs_as_its_own_user_with_nothing_to_lose(world):
    uid, _, _ = world.account("barraged")
    status = world.process_status()
    assert status["Uid"].split() == [str(uid)] * 4, status["Uid"]
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    # The container's first process has those of systemd-nspawn.
    assert int(status["Seccomp_filters"]) > int(world.process_status(1)["Seccomp_filters"])
    assert int(status["VmLck"].split()[0]) > 0, "the secrets' memory is not locked"
    assert world.limits("Max core file size") == ("0", "0")
    # A container may not be allowed to go beyond the hard limit of its first process.
    files = str(min(65536, int(world.limits("Max open files", 1)[1])))
    assert world.limits("Max open files") == (files, files)
    # A warning would mean that a directive took something away that is needed.
    assert [line for level, line in world.journal(world.started) if level < 6] == []


@step
def a_member_of_the_group_may_send_and_a_stranger_may_not_connect(world):
    world.is_sent("from a member", user="friend")
    assert_refused(world.send("stranger", "from a stranger"), "PermissionError: [Errno 13]")


@step
def nobody_but_root_and_the_daemon_may_steer(world):
    for user in ("friend", "stranger"):
        assert_refused(world.send(user, "to the other socket", socket="control.sock"), "PermissionError: [Errno 13]")
    for user in ("root", "barraged"):
        world.container.must("setpriv", f"--reuid={user}", "--clear-groups", "barragectl", "status")


@step
def peers_keep_their_users_under_all_these_directives(world):
    """With PrivateUsers= everyone would be 65534, and this would refuse everyone."""
    for rule in ({"allow_users": "friend"}, {"allow_groups": "barraged"}):
        world.configure(app=rule)
        world.systemctl("restart", "barraged.service")
        world.is_sent(f"with {rule}")
        out, _ = world.send("root", "not allowed").communicate(timeout=PATIENCE)
        assert [outcome(json.loads(line)) for line in out.splitlines()] == ["unknown_app"], out


@contextlib.contextmanager
def upstream_over_tls(world):
    """The daemon, started anew, has another stand-in, whose name it must look up, and whose certificate it trusts."""
    with Zego(str(world.scratch / "tls.tsv"), app=[f"{APP}:{world.secret}:100"]) as tls:
        shutil.copy(tls.ca_file, world.path("etc/barraged/ca.pem"))
        port = tls.url.rstrip("/").rpartition(":")[2]
        world.configure(upstream={"url": f"https://localhost:{port}/", "ca_file": "/etc/barraged/ca.pem"})
        world.systemctl("restart", "barraged.service")
        yield tls


@step
def names_are_looked_up_and_tls_is_spoken(world):
    before = len(world.names.asked)
    with upstream_over_tls(world) as tls:
        assert_sent(world.send("friend", "over TLS"))
        assert tls.contents() == ["over TLS"]
    assert "localhost" in world.names.asked[before:], "nobody asked for the name"


@step
def it_tries_nothing_that_the_filter_of_system_calls_forbids(world):
    """As shipped, the filter answers EPERM; here it kills, so that nothing can be overlooked."""
    world.override("SystemCallErrorNumber=kill")
    with upstream_over_tls(world):
        pid = world.main_pid()
        assert_sent(world.send("friend", "over TLS"))
        world.systemctl("reload", "barraged.service")
        world.container.must("barragectl", "status")
        assert_sent(world.send("friend", "after the reload"))
        assert world.main_pid() == pid
        world.systemctl("stop", "barraged.service")
        assert (world.show("ExecMainStatus"), world.show("Result")) == ("0", "success")


@step
def the_systems_own_certificates_can_be_read(world):
    """The stand-in's certificate is not among them: the failure must be that, after a whole handshake."""
    with Zego(str(world.scratch / "untrusted.tsv"), app=[f"{APP}:{world.secret}:100"]) as tls:
        world.configure(upstream={"url": tls.url})
        world.systemctl("restart", "barraged.service")
        out, _ = world.send("friend", "to a stranger").communicate(timeout=PATIENCE)
        assert [outcome(json.loads(line)) for line in out.splitlines()] in (["tls"], ["expired"]), out
        assert tls.contents() == []


@step
def a_good_configuration_is_taken_by_reload(world):
    pid = world.main_pid()
    world.configure(daemon={"log_level": "debug"})
    world.systemctl("reload", "barraged.service")
    world.wait_for_journal("is in force", since=world.started, priority=6)
    world.is_sent("after the reload")
    world.wait_for_journal("outcome=sent", since=world.started, priority=7)
    assert world.main_pid() == pid


@step
def a_bad_configuration_fails_the_reload_and_changes_nothing(world):
    pid = world.main_pid()
    world.configure(daemon={"nonsense": "yes"})
    assert world.container.run("systemctl", "reload", "barraged.service").returncode != 0
    world.wait_for_journal("is not used", since=world.started, priority=3)
    assert world.main_pid() == pid and world.is_active()
    world.is_sent("with the old configuration")


@step
def after_a_crash_a_program_that_connected_meanwhile_is_served(world):
    pid = world.main_pid()
    world.kill("KILL")
    waiting = world.send("friend", "while nobody listened")
    assert_sent(waiting)
    assert world.main_pid() not in (0, pid)
    assert world.sockets_are_up()


@step
def the_next_process_finds_what_one_that_was_killed_has_left(world):
    world.configure(shared={"redis": "unix:/nowhere", "hosts": 2})
    since = world.cursor()
    world.systemctl("restart", "barraged.service")
    world.wait_for_journal("not yet in touch", since)
    pledge = world.path("run/barraged-pledge/pledge")
    uid, _, _ = world.account("barraged")
    assert (pledge.parent.stat().st_uid, stat.S_IMODE(pledge.parent.stat().st_mode)) == (uid, 0o700)
    pledge.write_text("i0123456789abcdef")
    pid, inode = world.main_pid(), pledge.stat().st_ino
    world.kill("KILL")
    eventually(lambda: world.main_pid() not in (0, pid), "another process")
    assert (pledge.read_text(), pledge.stat().st_ino) == ("i0123456789abcdef", inode)
    assert not any("pledge" in line for _, line in world.journal(since))


@step
def a_restart_is_not_noticed_by_a_program_that_connects_meanwhile(world):
    pid = world.main_pid()
    world.systemctl("--no-block", "restart", "barraged.service")

    def is_served_by_another():
        assert_sent(world.send("friend", "during the restart"))
        return world.main_pid() not in (0, pid)

    eventually(is_served_by_another, "another process")


@step
def programs_wait_while_the_configuration_is_broken_and_are_served_once_it_is_mended(world):
    world.configure(daemon={"nonsense": "yes"})
    world.kill("KILL")
    waiting = world.send("friend", "patient")
    eventually(lambda: int(world.show("NRestarts")) >= 4, "the fourth attempt to start")
    assert world.sockets_are_up() and waiting.poll() is None
    world.wait_for_journal("nonsense", since=world.started, priority=3)
    world.configure()
    assert_sent(waiting)


@step
def a_daemon_that_hangs_is_ended_by_the_watchdog_and_started_anew(world):
    world.kill("STOP")
    eventually(lambda: world.show("NRestarts") == "1" and world.is_active(), "one restart")
    assert any("atchdog" in line for _, line in world.journal(world.started))
    world.is_sent("after the watchdog")
    assert world.show("NRestarts") == "1"


@step
def a_secret_in_a_credential_is_rotated_by_a_restart_alone(world):
    world.write_secret("0" * 32)
    world.configure(upstream={"probe_interval": "100ms"})
    world.systemctl("restart", "barraged.service")
    out, _ = world.send("friend", "wrongly signed").communicate(timeout=PATIENCE)
    assert '"Code":100000005' in out, out
    world.write_secret(world.secret)
    world.systemctl("reload", "barraged.service")
    time.sleep(0.2)  # a probe is due
    out, _ = world.send("friend", "still wrongly signed").communicate(timeout=PATIENCE)
    assert '"Code":100000005' in out, out
    world.systemctl("restart", "barraged.service")
    world.is_sent("signed anew")


@step
def a_secret_in_a_plain_file_is_rotated_by_a_reload(world):
    pid = world.main_pid()
    world.write_secret("0" * 32, name="plain", owner="barraged")
    world.configure(upstream={"probe_interval": "100ms"}, app={"server_secret_file": f"/{SECRETS}/plain"})
    world.systemctl("reload", "barraged.service")
    out, _ = world.send("friend", "wrongly signed").communicate(timeout=PATIENCE)
    assert '"Code":100000005' in out, out
    world.write_secret(world.secret, name="plain", owner="barraged")
    world.systemctl("reload", "barraged.service")
    time.sleep(0.2)  # a probe is due
    world.is_sent("signed anew")
    assert world.main_pid() == pid


@step
def a_missing_credential_fails_the_start(world):
    world.override("LoadCredential=", "LoadCredential=secrets:/etc/barraged/nowhere", "Restart=no")
    assert world.container.run("systemctl", "restart", "barraged.service").returncode != 0
    assert world.show("ExecMainStatus") == "243" and world.show("Result") == "exit-code"
    world.wait_for_journal("CREDENTIALS", since=world.started)


@step
def a_credential_that_the_configuration_names_and_nobody_passed_is_an_error_with_its_line(world):
    world.configure(app={"server_secret_file": "credential:secrets_nobody"})
    world.override("Restart=no")
    assert world.container.run("systemctl", "restart", "barraged.service").returncode != 0
    assert world.show("ExecMainStatus") == "78"
    world.wait_for_journal("credential:secrets_nobody cannot be opened", since=world.started, priority=3)


def stop_with_a_backlog(world, n):
    """Stop the daemon with n lines queued; gives the fates that their writer is told, all that come."""
    world.configure(queue={"max_age": "1m", "queue_max": 10000})
    world.systemctl("restart", "barraged.service")
    writer = world.fill(n)
    told = writer.sync()  # a line of its own, the last that is taken
    world.systemctl("stop", "--no-block", "barraged.service")
    told += writer.rest()
    eventually(lambda: world.show("ActiveState") == "inactive", "the end of the daemon")
    assert (world.show("ExecMainStatus"), world.show("Result")) == ("0", "success")
    assert world.sockets_are_up()
    world.wait_for_journal(f"stopped: lines={n + 1} ", since=world.started, priority=6)
    return [outcome(reply) for reply in told]


@step
def a_stop_sends_what_is_queued(world):
    fates = stop_with_a_backlog(world, 300)
    assert fates == ["sent"] * 300, f"{len(fates)} replies, {set(fates)}"


@step
def what_cannot_be_sent_in_drain_timeout_is_dropped_and_told(world):
    fates = stop_with_a_backlog(world, 2000)
    assert len(fates) == 2000 and set(fates) == {"sent", "shutdown"}, f"{len(fates)} replies, {set(fates)}"


@step
def a_drain_longer_than_the_time_to_stop_is_cut_off(world):
    world.configure(daemon={"drain_timeout": "1m"}, queue={"max_age": "1m", "queue_max": 10000})
    world.override("TimeoutStopSec=2s")
    world.systemctl("restart", "barraged.service")
    world.fill(2000).sync()
    world.container.run("systemctl", "stop", "barraged.service")
    assert (world.show("Result"), world.show("ExecMainStatus")) == ("timeout", "9")
    world.override()
    world.configure()
    world.is_sent("after that")  # the socket has started it again


@step
def a_program_that_never_says_it_is_ready_fails_to_start(world):
    programs = ["ExecStart=", "ExecStart=/usr/bin/sleep 60", "ExecPaths=/usr/bin"]
    world.override(*programs, "TimeoutStartSec=2s", "Restart=no")
    assert world.container.run("systemctl", "restart", "barraged.service").returncode != 0
    assert world.show("Result") == "timeout"


@step
def the_journals_restart_costs_nothing_but_its_lines(world):
    pid = world.main_pid()
    world.systemctl("restart", "systemd-journald.service")
    world.is_sent("after the journal's restart")
    world.systemctl("kill", "--signal=KILL", "systemd-journald.service")
    for i in range(3):
        world.is_sent(f"after the journal's death {i}")
    eventually(lambda: world.is_active("systemd-journald.service"), "the journal's return")
    world.is_sent("after the journal's return")
    assert world.main_pid() == pid and world.show("NRestarts") == "0"
    world.systemctl("restart", "barraged.service")
    world.wait_for_journal("listens on", since=world.started, priority=6)


@step
def metrics_are_served_once_the_port_is_allowed(world):
    world.configure(daemon={"metrics_listen": "127.0.0.1:9464"})
    world.override("SocketBindAllow=ipv4:tcp:9464")
    world.systemctl("restart", "barraged.service")
    world.is_sent("counted")
    metrics = urllib.request.urlopen("http://127.0.0.1:9464/metrics", timeout=PATIENCE).read().decode()
    assert re.search(r'^barraged_requests_total{.*outcome="sent".*} 1$', metrics, re.M), metrics


@step
def a_full_queue_stays_below_the_memory_that_it_may_use(world):
    size = 64 << 20  # queue_bytes by default
    world.configure(queue={"max_age": "1m", "queue_max": 10_000_000, "overflow": "newest"})
    world.systemctl("restart", "barraged.service")
    with contextlib.closing(world.writer()) as writer:
        text = "x" * 1024
        for room in range(2 * size // 1024 // 100):  # half of them are refused
            writer.send(*[message(text, room=f"room{room}")] * 100)
        writer.sync()
        resident = int(world.process_status()["VmRSS"].split()[0]) * 1024
    most = int(world.show("MemoryHigh"))
    assert size < resident < most, f"{resident >> 20} MiB of {most >> 20}"
    world.kill("KILL")  # instead of a drain


@step
def out_of_memory_it_is_started_anew(world):
    if "memory" not in (world.container.group / "cgroup.controllers").read_text().split():
        raise Skipped("cgroup2 does not control memory on this machine")
    world.systemctl("set-property", "--runtime", "barraged.service", "MemoryMax=1M")
    eventually(lambda: int(world.show("NRestarts")) >= 1, "a restart")
    assert any("oom-kill" in line for _, line in world.journal(world.started))
    world.systemctl("set-property", "--runtime", "barraged.service", "MemoryMax=256M")
    world.is_sent("after that")


@step
def as_root_it_says_that_it_should_not_be(world):
    world.override("User=root")
    world.systemctl("restart", "barraged.service")
    world.wait_for_journal("runs as root", since=world.started, priority=4)
    world.is_sent("as root")


@step
def no_secret_has_been_logged(world):
    text = world.container.must("journalctl", "--no-pager", "--all", "--output=export")
    assert "hello" not in text and world.secret not in text


@step
def the_sockets_vanish_with_their_units(world):
    world.systemctl("stop", *SOCKET_UNITS, "barraged.service")
    assert list(world.path(SOCKETS).iterdir()) == []


def take(world, function):
    """One step; gives its result in a word."""
    begun = time.monotonic()
    result, detail = "ok", ""
    try:
        world.started = world.cursor()
        if function is not STEPS[0]:
            world.start_afresh()
        function(world)
    except Skipped as why:
        result, detail = "skipped", str(why)
    except Exception:
        journal = "\n".join(f"<{level}> {line}" for level, line in world.journal()[-12:])
        result, detail = "FAILED", traceback.format_exc(limit=-2) + "the journal's last lines:\n" + journal
    print(f"{result:8}{function.__name__.replace('_', ' ')} ({time.monotonic() - begun:.1f} s)")
    print(textwrap.indent(detail, " " * 8), end="\n" * bool(detail), flush=True)
    return result


def inside(options):
    support.BARRAGED = options.build / "daemon/barraged"
    mount("--make-rprivate", "/")
    bring_up_loopback()
    # nspawn asks /sys/fs/cgroup which hierarchy to give to the container.
    mount("-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    root = lay_over(options.tree, options.scratch)
    furnish(root)
    install(options.build, root)
    secret = os.urandom(16).hex()
    chosen = [s for s in STEPS if not options.step or any(word in s.__name__ for word in options.step)]
    group = Path("/sys/fs/cgroup") / options.cgroup
    with contextlib.ExitStack() as stack:
        zego = stack.enter_context(Zego(str(options.scratch / "zego.tsv"), app=[f"{APP}:{secret}:100"], http=True))
        zego.secret = secret
        world = World(root, zego, options.scratch)
        world.names = NameServer()
        world.names.start()
        world.configure()
        world.write_secret(secret)
        world.boot(stack.enter_context(Container(root, group, options.scratch / "console")))
        results = Counter(take(world, function) for function in chosen)
    print(", ".join(f"{n} {result}" for result, n in sorted(results.items())), flush=True)
    return 1 if results["FAILED"] else 0


def parse():
    parser = argparse.ArgumentParser(
        prog="tests/container", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", nargs="*", help="words, of which a step's name must have one (default: all steps)")
    parser.add_argument("--tree", type=Path, help="where Debian is kept for the next run (default: it is not)")
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="the build folder to install from")
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cgroup", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.step = [word.replace(" ", "_") for word in options.step]
    options.tree = options.tree and options.tree.absolute()
    options.build = options.build.absolute()
    return options


def stop(number, _frame):
    sys.exit(128 + number)


def main():
    options = parse()
    signal.signal(signal.SIGTERM, stop)
    try:
        return inside(options) if options.cgroup else outside(options)
    except CannotRun as why:
        print(f"cannot run here: {why}", file=sys.stderr)
        return CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main())
