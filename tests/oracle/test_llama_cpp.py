"""What llama.cpp makes of exported GGUF files: tokens, logits and embeddings.

llama.cpp computes in its own ways: GELU's tanh approximation from a table of float16, products with the file's type of
numbers on both sides. `Computed` does the same in float64, so that bounds come from what these roundings do to the very
model, not from a guess. Attention in 16 bits ("flash attention") is off where numbers are compared so.
"""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from numpy.typing import NDArray
from support import many_scripts, reference
from support.kinds_of_tokenizers import CORPUS, write_kind
from support.sentencepiece_files import FAIRSEQ_PIECES, sentencepiece_file
from support.small_run import VOCABULARY, write_model

import kdistill as kd
from kdistill.models.model import Model

gguf = pytest.importorskip("gguf")
llama_cpp = pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install xllamacpp")

SIZES = {
    "num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96, "vocab_size": 101,
    "max_position_embeddings": 40, "initializer_range": 0.3, "num_labels": 3,
}  # fmt: skip
BEHIND_PADDING = {"max_position_embeddings": 42, "pad_token_id": 1}  # RoBERTa's positions begin at 2
# GGUF's names -> those of the reference.
OUTSIDE = {
    "token_embd": "bert.embeddings.word_embeddings", "position_embd": "bert.embeddings.position_embeddings",
    "token_types": "bert.embeddings.token_type_embeddings", "token_embd_norm": "bert.embeddings.LayerNorm",
    "cls": "bert.pooler.dense", "cls.output": "classifier",
}  # fmt: skip
IN_LAYER = {
    "attn_q": "attention.self.query", "attn_k": "attention.self.key", "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense", "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense", "ffn_down": "output.dense", "layer_output_norm": "output.LayerNorm",
}  # fmt: skip
CLASSIFIER = reference.BERT_CLASSIFIER
Rounding = Callable[[reference.Array], reference.Array]


def small(name: str, ending: str, **fields: Any) -> Any:
    """Return a model whose weights are so wide that an error shows."""
    behind_padding = BEHIND_PADDING if "oberta" in name.lower() else {}
    return getattr(kd, name + ending)(getattr(kd, f"{name}Config")(**(SIZES | behind_padding | fields)), seed=7)


def server_of(path: Path, *, flash_attention: bool = False) -> Any:
    """Return llama.cpp with a file, which pools as the file says and leaves lengths of vectors as they are."""
    settings = llama_cpp.CommonParams()
    settings.model.path = str(path)
    settings.embedding, settings.embd_normalize, settings.warmup = True, -1, False
    settings.n_ctx = settings.n_batch = settings.n_ubatch = 128
    settings.n_parallel, settings.n_gpu_layers = 1, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    if not flash_attention:
        settings.flash_attn_type = llama_cpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return llama_cpp.Server(settings)


def vectors_of(server: Any, rows: Sequence[list[int]] | Sequence[str], width: int) -> NDArray[np.float64]:
    """Return the first numbers of each vector; behind the logits of few labels the server hands out what lay there."""
    found = server.handle_embeddings({"input": list(rows)})
    return np.array([each["embedding"][:width] for each in found["data"]])


