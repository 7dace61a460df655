#!/usr/bin/env python3
"""Makes tests/data/llama_golden/*.bin: what torch says about the next token, for KL(torch || ours).

    pip install torch transformers accelerate gguf numpy jinja2
    apt install bible-kjv                       # the English text (public domain)
    make_llama_golden.py SmolLM2-135M-Instruct.Q4_1.gguf OUT_DIR

The model is loaded by transformers from the GGUF file, its weights dequantised to float32. Before anything is run every
tensor is compared with the gguf package's dequantisation, bit for bit (q and k rows after undoing the permutation that
GGUF files of this architecture carry; the embedding is tied and stored as Q8_0).

Prompts (16 to 2,000 tokens; the files hold the ids, so nothing of this is needed to run the tests): verses of the King
James Bible; source code of Python 3.11's standard library; chat-formatted questions, one over a document; uniformly
random ids. For the last 64 positions of a prompt (all of a shorter one) the file holds

  * the top 64 tokens with their log-probabilities: what they add to the KL is exact,
  * the probability mass P of all other tokens, the tail, and 32 tokens drawn from it in proportion to p.

With r = q / p, KL = sum_top p (log p - log q) + P * E_tail[r - 1 - log r] + P - Q, where Q, the mass that the other
model gives to the tail, is 1 - sum_top q. Every term of the mean is >= 0, so the estimate never turns negative where
it matters; its expectation is the exact KL. The draw is systematic: the tail sorted by probability, its cumulative mass
cut at 32 equally spaced points with one random offset.

How exact it is, measured by this script (printed at its end) against the KL over the full distributions, with q from
the same model whose matrix inputs are rounded to 8 bits per block of 32 and with random logit noise:

  q                     positions  exact mean / p99 / max         estimated mean / p99 / max     error of a position
  8-bit matrix inputs   1304       0.004013 / 0.02829 / 0.08727   0.004013 / 0.02857 / 0.08673   rms 4.7e-4, max 4.3e-3
  logit noise, sd 0.1   1304       0.003403 / 0.01034 / 0.02040   0.003395 / 0.01020 / 0.02024   rms 3.5e-4, max 2.5e-3

So the mean is known to about 1e-5 (rms / sqrt(1304)), p99 and the largest to about 1 %. The 8-bit run has torch's top
token at all 881 positions whose margin is over 0.5. Its mean by prompt lies between 0.0005 (1,500 tokens of code) and
0.012 (16 random ids); 0.002 to 0.003 for 256 and more tokens of English.

Files, little endian, no padding:
  char[8]  "LLGOLD01"
  u32      vocabulary size, tokens T, positions N (the last N of the prompt), top K, tail samples S
  u16[T]   token ids of the prompt
  N times: f32[K] log p of the top tokens, descending     u16[K] their ids
           f32    log of the tail's mass P                f32[S] log p of the tail samples     u16[S] their ids
torch's top token is the first id; the margin of its two best logits is the difference of the first two log p.
"""

import argparse
import pathlib
import re
import struct
import subprocess

import gguf
import numpy as np
import torch
import transformers

POSITIONS, TOP, TAIL = 64, 64, 32
BIBLE = [(16, "ps23:1-6"), (32, "ec3:1-12"), (64, "mt5:1-20"), (128, "gen1:1-20"), (256, "ruth1:1-22"),
         (512, "jonah1:1-4:11"), (1024, "1sam17:1-58"), (2000, "gen6:1-12:20")]
CODE = [(24, "bisect.py"), (100, "sched.py"), (300, "queue.py"), (700, "heapq.py"), (1500, "textwrap.py")]
RANDOM = [16, 64, 200, 600]
CHAT = [  # long enough that the last 64 positions do not reach back to the system message that all of them share
    "I am planning a weekend in Paris with two children, six and nine years old. They like animals, trains and ice "
    "cream, and they get tired after two hours of walking. What should we see, in which order, and what could we do "
    "if it rains on one of the days?",
    "Write a short poem about the sea in winter, in four verses of four lines. It should mention a lighthouse, a "
    "fisherman's wife who waits, and a storm that passes in the end. Please do not use the word 'cold', and let the "
    "last line repeat the first one.",
    "Explain to a ten year old why the sky is blue, and why it turns red in the evening. Use a comparison with "
    "something from everyday life, avoid difficult words, and finish with one small experiment that can be done at "
    "home with a glass of water, a torch and a little milk.",
    "A train leaves the first station at 9:40 and arrives at the last one at 13:05. On the way it stops twice for six "
    "minutes and once for eleven minutes, and it waits four minutes at a signal. How long does it move, and how fast "
    "is it on average if the line is 212 kilometres long?",
    "def mean(values):\n    total = 0\n    for v in values:\n        total += v\n    return total / len(values)\n\n"
    "This Python function fails for an empty list, and it is slow for long ones. Rewrite it so that it returns None "
    "for an empty list, and add type hints and a docstring with one example.",
]


