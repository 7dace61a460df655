#!/usr/bin/env python3
"""Makes tests/data/quant_golden.bin: random and awkward blocks, quantised and dequantised by the PyPI package `gguf`.

Layout, little-endian, per format:
  name, 8 bytes with zeros behind | uint32 bytes of the section that follow
  uint32 count of values | float32 values | stored blocks | float32 dequantised values
  uint32 count of random blocks' values | stored random blocks (finite scales) | float32 dequantised values
The package has no quantiser for Q4_K, Q5_K and Q6_K: no values there, random blocks only.

Usage: pip install numpy gguf; python3 make_quant_golden.py tests/data/quant_golden.bin
"""
import sys

import numpy as np
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType


def awkward_values(rng):
    """Blocks of 32 that stress rounding: ordinary, zeros, constants, ties, tiny and large magnitudes, one outlier."""
    blocks = [rng.standard_normal(32) * 10.0**e for e in range(-6, 4)]
    blocks += [rng.uniform(-1, 1, 32) for _ in range(20)]
    blocks += [np.zeros(32), np.full(32, 0.75), np.full(32, -3.0), -np.zeros(32)]
    blocks += [np.arange(32) - 16.0, (np.arange(32) - 16.0) / 2, np.arange(32) / 31 * 15 + 0.5]
    blocks += [np.where(np.arange(32) == 7, 1000.0, rng.standard_normal(32) * 1e-3)]
    blocks += [np.tile([1.0, -1.0], 16), np.tile([-1.0, 1.0], 16)]  # equal magnitudes: the first one decides
    blocks += [rng.uniform(-1, 1, 32) * 1e-7, rng.uniform(-1, 1, 32) * 6e4]  # half-precision scales near their ends
    return np.array(blocks, dtype=np.float32)


def random_stored(rng, qtype, blocks):
    size = GGML_QUANT_SIZES[qtype][1]
    stored = rng.integers(0, 256, (blocks, size), dtype=np.uint8)
    halves = 2 if qtype.name in ("Q4_1", "Q4_K", "Q5_K") else 1
    first = size - 2 if qtype.name == "Q6_K" else 0
    finite = rng.integers(0, 0x7C00, (blocks, halves), dtype=np.uint16) | (
        rng.integers(0, 2, (blocks, halves), dtype=np.uint16) << 15
    )
    stored[:, first : first + 2 * halves] = finite.astype(np.uint16).view(np.uint8).reshape(blocks, 2 * halves)
    return stored


def main():
    rng = np.random.default_rng(20240719)
    values = awkward_values(rng)
    with open(sys.argv[1], "wb") as out:
        for name in ("Q4_0", "Q4_1", "Q8_0", "F16", "Q5_0", "BF16", "Q4_K", "Q5_K", "Q6_K"):
            qtype = GGMLQuantizationType[name]
            section = np.uint32(0).tobytes()
            if not name.endswith("_K"):
                stored = quants.quantize(values, qtype)
                dequantised = quants.dequantize(stored, qtype).astype(np.float32)
                section = np.uint32(values.size).tobytes() + values.tobytes() + stored.tobytes() + dequantised.tobytes()
            block_size = GGML_QUANT_SIZES[qtype][0]
            count = 64 if block_size <= 32 else 24
            random = random_stored(rng, qtype, count)
            result = quants.dequantize(random, qtype).astype(np.float32)
            section += np.uint32(count * block_size).tobytes() + random.tobytes() + result.tobytes()
            out.write(name.encode().ljust(8, b"\0") + np.uint32(len(section)).tobytes() + section)


if __name__ == "__main__":
    main()
