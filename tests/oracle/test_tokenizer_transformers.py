"""The same ids as transformers' tokenizer, from each kind of file, and on what is saved here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kdistill.rows import read_rows
from kdistill.tokenizer import AutoTokenizer

transformers = pytest.importorskip("transformers")

# What SST-2's plain sentences do not hold: case, accents, other scripts, special tokens, control and format characters.
TRICKY = [
    "",
    "   ",
    "The Café-owner's NAÏVE résumé: 100%!",
    "[MASK] and [SEP] inside [UNK] text, [mask] too",
    "东京 and 大阪 mixed with latin",
    "tab\there\u00a0nbsp\u2028line\u200bzero\x00nul\x7f",
    "İstanbul ẞ ﬁne e\u0301 \U0001f600",
    "x" * 101 + " " + "y" * 99,
]


@pytest.fixture(params=["bert-base-uncased", "minilm-l6-sst2"])
def model_files(request: pytest.FixtureRequest, shared_dir: Path) -> Path:
    return shared_dir / "models" / request.param


@pytest.fixture(scope="module")
def texts(shared_dir: Path) -> list[str]:
    dev = read_rows(shared_dir / "data" / "SST-2" / "dev.tsv").texts
    assert len(dev) == 872
    return dev + [text.title() for text in dev[:100]] + TRICKY


def only_vocab(model_files: Path, directory: Path, do_lower_case: bool | None) -> Path:
    shutil.copy(model_files / "vocab.txt", directory / "vocab.txt")
    if do_lower_case is not None:
        (directory / "tokenizer_config.json").write_text(
            f'{{"do_lower_case": {str(do_lower_case).lower()}, "tokenizer_class": "BertTokenizer"}}'
        )
    return directory


def test_tokenizer_json(model_files: Path, texts: list[str]) -> None:
    expected = transformers.AutoTokenizer.from_pretrained(model_files)(texts, padding=False, truncation=False)
    found = AutoTokenizer.from_pretrained(model_files)(texts, truncation=False)
    assert found["input_ids"] == expected["input_ids"]
    assert found["token_type_ids"] == expected["token_type_ids"]


@pytest.mark.parametrize("do_lower_case", [None, True, False])
def test_vocab_alone(model_files: Path, texts: list[str], tmp_path: Path, do_lower_case: bool | None) -> None:
    only_vocab(model_files, tmp_path, do_lower_case)
    expected = transformers.BertTokenizer.from_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(texts)["input_ids"] == expected(texts)["input_ids"]


def test_configuration_against_tokenizer_json(shared_dir: Path, texts: list[str], tmp_path: Path) -> None:
    shutil.copy(shared_dir / "models" / "bert-base-uncased" / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "tokenizer_class": "BertTokenizer"}')
    expected = transformers.AutoTokenizer.from_pretrained(tmp_path)(texts, padding=False, truncation=False)
    assert AutoTokenizer.from_pretrained(tmp_path)(texts)["input_ids"] == expected["input_ids"]


@pytest.mark.parametrize("arguments", [{"max_length": 16}, {"max_length": 40, "truncation": "only_second"}])
def test_pairs_and_truncation(model_files: Path, texts: list[str], arguments: dict[str, object]) -> None:
    first = [text[:20] for text in texts[:200]]
    second = ["a longer second sentence, which is never the shorter one of the pair : " + text for text in first]
    arguments = {"truncation": True, **arguments}
    expected = transformers.AutoTokenizer.from_pretrained(model_files)(first, second, **arguments)
    found = AutoTokenizer.from_pretrained(model_files)(first, second, **arguments)
    assert max(map(len, expected["input_ids"])) == arguments["max_length"]
    assert found["input_ids"] == expected["input_ids"]
    assert found["token_type_ids"] == expected["token_type_ids"]


def test_padded_arrays_and_decoding(model_files: Path, texts: list[str]) -> None:
    theirs, ours = transformers.AutoTokenizer.from_pretrained(model_files), AutoTokenizer.from_pretrained(model_files)
    expected = theirs(texts[:50], padding=True, truncation=True, max_length=20, return_tensors="np")
    found = ours(texts[:50], padding=True, truncation=True, max_length=20, return_tensors="np")
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        assert (found[name] == expected[name]).all()
    row = [int(token_id) for token_id in found["input_ids"][0]]
    assert ours.decode(row, skip_special_tokens=True) == theirs.decode(
        row, skip_special_tokens=True, clean_up_tokenization_spaces=True
    )
    assert ours.convert_ids_to_tokens(row) == theirs.convert_ids_to_tokens(row)
    assert ours.vocab == theirs.vocab


@pytest.mark.parametrize("do_lower_case", [True, False])
def test_what_is_saved_opens_in_transformers(
    model_files: Path, texts: list[str], tmp_path: Path, do_lower_case: bool
) -> None:
    ours = AutoTokenizer.from_pretrained(model_files, do_lower_case=do_lower_case, model_max_length=512)
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(texts)["input_ids"] == ours(texts)["input_ids"]
    assert theirs.model_max_length == 512
    assert (theirs.pad_token, theirs.mask_token_id) == (ours.pad_token, ours.mask_token_id)
    (tmp_path / "tokenizer.json").unlink()
    from_vocab = transformers.BertTokenizer.from_pretrained(tmp_path)
    assert from_vocab(texts)["input_ids"] == ours(texts)["input_ids"]
