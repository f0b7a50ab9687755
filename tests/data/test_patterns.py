"""Patterns: several files as one source of rows, wherever a file is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, sentences, small_model, weights, write_model, write_rows
from support.small_tags import tagged_sentences, write_conll

import kdistill as kd
from kdistill.cli.data_files import FORMAT, data_file
from kdistill.cli.main import main
from kdistill.data.files import TOKEN_HEADER
from kdistill.data.sources import read_table

KINDS = ["tsv", "csv", "jsonl", "parquet"]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format that the file's name ends with."""
    kind = path.name.partition(".")[2]
    if kind == "parquet":
        pa = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        between = "\t" if kind == "tsv" else ","
        lines = [between.join(map(str, of)) for of in ([*rows[0]], *(row.values() for row in rows))]
        path.write_text("\n".join(lines) + "\n")
    return path


def parts(directory: Path, kind: str) -> tuple[str, list[dict[str, Any]]]:
    """Write three files, the names of which are not sorted as they are written; return the pattern and all rows."""
    rows = [{"text": text, "label": label} for text, label in sentences(9)]
    for number in (2, 0, 1):
        write(directory / f"part-{number}.{kind}", rows[3 * number : 3 * number + 3])
    return str(directory / f"part-*.{kind}"), rows


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_of_a_pattern_are_those_of_its_files_in_the_order_of_names(tmp_path: Path, kind: str) -> None:
    pattern, rows = parts(tmp_path, kind)
    found = read_table(pattern)
    assert found.source == pattern
    assert found["text"] == [row["text"] for row in rows]
    assert [*map(int, found["label"])] == [row["label"] for row in rows]
    last = {"tsv": "{}:4", "csv": "{}:4", "jsonl": "{}:3", "parquet": "row 2 of {}"}[kind]
    assert [found.where(row) for row in (5, 8)] == [last.format(tmp_path / f"part-{n}.{kind}") for n in (1, 2)]
    assert found.select([8, 0]).where(0) == found.where(8)
    assert found.places is not None
    assert list(found.places[7:]) == [found.where(7), found.where(8)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_file_with_other_columns_is_named(tmp_path: Path, kind: str) -> None:
    pattern, _ = parts(tmp_path, kind)
    write(tmp_path / f"part-1.{kind}", [{"text": "good", "category": 1}])
    place = {"tsv": r"{}:2", "csv": r"{}:2", "jsonl": r"{}:1", "parquet": r"row 0 of \S*{}"}[kind]
    said = rf"{place.format(f'part-1.{kind}')}: the columns are 'text', 'category', and in the files before it 'text',"
    with pytest.raises(ValueError, match=said):
        read_table(pattern)


@pytest.mark.parametrize("kind", ["tsv", "csv", "parquet"])
@pytest.mark.parametrize("row", [{"text": "good"}, {"text": "good", "label": 1, "more": 1}], ids=["lacks", "has more"])
def test_a_later_file_that_lacks_a_column_or_has_one_more_is_refused(tmp_path: Path, kind: str, row: Any) -> None:
    pattern, _ = parts(tmp_path, kind)
    write(tmp_path / f"part-1.{kind}", [row])
    with pytest.raises(
        ValueError, match=rf"part-1\.{kind}\S*: the columns are .* expected the same names in all files"
    ):
        read_table(pattern)


def test_rows_of_json_may_leave_out_what_others_have(tmp_path: Path) -> None:
    pattern, rows = parts(tmp_path, "jsonl")
    write(tmp_path / "part-0.jsonl", [{"text": "good"}])
    write(tmp_path / "part-2.jsonl", [{"text": "bad", "label": 0, "id": 7}])
    found = read_table(pattern)
    assert found["label"] == [None, *(row["label"] for row in rows[3:6]), 0]
    assert found["id"] == [None] * 4 + [7]
    (tmp_path / "rows-1.json").write_text(json.dumps({"train": rows[:2], "test": rows[2:3]}))
    (tmp_path / "rows-2.json").write_text(json.dumps({"train": rows[4:5]}))
    assert read_table(str(tmp_path / "rows-*.json#train"))["text"] == [row["text"] for row in (*rows[:2], rows[4])]


def test_what_a_pattern_cannot_stand_for_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no-\*\.tsv stands for no file; expected a \.tsv"):
        read_table(str(tmp_path / "no-*.tsv"))
    for name in ("tokens-1", "tokens-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / TOKEN_HEADER).write_text("{}")
    with pytest.raises(ValueError, match=r"tokens-\* stands for \S*tokens-1, which holds token files; expected one"):
        read_table(str(tmp_path / "tokens-*"))
    write_rows(tmp_path / "rows-[1].tsv", 3)
    write_rows(tmp_path / "rows-1.tsv", 5)
    assert len(read_table(str(tmp_path / "rows-[1].tsv"))) == 3  # a name comes before a pattern


def test_names_of_labels_that_files_state_must_be_the_same(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for number, names in enumerate((["no", "yes"], ["yes", "no"])):
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = pa.table({"text": ["good"], "label": [1]}).replace_schema_metadata(
            {"huggingface": json.dumps(features)}
        )
        pq.write_table(table, tmp_path / f"part-{number}.parquet")
    with pytest.raises(ValueError, match=r"part-1\.parquet calls the labels in 'label' yes, no; the files before it"):
        read_table(str(tmp_path / "part-*.parquet"))


@pytest.mark.parametrize("labels", [[1], ["1"], [None, 0], [[0, 1]]])
def test_numbers_beside_labels_with_names_are_refused(tmp_path: Path, labels: list[Any]) -> None:
    """Whichever file is the first; texts, and files without labels, mean what they say."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    features = {"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}

    def write_part(name: str, values: list[Any], *, named: bool) -> None:
        table = pa.table({"text": ["good"] * len(values), "label": values})
        metadata = {"huggingface": json.dumps(features)} if named else {}
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / name)

    write_part("a-1.parquet", [1], named=True)
    write_part("a-2.parquet", labels, named=False)
    write_part("b-1.parquet", labels, named=False)
    write_part("b-2.parquet", [1], named=True)
    row = len(labels) - 1
    for name, place in (("a", "a-2"), ("b", "b-1")):
        said = rf"row {row} of \S*{place}\.parquet: no names say what .* in 'label' means, and another .* no, yes; exp"
        with pytest.raises(ValueError, match=said):
            read_table(str(tmp_path / f"{name}-*.parquet"))
        write_part(f"{place}.parquet", ["yes", None], named=False)
        assert "yes" in read_table(str(tmp_path / f"{name}-*.parquet"))["label"]
    write_part("a-2.parquet", labels, named=False)
    with pytest.raises(ValueError, match=r"no names say what .* in 'label' means"):
        kd.load_dataset("parquet", data_files=[str(tmp_path / f"a-{number}.parquet") for number in (1, 2)])


def test_a_file_that_is_named_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(Path("model"))
    for name in ("a.tsv", "ab.tsv"):
        write_rows(Path(name), 3)
    for files in (["a.tsv", "a*.tsv"], ["./a.tsv", "a.tsv"], ["a*.tsv", str(tmp_path / "ab.tsv")]):
        with pytest.raises(
            ValueError, match=r"ab?\.tsv is named 2 times, by itself or by a pattern, and each of its rows"
        ):
            kd.encode(files, "model", "tokens")
        with pytest.raises(ValueError, match=r"ab?\.tsv is named 2 times"):
            kd.load_dataset("csv", data_files=files, delimiter="\t")
    assert not Path("tokens").exists()
    assert len(kd.encode(["ab.tsv", "a.tsv"], "model", "tokens")) == 6


def test_a_run_on_a_pattern_has_the_bits_of_one_on_all_rows(tmp_path: Path) -> None:
    pattern, rows = parts(tmp_path, "tsv")
    whole, model = write(tmp_path / "whole.tsv", rows), write_model(tmp_path / "model")
    found = []
    for name, source in (("parts", pattern), ("whole", str(whole))):
        words = ["finetune", "--model", str(model), "--train", source, "--eval", source, "--disable-tqdm"]
        words += ["--num-train-epochs", "1", "--report-to", "none", "--output-dir", str(tmp_path / name)]
        assert main(words) == 0
        found.append((tmp_path / name / "model.safetensors").read_bytes())
    assert found[0] == found[1]
    assert "part-*.tsv" in (tmp_path / "parts" / "README.md").read_text()
    args = kd.TrainingArguments(**run_fields(tmp_path, {"max_steps": 1, "eval_strategy": "no"}))
    tokenizer = kd.AutoTokenizer.from_pretrained(model)
    trained = [
        kd.Trainer(small_model(2), args, train_dataset=source, processing_class=tokenizer)
        for source in (pattern, Path(pattern))
    ]
    assert [len(of.train_dataset) for of in trained] == [9, 9]
    np.testing.assert_array_equal(weights(trained[0].model), weights(trained[1].model))


def test_a_report_finds_a_pattern_where_the_run_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts(tmp_path, "tsv")
    write_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    words = ["finetune", "--model", "model", "--train", "part-*.tsv", "--eval", "part-[01].tsv", "--disable-tqdm"]
    assert main([*words, "--max-steps", "1", "--report-to", "none", "--output-dir", "out"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["report", "--model", "../out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["n"] == 6


def test_what_a_pattern_stands_for_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pattern, _ = parts(tmp_path, "jsonl")
    model = write_model(tmp_path / "model")
    for command in (["label", "--teacher"], ["predict", "--model"]):
        output = str(tmp_path / "part-2.jsonl")
        assert main([*command, str(model), "--data", pattern, "--output", output, "--disable-tqdm"]) == 2
        assert "part-2.jsonl', which this command reads; choose another file" in capsys.readouterr().err


def test_answers_of_several_files_are_learned(tmp_path: Path) -> None:
    pattern, rows = parts(tmp_path, "jsonl")
    for number in range(3):
        answers = [{"text": row["text"], "teacher_logits": [0.5, row["label"]]} for row in rows[3 * number :][:3]]
        write(tmp_path / f"answers-{number}.jsonl", answers)
    words = ["distill", "--teacher-logits", str(tmp_path / "answers-*.jsonl"), "--student", "L1-H16-A2", "--train"]
    words += [pattern, "--tokenizer", str(write_model(tmp_path / "model")), "--output-dir", str(tmp_path / "out")]
    assert main([*words, "--max-steps", "1", "--report-to", "none", "--disable-tqdm"]) == 0


@pytest.mark.parametrize("ending", ["tsv", "txt", "conll"])
def test_files_of_words_and_tags_are_read_as_each_alone(tmp_path: Path, ending: str) -> None:
    for number in (0, 1):
        write_conll(tmp_path / f"words-{number}.{ending}", 4, seed=number)
    options = dict.fromkeys(FORMAT)
    for pattern in (f"words-*.{ending}", "words-*"):
        found = data_file(str(tmp_path / pattern), options, "token-classification").table
        expected = [*tagged_sentences(4), *tagged_sentences(4, 1)]
        assert found["tokens"] == [[word for word, _ in row] for row in expected]
        assert f"words-1.{ending}:" in found.where(7)


def test_an_empty_name_is_not_that_of_the_current_directory() -> None:
    with pytest.raises(ValueError, match="a file of rows is named ''; expected its name"):
        data_file("", dict.fromkeys(FORMAT))


def test_several_names_are_answered_with_the_pattern(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(write_rows(tmp_path / f"part-{number}.tsv", 3)) for number in (0, 1)]
    assert main(["evaluate", "--model", "m", "--data", *files]) == 2
    assert "part-1.tsv' is an unexpected argument; several files of rows are named by" in capsys.readouterr().err
