"""Heads, feed-forward units and layers: what they matter, and models that are left with some of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_architectures import write_encoder
from support.small_run import (
    VOCABULARY,
    run_fields,
    sentences,
    small_config,
    small_dataset,
    small_model,
    write_model,
    write_rows,
)

import kdistill as kd
from kdistill.cli.main import main
from kdistill.compress.choice import kept_parts
from kdistill.compress.feed_forward import with_units
from kdistill.compress.heads import with_heads
from kdistill.compress.importance import importance
from kdistill.compress.layers import with_layers
from kdistill.models.registry import ARCHITECTURES
from kdistill.train.objective import Supervised

HEADS = [np.array([1, 2]), np.array([0])]
UNITS = [np.arange(0, 32, 3), np.array([5, 6, 30])]
BATCH = kd.pack([[2, 5, 9, 3], [2, 6, 3], [2, 7, 8, 9, 10, 11, 3]])


def four_heads(**changes: Any) -> Any:
    """A model whose tensors are all drawn wide, biases too."""
    model = small_model(num_attention_heads=4, **changes)
    with model.writing() as flat:
        flat += np.random.default_rng(3).standard_normal(flat.size).astype(np.float32) / 4
    return model


def with_zeros(model: Any, name: str, kept: list[Any], width: int) -> Any:
    """The model with zeros in what reads the parts that are not kept."""
    tensors = {tensor: values.copy() for tensor, values in model.tensors.items()}
    for layer, parts in enumerate(kept):
        columns = tensors[f"layer.{layer}.{name}"]
        gone = np.setdiff1d(np.arange(columns.shape[1] // width), parts)
        columns.reshape(len(columns), -1, width)[:, gone] = 0
    return type(model).from_tensors(model.config, tensors)


def test_heads_that_are_gone_count_as_zeros_and_are_not_computed() -> None:
    model = four_heads()
    pruned = with_heads(model, HEADS)
    expected = with_zeros(model, "output", HEADS, 4).forward(BATCH)
    np.testing.assert_allclose(pruned.forward(BATCH), expected, rtol=1e-5, atol=1e-5)  # other sums of the same numbers
    assert not np.allclose(model.forward(BATCH), expected, atol=1e-3)
    assert pruned.config.pruned_heads == {0: [0, 3], 1: [1, 2, 3]}
    assert [pruned.tensors[f"layer.{layer}.query"].shape for layer in (0, 1)] == [(8, 16), (4, 16)]
    assert pruned.config.layer_shapes() == ((2, 32), (1, 32))
    assert "L2-H16-A4, heads 1 to 2, feed-forward 32" in repr(pruned)


def test_heads_keep_their_columns_in_a_table_of_relative_positions(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 20}
    config = kd.MPNetConfig(**sizes, vocab_size=20, max_position_embeddings=40)
    whole = kd.MPNetForSequenceClassification(config, seed=1)
    with whole.writing() as flat:
        flat += np.random.default_rng(3).standard_normal(flat.size).astype(np.float32) / 2
    pruned, batch = with_heads(whole, HEADS), kd.pack([[2, 5, 9, 3, *[7] * 20], [2, 6, 3]])
    expected = with_zeros(whole, "output", HEADS, 4).forward(batch)
    np.testing.assert_allclose(pruned.forward(batch), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(pruned.tensors["relative_bias"], whole.tensors["relative_bias"])
    others = type(whole).from_tensors(pruned.config.replace(pruned_heads={0: [0, 1], 1: [0, 1, 2]}), pruned.tensors)
    assert np.abs(others.forward(batch) - expected).max() > 1e-2  # which heads it has is no matter of shapes
    assert others.freeze().weights_hash() != pruned.freeze().weights_hash()
    again = with_heads(with_heads(whole, [np.array([1, 2, 3]), np.array([0, 1])]), [np.array([0, 1]), np.array([0])])
    np.testing.assert_array_equal(again.forward(batch), pruned.forward(batch))
    pruned.save_pretrained(tmp_path)
    read = kd.MPNetForSequenceClassification.from_pretrained(tmp_path)
    np.testing.assert_array_equal(read.forward(batch), pruned.forward(batch))


def test_heads_are_pruned_again_under_the_numbers_that_they_had() -> None:
    model = four_heads()
    twice = with_heads(with_heads(model, HEADS), [np.array([1]), np.array([0])])
    assert twice.config.pruned_heads == {0: [0, 1, 3], 1: [1, 2, 3]}
    expected = with_zeros(model, "output", [np.array([2]), np.array([0])], 4).forward(BATCH)
    np.testing.assert_allclose(twice.forward(BATCH), expected, rtol=1e-5, atol=1e-5)


def test_units_that_are_gone_count_as_zeros_and_are_not_computed() -> None:
    model = four_heads()
    pruned = with_units(model, UNITS)
    expected = with_zeros(model, "down", UNITS, 1).forward(BATCH)
    np.testing.assert_allclose(pruned.forward(BATCH), expected, rtol=1e-5, atol=1e-5)
    assert (pruned.config.intermediate_size, pruned.config.intermediate_sizes) == (11, [11, 3])
    assert "L2-H16-A4, feed-forward 3 to 11, vocabulary 13" in repr(pruned)
    alike = with_units(model, [UNITS[0], UNITS[0]])
    assert (alike.config.intermediate_size, alike.config.intermediate_sizes) == (11, None)


def test_layers_are_kept_in_the_order_that_is_named() -> None:
    model = with_units(with_heads(four_heads(), HEADS), UNITS)
    turned = with_layers(model, [1, 0])
    assert turned.config.layer_shapes() == model.config.layer_shapes()[::-1]
    np.testing.assert_array_equal(turned.tensors["layer.0.up"], model.tensors["layer.1.up"])
    one = with_layers(model, [1])
    assert (one.config.num_hidden_layers, one.config.pruned_heads) == (1, {0: [1, 2, 3]})
    first = with_layers(four_heads(), [0])
    np.testing.assert_array_equal(first.tensors["layer.0.up"], four_heads().tensors["layer.0.up"])


def test_layers_take_the_heads_and_units_that_they_lack_with_them() -> None:
    whole = with_units(with_heads(four_heads(), HEADS), UNITS)
    for layers in ([1], [1, 0]):
        part = with_layers(whole, layers)
        assert part.config.layer_shapes() == tuple(whole.config.layer_shapes()[layer] for layer in layers)
        assert part.config.pruned_heads == {place: whole.config.pruned_heads[of] for place, of in enumerate(layers)}
        again = type(part).from_tensors(part.config, part.tensors)
        np.testing.assert_array_equal(again.forward(BATCH), part.forward(BATCH))


@pytest.mark.filterwarnings("ignore:the teacher's accuracy")
def test_what_lies_inside_a_pruned_model_has_its_own_widths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attentions of a call, and the relations that a student learns, kept on disk, from a pruned teacher."""
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))
    teacher, student = with_heads(four_heads(), HEADS), four_heads(seed=2)
    attentions = teacher([[2, 5, 3]], output_attentions=True).attentions
    assert [of[0].shape for of in attentions] == [(2, 3, 3), (1, 3, 3)]
    np.testing.assert_allclose(attentions[0][0].sum(axis=-1), 1, rtol=1e-6)
    changes = {"max_steps": 2, "eval_strategy": "no", "matches": "minilm", "hidden_cache": "1GB"}
    fields = run_fields(tmp_path, changes)
    for learner in (student, with_heads(four_heads(seed=2), [HEADS[1], HEADS[0]])):
        args = kd.DistillationTrainingArguments(
            **fields | {"output_dir": str(tmp_path / f"{learner.num_parameters()}")}
        )
        trainer = kd.DistillationTrainer(learner, args, teacher_model=teacher, train_dataset=small_dataset(16))
        assert np.isfinite(trainer.train().training_loss)
    args = kd.DistillationTrainingArguments(**run_fields(tmp_path, changes | {"matches": "tinybert"}))
    with pytest.raises(ValueError, match="the teacher has 2 attention heads and the student 4; expected equally many"):
        kd.DistillationTrainer(student, args, teacher_model=teacher, train_dataset=small_dataset(16)).train()


