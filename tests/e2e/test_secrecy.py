# SPDX-License-Identifier: MIT
"""Where a ServerSecret must not be found, beyond what support.py looks into at the end of every test."""

import contextlib
import ctypes
import os
import re
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from support import APP, CLOSED_IN_PROC, NOBODY, SOMEBODY, as_user, eventually, is_sanitized, look_into_proc, message
from test_intake_faults import for_somebody, needs_root

# Such builds let the leak checker look into the process.
not_sanitized = pytest.mark.skipif(is_sanitized(), reason="a build with sanitizers does not hide itself")


@pytest.fixture
def somebodys_daemon(host):
    """A daemon of an ordinary user, as it should be run."""
    directory = host.directory / "run"
    directory.mkdir()
    os.chown(directory, SOMEBODY, SOMEBODY)
    daemon = for_somebody(host.daemon(host.zego(), start=False, daemon={"socket": directory / "sock"}))
    daemon.start()
    assert daemon.connect(directory / "sock").ask(message(id=1))["outcome"] == "sent"
    return daemon


@contextlib.contextmanager
def open_book(uid):
    """A program of that user's that hides nothing, to show that those who look can see."""
    ids = (f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--pdeathsig=KILL")
    with subprocess.Popen(["setpriv", *ids, "sleep", "1000"], env={"SECRET": "lies open"}) as program:
        try:
            comm = Path(f"/proc/{program.pid}/comm")
            eventually(lambda: comm.read_text() == "sleep\n", "the program to start")
            yield program.pid
        finally:
            program.kill()


PTRACE_ATTACH, PTRACE_DETACH = 16, 17


class IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def can_attach(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(PTRACE_ATTACH, pid, None, None) < 0:
        return False
    os.waitpid(pid, 0)
    libc.ptrace(PTRACE_DETACH, pid, None, None)
    return True


def can_copy_memory(pid):
    """Whether process_vm_readv() is allowed; without a right address it fails otherwise then."""
    libc = ctypes.CDLL(None, use_errno=True)
    here = ctypes.create_string_buffer(16)
    local, remote = IoVec(ctypes.addressof(here), 16), IoVec(1 << 40, 16)
    libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    return ctypes.get_errno() != 1  # EPERM


def what_can_be_seen(pid):
    ways = [name for name, can in (("ptrace", can_attach), ("process_vm_readv", can_copy_memory)) if can(pid)]
    return look_into_proc(pid) + " ".join(["\nways:", *ways]).encode()


@needs_root
@not_sanitized
def test_not_even_its_own_user_can_look_into_the_daemon(host, somebodys_daemon):
    with open_book(SOMEBODY) as pid:
        seen = as_user(SOMEBODY, lambda: what_can_be_seen(pid))
        assert b"lies open" in seen and b"\nopen: mem" in seen and b"\nopen: fd" in seen
        assert re.search(rb"\nways:.* process_vm_readv", seen)
    seen = as_user(SOMEBODY, lambda: what_can_be_seen(somebodys_daemon.pid))
    assert b"VmRSS" in seen  # /proc/PID/status, which everybody may read
    assert [name for name in CLOSED_IN_PROC if f"\nopen: {name}\n".encode() in seen] == []
    assert seen.endswith(b"\nways:")
    host.check_secrecy(seen)


@needs_root
def test_other_users_see_nothing_that_leads_to_a_secret(host, somebodys_daemon):
    with open_book(NOBODY) as pid:
        assert b"\nopen: environ" in as_user(NOBODY, lambda: look_into_proc(pid))
    seen = as_user(NOBODY, lambda: what_can_be_seen(somebodys_daemon.pid))
    assert b"VmRSS" in seen and b"open: " not in seen and seen.endswith(b"\nways:")
    host.check_secrecy(seen)


# Core dumps.


def unlimited():
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a shell's background ignores it, and so would the program
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def has_dumped(pid):
    """Whether the kernel says that a process has ended with a core dump, wherever core_pattern sends it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT).si_code == os.CLD_DUMPED


def dumps_core(directory):
    """Whether a program that wants to leave a core dump can leave one here."""
    with subprocess.Popen(["sleep", "1000"], cwd=directory, preexec_fn=unlimited) as program:
        comm = Path(f"/proc/{program.pid}/comm")
        eventually(lambda: comm.read_text() == "sleep\n", "the program to start")
        program.send_signal(signal.SIGABRT)
        return has_dumped(program.pid)


@not_sanitized
@pytest.mark.parametrize("number", (signal.SIGABRT, signal.SIGSEGV, signal.SIGQUIT))
def test_a_crash_leaves_no_core_dump(host, number):
    place = host.directory / "place"
    place.mkdir()
    try:
        if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY or not dumps_core(place):
            pytest.skip("no program can leave a core dump here")
    finally:
        for core in place.iterdir():
            core.unlink()
    daemon = host.daemon(host.zego(), start=False)
    daemon.launch(cwd=place, preexec_fn=unlimited)
    daemon.wait_for_log("listens on")
    assert daemon.connect().ask(message(id=1))["outcome"] == "sent"
    daemon.signal(number)
    assert not has_dumped(daemon.pid)
    assert daemon.wait() == -number
    assert list(place.iterdir()) == []


# What root sees, who sees everything: that there is one copy, where it can be wiped and no dump takes it along.


class Mapping:
    """A part of a process's memory."""

    def __init__(self, header, flags, memory):
        first, rights, *_ = header.split()
        self.header = header
        self.start, self.end = (int(address, 16) for address in first.split("-"))
        self.is_readable = rights[0] == "r" and "[v" not in header
        self.is_kept_out_of_dumps = "dd" in flags
        self.memory = memory

    def content(self):
        self.memory.seek(self.start)
        with contextlib.suppress(OSError):
            return self.memory.read(self.end - self.start)
        return b""


def mappings(pid, memory):
    text = Path(f"/proc/{pid}/smaps").read_text()
    headers = re.findall(r"^([0-9a-f]+-[0-9a-f]+ .*)\n(?:[A-Z].*\n)*?VmFlags: (.*)$", text, re.MULTILINE)
    return [Mapping(header, flags.split(), memory) for header, flags in headers]


def places_of(pid, secret):
    """The mappings that hold a secret, as often as they do."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        readable = [mapping for mapping in mappings(pid, memory) if mapping.is_readable]
        for name in "[heap]", "[stack]":
            (known,) = [mapping for mapping in readable if mapping.header.endswith(name)]
            assert len(known.content()) == known.end - known.start
        return [mapping for mapping in readable for _ in range(mapping.content().count(secret.encode()))]


@needs_root
@not_sanitized
@pytest.mark.parametrize("http", (True, False), ids=("http", "https"))
def test_a_secret_is_in_one_place_of_memory_and_gone_after_a_reload(host, http):
    zego = host.zego(http=http)
    daemon = host.daemon(zego, app={"room_rate": 0})
    writer = daemon.connect()
    writer.ask(*(message(str(n), id=n) for n in range(50)))
    old = host.secret(APP)
    (place,) = places_of(daemon.pid, old)
    assert place.is_kept_out_of_dumps, place.header
    new = host.new_secret(APP)
    zego.expects_faults = True  # it still knows the old one
    assert daemon.reload()
    assert writer.ask(message(id="with the new one"))["Code"] == 100000005
    assert places_of(daemon.pid, old) == []
    assert len(places_of(daemon.pid, new)) == 1


# Files.


def test_nothing_is_left_in_files(host):
    """Neither beside the socket nor where temporary files go, and no secret's file stays open."""
    temporary, home = host.directory / "temporary", host.directory / "home"
    for directory in temporary, home:
        directory.mkdir()
    environment = {"TMPDIR": str(temporary), "HOME": str(home), "XDG_RUNTIME_DIR": str(temporary)}
    daemon = host.daemon(host.zego(http=False), environment=environment, start=False)
    daemon.launch(cwd=home)
    daemon.wait_for_log("listens on")
    before = {path.name for path in host.directory.iterdir()}
    writer = daemon.connect()
    assert writer.ask(message(id=1))["outcome"] == "sent"
    assert daemon.reload()
    assert writer.ask(message(id=2))["outcome"] == "sent"
    assert {path.name for path in host.directory.iterdir()} == before
    assert daemon.stop() == 0
    assert list(temporary.iterdir()) + list(home.iterdir()) == []
    for file in host.directory.iterdir():
        if file.is_file() and file.suffix != ".secret":
            host.check_secrecy(file.read_bytes())


def test_no_file_of_a_secret_stays_open(host):
    daemon = host.daemon(host.zego())
    for _ in range(3):
        assert daemon.reload()
    open_files = daemon.descriptors()
    assert open_files and not [name for name in open_files if name.endswith((".secret", ".conf"))]
