# SPDX-License-Identifier: MIT
"""The examples of the manual pages, and those in docs/examples/, do what they say."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from support import ROOT, outcome

SOCKET = "/run/barraged/barraged.sock"


def literals(page):
    text = (ROOT / f"docs/man/{page}.scd").read_text()
    return [block.replace("\\\\", "\\") for block in re.findall(r"^```\n(.*?)^```$", text, re.M | re.S)]


def run(daemon, *command):
    path = str(daemon.socket)
    command = [argument.replace(SOCKET, path) for argument in command]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def shell_examples():
    """Two: each page has one."""
    pages = ("barraged.8", "barraged-protocol.7")
    return [text for page in pages for text in literals(page) if "nc -N -U" in text and text[0] != "$"]


@pytest.mark.skipif(not shutil.which("nc"), reason="there is no nc")
@pytest.mark.parametrize("text", shell_examples())
def test_a_line_from_the_shell(daemon, text):
    result = run(daemon, "sh", "-c", text)
    assert result.stderr == ""
    assert outcome(json.loads(result.stdout)) == "sent"


def test_a_line_from_python(daemon):
    (text,) = [text for text in literals("barraged-protocol.7") if text.startswith("import")]
    assert run(daemon, sys.executable, "-c", text).stdout == "sent\n"


def test_lines_that_are_shown_are_answered_as_shown(daemon):
    """But for what differs from run to run."""
    (text,) = [text for text in literals("barraged-protocol.7") if text.startswith(">")]
    line, reply = (row[2:] for row in text.splitlines())
    shown, told = json.loads(reply), daemon.connect().ask(json.loads(line))
    assert list(told) == list(shown)
    assert (told["id"], told["outcome"]) == (shown["id"], shown["outcome"])


RUNNERS = {"sh": ["sh"], "py": [sys.executable], "js": ["node"], "go": ["go", "run"], "php": ["php"]}


@pytest.mark.parametrize("program", sorted(path.name for path in (ROOT / "docs/examples").iterdir()))
def test_a_complete_writer_sends_all_texts_and_tells_their_fates(host, program):
    runner = RUNNERS[program.split(".")[1]]
    for needed in (runner[0], "nc" if program == "send.sh" else runner[0]):
        if not shutil.which(needed):
            pytest.skip(f"there is no {needed}")
    texts = ["hello", 'a "b" \\ c', "嗨 🎉"]
    zego = host.zego()
    daemon = host.daemon(zego)
    result = run(daemon, *runner, str(ROOT / "docs/examples" / program), str(daemon.socket), "live-7", "relay", *texts)
    replies = [json.loads(line) for line in result.stdout.splitlines()]
    assert {(reply["id"], outcome(reply)) for reply in replies} == {(1, "sent"), (2, "sent"), (3, "sent")}
    assert (result.returncode, sorted(zego.contents())) == (0, sorted(texts))

    refused = run(daemon, *runner, str(ROOT / "docs/examples" / program), str(daemon.socket), "", "relay", "hello")
    assert outcome(json.loads(refused.stdout)) == "invalid"
    assert refused.returncode == 1
