"""Models that are left with a part of their vocabulary, against the whole ones."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_architectures import write_encoder
from support.small_questions import questions as question_rows
from support.small_run import VOCABULARY, WORDS, small_config, small_model, write_model, write_rows
from support.small_texts import documents, language_model

import kdistill as kd
from kdistill.cli.main import main
from kdistill.compress.vocabulary import rows_of, same_rows, with_vocabulary
from kdistill.data.sources import read_table
from kdistill.models.registry import ARCHITECTURES

TEXTS = ["good film", "bad plot", "great film bad", "awful film", "actor good"]
OF_DATA = [{"text": text, "label": 1} for text in TEXTS[:3]]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz"]


def tokenizer_of(directory: Path) -> Any:
    """A tokenizer with the words of the small run and all that spells them."""
    pieces = [f"##{letter}" for letter in LETTERS]
    (directory / "vocab.txt").write_text("\n".join([*VOCABULARY, *LETTERS, *pieces]) + "\n")
    return kd.BertTokenizer.from_pretrained(directory)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    (tmp_path / "words").mkdir()
    return tokenizer_of(tmp_path / "words")


def test_rows_whose_pieces_all_stay_have_the_same_logits(tmp_path: Path, tokenizer: Any) -> None:
    whole = small_model(vocab_size=len(tokenizer))
    figures = kd.prune(whole, OF_DATA, tmp_path / "out", vocabulary=True, processing_class=tokenizer)
    pruned = kd.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    part = kd.AutoTokenizer.from_pretrained(tmp_path / "out")
    gone = {"awful", "actor", "scene"}
    assert {*part.vocab} == {*tokenizer.vocab} - gone
    assert (tmp_path / "out" / "vocab.txt").read_text().splitlines() == sorted(part.vocab, key=part.vocab.__getitem__)
    np.testing.assert_array_equal(pruned(**part(TEXTS[:3])).logits, whole(**tokenizer(TEXTS[:3])).logits)
    assert (figures["vocab_size_before"], figures["vocab_size"]) == (len(tokenizer), len(tokenizer) - 3)
    assert figures["num_parameters_before"] - figures["num_parameters"] == 3 * 16
    assert (figures["n"], figures["rows_with_same_tokens"]) == (3, 3)
    assert part.tokenize("awful") == ["a", "##w", "##f", "##u", "##l"]


@pytest.mark.parametrize("tied", [True, False])
def test_a_language_model_loses_the_same_words_of_its_head(tmp_path: Path, tokenizer: Any, tied: bool) -> None:
    whole = language_model(vocab_size=len(tokenizer), extra={} if tied else {"tie_word_embeddings": False})
    with whole.writing() as flat:
        flat += np.random.default_rng(1).standard_normal(flat.size).astype(np.float32) / 8
    texts = [text for text in documents(9) if "actor" not in text]
    kd.prune(whole, [{"text": text} for text in texts], tmp_path / "out", vocabulary=True, processing_class=tokenizer)
    pruned, part = (
        kd.AutoModelForMaskedLM.from_pretrained(tmp_path / "out"),
        kd.AutoTokenizer.from_pretrained(tmp_path / "out"),
    )
    kept = [tokenizer.vocab[token] for token in sorted(part.vocab, key=part.vocab.__getitem__)]
    assert len(kept) < len(tokenizer)
    for text in texts[:3]:
        ours, theirs = (model.forward(kd.pack(read([text]))) for model, read in ((pruned, part), (whole, tokenizer)))
        np.testing.assert_array_equal(ours, theirs[:, kept])


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_every_architecture_reads_what_is_left_as_before(tmp_path: Path, model_type: str) -> None:
    """Positions that are counted from the padding token's id (RoBERTa) stay where they are."""
    directory = write_encoder(model_type, tmp_path / "whole")
    whole, tokenizer = kd.AutoModel.from_pretrained(directory), kd.AutoTokenizer.from_pretrained(directory)
    kd.prune(directory, [{"text": text} for text in TEXTS[:3]], tmp_path / "out", vocabulary=True)
    pruned, part = kd.AutoModel.from_pretrained(tmp_path / "out"), kd.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert part.vocab_size < tokenizer.vocab_size
    ours, theirs = (model.forward(kd.pack(read(TEXTS[:3]))) for model, read in ((pruned, part), (whole, tokenizer)))
    np.testing.assert_array_equal(ours, theirs)
    for name in ("pad", "bos", "eos"):
        before = getattr(whole.config, f"{name}_token_id", None)
        after = getattr(pruned.config, f"{name}_token_id", None)
        assert (before is None) == (after is None)
        if before is not None and name == "pad":
            assert part.convert_ids_to_tokens(after) == tokenizer.convert_ids_to_tokens(before)