def test_importance_is_the_mean_of_how_fast_the_loss_of_each_row_changes() -> None:
    """Compared with differences of the loss where what a head or a unit gives is scaled by 1 +- 0.001."""
    model, rows = four_heads(), small_dataset(6)
    found = importance(model, rows, Supervised(), kd.TrainingArguments())

    def losses(name: str, layer: int, part: int, width: int, factor: float) -> np.ndarray:
        tensors = {tensor: values.copy() for tensor, values in model.tensors.items()}
        tensors[f"layer.{layer}.{name}"][:, part * width : (part + 1) * width] *= np.float32(factor)
        logits = type(model).from_tensors(model.config, tensors).forward(rows.batch(np.arange(6))[0]).astype(np.float64)
        return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(6), rows.labels]

    for layer in (0, 1):
        for of, name, parts, width in (
            (found.heads, "output", range(4), 4),
            (found.units, "down", (0, 7, 31), 1),
        ):
            for part in parts:
                more, less = (losses(name, layer, part, width, 1 + step) for step in (1e-3, -1e-3))
                slope = np.abs((more - less) / 2e-3).mean()
                assert of[layer][part] == pytest.approx(slope, rel=2e-2, abs=5e-4)  # float32 logits, divided by 0.002
    np.testing.assert_array_equal(model.flat_parameters, four_heads().flat_parameters)


