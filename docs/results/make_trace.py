#!/usr/bin/env python3
"""Makes docs/results/trace.json: which tokens of a document a pruned prefill computes at each layer.

    docs/results/make_trace.py --lazyllm build/release/bin/lazyllm --model MODEL.gguf --document TEXT [--prune SPEC]

The prompt is the demonstration's: a text with a fact at 40 % of it and a question about the fact.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

FACT = " The secret number of the lighthouse is 7421."
QUESTION = "\n\nWhat is the secret number of the lighthouse?"
CHARACTERS = 15800  # of the document, about 4,000 tokens


def generate(options, text, *more):
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(text)
        file.flush()
        command = [options.lazyllm, "generate", "-m", options.model, "-f", file.name, "-n", "1", "--temp", "0", "--json", *more]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lazyllm", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--document", required=True)
    parser.add_argument("--prune", default="auto")
    options = parser.parse_args()

    text = pathlib.Path(options.document).read_text()[:CHARACTERS]
    place = text.index(". ", int(0.4 * len(text))) + 1
    pruned = generate(options, text[:place] + FACT + text[place:] + QUESTION, "--prune", options.prune, "--trace")
    kept = {str(entry["layer"]): entry["indices"] for entry in pruned["kept"] if entry["step"] == 0}
    answer_at = generate(options, text[:place])["prompt_tokens"]  # with the template's end, 5 tokens more
    result = {
        "prune": options.prune, "tokens": pruned["prompt_tokens"], "layers": pruned["rows_dense"] // pruned["prompt_tokens"],
        "answer_at": answer_at, "kept": kept,
    }
    path = pathlib.Path(__file__).resolve().parent / "trace.json"
    path.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
