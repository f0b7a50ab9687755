"""Exported GGUF files against the package gguf, which has llama.cpp's names. test_llama_cpp.py runs them."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.kinds_of_tokenizers import KINDS, write_kind
from support.sentencepiece_files import FAIRSEQ_PIECES, sentencepiece_file
from support.small_run import small_model, write_model
from tokenizers import pre_tokenizers

import kdistill as kd
from kdistill.cli import main as cli
from kdistill.exporters import gguf as gguf_format
from kdistill.models.model import Model

gguf = pytest.importorskip("gguf")

MODELS = [
    ("Bert", "Model"),
    ("Bert", "ForSequenceClassification"),
    ("DistilBert", "Model"),
    ("Roberta", "ForSequenceClassification"),
    ("XLMRoberta", "ForSequenceClassification"),
    ("Camembert", "Model"),
]
BEHIND_PADDING = ("Roberta", "XLMRoberta", "Camembert")  # these count positions from 2
MAKE_XLM_R = KINDS["XLM-R"][0]
PREFIXES = ("bert.", "distilbert.", "roberta.")  # llama.cpp's converter takes them off


def small(name: str, ending: str, **fields: Any) -> Model:
    """A model whose weights are so wide that an error shows; no width of it is a multiple of 32."""
    sizes = {
        "num_hidden_layers": 3, "hidden_size": 60, "num_attention_heads": 5, "intermediate_size": 84, "vocab_size": 101,
        "max_position_embeddings": 40, "initializer_range": 0.3, "num_labels": 3,
    }  # fmt: skip
    behind_padding = {"max_position_embeddings": 42, "pad_token_id": 1} if name in BEHIND_PADDING else {}
    config = getattr(kd, f"{name}Config")(**(sizes | behind_padding | fields))
    model: Model = getattr(kd, name + ending)(config, seed=7)
    return model


def bert_tokenizer(directory: Path) -> Any:
    """A tokenizer of fewer tokens than the small models have rows."""
    return kd.AutoTokenizer.from_pretrained(write_model(directory))


def exported(model: Any, path: Path, **options: Any) -> Any:
    return gguf.GGUFReader(kd.export(model, path, format="gguf", **options).path)


def values_of(reader: Any) -> dict[str, NDArray[np.float32]]:
    return {each.name: gguf.quants.dequantize(each.data, each.tensor_type) for each in reader.tensors}


def fields_of(reader: Any) -> dict[str, Any]:
    return {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}


@pytest.mark.parametrize(("name", "ending"), MODELS)
def test_tensors_have_the_names_that_gguf_gives_those_of_transformers(tmp_path: Path, name: str, ending: str) -> None:
    model = small(name, ending)
    found = values_of(exported(model, tmp_path / "m.gguf", processing_class=bert_tokenizer(tmp_path / "t")))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, model.config.num_hidden_layers)
    expected = {}
    for own, values in model.parameters.items():
        prefix = next((each for each in PREFIXES if own.startswith(each)), "")
        bare = own.removeprefix(prefix)
        if "pooler" in own:  # BERT's classifier has it where RoBERTa's has its own dense product
            bare = bare.replace("pooler.dense", "classifier.dense")
        elif name == "Bert":  # as the converter does
            bare = bare.replace("classifier.", "classifier.out_proj.")
        first = 2 if "position_embeddings" in own and name in BEHIND_PADDING else 0
        expected[names.get_name(bare, try_suffixes=(".weight", ".bias"))] = values[first:]
    if ending == "Model":
        expected = {given: values for given, values in expected.items() if not given.startswith("cls.")}
    assert found.keys() == expected.keys()
    for given, values in expected.items():
        np.testing.assert_array_equal(found[given], values, err_msg=given)
    layers, templates = range(model.config.num_hidden_layers), gguf.MODEL_TENSORS[gguf.MODEL_ARCH.BERT]
    known = {gguf.TENSOR_NAMES[each].format(bid=layer) for each in templates for layer in layers}
    assert {given.rpartition(".")[0] for given in found} <= known


def test_sizes_and_labels_are_those_of_the_model(tmp_path: Path) -> None:
    tokenizer = bert_tokenizer(tmp_path / "t")
    fields = fields_of(
        exported(
            small("Roberta", "ForSequenceClassification", id2label={0: "bad", 1: "so so", 2: "good"}),
            tmp_path / "m.gguf",
            processing_class=tokenizer,
            dtype="float16",
        )
    )
    expected = {
        "general.architecture": "bert", "general.type": "model", "general.file_type": 1, "bert.block_count": 3,
        "bert.context_length": 40, "bert.embedding_length": 60, "bert.feed_forward_length": 84,
        "bert.attention.head_count": 5, "bert.attention.causal": False, "tokenizer.ggml.token_type_count": 2,
        "bert.pooling_type": 4, "bert.classifier.output_labels": ["bad", "so so", "good"],
    }  # fmt: skip
    assert {name: fields[name] for name in expected} == expected
    assert fields["bert.attention.layer_norm_epsilon"] == pytest.approx(1e-12)
    for mode, number in (("mean", 1), ("cls", 2)):
        model: Any = small("Bert", "Model")
        path = tmp_path / f"{mode}.gguf"
        fields = fields_of(exported(model.with_pooling(mode), path, processing_class=tokenizer))
        assert fields["bert.pooling_type"] == number
    fields = fields_of(exported(small("DistilBert", "Model"), tmp_path / "d.gguf", processing_class=tokenizer))
    assert "bert.pooling_type" not in fields  # rows of all tokens
    assert fields["tokenizer.ggml.token_type_count"] == 1


def test_a_full_disk_leaves_no_file_open_and_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []

    def full(writer: Any) -> None:
        opened.extend(writer.fout)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        exported(small("Bert", "Model"), tmp_path / "m.gguf", processing_class=bert_tokenizer(tmp_path / "t"))
    assert [file.closed for file in opened] == [True]
    assert [entry.name for entry in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize("width", [32, 60])
def test_int8_is_blocks_with_a_scale_where_rows_are_cut_into_32(tmp_path: Path, width: int) -> None:
    model = small("Bert", "ForSequenceClassification", hidden_size=width, num_attention_heads=4, intermediate_size=64)
    tokenizer = bert_tokenizer(tmp_path / "t")
    whole = values_of(exported(model, tmp_path / "whole.gguf", processing_class=tokenizer))
    reader = exported(model, tmp_path / "m.gguf", dtype="int8", processing_class=tokenizer)
    assert fields_of(reader)["general.file_type"] == 7
    found = values_of(reader)
    for tensor in reader.tensors:
        values = whole[tensor.name]
        if values.ndim == 1 or tensor.name in ("position_embd.weight", "token_types.weight"):
            assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
            np.testing.assert_array_equal(found[tensor.name], values)
        elif values.shape[1] % 32:
            assert tensor.tensor_type == gguf.GGMLQuantizationType.F16
            np.testing.assert_allclose(found[tensor.name], values, rtol=2**-11, atol=2**-25)
        else:
            assert tensor.tensor_type == gguf.GGMLQuantizationType.Q8_0
            blocks = values.reshape(-1, 32)
            error = np.abs(found[tensor.name].reshape(-1, 32) - blocks).max(axis=1)
            # Half a step, and what rounding the step to float16 adds to the largest of 127 steps.
            assert (error <= np.abs(blocks).max(axis=1) * (0.5 / 127 + 2**-11) * 1.001).all()
            assert error.max() > 0


def test_weights_beyond_float16_are_refused(tmp_path: Path) -> None:
    model = small_model()
    model.parameters["classifier.weight"][0, 0] = 1e6
    tokenizer = bert_tokenizer(tmp_path / "t")
    for dtype in ("float16", "int8"):
        with pytest.raises(ValueError, match=r"cls.output.weight has numbers beyond the range of float16; expect"):
            kd.export(model, tmp_path / "m.gguf", format="gguf", dtype=dtype, processing_class=tokenizer)
    assert not (tmp_path / "m.gguf").exists()


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = small_model()
    model.parameters["classifier.weight"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"cls.output.weight has numbers that are not finite; expected a model"):
        kd.export(model, tmp_path / "m.gguf", format="gguf", processing_class=bert_tokenizer(tmp_path / "t"))
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda name, values: (name, values.T), r"blk.0.ffn_up.weight has the shape \(64, 96\), expected \(96, 64\)"),
        (lambda name, values: ("blk.0.ffn_gate.weight", values), "it has the tensors .*'blk.0.ffn_gate.weight'"),
        (lambda name, values: (name, values * np.float32(1.02)), r"blk.0.ffn_up.weight\[\d+, \d+\] is .*, expected "),
    ],
)
def test_a_file_that_does_not_hold_the_model_is_not_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtype: str, spoil: Any, found: str
) -> None:
    add = gguf_format._add

    def add_wrongly(writer: Any, name: str, values: Any, dtype: str) -> None:
        given = spoil(name, values) if name == "blk.0.ffn_up.weight" else (name, values)
        add(writer, *given, dtype)

    monkeypatch.setattr(gguf_format, "_add", add_wrongly)
    model = small("Bert", "Model", hidden_size=64, num_attention_heads=4, intermediate_size=96)
    tokenizer = bert_tokenizer(tmp_path / "t")
    with pytest.raises(RuntimeError, match=f"the written gguf file is wrong: {found}.*; nothing was written"):
        kd.export(model, tmp_path / "m.gguf", format="gguf", dtype=dtype, processing_class=tokenizer)
    assert not (tmp_path / "m.gguf").exists()


def xlm_roberta() -> Any:
    backend = MAKE_XLM_R()
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return backend


@pytest.mark.parametrize("kind", ["bert", "bert cased", "bert lowercase with accents", "RoBERTa", "XLM-R"])
def test_special_tokens_are_those_that_gguf_finds_in_the_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    monkeypatch.setitem(KINDS, "XLM-R", (xlm_roberta, KINDS["XLM-R"][1]))
    backend = write_kind(kind, tmp_path)
    tokenizer = kd.AutoTokenizer.from_pretrained(tmp_path)
    model = small("Bert", "Model", vocab_size=len(tokenizer) + 2)
    fields = fields_of(exported(model, tmp_path / "m.gguf", processing_class=tokenizer))
    expected = gguf.SpecialVocab(tmp_path, load_merges=kind == "RoBERTa", n_vocab=len(tokenizer))
    for name, number in expected.special_token_ids.items():
        if name != "cls":  # which gguf cannot write
            key = {"unk": "unknown", "sep": "seperator", "pad": "padding"}.get(name, name)
            assert fields[f"tokenizer.ggml.{key}_token_id"] == number
    for name, added in expected.add_special_token.items():
        assert fields[f"tokenizer.ggml.add_{name}_token"] == added
    assert fields.get("tokenizer.ggml.merges", []) == expected.merges
    texts, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert len(texts) == len(types) == len(tokenizer) + 2
    assert list(types[-2:]) == [gguf.TokenType.UNUSED] * 2
    vocabulary = {number: token for token, number in backend.get_vocab().items()}
    if kind.startswith("bert"):
        assert fields["tokenizer.ggml.model"] == "bert"
        assert texts[vocabulary_id(backend, "##film")] == "film"
        assert texts[vocabulary_id(backend, "film")] == "\u2581film"
        assert texts[vocabulary_id(backend, "[CLS]")] == "[CLS]"
        lowers, strips = {"bert": (True, True), "bert cased": (False, False)}.get(kind, (True, False))
        assert fields["tokenizer.ggml.normalizer.lowercase"] == lowers
        assert fields["tokenizer.ggml.normalizer.strip_accents"] == strips
    else:
        assert texts[:-2] == [vocabulary[number] for number in range(len(vocabulary))]
        assert fields["tokenizer.ggml.model"] == ("gpt2" if kind == "RoBERTa" else "t5")
    controls = {number for number, type in enumerate(types) if type == gguf.TokenType.CONTROL}
    unknown = {tokenizer.unk_token_id} if kind == "XLM-R" else set()
    assert controls == set(tokenizer.all_special_ids) - unknown
    if kind == "XLM-R":
        scores = json.loads(backend.to_str())["model"]["vocab"]
        np.testing.assert_allclose(fields["tokenizer.ggml.scores"][:-2], [score for _, score in scores], rtol=1e-6)
        assert types[3] == gguf.TokenType.UNKNOWN


def vocabulary_id(backend: Any, token: str) -> int:
    return int(backend.token_to_id(token))


def sentencepiece_tokenizer(directory: Path, table: bytes = b"") -> Any:
    """XLM-R's, of a small SentencePiece model with a table of replacements."""
    directory.mkdir(exist_ok=True)
    (directory / "sentencepiece.bpe.model").write_bytes(sentencepiece_file(FAIRSEQ_PIECES, charsmap=table))
    return kd.XLMRobertaTokenizer.from_pretrained(directory)


