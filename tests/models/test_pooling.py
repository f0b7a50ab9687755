"""Encoders that embed texts, and the directories of sentence-transformers that state how."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import VOCABULARY, small_config

import kdistill as kd
from kdistill.models.auto import load_model, load_trained
from kdistill.models.pooling import Pooling

ROWS = [[2, 5, 6, 7, 3], [2, 9, 3], [2, 12, 11, 10, 9, 8, 3]]
OLDER = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
TYPES = "sentence_transformers.models"


def write_sentence_model(
    directory: Path,
    kinds: tuple[str, ...] = ("Transformer", "Pooling", "Normalize"),
    pooling: dict[str, Any] | None = None,
    folder: str = "",
) -> Path:
    """Write a directory as sentence-transformers does, with the model's files in `folder`."""
    inside = directory / folder
    inside.mkdir(parents=True, exist_ok=True)
    kd.BertModel(small_config(initializer_range=0.3), seed=1).save_pretrained(inside)
    (inside / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    folders = [folder, "1_Pooling", "2_Normalize", "3_Dense"]
    modules = [
        {"idx": i, "name": str(i), "path": folders[i], "type": f"{TYPES}.{kind}"} for i, kind in enumerate(kinds)
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir(exist_ok=True)
    (directory / "1_Pooling/config.json").write_text(json.dumps(OLDER if pooling is None else pooling))
    return directory


def tokens_of(model: Any) -> list[np.ndarray]:
    return [row.astype(np.float64) for row in model(ROWS).last_hidden_state]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_embeddings_are_made_of_the_last_layer(tmp_path: Path, mode: str, normalize: bool) -> None:
    kd.BertModel(small_config(initializer_range=0.3), seed=1).save_pretrained(tmp_path)
    model = kd.AutoModel.from_pretrained(tmp_path, pooling=mode, normalize=normalize)  # says nothing of the pooler
    expected = np.stack([row.mean(axis=0) if mode == "mean" else row[0] for row in tokens_of(model)])
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(model.forward(ROWS), expected, rtol=1e-5, atol=1e-6)
    # A call computes the last layer of all tokens, `forward` that of [CLS] alone, in another order.
    np.testing.assert_allclose(model(ROWS).sentence_embedding, model.forward(ROWS), rtol=1e-5, atol=1e-6)
    assert (model.config.embeds, model.config.num_outputs, model.per_token) == (True, 16, False)


def test_another_pooling_normalises_as_the_directory_does(tmp_path: Path) -> None:
    write_sentence_model(tmp_path)
    assert kd.AutoModel.from_pretrained(tmp_path, pooling="cls").config.pooling == Pooling("cls", True)
    plain = kd.AutoModel.from_pretrained(tmp_path, normalize=False)
    assert plain.config.pooling == Pooling("mean", False)


def test_an_encoder_alone_keeps_its_pooler(tmp_path: Path) -> None:
    write_sentence_model(tmp_path)
    model = kd.AutoModel.from_pretrained(tmp_path, pooling="none")
    assert model(ROWS).pooler_output.shape == (3, 16)
    assert not model.config.embeds
    other = model.with_pooling("cls", normalize=True)
    expected = kd.AutoModel.from_pretrained(tmp_path, pooling="cls", normalize=True)
    np.testing.assert_array_equal(other.forward(ROWS), expected.forward(ROWS))


def test_weights_of_another_head_are_said_to_be_unused(tmp_path: Path) -> None:
    kd.BertForSequenceClassification(small_config(), seed=1).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"2 tensors that this model does not use: classifier\.bias, classifier.w"):
        kd.AutoModel.from_pretrained(tmp_path, pooling="mean")


@pytest.mark.parametrize("folder", ["", "0_Transformer"])
def test_a_directory_of_sentence_transformers_states_its_pooling(tmp_path: Path, folder: str) -> None:
    write_sentence_model(tmp_path, folder=folder)
    settings = {"max_seq_length": 9, "do_lower_case": False}
    (tmp_path / folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    for load in (kd.AutoModel.from_pretrained, load_model, load_trained):
        model = load(tmp_path)
        assert model.config.pooling == Pooling("mean", True)
        assert model.config.trained_with.max_length == 9
    assert len(kd.AutoTokenizer.from_pretrained(tmp_path)) == len(VOCABULARY)
    with pytest.warns(UserWarning, match="initialised at random"):
        classifier = kd.AutoModelForSequenceClassification.from_pretrained(tmp_path)  # begins with its weights
    assert not classifier.config.embeds


@pytest.mark.parametrize(("stated", "trained", "length"), [(9, None, 9), (512, None, 16), (9, 7, 7)])
def test_texts_are_cut_as_trained_else_as_the_directory_states_as_far_as_the_model_reads(
    tmp_path: Path, stated: int, trained: int | None, length: int
) -> None:
    write_sentence_model(tmp_path)
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": stated}))
    if trained is not None:
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"kdistill": {"max_length": trained}}))
    model = kd.AutoModel.from_pretrained(tmp_path)
    assert model.config.trained_with.max_length == length
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved/sentence_bert_config.json").read_text())["max_seq_length"] == length


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        ({"embedding_dimension": 16, "pooling_mode": "mean", "include_prompt": True}, "mean"),
        ({"embedding_dimension": 16, "pooling_mode": ["cls"]}, "cls"),
        ({"word_embedding_dimension": 16, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"word_embedding_dimension": 16}, "mean"),
    ],
)
def test_poolings_of_all_versions_are_read(tmp_path: Path, content: dict[str, Any], mode: str) -> None:
    write_sentence_model(tmp_path, ("Transformer", "Pooling"), content)
    assert kd.AutoModel.from_pretrained(tmp_path).config.pooling == Pooling(mode, False)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (OLDER | {"pooling_mode_max_tokens": True}, r"the pooling is \[\"max\", \"mean\"\]"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}, r"the pooling is \[\"lasttoken\"\]"),
        ({"pooling_mode": "weightedmean"}, 'the pooling is "weightedmean"'),
        (OLDER | {"pooling_mode_cls_token": True}, r"the pooling is \[\"cls\", \"mean\"\]"),
        ({"pooling_mode": ["mean", "cls"]}, r"the pooling is \[\"mean\", \"cls\"\]"),
        ({"pooling_mode": []}, r"the pooling is \[\]"),
    ],
)
def test_other_poolings_are_refused(tmp_path: Path, content: dict[str, Any], found: str) -> None:
    write_sentence_model(tmp_path, ("Transformer", "Pooling"), content)
    with pytest.raises(ValueError, match=rf"1_Pooling.config.json: {found}; expected one of mean, cls$"):
        kd.AutoModel.from_pretrained(tmp_path)


