#!/usr/bin/env python3
"""lazyllm beside OpenVINO GenAI and llama.cpp: the same GGUF file, in turns, one table.

    pip install openvino-genai openvino-tokenizers llama-cpp-python     # what is missing is left out, and said
    python3 bench/compare/compare.py MODEL.gguf --lazyllm build/release/bin/lazyllm -o RESULTS.json

A round runs each peer once, in a process of its own: it loads the model, runs 512 tokens to warm up, then each prompt
once and each depth once, with random token ids that no round repeats; and `lazyllm bench`, dense and pruned. The table
has the medians over the rounds. Prefill is the time to the first token; decode is the 64 tokens after it, the context's
own time not counted: llama.cpp's by the clock, OpenVINO GenAI's by its own metrics (time per output token).
Memory is the process's highest. Beside the times to load stands that of one thread's read() of the file into a fresh
buffer. RESULTS.json keeps every number.
"""
import argparse
import json
import mmap
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

WARM_UP = 512
DECODED = 64
ENGINES = {"lazyllm": "lazyllm, dense", "lazyllm-auto": "lazyllm, --prune auto", "openvino": "OpenVINO GenAI",
           "llama.cpp": "llama.cpp"}


class OpenVino:
    def __init__(self, model, context, threads):
        import numpy
        import openvino
        import openvino_genai
        self.numpy, self.openvino, self.genai = numpy, openvino, openvino_genai
        self.pipeline = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)

    def run(self, ids, new_tokens):
        """Seconds of each token after the first."""
        config = self.genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = new_tokens
        config.ignore_eos = True
        config.do_sample = False
        row = self.numpy.array([ids], dtype=self.numpy.int64)
        result = self.pipeline.generate(
            self.genai.TokenizedInputs(self.openvino.Tensor(row), self.openvino.Tensor(self.numpy.ones_like(row))), config)
        return result.perf_metrics.get_tpot().mean / 1000


class LlamaCpp:
    def __init__(self, model, context, threads):
        import llama_cpp
        self.llama = llama_cpp.Llama(model, n_ctx=context, n_batch=512, n_threads=threads, n_threads_batch=threads,
                                     flash_attn=True, verbose=False)

    def run(self, ids, new_tokens):
        self.llama.reset()
        self.llama.eval(ids)
        begin = time.perf_counter()
        for _ in range(new_tokens - 1):
            self.llama.eval([int(self.llama.sample(temp=0.0))])
        return (time.perf_counter() - begin) / max(new_tokens - 1, 1)