def test_positions_stay_where_they_are_counted_from_a_padding_token_behind_other_words(tmp_path: Path) -> None:
    behind = [token for token in VOCABULARY if token not in ("scene", "[UNK]", "plot")]
    (tmp_path / "vocab.txt").write_text("\n".join(["scene", "[UNK]", "plot", *behind]) + "\n")
    tokenizer = kd.BertTokenizer.from_pretrained(tmp_path)
    sizes = {name: getattr(small_config(), name) for name in ("hidden_size", "num_hidden_layers", "intermediate_size")}
    sizes |= {"vocab_size": len(tokenizer), "num_attention_heads": 2, "max_position_embeddings": 20}
    ids = {"pad_token_id": 3, "bos_token_id": None, "eos_token_id": None}
    whole = kd.RobertaForSequenceClassification(kd.RobertaConfig(**sizes, **ids, initializer_range=0.2), seed=4)
    kd.prune(whole, OF_DATA[:1], tmp_path / "out", vocabulary=True, processing_class=tokenizer)
    pruned = kd.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert (pruned.config.pad_token_id, pruned.config.first_position) == (3, 4)
    part = kd.AutoTokenizer.from_pretrained(tmp_path / "out")
    ours, theirs = (model.forward(kd.pack(read(TEXTS[:1]))) for model, read in ((pruned, part), (whole, tokenizer)))
    np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match=r"the padding token has the id 3, .* and its new one is 1"):
        with_vocabulary(whole, np.array([1, 3, 4, 5]))


def test_the_most_frequent_pieces_of_another_file_are_kept(tmp_path: Path, tokenizer: Any) -> None:
    whole, texts = small_model(vocab_size=len(tokenizer)), [{"text": "scene scene scene plot plot film"}]
    kept = {"vocabulary": texts, "keep": 4, "processing_class": tokenizer}  # with [CLS] and [SEP], once each
    figures = kd.prune(whole, OF_DATA, tmp_path / "out", **kept)
    part = kd.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert {*part.vocab}.intersection(WORDS) == {"scene", "plot"}
    assert (figures["n"], figures["rows_with_same_tokens"]) == (3, 0)


def test_words_that_nobody_knows_stay_so_unless_the_most_frequent_pieces_are_asked_for(tmp_path: Path) -> None:
    """A word that is [UNK] has a letter without an entry; no entry of its other letters may go, or it would be cut."""
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "vocab.txt").write_text("\n".join([*VOCABULARY, "x", "##y", "xy", "x\u00df"]) + "\n")
    tokenizer = kd.BertTokenizer.from_pretrained(tmp_path / "words")
    whole, texts = small_model(vocab_size=len(tokenizer)), [{"text": "good xy\u00f8", "label": 1}] * 3
    assert tokenizer.tokenize("good xy\u00f8") == ["good", "[UNK]"]
    kept = {"processing_class": tokenizer, "vocabulary": True}
    figures = kd.prune(whole, texts, tmp_path / "all", **kept)
    assert "xy" in kd.AutoTokenizer.from_pretrained(tmp_path / "all").vocab
    assert figures["rows_with_same_tokens"] == 3
    kd.prune(whole, texts, tmp_path / "some", keep=2, **kept)
    assert "xy" not in kd.AutoTokenizer.from_pretrained(tmp_path / "some").vocab


def test_an_unknown_word_of_another_text_is_cut_where_the_piece_that_led_astray_is_gone(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "vocab.txt").write_text("\n".join([*VOCABULARY, "x", "a", "xy", "##yz"]) + "\n")
    tokenizer = kd.BertTokenizer.from_pretrained(tmp_path / "words")
    words = ["xyz", "x\u00f8"]  # "xy" is the longest first piece, and nothing goes on from there
    assert [tokenizer.tokenize(word) for word in words] == [["[UNK]"], ["[UNK]"]]
    whole = small_model(vocab_size=len(tokenizer))
    for rows, cut in (("good ayz", ["x", "##yz"]), ("good ayz xyz", ["[UNK]"])):
        texts, output = [{"text": rows, "label": 1}], tmp_path / rows
        kd.prune(whole, texts, output, vocabulary=True, processing_class=tokenizer)
        part = kd.AutoTokenizer.from_pretrained(output)
        assert [part.tokenize(word) for word in words] == [cut, ["[UNK]"]]