def test_settings_that_are_not_kept_are_warned_of(tmp_path: Path) -> None:
    write_sentence_model(tmp_path)
    file = tmp_path / "config_sentence_transformers.json"
    file.write_text(json.dumps({"prompts": {"query": "query: ", "document": ""}, "similarity_fn_name": "dot"}))
    expected = r"has the prompts query, document and similarity_fn_name 'dot': kdistill adds no prompt"
    with pytest.warns(UserWarning, match=expected) as seen:
        kd.AutoModel.from_pretrained(tmp_path)
    assert seen[0].filename == __file__
    file.write_text(json.dumps({"prompts": {"query": "", "document": ""}, "similarity_fn_name": "cosine"}))
    kd.AutoModel.from_pretrained(tmp_path)  # a warning would be an error


def test_other_modules_and_settings_are_refused(tmp_path: Path) -> None:
    write_sentence_model(tmp_path, ("Transformer", "Pooling", "Normalize", "Dense"))
    with pytest.raises(
        ValueError, match=r"modules.json lists Transformer, Pooling, Normalize, Dense; expected a Trans"
    ):
        kd.AutoModel.from_pretrained(tmp_path)
    write_sentence_model(tmp_path)
    prompts = tmp_path / "config_sentence_transformers.json"
    prompts.write_text(json.dumps({"prompts": {"query": "query: "}, "default_prompt_name": "query"}))
    with pytest.raises(ValueError, match="default_prompt_name is 'query', a text before every text"):
        kd.AutoModel.from_pretrained(tmp_path)
    prompts.unlink()
    lowered = tmp_path / "sentence_bert_config.json"
    lowered.write_text(json.dumps({"max_seq_length": 9, "do_lower_case": True}))
    with pytest.raises(ValueError, match="do_lower_case is true, and its tokenizer keeps case"):
        kd.AutoModel.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    assert kd.AutoModel.from_pretrained(tmp_path).config.trained_with.max_length == 9  # its tokenizer does it
    for length in ("many", 2, True):
        lowered.write_text(json.dumps({"max_seq_length": length}))
        with pytest.raises(ValueError, match=f"max_seq_length is {length!r}; expected a whole number of tokens, at l"):
            kd.AutoModel.from_pretrained(tmp_path)
    lowered.unlink()
    (tmp_path / "2_Normalize").mkdir()
    (tmp_path / "2_Normalize/config.json").write_text(json.dumps({"module_input_name": "token_embeddings"}))
    with pytest.raises(ValueError, match=r'"token_embeddings"\} normalises something else than the embedding'):
        kd.AutoModel.from_pretrained(tmp_path)
    (tmp_path / "2_Normalize/config.json").write_text(json.dumps({"module_input_name": "sentence_embedding"}))
    assert kd.AutoModel.from_pretrained(tmp_path).config.pooling == Pooling("mean", True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "modules.json is not valid JSON"),
        ("{}", r"modules.json holds \{\}; expected a list of modules, each with a type and a path"),
        ('[{"type": "Transformer", "path": "../elsewhere"}]', r"has the path '../elsewhere'; expected a folder of the"),
        ("[" * 100_000, "modules.json is not valid JSON"),
    ],
)
def test_a_damaged_list_of_modules_is_one_message(tmp_path: Path, text: str, message: str) -> None:
    write_sentence_model(tmp_path)
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        kd.AutoModel.from_pretrained(tmp_path)


