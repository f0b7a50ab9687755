"""Models and checkpoints of other programs: opened, or refused with one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.small_run import small_config, small_dataset, small_model, write_model

import kdistill as kd
from kdistill.models.auto import load_model

BERT = kd.BertForSequenceClassification


class TorchModel:
    """What a model of transformers looks like from here: a class below torch's."""


TorchModel.__module__ = "torch.nn.modules.module"


class BertOfTransformers(TorchModel):
    def to_dict(self) -> dict[str, Any]:
        return {}


BertOfTransformers.__module__ = "transformers.models.bert.modeling_bert"
FOREIGN = BertOfTransformers()
TAKERS: dict[str, Callable[[Any], Any]] = {
    "model": lambda model: kd.Trainer(model),
    "what model_init returns": lambda model: kd.Trainer(model_init=lambda: model),
    "teacher_model": lambda model: kd.DistillationTrainer(small_model(), teacher_model=model),
    "teacher": lambda model: BERT.from_teacher(model, small_config()),
    "model of a pipeline": lambda model: kd.pipeline(model=model),
    "model of a pipeline with a tokenizer": lambda model: kd.pipeline(model=model, tokenizer=object()),  # type: ignore[arg-type]
    "model of AdamW": lambda model: kd.AdamW(model),
    "model of clip_grad_norm_": lambda model: kd.clip_grad_norm_(model, 1.0),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_a_model_of_transformers_is_refused_with_the_way_here(taker: str) -> None:
    name = taker.partition(" of ")[0]
    for model in (FOREIGN, TorchModel()):
        with pytest.raises(TypeError, match=rf"^{name} is of type (transformers|torch)\.\w+; .*save_pretrained\(dir"):
            TAKERS[taker](model)


def test_a_path_or_something_else_for_a_model() -> None:
    with pytest.raises(TypeError, match=r"^model is 'teacher'; expected a model of kdistill: Auto.*from_pretrained"):
        kd.Trainer("teacher")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^what model_init returns is of type NoneType; expected a model"):
        kd.Trainer(model_init=lambda: None)  # type: ignore[arg-type,return-value]


def test_a_configuration_of_transformers_is_refused_with_the_way_here(tmp_path: Path) -> None:
    write_model(tmp_path)
    for call in (
        lambda: BERT(FOREIGN),  # type: ignore[arg-type]
        lambda: BERT.from_pretrained(tmp_path, config=FOREIGN),  # type: ignore[arg-type]
        lambda: kd.AutoModelForSequenceClassification.from_config(FOREIGN),  # type: ignore[arg-type]
        lambda: BERT.from_teacher(small_model(), FOREIGN),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match=r"^config is of type transformers\..*; .*from_dict\(config.to_dict"):
            call()


WRAPPERS = {
    "module": lambda name: f"module.{name}",
    "_orig_mod": lambda name: f"_orig_mod.{name}",
    "both": lambda name: f"_orig_mod.module.{name}",
    "model": lambda name: f"model.{name}",
    "model and module": lambda name: f"model.module.{name}",
    "inside": lambda name: name.replace("bert.", "bert._orig_mod.").replace("classifier.", "classifier.module."),
    "encoder alone": lambda name: f"module.{name.removeprefix('bert.')}",
    "gamma and beta": lambda name: (
        "module." + name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
def test_names_below_modules_that_wrap_a_model(tmp_path: Path, wrapper: Callable[[str], str]) -> None:
    expected = small_model(4)
    state = {wrapper(name): value for name, value in expected.state_dict().items()}
    save_file(state, write_model(tmp_path) / "model.safetensors")
    np.testing.assert_array_equal(BERT.from_pretrained(tmp_path).flat_parameters, expected.flat_parameters)
    model = small_model(1)
    assert model.load_state_dict(state) == ([], [])
    np.testing.assert_array_equal(model.flat_parameters, expected.flat_parameters)


def test_a_parameter_that_is_there_twice(tmp_path: Path) -> None:
    state = small_model(4).state_dict()
    twice = state | {"module.classifier.bias": state["classifier.bias"]}
    with pytest.raises(ValueError, match=r"has 'classifier.bias' twice, as 'classifier.bias' and as 'module\."):
        small_model().load_state_dict(twice)
    save_file(twice, write_model(tmp_path) / "model.safetensors")
    with pytest.raises(ValueError, match=r"two tensors for 'classifier\.bias'"):
        BERT.from_pretrained(tmp_path)


def test_tensors_that_are_left_out_are_named(tmp_path: Path) -> None:
    weights = load_file(write_model(tmp_path) / "model.safetensors")
    heads = {f"cls.predictions.{index}": np.zeros(2, np.float32) for index in range(10)}
    constants = {"bert.embeddings.position_ids": np.arange(16)[None]}
    save_file(weights | heads | constants, tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match=r"has 10 tensors that this model does not use: cls\.\S+0, .* and 2 more"):
        BERT.from_pretrained(tmp_path)
    save_file(weights | constants, tmp_path / "model.safetensors")
    BERT.from_pretrained(tmp_path)  # positions are no news
    assert small_model().load_state_dict(weights | constants) == ([], [])


def test_a_config_without_model_type_opens_by_its_class_alone(tmp_path: Path) -> None:
    expected = BERT.from_pretrained(write_model(tmp_path))
    content = json.loads((tmp_path / "config.json").read_text())
    for change in ({}, {"model_type": None}):
        del content["model_type"]
        content |= change
        (tmp_path / "config.json").write_text(json.dumps(content))
        np.testing.assert_array_equal(BERT.from_pretrained(tmp_path).flat_parameters, expected.flat_parameters)
        assert kd.BertConfig.from_pretrained(tmp_path) == expected.config
        for load in (
            kd.AutoConfig.from_pretrained,
            kd.AutoModelForSequenceClassification.from_pretrained,
            load_model,
            lambda path: kd.pipeline(model=path),
        ):
            with pytest.raises(
                ValueError, match=r"config.json: model_type is absent.*BertForSequenceClassification.from_pretrained"
            ):
                load(tmp_path)
        content["model_type"] = None
    named = kd.AutoModelForSequenceClassification.from_pretrained(tmp_path, config=expected.config)
    np.testing.assert_array_equal(named.flat_parameters, expected.flat_parameters)


def test_outputs_are_read_as_those_of_transformers() -> None:
    """Names, places and the tuple of a ModelOutput (transformers 5)."""
    model, rows = small_model(), {"input_ids": [[2, 5, 3], [2, 7, 3]]}
    plain, lossy = model(**rows), model(**rows, labels=[0, 1])
    assert (list(plain), list(lossy), len(plain), len(lossy)) == (["logits"], ["loss", "logits"], 1, 2)
    assert lossy[0] == lossy["loss"] == lossy.loss
    for logits in (plain[0], plain["logits"], lossy[1], lossy[1:][0], plain.to_tuple()[0], dict(**plain)["logits"]):
        np.testing.assert_array_equal(logits, plain.logits)
    loss, logits = lossy.to_tuple()
    assert loss == lossy.loss
    assert "loss" not in plain
    assert plain.get("loss") is None
    with pytest.raises(KeyError):
        plain["loss"]
    with pytest.raises(IndexError):
        plain[1]
    assert plain == plain
    assert plain != model(**rows)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 0]])
def test_a_choice_of_one_class_is_refused(tmp_path: Path, labels: list[int]) -> None:
    rows = [{"input_ids": [2, 5 + label, 3], "label": label} for label in labels]
    model = small_model(num_labels=1, id2label=None, problem_type="single_label_classification")
    sentence = "num_labels is 1 with problem_type 'single_label_classification'.*regression.*num_labels=2"
    with pytest.raises(ValueError, match=sentence):
        kd.Trainer(model, train_dataset=rows)
    with pytest.raises(ValueError, match=sentence):
        kd.Trainer(model).evaluate(rows)
    args = kd.TrainingArguments(str(tmp_path), eval_strategy="no", disable_tqdm=True)
    with pytest.raises(ValueError, match=sentence):
        kd.Trainer(model, args, train_dataset=small_dataset(4)).train()
    assert kd.Trainer(model).predict([{"input_ids": [2, 5, 3]}]).predictions.shape == (1, 1)
