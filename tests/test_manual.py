# SPDX-License-Identifier: MIT
"""The manual pages say what there is, all of it and nothing else, as the code has it; and they are well formed."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BARRAGED = Path(os.environ.get("BARRAGED", ROOT / "build/daemon/barraged")).absolute()
BARRAGECTL = BARRAGED.parent / "barragectl"
BUILD = BARRAGED.parent.parent

PAGES = ["barragectl.1", "barraged.conf.5", "barraged-protocol.7", "barraged.8"]
GUIDE = ROOT / "docs/OPERATIONS.md"


# Reading pages. An entry is a line at the margin that begins in bold or underlined, and indented lines below it.


def source(page):
    return (ROOT / f"docs/man/{page}.scd").read_text()


def section(page, title):
    """The text of a section, up to the next one of its rank."""
    rank = "#" * (title.count("#") or 1)
    line = re.escape(title if title.startswith("#") else f"# {title}")
    return re.search(rf"^{line}\n(.*?)(?=^{rank} |\Z)", source(page), re.M | re.S)[1]


def entries(text):
    """(head, text) of each entry, in order, the text as one line without marks."""
    found = re.findall(r"^([*_].*)\n((?:\t.*\n|\n(?=\t))+)", text, re.M)
    return [(head, plain(body)) for head, body in found]


def plain(text):
    text = re.sub(r"(?<![\w\\])_(\S.*?)_(?!\w)", r"\1", " ".join(text.split()))
    return re.sub(r"[*\\]", "", text)


def heads(text):
    return "\n".join(head for head, _ in entries(text))


def bold(text, pattern=r"\w+"):
    """Words in bold that are no page's name."""
    return set(re.findall(rf"\*({pattern})\*(?!\(\d)", text))


# Reading code.


def code(*paths):
    return "\n".join(path.read_text() for pattern in paths for path in sorted(ROOT.glob(pattern)))


def table(pattern, *paths):
    found = re.findall(pattern, code(*paths), re.M)
    assert found, f"{paths} have no {pattern}"
    return found


def sample():
    """Rows of the sample configuration: section, key, default, what is said about it."""
    program = BUILD / "tests/print_sample"
    if not program.exists():
        pytest.skip(f"{program} is not built")
    name, comment = None, []
    for line in subprocess.check_output([program], text=True).splitlines():
        if line.startswith("["):
            name, comment = line.split()[0].strip("[]"), []
        elif line.startswith("# "):
            comment.append(line[2:])
        elif match := re.fullmatch(r"#?(\w+) = ?(.*)", line):
            yield name, match[1], match[2], " ".join(comment)
            comment = []
        else:
            comment = []


def key_entries():
    """(section, key): text, of the page."""
    found = {}
    for name, title in re.findall(r"^# (SECTION \[(\w+).*\])$", source("barraged.conf.5"), re.M):
        for head, text in entries(section("barraged.conf.5", name)):
            for key in bold(head.split(" = ")[0]):
                assert (title, key) not in found
                found[title, key] = text
    return found


def metrics():
    suffix = {"COUNTER": "_total", "INFO": "_info"}
    rows = table(r'\{ "(barraged_\w+)", METRIC_(\w+),', "daemon/core/metrics.c")
    return {name + suffix.get(kind, "") for name, kind in rows}


def reasons():
    return {row[1:] for row in table(r'X\((\w+),\s*"(\w+)",\s*"(\w*)"\)', "include/core/outcome.h")}


def fields():
    """name, whether it is required, least and most."""
    pattern = r'\[FIELD_\w+\]\s*=\s*\{ "(\w+)",\s*TYPE_\w+,\s*(true|false),\s*(\w+), (\w+) \}'
    return table(pattern, "daemon/core/request.c")


def reply_fields():
    return set(table(r'\\"(\w+)\\":', "daemon/core/reply.c"))


def status_members():
    texts = table(r'\\"(\w+)\\":', "daemon/core/status.c")
    return set(texts) | set(table(r'put_percentiles\(out, "(\w+)"', "daemon/core/status.c"))


# What there is, and what is documented.


@pytest.mark.parametrize("program, page", [(BARRAGED, "barraged.8"), (BARRAGECTL, "barragectl.1")])
def test_every_option_is_documented_and_nothing_else(program, page):
    text = subprocess.check_output([program, "--help"], text=True)
    options = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+|-[a-z]\b)", text))
    assert len(options) > 5
    assert bold(heads(section(page, "OPTIONS")), r"--?[a-z-]+") == options


