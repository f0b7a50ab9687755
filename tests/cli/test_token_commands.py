"""The commands with words and tags: files in, tags and spans out, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import write_model, write_pretrained
from support.small_tags import tagged_sentences, write_conll

import kdistill as kd
from kdistill.cli.main import main


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == 0, capsys.readouterr().err
    return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))


def refused(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    assert main([*map(str, words)]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inputs")
    write_conll(directory / "train.conll", 120)
    write_conll(directory / "dev.conll", 40, seed=1)
    write_pretrained(directory / "pretrained")
    write_model(directory / "classifier")
    config = json.loads((directory / "pretrained/config.json").read_text()) | {"architectures": ["BertModel"]}
    (directory / "pretrained/config.json").write_text(json.dumps(config))
    return directory


QUICK = ("--learning-rate", "0.01", "--per-device-train-batch-size", "8", "--num-train-epochs", "8")


@pytest.fixture(scope="module")
def tagger(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tagger")
    files = ("--train", inputs / "train.conll", "--eval", inputs / "dev.conll", "--output-dir", directory)
    assert main(list(map(str, ["finetune", "--model", inputs / "pretrained", *files, *QUICK]))) == 0
    return directory


def test_an_encoder_learns_the_tags_of_a_file(tagger: Path, inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((tagger / "config.json").read_text())
    assert config["architectures"] == ["BertForTokenClassification"]
    assert config["id2label"] == {"0": "O", "1": "B-praise", "2": "B-thing", "3": "I-thing"}
    assert config["problem_type"] is None
    measured = run(capsys, "evaluate", "--model", tagger, "--data", inputs / "dev.conll", "--per-class")
    assert measured["f1"] > 0.9
    assert measured["n"] == 40
    assert {row["label"] for row in measured["per_class"]} == set(config["id2label"].values())
    assert "token-classification" in (tagger / "README.md").read_text()


def test_predictions_are_json_lines_with_spans(
    tagger: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "tags.jsonl"
    figures = run(capsys, "predict", "--model", tagger, "--data", inputs / "dev.conll", "--output", output)
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert figures["n"] == len(records) == 40
    expected = tagged_sentences(40, 1)
    assert [record["tokens"] for record in records] == [[word for word, _ in row] for row in expected]
    found = [tag for record in records for tag in record["tags"]]
    right = [tag == of for tag, of in zip(found, [of for row in expected for _, of in row], strict=True)]
    measured = run(capsys, "evaluate", "--model", tagger, "--data", inputs / "dev.conll")
    assert np.mean(right) == pytest.approx(measured["accuracy"])
    typed = run(capsys, "predict", "--model", tagger, "--text", "a good, film")
    for entity in typed["predictions"][0]:
        assert "a good, film"[entity["start"] : entity["end"]] == entity["text"]
    assert main(["predict", "--model", str(tagger), "--text", "good film"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "good film"


def test_windows_measure_the_same_words(tagger: Path, inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("evaluate", "--model", tagger, "--data", inputs / "dev.conll")
    whole, cut = run(capsys, *command), run(capsys, *command, "--max-length", "6", "--doc-stride", "2")
    assert cut["n"] == whole["n"] == 40
    assert cut["accuracy"] == pytest.approx(whole["accuracy"], abs=0.1)


def test_a_table_is_read_by_its_columns_and_not_as_a_word_a_line(
    tagger: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate = ("evaluate", "--model", tagger, "--data")
    expected = run(capsys, *evaluate, inputs / "dev.conll")
    rows = [([word for word, _ in row], [tag for _, tag in row]) for row in tagged_sentences(40, 1)]
    table = tmp_path / "rows.tsv"
    table.write_text("".join(f"{a}\t{b}\n" for a, b in [("tokens", "tags"), *rows]))
    assert run(capsys, *evaluate, table)["f1"] == expected["f1"]
    spans = [{"start": 7, "end": 11, "label": "thing"}]
    table.write_text(f"text\tentities\na good film\t{spans}\n")
    assert run(capsys, *evaluate, table)["n"] == 1
    table.write_text("sentence\tlabel\na good film\t1\n")
    said = refused(capsys, *evaluate, table)
    assert "rows.tsv has no column of tags, its columns are 'sentence', 'label'; expected lists of tags (tags" in said
    formats = "as .jsonl, .json and .parquet files hold them, or a word and its tag a line in a .conll or .iob file"
    assert said.endswith(formats)
    train = ("finetune", "--task", "token-classification", "--model", tagger, "--train", table, "--output-dir")
    said = refused(capsys, *train, tmp_path / "out")
    assert "rows.tsv has no column of tags" in said
    assert said.endswith(formats)
    table.write_text("a good film\t1\nthe bad plot\t0\n")
    assert "2 lines begin with more than a word" in refused(capsys, *evaluate, table)
    table.write_text("tokens\ttags\ngood\tB-praise\n")
    assert "'tokens' holds 'good'; expected a list of words" in refused(capsys, *evaluate, table)


def test_a_student_learns_from_a_tagger_and_goes_on(
    tagger: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("--train", inputs / "train.conll", "--eval", inputs / "dev.conll", "--output-dir", tmp_path / "student")
    command = ("distill", "--teacher", tagger, "--student", "L1-H16-A2", *files, *QUICK[:4])
    first = run(capsys, *command, "--num-train-epochs", "6")
    assert first["eval_f1"] > 0.8
    assert first["teacher_f1"] > 0.9
    assert json.loads((tmp_path / "student/config.json").read_text())["architectures"] == ["BertForTokenClassification"]
    longer = run(capsys, *command, "--num-train-epochs", "8", "--resume")
    assert longer["epoch"] == 8
    report = run(capsys, "report", "--model", tmp_path / "student", "--holdout", inputs / "dev.conll")
    assert report["f1"] == pytest.approx(longer["eval_f1"])
    assert 0 < report["agreement"] <= 1


def test_what_does_not_fit_is_refused(
    tagger: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"tokens": ["good"], "tags": ["O"]}\n{"tokens": ["a", "b"], "tags": ["O"]}\n')
    out = ("--output-dir", tmp_path / "out")
    evaluate = ("evaluate", "--model", tagger, "--data")
    assert "rows.jsonl:2: 2 tokens and 1 tags; expected a tag for each token" in refused(capsys, *evaluate, rows)
    rows.write_text('{"tokens": ["good"], "tags": ["B-lake"]}\n')
    assert "rows.jsonl:1: label 'B-lake' is not one of the model's labels" in refused(capsys, *evaluate, rows)
    assert "a model that is only measured needs rows with its own labels" in refused(capsys, *evaluate, rows)
    rows.write_text('{"sentence": "good film", "label": 1}\n')
    assert "has no labels" in refused(capsys, *evaluate, rows)
    classifier = inputs / "classifier"
    assert "has tokens, and no text column, while the model reads whole texts. Learn a tag" in refused(
        capsys, "evaluate", "--model", classifier, "--data", inputs / "dev.conll"
    )
    assert "dev.conll:1" not in refused(
        capsys, "finetune", "--model", classifier, "--train", inputs / "dev.conll", *out
    )
    predict = ("predict", "--model", tagger, "--text", "good")
    assert "--top-k is 2, and the model gives each word one tag" in refused(capsys, *predict, "--top-k", "2")
    assert "--text-pair is given, and the model tags the words of single" in refused(
        capsys, *predict, "--text-pair", "film"
    )
    main([*map(str, (*predict, "--digits", "3"))])
    assert "warning: --digits has no effect here: JSON has all digits" in capsys.readouterr().err
    assert "tags are written as JSON lines" in refused(capsys, *predict, "--output", tmp_path / "x.tsv")
    assert "--task is text-classification; the model is one for token-classification" in refused(
        capsys, *evaluate, inputs / "dev.conll", "--task", "text-classification"
    )
    kind = ("--problem-type", "single_label_classification")
    train = ("--train", inputs / "train.conll", *out)
    for command in (
        (*evaluate, inputs / "dev.conll"),
        (*("predict", "--data", inputs / "dev.conll"), "--model", tagger),
        ("finetune", "--task", "token-classification", "--model", inputs / "pretrained", *train),
        ("distill", "--teacher", tagger, "--student", "L1-H16-A2", *train),
    ):
        assert "--problem-type is single_label_classification, and a model for token-classification has none" in (
            refused(capsys, *command, *kind)
        )
    assert "only classifiers of whole texts are served; use it with `kdistill predict`" in refused(
        capsys, "serve", "--model", tagger
    )
    weighted = ("finetune", "--model", tagger, "--train", inputs / "dev.conll", *out, "--pos-weight", "balanced")
    assert "--pos-weight is given with problem_type 'single_label_classification'; expected class_weights" in refused(
        capsys, *weighted
    )
    assert "the student is a model for token-classification and the teacher one for text-classification" in refused(
        capsys, "distill", "--teacher", classifier, "--student", tagger, "--train", inputs / "dev.conll", *out
    )


def test_what_the_error_of_an_unknown_tag_advises_helps(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["O", "B-praise", "B-thing", "I-thing", "B-lake"]
    args = kd.TrainingArguments(str(tmp_path / "python"), max_steps=1, disable_tqdm=True)

    def trainer(**labels: Any) -> kd.Trainer:
        model = kd.AutoModelForTokenClassification.from_pretrained(str(inputs / "pretrained"), **labels)
        tokenizer = kd.AutoTokenizer.from_pretrained(str(inputs / "pretrained"))
        return kd.Trainer(model, args, train_dataset=str(inputs / "train.conll"), processing_class=tokenizer)

    advice = r"is not one of .*0 \(LABEL_0\).* in Python id2label= of from_pretrained,"
    with pytest.warns(UserWarning, match="initialised at random"), pytest.raises(ValueError, match=advice):
        trainer()
    with pytest.warns(UserWarning, match="initialised at random"):
        trainer(id2label=dict(enumerate(names)))
    (tmp_path / "odd.conll").write_text("film\tB-lake\n")
    files = ("--train", inputs / "train.conll", "--eval", tmp_path / "odd.conll", "--output-dir", tmp_path / "out")
    finetune = ("finetune", "--model", inputs / "pretrained", *files, "--max-steps", "1")
    for more in ((), ("--ignore-mismatched-sizes",)):
        said = refused(capsys, *finetune, *more)
        assert "odd.conll:1: label 'B-lake' is not one of" in said
        assert "the names of all labels of its rows, those to measure on too:" in said
        assert "in finetune --label-names" in said
    run(capsys, *finetune, "--label-names", ",".join(names))


def test_a_trainer_reads_a_tsv_as_the_commands_do(tagger: Path, inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_bytes((inputs / "dev.conll").read_bytes())
    (tmp_path / "table.tsv").write_text('tokens\ttags\n["good", "film"]\t["O", "B-thing"]\n')
    model = kd.AutoModelForTokenClassification.from_pretrained(str(tagger))
    args = kd.TrainingArguments(str(tmp_path / "out"), disable_tqdm=True)
    trainer = kd.Trainer(model, args, processing_class=kd.AutoTokenizer.from_pretrained(str(tagger)))
    assert (
        trainer.evaluate(str(tmp_path / "dev.tsv"))["eval_f1"]
        == (trainer.evaluate(str(inputs / "dev.conll"))["eval_f1"])
    )
    assert len(trainer.predict(str(tmp_path / "table.tsv")).label_ids) == 1


def test_a_run_names_the_argument_with_which_it_would_read_other_tokens(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("finetune", "--model", inputs / "pretrained", "--train", inputs / "train.conll", "--max-length", "8")
    words = (*words, "--output-dir", tmp_path / "out", "--save-steps", "1")
    run(capsys, *words, "--max-steps", "1")
    for more, expected in (
        (("--max-length", "6"), "max_length was 8 and is now 6"),
        (("--doc-stride", "4"), "doc_stride was None and is now 4"),
        (("--max-length", "6", "--label-all-tokens"), "max_length was 8 and is now 6; label_all_tokens was False and"),
    ):
        said = refused(capsys, *words, "--max-steps", "2", "--resume", *more)
        assert f"the run in output_dir read its rows otherwise: {expected}" in said
    run(capsys, *words, "--max-steps", "2", "--resume")


def test_a_tagger_is_measured_and_examined(
    tagger: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = run(capsys, "bench", "--model", tagger, "--data", inputs / "dev.conll", "--rows", "8")
    assert figures["programs"]["kdistill"]["sentences_per_second"] > 0
    files = ("--train", inputs / "train.conll", "--eval", inputs / "dev.conll", "--output-dir", tmp_path / "out")
    assert main([*map(str, ("doctor", "--teacher", tagger, "--student", "L1-H16-A2", *files)), "--json"]) in (0, 1)
    checks = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "the teacher has accuracy" in json.dumps(checks)
    (tmp_path / "odd.conll").write_text("film\tB-lake\n")
    files = (*files[:2], "--eval", tmp_path / "odd.conll", *files[4:])
    assert main([*map(str, ("doctor", "--teacher", tagger, "--student", "L1-H16-A2", *files)), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out.splitlines()[-1])["findings"]
    (error,) = (finding["text"] for finding in findings if finding["level"] == "error")
    assert "odd.conll:1: label 'B-lake' is not one of the model's labels" in error


def test_token_files_of_tags_stand_for_the_file(
    tagger: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []
    for name in ("train", "dev"):
        words = ("--data", inputs / f"{name}.conll", "--tokenizer", inputs / "pretrained", "--shard-rows", 50)
        made.append(run(capsys, "encode", *words, "--task", "token-classification", "--output", tmp_path / name))
    assert [(of["n"], of["windows"], of["truncated"], of["num_labels"]) for of in made] == [
        (120, 120, 0, 4),
        (40, 40, 0, 4),
    ]
    files = ("--train", tmp_path / "train", "--eval", tmp_path / "dev", "--output-dir", tmp_path / "tagger")
    run(capsys, "finetune", "--model", inputs / "pretrained", *files, *QUICK)
    assert (tmp_path / "tagger/model.safetensors").read_bytes() == (tagger / "model.safetensors").read_bytes()
    ours, theirs = (
        run(capsys, "evaluate", "--model", tagger, "--data", of) for of in (tmp_path / "dev", inputs / "dev.conll")
    )
    assert {name for name in ours if ours[name] != theirs[name]} <= {"runtime", "samples_per_second", "data"}
    data = ("--data", tmp_path / "dev", "--output", tmp_path / "answers.jsonl")
    assert "expected the file that they were made of" in refused(capsys, "predict", "--model", tagger, *data)
    assert "token files of rows of words" in refused(capsys, "label", "--teacher", tagger, *data)
    run(capsys, "label", "--teacher", tagger, "--data", inputs / "train.conll", "--output", tmp_path / "answers.jsonl")
    records = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    only = "".join(json.dumps({"teacher_logits": of["teacher_logits"]}) + "\n" for of in records)
    (tmp_path / "answers.jsonl").write_text(only)
    words = ("--teacher-logits", tmp_path / "answers.jsonl", "--student", "L1-H16-A2", "--tokenizer", tagger)
    words = ("distill", *words, "--train", tmp_path / "train", "--output-dir", tmp_path / "student")
    assert "are found by its words; expected the file" in refused(capsys, *words)
