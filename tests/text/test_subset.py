"""Tokenizers that are left with a part of their vocabulary, against the whole ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.kinds_of_tokenizers import TEXTS, unigram, wordpiece
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import kdistill as kd
from kdistill.text.classes import RobertaTokenizer
from kdistill.text.tokenizer import PreTrainedTokenizerFast

ROBERTA_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
# "th" joins before "he", so that "the" has the parts t, h, th, e; "hel" has he and l.
MERGES = [("t", "h"), ("h", "e"), ("th", "e"), ("he", "l"), ("\u0120", "the"), ("the", "n"), ("o", "n"), ("the", "m")]


def roberta() -> RobertaTokenizer:
    """A tokenizer of BPE of bytes with a handful of merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys([*ROBERTA_TOKENS[:-1], *alphabet, *("".join(pair) for pair in MERGES), "<mask>"])
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(ROBERTA_TOKENS)
    vocab = backend.get_vocab()
    backend.post_processor = processors.RobertaProcessing(("</s>", vocab["</s>"]), ("<s>", vocab["<s>"]))
    return RobertaTokenizer(backend, {"tokenizer_class": "RobertaTokenizer"})


def bert() -> PreTrainedTokenizerFast:
    return kd.BertTokenizer(wordpiece(), {"tokenizer_class": "BertTokenizer"})


def xlm() -> PreTrainedTokenizerFast:
    settings = {"tokenizer_class": "XLMRobertaTokenizer"}
    return kd.XLMRobertaTokenizer(unigram(pre_tokenizers.Metaspace()), settings)


def tokens_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    return [str(token) for token in tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])]


@pytest.mark.parametrize("make", [bert, roberta, xlm])
def test_texts_whose_tokens_all_stay_are_cut_into_the_same_ones(make: object, tmp_path: Path) -> None:
    whole = make()  # type: ignore[operator]
    ids = {index for text in TEXTS[:5] for index in whole(text)["input_ids"]}
    part, kept = whole.with_vocabulary(ids | whole.ids_of_unknown_words(TEXTS[:5]))
    assert len(part) == len(kept) < len(whole)
    part.save_pretrained(tmp_path)
    again = type(whole).from_pretrained(tmp_path)
    staying, same = {*kept.tolist()}, 0
    for text in TEXTS:
        before = whole(text)["input_ids"]
        if staying.issuperset(before):
            assert kept[again(text)["input_ids"]].tolist() == before, text
            same += 1
    assert same >= 5
    assert again.special_tokens_map == whole.special_tokens_map


def test_ids_follow_each_other_in_the_order_that_they_had() -> None:
    whole = bert()
    part, kept = whole.with_vocabulary([whole.vocab["great"], whole.vocab["film"]])
    assert kept.tolist() == sorted(kept.tolist())
    assert {part.vocab[token]: kept[part.vocab[token]] for token in part.vocab} == {
        index: whole.vocab[token] for token, index in part.vocab.items()
    }
    assert {"great", "film", "##s", "x", "[MASK]"} - {*part.vocab} == {"x"} - {*whole.vocab}
    assert "films" not in part.vocab
    assert tokens_of(part, "great films") == ["[CLS]", "great", "film", "##s", "[SEP]"]


def test_bpe_keeps_the_merges_on_the_way_and_no_others() -> None:
    whole = roberta()
    assert tokens_of(whole, " then helm") == ["<s>", "\u0120the", "n", "\u0120", "hel", "m", "</s>"]
    part, _ = whole.with_vocabulary([whole.vocab["\u0120the"]])
    merges = json.loads(part._serialized())["model"]["merges"]
    assert merges == [["t", "h"], ["th", "e"], ["\u0120", "the"]]
    assert tokens_of(part, " the") == tokens_of(whole, " the")
    # Spelled with what is left: he and hel are gone, and "then" ends in the letter n.
    assert tokens_of(part, "then helm \u20ac") == (
        ["<s>", "the", "n", "\u0120", "h", "e", "l", "m", "\u0120", "\u00e2", "\u0124", "\u00ac", "</s>"]
    )


def test_merges_of_older_files_stay_one_string_each(tmp_path: Path) -> None:
    roberta().save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    path.write_text(json.dumps(content))
    whole = kd.RobertaTokenizer.from_pretrained(tmp_path)
    part, _ = whole.with_vocabulary([whole.vocab["hel"]])
    assert {*part.vocab} - {*pre_tokenizers.ByteLevel.alphabet(), *ROBERTA_TOKENS} == {"he", "hel"}


def test_an_unknown_word_stays_unknown_where_its_pieces_are_asked_for() -> None:
    """Left with "film" alone, WordPiece would go on behind it where "films" ended in an unknown character."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##b", "ab", "##b\u20ac"]
    backend = wordpiece()
    backend.model = models.WordPiece({token: index for index, token in enumerate(tokens)}, unk_token="[UNK]")
    whole = PreTrainedTokenizerFast(backend)
    assert tokens_of(whole, "AB\u20ac") == ["[CLS]", "[UNK]", "[SEP]"]
    ids = [*whole("AB\u20ac")["input_ids"], whole.vocab["##b\u20ac"]]
    assert tokens_of(whole.with_vocabulary(ids)[0], "AB\u20ac") == ["[CLS]", "a", "##b\u20ac", "[SEP]"]
    asked = whole.ids_of_unknown_words(["AB\u20ac"])
    assert tokens_of(whole.with_vocabulary([*ids, *asked])[0], "AB\u20ac") == ["[CLS]", "[UNK]", "[SEP]"]


def test_unigram_keeps_the_lowest_score_which_that_of_the_unknown_token_follows_from() -> None:
    """No piece is the letter x alone: without "rare", an unknown x beside two letters would beat the piece "axb"."""
    scores = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("a", -1.0), ("b", -1.0), ("axb", -15.0)]
    backend = unigram(pre_tokenizers.WhitespaceSplit())
    backend.model = models.Unigram([*scores, ("rare", -30.0), ("\u2581", -9.0)], unk_id=3)
    whole = PreTrainedTokenizerFast(backend, {"tokenizer_class": "XLMRobertaTokenizer"})
    ids = whole("axb")["input_ids"]
    assert tokens_of(whole, "axb") == ["<s>", "axb", "</s>"]
    part, kept = whole.with_vocabulary(ids)
    assert "rare" in part.vocab
    assert kept[part("axb")["input_ids"]].tolist() == ids


def test_tokens_that_were_added_stay_behind_the_vocabulary() -> None:
    whole = bert()
    whole.add_tokens(["covid", "[world]"])
    part, kept = whole.with_vocabulary([whole.vocab["film"]])
    assert tokens_of(part, "covid film [WORLD]") == ["[CLS]", "covid", "film", "[world]", "[SEP]"]
    assert kept[part.vocab["covid"]] == whole.vocab["covid"]
    assert len(part) - part.vocab_size == 2


def test_what_cannot_be_kept_is_refused() -> None:
    whole = bert()
    with pytest.raises(ValueError, match=f"no entry {len(whole)}; expected ids of its {len(whole)}"):
        whole.with_vocabulary([1, len(whole)])
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "[CLS]": 2, "[SEP]": 3}, unk_token="[UNK]"))
    with pytest.raises(ValueError, match="model is WordLevel; expected one of WordPiece, BPE, Unigram"):
        PreTrainedTokenizerFast(words).with_vocabulary([])
