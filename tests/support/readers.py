"""Every door a file comes in by, as a function of the file's bytes: where hostile files and the fuzzer knock.

A reader puts the bytes where the program expects such a file and reads it the way a user's command would. Whatever
the bytes are, it returns or raises one of CLEAN.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from kdistill.compress.int8 import quantize
from kdistill.data.columns import read_rows
from kdistill.data.files import DataFile
from kdistill.data.labels import label_ids
from kdistill.data.questions import read_questions
from kdistill.data.streams import parts_of
from kdistill.data.teacher_columns import Answers
from kdistill.data.teacher_rows import TeacherSource
from kdistill.data.token_files import TokenFiles
from kdistill.distill.cache import TeacherCache
from kdistill.distill.row_keys import row_keys
from kdistill.formats.onnx_file import read_onnx
from kdistill.formats.safetensors import read_safetensors
from kdistill.formats.torch_bin import read_torch_bin
from kdistill.models.classes import BertForSequenceClassification
from kdistill.models.config import BertConfig
from kdistill.models.configuration import write_config
from kdistill.models.golden import computed_by
from kdistill.models.quantization import KEY, Quantization
from kdistill.models.sentence_files import read_sentence_files
from kdistill.system.files import verify_manifest
from kdistill.text.classes import AutoTokenizer
from kdistill.train.checkpoint import OPTIMIZER_FILE, load_checkpoint, save_checkpoint
from kdistill.train.optim import AdamW
from kdistill.train.state import TrainerState
from kdistill.train.token_encoding import encode
from support.onnx_files import sound_onnx_file
from support.sentencepiece_files import FAIRSEQ_PIECES, sentencepiece_file
from support.small_run import VOCABULARY, small_config, small_dataset, small_model

# TypeError is what BertConfig raises for a value of another type than the field's.
CLEAN = (ValueError, TypeError, OSError)
MODULES = b"""[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
{"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"""
POOLING = b'{"word_embedding_dimension": 16, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}'
_MADE_ONCE = TemporaryDirectory()
SHORT_TEXT = "good film\nbad plot"
SQUAD = """{"version": "v2.0", "data": [{"title": "film", "paragraphs": [{"context": "a good film", "qas": [
{"id": "1", "question": "what", "answers": [{"text": "film", "answer_start": 7}], "is_impossible": false},
{"id": "2", "question": "who", "answers": [], "is_impossible": true}]}]}]}"""


def safetensors(directory: Path, data: bytes) -> Any:
    (directory / "w.safetensors").write_bytes(data)
    tensors = read_safetensors(directory / "w.safetensors")
    return {name: tensor.read() for name, tensor in tensors.items() if tensor.is_float}


def torch_bin(directory: Path, data: bytes) -> Any:
    (directory / "w.bin").write_bytes(data)
    tensors = read_torch_bin(directory / "w.bin")
    return {name: tensor.read() for name, tensor in tensors.items() if tensor.is_float}


def onnx_file(directory: Path, data: bytes) -> Any:
    (directory / "w.onnx").write_bytes(data)
    return {name: tensor.read() for name, tensor in read_onnx(directory / "w.onnx").items()}


def config(directory: Path, data: bytes) -> Any:
    (directory / "config.json").write_bytes(data)
    return BertConfig.from_pretrained(directory)


def shard_index(directory: Path, data: bytes) -> Any:
    small_config().save_pretrained(directory)
    (directory / "model.safetensors.index.json").write_bytes(data)
    return BertForSequenceClassification.from_pretrained(directory)


def weights(directory: Path, data: bytes) -> Any:
    """model.safetensors beside a sound config.json: loaded, and asked."""
    small_config().save_pretrained(directory)
    (directory / "model.safetensors").write_bytes(data)
    return BertForSequenceClassification.from_pretrained(directory)


def int8(directory: Path, data: bytes) -> Any:
    """model.safetensors of an int8 artefact beside its config.json: loaded, and compared with its golden logits."""
    stated = Quantization(embeddings="int8", computed=computed_by(small_model()), golden_tolerance=1.0)
    write_config(directory, small_config().to_dict() | {KEY: stated.described([], [], tied=False)})
    (directory / "model.safetensors").write_bytes(data)
    return BertForSequenceClassification.from_pretrained(directory)


def modules(directory: Path, data: bytes) -> Any:
    (directory / "modules.json").write_bytes(data)
    (directory / "1_Pooling").mkdir(exist_ok=True)
    (directory / "1_Pooling" / "config.json").write_bytes(POOLING)
    return read_sentence_files(directory)


def pooling(directory: Path, data: bytes) -> Any:
    (directory / "modules.json").write_bytes(MODULES)
    (directory / "1_Pooling").mkdir(exist_ok=True)
    (directory / "1_Pooling" / "config.json").write_bytes(data)
    return read_sentence_files(directory)


def vocab(directory: Path, data: bytes) -> Any:
    (directory / "vocab.txt").write_bytes(data)
    return AutoTokenizer.from_pretrained(directory)(SHORT_TEXT)


def tokenizer_json(directory: Path, data: bytes) -> Any:
    (directory / "tokenizer.json").write_bytes(data)
    return AutoTokenizer.from_pretrained(directory)(SHORT_TEXT)


def tokenizer_config(directory: Path, data: bytes) -> Any:
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY))
    (directory / "tokenizer_config.json").write_bytes(data)
    return AutoTokenizer.from_pretrained(directory)(SHORT_TEXT)


