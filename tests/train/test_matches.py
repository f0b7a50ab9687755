"""The argument `matches`: what it takes, from Python and from files, what presets and maps stand for, and errors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import kdistill as kd
from kdistill.train.arguments import DistillationTrainingArguments
from kdistill.train.layer_maps import mapped_layers
from kdistill.train.stages import PRESETS, matches_hash, predictions_count, read_matches, rows_of, stage_ends, stages_of

TOML = """
[[stage]]
name = "inside"
share = 0.25
prediction_weight = 0
[[stage.matches]]
kind = "hidden"
teacher_layer = "last"
weight = 2
[[stage.matches]]
kind = "relation"
teacher_layer = -1
student_layer = -1
heads = 4

[[stage]]
alpha = 0.2
"""
STAGES = [
    kd.Stage(
        [
            kd.Match(kind="hidden", teacher_layer="last", weight=2.0),
            kd.Match(kind="relation", teacher_layer=-1, student_layer=-1, heads=4),
        ],
        name="inside",
        share=0.25,
        prediction_weight=0,
    ),
    kd.Stage(alpha=0.2),
]


def written(directory: Path, text: str) -> str:
    path = directory / "m.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (None, True),
        ("minilm", True),
        ("tinybert", True),
        (STAGES, True),
        (STAGES[0].matches, True),
        (STAGES[:1], False),
        ([STAGES[0], kd.Stage(STAGES[0].matches, prediction_weight=0)], False),
    ],
)
def test_predictions_count_where_a_stage_has_a_loss_of_them(value: Any, count: bool) -> None:
    assert predictions_count(value) is count


def test_a_match_has_the_first_loss_of_its_kind() -> None:
    losses = {kind: kd.Match(kind=kind).loss for kind in ("hidden", "embedding", "attention", "relation", "cls")}
    assert losses == {
        "hidden": "mse", "embedding": "mse", "attention": "mse", "relation": "kl", "cls": "normalized-mse",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "hiden"}, r"^kind is 'hiden'; expected one of 'hidden', .*; did you mean 'hidden'\?$"),
        (
            {"kind": "relation", "loss": "cosine"},
            "^loss is 'cosine'; expected one of 'kl', 'mse' of the kind 'relation'$",
        ),
        ({"kind": "hidden", "weight": 0}, "^weight is 0; expected a finite number > 0$"),
        ({"kind": "hidden", "weight": float("nan")}, "^weight is nan; expected a finite number > 0$"),
        ({"kind": "hidden", "heads": 2}, "^heads is 2 for the kind 'hidden'; expected None"),
        ({"kind": "relation", "heads": 0}, "^heads is 0; expected a whole number >= 1$"),
        ({"kind": "embedding", "student_layer": 0}, "^student_layer is 0 for the kind 'embedding'; expected None"),
        ({"kind": "hidden", "teacher_layer": "first"}, "^teacher_layer is 'first'; expected one of 'uniform', "),
        ({"kind": "hidden", "student_layer": "last"}, "^student_layer is 'last'; expected a whole number"),
        ({"kind": "hidden", "teacher_layer": 1}, "^teacher_layer is 1 and student_layer None; expected one layer"),
        (
            {"kind": "hidden", "teacher_layer": (1, 2), "student_layer": (0,)},
            "^teacher_layer names 2 layers and student_layer 1; expected equally many$",
        ),
        (
            {"kind": "hidden", "teacher_layer": (1, 2), "student_layer": 0},
            r"^teacher_layer is \(1, 2\) and student_layer 0; expected as many layers for both$",
        ),
    ],
)
def test_a_match_that_means_nothing(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kd.Match(**fields)


@pytest.mark.parametrize("layer", [True, 1.5, [], [0, "1"], b"0"])
def test_layers_of_another_type(layer: Any) -> None:
    with pytest.raises(TypeError, match=r"^student_layer is .*; expected a whole number, several, or None$"):
        kd.Match(kind="hidden", student_layer=layer)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"share": 0.5, "epochs": 1}, "^share is 0.5 and epochs 1; expected one of the two, or none$"),
        ({"share": 1.5}, "^share is 1.5; expected a finite number > 0 and <= 1$"),
        ({"alpha": -0.1}, "^alpha is -0.1; expected a finite number >= 0 and <= 1$"),
        ({"prediction_weight": 0}, "^prediction_weight is 0 and there are no matches; expected a loss to train on$"),
        (
            {"prediction_weight": 0, "alpha": 0.5, "matches": [kd.Match("hidden")]},
            "^alpha is 0.5 and prediction_weight 0; expected no alpha, for the loss of the predictions does not count$",
        ),
        ({"matches": [kd.Match("hidden")] * 2}, "twice; expected it once, with the sum of the weights$"),
    ],
)
def test_a_stage_that_means_nothing(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kd.Stage(**fields)


def test_a_file_holds_what_python_holds(tmp_path: Path) -> None:
    assert read_matches("matches", written(tmp_path, TOML)) == STAGES
    plain = '[[matches]]\nkind = "cls"\nteacher_layer = [1, -1]\nstudent_layer = [0, 1]\n'
    expected = [kd.Match(kind="cls", teacher_layer=(1, -1), student_layer=(0, 1))]
    assert read_matches("matches", Path(written(tmp_path, plain))) == expected


def test_what_is_written_of_a_run_reads_back_as_the_same(tmp_path: Path) -> None:
    args = DistillationTrainingArguments(str(tmp_path), matches=STAGES)
    stored = json.loads(json.dumps(args.to_dict()))["matches"]
    assert stored == rows_of(STAGES)
    again = DistillationTrainingArguments(str(tmp_path), matches=stored)
    assert again.matches == STAGES
    assert again.fingerprint() == args.fingerprint() == {"matches": matches_hash(STAGES)}
    assert DistillationTrainingArguments(str(tmp_path)).fingerprint() == {}
    assert matches_hash("minilm") == matches_hash(list(PRESETS["minilm"])) != matches_hash("pkd")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[matches]\n", "m.toml is not TOML: "),
        ("", r"m.toml has none at its top; expected \[\[matches\]\] alone, or \[\[stage\]\]"),
        ("[[match]]\n", r"m.toml has match at its top; expected \[\[matches\]\] alone"),
        ("matches = 3\n", r"m.toml: matches is 3; expected tables, which begin with \[\[matches\]\]"),
        ("[[matches]]\nweight = 1\n", r"m.toml: matches\[0\] has no kind; expected one of 'hidden', "),
        (
            '[[matches]]\nkind = "cls"\nwieght = 1\n',
            r"m.toml: matches\[0\] has no key 'wieght'; expected kind, .*; did you mean 'weight'\?",
        ),
        ('[[matches]]\nkind = "cls"\nheads = 1\n', r"m.toml: matches\[0\]: heads is 1 for the kind 'cls'"),
        (
            '[[stage]]\n[[stage.matches]]\nkind = "x"\n',
            r"m.toml: stage\[0\].matches\[0\]: kind is 'x'; expected one of",
        ),
        ("[[stage]]\nshare = 0.5\n", "m.toml has stages whose shares are 0.5 together; expected 1, or less beside"),
        ("[[stage]]\n[[stage]]\n", "m.toml has 2 stages with neither share nor epochs; expected one of them at most"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_matches("matches", written(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.toml"):
        read_matches("matches", tmp_path / "gone.toml")


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("tinybret", ValueError, r"^matches is 'tinybret'; expected a list of Match, a preset .*; did you mean 'tinyb"),
        ([], ValueError, "^matches is empty; expected a list of Match"),
        (3, TypeError, "^matches is 3; expected a list of Match"),
        ([3], TypeError, r"^matches\[0\] is 3; expected a Match$"),
        ([kd.Match("hidden"), kd.Match("hidden")], ValueError, "^matches: matches has .* twice"),
    ],
)
def test_values_that_are_no_matches(tmp_path: Path, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DistillationTrainingArguments(str(tmp_path), matches=value)


def test_presets_stand_for_what_their_papers_have() -> None:
    first, second = stages_of("tinybert")
    assert [match.kind for match in first.matches] == ["embedding", "hidden", "attention"]
    assert (first.prediction_weight, second.prediction_weight, second.matches) == (0, 1, ())
    assert stages_of("minilm")[0].matches == (kd.Match("relation", -1, -1),)
    assert stages_of("pkd")[0].matches == (kd.Match("cls", "skip", weight=0.13),)
    # 5, 2 and 1 of DistilBERT's code over 7: with alpha 2 / 7 the others are 5 / 7 and 2 / 7.
    assert stages_of("distilbert")[0].matches == (kd.Match("hidden", -1, -1, weight=1 / 7, loss="cosine"),)
    assert stages_of(None) == ()


@pytest.mark.parametrize(
    ("name", "teacher", "student", "pairs"),
    [
        ("uniform", 12, 4, [(2, 0), (5, 1), (8, 2), (11, 3)]),  # TinyBERT's g(m) = 3 m
        ("uniform", 6, 4, [(0, 0), (2, 1), (3, 2), (5, 3)]),
        ("uniform", 3, 3, [(0, 0), (1, 1), (2, 2)]),
        ("skip", 12, 6, [(1, 0), (3, 1), (5, 2), (7, 3), (9, 4)]),  # PKD's {2, 4, 6, 8, 10} from 1
        ("last", 12, 6, [(6, 0), (7, 1), (8, 2), (9, 3), (10, 4)]),  # PKD's {7, 8, 9, 10, 11}
    ],
)
def test_layer_maps(name: str, teacher: int, student: int, pairs: list[tuple[int, int]]) -> None:
    assert mapped_layers(name, teacher, student) == pairs


def test_layer_maps_that_give_no_pairs() -> None:
    with pytest.raises(
        ValueError, match="'uniform', and the student has 3 layers and the teacher 2; expected explicit"
    ):
        mapped_layers("uniform", 2, 3)
    for name, layers in {"uniform": (0, 0, 1, 1), "skip": (0, 0, 1), "last": (0, 0, 1)}.items():
        named = f"teacher_layer={layers} with student_layer={tuple(range(len(layers)))}"
        with pytest.raises(ValueError, match=re.escape(named)):
            mapped_layers(name, 2, 4)
    with pytest.raises(ValueError, match="'skip', which leaves out the student's last layer, and it has one"):
        mapped_layers("skip", 2, 1)


@pytest.mark.parametrize(
    ("stages", "ends"),
    [
        ([kd.Stage()], [100]),
        (STAGES, [25, 100]),
        ([kd.Stage(epochs=2), kd.Stage(), kd.Stage(share=0.5)], [20, 50, 100]),
        ([kd.Stage(share=1 / 3), kd.Stage(share=1 / 3), kd.Stage(share=1 / 3)], [33, 67, 100]),
        ([kd.Stage(epochs=4), kd.Stage(epochs=6)], [40, 100]),
    ],
)
def test_stages_fill_a_run(stages: list[kd.Stage], ends: list[int]) -> None:
    assert stage_ends(stages, 100, 10) == ends


@pytest.mark.parametrize(
    ("stages", "lengths"),
    [
        ([kd.Stage(epochs=11)], "110 steps"),
        ([kd.Stage(epochs=4)], "40 steps"),
        ([kd.Stage(epochs=10), kd.Stage()], "100 steps and what is left"),
    ],
)
def test_stages_that_are_longer_or_shorter_than_the_run(stages: list[kd.Stage], lengths: str) -> None:
    with pytest.raises(ValueError, match=f"^the stages of matches have {lengths}, and the run has 100; expected"):
        stage_ends(stages, 100, 10)


def test_a_course_needs_its_end(tmp_path: Path) -> None:
    expected = (
        "^alpha_schedule is 'linear', and the alpha of the last step is not given; expected it as --alpha-end, in"
    )
    with pytest.raises(ValueError, match=expected):
        DistillationTrainingArguments(str(tmp_path), alpha_schedule="linear")


def test_a_file_that_is_not_there_is_named_with_its_argument(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^matches is 'gone\.toml', which cannot be read: No such file"):
        DistillationTrainingArguments(str(tmp_path), matches="gone.toml")
