#!/usr/bin/env python3
"""Writes tests/data/tokenizer_corpus.json and tokenizer_golden.json with the PyPI packages `tokenizers` and `gguf`.

The corpus is generated: words of every script, all white space, numbers, emoji, code, contractions, random mixtures.
Every expected list of numbers (ids, or sizes of pre-tokens in bytes) is stored as its 32-bit FNV-1a hash, the ids of
the first texts in full. No vocabulary is stored: ids of the real model need that model to be checked; the synthetic
vocabulary is trained here on the corpus itself.
Usage: make_tokenizer_golden.py SMOLLM2.gguf OUTPUT_FOLDER
"""
import json
import pathlib
import random
import sys
import unicodedata

from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers

from make_unicode_tables import class_of_every_code_point

LLAMA = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
         r"\s+(?!\S)|\s+")
BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
PRE_TOKENIZERS = {
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2]),
    "gpt-2": GPT2,
    "llama-bpe": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA % "{1,3}"), "isolated"), BYTE_LEVEL]),
    "qwen2": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA % ""), "isolated"), BYTE_LEVEL]),
}
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|endo", "<|im_x"]
USER_DEFINED = ["<tool>", "<tool>>"]
WHOLE_WORDS = ["Ġthe\u010athe", "Ġspaceship", "!!!?"]  # in the vocabulary, out of reach for the merges

SPACES = ["\t", "\n", "\v", "\f", "\r", " ", "\x85", "\xa0", "\u1680", *map(chr, range(0x2000, 0x200b)), "\u2028",
          "\u2029", "\u202f", "\u205f", "\u3000"]
NO_SPACES = ["\x1c", "\x1f", "\u180e", "\u200b", "\u2060", "\ufeff", "\0", "\x7f", "\xad"]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "1️⃣", "☺", "🫨", "🧑🏿‍🚀", "©️", "\U0001fae9"]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'M", "'lL", "'D", "'\u017f",
                "\u2019s", "'x", "'", "''s", "'r", "'l", "'v", "'\u212a"]
WORDS = """the of and to in a is that it was for on are as with his they at be this from I have or by one had not but
what all were when we there can an your which their said if do will each about how up out them then she many some so
these would other into has more her two like him see time could no make than first been its who now people my made over
did down only way find use may water long little very after words called just where most know get through back much
before go good new write our used me man too any day same right look think also around another came come work three
word must because does part even place well such here take why things help put years different away again off went old
number language model token attention layer prompt pruning""".split()
CODE = ["for (int i = 0; i < n; ++i) {\n\tsum += a[i] * 0x1F;\n}\n", "def f(x):\r\n    return x**2  # square\r\n",
        "<div class=\"a-b_c\">&nbsp;</div>", "SELECT * FROM t WHERE id=42 AND name LIKE '%x%';", "{\"k\": [1, 2.5e-3, null]}",
        "https://example.org/a?b=c&d=%20#e", "$x^2 + y_{10} \\le 3.14159$", "\t\t\tif (!p) return -1;\n\n\n\n"]


def scripts(rng):
    """A few words from the assigned characters of each 256 code points (fewer from the large, uniform blocks)."""
    texts = []
    for first in range(0x80, 0x110000, 256):
        assigned = [chr(c) for c in range(first, min(first + 256, 0x110000))
                    if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
        uniform = 0x3400 <= first < 0x9f00 or 0xac00 <= first < 0xd700 or first >= 0x17000
        if not assigned or (uniform and rng.random() > 0.12 and not 0x1d000 <= first < 0x20000):
            continue
        words = ["".join(rng.choices(assigned, k=rng.randint(1, 7))) for _ in range(4)]
        texts.append(rng.choice([" ", " ", ", ", "\n"]).join(words))
    return texts


def numbers(rng):
    every = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c))[0] == "N"]
    late = [chr(c) for c in (0x11DE0, 0x11DE9, 0x16FF4, 0x16FF6, 0x10D40, 0x1CCF0, 0x116D0)]
    texts = ["0123456789", " 1 22 333 4444 55555 666666 7777777", "3.14159 -1,000,000.00 1e-9 0xFFFF 12:30:59 2024-02-29",
             "a1b22c333 d4444 5e", "١٢٣٤ ४५६ ௧௨ 一二三 Ⅷ ½ ² ₃ ①", "1\n2\r\n3  4   5\t6", "12'34 'm1 1's"]
    for _ in range(24):
        texts.append("".join(rng.choice(rng.choice([every, every, late, list("0123456789"), [" ", "a", ".", "\n"]]))
                             for _ in range(20)))
    return texts


def white_space(rng):
    texts = ["", " ", "  ", "   ", "\n", "\r\n", " \n", "\n ", " \n ", "\t\t", "a ", " a", "  a", "a  ", "a\n\nb", "a \n \n b"]
    texts += ["a" + s + "b" + s + s + "c" + s + s + s + "1" + s + "!" + s + s + "?" + s for s in SPACES]
    texts += ["a" + s + "b " + s + " " + s + "1" for s in NO_SPACES]
    for _ in range(40):
        texts.append("".join(rng.choice(rng.choice([SPACES, [" "], [" "], ["\n", "\r"], ["a", "1", ".", "é", "'s"]]))
                             for _ in range(rng.randint(2, 14))))
    return texts


