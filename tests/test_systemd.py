# SPDX-License-Identifier: MIT
"""What `meson install` puts where, and what systemd's own tools make of the units. tests/container runs them."""

import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BARRAGED = Path(os.environ.get("BARRAGED", ROOT / "build/daemon/barraged")).absolute()
BUILD = BARRAGED.parent.parent

UNITS = ["barraged.service", "barraged.socket", "barraged-control.socket"]

# Files and their modes, in Debian's layout, beside all that is in docs/.
ALWAYS = """
755 usr/bin/barragectl
755 usr/sbin/barraged
644 etc/barraged/barraged.conf
644 usr/share/barraged/grafana/barraged.json
644 usr/share/barraged/prometheus/barraged.rules.yml
644 usr/share/bash-completion/completions/barraged
644 usr/share/bash-completion/completions/barragectl
644 usr/share/doc/barraged/LICENSE
644 usr/share/doc/barraged/NEWS.md
644 usr/share/doc/barraged/README.md
644 usr/share/doc/barraged/examples/barraged.conf
"""
WITH_SCDOC = """
644 usr/share/man/man1/barragectl.1
644 usr/share/man/man5/barraged.conf.5
644 usr/share/man/man7/barraged-protocol.7
644 usr/share/man/man8/barraged.8
"""
# @units@, @sysusers@ and @tmpfiles@ are systemd's folders.
FOR_SYSTEMD = """
644 @units@/barraged.service
644 @units@/barraged.socket
644 @units@/barraged-control.socket
644 @sysusers@/barraged.conf
644 @tmpfiles@/barraged.conf
644 usr/share/doc/barraged/examples/notify-reload.conf
"""

# Where systemd's own package does not tell otherwise.
FOLDERS = {"units": "lib/systemd/system", "sysusers": "usr/lib/sysusers.d", "tmpfiles": "usr/lib/tmpfiles.d"}
VARIABLES = {"units": "systemdsystemunitdir", "sysusers": "sysusersdir", "tmpfiles": "tmpfilesdir"}


def folders():
    """systemd's folders, below the root."""
    if subprocess.run(["pkg-config", "--exists", "systemd"]).returncode != 0:
        return FOLDERS
    asked = {name: ["pkg-config", f"--variable={variable}", "systemd"] for name, variable in VARIABLES.items()}
    return {name: subprocess.check_output(command, text=True).strip(" /\n") for name, command in asked.items()}


def build_option(name):
    options = json.loads(subprocess.check_output(["meson", "introspect", "--buildoptions", str(BUILD)]))
    return next(option["value"] for option in options if option["name"] == name)


def has_systemd():
    return "#define HAVE_SYSTEMD 1" in (BUILD / "daemon/build.h").read_text()


def has_scdoc():
    """Whether it was there, and wanted, when the build was configured."""
    return "barraged.8" in (BUILD / "build.ninja").read_text()


def install(destination):
    subprocess.run(
        ["meson", "install", "--no-rebuild", "--quiet", "-C", str(BUILD)],
        env=os.environ | {"DESTDIR": str(destination)},
        check=True,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """An installed tree, to be looked at only."""
    if not (BUILD / "build.ninja").exists():
        pytest.skip(f"{BUILD} is not a build folder")
    if build_option("prefix") != "/usr":
        pytest.skip("built for another layout than Debian's")
    destination = tmp_path_factory.mktemp("installed")
    install(destination)
    return destination


def listing(tree, prefix=""):
    """Lines of mode and path of all files."""
    files = [path for path in tree.rglob("*") if not path.is_dir()]
    return [f"{stat.S_IMODE(path.lstat().st_mode):o} {prefix}{path.relative_to(tree)}" for path in files]


def expected():
    text = ALWAYS + (WITH_SCDOC if has_scdoc() else "") + (FOR_SYSTEMD if has_systemd() else "")
    for name, folder in folders().items():
        text = text.replace(f"@{name}@", folder)
    return text.split("\n")


def test_everything_is_installed_in_its_place(tree):
    documents = [line for line in listing(ROOT / "docs", "usr/share/doc/barraged/") if "/barraged/man/" not in line]
    assert sorted(listing(tree)) == sorted(filter(None, expected() + documents))


def test_folders_are_open_to_everybody(tree):
    assert {stat.S_IMODE(path.stat().st_mode) for path in tree.rglob("*") if path.is_dir()} == {0o755}


def test_installing_again_leaves_an_edited_configuration(tree, tmp_path):
    config = tmp_path / "etc/barraged/barraged.conf"
    config.parent.mkdir(parents=True)
    config.write_text("# edited\n")
    install(tmp_path)
    assert config.read_text() == "# edited\n"


def test_no_text_names_the_tree_it_came_from(tree):
    """Nothing may depend on where it was built or staged. The programs have such names in what debuggers read."""
    texts = [path for path in tree.rglob("*") if path.is_file() and "bin" not in path.parent.name]
    assert [path for path in texts if str(ROOT) in path.read_text() or str(tree) in path.read_text()] == []


# What systemd says.


@pytest.fixture
def root(tree, tmp_path):
    """The installed tree as far as systemd's tools need it, to be changed at will."""
    if not has_systemd():
        pytest.skip("built without libsystemd")
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze")
    shutil.copytree(tree, tmp_path, dirs_exist_ok=True)
    # That the programs are there is what verify looks at; not what they do.
    for program in ("usr/sbin/barraged", "usr/bin/barragectl"):
        path = tmp_path / program
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    # Every unit depends on it by default.
    (tmp_path / folders()["units"] / "sysinit.target").write_text("[Unit]\nDescription=System Initialization\n")
    return tmp_path


def analyze(*arguments):
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)


