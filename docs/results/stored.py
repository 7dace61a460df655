"""What docs/results/ stores, as the figures and tables read it."""
import csv
import functools
import json
import math
import pathlib
import statistics

RESULTS = pathlib.Path(__file__).resolve().parent
ENGINES = {  # of bench/compare
    "lazyllm": "lazyllm, dense", "lazyllm-auto": "lazyllm, `--prune auto`", "openvino": "OpenVINO GenAI", "llama.cpp": "llama.cpp",
}
POLICIES = {  # of docs/results/policies: what each is
    "none": "dense", "safe": "LazyLLM, `safe`", "auto": "LazyLLM, `auto`", "fast": "LazyLLM, `fast`",
    "random=0.44min270": "random tokens", "static_pruning=3:0.36min245": "static pruning",
    "gem_filter=7:0.2min165/mean~5mean": "GemFilter", "gem_filter=7:0.17min140/max^24max~15": "GemFilter, our score",
    "fast_kv=7:0.23min195": "FastKV",
    "none+snapkv:0.25": "SnapKV (an eviction)", "none+window:4,252": "StreamingLLM (an eviction)",
    "none+tova:0.25": "TOVA (an eviction)", "none+h2o:0.25": "H2O (an eviction)", "none+vatp:0.25": "VATP (an eviction)",
}


def load(name):
    return json.loads((RESULTS / name).read_text())


def median(compare, engine, value):
    """Over the rounds of a run of bench/compare; value(round)."""
    return statistics.median(value(r) for r in compare["rounds"][engine])


def answers(run):
    """Of a run of `lazyllm eval`: {task: {policy: row of its table.csv}}, over all lengths; the task "all" has all that have
    answers. The row's "right" is a count; "share" is what right_low and right_high are about."""
    tasks = {}
    with (RESULTS / run / "table.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["length"] == "all":
                row["share"] = int(row["right"]) / int(row["n"])
                tasks.setdefault(row["task"], {})[row["policy"]] = row
    return tasks


@functools.cache
def items(run):
    """The records of a run of `lazyllm eval` as {(task, length, depth, item): {policy: record}}."""
    found = {}
    with (RESULTS / run / "records.jsonl").open() as file:
        next(file)  # what the run was
        for record in map(json.loads, file):
            key = tuple(record[name] for name in ("task", "length", "depth", "item"))
            found.setdefault(key, {})[record["policy"]] = record
    return found


def sure(run, task, policy):
    """Of a run of `lazyllm eval` the items that the dense model has right and is sure of (more than -0.2 a token), and how
    many of them the policy has right."""
    right = [of[policy]["right"] for (name, *_), of in items(run).items()
             if name == task and of["none"]["right"] and of["none"]["log_probability"] > -0.2 * of["none"]["answer_tokens"]]
    return len(right), sum(right)


def differences(run, ours):
    """Of a run of `lazyllm eval`: {policy: {task: (share of the items that `ours` has right and the policy has not, minus
    the other way round, and both ends of its 95 % interval)}}; the task "all" has all. The interval is
    that of matched pairs: Agresti and Min, Statistics in Medicine 24, 2005, a half added to each of the four counts."""
    counts = {}
    for key, of in items(run).items():
        for policy in of:
            for task in (key[0], "all"):
                n, gained, lost = counts.setdefault(policy, {}).get(task, (0, 0, 0))
                gain = of[ours]["right"] - of[policy]["right"]
                counts[policy][task] = (n + 1, gained + (gain > 0), lost + (gain < 0))

    def difference(n, gained, lost):
        share = (gained - lost) / (n + 2)
        reach = 1.96 * math.sqrt((gained + lost + 1) / (n + 2) ** 2 - share ** 2 / (n + 2))
        return share, share - reach, share + reach

    return {policy: {task: difference(*c) for task, c in of.items()} for policy, of in counts.items()}