def vocab_json(directory: Path, data: bytes) -> Any:
    (directory / "vocab.json").write_bytes(data)
    (directory / "merges.txt").write_bytes(bpe_merges())
    return AutoTokenizer.from_pretrained(directory)(SHORT_TEXT)


def merges(directory: Path, data: bytes) -> Any:
    (directory / "vocab.json").write_bytes(bpe_vocabulary())
    (directory / "merges.txt").write_bytes(data)
    return AutoTokenizer.from_pretrained(directory)(SHORT_TEXT)


def bpe_vocabulary() -> bytes:
    letters = "".join(sorted(set("goodfilmbadplot\u0120\u010a")))
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters, "go", "goo", "fi"]
    return json.dumps({token: index for index, token in enumerate(tokens)}).encode()


def bpe_merges() -> bytes:
    return b"#version: 0.2\ng o\ngo o\nf i\n"


def sentencepiece(directory: Path, data: bytes) -> Any:
    (directory / "sentencepiece.bpe.model").write_bytes(data)
    return AutoTokenizer.from_pretrained(directory)(SHORT_TEXT)


def rows_file(name: str) -> Callable[[Path, bytes], Any]:
    def read(directory: Path, data: bytes) -> Any:
        (directory / name).write_bytes(data)
        rows = read_rows(directory / name)
        return rows.read_labels(small_config().id2label)

    return read


def questions(directory: Path, data: bytes) -> Any:
    (directory / "squad.json").write_bytes(data)
    return read_questions(directory / "squad.json").answers


def npy(directory: Path, data: bytes) -> Any:
    """Logits of a teacher."""
    (directory / "logits.npy").write_bytes(data)
    source = TeacherSource.of(directory / "logits.npy", "teacher_logits")
    return source.column.read(Answers(("negative", "positive"), "softmax"))


def answers(directory: Path, data: bytes) -> Any:
    """The same as rows."""
    (directory / "answers.jsonl").write_bytes(data)
    source = TeacherSource.of(directory / "answers.jsonl", "teacher_logits")
    return source.column.read(Answers(("negative", "positive"), "softmax"))


def npy_file() -> bytes:
    """Logits as numpy.save writes them."""
    content = io.BytesIO()
    np.save(content, cache_logits())
    return content.getvalue()


