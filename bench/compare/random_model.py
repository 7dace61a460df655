#!/usr/bin/env python3
"""A Llama of any size with random weights in Q4_0 and the tokenizer of another GGUF file: its speed is real, its text is not.

    pip install gguf
    python3 bench/compare/random_model.py TOKENIZER.gguf OUT.gguf       # 1B: 16 layers, hidden 2,048, 32 heads over 8, FFN 8,192
"""
import argparse

import gguf
import numpy


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("output")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--ffn", type=int, default=8192)
    parser.add_argument("--context", type=int, default=131072)
    options = parser.parse_args()

    source = gguf.GGUFReader(options.tokenizer)
    tokenizer = {name: field for name, field in source.fields.items() if name.startswith("tokenizer.")}
    writer = gguf.GGUFWriter(options.output, "llama")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_block_count(options.layers)
    writer.add_context_length(options.context)
    writer.add_embedding_length(options.hidden)
    writer.add_feed_forward_length(options.ffn)
    writer.add_head_count(options.heads)
    writer.add_head_count_kv(options.kv_heads)
    writer.add_key_length(options.head_dim)
    writer.add_value_length(options.head_dim)
    writer.add_rope_dimension_count(options.head_dim)
    writer.add_rope_freq_base(500000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    for name, field in tokenizer.items():
        writer.add_key_value(name, field.contents(), field.types[0],
                             field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None)

    random = numpy.random.default_rng(1)

    def matrix(name, rows, columns, kind=gguf.GGMLQuantizationType.Q4_0):
        values = random.standard_normal((rows, columns), numpy.float32) / numpy.float32(columns) ** 0.5
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    vocabulary = len(tokenizer["tokenizer.ggml.tokens"].contents())
    query, key = options.heads * options.head_dim, options.kv_heads * options.head_dim
    matrix("token_embd.weight", vocabulary, options.hidden, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("output_norm.weight", numpy.ones(options.hidden, numpy.float32))
    for layer in range(options.layers):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", numpy.ones(options.hidden, numpy.float32))
        for name, rows, columns in (("attn_q", query, options.hidden), ("attn_k", key, options.hidden),
                                    ("attn_v", key, options.hidden), ("attn_output", options.hidden, query),
                                    ("ffn_gate", options.ffn, options.hidden), ("ffn_up", options.ffn, options.hidden),
                                    ("ffn_down", options.hidden, options.ffn)):
            matrix(f"blk.{layer}.{name}.weight", rows, columns)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
