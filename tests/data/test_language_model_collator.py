"""The collator that hides words: what it pads, what it never hides, and which seed decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import VOCABULARY

import kdistill as kd
from kdistill.data.batch import pack
from kdistill.text.tokenizer import PreTrainedTokenizerFast

ROWS = [[2, 5, 6, 7, 3], [2, 8, 3], [2, 5, 6, 7, 8, 9, 10, 11, 12, 3]]


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerFast:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return kd.BertTokenizerFast.from_pretrained(tmp_path)


def collator(tokenizer: PreTrainedTokenizerFast, **changes: Any) -> kd.DataCollatorForLanguageModeling:
    return kd.DataCollatorForLanguageModeling(tokenizer, **({"mlm_probability": 0.6, "seed": 3} | changes))


def test_words_are_hidden_as_masking_hides_them_and_padded(tokenizer: PreTrainedTokenizerFast) -> None:
    found = collator(tokenizer)([{"input_ids": row} for row in ROWS])
    masking = kd.Masking(
        mask_token_id=4, vocab_size=len(VOCABULARY), special_ids=tokenizer.all_special_ids, seed=3, mlm_probability=0.6
    )
    hidden, labels = masking(pack(ROWS), np.arange(3), 0)
    real = found["attention_mask"] == 1
    assert real.sum(axis=1).tolist() == [5, 3, 10]
    assert all(array.shape == (3, 10) and array.dtype == np.int64 for array in found.values())
    np.testing.assert_array_equal(found["input_ids"][real], hidden.ids)
    np.testing.assert_array_equal(found["labels"][real], labels)
    assert (found["labels"][~real] == -100).all()
    assert (found["input_ids"][~real] == 0).all()
    assert (labels != -100).any()


def test_other_words_are_hidden_in_each_pass_and_the_same_with_the_same_seed(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    once, again, other = collator(tokenizer), collator(tokenizer), collator(tokenizer, seed=4)
    first, second = once(ROWS)["labels"], once(ROWS)["labels"]
    assert (first != second).any()
    np.testing.assert_array_equal(again(ROWS)["labels"], first)
    np.testing.assert_array_equal(again(ROWS)["labels"], second)
    assert (other(ROWS)["labels"] != first).any()
    kd.set_seed(3)
    np.testing.assert_array_equal(collator(tokenizer, seed=None)(ROWS)["labels"], first)
    kd.set_seed(0)


def test_what_a_special_tokens_mask_marks_stays(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [{"input_ids": row, "special_tokens_mask": [1, *[0] * (len(row) - 2), 1]} for row in ROWS]
    np.testing.assert_array_equal(collator(tokenizer)(rows)["labels"], collator(tokenizer)(ROWS)["labels"])
    kept = [{"input_ids": row, "special_tokens_mask": [1] * len(row)} for row in ROWS]
    found = collator(tokenizer)(kept)
    assert (found["labels"] == -100).all()
    assert found["input_ids"][2].tolist() == ROWS[2]


def test_without_mlm_every_word_is_a_label(tokenizer: PreTrainedTokenizerFast) -> None:
    found = collator(tokenizer, mlm=False)(ROWS)
    assert found["labels"].tolist() == [[*row, *[-100] * (10 - len(row))] for row in ROWS]
    assert found["input_ids"][1].tolist() == [*ROWS[1], *[0] * 7]


def test_its_batches_are_what_a_language_model_learns(tokenizer: PreTrainedTokenizerFast) -> None:
    config = kd.BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    model = kd.BertForMaskedLM(config)
    batch = collator(tokenizer)(ROWS)
    labels = batch.pop("labels")
    loss = model.masked_loss(batch, labels[batch["attention_mask"] == 1]).loss
    real = batch["attention_mask"] == 1
    logits = model(batch).logits[real]
    known = labels[real]
    chosen = known != -100
    z = logits[chosen].astype(np.float64)
    expected = (np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), known[chosen]]).mean()
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"return_tensors": "pt"}, "return_tensors is 'pt'; expected 'np'"),
        ({"mlm_probability": 1.5}, "mlm_probability is 1.5; expected a number above 0"),
        ({"mask_replace_prob": 0.8, "random_replace_prob": 0.3}, "expected shares of the chosen tokens"),
    ],
)
def test_arguments_out_of_range(tokenizer: PreTrainedTokenizerFast, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collator(tokenizer, **changes)
