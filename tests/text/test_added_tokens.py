"""Tokens added to a tokenizer, as in transformers, and what a model and saved files make of them."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from support.small_run import VOCABULARY, run_fields, small_model
from tokenizers import AddedToken

import kdistill as kd
from kdistill.text.classes import AutoTokenizer, BertTokenizer
from kdistill.text.tokenizer import PreTrainedTokenizerFast

NEW = len(VOCABULARY)


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerFast:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return AutoTokenizer.from_pretrained(tmp_path)


def test_added_tokens_get_the_next_ids(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.add_tokens(["[WORLD]", "covid", "good"]) == 2
    assert tokenizer.add_tokens("[WORLD]") == 0
    assert tokenizer.add_tokens(AddedToken("<e1>", lstrip=True), special_tokens=True) == 1
    assert (len(tokenizer), tokenizer.vocab_size) == (NEW + 3, NEW)
    ids = tokenizer("[world] Covid <e1> good", add_special_tokens=False)["input_ids"]
    assert ids == [NEW, NEW + 1, NEW + 2, VOCABULARY.index("good")]
    assert tokenizer.decode(ids[1:], skip_special_tokens=True) == "covid good"
    with pytest.raises(TypeError, match="new_tokens holds 3; expected strings or AddedToken"):
        tokenizer.add_tokens([3])


def test_special_tokens_are_named(tokenizer: PreTrainedTokenizerFast) -> None:
    added = tokenizer.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": ["<e1>", "<e2>"]})
    assert added == 3
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == ("<s>", NEW)
    assert tokenizer.additional_special_tokens == ["<e1>", "<e2>"]
    assert tokenizer.all_special_ids[-3:] == [NEW, NEW + 1, NEW + 2]
    tokenizer.add_special_tokens({"extra_special_tokens": ["<e3>"]}, replace_extra_special_tokens=False)
    assert tokenizer.additional_special_tokens == ["<e1>", "<e2>", "<e3>"]
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    assert tokenizer(["good", "a b"], padding=True)["input_ids"][0][-1] == tokenizer.pad_token_id == NEW + 4
    with pytest.raises(ValueError, match=r"special_tokens_dict\['entity_token'\] is '<e>'; expected a token for"):
        tokenizer.add_special_tokens({"entity_token": "<e>"})
    with pytest.raises(ValueError, match="or a list of tokens for additional_special_tokens"):
        tokenizer.add_special_tokens({"additional_special_tokens": "<e>"})


def test_what_was_added_or_set_is_saved_and_copied(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.add_tokens(["covid"])
    tokenizer.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": ["<e1>"]})
    tokenizer.truncation_side = tokenizer.padding_side = "left"
    tokenizer.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "vocab.txt").exists()  # which cannot express added tokens
    copies = [AutoTokenizer.from_pretrained(tmp_path / "saved"), copy.deepcopy(tokenizer)]
    for again in (*copies, pickle.loads(pickle.dumps(tokenizer))):
        assert again("<s> Covid <e1> film") == tokenizer("<s> Covid <e1> film")
        assert again.all_special_tokens == tokenizer.all_special_tokens
        assert (again.truncation_side, again.padding_side, len(again)) == ("left", "left", NEW + 3)
        assert again.content_hash == tokenizer.content_hash


def test_settings_given_with_the_directory_are_used_and_saved(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    left = {"padding_side": "left", "truncation_side": "left"}
    given = BertTokenizer.from_pretrained(tmp_path, **left)
    given.save_pretrained(tmp_path / "left")
    again = BertTokenizer.from_pretrained(tmp_path / "left")
    for loaded in (given, again):
        long, short = loaded(["good film good film", "film"], truncation=True, max_length=5, padding=True)["input_ids"]
        assert loaded.decode(long, skip_special_tokens=True) == "film good film"
        assert short[0] == loaded.pad_token_id
    with pytest.raises(ValueError, match="from_pretrained: padding_side is 'middle'; expected 'right' or 'left'"):
        BertTokenizer.from_pretrained(tmp_path, padding_side="middle")
    with pytest.raises(TypeError, match="did you mean 'padding_side'"):
        BertTokenizer.from_pretrained(tmp_path, padding_sides="left")


@pytest.mark.parametrize("use", ["trainer", "rows", "pipeline"])
def test_a_model_without_rows_for_added_tokens_names_the_remedy(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, use: str
) -> None:
    tokenizer.add_tokens(["covid"])
    args = kd.TrainingArguments(**run_fields(tmp_path, {}))
    trainer = kd.Trainer(small_model(), args)
    trainer.processing_class = tokenizer
    uses: dict[str, Any] = {
        "trainer": lambda: kd.Trainer(small_model(), args, processing_class=tokenizer),
        "rows": lambda: trainer.evaluate([{"text": "good", "label": 1}]),
        "pipeline": lambda: kd.pipeline("text-classification", model=small_model(), tokenizer=tokenizer),
    }
    with pytest.raises(ValueError, match=rf"has {NEW + 1} tokens, 1 of them added, .* for {NEW}; .*resize_token_embed"):
        uses[use]()
    kd.Trainer(small_model(vocab_size=NEW + 8), args, processing_class=tokenizer)


class BertTokenizerFast:
    """Stands for the class of transformers."""

    __module__ = "transformers.models.bert.tokenization_bert"


@pytest.mark.parametrize("argument", ["processing_class", "tokenizer", "pipeline", "collator", "teacher", "object"])
def test_a_tokenizer_of_transformers_given_by_mistake(argument: str) -> None:
    theirs: Any = BertTokenizerFast()
    teacher = {"teacher_model": small_model(2), "model": small_model()}
    uses: dict[str, Any] = {
        "processing_class": lambda: kd.Trainer(small_model(), processing_class=theirs),
        "tokenizer": lambda: kd.Trainer(small_model(), tokenizer=theirs),
        "pipeline": lambda: kd.pipeline("text-classification", model=small_model(), tokenizer=theirs),
        "collator": lambda: kd.DataCollatorWithPadding(theirs),
        "teacher": lambda: kd.DistillationTrainer(**teacher, teacher_processing_class=theirs),
        "object": lambda: kd.Trainer(small_model(), processing_class=len),  # type: ignore[arg-type]
    }
    found = "of type builtin_function_or_method" if argument == "object" else "of type transformers.BertTokenizerFast"
    with pytest.raises(
        TypeError, match=f" is {found}; expected a tokenizer of kdistill: AutoTokenizer.from_pretrained"
    ):
        uses[argument]()


def test_half_a_surrogate_pair_is_named_with_its_row(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"text\[1\] holds .ud800 at character 5, half of a character .*; expected whole characters"
    ):
        tokenizer(["good", "film \ud800"], truncation=True, max_length=8)
    for call in (lambda: tokenizer("\udfff"), lambda: tokenizer.tokenize("\udfff"), lambda: tokenizer("a", "\udfff")):
        with pytest.raises(ValueError, match=r"text\[0\] holds .udfff at character 0, half of a character"):
            call()
    with pytest.raises(ValueError, match=r"text\[0\] holds .udfff"):
        tokenizer.add_tokens(["\udfff"])
    trainer = kd.Trainer(small_model(), kd.TrainingArguments(**run_fields(tmp_path, {})), processing_class=tokenizer)
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join('{"text": "good", "label": 1}\n' for _ in range(1500)) + '{"text": "\\ud83d", "label": 0}\n'
    )
    with pytest.raises(
        ValueError, match=r"rows.jsonl:1501: column 'text' holds .ud83d at character 0, half of a character"
    ):
        trainer.evaluate(str(path))


def test_a_row_needs_room_for_its_special_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.truncation_side = "up"
    with pytest.raises(ValueError, match="truncation_side is 'up'; expected 'right' or 'left'"):
        tokenizer("good", truncation=True, max_length=8)
    tokenizer.truncation_side = "right"
    from tokenizers import processors

    tokenizer._backend.post_processor = processors.TemplateProcessing(
        single="[CLS] [CLS] [CLS] [CLS] $A", pair="$A $B", special_tokens=[("[CLS]", 2)]
    )
    with pytest.raises(ValueError, match="max_length is 3; expected room for the 4 special tokens of a row"):
        tokenizer("good", truncation=True, max_length=3)
