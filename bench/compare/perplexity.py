#!/usr/bin/env python3
"""Perplexity and KL divergence as lazyllm and llama.cpp report them: the same text, file and chunks, one table.

    pip install llama-cpp-python numpy
    python3 bench/compare/perplexity.py MODEL.gguf TEXT --lazyllm build/release/bin/lazyllm

llama.cpp makes a second file of the model, in Q4_0; the divergence is that of the second file's model from the first's,
mean over the scored positions: the second half of each whole chunk, each chunk a context of its own.
"""
import argparse
import ctypes
import json
import math
import pathlib
import subprocess
import tempfile

import llama_cpp
import numpy

Q4_0 = 2  # llama_ftype


def requantise(model, to):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.allow_requantize = Q4_0, True
    if llama_cpp.llama_model_quantize(str(model).encode(), str(to).encode(), ctypes.byref(parameters)) != 0:
        raise SystemExit(f"llama.cpp could not quantise {model}")


def log_softmax(logits):
    shifted = logits.astype(numpy.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - numpy.log(numpy.exp(shifted).sum(axis=-1, keepdims=True))


def llama_cpp_rows(model, text, options):
    """Log-probabilities [scored, vocabulary] and the tokens that followed."""
    llama = llama_cpp.Llama(str(model), n_ctx=options.context, n_batch=options.context, logits_all=True, verbose=False)
    ids = llama.tokenize(text, add_bos=False, special=False)
    rows, following = [], []
    for chunk in range(options.chunks):
        part = ids[chunk * options.context:(chunk + 1) * options.context]
        if len(part) < options.context:
            raise SystemExit(f"the text has {len(ids)} tokens, fewer than {options.chunks} chunks of {options.context}")
        llama.reset()
        llama.eval(part)
        first = options.context // 2
        rows.append(log_softmax(llama.scores[first:options.context - 1]))
        following += part[first + 1:]
    return numpy.concatenate(rows), following


def perplexity(rows, following):
    return math.exp(-sum(row[token] for row, token in zip(rows, following)) / len(following))


def lazyllm(model, options, *more):
    command = [options.lazyllm, "perplexity", "-m", model, "-f", options.text, "-c", str(options.context), "--chunks",
               str(options.chunks), "--json", *more]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--lazyllm", required=True, help="the program, of a release build")
    parser.add_argument("-c", "--context", type=int, default=512, help="tokens of a chunk")
    parser.add_argument("--chunks", type=int, default=6)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as directory:
        other, base = pathlib.Path(directory) / "q4_0.gguf", pathlib.Path(directory) / "base"
        requantise(options.model, other)
        text = pathlib.Path(options.text).read_bytes()
        rows, following = llama_cpp_rows(options.model, text, options)
        other_rows, _ = llama_cpp_rows(other, text, options)
        theirs = [perplexity(rows, following), perplexity(other_rows, following),
                  float((numpy.exp(rows) * (rows - other_rows)).sum(axis=-1).mean())]
        first = lazyllm(options.model, options, "--save-base", str(base))
        second = lazyllm(str(other), options, "--base", str(base))
    ours = [first["perplexity"], second["perplexity"], second["kl_mean"]]
    assert first["scored_tokens"] == len(following), (first["scored_tokens"], len(following))
    print(f"| {options.chunks} chunks of {options.context} tokens | lazyllm, {first['isa']} | llama.cpp | ratio |\n|---|---|---|---|")
    for what, own, their in zip(("perplexity", "perplexity in Q4_0", "KL(file || Q4_0), mean"), ours, theirs):
        print(f"| {what} | {own:.4f} | {their:.4f} | {own / their:.4f} |")


if __name__ == "__main__":
    main()
