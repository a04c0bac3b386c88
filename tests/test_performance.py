# SPDX-License-Identifier: MIT
"""tests/bench measures, and docs/PERFORMANCE.md tells what it has measured. No speed is asserted here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS / "costs"), str(TESTS / "e2e")]

import report  # noqa: E402
from support import UNDER  # noqa: E402

pytestmark = pytest.mark.skipif(bool(UNDER), reason="what is measured under valgrind are not the daemon's costs")


def table(*options):
    """Runs tests/bench at its smallest; gives its rows, cell by cell. It fails unless each ledger adds up."""
    command = [sys.executable, TESTS / "costs/bench.py", "--quick", *options]
    told = subprocess.run(command, env=os.environ, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    return told.stdout.split("\n\n")[1].splitlines()


def test_a_refused_line_is_measured_beside_cjson():
    head, *rows = table("--only", "refused")
    assert head.split()[:3] == ["work", "ours", "reference"]
    assert len(rows) == 4
    assert all(row.count(" µs") == 2 and "× " in row for row in rows)
    assert rows[0].split()[-1] in ("yes", "no")


def test_the_memory_of_a_message_is_measured():
    rows = table("--only", "memory")[1:]
    assert len(rows) == 2
    assert all(row.count(" B") >= 3 for row in rows)


@pytest.mark.skipif(not shutil.which("h2load"), reason="there is no h2load: it is in Debian's package nghttp2-client")
def test_a_delivered_message_is_measured_beside_h2load():
    beside_h2load, *others = table("--only", "delivered")[1:]
    assert beside_h2load.split()[-1] in ("yes", "no")
    assert len(others) == 2
    assert all(row.count(" µs") == 2 for row in (beside_h2load, *others))


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in report.files()])
def test_the_document_tells_what_was_measured(path):
    """tests/costs/report.py makes it of the files in docs/performance/."""
    assert path.read_text() == report.files()[path]
