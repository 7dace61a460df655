#!/usr/bin/env python3
"""Makes tests/data/quant_golden.bin: random and awkward blocks, quantised and dequantised by the PyPI package `gguf`.

Layout, little-endian, per format (Q4_0, Q4_1, Q8_0, F16, in this order):
  uint32 count of values | float32 values | stored blocks | float32 dequantised values
  uint32 count of random blocks' values | stored random blocks (finite scales) | float32 dequantised values

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
    halves = {GGMLQuantizationType.Q4_1: 2}.get(qtype, 1)
    finite = rng.integers(0, 0x7C00, (blocks, halves), dtype=np.uint16) | (
        rng.integers(0, 2, (blocks, halves), dtype=np.uint16) << 15
    )
    stored[:, : 2 * halves] = finite.astype(np.uint16).view(np.uint8).reshape(blocks, 2 * halves)
    return stored


def main():
    rng = np.random.default_rng(20240719)
    values = awkward_values(rng)
    with open(sys.argv[1], "wb") as out:
        for qtype in (
            GGMLQuantizationType.Q4_0,
            GGMLQuantizationType.Q4_1,
            GGMLQuantizationType.Q8_0,
            GGMLQuantizationType.F16,
        ):
            stored = quants.quantize(values, qtype)
            raw = stored.tobytes()
            dequantised = quants.dequantize(stored, qtype).astype(np.float32)
            out.write(np.uint32(values.size).tobytes() + values.tobytes() + raw + dequantised.tobytes())
            block_size = GGML_QUANT_SIZES[qtype][0]
            random = random_stored(rng, qtype, 64)
            result = quants.dequantize(random, qtype).astype(np.float32)
            out.write(np.uint32(64 * block_size).tobytes() + random.tobytes() + result.tobytes())


if __name__ == "__main__":
    main()