def test_every_short_option_is_in_the_help():
    (shorts,) = table(r'getopt_long\(argc, argv, "([a-z:]*)"', "daemon/main.c")
    text = subprocess.check_output([BARRAGED, "--help"], text=True)
    assert set(shorts.replace(":", "")) == set(re.findall(r"^  -([a-z]), --", text, re.M))


def test_every_command_is_documented_and_nothing_else():
    text = subprocess.check_output([BARRAGECTL, "--help"], text=True)
    commands = set(re.findall(r"^  ([a-z]+)\b", text, re.M))
    documented = [re.match(r"\*(\w+)\*", head)[1] for head, _ in entries(section("barragectl.1", "COMMANDS"))]
    assert set(documented) == commands and len(commands) == 9


def statuses(page):
    return {int(number) for number in bold(heads(section(page, "EXIT STATUS")), r"\d+")}


def test_every_exit_status_is_documented_and_nothing_else():
    names = table(r"\b(EX_[A-Z]+)\b", "daemon/main.c", "daemon/edge/*.c")
    assert statuses("barraged.8") == {0, 1} | {getattr(os, name) for name in names}

    own = re.search(r"enum \{(.*?)\}", code("include/ctl/options.h"), re.S)[1]
    names = table(r"\b(EX_[A-Z]+)\b", "daemon/ctl/*.c")
    expected = set(range(len(re.findall(r"\bCTL_\w+", own)))) | {getattr(os, name) for name in names}
    # "check" becomes barraged.
    assert statuses("barragectl.1") == expected | {os.EX_CONFIG}


def test_every_exit_status_of_barragectl_is_in_its_help():
    text = subprocess.check_output([BARRAGECTL, "--help"], text=True)
    told = re.findall(r"(?:: |; |;\n)(\d+) ", text[text.index("Exit status") :])
    assert {int(number) for number in told} == statuses("barragectl.1")


def test_every_signal_is_documented_and_nothing_else():
    ignored = table(r"signal\((SIG\w+), SIG_IGN\)", "daemon/main.c")
    (handled,) = table(r"signal_numbers\[\] = \{ (.*) \}", "daemon/edge/daemon.c")
    assert bold(heads(section("barraged.8", "SIGNALS")), "SIG[A-Z0-9]+") == {*ignored, *handled.split(", ")}


@pytest.mark.parametrize("page, files", [("barraged.8", "daemon/edge/*.c"), ("barragectl.1", "daemon/ctl/*.c")])
def test_every_environment_variable_that_is_looked_at_is_documented(page, files):
    looked_at = set(table(r'getenv\("(\w+)"\)', files))
    assert looked_at <= bold(heads(section(page, "ENVIRONMENT")))


def test_every_key_is_documented_with_its_range_and_default_and_nothing_else():
    documented = key_entries()
    rows = list(sample())
    assert set(documented) == {(name, key) for name, key, _, _ in rows}
    assert len(rows) > 30
    for name, key, default, comment in rows:
        text = documented[name, key]
        inherited = comment.startswith("As in [queue]")
        said = re.search(r"((?:From \d|One of ).*)?$", comment)[0]
        assert said in text, (name, key)
        if key == "server_secret_file":
            assert "Required." in text
        elif inherited:
            assert "Default: that of [queue]." in text
        else:
            assert f"Default: {default or 'empty'}." in text, (name, key)


def test_it_is_told_which_keys_take_a_restart():
    fixed = set(table(r'^\t\t\{ "(\w+)", (?:strcmp\()?old->', "daemon/edge/daemon.c"))
    for (_, key), text in key_entries().items():
        assert text.endswith(f"Changed by a {'restart' if key in fixed else 'reload'}."), key


def test_every_field_is_documented_with_its_limits_and_nothing_else():
    documented = entries(section("barraged-protocol.7", "A LINE"))
    by_name = {re.match(r"\*(\w+)\*", head)[1]: head for head, _ in documented}
    assert set(by_name) == {name for name, *_ in fields()}
    for name, required, least, most in fields():
        head = by_name[name]
        most = {"UINT32_MAX": "4294967295", "UINT64_MAX": "1024"}.get(most, most)
        assert re.search(rf"\b{least} (to|or) {most}\b", head), name
        assert ("required" in head) == (required == "true"), name