def test_the_table_of_replacements_of_sentencepiece_is_kept(tmp_path: Path) -> None:
    table = (1024).to_bytes(4, "little") + bytes(1024)
    tokenizer = sentencepiece_tokenizer(tmp_path, table)
    fields = fields_of(exported(small("XLMRoberta", "Model"), tmp_path / "m.gguf", processing_class=tokenizer))
    assert bytes(fields["tokenizer.ggml.precompiled_charsmap"]) == table


def test_a_directory_gets_the_file_by_the_name_of_its_type(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    for dtype, name in (("float32", "F32"), ("float16", "F16"), ("int8", "Q8_0")):
        words = f"export --model {model} --format gguf --output {tmp_path / 'out'} --dtype {dtype} --json".split()
        assert cli.main(words) == 0
        figures = json.loads(capsys.readouterr().out)
        assert figures["path"] == str(tmp_path / "out" / f"model-{name}.gguf")
        assert figures["bytes"] == (tmp_path / "out" / f"model-{name}.gguf").stat().st_size
        assert (figures["checked_with"], figures["largest_difference"]) == (f"gguf {version('gguf')}", None)
        assert figures["inputs"] == figures["outputs"] == []
    assert {"config.json", "tokenizer.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert cli.main(words) == 2
    assert "which exists; expected a new file" in capsys.readouterr().err
