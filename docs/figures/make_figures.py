#!/usr/bin/env python3
"""Draws docs/figures/*.svg from docs/results/: each figure light and dark.

    docs/figures/make_figures.py            writes them
    docs/figures/make_figures.py --check    fails when one differs from what is stored (exit 1), or prints why it cannot
                                            tell: matplotlib is missing or of another version (exit 0, "skipped: ...")
"""
import argparse
import io
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "results"))
from stored import ENGINES, POLICIES, answers, load, median  # noqa: E402

MATPLOTLIB = "3.6.3"  # another version draws the same with other bytes
STYLES = {  # of bench/compare's programs: colour light, dark, marker
    "lazyllm-auto": ("#c0561f", "#f0904f", "o"),
    "lazyllm": ("#2a78b5", "#5aa6e0", "s"),
    "openvino": ("#6b7280", "#a8b0bb", "^"),
    "llama.cpp": ("#8a6d3b", "#c9b27c", "v"),
}
# SmolLM2-135M: hidden 576, K and V 192, FFN 1,536; 9 heads of 64.
LINEAR_MACS = 2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536  # a row and layer
ATTENTION_MACS = 2 * 9 * 64  # a row, layer and key
THEMES = {"light": {"text": "#333333", "grid": "#d9dcdf", "low": "#eef2f6", "high": "#2a78b5"},
          "dark": {"text": "#dddddd", "grid": "#4a4f55", "low": "#22272e", "high": "#5aa6e0"}}


def of_engine(engine, theme):
    light, dark, marker = STYLES[engine]
    return {"label": ENGINES[engine].replace("`", ""), "color": light if theme == "light" else dark, "marker": marker}


def median_prefill(compare, engine):
    """Tokens per second by prompt length."""
    lengths = compare["rounds"][engine][0]["prefill"]
    return {int(n): median(compare, engine, lambda r, n=n: r["prefill"][n]) for n in lengths}


def ttft(axes, theme):
    compare = load("compare.json")
    for engine in compare["rounds"]:
        rates = median_prefill(compare, engine)
        axes.plot(list(rates), [n / rate for n, rate in rates.items()], linewidth=2, **of_engine(engine, theme))
    axes.set_title(f"Time to first token: SmolLM2-135M Q4_1, {compare['threads']} threads, {compare['isa']}", loc="left")
    axes.set_xlabel("prompt, tokens")
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, labelcolor=THEMES[theme]["text"])


def speed_up(axes, theme):
    """What pruning gains over our own dense prefill, beside what its counted operations promise (those of attention take longer)."""
    compare, trace = load("compare.json"), load("trace.json")
    dense, pruned = (median_prefill(compare, engine) for engine in ("lazyllm", "lazyllm-auto"))
    lengths = sorted(dense)
    axes.plot(lengths, [pruned[n] / dense[n] for n in lengths], linewidth=2, **of_engine("lazyllm-auto", theme))
    bound = [operations([n] * trace["layers"]) / operations(rows_by_layer(trace, n)) for n in lengths]
    axes.plot(lengths, bound, linewidth=2, linestyle="--", color=THEMES[theme]["text"],
              label="by counted multiply-adds")
    axes.set_title(f"Speed-up of a prefill by --prune {trace['prune']}", loc="left")
    axes.set_xlabel("prompt, tokens")
    axes.set_ylabel("times the dense prefill")
    axes.set_ylim(bottom=1)
    axes.legend(frameon=False, labelcolor=THEMES[theme]["text"])


def rows_by_layer(trace, tokens):
    """Rows of each layer of a prompt of `tokens`, if each selection keeps the share that it keeps in the trace."""
    rows, entering = [], tokens
    for layer in range(trace["layers"]):
        rows.append(entering)
        if str(layer) in trace["kept"]:
            entering = min(entering, len(trace["kept"][str(layer)]) * tokens / trace["tokens"])
    return rows


def operations(rows):
    """Multiply-adds of a prefill: the linear part and, over the keys before each row, attention."""
    return sum(count * LINEAR_MACS + count * (count + 1) / 2 * ATTENTION_MACS for count in rows)