def bible(verses):
    """The text of a range of verses without the verse numbers."""
    lines = subprocess.run(["bible", "-f", verses], check=True, capture_output=True, text=True).stdout.splitlines()
    return " ".join(re.sub(r"^\S+?\d+:\d+\s+", "", line).strip() for line in lines if line.strip())


def prompts(tokenizer, vocab_size):
    """(name, ids) of every prompt."""
    def chat(question):
        text = tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False,
                                             add_generation_prompt=True)
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    def cut(name, text, length):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) < length:
            raise SystemExit(f"{name}: {len(ids)} tokens, {length} wanted")
        return f"{name}_{length:04}", ids[:length]

    for length, verses in BIBLE:
        yield cut("bible", bible(verses), length)
    for length, module in CODE:
        yield cut("code", pathlib.Path("/usr/lib/python3.11", module).read_text(), length)
    for i, question in enumerate(CHAT):
        ids = chat(question)
        yield f"chat{i}_{len(ids):04}", ids
    document = " ".join(bible("jonah1:1-4:11").split()[:900])
    ids = chat(f"{document}\n\nAccording to the text above, where did Jonah want to flee to, and how?")
    yield f"chat_document_{len(ids):04}", ids
    generator = np.random.default_rng(20240714)
    for length in RANDOM:
        yield f"random_{length:04}", [int(i) for i in generator.integers(0, vocab_size, length)]


def check_weights(model, path):
    """Every weight that torch uses equals gguf's dequantisation of the file, bit for bit."""
    state = model.state_dict()
    config = model.config
    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
             "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
             "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    seen = set()
    for tensor in gguf.GGUFReader(path).tensors:
        want = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(tuple(int(n) for n in tensor.shape)[::-1])
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            kind = parts[2]
            if kind in heads:  # stored as neighbours (x[2i], x[2i+1]); torch pairs the halves (x[i], x[i + d/2])
                rows, cols = want.shape
                want = want.reshape(heads[kind], rows // heads[kind] // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)
            name = f"model.layers.{parts[1]}.{names[kind]}.weight"
        else:
            name = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight",
                    "output": "lm_head.weight"}[parts[0]]
        got = state[name].numpy()
        if got.dtype != np.float32 or not np.array_equal(got, want.astype(np.float32)):
            raise SystemExit(f"{name} differs from {tensor.name}: {np.abs(got - want).max()}")
        seen.add(name)
    if not np.array_equal(state["lm_head.weight"].numpy(), state["model.embed_tokens.weight"].numpy()):
        raise SystemExit("the head is not tied")
    missing = set(state) - seen - {"lm_head.weight"}
    if missing:
        raise SystemExit(f"not in the file: {missing}")
    print(f"{len(seen)} tensors equal gguf's dequantisation; config: theta {config.rope_parameters['rope_theta']}, "
          f"eps {config.rms_norm_eps}")


def eight_bit_inputs(model):
    """Rounds the input of every matrix product to int8 per block of 32, as integer kernels do; returns the hooks."""
    def rounded(module, args):
        x = args[0]
        blocks = x.reshape(*x.shape[:-1], -1, 32)
        scale = blocks.abs().amax(-1, keepdim=True) / 127
        return ((blocks / scale.clamp_min(1e-30)).round() * scale).reshape(x.shape),
    return [m.register_forward_pre_hook(rounded) for m in model.modules() if isinstance(m, torch.nn.Linear)]


def log_probs(model, ids):
    """Log-probabilities of the last positions [n, vocab] in double."""
    with torch.inference_mode():
        n = min(POSITIONS, len(ids))
        logits = model(torch.tensor([ids]), use_cache=False, logits_to_keep=n).logits[0]
    return torch.log_softmax(logits.double(), -1).numpy()


