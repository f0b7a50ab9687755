"""What of an export needs no other package: what is refused, before any work and with nothing left behind.

tests/oracle/test_export_onnx.py has what needs the packages of the extra.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import small_model, write_model, write_rows

import kdistill as kd
from kdistill import _core
from kdistill.cli import main as cli
from kdistill.exporters.gguf import GGUF
from kdistill.exporters.onnx import ONNX
from kdistill.exporters.onnx_check import _difference
from kdistill.exporters.onnx_graph import ACTIVATIONS, inputs_of, outputs_of
from kdistill.exporters.output import Output


@pytest.mark.parametrize(("dtype", "lacking"), [("float32", "onnx"), ("int8", "onnx"), ("int8", "onnxruntime")])
def test_a_missing_package_is_an_error_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, dtype: str, lacking: str
) -> None:
    monkeypatch.setattr("kdistill.exporters.onnx.find_spec", lambda name: None if name == lacking else object())
    output = tmp_path / "out"
    with pytest.raises(ImportError, match=rf'needs the package {lacking}: pip install "kdistill\[export\]"'):
        kd.export(small_model(), output, format="onnx", dtype=dtype)
    write_model(tmp_path / "model")
    words = [
        "export",
        "--model",
        str(tmp_path / "model"),
        "--format",
        "onnx",
        "--output",
        str(output),
        "--dtype",
        dtype,
    ]
    assert cli.main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not output.exists()


def test_an_unknown_format_or_type_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format is 'onxx'; expected one of onnx, gguf; did you mean 'onnx'"):
        kd.export("nowhere", tmp_path / "out", format="onxx")
    with pytest.raises(ValueError, match="dtype is 'bfloat16'; expected one of float32, float16, int8 for onnx"):
        kd.export("nowhere", tmp_path / "out", format="onnx", dtype="bfloat16")


def test_the_ending_of_another_format_is_a_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("kdistill.exporters.gguf.find_spec", lambda _: object())
    with pytest.raises(ValueError, match=r"m.onnx', a name of onnx; expected one that ends in .gguf or a directory"):
        kd.export(small_model(), tmp_path / "m.onnx", format="gguf")


def test_a_tokenizer_that_would_be_written_nowhere_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("kdistill.exporters.onnx.find_spec", lambda _: object())
    tokenizer = kd.AutoTokenizer.from_pretrained(write_model(tmp_path / "model"))
    with pytest.raises(ValueError, match="processing_class is given, and a file of onnx has no place for a tokenizer"):
        kd.export(small_model(), tmp_path / "m.onnx", format="onnx", processing_class=tokenizer)


def test_rows_for_a_format_or_type_without_ranges_are_refused_first(tmp_path: Path) -> None:
    for format, dtype in (("onnx", "float32"), ("onnx", "float16"), ("gguf", "int8")):
        with pytest.raises(
            ValueError,
            match=rf"data is given, and {format} with dtype {dtype} has no ranges that rows could show; expected "
            "format onnx with dtype int8, or no data",
        ):
            kd.export("nowhere", tmp_path / "out", format=format, dtype=dtype, data=["nothing"])


@pytest.mark.parametrize(
    "given", [{"rows": 5}, {"args": kd.TrainingArguments()}, {"text_column": "a"}, {"label_column": "b"}], ids=list
)
def test_what_is_said_about_rows_that_are_not_given_is_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(ValueError, match=f"{name} is given, and data is None, whose rows it is about; expected data"):
        kd.export("nowhere", tmp_path / "out", format="onnx", dtype="int8", **given)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dtype", "float16", "--data", "{rows}"), "--data is given, and onnx with dtype float16 has no ranges"),
        (("--rows", "5"), "--rows is given, and --data, whose rows it is about, is not; expected --data FILE"),
        (("--text-column", "a"), "--text-column is given, and --data, whose rows"),
        (("--max-length", "9"), "--max-length is given, and --data, whose rows it is about, is not"),
        (("--no-quoted",), "--quoted is given, and --data, whose rows it is about, is not"),
        (("--data", "{rows}", "--rows", "0"), "--rows is 0; expected at least 1"),
        (("--data", "{missing}"), "{missing}"),
        (("--data", "{empty}"), "{empty} has no rows"),
        (("--data", "{rows}", "--model", "{bare}"), "{bare} has no tokenizer.json or vocab.txt"),
    ],
)
def test_rows_that_cannot_show_ranges_are_one_error_and_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.setattr("kdistill.exporters.onnx.find_spec", lambda _: object())
    places = {name: tmp_path / name for name in ("model", "bare", "rows.tsv", "empty.tsv", "missing.tsv")}
    write_model(places["model"])
    small_model().save_pretrained(places["bare"])
    write_rows(places["rows.tsv"], 8)
    places["empty.tsv"].write_text("sentence\tlabel\n")
    named = {path.stem: str(path) for path in places.values()}
    command = ["export", "--model", named["model"], "--format", "onnx", "--output", str(tmp_path / "out")]
    command += ["--dtype", "int8"] if "--dtype" not in words else []
    assert cli.main([*command, *(word.format(**named) for word in words)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert said.format(**named) in errors[-1]
    assert not (tmp_path / "out").exists()


def test_a_name_with_the_ending_is_a_file_and_any_other_a_directory(tmp_path: Path) -> None:
    assert Output.of(tmp_path / "a.onnx", ONNX, "int8") == (tmp_path / "a.onnx", None)
    assert Output.of(tmp_path / "a", ONNX, "float32") == (tmp_path / "a" / "onnx" / "model.onnx", tmp_path / "a")
    assert Output.of(tmp_path / "a", GGUF, "int8") == (tmp_path / "a" / "model-Q8_0.gguf", tmp_path / "a")
    directory = tmp_path / "b.onnx"
    directory.mkdir()
    assert Output.of(directory, ONNX, "int8") == (directory / "onnx" / "model_quantized.onnx", directory)


def test_what_exists_or_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "out" / "onnx").mkdir(parents=True)
    (tmp_path / "out" / "onnx" / "model.onnx").symlink_to("nowhere")
    for output, error in (
        ("a.onnx", FileExistsError),
        ("out", FileExistsError),
        ("file", NotADirectoryError),
        ("gone/a.onnx", FileNotFoundError),
    ):
        with pytest.raises(error, match="output is '"):
            Output.of(tmp_path / output, ONNX, "float32")


def test_a_place_that_cannot_be_written_is_named_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Root may write into any directory, so the system's refusal is made up here."""

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    for name in ("a.onnx", "out"):
        with pytest.raises(PermissionError, match="which cannot be written: Permission denied"):
            Output.of(tmp_path / name, ONNX, "float32")
    assert list(tmp_path.iterdir()) == []