def test_the_parts_that_matter_most_stay() -> None:
    two = [np.array([4.0, 1.0, 3.0, 2.0]), np.array([0.1, 0.4, 0.3, 0.2])]
    kept = kept_parts(two, 0.5, "layer", "heads", "heads")
    assert [of.tolist() for of in kept] == [[0, 2], [1, 2]]
    # Layers are scaled alike before they are compared: what matters is the share of a layer's own length.
    one_is_flat = [np.array([4.0, 1.0, 1.0, 1.0]), np.array([0.5, 0.5, 0.5, 0.5])]
    kept = kept_parts(one_is_flat, 5 / 8, "global", "heads", "heads")
    assert [of.tolist() for of in kept] == [[0], [0, 1, 2, 3]]
    assert [len(of) for of in kept_parts(two, 2 / 3, "layer", "heads", "heads")] == [3, 3]
    # Length is the L2 norm: of 0.7 and 0.3 the lesser counts 0.39 by it, and a head of the first layer 0.5.
    one_is_steep = [np.array([1.0, 1.0, 1.0, 1.0]), np.array([0.7, 0.3])]
    kept = kept_parts(one_is_steep, 5 / 6, "global", "heads", "heads")
    assert [of.tolist() for of in kept] == [[0, 1, 2, 3], [0]]
    for scope in ("layer", "global"):  # of alike ones the first stay
        assert kept_parts([np.ones(90)], 0.5, scope, "units", "units")[0].tolist() == [*range(45)]