def tokens_of(server: Any, text: str) -> list[int]:
    asked = json.dumps({"content": text, "add_special": True, "parse_special": True}).encode()
    request = Request(f"{server.listening_address}/tokenize", asked, {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        found: list[int] = json.load(answer)["tokens"]
    return found


def in_float16(x: reference.Array) -> reference.Array:
    return x.astype(np.float16).astype(np.float64)


def in_q8_0(x: reference.Array) -> reference.Array:
    """Round to blocks of 32 with one step each, which is float16."""
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    steps = np.abs(blocks).max(axis=-1, keepdims=True) / 127
    counts = np.round(np.divide(blocks, steps, out=np.zeros_like(blocks), where=steps > 0))
    return np.asarray((counts * in_float16(steps)).reshape(x.shape))


def as_it_is(x: reference.Array) -> reference.Array:
    return x


def gelu_of_float16(x: reference.Array) -> reference.Array:
    """GELU as llama.cpp's table has it."""
    return np.where(x <= -10, 0, np.where(x >= 10, x, in_float16(reference.gelu_new(in_float16(x)))))


ROUNDINGS = {"float32": as_it_is, "float16": in_float16, "int8": in_q8_0}


class Computed:
    """What a GGUF file means, in float64, by nothing but its own tensors and sizes."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, variant: reference.Variant = CLASSIFIER) -> None:
        reader = gguf.GGUFReader(path)
        sizes = {name: field.contents() for name, field in reader.fields.items() if name.startswith("bert.")}
        self._config: Any = SimpleNamespace(
            num_hidden_layers=sizes["bert.block_count"],
            num_attention_heads=sizes["bert.attention.head_count"],
            hidden_size=sizes["bert.embedding_length"],
            hidden_act="gelu",
            layer_norm_eps=sizes["bert.attention.layer_norm_epsilon"],
        )
        self._parameters = {
            self._name(each.name): gguf.quants.dequantize(each.data, each.tensor_type).astype(np.float64)
            for each in reader.tensors
        }
        self._monkeypatch, self._variant = monkeypatch, variant

    @staticmethod
    def _name(name: str) -> str:
        module, _, kind = name.rpartition(".")
        if not module.startswith("blk."):
            return f"{OUTSIDE[module]}.{kind}"
        _, layer, part = module.split(".", 2)
        return f"bert.encoder.layer.{layer}.{IN_LAYER[part]}.{kind}"

    def of(
        self, rows: Sequence[Sequence[int]], gelu: Rounding = reference.gelu, operands: Rounding = as_it_is
    ) -> reference.Array:
        """Return logits or embeddings, with another GELU and with rounded inputs of products."""
        linear = reference.linear
        with self._monkeypatch.context() as patch:
            patch.setitem(reference.ACTIVATIONS, "gelu", gelu)  # type: ignore[call-overload]
            patch.setattr(reference, "linear", lambda x, parameters, name: linear(operands(x), parameters, name))
            return reference.forward_with_taps(self._parameters, self._config, rows, variant=self._variant)[0]


def apart(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.sqrt(((a - b) ** 2).mean()))


def some_rows(count: int = 12) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [[int(each) for each in rng.integers(5, len(VOCABULARY), size=1 + 3 * length)] for length in range(count)]


def bert_tokenizer(directory: Path) -> Any:
    """Return a tokenizer of fewer tokens than the small models have rows."""
    return kd.AutoTokenizer.from_pretrained(write_model(directory))


# Errors that have nothing in common are sqrt(2) of their size apart: the bound where every operand is rounded. Of
# float32 files only GELU is rounded, and sums in float32 take few numbers to the other side of a rounding: less than
# half is left (0.07 to 0.27 on a Xeon).
@pytest.mark.parametrize("name", ["Bert", "Roberta"])
@pytest.mark.parametrize(("dtype", "of_the_rounding"), [("float32", 0.5), ("float16", 1.5), ("int8", 1.5)])
def test_a_classifiers_logits_are_apart_by_no_more_than_roundings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, dtype: str, of_the_rounding: float
) -> None:
    model, path, rows = small(name, "ForSequenceClassification"), tmp_path / "m.gguf", some_rows()
    kd.export(model, path, format="gguf", dtype=dtype, processing_class=bert_tokenizer(tmp_path / "t"))
    computed = Computed(path, monkeypatch)
    if dtype == "float32":
        own = np.concatenate([model(input_ids=[row]).logits for row in rows])
        np.testing.assert_allclose(computed.of(rows), own, atol=2e-5)  # the file is the model, to float32's roundings
        assert np.abs(own).max() > 1
    exact, rounded = computed.of(rows, reference.gelu_new), computed.of(rows, gelu_of_float16, ROUNDINGS[dtype])
    found = vectors_of(server_of(path), rows, 3)
    assert apart(found, rounded) < of_the_rounding * apart(rounded, exact)
    assert apart(rounded, exact) < 0.1


@pytest.mark.parametrize(("name", "mode"), [("Bert", "mean"), ("Bert", "cls"), ("DistilBert", "mean")])
def test_texts_are_embedded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, mode: str) -> None:
    model, path = small(name, "Model").with_pooling(mode), tmp_path / "m.gguf"
    tokenizer = bert_tokenizer(tmp_path / "t")
    kd.export(model, path, format="gguf", processing_class=tokenizer)
    texts = [" ".join(VOCABULARY[5:last]) for last in range(6, len(VOCABULARY))]
    rows = [[int(each) for each in tokenizer(text)["input_ids"]] for text in texts]
    pick = {"mean": "mean", "cls": "first"}[mode]
    computed = Computed(path, monkeypatch, reference.Variant(pick=pick, head_activation=None, outputs=False))
    own = np.concatenate([model(input_ids=[row]).sentence_embedding for row in rows])
    np.testing.assert_allclose(computed.of(rows), own, atol=2e-5)
    exact, rounded = computed.of(rows, reference.gelu_new), computed.of(rows, gelu_of_float16)
    assert apart(vectors_of(server_of(path), texts, 64), rounded) < 0.5 * apart(rounded, exact)


def without_what_is_read_otherwise(text: str) -> str:
    """Return a text without what docs/how-to/export.md names: signs, syllables, spaces and words that differ."""
    kept = []
    for letter in text:
        parts = unicodedata.normalize("NFD", letter)
        marks = any(unicodedata.category(part) in ("Mc", "Me") or 0x1100 <= ord(part) <= 0x11FF for part in parts)
        if not marks and letter not in "\u0130\u2581\x0b\x0c\x85":
            kept.append(letter)
    return " ".join(word for word in re.split("[ \n]", "".join(kept)) if len(word) < 100)


@pytest.mark.parametrize("settings", [{}, {"do_lower_case": False}, {"do_lower_case": True, "strip_accents": False}])
def test_wordpiece_has_the_same_tokens(shared_dir: Path, tmp_path: Path, settings: dict[str, bool]) -> None:
    (tmp_path / "vocab.txt").symlink_to(shared_dir / "models" / "bert-base-uncased" / "vocab.txt")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"} | settings))
    tokenizer = kd.AutoTokenizer.from_pretrained(tmp_path)
    sizes = {"hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 4, "vocab_size": len(tokenizer)}
    kd.export(small("Bert", "Model", **sizes), tmp_path / "m.gguf", format="gguf", processing_class=tokenizer)
    server = server_of(tmp_path / "m.gguf")
    lines = (shared_dir / "data" / "SST-2" / "dev.tsv").read_text(encoding="utf-8").splitlines()[1::9]
    draw = random.Random(3)
    made = [without_what_is_read_otherwise(many_scripts.text(draw, special=0)) for _ in range(150)]
    texts = [line.partition("\t")[0] for line in lines] + made
    for text in texts:
        assert tokens_of(server, text) == list(tokenizer(text)["input_ids"]), text
    assert len(texts) > 200


@pytest.mark.parametrize("kind", ["Roberta", "XLMRoberta"])
def test_other_tokenizers_have_the_same_tokens(tmp_path: Path, kind: str) -> None:
    (tmp_path / "t").mkdir()
    if kind == "XLMRoberta":
        (tmp_path / "t" / "sentencepiece.bpe.model").write_bytes(sentencepiece_file(FAIRSEQ_PIECES))
        tokenizer: Any = kd.XLMRobertaTokenizer.from_pretrained(tmp_path / "t")
        texts = ["the films!", "film", "the film the", "  two  spaces ", "filmsthe", "\u6771\u4eac the"]
    else:
        write_kind("RoBERTa", tmp_path / "t")
        tokenizer = kd.AutoTokenizer.from_pretrained(tmp_path / "t")
        texts = [
            *CORPUS,
            "The film is great!",
            "Caf\u00e9 1999",
            "x",
            "tab\there  two",
            "\U0001f600 \u6771\u4eac </s> don't",
        ]
    model: Model = small(kind, "Model", vocab_size=len(tokenizer))
    kd.export(model, tmp_path / "m.gguf", format="gguf", processing_class=tokenizer)
    server = server_of(tmp_path / "m.gguf")
    for text in texts:
        assert tokens_of(server, text) == list(tokenizer(text)["input_ids"]), text


def test_the_6_layer_teacher_answers_sentences_as_in_kdistill(shared_dir: Path, tmp_path: Path) -> None:
    directory, path = shared_dir / "models" / "minilm-l6-sst2", tmp_path / "m.gguf"
    kd.export(directory, path, format="gguf")
    lines = (shared_dir / "data" / "SST-2" / "dev.tsv").read_text(encoding="utf-8").splitlines()[1::29]
    texts = [line.partition("\t")[0] for line in lines]
    tokenizer = kd.AutoTokenizer.from_pretrained(directory)
    own = []
    for activation in ("gelu", "gelu_new"):
        model: Any = kd.AutoModelForSequenceClassification.from_pretrained(directory, hidden_act=activation)
        own.append(np.concatenate([model(**tokenizer([text])).logits for text in texts]))
    exact, approximate = own
    found = vectors_of(server_of(path, flash_attention=True), texts, 2)
    # The approximation is most of the difference; GELU and attention in 16 bits are the rest.
    assert apart(found, approximate) < 0.5 * apart(approximate, exact)
    assert apart(approximate, exact) < 0.005
    assert (found.argmax(axis=1) == exact.argmax(axis=1)).all()