def test_arguments_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    kd.BertModel(small_config(), seed=1).save_pretrained(tmp_path)
    for keywords, message in (
        ({"pooling": "mode"}, "pooling is 'mode'; expected one of 'mean', 'cls', 'none'"),
        ({"normalize": True}, "normalize is True, and there is no pooling"),
        ({"pooling": "mean", "normalize": "yes"}, "normalize is 'yes'; expected True, False or None"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            kd.AutoModel.from_pretrained(tmp_path, **keywords)


def test_a_saved_model_keeps_the_layout(tmp_path: Path) -> None:
    write_sentence_model(tmp_path / "first")
    model = kd.AutoModel.from_pretrained(tmp_path / "first")
    model.save_pretrained(tmp_path / "second")
    modules = json.loads((tmp_path / "second/modules.json").read_text())
    assert [(module["path"], module["type"]) for module in modules] == [
        ("", f"{TYPES}.Transformer"), ("1_Pooling", f"{TYPES}.Pooling"), ("2_Normalize", f"{TYPES}.Normalize"),
    ]  # fmt: skip
    pooling = json.loads((tmp_path / "second/1_Pooling/config.json").read_text())
    assert pooling.pop("word_embedding_dimension") == model.config.hidden_size
    assert [name for name, chosen in pooling.items() if chosen] == ["pooling_mode_mean_tokens"]
    again = kd.AutoModel.from_pretrained(tmp_path / "second")
    assert again.config.pooling == model.config.pooling
    np.testing.assert_array_equal(again.forward(ROWS), model.forward(ROWS))
    shutil.rmtree(tmp_path / "second/2_Normalize")  # empty folders are lost on the hub
    assert kd.AutoModel.from_pretrained(tmp_path / "second").config.pooling == Pooling("mean", True)


def test_a_student_embeds_texts_as_its_teacher(tmp_path: Path) -> None:
    write_sentence_model(tmp_path)
    teacher = kd.AutoModel.from_pretrained(tmp_path)
    student = kd.BertModel.from_teacher(teacher, small_config(num_hidden_layers=1))
    assert student.config.pooling == Pooling("mean", True)
    lengths = np.linalg.norm(student.forward(ROWS).astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-6)


def test_the_cache_tells_poolings_apart(tmp_path: Path) -> None:
    model = kd.BertModel(small_config(), seed=1)
    keys = {model.with_pooling(mode, unit).weights_hash() for mode in ("mean", "cls") for unit in (False, True)}
    assert len(keys | {model.weights_hash()}) == 5
