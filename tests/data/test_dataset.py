"""Packing, tokenised data sets, and the order of the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdistill.data.batch import Batch, pack
from kdistill.data.columns import read_rows
from kdistill.data.dataset import ENCODE_BLOCK, Dataset, as_dataset, encode
from kdistill.data.labels import NO_LABEL
from kdistill.data.sampler import RandomSampler
from kdistill.text.classes import AutoTokenizer
from kdistill.text.tokenizer import PreTrainedTokenizerFast

SENTIMENT = {0: "negative", 1: "positive"}
ROWS = [[2, 7, 8, 3], [2, 3], [2, 9, 3]]


def rows_of(batch: Batch) -> list[list[int]]:
    return [batch.ids[a:b].tolist() for a, b in zip(batch.starts[:-1], batch.starts[1:], strict=True)]


def check_types(batch: Batch) -> None:
    assert (batch.ids.dtype, batch.types.dtype, batch.starts.dtype) == (np.int32, np.int32, np.int64)
    assert batch.ids.flags.c_contiguous
    assert batch.types.flags.c_contiguous


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    return AutoTokenizer.from_pretrained(tmp_path)


@pytest.fixture
def dataset() -> Dataset:
    """200 rows of 1 to 30 tokens in which every (id, type) occurs once."""
    lengths = np.random.default_rng(0).integers(1, 31, 200)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    ids = np.arange(starts[-1], dtype=np.int32)
    return Dataset(ids, ids % 2, starts, np.arange(200) % 3)


# --- pack ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [ROWS, [np.array(row) for row in ROWS], [tuple(row) for row in ROWS]])
def test_pack_ragged_rows(rows: Any) -> None:
    batch = pack(rows)
    check_types(batch)
    assert rows_of(batch) == ROWS
    assert not batch.types.any()


def test_pack_drops_the_padding_of_arrays_and_lists() -> None:
    padded = np.array([row + [0] * (5 - len(row)) for row in ROWS])
    types = np.array([[0, 0, 1, 1, 9], [0, 1, 9, 9, 9], [0, 1, 1, 9, 9]])
    mask = np.array([[1] * len(row) + [0] * (5 - len(row)) for row in ROWS])
    arrays = {"input_ids": padded, "token_type_ids": types, "attention_mask": mask}
    lists = {name: array.tolist() for name, array in arrays.items()}
    as_bool = {**arrays, "attention_mask": mask.astype(bool)}
    for encodings in (arrays, lists, as_bool):
        batch = pack(encodings)
        check_types(batch)
        assert rows_of(batch) == ROWS
        assert batch.types.tolist() == [0, 0, 1, 1, 0, 1, 0, 1, 1]


def test_pack_without_a_mask_keeps_every_token() -> None:
    assert rows_of(pack(np.array([[2, 3, 0], [2, 5, 3]], dtype=np.uint16))) == [[2, 3, 0], [2, 5, 3]]


def test_pack_takes_what_the_tokenizer_gives(tokenizer: PreTrainedTokenizerFast) -> None:
    for arguments in ({}, {"padding": True}, {"padding": True, "return_tensors": "np"}):
        batch = pack(tokenizer(["good film", "bad"], ["bad", "good film"], **arguments))
        assert rows_of(batch) == [[2, 5, 7, 3, 6, 3], [2, 6, 3, 5, 7, 3]]
        assert batch.types.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1]
    assert rows_of(pack(tokenizer("good film"))) == [[2, 5, 7, 3]]


def test_pack_leaves_a_batch_as_it_is() -> None:
    batch = pack(ROWS)
    assert pack(batch) is batch


@pytest.mark.parametrize(
    ("mask", "place"),
    [
        ([[1, 1, 0, 1], [1, 1, 1, 1]], r"attention_mask\[0\]\[3\] is 1"),
        ([[1, 1, 1, 1], [0, 1, 1, 1]], r"attention_mask\[1\]\[0\] is 0"),
        ([[1, 1, 1, 1], [0, 0, 0, 0]], r"attention_mask\[1\]\[0\] is 0"),
        ([[1, 1, 2, 0], [1, 1, 1, 1]], r"attention_mask\[0\]\[2\] is 2"),
        ([[1, 1, 1, -1], [1, 1, 1, 1]], r"attention_mask\[0\]\[3\] is -1"),
        ([[1, 1, 0, 0], [2, 1, 1, 1]], r"attention_mask\[1\]\[0\] is 2"),
    ],
)
def test_a_mask_must_be_ones_then_zeros(mask: list[list[int]], place: str) -> None:
    with pytest.raises(ValueError, match=place + "; each row of the mask must be ones, then zeros"):
        pack({"input_ids": [[2, 5, 6, 3], [2, 5, 6, 3]], "attention_mask": mask})


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([], ValueError, "input_ids is empty; a batch needs at least one row"),
        (np.zeros((0, 4), dtype=int), ValueError, "input_ids is empty"),
        ([[2, 3], [], [2, 3]], ValueError, r"input_ids\[1\] is empty; every row needs at least one token"),
        (np.zeros((2, 0), dtype=int), ValueError, r"input_ids\[0\] is empty"),
        ([[2, 3], [2.5, 3]], TypeError, r"input_ids\[1\]\[0\] is not a 32-bit integer"),
        ([[2, 3], ["a", "b"]], TypeError, r"input_ids\[1\]\[0\] is not a 32-bit integer"),
        ([[2, 3], [2, None]], TypeError, r"input_ids\[1\]\[1\] is not a 32-bit integer"),
        ([[2, 2**70]], TypeError, r"input_ids\[0\]\[1\] is not a 32-bit integer"),
        (np.zeros((1, 2), dtype=bool), TypeError, r"input_ids\[0\]\[0\] is not a 32-bit integer"),
        ([[2, 3], [2, 2**31]], ValueError, r"input_ids\[1\]\[1\] is 2147483648; it does not fit 32 bits"),
        ([[2, 3], 5], TypeError, r"input_ids\[1\] is 5; expected a row of token ids"),
        ("text", TypeError, "input_ids is a str; expected a list of lists"),
        (["text"], TypeError, r"input_ids\[0\] is 'text'; expected a row of token ids"),
        (7, TypeError, "input_ids is a int"),
        ([[[2], [3]]], TypeError, "found rows of rows"),
        (np.zeros((1, 2, 3), dtype=int), ValueError, r"input_ids has shape \(1, 2, 3\); expected \(rows, tokens\)"),
        ({"labels": [1]}, ValueError, "the batch has no input_ids; it has labels"),
        (
            {"input_ids": ROWS, "token_type_ids": [[0], [0]]},
            ValueError,
            "token_type_ids has 2 rows; input_ids has 3",
        ),
        (
            {"input_ids": [[2, 3]], "attention_mask": [[1, 1, 1]]},
            ValueError,
            r"attention_mask\[0\] has 3 values; input_ids\[0\] has 2",
        ),
    ],
)
def test_batches_that_are_refused(x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pack(x)


# --- Dataset ---------------------------------------------------------------------------------------------------------


def test_batch_gathers_rows_in_the_order_asked_for(dataset: Dataset) -> None:
    for indices in ([5], [7, 3, 3, 199, 0], np.random.default_rng(1).permutation(200)):
        batch, labels = dataset.batch(indices)
        check_types(batch)
        expected = [dataset.ids[dataset.starts[i] : dataset.starts[i + 1]].tolist() for i in indices]
        assert rows_of(batch) == expected
        np.testing.assert_array_equal(batch.types, batch.ids % 2)
        np.testing.assert_array_equal(labels, np.asarray(indices) % 3)


def test_lengths_and_len(dataset: Dataset) -> None:
    assert len(dataset) == 200
    np.testing.assert_array_equal(dataset.lengths, np.diff(dataset.starts))


@pytest.mark.parametrize(
    ("labels", "labelled"),
    [([0, NO_LABEL, 2], 2), ([NO_LABEL] * 3, 0), ([0.5, np.nan, -100.0], 2), ([[0, 1], [1, np.nan], [np.nan] * 2], 1)],
    ids=["ids", "none", "numbers", "several numbers"],
)
def test_labelled_counts_the_rows_that_have_a_label(labels: list[Any], labelled: int) -> None:
    ids = np.ones(3, np.int32)
    assert Dataset(ids, ids, np.arange(4), np.array(labels)).labelled == labelled


def test_indices_are_checked(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="indices is empty"):
        dataset.batch([])
    for wrong in ([0, 200], [-1]):
        with pytest.raises(IndexError, match="the data set has 200 rows"):
            dataset.batch(wrong)


def test_a_dataset_of_arrays_that_disagree_is_refused() -> None:
    ids, starts, labels = np.zeros(4, dtype=np.int32), np.array([0, 2, 4]), np.zeros(2, dtype=np.int64)
    with pytest.raises(ValueError, match="labels has 3 entries; the data set has 2 rows"):
        Dataset(ids, ids, starts, np.zeros(3, dtype=np.int64))
    for wrong in ([0, 4, 4], [0, 2, 5], [1, 2, 4]):
        with pytest.raises(ValueError, match="starts must rise from 0"):
            Dataset(ids, ids, np.array(wrong), labels)
    with pytest.raises(ValueError, match="the data set has no rows"):
        Dataset(ids[:0], ids[:0], np.array([0]), labels[:0])


# --- encode and as_dataset -------------------------------------------------------------------------------------------


def test_encode_gives_what_the_tokenizer_gives_over_several_blocks(tokenizer: PreTrainedTokenizerFast) -> None:
    words, rng = ["good", "bad", "film", "zebra"], np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, rng.integers(0, 9))) for _ in range(2 * ENCODE_BLOCK + 5)]
    rows = read_rows({"sentence1": texts, "sentence2": texts[::-1], "label": [i % 2 for i in range(len(texts))]})
    seen: list[tuple[int, int]] = []
    dataset = encode(rows, tokenizer, max_length=12, progress=lambda done, total: seen.append((done, total)))
    expected = tokenizer(texts, texts[::-1], truncation=True, max_length=12)
    assert dataset.lengths.max() == 12
    assert rows_of(Batch(dataset.ids, dataset.types, dataset.starts)) == expected["input_ids"]
    np.testing.assert_array_equal(dataset.types, np.concatenate(expected["token_type_ids"]))
    np.testing.assert_array_equal(dataset.labels, np.arange(len(texts)) % 2)
    assert seen == [(done, len(texts)) for done in (0, ENCODE_BLOCK, 2 * ENCODE_BLOCK, len(texts))]
    check_types(Batch(dataset.ids, dataset.types, dataset.starts))


def test_rows_are_cut_to_the_tokenizer_s_length_unless_told(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    rows = read_rows(["good " * 20])
    assert encode(rows, tokenizer).lengths.tolist() == [22]
    assert encode(rows, AutoTokenizer.from_pretrained(tmp_path, model_max_length=8)).lengths.tolist() == [8]
    with pytest.raises(ValueError, match="max_length is 1; expected an integer of at least 3"):
        encode(rows, tokenizer, max_length=1)


def test_labels_are_checked_before_tokenising() -> None:
    rows = read_rows({"text": ["good"], "label": [2]})
    with pytest.raises(ValueError, match="label 2 is not one of the model's labels"):
        encode(rows, None, id2label=SENTIMENT)  # type: ignore[arg-type]


def test_as_dataset_of_text_and_of_datasets(tokenizer: PreTrainedTokenizerFast) -> None:
    dataset = as_dataset({"phrase": ["good film", "bad"], "y": ["positive", None]}, tokenizer, id2label=SENTIMENT,
                         text_column="phrase", label_column="y")  # fmt: skip
    assert dataset.ids.tolist() == [2, 5, 7, 3, 2, 6, 3]
    assert dataset.labels.tolist() == [1, NO_LABEL]
    assert as_dataset(dataset, None) is dataset
    with pytest.raises(ValueError, match="the list holds text; pass a tokenizer"):
        as_dataset(["good"], None)


def test_as_dataset_of_token_ids() -> None:
    rows = [{"input_ids": [2, 5, 3, 0], "attention_mask": [1, 1, 1, 0], "label": 1},
            {"input_ids": [2, 6, 7, 3], "attention_mask": [1, 1, 1, 1], "label": "negative"}]  # fmt: skip
    dataset = as_dataset(rows, None, id2label=SENTIMENT)
    assert dataset.ids.tolist() == [2, 5, 3, 2, 6, 7, 3]
    assert dataset.labels.tolist() == [1, 0]
    unlabelled = as_dataset({"input_ids": ROWS}, None)
    assert unlabelled.labels.tolist() == [NO_LABEL] * 3
    with pytest.raises(ValueError, match=r"label_column='y': the dict has no such column; its columns are input_ids"):
        as_dataset({"input_ids": ROWS}, None, label_column="y")


def test_as_dataset_of_padded_token_ids() -> None:
    """With a mask it says what is padding; without one the padding token does, at the end of rows alone."""
    padded = [[2, 5, 0, 3, 0], [2, 3, 0, 0, 0], [2, 6, 7, 8, 3]]
    types = [[0, 0, 0, 1, 0], [0] * 5, [0, 0, 1, 1, 1]]
    packed = as_dataset({"input_ids": padded, "token_type_ids": types, "label": [0, 1, 1]}, None, pad_token_id=0)
    assert packed.ids.tolist() == [2, 5, 0, 3, 2, 3, 2, 6, 7, 8, 3]
    assert packed.types.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1]
    assert packed.lengths.tolist() == [4, 2, 5]
    masked = as_dataset({"input_ids": padded, "attention_mask": [[1] * 5] * 3}, None, pad_token_id=0)
    assert masked.lengths.tolist() == [5, 5, 5]
    assert as_dataset({"input_ids": padded}, None).lengths.tolist() == [5, 5, 5]
    with pytest.raises(ValueError, match=r"input_ids\[1\] contains only padding"):
        as_dataset({"input_ids": [[2, 0], [0, 0], [0, 0]]}, None, pad_token_id=0)


def test_as_dataset_of_no_rows() -> None:
    with pytest.raises(ValueError, match="the dict has no rows"):
        as_dataset({"input_ids": []}, None)


# --- RandomSampler ---------------------------------------------------------------------------------------------------


def test_each_epoch_is_a_permutation_decided_by_seed_and_epoch() -> None:
    orders = {(seed, epoch): RandomSampler(500, seed).permutation(epoch) for seed in (0, 33) for epoch in (0, 1)}
    for order in orders.values():
        assert order.dtype == np.int64
        np.testing.assert_array_equal(np.sort(order), np.arange(500))
    assert len({order.tobytes() for order in orders.values()}) == 4
    np.testing.assert_array_equal(RandomSampler(500, 33).permutation(1), orders[33, 1])


def philox4x64(counter: int, key: list[int]) -> list[int]:
    """Four 64-bit words of Philox4x64-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011."""
    low = 2**64 - 1
    c = [counter, 0, 0, 0]
    for rnd in range(10):
        k = [(key[0] + rnd * 0x9E3779B97F4A7C15) & low, (key[1] + rnd * 0xBB67AE8584CAA73B) & low]
        p, q = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(q >> 64) ^ c[1] ^ k[0], q & low, (p >> 64) ^ c[3] ^ k[1], p & low]
    return c


def test_the_order_is_that_of_philox_words() -> None:
    """Computed here from the paper: a resumed run depends on the order staying what it was."""
    words = [word for counter in (1, 2, 3) for word in philox4x64(counter, [33, 2])]
    assert RandomSampler(12, 33).permutation(2).tolist() == sorted(range(12), key=lambda row: words[row])


def test_every_place_is_equally_likely() -> None:
    n, epochs = 6, 3000
    counts = np.zeros((n, n))
    sampler = RandomSampler(n, 7)
    for epoch in range(epochs):
        counts[np.arange(n), sampler.permutation(epoch)] += 1
    chi_square = ((counts - epochs / n) ** 2 / (epochs / n)).sum()
    assert chi_square < 60  # 25 degrees of freedom: P(> 60) = 1e-4, and the seed is fixed


def test_sampler_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="n is 0"):
        RandomSampler(0, 1)
    with pytest.raises(ValueError, match="seed is -1"):
        RandomSampler(5, -1)
