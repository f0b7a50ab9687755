"""The tokenizers of all architectures on vocabularies small enough to write the expected ids by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.sentencepiece_files import (
    ALBERT_PIECES,
    BPE,
    FAIRSEQ_PIECES,
    sentencepiece_file,
)
from tokenizers import pre_tokenizers

import kdistill as kd
from kdistill.text.classes import AutoTokenizer

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "##s", "!"]
MPNET = ["<s>", "<pad>", "</s>", "<unk>", "the", "film", "##s", "!", "[UNK]", "<mask>"]
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = [("t", "h"), ("th", "e"), ("\u0120", "f"), ("\u0120f", "i"), ("\u0120fi", "l"), ("\u0120fil", "m")]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", *BYTES, *(first + second for first, second in MERGES), "<mask>"]


def lines(tokens: list[str]) -> bytes:
    return "".join(f"{token}\n" for token in tokens).encode()


def bpe_files(tokens: list[str] = ROBERTA) -> dict[str, bytes]:
    ids = {token: index for index, token in enumerate(tokens)}
    merges = "#version: 0.2\n" + "".join(f"{first} {second}\n" for first, second in MERGES)
    return {"vocab.json": json.dumps(ids).encode(), "merges.txt": merges.encode()}


FILES: dict[str, dict[str, bytes]] = {
    "bert": {"vocab.txt": lines(BERT)},
    "distilbert": {"vocab.txt": lines(BERT)},
    "electra": {"vocab.txt": lines(BERT)},
    "mpnet": {"vocab.txt": lines(MPNET)},
    "roberta": bpe_files(),
    "xlm-roberta": {"sentencepiece.bpe.model": sentencepiece_file(FAIRSEQ_PIECES)},
    "camembert": {"sentencepiece.bpe.model": sentencepiece_file(FAIRSEQ_PIECES)},
    "albert": {"spiece.model": sentencepiece_file(ALBERT_PIECES)},
}
CLASSES = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
    "albert": "AlbertTokenizer",
}
THE, FILM, S, SPACE = (ROBERTA.index(token) for token in ("the", "\u0120film", "s", "\u0120"))
# ids of "the films" with special tokens, and of the pair ("the", "films <mask>"), with the types of the pair.
EXPECTED: dict[str, tuple[list[int], list[int], list[int]]] = {
    "bert": ([2, 5, 6, 7, 3], [2, 5, 3, 6, 7, 4, 3], [0, 0, 0, 1, 1, 1, 1]),
    "distilbert": ([2, 5, 6, 7, 3], [2, 5, 3, 6, 7, 4, 3], [0, 0, 0, 1, 1, 1, 1]),
    "electra": ([2, 5, 6, 7, 3], [2, 5, 3, 6, 7, 4, 3], [0, 0, 0, 1, 1, 1, 1]),
    "mpnet": ([0, 4, 5, 6, 2], [0, 4, 2, 2, 5, 6, 9, 2], [0] * 8),
    "roberta": (
        [0, THE, FILM, S, 2],
        [0, THE, 2, 2, *(ROBERTA.index(letter) for letter in "films"), SPACE, len(ROBERTA) - 1, 2],
        [0] * 12,
    ),
    # fairseq's ids: <s> <pad> </s> <unk>, then SentencePiece's from the fourth piece on, then <mask>
    "xlm-roberta": ([0, 4, 5, 6, 2], [0, 4, 2, 2, 5, 6, 9, 2], [0] * 8),
    # <s>NOTUSED <pad> </s>NOTUSED <unk> <unk>NOTUSED, then SentencePiece's from the second piece on, then <mask>
    "camembert": ([5, 7, 8, 9, 6], [5, 7, 6, 6, 8, 9, 12, 6], [0] * 8),
    "albert": ([2, 6, 7, 8, 3], [2, 6, 3, 7, 8, 4, 3], [0, 0, 0, 1, 1, 1, 1]),
}


def write(model_type: str, directory: Path, **settings: object) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in FILES[model_type].items():
        (directory / name).write_bytes(content)
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    if settings:
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


@pytest.mark.parametrize("model_type", FILES)
def test_each_kind_has_its_ids_template_and_types_before_and_after_saving(model_type: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write(model_type, tmp_path / "files"))
    tokenizer.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    named = getattr(kd, CLASSES[model_type] + "Fast").from_pretrained(tmp_path / "files")
    mask = tokenizer.mask_token
    single, pair, types = EXPECTED[model_type]
    for loaded in (tokenizer, again, named):
        assert type(loaded) is getattr(kd, CLASSES[model_type])
        assert loaded("the films")["input_ids"] == single
        row = loaded("the", f"films {mask}", return_token_type_ids=True, return_special_tokens_mask=True)
        assert row["input_ids"] == pair
        assert row["token_type_ids"] == types
        assert loaded.content_hash == tokenizer.content_hash
        assert ("token_type_ids" in loaded.model_input_names) == (model_type in ("bert", "electra"))
        assert loaded.decode(single, skip_special_tokens=True) == "the films"
    vocabulary = {path.name for path in (tmp_path / "saved").iterdir()} & set(FILES[model_type])
    assert vocabulary == {name for name in FILES[model_type] if not name.endswith(".model")}
    saved = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert saved["tokenizer_class"] == CLASSES[model_type]


@pytest.mark.parametrize("model_type", ["bert", "mpnet", "roberta"])
def test_the_vocabulary_that_is_saved_stands_for_tokenizer_json(model_type: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write(model_type, tmp_path / "files"))
    tokenizer.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "tokenizer.json").unlink()
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").content_hash == tokenizer.content_hash


def test_a_bert_model_may_have_the_tokenizer_of_xlm_roberta(tmp_path: Path) -> None:
    """As multilingual MiniLM has: the class is in the config.json of the model."""
    write("xlm-roberta", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "tokenizer_class": "XLMRobertaTokenizer"}')
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(tokenizer, kd.XLMRobertaTokenizer)
    assert tokenizer("the films")["input_ids"] == EXPECTED["xlm-roberta"][0]
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert isinstance(AutoTokenizer.from_pretrained(tmp_path), kd.XLMRobertaTokenizer), "by its file"


def test_mask_takes_the_space_before_it_where_its_kind_does(tmp_path: Path) -> None:
    for model_type, takes in {"mpnet": True, "camembert": True, "xlm-roberta": False, "roberta": False}.items():
        tokenizer = AutoTokenizer.from_pretrained(write(model_type, tmp_path / model_type))
        tokenizer.save_pretrained(tmp_path / model_type)
        tokens = json.loads((tmp_path / model_type / "tokenizer.json").read_text())["added_tokens"]
        assert {token["content"]: token["lstrip"] for token in tokens}["<mask>"] == takes, model_type
        assert tokenizer("the <mask>", add_special_tokens=False)["input_ids"][-1] == tokenizer.mask_token_id
        spaces = [token for token in tokenizer.tokenize("the <mask>") if token in ("\u0120", "\u2581")]
        assert bool(spaces) == (model_type == "roberta"), model_type


def test_add_prefix_space_reads_the_first_word_as_one_inside_a_text(tmp_path: Path) -> None:
    write("roberta", tmp_path)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    prefixed = kd.RobertaTokenizer.from_pretrained(tmp_path, add_prefix_space=True)
    assert plain("film")["input_ids"] != plain(" film")["input_ids"]
    assert prefixed("film")["input_ids"] == plain(" film")["input_ids"] == [0, FILM, 2]
    assert prefixed(["film", "film"], is_split_into_words=True)["input_ids"] == [0, FILM, FILM, 2]
    prefixed.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again("film")["input_ids"] == [0, FILM, 2]
    assert again.content_hash == prefixed.content_hash
    path = tmp_path / "saved" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["add_prefix_space"]
    path.write_text(json.dumps(settings))
    unstated = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert unstated("film") == plain("film"), "transformers' class takes False where no file states it"
    plain.save_pretrained(tmp_path / "plain")
    from_json = AutoTokenizer.from_pretrained(tmp_path / "plain", add_prefix_space=True)
    assert from_json("film")["input_ids"] == [0, FILM, 2]


@pytest.mark.parametrize("model_type", CLASSES)
def test_words_have_the_tokens_that_they_have_inside_a_text(model_type: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write(model_type, tmp_path / "files"))
    words, before = ["film", "the", "films", "film"], tokenizer("film the film")["input_ids"]
    tokenizer.save_pretrained(tmp_path / "saved")
    for of_words in (tokenizer, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        (row,) = of_words.encode_words([words])
        inside = of_words(" ".join(["the", *words]), add_special_tokens=False)
        first = inside.word_to_tokens(1).start
        assert row.ids == inside["input_ids"][first:]
        assert row.words == [place - 1 for place in inside.word_ids()[first:]]
    assert tokenizer("film the film")["input_ids"] == before, "text has the tokens that it had"
    tagger = tokenizer.for_words()
    assert (tagger is tokenizer) == (model_type != "roberta")
    assert tagger(" ".join(words), add_special_tokens=False)["input_ids"] == row.ids
    assert tagger.for_words() is tagger
    tagger.save_pretrained(tmp_path / "tagger")
    saved = AutoTokenizer.from_pretrained(tmp_path / "tagger")
    assert type(saved).__name__ == CLASSES[model_type]
    assert saved.content_hash == tagger.content_hash
    places = saved(" ".join(words), return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    assert places[0][0] == 0


def test_the_space_before_a_text_is_left_out_of_the_places_of_tokens_once(tmp_path: Path) -> None:
    write("roberta", tmp_path)
    AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "plain")
    for directory in (tmp_path, tmp_path / "plain"):
        tokenizer = AutoTokenizer.from_pretrained(directory, add_prefix_space=True)
        found = tokenizer("film film", return_offsets_mapping=True, add_special_tokens=False)
        assert found["input_ids"] == [FILM, FILM]
        assert found["offset_mapping"] == [(0, 4), (5, 9)]


def test_albert_s_case_and_accents_are_settings(tmp_path: Path) -> None:
    write("albert", tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("THE f\u00eflms")["input_ids"] == EXPECTED["albert"][0]
    cased = AutoTokenizer.from_pretrained(tmp_path, do_lower_case=False)
    assert cased("THE")["input_ids"] == [2, 9, 1, 3]
    cased.save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")("THE")["input_ids"] == [2, 9, 1, 3]
    assert AutoTokenizer.from_pretrained(tmp_path / "saved", do_lower_case=True)("THE")["input_ids"] == [2, 6, 3]
    settings = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    (tmp_path / "saved" / "tokenizer_config.json").write_text(json.dumps(settings | {"keep_accents": True}))
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")("f\u00eflm")["input_ids"] != [2, 7, 3]


def test_pieces_that_users_defined_are_tokens_of_their_own(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write("albert", tmp_path))
    assert tokenizer("the(films ``")["input_ids"] == [2, 6, 5, 7, 8, 9, 10, 3]
    assert "(" not in tokenizer.all_special_tokens


def test_a_table_of_replacements_is_used(tmp_path: Path) -> None:
    """A table without entries, as SentencePiece writes it: the size of its trie, the trie, the replacements."""
    table = (1024).to_bytes(4, "little") + bytes(1024)
    (tmp_path / "sentencepiece.bpe.model").write_bytes(sentencepiece_file(FAIRSEQ_PIECES, charsmap=table))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("the films")["input_ids"] == EXPECTED["xlm-roberta"][0]
    tokenizer.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "tokenizer.json").read_text())["normalizer"]["type"] == "Precompiled"
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").content_hash == tokenizer.content_hash


def test_a_class_asked_for_must_be_that_of_the_files(tmp_path: Path) -> None:
    write("distilbert", tmp_path / "distilbert")
    assert "token_type_ids" in kd.BertTokenizer.from_pretrained(tmp_path / "distilbert").model_input_names
    write("xlm-roberta", tmp_path / "xlm")
    with pytest.raises(ValueError, match="are those of a XLMRobertaTokenizer; expected a RobertaTokenizer: load them"):
        kd.RobertaTokenizer.from_pretrained(tmp_path / "xlm")


def test_stages_of_another_kind_stay_as_they_are(tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(write("xlm-roberta", tmp_path)).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True}
    path.write_text(json.dumps(content))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("the films")["input_ids"] == EXPECTED["xlm-roberta"][0]
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast", "transformers' own class would split elsewhere"
    with pytest.warns(UserWarning, match="add_prefix_space is False .* not those of XLMRobertaTokenizer; the file dec"):
        AutoTokenizer.from_pretrained(tmp_path, add_prefix_space=False)


def changed(name: str, change: Callable[[bytes], bytes]) -> dict[str, bytes]:
    files = bpe_files()
    return files | {name: change(files[name])}


BAD: dict[str, tuple[dict[str, bytes], type[Exception], str]] = {
    "no merges": ({"vocab.json": bpe_files()["vocab.json"]}, FileNotFoundError, "has no merges.txt; expected vocab"),
    "merge of three": (changed("merges.txt", lambda data: data + b"a b c\n"), ValueError, "line 8: 'a b c' is not a"),
    "merge of unknown": (changed("merges.txt", lambda data: data + b"q q\n"), ValueError, "joins symbols that vocab"),
    "merges not UTF-8": (changed("merges.txt", lambda data: b"\xff"), ValueError, "merges.txt is not UTF-8"),
    "negative id": (changed("vocab.json", lambda data: b'{"a": -1}'), ValueError, "'a' has the id -1; expected a"),
    "no special tokens": (bpe_files(BYTES + ["".join(m) for m in MERGES]), ValueError, "none of them is '<unk>'; exp"),
    "BPE": ({"spiece.model": sentencepiece_file(ALBERT_PIECES, BPE)}, ValueError, "of type BPE; expected Unigram"),
    "empty": ({"spiece.model": b""}, ValueError, "is not a SentencePiece model: it has no pieces"),
    "one piece": ({"spiece.model": sentencepiece_file(ALBERT_PIECES[:1])}, ValueError, "has 1 pieces; expected those"),
    "text": ({"spiece.model": b"not a model at all"}, ValueError, "is not a SentencePiece model"),
    "cut off": ({"spiece.model": sentencepiece_file(ALBERT_PIECES)[:40]}, ValueError, "ends after byte 40, within a f"),
    "no number": ({"spiece.model": b"\x0a" + b"\xff" * 20}, ValueError, "no number ends behind byte 1"),
    "score": (
        {"spiece.model": sentencepiece_file([("a", math.nan, 1)])}, ValueError, "a piece has the text b'a' and the sc",
    ),
    "not the kind's": (
        {"sentencepiece.bpe.model": sentencepiece_file(ALBERT_PIECES), "config.json": b'{"model_type": "albert"}',
         "tokenizer_config.json": b'{"tokenizer_class": "AlbertTokenizer"}'},
        FileNotFoundError, "has no spiece.model; expected spiece.model, the vocabulary of a AlbertTokenizer",
    ),
    "charsmap": (
        {"sentencepiece.bpe.model": sentencepiece_file(FAIRSEQ_PIECES, charsmap=b"abc")}, ValueError,
        "is not a vocabulary that the package tokenizers reads",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_damaged_files_of_a_vocabulary_give_one_clear_error(case: str, tmp_path: Path) -> None:
    files, error, message = BAD[case]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        AutoTokenizer.from_pretrained(tmp_path)


def test_tokenizers_of_two_kinds_differ(tmp_path: Path) -> None:
    def load(model_type: str) -> Any:
        return AutoTokenizer.from_pretrained(write(model_type, tmp_path / model_type))

    assert not load("bert").differences_from(load("distilbert"))
    found = load("xlm-roberta").differences_from(load("camembert"))
    assert any("entries of the vocabulary" in phrase for phrase in found)
    found = load("roberta").differences_from(load("bert"))
    assert any(phrase.startswith("the pre-tokenizer (BertPreTokenizer and ByteLevel") for phrase in found)