def test_a_prune_that_leaves_a_layer_nothing_is_refused() -> None:
    two = [np.array([4.0, 1.0]), np.array([1.0, 2.0])]
    with pytest.raises(ValueError, match=r"heads is 0.2, which leaves layer 0 none of its 2 heads; .* at least 0.5"):
        kept_parts(two, 0.2, "layer", "heads", "heads")
    with pytest.raises(ValueError, match="the 1 most important of all 4 heads leave layer 1 none; expected a larger"):
        kept_parts(two, 0.25, "global", "heads", "heads")


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_every_architecture_is_pruned_read_again_and_learns(tmp_path: Path, model_type: str) -> None:
    directory = write_encoder(model_type, tmp_path / "encoder")
    tokenizer = kd.AutoTokenizer.from_pretrained(directory)
    model = kd.AutoModelForSequenceClassification.from_config(kd.AutoConfig.from_pretrained(directory), seed=2)
    rows = [{"text": text, "label": label} for text, label in sentences(8)]
    figures = kd.prune(
        model, rows, tmp_path / "out", heads=0.5, feed_forward=0.25, vocabulary=True, processing_class=tokenizer
    )
    pruned = kd.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert figures["heads"] == [1, 1]
    assert figures["feed_forward"] == [8, 8]
    assert figures["operations_kept"] < 0.7
    part = kd.AutoTokenizer.from_pretrained(tmp_path / "out")
    before = pruned.flat_parameters.copy()
    args = kd.TrainingArguments(**run_fields(tmp_path / "run", {"max_steps": 2, "eval_strategy": "no"}))
    trainer = kd.Trainer(pruned, args, train_dataset=rows, processing_class=part)
    trainer.train()
    assert not np.array_equal(pruned.flat_parameters, before)
    assert kd.AutoConfig.from_pretrained(tmp_path / "run" / "out").layer_shapes() == pruned.config.layer_shapes()


def test_config_json_tells_the_shapes_where_layers_differ(tmp_path: Path) -> None:
    with_units(with_heads(four_heads(), HEADS), UNITS).save_pretrained(tmp_path / "both")
    written = json.loads((tmp_path / "both" / "config.json").read_text())
    assert (written["pruned_heads"], written["intermediate_sizes"]) == ({"0": [0, 3], "1": [1, 2, 3]}, [11, 3])
    again = kd.AutoModelForSequenceClassification.from_pretrained(tmp_path / "both")
    assert again.config.layer_shapes() == ((2, 11), (1, 3))
    four_heads().save_pretrained(tmp_path / "whole")
    assert not {"pruned_heads", "intermediate_sizes"} & {*json.loads((tmp_path / "whole/config.json").read_text())}
    with pytest.warns(UserWarning, match="are not loaded"):
        fewer = kd.AutoModelForSequenceClassification.from_pretrained(tmp_path / "both", num_hidden_layers=1)
    assert fewer.config.layer_shapes() == ((2, 11),)


def test_a_changed_size_is_that_of_all_layers() -> None:
    config = small_config(num_attention_heads=4, pruned_heads={0: [1], "1": [2, 3]}, intermediate_sizes=[8, 16])
    assert config.layer_shapes() == ((3, 8), (2, 16))
    assert config.replace(num_attention_heads=2).layer_shapes() == ((2, 8), (2, 16))
    assert config.replace(intermediate_size=20).layer_shapes() == ((3, 20), (2, 20))
    assert config.replace(num_attention_heads=4, id2label={0: "a"}).layer_shapes() == config.layer_shapes()
    assert config.replace(num_hidden_layers=1).layer_shapes() == ((3, 8),)
    assert small_config(pruned_heads={0: []}) == small_config(pruned_heads=None)


def test_a_student_of_a_pruned_teacher_has_its_shape_or_a_whole_one(tmp_path: Path) -> None:
    teacher = with_heads(four_heads(), HEADS)
    same = type(teacher).from_teacher(teacher, teacher.config)
    np.testing.assert_array_equal(same.tensors["layer.1.query"], teacher.tensors["layer.1.query"])
    whole = type(teacher).from_teacher(teacher, teacher.config.replace(pruned_heads=None))
    assert whole.tensors["layer.1.query"].shape == (16, 16)
    with pytest.raises(ValueError, match="each into one of its shape"):
        type(teacher).from_teacher(teacher, teacher.config, layers=[1, 0])


