# SPDX-License-Identifier: MIT
"""core/ is pure: it opens nothing, reads no clock, and knows no layer above it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = sorted([*ROOT.glob("daemon/core/*.[ch]"), *ROOT.glob("include/core/*.h")])
ALL = sorted([*CORE, *ROOT.glob("daemon/**/*.[ch]"), *ROOT.glob("include/**/*.h"), *ROOT.glob("tests/**/*.[ch]")])

# What the core may include: its own headers, C's, what names users, addresses and byte orders, cJSON and libcrypto.
ALLOWED = re.compile(
    r"core/\w+\.h|(assert|ctype|errno|inttypes|limits|math|stdarg|stdbool|stddef|stdint|stdio|stdlib|string)\.h"
    r"|(sys/types|arpa/inet|endian)\.h|cjson/cJSON\.h|openssl/\w+\.h"
)
CLOCKS = re.compile(r"(?<![\w.>])(clock_gettime|gettimeofday|time|clock|uv_hrtime|uv_now|nanosleep|sleep|usleep)\s*\(")
WORLD = re.compile(r"(?<![\w.>])(open|fopen|read|write|socket|connect|send|recv|printf|fprintf|getenv|rand|random|getrandom)\s*\(")

# The project's list of functions that are never used (a checked one stands in for each).
BANNED = re.compile(
    r"\b(strcpy|strcat|sprintf|vsprintf|strtok|strncpy|atoi|atol|atoll|sscanf|gets|localtime|gmtime|alloca|system"
    r"|setlocale|cJSON_GetObjectItem)\s*\("
)


def code_of(path):
    """The text without comments and strings."""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
    return re.sub(r'"(\\.|[^"\\])*"', '""', text)


def test_there_is_a_core():
    assert len(CORE) > 20


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.name)
def test_core_includes_nothing_of_the_world(path):
    included = re.findall(r'^#include\s+[<"]([^>"]+)[>"]', path.read_text(), re.M)
    assert [name for name in included if not ALLOWED.fullmatch(name)] == []


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.name)
def test_core_reads_no_clock_and_touches_nothing(path):
    code = code_of(path)
    assert CLOCKS.findall(code) == []
    assert WORLD.findall(code) == []


@pytest.mark.parametrize("path", [p for p in ALL if "/tests/" not in str(p)], ids=lambda p: p.name)
def test_no_banned_function_is_called(path):
    assert BANNED.findall(code_of(path)) == []


@pytest.mark.parametrize("path", ALL, ids=lambda p: p.name)
def test_every_file_names_its_licence(path):
    assert path.read_text().startswith("/* SPDX-License-Identifier: MIT */")