def golden_position(log_p, generator):
    """(top log p, top ids, log P, sample log p, sample ids) of one position."""
    order = np.argsort(-log_p, kind="stable")
    top, tail = order[:TOP], order[TOP:]
    p = np.exp(log_p[tail])
    cumulative = np.cumsum(p)
    points = (np.arange(TAIL) + generator.random()) * cumulative[-1] / TAIL
    samples = tail[np.minimum(np.searchsorted(cumulative, points, side="right"), tail.size - 1)]
    return (log_p[top].astype("<f4"), top.astype("<u2"), np.float32(np.log(cumulative[-1])),
            log_p[samples].astype("<f4"), samples.astype("<u2"))


def estimate(position, log_q):
    """KL(p || q) from what a file holds; log_q [vocab]. The same formula as tests/support/golden_kl.hpp."""
    top_lp, top, log_tail, sample_lp, samples = position
    top_lp = top_lp.astype(np.float64)
    kl = np.sum(np.exp(top_lp) * (top_lp - log_q[top]))
    log_r = log_q[samples] - sample_lp.astype(np.float64)
    tail_p = np.exp(np.float64(log_tail))
    return kl + tail_p * np.mean(np.expm1(log_r) - log_r) + tail_p - (1 - np.sum(np.exp(log_q[top])))


def write(path, vocab_size, ids, positions):
    with open(path, "wb") as out:
        out.write(b"LLGOLD01" + struct.pack("<5I", vocab_size, len(ids), len(positions), TOP, TAIL))
        out.write(np.array(ids, dtype="<u2").tobytes())
        for top_lp, top, log_tail, sample_lp, samples in positions:
            out.write(top_lp.tobytes() + top.tobytes() + np.float32(log_tail).astype("<f4").tobytes() +
                      sample_lp.tobytes() + samples.tobytes())


def report(title, exact, estimated):
    exact, estimated = np.array(exact), np.array(estimated)
    error = estimated - exact
    print(f"{title}: {exact.size} positions, exact mean {exact.mean():.6f} p99 {np.quantile(exact, .99):.5f} "
          f"max {exact.max():.5f}; estimated mean {estimated.mean():.6f} p99 {np.quantile(estimated, .99):.5f} "
          f"max {estimated.max():.5f}; error per position rms {np.sqrt(np.mean(error ** 2)):.2e} "
          f"largest {np.abs(error).max():.2e}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model", type=pathlib.Path)
    arguments.add_argument("out", type=pathlib.Path)
    arguments = arguments.parse_args()

    model = transformers.AutoModelForCausalLM.from_pretrained(
        arguments.model.parent, gguf_file=arguments.model.name, dtype=torch.float32, attn_implementation="sdpa").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model.parent, gguf_file=arguments.model.name)
    check_weights(model, arguments.model)
    vocab_size = model.config.vocab_size
    arguments.out.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(64)
    exact, estimated, noisy_exact, noisy_estimated, agree, clear = [], [], [], [], 0, 0
    for name, ids in prompts(tokenizer, vocab_size):
        log_p = log_probs(model, ids)
        hooks = eight_bit_inputs(model)
        log_q = log_probs(model, ids)
        for hook in hooks:
            hook.remove()
        positions = [golden_position(row, generator) for row in log_p]
        write(arguments.out / f"{name}.bin", vocab_size, ids, positions)
        first = len(exact)
        for p, q, position in zip(log_p, log_q, positions):
            exact.append(np.sum(np.exp(p) * (p - q)))
            estimated.append(estimate(position, q))
            if position[0][0] - position[0][1] > 0.5:
                clear += 1
                agree += int(np.argmax(q) == position[1][0])
            noise = p + generator.normal(0, 0.1, p.size)
            noise -= np.logaddexp.reduce(noise)
            noisy_exact.append(np.sum(np.exp(p) * (p - noise)))
            noisy_estimated.append(estimate(position, noise))
        print(f"{name}: {len(ids)} tokens, 8-bit KL mean {np.mean(exact[first:]):.5f} (estimated "
              f"{np.mean(estimated[first:]):.5f}) max {np.max(exact[first:]):.5f}", flush=True)
    report("8-bit inputs", exact, estimated)
    report("logit noise 0.1", noisy_exact, noisy_estimated)
    print(f"8-bit inputs: same top token at {agree} of {clear} positions whose margin is over 0.5")
    print(f"{sum(f.stat().st_size for f in arguments.out.glob('*.bin'))} bytes")


if __name__ == "__main__":
    main()
