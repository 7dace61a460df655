"""What docs/results/ stores, as the figures and tables read it."""
import csv
import json
import pathlib
import statistics

RESULTS = pathlib.Path(__file__).resolve().parent
ENGINES = {  # of bench/compare
    "lazyllm": "lazyllm, dense", "lazyllm-auto": "lazyllm, `--prune auto`", "openvino": "OpenVINO GenAI", "llama.cpp": "llama.cpp",
}
POLICIES = {  # of docs/results/policies: what each is
    "none": "dense", "safe": "LazyLLM, `safe`", "auto": "LazyLLM, `auto`", "fast": "LazyLLM, `fast`",
    "random=0.44min270": "random tokens", "static_pruning=3:0.36min245": "static pruning",
    "gem_filter=7:0.17min140/max^24max~15": "GemFilter", "fast_kv=7:0.23min195": "FastKV",
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