def measure_in_process(engine, options):
    """A worker of Python: prints {"load_s", "prefill", "decode", "peak_rss_bytes"}."""
    start = time.perf_counter()
    peer = {"openvino": OpenVino, "llama.cpp": LlamaCpp}[engine](
        options.model, max(options.prompt + options.depth + [WARM_UP]) + DECODED + 8, options.threads)
    result = {"load_s": time.perf_counter() - start, "prefill": {}, "decode": {}}
    generator = random.Random(options.seed)

    def random_ids(count):
        return [generator.randrange(100, options.vocabulary) for _ in range(count)]

    peer.run(random_ids(WARM_UP), 2)
    for count in options.prompt:
        ids = random_ids(count)
        begin = time.perf_counter()
        peer.run(ids, 1)
        result["prefill"][count] = count / (time.perf_counter() - begin)
    for depth in options.depth:
        result["decode"][depth] = 1 / peer.run(random_ids(depth), DECODED + 1)
    result["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    json.dump(result, sys.stdout)


def measure_lazyllm(options, seed):
    """Both of lazyllm's rows: `lazyllm bench` has the dense and the pruned session in one process."""
    prune = ["--prune", "auto"]
    rows = json.loads(subprocess.run(
        [options.lazyllm, "bench", "-m", options.model, "-t", str(options.threads), "-r", "1", "-o", "json", "-n", str(DECODED),
         "-p", ",".join(map(str, options.prompt)), "-d", ",".join(map(str, options.depth))] + prune,
        check=True, stdout=subprocess.PIPE).stdout)
    results = {}
    for engine in ("lazyllm", "lazyllm-auto"):
        own = [row for row in rows if (row["prune"] == "none") == (engine == "lazyllm")]
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(random.Random(seed).sample(range(100, options.vocabulary), max(options.prompt)), file)
            file.flush()
            begin = time.perf_counter()
            one = json.loads(subprocess.run(
                [options.lazyllm, "generate", "-m", options.model, "--ids", file.name, "-n", "1", "--json", "-t",
                 str(options.threads)] + (prune if engine != "lazyllm" else []),
                check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
            whole = time.perf_counter() - begin
        results[engine] = {
            "load_s": whole - one["ttft_ms"] / 1000,
            "prefill": {row["tokens"]: row["median_tokens_per_s"] for row in own if row["kind"] == "prefill"},
            "decode": {row["depth"]: row["median_tokens_per_s"] for row in own if row["kind"] == "decode"},
            "peak_rss_bytes": one["peak_rss_bytes"],
        }
    return results, rows[0]["isa"]


def measure_peer(engine, options, seed):
    command = [sys.executable, __file__, options.model, "--worker", engine, "--seed", str(seed), "--threads",
               str(options.threads), "--vocabulary", str(options.vocabulary), "--prompt"] + [str(n) for n in options.prompt]
    command += ["--depth"] + [str(n) for n in options.depth]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{engine} failed with status {done.returncode}: {' '.join(command)}\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout[done.stdout.rindex('{"load_s"'):])
    return {**result, **{kind: {int(n): v for n, v in result[kind].items()} for kind in ("prefill", "decode")}}


def measure_read(path):
    """Seconds of one read() of a file that is in the page cache, into memory that was not touched before."""
    with open(path, "rb", buffering=0) as file, mmap.mmap(
            -1, os.path.getsize(path), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        begin = time.perf_counter()
        view = memoryview(memory)
        count = 0
        while count < len(view):  # Linux reads 2 GB at most
            count += file.readinto(view[count:])
        view.release()
        return time.perf_counter() - begin


def version_of(engine):
    """The version of a peer that is installed, else None."""
    package, name = {"openvino": ("openvino_genai", "openvino-genai"), "llama.cpp": ("llama_cpp", "llama-cpp-python")}[engine]
    code = f"import {package}, importlib.metadata as m; print(m.version('{name}'))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.split()[-1] if done.returncode == 0 else None


def summary(results, read_s, options):
    """The medians: rows as a Markdown table would have them."""
    engines = list(results)
    median = lambda values: statistics.median(list(values))
    rows = [[""] + [ENGINES[e] for e in engines]]
    for kind, counts in (("prefill", options.prompt), ("decode", options.depth)):
        for count in counts:
            name = f"prefill {count:,}, tokens/s" if kind == "prefill" else f"decode after {count:,}, tokens/s"
            rows.append([name] + [f"{median(r[kind][count] for r in results[e]):,.0f}" for e in engines])
    rows.append(["peak memory, MB"] + [f"{median(r['peak_rss_bytes'] for r in results[e]) / 1e6:,.0f}" for e in engines])
    rows.append(["load, s"] + [f"{median(r['load_s'] for r in results[e]):.2f}" for e in engines])
    rows.append([f"(one read() of the file: {median(read_s):.2f} s)"] + [""] * len(engines))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--lazyllm", help="the program, of a release build")
    parser.add_argument("--prompt", type=int, nargs="+", default=[512, 2048, 4096, 7600])
    parser.add_argument("--depth", type=int, nargs="+", default=[16, 4096])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="*", choices=["openvino", "llama.cpp"], default=["openvino", "llama.cpp"])
    parser.add_argument("--vocabulary", type=int, default=40000, help="ids are drawn below this")
    parser.add_argument("-o", "--output", help="a JSON file for every number")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return measure_in_process(options.worker, options)
    if not options.lazyllm:
        parser.error("--lazyllm PROGRAM is missing")

    versions = {engine: version_of(engine) for engine in options.peers}
    for engine, version in versions.items():
        if version is None:
            print(f"{ENGINES[engine]} is not installed: left out", file=sys.stderr)
    peers = [engine for engine, version in versions.items() if version is not None]
    results = {engine: [] for engine in ["lazyllm", "lazyllm-auto"] + peers}
    read_s = []
    for n in range(options.rounds):
        print(f"round {n + 1} of {options.rounds}", file=sys.stderr)
        read_s.append(measure_read(options.model))
        own, isa = measure_lazyllm(options, options.seed + n)
        for engine, result in own.items():
            results[engine].append(result)
        for engine in peers:
            results[engine].append(measure_peer(engine, options, options.seed + n))

    rows = summary(results, read_s, options)
    for i, row in enumerate(rows):
        print("| " + " | ".join(row) + " |")
        if i == 0:
            print("|" + "---|" * len(row))
    if options.output:
        with open(options.output, "w") as file:
            json.dump({"model": os.path.basename(options.model), "threads": options.threads, "isa": isa, "date": time.strftime("%Y-%m-%d"),
                       "machine": platform.machine(), "versions": versions, "read_s": read_s, "rounds": results}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