def cache(directory: Path, data: bytes) -> Any:
    """A cache file is never an error: what is wrong in it counts as absent."""
    keys = row_keys(small_dataset(8))
    held = TeacherCache(directory, "teacher", 2)
    held.path.write_bytes(data)
    again = TeacherCache(directory, "teacher", 2)
    found, logits = again.lookup(keys)
    np.testing.assert_array_equal(logits[found], cache_logits()[found])
    return found


def cache_logits() -> np.ndarray:
    return np.arange(16, dtype=np.float32).reshape(8, 2)


def trainer_state(directory: Path, data: bytes) -> Any:
    (directory / "trainer_state.json").write_bytes(data)
    return TrainerState.load(directory)


def manifest(directory: Path, data: bytes) -> Any:
    """Says in words what is wrong, and raises nothing."""
    (directory / "config.json").write_text("{}")
    (directory / "manifest.json").write_bytes(data)
    return verify_manifest(directory)


def optimizer_state(directory: Path, data: bytes) -> Any:
    from kdistill.train.arguments import TrainingArguments

    model = small_model()
    optimizer = AdamW(model, lr=0.1)
    save_checkpoint(directory, model, None, optimizer, TrainerState(), TrainingArguments(str(directory)))
    (directory / OPTIMIZER_FILE).write_bytes(data)
    return load_checkpoint(directory, model, optimizer)


def token_files(name: str) -> Reader:
    """The reader of a file of a directory that `kdistill encode` has written; the others in it are sound."""

    def read(directory: Path, data: bytes) -> Any:
        shutil.copytree(sound_token_files(), directory / "tokens")
        (directory / "tokens" / name).write_bytes(data)
        files = TokenFiles(directory / "tokens")
        return files.dataset({0: "negative", 1: "positive"}, label_ids, max_length=16, types=True, texts=True)

    return read