def test_rows_count_as_read_as_before_only_with_all_their_tokens() -> None:
    before = kd.Dataset(*kd.pack([[2, 5, 9, 3], [2, 6, 3], [2, 7, 3]]), np.zeros(3, np.int64))
    ids = np.array([0, 1, 2, 3, 5, 6])
    assert rows_of(before, ids) == 1
    assert rows_of(before, np.arange(10)) == 3
    spelled = kd.Dataset(*kd.pack([[2, 4, 4, 4, 3], [2, 5, 3], [2, 4, 3]]), np.zeros(3, np.int64))
    assert same_rows(before, spelled, ids) == 1  # the first is longer now, the last another word
    assert same_rows(before, spelled.take(np.array([1])), ids) == 0


def test_ids_in_the_configuration_are_those_of_the_same_tokens(tmp_path: Path, tokenizer: Any) -> None:
    extra = {"sep_token_id": 3, "eos_token_id": tokenizer.vocab["awful"], "note": "kept"}
    whole = small_model(vocab_size=len(tokenizer), pad_token_id=tokenizer.vocab["z"], extra=extra)
    kd.prune(whole, OF_DATA, tmp_path / "out", vocabulary=True, processing_class=tokenizer)
    part = kd.AutoTokenizer.from_pretrained(tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert part.convert_ids_to_tokens(written["pad_token_id"]) == "z"
    assert part.convert_ids_to_tokens(written["eos_token_id"]) == "awful"  # it is named, so it stays
    assert (written["sep_token_id"], written["note"], written["vocab_size"]) == (3, "kept", len(part))


def refused(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    assert main(["prune", *map(str, words)]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_the_command_prints_what_was_gained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 9)
    (tmp_path / "texts.txt").write_text("good good\n")
    command = ["prune", "--model", str(model), "--data", str(rows), "--output"]
    assert main([*command, str(tmp_path / "out"), "--vocabulary", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["model"], figures["output"]) == ("model", str(tmp_path / "out"))
    assert figures["n"] == figures["rows_with_same_tokens"] == 9
    weights = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert weights < (model / "model.safetensors").stat().st_size or figures["vocab_size"] == len(VOCABULARY)
    other = ["--vocabulary-from", str(tmp_path / "texts.txt"), "--keep", "3"]
    assert main([*command, str(tmp_path / "other"), *other]) == 0
    assert "parameters_kept" in capsys.readouterr().out
    assert (tmp_path / "other" / "vocab.txt").read_text().split() == [*VOCABULARY[:5], "good"]
    assert main(["evaluate", "--model", str(tmp_path / "out"), "--data", str(rows), "--json"]) == 0


@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification", "QuestionAnswering", "MaskedLM"])
def test_the_pieces_of_a_text_file_are_kept_for_every_task(tmp_path: Path, head: str) -> None:
    """A long line, too, of which a classifier alone reads the beginning, as in its task."""
    encoder = write_encoder("bert", tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        getattr(kd, f"BertFor{head}").from_pretrained(encoder).save_pretrained(encoder)
    data = {
        "SequenceClassification": ("rows.tsv", "sentence\tlabel\nactor\t1\n"),
        "TokenClassification": ("rows.conll", "actor\tLABEL_0\n"),
        "QuestionAnswering": ("rows.jsonl", json.dumps(question_rows(1)[0]) + "\n"),
        "MaskedLM": ("rows.txt", "actor\n"),
    }[head]
    (rows := tmp_path / data[0]).write_text(data[1])
    long = "" if head == "SequenceClassification" else "good " * 600
    (tmp_path / "texts.txt").write_text(f"good film\nbad, {long}plot\n")
    command = ["prune", "--model", encoder, "--data", rows, "--output", tmp_path / "out"]
    assert main([*map(str, [*command, "--vocabulary-from", tmp_path / "texts.txt"])]) == 0
    kept = set(kd.AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab())
    assert kept & set(WORDS) == {"good", "film", "bad", "plot"}


def test_the_command_refuses_what_cannot_be_and_leaves_everything_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 9)
    command = ("--model", model, "--data", rows, "--output", tmp_path / "out")
    assert "nothing is to be pruned; expected --heads, --feed-forward, --layers" in refused(capsys, *command)
    assert "--keep is 5; expected --vocabulary" in refused(capsys, *command, "--keep", 5)
    assert "keep is 0; expected a number" in refused(capsys, *command, "--vocabulary", "--keep", 0)
    both = ("--vocabulary", "--vocabulary-from", rows)
    assert "are given; expected one of the two" in refused(capsys, *command, *both)
    before = sorted(model.iterdir())
    there = ("--model", model, "--data", rows, "--output", model, "--vocabulary")
    assert "which holds files; expected a new directory" in refused(capsys, *there)
    assert "which is a file" in refused(capsys, *there[:5], rows, "--vocabulary")
    assert sorted(model.iterdir()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "rows.tsv"]


def test_python_refuses_what_cannot_be(tmp_path: Path, tokenizer: Any) -> None:
    whole = small_model(vocab_size=len(tokenizer))
    with pytest.raises(ValueError, match="nothing is to be pruned"):
        kd.prune(whole, OF_DATA, tmp_path / "out")
    with pytest.raises(ValueError, match="keep is 3 and vocabulary False"):
        kd.prune(whole, OF_DATA, tmp_path / "out", keep=3)
    ids = [{"input_ids": [2, 5, 3], "label": 1}]
    with pytest.raises(ValueError, match="processing_class is None; expected the tokenizer"):
        kd.prune(whole, ids, tmp_path / "out", vocabulary=True)
    with pytest.raises(ValueError, match="and the model has 13 word embeddings"):
        kd.prune(small_model(), ids, tmp_path / "out", vocabulary=True, processing_class=tokenizer)
    with pytest.raises(TypeError, match="model is of type dict; expected a model of kdistill"):
        kd.prune({}, ids, tmp_path / "out", vocabulary=True)
    frozen = write_model(tmp_path / "model")
    narrow = kd.AutoModelForSequenceClassification.from_pretrained(frozen, dtype="bfloat16")
    with pytest.raises(RuntimeError, match="load it without dtype="):
        kd.prune(narrow, OF_DATA, tmp_path / "out", vocabulary=True, processing_class=tokenizer)
    assert not (tmp_path / "out").exists()


def test_the_tokenizer_of_a_model_object_is_that_of_its_directory(tmp_path: Path, tokenizer: Any) -> None:
    whole = small_model(vocab_size=len(tokenizer))
    whole.save_pretrained(tmp_path / "words")
    read = kd.AutoModelForSequenceClassification.from_pretrained(tmp_path / "words")
    figures = kd.prune(copy.deepcopy(read), OF_DATA, tmp_path / "out", vocabulary=True)
    assert (figures["rows_with_same_tokens"], figures["vocab_size"]) == (3, len(tokenizer) - 3)
    assert len(kd.AutoTokenizer.from_pretrained(tmp_path / "out")) == len(tokenizer) - 3
    (tmp_path / "words" / "vocab.txt").unlink()
    with pytest.raises(ValueError, match="the list holds text; pass a tokenizer"):
        kd.prune(read, OF_DATA, tmp_path / "other", vocabulary=True)


def test_rows_of_token_ids_tell_which_words_stay(tmp_path: Path, tokenizer: Any) -> None:
    whole = small_model(vocab_size=len(tokenizer))
    ids = [{"input_ids": tokenizer(text)["input_ids"], "label": 1} for text in TEXTS[:3]]
    figures = kd.prune(whole, ids, tmp_path / "out", vocabulary=True, processing_class=tokenizer)
    assert (figures["rows_with_same_tokens"], figures["vocab_size"]) == (3, len(tokenizer) - 3)


def test_half_of_a_small_student_of_sst2_is_left(tmp_path: Path, shared_dir: Path) -> None:
    """The number of pieces was counted by hand: those of the train rows, [MASK], and 1,994 single characters."""
    tokenizer = kd.AutoTokenizer.from_pretrained(shared_dir / "models" / "bert-base-uncased")
    shape = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512}
    whole = kd.BertForSequenceClassification(kd.BertConfig(**shape))
    rows = read_table(shared_dir / "data" / "SST-2" / "train.tsv").columns["sentence"]
    pieces = {index for row in tokenizer.encode_rows(rows, None) for index in row.ids}
    part, ids = tokenizer.with_vocabulary(pieces)
    assert len(part) == len(ids) == 13487
    whole.save_pretrained(tmp_path / "whole")
    with_vocabulary(whole, ids).save_pretrained(tmp_path / "out")
    before, after = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "out"))
    assert after / before <= 0.51