def test_systemd_understands_every_line(root):
    result = analyze("verify", "--man=no", f"--root={root}", *UNITS)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS)
def test_the_check_above_sees_a_wrong_line(root, unit):
    path = root / folders()["units"] / unit
    section = "[Service]" if unit.endswith(".service") else "[Socket]"
    path.write_text(path.read_text().replace(section, f"{section}\nRestartsec=1s"))
    assert "Restartsec" in analyze("verify", "--man=no", f"--root={root}", *UNITS).stderr


def test_little_of_the_system_is_exposed(root):
    result = analyze("security", "--offline=true", "--no-pager", f"--root={root}", "barraged.service")
    exposure = re.search(r"Overall exposure level for barraged\.service: ([\d.]+)", result.stdout)
    assert float(exposure[1]) <= 1.3


def directives(path):
    """(name, value) of each directive of a unit, in order."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return [tuple(line.split("=", 1)) for line in lines if "=" in line and not line.startswith("#")]


def test_the_mistakes_that_would_be_silent_are_not_made(root):
    units = root / folders()["units"]
    service = directives(units / "barraged.service")
    names = {name for name, _ in service}
    # Every peer would be user 65534.
    assert not names & {"PrivateUsers", "DynamicUser"}
    # The sockets would go with the folder at each stop; what is in it is for whoever starts after a kill.
    folder = dict(service)["RuntimeDirectory"]
    assert all(folder not in path for unit in units.glob("*.socket") for _, path in directives(unit))
    assert dict(service)["RuntimeDirectoryPreserve"] == "restart"
    # The socket units would stay failed.
    assert not names & {"RestartPreventExitStatus", "StartLimitBurst"}
    assert ("StartLimitIntervalSec", "0") in service and ("Restart", "always") in service

    assert ("FileDescriptorName", "intake") in directives(units / "barraged.socket")
    assert ("SocketMode", "0660") in directives(units / "barraged.socket")
    control = directives(units / "barraged-control.socket")
    assert ("FileDescriptorName", "control") in control and ("SocketMode", "0600") in control
    # ExecReload= runs as the daemon's user.
    assert dict(service)["User"] == dict(control)["SocketUser"]


def test_what_is_drained_by_default_fits_into_the_time_to_stop(root):
    """drain_timeout, a second for what is under way and one for the last replies (edge/daemon.c), and one to spare."""
    seconds = re.compile(r"(\d+)s")
    stop = seconds.fullmatch(dict(directives(root / folders()["units"] / "barraged.service"))["TimeoutStopSec"])
    drain = re.search(r"#drain_timeout = (\d+)s", (ROOT / "conf/barraged.conf").read_text())
    assert int(stop[1]) >= int(drain[1]) + 3


def test_the_user_and_the_folder_for_secrets_are_made(root):
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    subprocess.run(["systemd-sysusers", f"--root={root}"], check=True, capture_output=True)
    uid, gid = re.search(r"^barraged:x:(\d+):(\d+):", (root / "etc/passwd").read_text(), re.M).groups()
    assert re.search(rf"^barraged:x:{gid}:", (root / "etc/group").read_text(), re.M)

    subprocess.run(["systemd-tmpfiles", f"--root={root}", "--create", "barraged.conf"], check=True)
    folder = (root / "etc/barraged/secrets.d").stat()
    assert (folder.st_uid, stat.S_IMODE(folder.st_mode)) == (int(uid), 0o700)