def write_beside(place: Output, *names: str, failing: bool = False, keep: bool = False) -> None:
    """Write a graph, and in a directory these files beside it, perhaps with an error in the end."""
    with place.writing(keep=keep) as made:
        made.file.write_text("ours")
        for name in names if made.directory is not None else ():
            (made.directory / name).write_text("ours")
        if failing:
            raise ValueError("spoilt")


def test_a_failure_while_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    for name in ("a.onnx", "new/out"):
        with pytest.raises(ValueError, match="spoilt"):
            write_beside(Output.of(tmp_path / name, ONNX, "int8"), "config.json", failing=True)
    assert list(tmp_path.iterdir()) == []


def test_files_of_another_model_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    theirs = tmp_path / "out" / "config.json"
    theirs.write_text("theirs")
    place = Output.of(tmp_path / "out", ONNX, "float32")
    with pytest.raises(FileExistsError, match=r"config.json' exists with another content"):
        write_beside(place, "a.json", "config.json")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "out"]
    assert theirs.read_text() == "theirs"
    write_beside(place, "a.json", "config.json", keep=True)
    assert theirs.read_text() == "theirs"
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == [
        "a.json",
        "config.json",
        "model.onnx",
        "onnx",
    ]


def test_the_directory_that_one_works_in_stays_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    write_beside(Output.of(".", ONNX, "float32"), "config.json")
    assert sorted(path.name for path in Path().rglob("*")) == ["config.json", "model.onnx", "onnx"]


def test_every_activation_can_be_written() -> None:
    assert set(ACTIVATIONS) == set(_core.ACTIVATIONS)


def test_names_of_inputs_and_outputs_are_those_of_optimum() -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 30}
    typed = ("input_ids", "attention_mask", "token_type_ids")
    for name in ("Bert", "Electra", "Albert"):
        config = getattr(kd, f"{name}Config")(**sizes)
        assert inputs_of(getattr(kd, f"{name}ForSequenceClassification")(config)) == typed
    for name in ("DistilBert", "MPNet", "XLMRoberta", "Camembert"):
        types = {"type_vocab_size": 1} if name in ("XLMRoberta", "Camembert") else {}
        config = getattr(kd, f"{name}Config")(**sizes, **types)
        assert inputs_of(getattr(kd, f"{name}ForSequenceClassification")(config)) == typed[:2]
    one_type = kd.BertConfig(**sizes, type_vocab_size=1)  # whose tokenizer writes zeros
    assert inputs_of(kd.BertForSequenceClassification(one_type)) == typed
    config = kd.BertConfig(**sizes)
    assert outputs_of(kd.BertForTokenClassification(config)) == outputs_of(kd.BertForMaskedLM(config)) == ("logits",)
    assert outputs_of(kd.BertForQuestionAnswering(config)) == ("start_logits", "end_logits")
    assert outputs_of(kd.BertModel(config)) == ("last_hidden_state",)
    embedding = kd.BertModel(config).with_pooling("mean")
    assert outputs_of(embedding) == ("last_hidden_state", "sentence_embedding")


def test_numbers_that_are_not_finite_and_other_shapes_are_no_logits() -> None:
    logits = np.ones((2, 3), np.float32)
    for dtype in ("float32", "int8"):
        assert _difference("logits", logits, logits, dtype) == 0
        for wrong in (np.full((2, 3), np.nan, np.float32), np.full((2, 3), np.inf, np.float32), logits[:, :1]):
            with pytest.raises(RuntimeError, match=r"is wrong: logits has shape .* finite numbers"):
                _difference("logits", wrong, logits, dtype)