def test_the_command_prunes_recovers_and_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, rows = write_model(tmp_path / "model", num_attention_heads=4), write_rows(tmp_path / "rows.tsv", 16)
    out = tmp_path / "out"
    command = ["prune", "--model", str(model), "--data", str(rows), "--output", str(out), "--json"]
    words = ["--heads", "0.5", "--feed-forward", "0.25", "--scope", "global", "--layers", "1,0", "--rows", "8"]
    assert main([*command, *words, "--teacher", str(write_model(tmp_path / "other", seed=5))]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (sum(figures["heads"]), sum(figures["feed_forward"])) == (4, 16)
    assert figures["num_parameters"] < figures["num_parameters_before"]
    distil = ["distill", "--teacher", str(model), "--student", str(out), "--train", str(rows), "--eval", str(rows)]
    assert main([*distil, "--output-dir", str(tmp_path / "run"), "--max-steps", "2", "--json"]) == 0
    assert main(["evaluate", "--model", str(tmp_path / "run"), "--data", str(rows), "--json"]) == 0
    assert main(["predict", "--model", str(tmp_path / "run"), "--text", "good film", "--json"]) == 0
    capsys.readouterr()
    assert main(["info", "--model", str(tmp_path / "run"), "--json"]) == 0
    about = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert about["intermediate_sizes"] == figures["feed_forward"]


@pytest.mark.filterwarnings("ignore:the teacher's accuracy")
def test_importance_depends_on_the_seed_and_the_teacher(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for text, label in sentences(24)]
    # Of two labels, the gradients of one row have one direction whatever the loss is.
    labels = {"id2label": {0: "bad", 1: "good", 2: "other"}}
    model, other = (write_model(tmp_path / name, seed, **labels) for seed, name in ((1, "model"), (9, "other")))

    def kept(**more: Any) -> Any:
        place = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        kd.prune(model, rows, place, feed_forward=0.25, rows=2, **more)
        return kd.AutoModelForSequenceClassification.from_pretrained(place).flat_parameters

    args = [kd.DistillationTrainingArguments(seed=seed, alpha=0.0, disable_tqdm=True) for seed in (1, 1, 2)]
    first, again, another = (kept(args=of) for of in args)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, another)
    assert not np.array_equal(first, kept(args=args[0], teacher_model=other))


def test_one_command_prunes_in_rounds_and_lets_the_model_recover(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = write_model(tmp_path / "model", num_attention_heads=4), write_rows(tmp_path / "rows.tsv", 16)
    command = ["prune", "--model", str(model), "--data", str(rows), "--output", str(tmp_path / "out"), "--json"]
    words = ["--heads", "0.25", "--feed-forward", "0.5", "--vocabulary", "--rounds", "2", "--max-steps", "1"]
    assert main([*command, *words, "--eval", str(rows)]) == 0, capsys.readouterr().err
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["heads"], figures["feed_forward"], figures["rounds"]) == ([1, 1], [16, 16], 2)
    assert figures["rows_with_same_tokens"] == figures["n"] == 16
    kept = figures["num_parameters"] / figures["num_parameters_before"]
    assert figures["parameters_kept"] == kept
    assert 0.2 < figures["operations_kept"] < 0.6
    assert figures["eval_n"] == 16
    recovered = kd.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert recovered.config.layer_shapes() == ((1, 16), (1, 16))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out", "rows.tsv"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "model, pruned" in card


def test_evaluation_rows_that_tell_what_to_prune_are_warned_of_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 16)
    other = tmp_path / "other.tsv"
    other.write_text("sentence\tlabel\nunheard of\t0\nnothing alike here\t1\n")
    words = ["--heads", "0.5", "--rounds", "2", "--max-steps", "1"]
    for number, (eval_rows, times) in enumerate(((rows, 1), (other, 0))):
        output = ["--output", str(tmp_path / f"out {number}"), "--eval", str(eval_rows)]
        assert main(["prune", "--model", str(model), "--data", str(rows), *words, *output]) == 0
        shared = "16 of 16 rows of rows.tsv (100.0%) share text with rows.tsv: 16 are equal to a row"
        assert capsys.readouterr().err.count(shared) == times