def kept(axes, theme):
    """Where in a document the tokens lie that are computed at each layer."""
    from matplotlib.colors import LinearSegmentedColormap
    trace = load("trace.json")
    columns = 120
    share, entering = [], range(trace["tokens"])
    for layer in range(trace["layers"]):
        counts = [0.0] * columns
        for token in entering:
            counts[token * columns // trace["tokens"]] += columns / trace["tokens"]
        share.append([min(1.0, c) for c in counts])
        entering = trace["kept"].get(str(layer), entering)
    colours = LinearSegmentedColormap.from_list("kept", [THEMES[theme]["low"], THEMES[theme]["high"]])
    axes.grid(False)
    axes.imshow(share, cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation="nearest",
                extent=(0, columns, trace["layers"], 0))
    axes.axvline(trace["answer_at"] * columns / trace["tokens"], color=of_engine("lazyllm-auto", theme)["color"], linewidth=1.5)
    axes.set_xticks([0, columns / 4, columns / 2, columns * 3 / 4, columns])
    axes.set_xticklabels([f"{trace['tokens'] * i // 4:,}" for i in range(5)])
    axes.set_title(f"Tokens computed at each layer: --prune {trace['prune']}; line: the asked fact", loc="left")
    axes.set_xlabel("position in the prompt, tokens")
    axes.set_ylabel("layer")


def quality(axes, theme):
    """Right answers against speed-up of every policy that docs/results/policies compares."""
    by_policy = answers("policies")["all"]
    labels = []
    for policy, name in POLICIES.items():
        row = by_policy[policy]
        share, low, high = (float(row[column]) for column in ("share", "right_low", "right_high"))
        colour = of_engine("lazyllm-auto" if name.startswith("LazyLLM") else "lazyllm", theme)["color"]
        axes.errorbar([float(row["speed_up"])], [share], yerr=[[share - low], [high - share]], fmt="o", color=colour,
                      elinewidth=1, capsize=2)
        beneath = sum(abs(float(row["speed_up"]) - x) < 0.1 and abs(share - y) < 0.02 for x, y in labels)
        labels.append((float(row["speed_up"]), share))
        axes.annotate(name.replace("`", ""), labels[-1], xytext=(6, -9 * beneath), va="center",
                      textcoords="offset points", fontsize=7, color=THEMES[theme]["text"])
    axes.set_title(f"Right answers against speed-up of the first token, {int(by_policy['none']['n']):,} items (95 % intervals)",
                   loc="left")
    axes.set_xlabel("times lower time to the first token than dense")
    axes.set_ylabel("share of items answered rightly")
    axes.set_ylim(0, 1)
    axes.margins(x=0.25)


FIGURES = {"ttft": ttft, "speed_up": speed_up, "kept": kept, "quality": quality}


def draw(figure, theme):
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plot
    colours = THEMES[theme]
    style = {"svg.hashsalt": figure, "svg.fonttype": "none", "font.size": 9, "axes.titlesize": 10, "axes.spines.top": False,
             "axes.spines.right": False, "axes.grid": True, "grid.color": colours["grid"], "text.color": colours["text"],
             "axes.labelcolor": colours["text"], "axes.edgecolor": colours["text"], "xtick.color": colours["text"],
             "ytick.color": colours["text"], "axes.facecolor": "none", "figure.facecolor": "none"}
    with plot.rc_context(style):
        page, axes = plot.subplots(figsize=(7.2, 3.6), layout="constrained")
        FIGURES[figure](axes, theme)
        text = io.StringIO()
        page.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        plot.close(page)
    return text.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    try:
        import matplotlib
        found = matplotlib.__version__
    except ImportError:
        found = "none"
    if found != MATPLOTLIB:
        if not options.check:
            sys.exit(f"matplotlib {MATPLOTLIB} is needed, found: {found}")
        print(f"skipped: matplotlib {MATPLOTLIB} is needed, found: {found}")
        return
    stale = []
    for figure in FIGURES:
        for theme in THEMES:
            path = HERE / f"{figure}-{theme}.svg"
            text = draw(figure, theme)
            if not options.check:
                path.write_text(text)
            elif not path.exists() or path.read_text() != text:
                stale.append(path.name)
    if stale:
        sys.exit(f"stale, draw again with docs/figures/make_figures.py: {', '.join(stale)}")


if __name__ == "__main__":
    main()
