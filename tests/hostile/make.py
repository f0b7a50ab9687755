"""Write the hostile files: those that somebody would build to break, fill or take over the program that reads it.

Usage: python tests/hostile/make.py DIRECTORY. Each file lies in a folder named after its reader (support/readers.py).
tests/formats/test_hostile.py makes them anew and sees each end in one clear error.
"""

from __future__ import annotations

import gzip
import json
import lzma
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from support import onnx_files as write_onnx
from support import weight_files as write
from support.small_run import small_config, small_model


class Hostile(NamedTuple):
    reader: str
    name: str
    data: bytes
    message: str
    """A regular expression that the error must match."""


DEEP = b"[" * 200_000
SIX = np.ones(6, np.float32).tobytes()
FLOAT = write.storage("0", 6)


class Command:
    """Unpickled by Python, it would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hostile-was-here",)


def _entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def _safetensors(header: Mapping[str, Any] | bytes) -> bytes:
    return write.safetensors_bytes(header, bytes(16))


def safetensors() -> Iterator[Hostile]:
    bad = {
        "a product of sizes beyond 64 bits": ({"a": _entry([2**40, 2**40], 0, 16)}, "takes"),
        "sizes whose product wraps to 16 bytes": ({"a": _entry([2**62 + 1, 4], 0, 16)}, "takes"),
        "overlapping offsets": ({"a": _entry([4], 0, 16), "b": _entry([1], 4, 8)}, "overlaps"),
        "negative offsets": ({"a": _entry([4], -16, 0)}, "well-formed"),
        "offsets reversed": ({"a": _entry([4], 16, 0)}, "span -16"),
        "offsets past the end": ({"a": _entry([2**30], 0, 2**32)}, "truncated"),
        "a hidden tail": ({"a": _entry([2], 0, 8)}, "hides something"),
        "a name twice": (b'{"a": {}, "a": {}}', "occurs twice"),
        "deep JSON": (DEEP, "not valid JSON"),
        "a number of 5,000 digits": (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    }
    for name, (header, message) in bad.items():
        yield Hostile("safetensors", name, _safetensors(header), message)
    yield Hostile(
        "safetensors", "a header of 100 MB", struct.pack("<Q", 100 << 20) + b" " * (100 << 20), "states a header"
    )
    yield Hostile("safetensors", "a header of 2^63 bytes", struct.pack("<Q", 1 << 63) + b"{}", "states a header")


def weights() -> Iterator[Hostile]:
    """Files that are sound as such, for a model they are wrong for."""
    from safetensors.numpy import save

    sound = {name: np.array(value) for name, value in small_model().parameters.items()}
    last = "classifier.weight"
    for name, value in (("NaN", np.nan), ("infinity", -np.inf)):
        broken = sound[last].copy()
        broken[1, 3] = value
        yield Hostile("weights", name, save(sound | {last: broken}), "classifier.weight.*not finite")
    yield Hostile("weights", "another shape", save(sound | {last: np.ones((2, 3), np.float32)}), "of shape")
    yield Hostile("weights", "integers", save(sound | {last: np.ones((2, 16), np.int32)}), "floating-point")
    yield Hostile("weights", "a name in two spellings", save(sound | _unprefixed(sound)), "two tensors")


def _unprefixed(sound: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    name = "bert.pooler.dense.bias"
    return {name.removeprefix("bert."): sound[name]}


def _zip(pickled: bytes, storages: Mapping[str, bytes], **options: Any) -> bytes:
    path = BytesIO()
    write.write_zip(path, pickled, storages, **options)  # type: ignore[arg-type]
    return path.getvalue()


def torch_bin() -> Iterator[Hostile]:
    tensors = {
        "strides that reach past a shared storage": write.tensor(FLOAT, (2, 3), (4, 1)),
        "strides 0 that would fill the memory": write.tensor(FLOAT, (2**40,), (0,)),
        "negative strides": write.tensor(FLOAT, (2,), (-1,)),
        "a negative offset": write.tensor(FLOAT, (2,), (1,), -2),
        "a storage of 10^15 numbers": write.tensor(write.storage("0", 10**15), (6,), (1,)),
        "code": write.call(write.named("os", "system"), write.text("touch hostile-was-here")),
        "eval": write.call(write.named("builtins", "eval"), write.text("1")),
    }
    pickles = {name: write.state_dict({"w": value}) for name, value in tensors.items()}
    pickles["a dict that holds itself"] = b"\x80\x02}q\x00" + write.text("w") + b"h\x00s."
    pickles["os.system, pickled by Python"] = pickle.dumps({"w": Command()}, 2)
    for name, pickled in pickles.items():
        yield Hostile("torch_bin", f"{name}, zip", _zip(pickled, {"0": SIX}), "cannot be read as weights")
        legacy = write.legacy_bytes(pickled, {"0": (6, SIX)})
        yield Hostile("torch_bin", f"{name}, legacy", legacy, "cannot be read as weights")
    sound = write.state_dict({"w": write.tensor(FLOAT, (6,), (1,))})
    bomb = _zip(sound, {"0": bytes(1 << 24)}, compression=zipfile.ZIP_DEFLATED)
    yield Hostile("torch_bin", "a zip bomb", bomb, "compressed")
    outside = _zip(sound, {"../../../hostile-was-here": SIX})
    yield Hostile("torch_bin", "a member outside the archive", outside, "cannot be read as weights")
    yield Hostile("torch_bin", "a plain pickle", pickle.dumps({"w": Command()}), "cannot be read as weights")


def onnx_files() -> Iterator[Hostile]:
    tensor = write_onnx.tensor
    bad = {
        "a product of sizes beyond 64 bits": (tensor("a.weight", (2**40, 2**40), bytes(16)), "takes"),
        "a negative size": (tensor("a.weight", (-1, 2), bytes(8)), "takes"),
        "more sizes than arrays have": (tensor("a.weight", [1] * 5000, bytes(4)), "takes"),
        "fewer bytes than its shape": (tensor("a.weight", (2, 3), bytes(8)), "takes 24 bytes and has 8"),
        "a tensor in another file": (tensor("a.weight", (1,), b"") + write_onnx.number_field(14, 1), "another file"),
        "a name that is not UTF-8": (tensor("a", (1,), bytes(4)).replace(b"\x01a", b"\x01\xff"), "not an ONNX model"),
    }
    for name, (each, message) in bad.items():
        yield Hostile("onnx_file", name, write_onnx.onnx_file([each]), message)
    twice = [tensor("a.weight", (1,), bytes(4))] * 2
    yield Hostile("onnx_file", "a name twice", write_onnx.onnx_file(twice), "occurs twice")
    yield Hostile("onnx_file", "a graph longer than the file", b"\x3a\xff\xff\xff\xff\x7f", "not an ONNX model")
    yield Hostile("onnx_file", "safetensors", _safetensors({"a": _entry([4], 0, 16)}), "not an ONNX model")


def configs() -> Iterator[Hostile]:
    sound = small_config().to_dict()
    changes: dict[str, tuple[dict[str, Any], str]] = {
        "sizes beyond memory": ({"hidden_size": 2**62, "num_attention_heads": 1}, "hidden_size is"),
        "a negative size": ({"vocab_size": -1}, "vocab_size is -1"),
        "zero heads": ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        "a size in words": ({"hidden_size": "16"}, "hidden_size is '16'"),
        "NaN as epsilon": ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan"),
        "one label for two ids": ({"id2label": {"0": "a", "1": "a"}}, "one label to two ids"),
        "another architecture": ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
        "code to be run": ({"model_type": "bert", "hidden_act": "__import__('os')"}, "hidden_act is"),
    }
    for name, (change, message) in changes.items():
        yield Hostile("config", name, json.dumps(sound | change).encode(), message)
    text = json.dumps(sound)
    yield Hostile("config", "a name twice", text.replace("{", '{"vocab_size": 7, ', 1).encode(), "occurs twice")
    yield Hostile("config", "deep JSON", b'{"a": ' + DEEP, "not valid JSON")
    yield Hostile("config", "20 MB of spaces", text.encode() + b" " * (20 << 20), "at most")
    for name in ("../secret.safetensors", "/etc/passwd", "a/b.safetensors", 3, {}):
        index = json.dumps({"weight_map": {"a": name}}).encode()
        yield Hostile(
            "shard_index", f"a shard at {name}".replace("/", "|"), index, "expected the name of a file beside it"
        )


def tokenizers() -> Iterator[Hostile]:
    yield Hostile("vocab", "not UTF-8", b"[PAD]\n\xff\xfe\n", "not UTF-8")
    yield Hostile("vocab", "no special tokens", b"a\nb\n", "special tokens")
    yield Hostile("tokenizer_json", "deep JSON", b'{"a": ' + DEEP, "not valid JSON")
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "vocab": vocabulary}
    text = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    template = {"type": "TemplateProcessing", "single": text, "pair": text, "special_tokens": {}}
    content = {"version": "1.0", "model": model | {"max_input_chars_per_word": 9}, "post_processor": template}
    yield Hostile("tokenizer_json", "a template that panics", json.dumps(content).encode(), "special_tokens lack")
    lacking = content | {"model": content["model"] | {"unk_token": "[OOV]"}, "post_processor": None}
    yield Hostile("tokenizer_json", "an unknown token that is unknown", json.dumps(lacking).encode(), "unk_token")
    for name, value in (
        ("do_lower_case", "yes"),
        ("model_max_length", -1),
        ("model_max_length", "x"),
        ("cls_token", {}),
    ):
        settings = json.dumps({name: value}).encode()
        yield Hostile("tokenizer_config", f"{name} {value}", settings, f"tokenizer_config.json: {name} is")


def rows() -> Iterator[Hostile]:
    row = b"sentence\tlabel\ngood\t1\n"
    yield Hostile("tsv", "a row of three fields", row + b"a\tb\tc\n", ":3: 3 fields")
    yield Hostile("tsv", "not UTF-8", row + b"\xff\t1\n", ":3: not UTF-8")
    yield Hostile("tsv", "a label out of range", row + b"bad\t99999999999999999999\n", ":3: label")
    yield Hostile("csv", "a quote that never ends", b'sentence,label\n"good,1\n', ":2:")
    yield Hostile("jsonl", "deep JSON", b'{"sentence": ' + DEEP, ":1: not valid JSON")
    yield Hostile("json", "deep JSON", DEEP, "not valid JSON")
    yield Hostile("jsonl", "a list", b'{"sentence": "a"}\n[1]\n', ":2: expected a JSON object")
    yield Hostile("tsv_gz", "a bomb", gzip.compress(b"sentence\tlabel\n" + b"a" * (80 << 20)), "more than")
    yield Hostile("tsv_xz", "a bomb", lzma.compress(b"sentence\tlabel\n" + b"a" * (80 << 20), preset=0), "more than")
    damaged = bytearray(gzip.compress(row * 50))
    damaged[12:20] = b"\xff" * 8
    yield Hostile("tsv_gz", "a damaged stream", bytes(damaged), "cannot be read")
    yield Hostile("parquet", "not Parquet", b"PAR1" + b"\xff" * 64 + b"PAR1", "cannot be read as Parquet")


def answers() -> Iterator[Hostile]:
    """Logits of a teacher."""

    def npy(header: bytes, values: bytes = b"") -> bytes:
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + values

    shape = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 2), }\n"
    yield Hostile("npy", "10^12 rows that are not there", npy(shape, bytes(64)), "cannot be read as an array of NumPy")
    pickled = BytesIO()
    np.save(pickled, np.array([Command()], object), allow_pickle=True)
    yield Hostile("npy", "code", pickled.getvalue(), "cannot be read as an array of NumPy")
    deep = b"{'descr': '<f4', 'fortran_order': False, 'shape': " + b"(" * 9000 + b"\n"
    yield Hostile("npy", "a deep header", npy(deep), "cannot be read as an array of NumPy")
    archive = BytesIO()
    np.savez(archive, logits=np.zeros((2, 2)))
    yield Hostile("npy", "an archive", archive.getvalue(), "holds several arrays")
    yield Hostile(
        "answers", "deep JSON in a text", b'{"teacher_logits": "' + b"[" * 100_000 + b'"}\n', "expected a list"
    )


def runs() -> Iterator[Hostile]:
    """Files of a checkpoint."""
    yield Hostile("trainer_state", "of another program", b"{}", "another program or version")
    yield Hostile("trainer_state", "deep JSON", b'{"a": ' + DEEP, "not valid JSON")
    header = {"m": _entry([4], 0, 16)}
    yield Hostile("optimizer_state", "moments of another size", _safetensors(header), "optimizer.safetensors")
    yield Hostile("optimizer_state", "not safetensors", b"\xff" * 64, "optimizer.safetensors")


def hostile_files() -> list[Hostile]:
    makers = (safetensors, weights, torch_bin, onnx_files, configs, tokenizers, rows, answers, runs)
    return [hostile for maker in makers for hostile in maker()]


def main() -> None:
    for hostile in hostile_files():
        folder = Path(sys.argv[1]) / hostile.reader
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hostile.name.replace(" ", "-")).write_bytes(hostile.data)


if __name__ == "__main__":
    main()