def refused(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    assert main(["prune", *map(str, words)]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_who_cannot_tell_what_matters_is_named_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classifier, rows = write_model(tmp_path / "classifier"), write_rows(tmp_path / "rows.tsv", 9)
    for name in ("encoder", "embedder"):
        encoder = kd.BertModel(small_config(), seed=1)
        (encoder if name == "encoder" else encoder.with_pooling("mean")).save_pretrained(tmp_path / name)
        kd.AutoTokenizer.from_pretrained(classifier).save_pretrained(tmp_path / name)
    command = ("--data", rows, "--heads", "0.5", "--output", tmp_path / "out", "--model")
    assert "--teacher is not given, and the model has no loss of labels; expected a teacher" in refused(
        capsys, *command, tmp_path / "encoder"
    )
    for teacher, message in {
        "classifier": "--teacher is a BertForSequenceClassification, and model embeds texts; expected two models for",
        "encoder": "--teacher is a BertModel without a pooling, which gives a text no embedding; expected one with",
    }.items():
        assert message in refused(capsys, *command, tmp_path / "embedder", "--teacher", tmp_path / teacher)


def test_what_cannot_be_pruned_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 9)
    (tmp_path / "texts.tsv").write_text("sentence\ngood film\n")
    command = ("--model", model, "--data", rows, "--output", tmp_path / "out")
    for words, message in {
        ("--heads", "0"): "--heads is 0.0; expected the share to keep, above 0 and at most 1",
        ("--feed-forward", "1.5"): "--feed-forward is 1.5; expected the share to keep",
        ("--heads", "0.2"): "leaves layer 0 none of its 2 attention heads",
        ("--feed-forward", "0.01"): "leaves layer 0 none of its 32 feed-forward units",
        ("--layers", "0,2"): "--layers is [0, 2]; expected numbers from 0 to 1",
        ("--layers=-1",): "--layers is [-1]; expected numbers from 0 to 1",
        ("--layers", "0,0"): "--layers is [0, 0]; expected each once",
        ("--layers", "first"): "--layers is 'first'; expected numbers from 0, such as 0,2,5",
        ("--first-layers", "3"): "--first-layers is 3; expected the first 1 to 2 of 2 layers",
        ("--first-layers", "0"): "--first-layers is 0; expected the first 1 to 2 of 2 layers",
        ("--layers", "0", "--first-layers", "1"): "are given; expected one of the two",
        ("--vocabulary", "--teacher", model): "expected --heads or --feed-forward beside it",
        ("--heads", "0.5", "--rows", "0"): "rows is 0; expected at least 1",
        ("--vocabulary", "--scope", "global"): "--scope is global, which is about heads and feed-forward units",
        (
            "--heads",
            "0.5",
            "--num-train-epochs",
            "1",
        ): "--num-train-epochs is given, and the pruned model learns nothing",
        ("--heads", "0.5", "--eval", rows): "--eval is given, and the pruned model learns nothing; expected --rounds N",
        ("--heads", "0.5", "--alpha", "0.1"): "expected --rounds N, in which it is pruned and distilled, or --teacher",
        ("--heads", "0.5", "--rounds", "0"): "--rounds is 0; expected at least 1",
        ("--heads", "0.5", "--rounds", "1", "--recipe", "tiny"): "expected another recipe: 'auto' or 'small'",
    }.items():
        assert message in refused(capsys, *command, *words)
    unlabelled = ("--model", model, "--data", tmp_path / "texts.tsv", "--output", tmp_path / "out")
    assert "no row has a label, which tells what heads" in refused(capsys, *unlabelled, "--heads", "0.5")
    assert not (tmp_path / "out").exists()
    with pytest.raises(TypeError, match=r"^heads is 'half' of type str; expected the share to keep, above 0"):
        kd.prune(str(model), str(rows), tmp_path / "out", heads="half")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^layers is \[2\]; expected numbers from 0 to 1"):
        kd.prune(str(model), str(rows), tmp_path / "out", layers=[2])
    with pytest.raises(ValueError, match="scope is 'all'; expected one of layer, global"):
        kd.prune(str(model), str(rows), tmp_path / "out", heads=0.5, scope="all")
    with pytest.raises(ValueError, match="scope or rows is given, and neither heads nor feed_forward"):
        kd.prune(str(model), str(rows), tmp_path / "out", vocabulary=True, scope="global")
    tokenizer = kd.AutoTokenizer.from_pretrained(model)
    with pytest.raises(ValueError, match="teacher_processing_class is given, and teacher_model is None"):
        kd.prune(str(model), str(rows), tmp_path / "out", heads=0.5, teacher_processing_class=tokenizer)


def test_a_prune_of_which_nothing_goes_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 24)
    command = ["prune", "--model", str(model), "--data", str(rows)]
    pieces = "all 13 word pieces occur in the texts, or spell others"
    for number, (words, why) in enumerate(
        {
            ("--heads", "1"): "a share of 1 of the attention heads is all of them; expected",
            ("--first-layers", "2"): "all 2 layers are kept; expected",
            ("--heads", "0.9"): "a share of 0.9 of the attention heads is all of them; expected",
            ("--vocabulary",): f"{pieces}; expected",
            ("--feed-forward", "1", "--vocabulary"): f"a share of 1 of the feed-forward units is all of them, {pieces}",
            ("--layers", "0,1", "--vocabulary"): f"all 2 layers are kept, {pieces}",
            ("--heads", "1", "--feed-forward", "0.5"): None,
            ("--layers", "1,0"): None,
        }.items()
    ):
        output = tmp_path / f"out {number}"
        assert main([*command, "--output", str(output), *words]) == 0
        said = capsys.readouterr().err
        assert ("nothing was pruned" in said) == (why is not None)
        assert why is None or f"nothing was pruned, and {output} holds the model as it was: {why}" in said
    with pytest.warns(UserWarning, match="nothing was pruned, and .* a share of 1 of the attention heads") as warned:
        kd.prune(model, rows, tmp_path / "copy", heads=1)
    assert warned[0].filename == __file__