@lru_cache(maxsize=1)
def sound_token_files() -> Path:
    """Token files of three rows with their texts, in two shards."""
    directory = Path(_MADE_ONCE.name) / "tokens"
    (directory.parent / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    rows = directory.parent / "three.tsv"
    rows.write_text("text\tlabel\ngood film\tpositive\nbad plot\tnegative\nfilm\t\n")
    tokenizer = AutoTokenizer.from_pretrained(directory.parent)
    encode(rows, tokenizer, directory, max_length=16, keep_texts=True, shard_rows=2, quiet=True)
    return directory


def parts(name: str) -> Reader:
    """The reader of a file of rows in parts of two."""

    def read(directory: Path, data: bytes) -> Any:
        (directory / name).write_bytes(data)
        return [read_rows(part.table) for part in parts_of(DataFile(str(directory / name)), 2)]

    return read


Reader = Callable[[Path, bytes], Any]
READERS: dict[str, Reader] = {
    "safetensors": safetensors,
    "torch_bin": torch_bin,
    "onnx_file": onnx_file,
    "config": config,
    "shard_index": shard_index,
    "weights": weights,
    "int8": int8,
    "modules": modules,
    "pooling": pooling,
    "vocab": vocab,
    "tokenizer_json": tokenizer_json,
    "tokenizer_config": tokenizer_config,
    "vocab_json": vocab_json,
    "merges": merges,
    "sentencepiece": sentencepiece,
    "tsv": rows_file("rows.tsv"),
    "csv": rows_file("rows.csv"),
    "jsonl": rows_file("rows.jsonl"),
    "json": rows_file("rows.json"),
    "tsv_gz": rows_file("rows.tsv.gz"),
    "tsv_xz": rows_file("rows.tsv.xz"),
    "parquet": rows_file("rows.parquet"),
    "tsv_parts": parts("rows.tsv"),
    "csv_gz_parts": parts("rows.csv.gz"),
    "jsonl_parts": parts("rows.jsonl"),
    "parquet_parts": parts("rows.parquet"),
    "tokens_header": token_files("tokens.json"),
    "token_ids": token_files("ids.bin"),
    "questions": questions,
    "npy": npy,
    "answers": answers,
    "cache": cache,
    "trainer_state": trainer_state,
    "manifest": manifest,
    "optimizer_state": optimizer_state,
}


def sound_files(directory: Path) -> dict[str, list[bytes]]:
    """One or more sound files for each reader: what damage starts from."""
    import gzip
    import lzma

    from safetensors.numpy import save

    from support import weight_files as write

    model = small_model()
    model.save_pretrained(directory / "model")
    (directory / "model" / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    AutoTokenizer.from_pretrained(directory / "model").save_pretrained(directory / "model")
    quantize(model, small_dataset(4), directory / "int8")
    for legacy in (False, True):
        write.write_arrays(directory / f"{legacy}.bin", write.random_arrays(), legacy=legacy)
    tsv = b"sentence\tlabel\ngood film\tpositive\nbad plot\tnegative\n"
    held = TeacherCache(directory, "teacher", 2)
    held.append(row_keys(small_dataset(8)), cache_logits())
    optimizer = AdamW(model, lr=0.1)
    moments = optimizer.state_dict()
    step = np.array(moments["step"], dtype=np.int64)
    TrainerState().save(directory)
    return {
        "safetensors": [save(write.random_arrays())],
        "torch_bin": [(directory / f"{legacy}.bin").read_bytes() for legacy in (False, True)],
        "onnx_file": [sound_onnx_file()],
        "config": [(directory / "model" / "config.json").read_bytes()],
        "shard_index": [json.dumps({"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}).encode()],
        "weights": [(directory / "model" / "model.safetensors").read_bytes()],
        "int8": [(directory / "int8" / "model.safetensors").read_bytes()],
        "modules": [MODULES],
        "pooling": [POOLING, b'{"pooling_mode": ["cls"], "embedding_dimension": 16}'],
        "vocab": [("\n".join(VOCABULARY) + "\n").encode()],
        "tokenizer_json": [(directory / "model" / "tokenizer.json").read_bytes()],
        "tokenizer_config": [(directory / "model" / "tokenizer_config.json").read_bytes()],
        "vocab_json": [bpe_vocabulary()],
        "merges": [bpe_merges()],
        "sentencepiece": [
            sentencepiece_file(FAIRSEQ_PIECES, charsmap=table)
            for table in (b"", (1024).to_bytes(4, "little") + bytes(1024))
        ],
        "tsv": [tsv],
        "csv": [tsv.replace(b"\t", b","), b'sentence,label\n"good, ""fine"" film",1\n'],
        "jsonl": [b'{"sentence": "good film", "label": 1}\n{"sentence": "bad plot", "label": 0}\n'],
        "json": [b'[{"sentence": "good film", "label": "positive"}]'],
        "tsv_gz": [gzip.compress(tsv, mtime=0)],
        "tsv_xz": [lzma.compress(tsv)],
        "parquet": [],
        "tsv_parts": [tsv],
        "csv_gz_parts": [gzip.compress(tsv.replace(b"\t", b","), mtime=0)],
        "jsonl_parts": [b'{"sentence": "good film", "label": 1}\n{"sentence": "bad plot", "label": 0}\n'],
        "parquet_parts": [],
        "tokens_header": [(sound_token_files() / "tokens.json").read_bytes()],
        "token_ids": [(sound_token_files() / "ids.bin").read_bytes()],
        "questions": [SQUAD.encode()],
        "npy": [npy_file()],
        "answers": [
            b'{"text": "a", "teacher_probs": [0.5, 0.5]}\n{"text": "b", "teacher_probs": {"positive": 1}}\n',
            b'{"text": "a", "teacher_logits": [1, 2], "label_names": ["positive", "negative"]}\n',
        ],
        "cache": [held.path.read_bytes()],
        "trainer_state": [(directory / "trainer_state.json").read_bytes()],
        "manifest": [json.dumps({"files": {"config.json": {"size": 2, "sha256": "0" * 64}}}).encode()],
        "optimizer_state": [save({"m": moments["m"], "v": moments["v"], "step": step})],
    }
