#!/usr/bin/env python3
"""Writes the documentation's tables of measured numbers from docs/results/, each between `<!-- table: NAME -->` and
`<!-- end of table -->`.

    docs/results/make_tables.py            writes them
    docs/results/make_tables.py --check    fails when one differs from what is stored
"""
import argparse
import re
import sys

from stored import ENGINES, POLICIES, RESULTS, answers, differences, load, median, sure

ROOT = RESULTS.parent.parent


def table(head, rows):
    lines = ["| " + " | ".join(row) + " |\n" for row in (head, *rows)]
    return lines[0] + "|" + "---|" * len(head) + "\n" + "".join(lines[1:])


def percent(text):
    return f"{100 * float(text):.0f} %"


def interval(row, name):
    return f"({100 * float(row[name + '_low']):.0f} to {100 * float(row[name + '_high']):.0f})"


def points(share, low, high, digits):
    return "{:+.{d}f} ({:+.{d}f} to {:+.{d}f})".format(*(100 * float(value) for value in (share, low, high)), d=digits)


def compare(name):
    """Beside other programs: a column for each, tokens per second, medians over the rounds."""
    run = load(name)
    rounds = run["rounds"]
    engines = [engine for engine in ENGINES if engine in rounds]
    first = rounds[engines[0]][0]

    def row(what, value, text):
        return [what, *(text(median(run, engine, value)) for engine in engines)]

    rows = [row(f"prefill of {int(n):,} tokens", lambda r, n=n: r["prefill"][n], "{:,.0f}".format) for n in first["prefill"]]
    for n in first["decode"]:
        what = "decode, short context" if int(n) < 100 else f"decode after {int(n):,} tokens"
        rows.append(row(what, lambda r, n=n: r["decode"][n], "{:,.0f}".format))
    rows.append(row("peak memory", lambda r: r["peak_rss_bytes"] / 1e6, "{:,.0f} MB".format))
    rows.append(row("load", lambda r: r["load_s"], "{:.2f} s".format))
    head = [f"{ENGINES[e]} {run['versions'][e]}" if e in run["versions"] else ENGINES[e] for e in engines]
    return table(["", *head], rows)


def policies():
    """The paper's Table 1: of each task the share of right answers and how many times lower TTFT is."""
    tasks = answers("policies")
    names = [task for task in tasks if task != "all"]
    rows = []
    for policy, name in POLICIES.items():
        cells = []
        for task in names:
            row = tasks[task][policy]
            cells.append(percent(row["share"]) + ("" if policy == "none" else f" / {float(row['speed_up']):.2f}"))
        every = tasks["all"][policy]
        cells.append(f"{percent(every['share'])} {interval(every, 'right')}")
        cells.append("" if policy == "none" else f"{float(every['speed_up']):.2f}")
        rows.append([name, *cells, f"{int(every['n']):,}"])
    return table(["", *names, "all", "TTFT", "n"], rows)


HELD_OUT = {  # runs of docs/results/held_out: (what was asked, policies)
    "prompts": ("", ("auto", "safe")), "own_words": (", its own words first", ("auto", "auto+cached")),
    "second": ("", ("auto", "auto+cached")),
}


def held_out():
    """The presets on items that they were not chosen on."""
    rows = []
    for run, (asked, policies) in HELD_OUT.items():
        run = f"held_out/{run}"
        tasks = answers(run)
        for policy in policies:
            for task in (task for task in tasks if task != "all"):
                row = tasks[task][policy]
                all_sure, kept = sure(run, task, policy)
                retained = f"{100 * int(row['retained']) / int(row['dense_right']):.1f} % {interval(row, 'retained')}"
                rows.append([f"`{policy}`, {task}{asked}", row["n"], row["dense_right"], row["right"],
                             points(row["net"], row["net_low"], row["net_high"], 1), retained, f"{kept} of {all_sure}",
                             f"{float(row['speed_up']):.2f}"])
    return table(["preset, task", "n", "dense", "right", "net, points", "retained", "sure", "TTFT"], rows)


def baselines():
    """What `auto` has right more often than each policy of others, in points."""
    more = differences("policies", "auto")
    tasks = list(answers("policies"))
    rows = [[name, *(points(*more[policy][task], 0) for task in tasks)]
            for policy, name in POLICIES.items() if policy not in ("none", "safe", "auto", "fast")]
    return table(["", *tasks], rows)


TABLES = {
    "baselines": baselines, "compare": lambda: compare("compare.json"), "compare_1b": lambda: compare("compare_1b.json"),
    "held_out": held_out, "policies": policies,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    mark = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
    stale, written = [], set()
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        def replacement(match, page=page):
            written.add(match[2])
            return match[1] + "\n" + TABLES[match[2]]() + "\n" + match[3]

        text = page.read_text()
        wanted = mark.sub(replacement, text)
        if wanted != text and options.check:
            stale.append(page.name)
        elif wanted != text:
            page.write_text(wanted)
    if stale:
        sys.exit(f"stale, write again with docs/results/make_tables.py: {', '.join(stale)}")
    if written != TABLES.keys():
        sys.exit(f"no page has the tables {', '.join(TABLES.keys() - written)}")


if __name__ == "__main__":
    main()