def test_fewer_rows_than_asked_for_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 9)
    (tmp_path / "some.tsv").write_text(rows.read_text() + "good film\t\nbad plot\t\n")
    for number, (words, count) in enumerate(
        {
            (rows, "--rows", 10): "9",
            (tmp_path / "some.tsv", "--rows", 10): "9 with a label",
            (tmp_path / "some.tsv", "--rows", 12, "--teacher", model): "11",
            (rows, "--rows", 9): None,
            (rows,): None,
        }.items()
    ):
        command = ("--heads", 0.5, "--output", tmp_path / f"out {number}", "--data", *words)
        assert main(["prune", "--model", str(model), *map(str, command)]) == 0
        said = capsys.readouterr().err
        assert ("--rows is" in said) == (count is not None)
        expected = f"--rows is {words[-1] if len(words) < 4 else 12}, and data has only {count}: all of them tell what"
        assert count is None or expected in said


def test_a_language_model_and_a_tagger_are_pruned_by_the_losses_of_their_tokens(tmp_path: Path) -> None:
    texts = [{"text": " ".join(VOCABULARY[5:11])}] * 4
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    tokenizer = kd.BertTokenizer.from_pretrained(tmp_path)
    masked = kd.BertForMaskedLM(small_config(initializer_range=0.2), seed=3)
    figures = kd.prune(masked, texts, tmp_path / "masked", heads=0.5, feed_forward=0.5, processing_class=tokenizer)
    assert figures["heads"] == [1, 1]
    tagger = kd.BertForTokenClassification(small_config(initializer_range=0.2, id2label={0: "O", 1: "B-X"}), seed=3)
    rows = [{"tokens": ["good", "film"], "tags": ["B-X", "O"]}] * 3
    figures = kd.prune(tagger, rows, tmp_path / "tagger", heads=0.5, feed_forward=0.5, processing_class=tokenizer)
    assert figures["feed_forward"] == [16, 16]
