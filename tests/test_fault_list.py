# SPDX-License-Identifier: MIT
"""docs/FAULTS.md lists every fault once, and each names tests that exist."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Prefix of the faults of a section: its name, and how many there are.
SECTIONS = {"I": ("Intake", 31), "C": ("Core", 21), "D": ("Delivery", 34), "P": ("Process", 20),
            "M": ("Many hosts", 12)}  # fmt: skip

ROW = re.compile(r"\| ([ICDPM]\d+) \| (.+) \| (.+) \| (.+) \|")
REFERENCE = re.compile(r"`(tests/[\w./-]+)(?:::|: )(\w+)`")


def rows():
    """The rows of docs/FAULTS.md: section, id, fault, what happens, shown by."""
    section = None
    for line in (ROOT / "docs/FAULTS.md").read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif match := ROW.fullmatch(line):
            yield section, *match.groups()


def functions(path):
    """Names of a file's tests, which in C are also listed in main(), and of the checks that each run of the simulator
    goes through.
    """
    text = path.read_text()
    if path.suffix == ".c":
        defined = re.findall(r"^\w[\w *]*?(\w+)\([^;]*?\)\n{", text, re.MULTILINE)
        return {name for name in defined if len(re.findall(rf"\b{name}\b", text)) > 1 or path.match("tests/sim/*")}
    return {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}


def is_there(file, name):
    path = ROOT / file
    if not path.is_file():
        return False
    if path.suffix in (".c", ".py"):
        return name in functions(path)
    return re.search(rf"\b{name}\b", path.read_text()) is not None


def test_each_fault_is_listed_once_in_its_section_and_in_order():
    listed = [(section, number) for section, number, *_ in rows()]
    expected = [
        (section, f"{prefix}{i}") for prefix, (section, n) in SECTIONS.items() for i in range(1, n + 1)
    ]
    assert Counter(listed) == Counter(expected)
    assert listed == expected


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[1])
def test_each_fault_names_tests_that_exist(row):
    *_, shown_by = row
    references = REFERENCE.findall(shown_by)
    assert references
    assert REFERENCE.sub("", shown_by).strip(" ,;") == ""  # nothing else, such as a reference that is misspelt
    assert [f"{file}::{name}" for file, name in references if not is_there(file, name)] == []
