#!/usr/bin/env python3
"""Makes tests/data/gguf: files written by the PyPI package `gguf` 0.19, and what its reader sees in them.

For each NAME.gguf, NAME.txt has one line for every fact, in the order of the file:
  version V | alignment A | data_offset D
  key KEY TYPE VALUE...           integers in decimal, floats as their bits in hex, strings as their bytes in hex
  tensor NAME TYPE DIMENSIONS offset O size S fnv1a H
Usage: make_gguf_golden.py [FOLDER], or make_gguf_golden.py --describe FILE to print what the package sees in a file.
"""
import struct
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGUFValueType as V

NAMES = {V.UINT8: "uint8", V.INT8: "int8", V.UINT16: "uint16", V.INT16: "int16", V.UINT32: "uint32", V.INT32: "int32",
         V.UINT64: "uint64", V.INT64: "int64", V.FLOAT32: "float32", V.FLOAT64: "float64", V.BOOL: "bool",
         V.STRING: "string"}
LIMITS = {V.UINT8: [0, 255], V.INT8: [-128, 127], V.UINT16: [0, 65535], V.INT16: [-32768, 32767],
          V.UINT32: [0, 2**32 - 1], V.INT32: [-2**31, 2**31 - 1], V.UINT64: [0, 2**64 - 1],
          V.INT64: [-2**63, 2**63 - 1], V.FLOAT32: [-1.5, 1e-40, float("inf")], V.FLOAT64: [0.1, -5e-324],
          V.BOOL: [False, True, True],
          V.STRING: ["", "plain", "white \t\n space", "Ünïcödé 漢字 🦥", "a string that is too long for any small buffer"]}


def fnv1a(data):
    value = 0xcbf29ce484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001b3 % 2**64
    return value


def add_metadata(writer):
    for kind, values in LIMITS.items():
        for i, value in enumerate(values):
            writer.add_key_value(f"test.{NAMES[kind]}.{i}", value, kind)
        writer.add_key_value(f"test.array.{NAMES[kind]}", values, V.ARRAY, sub_type=kind)


def add_tensors(writer):
    random = np.random.default_rng(7)

    def values(*shape):
        return random.standard_normal(shape).astype(np.float32)

    writer.add_tensor("odd.f32", values(3))
    writer.add_tensor("matrix.f16", values(2, 5).astype(np.float16))
    writer.add_tensor("cube.i8", random.integers(-128, 128, (2, 3, 4), dtype=np.int8))
    writer.add_tensor("four.f32", values(2, 1, 3, 2))
    for kind in (T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.BF16):
        writer.add_tensor(f"rows.{kind.name}", gguf.quants.quantize(values(3, 64), kind), raw_dtype=kind)
    for kind in (T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K, T.IQ4_XS, T.TQ1_0):
        block = gguf.GGML_QUANT_SIZES[kind][1]
        data = random.integers(0, 256, (2, block), dtype=np.uint8)
        writer.add_tensor(f"rows.{kind.name}", data, raw_dtype=kind)


def make(path, alignment):
    writer = gguf.GGUFWriter(str(path), "test")
    if alignment:
        writer.add_custom_alignment(alignment)
    add_metadata(writer)
    add_tensors(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def text(kind, part):
    if kind == V.STRING:
        return "x" + bytes(part).hex()
    value = part[0]
    if kind == V.FLOAT32:
        return "%08x" % struct.unpack("<I", struct.pack("<f", value))
    if kind == V.FLOAT64:
        return "%016x" % struct.unpack("<Q", struct.pack("<d", value))
    return str(int(value))


def describe(path):
    reader = gguf.GGUFReader(str(path))
    lines = [f"version {int(reader.fields['GGUF.version'].parts[0][0])}", f"alignment {reader.alignment}",
             f"data_offset {reader.data_offset}"]
    for key, field in reader.fields.items():
        if key.startswith("GGUF."):
            continue
        kind = field.types[-1]
        name = ("array of " if field.types[0] == V.ARRAY else "") + NAMES[kind]
        lines.append(" ".join([f"key {key} {name}"] + [text(kind, field.parts[i]) for i in field.data]))
    for tensor in reader.tensors:
        shape = " ".join(str(int(n)) for n in tensor.shape)
        data = tensor.data.tobytes()
        assert len(data) == tensor.n_bytes
        lines.append(f"tensor {tensor.name} {tensor.tensor_type.name} {shape} offset "
                     f"{tensor.data_offset - reader.data_offset} size {tensor.n_bytes} fnv1a {fnv1a(data):016x}")
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--describe":
        print(describe(sys.argv[2]), end="")
        return
    default = Path(__file__).resolve().parent.parent / "data" / "gguf"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    folder.mkdir(parents=True, exist_ok=True)
    for name, alignment in (("every_type", None), ("aligned_128", 128)):
        make(folder / f"{name}.gguf", alignment)
        (folder / f"{name}.txt").write_text(describe(folder / f"{name}.gguf"))
    known = (t for t in T if t != T.Q8_1)
    (folder / "type_sizes.txt").write_text(
        "".join(f"{int(t)} {t.name} {gguf.GGML_QUANT_SIZES[t][0]} {gguf.GGML_QUANT_SIZES[t][1]}\n" for t in known))


if __name__ == "__main__":
    main()
