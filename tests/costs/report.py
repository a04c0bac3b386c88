#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Put what tests/bench has measured into docs/PERFORMANCE.md: the tables, the charts, and what is said in figures.

All of it comes from the files in docs/performance/. What stands in the document between <!-- NAME --> and
<!-- end --> is made here; the rest is written by hand.
"""

import math
import re
import sys
import textwrap
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from drawing import Picture, nice  # noqa: E402

DATA = ROOT / "docs/performance"
DOCUMENT = ROOT / "docs/PERFORMANCE.md"
IMAGES = ROOT / "docs/images"

WORKS = {"delivered": "one message delivered", "refused": "one line refused, the queue full"}
AXES = {
    "AppIDs": "AppIDs",
    "rooms": "rooms",
    "clients": "connected writers",
    "queued": "messages in the queue",
    "bytes": "bytes of a line",
}
LIMITED = {"AppIDs", "rooms"}  # to 1.2 times the cost with one
LIMIT = 1.2


def read(name):
    """What a file says of its run, and its rows."""
    lines = (DATA / name).read_text().splitlines()
    about = [line[2:] for line in lines if line.startswith("# ")]
    head, *rows = [line.split("\t") for line in lines if not line.startswith("# ")]
    return about, [dict(zip(head, row)) for row in rows]


def read_growth():
    """{series: {work: [(point, low, median, high)]}}, in µs."""
    _, rows = read("growth.tsv")
    growth = defaultdict(lambda: defaultdict(list))
    for row in rows:
        values = (float(row[key]) / 1000 for key in ("low_ns", "median_ns", "high_ns"))
        growth[row["series"]][row["work"]].append((int(row["point"]), *values))
    return growth


# The charts.

WIDTH, HEIGHT = 1000, 260
LEFT, TOP, BOTTOM, GAP = 52, 44, 52, 24
PANEL = (WIDTH - 3 * GAP) // 2


def thousands(n):
    return f"{n:,}".replace(",", " ")


class Chart(Picture):
    def panel(self, left, axis, title, points, scale, limited):
        first, last = scale(points[0][0]), scale(points[-1][0])

        def x(point):
            return left + LEFT + 24 + (scale(point) - first) / (last - first) * (PANEL - LEFT - 48)

        def y(value):
            return HEIGHT - BOTTOM - value / highest * (HEIGHT - TOP - BOTTOM)

        limit = points[0][2] * LIMIT
        most = max(max(high for *_, high in points), limit if limited else 0)
        step = nice(most)
        highest = step * (int(most / step) + 1)
        right = left + PANEL
        self.text(left + LEFT, TOP - 18, title, "title")
        self.text(left + LEFT - 6, TOP - 18, "µs", anchor="end")
        for i in range(round(highest / step) + 1):
            self.add(f'<path d="M{left + LEFT} {y(i * step):.1f}H{right}" class="{"grid" if i else "axis"}"/>')
            self.text(left + LEFT - 6, y(i * step) + 4, f"{i * step:.4g}", anchor="end")
        for point, *_ in points:
            self.text(x(point), HEIGHT - BOTTOM + 16, thousands(point), anchor="middle")
        self.text((left + LEFT + right) / 2, HEIGHT - BOTTOM + 34, axis, anchor="middle")
        if limited:
            self.add(f'<path d="M{left + LEFT} {y(limit):.1f}H{right}" class="limit dashed"/>')
            self.text(right, y(limit) - 4, f"{LIMIT} × one", anchor="end")
        up = [f"{x(point):.1f} {y(high):.1f}" for point, _, _, high in points]
        down = [f"{x(point):.1f} {y(low):.1f}" for point, low, _, _ in points][::-1]
        self.add(f'<path d="M{"L".join(up + down)}Z" class="c0 fill" opacity=".25"/>')
        line = "L".join(f"{x(point):.1f} {y(median):.1f}" for point, _, median, _ in points)
        self.add(f'<path d="M{line}" class="c0"/>')
        for point, _, median, _ in points:
            self.add(f'<circle cx="{x(point):.1f}" cy="{y(median):.1f}" r="2.5" class="c0 fill"/>')


def chart(series, works):
    picture = Chart()
    for i, (work, points) in enumerate(works.items()):
        scale = float if series == "bytes" else math.log10
        picture.panel(GAP / 2 + i * (PANEL + GAP), AXES[series], WORKS[work], points, scale, series in LIMITED)
    return picture.svg(WIDTH, HEIGHT, f"Processor time for a message by {AXES[series]}")


def image_of(series):
    return IMAGES / f"cost-by-{series.lower()}.svg"


# What is between the marks.


def table_of(rows):
    head, *rows = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def block_surroundings():
    about, _ = read("table.tsv")
    return "\n".join(f"- {line}" for line in about)


def block_table():
    _, rows = read("table.tsv")
    return table_of([list(rows[0]), *([cell.replace("no", "**no**") if name == "met" else cell
                                       for name, cell in row.items()] for row in rows)])


def block_unmet():
    unmet = [f"{row['work']} ({row['result']})" for row in read("table.tsv")[1] if row["met"] == "no"]
    return textwrap.fill(f"Not met in this run: {'; '.join(unmet) or 'nothing'}.", 120)


def microseconds(text):
    return float(text.removesuffix(" µs"))


def block_throughput():
    _, rows = read("table.tsv")
    found = {row["work"]: row["ours"] for row in rows}
    (sent,) = (value for work, value in found.items() if work.startswith("delivered message, 32 in flight"))
    (refused,) = (value for work, value in found.items() if work.startswith("refused line, 215"))
    a_second = 1e6 / microseconds(sent)
    return textwrap.fill(
        f"At {sent} for a message one processor sends some {a_second / 1000:.0f} thousand a second: the limits of "
        f"{a_second / 100:.0f} AppIDs at 100 a second each. At {refused} it refuses {1 / microseconds(refused):.1f} "
        "million lines a second.", 120)


def block_of_growth(series):
    works = read_growth()[series]
    said = []
    for work, points in works.items():
        first, last = points[0], points[-1]
        said.append(f"{work} {first[2]:.3g} → {last[2]:.3g} µs (× {last[2] / first[2]:.2f})")
    from_to = f"From {thousands(points[0][0])} to {thousands(points[-1][0])} {AXES[series]}: {', '.join(said)}."
    return f"![Cost by {AXES[series]}](images/{image_of(series).name})\n\n{textwrap.fill(from_to, 120)}"


PLACES = {"kernel": "kernel", "libcurl": "libcurl", "libc": "libc", "libcrypto": "OpenSSL", "libssl": "OpenSSL",
          "barraged": "barraged"}


def read_profile(calls):
    """{work: [row]}, of the time or of the system calls."""
    found = defaultdict(list)
    for row in read("profile.tsv")[1]:
        if (row["where"] == "system call") == calls:
            found[row["work"]].append(row | {"share": float(row["share"])})
    return found


def entry(work, said):
    return textwrap.fill(f"- {work}: {', '.join(said)}", 120, subsequent_indent="  ", break_on_hyphens=False)


def block_places():
    """Where the time goes, by work."""
    columns = [*dict.fromkeys(PLACES.values()), "others"]
    table = [["work", *columns]]
    for work, rows in read_profile(calls=False).items():
        shares = Counter()
        for row in rows:
            shares[PLACES.get(row["where"], "others")] += row["share"]
        table.append([work, *(f"{shares[column]:.0f} %" for column in columns)])
    return table_of(table)


def block_functions():
    """The first of those that have a name."""
    said = []
    for work, rows in read_profile(calls=False).items():
        named = [row for row in rows if not row["function"].startswith("(")]
        said.append(entry(work, [f"`{row['function']}` {row['share']:.1f} %" for row in named[:12]]))
    return "\n".join(said)


def block_calls():
    works = read_profile(calls=True)
    return "\n".join(
        entry(work, [f"{row['share']:.2g} `{row['function']}`" for row in works[work] if row["share"] > 0.005])
        for work in ("delivered", "refused", "refused-reply")
    )


BLOCKS = {
    "surroundings": block_surroundings,
    "table": block_table,
    "unmet": block_unmet,
    "throughput": block_throughput,
    "places": block_places,
    "functions": block_functions,
    "calls": block_calls,
} | {f"by {series}": lambda series=series: block_of_growth(series) for series in AXES}


def files():
    """All that is made, by path."""
    made = {image_of(series): chart(series, works) for series, works in read_growth().items()}

    def fill(match):
        return f"<!-- {match[1]} -->\n{BLOCKS[match[1]]()}\n<!-- end -->"

    text = DOCUMENT.read_text()
    made[DOCUMENT] = re.sub(r"<!-- (?!end)(.+?) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)
    return made


def main():
    for path, text in files().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