def test_every_field_of_a_reply_is_documented_and_nothing_else():
    assert bold(heads(section("barraged-protocol.7", "REPLIES"))) == reply_fields()


def test_every_outcome_and_reason_is_documented_and_nothing_else():
    text = heads(section("barraged-protocol.7", "OUTCOMES AND REASONS"))
    documented = set(re.findall(r"\*([a-z]+)\*/\*(\w+)\*", text))
    assert re.search(r"^\*sent\*$", text, re.M)
    assert documented | {("sent", "")} == reasons()


def test_every_code_is_documented_and_nothing_else():
    text = heads(section("barraged-protocol.7", "## Codes of failed/api"))
    documented = [int(number) for number in re.findall(r"\*(\d+)\*", text)]
    known = {int(code): kind for code, kind in table(r"\{ (\d+),\s+VERDICT_(\w+) \}", "daemon/core/answer.c")}
    gateway = range(100000000, 100000100)
    assert len(documented) == len(set(documented))
    assert set(documented) - set(known) == {gateway[-1]}
    told_by_range = {code for code, kind in known.items() if code in gateway and kind in ("HALT", "SIGN_AGAIN")}
    assert set(known) - set(documented) - told_by_range == {0}
    for head in text.splitlines():
        kinds = {known[int(number)] for number in re.findall(r"\*(\d+)\*", head) if int(number) in known}
        assert len(kinds) == 1, head


def test_every_operation_of_the_control_socket_is_documented_and_nothing_else():
    text = section("barragectl.1", "THE CONTROL SOCKET")
    operations = table(r'\[COMMAND_\w+\] = "(\w+)"', "daemon/core/command.c")
    assert bold(heads(text)) == set(operations)
    words = table(r'\[FIELD_\w+\] = "(\w+)"', "daemon/core/command.c")
    words += table(r'\[METRICS_\w+\] = "(\w+)"', "daemon/core/command.c")
    words += re.findall(r'"(\w+)"', table(r"levels\[\] = \{ (.*) \}", "daemon/core/command.c")[0])
    assert [word for word in words if f"_{word}_" not in text] == []


def test_every_member_of_the_status_is_documented_and_nothing_else():
    assert bold(section("barragectl.1", "STATUS")) - metrics() == status_members()


def test_every_metric_is_documented_with_its_labels_and_nothing_else():
    documented = re.findall(r"^\*(barraged_\w+)\*(?:\{([\w,]+)\})?$", section("barraged.8", "METRICS"), re.M)
    assert {name for name, _ in documented} == metrics()
    # Its table is held against the daemon by tests/e2e/test_control.py.
    rows = re.findall(r"^\| (`barraged_[^|]+) \| ([^|]*) ?\|", code("docs/CONTROL.md"), re.M)
    labels = {name: re.findall(r"\w+", cell) for names, cell in rows for name in re.findall(r"\w+", names)}
    assert {name: list(filter(None, text.split(","))) for name, text in documented} == labels


def test_every_state_of_an_appid_is_documented_and_nothing_else():
    states = set(table(r'X\(APP_\w+,\s*"(\w+)"\)', "include/core/app.h"))
    text = dict(re.findall(r"^\*(barraged_app_state)\*\S*\n((?:\t.*\n)+)", section("barraged.8", "METRICS"), re.M))
    assert set(re.findall(r"_([a-z]+)_", text["barraged_app_state"])) == states


def known_names():
    keys = {key for _, key, _, _ in sample()}
    words = {name for name, *_ in fields()} | {reason for _, reason in reasons()}
    return keys | metrics() | words | reply_fields() | status_members()


@pytest.mark.parametrize("page", PAGES)
def test_every_name_in_bold_exists(page):
    foreign = {"http_proxy"}
    names = bold(source(page), r"[a-z]+(?:_[a-z]+)+") | set(re.findall(r"barraged_\w+", source(page)))
    assert names - known_names() - foreign == set()