def sentences(rng):
    texts = []
    for _ in range(40):
        words = [rng.choice(WORDS) + (rng.choice(CONTRACTIONS) if rng.random() < 0.15 else "")
                 for _ in range(rng.randint(3, 30))]
        text = " ".join(w.upper() if rng.random() < 0.05 else w.capitalize() if rng.random() < 0.1 else w for w in words)
        texts.append(text + rng.choice([".", "!", "?\n", "...", " — ", "!!! ", ".\n\n", " 😀"]))
    return texts


def mixtures(rng):
    pools = [list("abcXYZ"), ["é", "ß", "я", "中", "か", "한", "ع", "ा", "e\u0301", "ǅ", "ª", "ʰ"], list("0129"), ["٣", "½", "Ⅳ"],
             [" "], [" "], ["\n", "\r", "\r\n", "\t"], SPACES, NO_SPACES, list(".,!?-_/\\\"()[]{}<>|@#$%^&*+=~`;:"), EMOJI,
             CONTRACTIONS, WORDS, ["\u0378", "\U000e0001", "\uffff", "\U0010ffff", "\ue000", "\U00011de1"],
             CONTROL + USER_DEFINED]
    return ["".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(1, 24))) for _ in range(260)]


def corpus():
    rng = random.Random(20240719)
    texts = ["Hello, world! It's 2024 and we're reading 3,500 tokens.",
             "<|im_start|>user\nWhat's the capital of France?<|im_end|>\n<|im_start|>assistant\n",
             "x<|endoftext|><|im_end|> y<|im_x<|<tool>>z<tool> <|endo<|endoftext|", "The spaceship !!!? the\nthe spaceship",
             "I'll say: don't, WE'VE, I'M, you'd; 'tis 'twas ''s 'S'", *CODE, *EMOJI, "".join(EMOJI), " ".join(EMOJI),
             " ".join(CONTRACTIONS), "a" + " a".join(CONTRACTIONS)]
    for part in (white_space, numbers, sentences, mixtures, scripts):
        texts += part(rng)
    return texts


def fnv(values):
    state = 0x811C9DC5
    for value in values:
        for byte in value.to_bytes(4, "little"):
            state = ((state ^ byte) * 0x01000193) & 0xFFFFFFFF
    return state


def real_tokenizer(path):
    fields = GGUFReader(path).fields
    tokens, kinds = (fields["tokenizer.ggml." + name].contents() for name in ("tokens", "token_type"))
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS["smollm"]
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t, k in zip(tokens, kinds) if k == 3])
    assert tokenizer.get_vocab_size() == len(tokens)
    return tokenizer


def train_merges(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = PRE_TOKENIZERS["llama-bpe"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=256 + 400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(sorted(texts), trainer)
    return [tuple(m) for m in json.loads(tokenizer.to_str())["model"]["merges"]]


def synthetic_tokens(merges):
    """Ids: the 256 stand-ins for bytes in order of their code points, merges, whole words, control, user-defined."""
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    for left, right in merges:
        if left + right not in tokens:
            tokens.append(left + right)
    tokens += WHOLE_WORDS + CONTROL + USER_DEFINED
    assert len(tokens) == len(set(tokens))
    return tokens


def synthetic_tokenizer(tokens, merges, name):
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges,
                                     ignore_merges=name == "llama-bpe"))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in CONTROL])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in USER_DEFINED])
    return tokenizer


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def main(model, folder):
    texts = corpus()
    merges = train_merges(texts)
    tokens = synthetic_tokens(merges)
    real = real_tokenizer(model)
    golden = {
        "classes": fnv(class_of_every_code_point()),
        "pre_tokens": {name: [fnv(len(piece) for piece, _ in pre.pre_tokenize_str(text)) for text in texts]
                       for name, pre in PRE_TOKENIZERS.items()},
        "merges": [" ".join(m) for m in merges],
        "whole_words": WHOLE_WORDS, "control": CONTROL, "user_defined": USER_DEFINED,
        "synthetic": {}, "synthetic_without_control": {},
        "smollm2": [fnv(encode(real, text)) for text in texts],
        "smollm2_first": [encode(real, text) for text in texts[:13]],
    }
    for name in PRE_TOKENIZERS:
        tokenizer = synthetic_tokenizer(tokens, merges, name)
        golden["synthetic"][name] = [fnv(encode(tokenizer, text)) for text in texts]
        if name == "llama-bpe":
            golden["synthetic_first"] = [encode(tokenizer, text) for text in texts[:13]]
        tokenizer.encode_special_tokens = True
        with_control = [i for i, text in enumerate(texts) if "<|" in text]
        golden["synthetic_without_control"][name] = [[i, fnv(encode(tokenizer, texts[i]))] for i in with_control]
    for name, value in (("tokenizer_corpus", texts), ("tokenizer_golden", golden)):
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        pathlib.Path(folder, name + ".json").write_bytes((text + "\n").encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
