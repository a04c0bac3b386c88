# SPDX-License-Identifier: MIT
"""Fixtures of the end-to-end tests; see support.py for how they are used."""

import contextlib
import subprocess
from pathlib import Path

import pytest

from support import BARRAGED, Host, is_sanitized, preload


def pytest_report_header():
    if not BARRAGED.exists():
        pytest.exit(f"{BARRAGED} does not exist: build it, or set BARRAGED", returncode=2)
    return f"barraged: {BARRAGED}{' (sanitized)' if is_sanitized() else ''}"


@pytest.fixture
def host():
    """Where the test's programs run; starts sandboxes and daemons on demand."""
    with contextlib.ExitStack() as stack:
        yield Host(stack)


@pytest.fixture
def zego(host):
    """A sandbox as it is by default: prompt, well-behaved, one AppID."""
    return host.zego()


@pytest.fixture
def daemon(host, zego):
    """A daemon with the default configuration, but for startup_hold."""
    return host.daemon(zego)


@pytest.fixture(scope="module")
def standing_host():
    """A host for tests that only talk to its daemon, one for all of a module."""
    with contextlib.ExitStack() as stack:
        yield Host(stack)


@pytest.fixture(scope="module")
def standing_daemon(standing_host):
    """A daemon shared by a module's tests: whoever uses it must leave it as it was."""
    return standing_host.daemon(standing_host.zego(), app={"room_rate": 0})


@pytest.fixture(scope="session")
def shims(tmp_path_factory):
    """Makes a shared object for LD_PRELOAD of the C file of that name."""
    directory = tmp_path_factory.mktemp("shims")

    def make(name):
        path = directory / f"{name}.so"
        if not path.exists():
            source = Path(__file__).with_name(f"{name}.c")
            subprocess.run(["cc", "-shared", "-fPIC", "-o", path, source, "-ldl"], check=True)
        return path

    return make


@pytest.fixture(scope="session")
def odd_socket(shims):
    """What makes a daemon load odd_socket.c: environment variables."""
    return preload(shims("odd_socket"))