def test_every_name_in_the_operators_guide_exists():
    text = GUIDE.read_text()
    names = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)(?: = [^`]*)?`", text)) | set(re.findall(r"barraged_\w+", text))
    assert len(names) > 30
    assert names - known_names() == set()


def test_every_alert_is_in_the_operators_guide_and_nothing_else():
    alerts = table(r"^ *- alert: (\w+)$", "conf/prometheus/barraged.rules.yml")
    assert sorted(re.findall(r"^- \*\*(Barraged\w+)\*\*", GUIDE.read_text(), re.M)) == sorted(alerts)
    assert set(re.findall(r"\bBarraged\w+", GUIDE.read_text())) == set(alerts)


def test_every_log_line_in_the_operators_guide_is_one():
    """By its longest piece in which nothing is filled in."""
    text = GUIDE.read_text()
    rows = text[text.index("| line | means |") :].split("\n\n")[0].splitlines()[2:]
    sources = re.sub(r'"\s*"', "", code("daemon/edge/*.c", "daemon/core/*.c"))
    lines = [line for row in rows for line in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    assert len(lines) > 20
    for line in lines:
        pieces = re.split(r"\.\.\.|[+-]?\d[\w.:/]*|\b[A-Z]+\b|\w+=\S*|https?:\S*|/\S+", line)
        piece = max(pieces, key=len).strip(' :;,()"')
        assert len(piece) > 5 and piece in sources, (line, piece)


def test_pages_refer_to_pages_that_exist():
    for page in PAGES:
        see_also = section(page, "SEE ALSO")
        own = {f"{name}.{number}" for name, number in re.findall(r"\*(barrage[\w.-]+)\*\((\d)\)", source(page))}
        assert own <= set(PAGES)
        expected = set(PAGES) - {page}
        assert {f"{n}.{s}" for n, s in re.findall(r"\*(barrage[\w.-]+)\*\((\d)\)", see_also)} == expected


# Their form.


def built(page):
    path = BUILD / "docs/man" / page
    if not path.exists():
        pytest.skip(f"{path} is not built: scdoc was not there")
    return path


def lint(path):
    """What mandoc finds, but for paragraphs that scdoc begins without need."""
    if not shutil.which("mandoc"):
        pytest.skip("there is no mandoc")
    lines = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", path], capture_output=True, text=True).stdout
    return [line for line in lines.splitlines() if "skipping paragraph macro: PP" not in line]


def warnings(path):
    """What groff says."""
    if not shutil.which("man"):
        pytest.skip("there is no man")
    command = ["man", "--warnings", "-E", "UTF-8", "-Tutf8", "-Z", "-l", path]
    environment = os.environ | {"LC_ALL": "C.UTF-8", "MANWIDTH": "80"}
    return subprocess.run(command, capture_output=True, text=True, env=environment).stderr


@pytest.mark.parametrize("check, nothing", [(lint, []), (warnings, "")])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_well_formed(page, check, nothing):
    assert check(built(page)) == nothing


@pytest.mark.parametrize("check, nothing", [(lint, []), (warnings, "")])
def test_the_check_above_sees_an_unknown_macro(tmp_path, check, nothing):
    path = tmp_path / PAGES[0]
    path.write_text(built(PAGES[0]).read_text() + ".XY unknown\n")
    assert check(path) != nothing


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_left_to_be_replaced(page):
    assert re.findall(r"@\w+@", built(page).read_text()) == []


# Their examples.


def literals(page):
    """The blocks that stand as they are."""
    blocks = re.findall(r"^```\n(.*?)^```$", source(page), re.M | re.S)
    return [block.replace("\\\\", "\\") for block in blocks]


def test_the_configurations_are_right(tmp_path):
    examples = [text for text in literals("barraged.conf.5") if "[app" in text]
    assert len(examples) == 2
    for i, text in enumerate(examples):
        for name in re.findall(r"secrets[_.d/]+(\d+)", text):
            for path in (tmp_path / name, tmp_path / f"secrets_{name}"):
                path.write_text("0123456789abcdef0123456789abcdef\n")
                path.chmod(0o600)
        if "#define HAVE_EXPOSITION 1" not in (BUILD / "daemon/build.h").read_text():
            text = re.sub("^metrics_listen.*$", "", text, flags=re.M)
        config = tmp_path / f"{i}.conf"
        config.write_text(text.replace("/etc/barraged/secrets.d", str(tmp_path)))
        environment = os.environ | {"CREDENTIALS_DIRECTORY": str(tmp_path)}
        command = [BARRAGED, "--config", config, "--check-config"]
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert (result.returncode, result.stderr) == (0, "")
