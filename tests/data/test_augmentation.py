"""Views of rows: what may be replaced by what, which spans are left, and that nothing but the seed decides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.kinds_of_tokenizers import ROBERTA_NAMES, ROBERTA_TOKENS, bpe

from kdistill.data import augmentation
from kdistill.data.augmentation import TokenKinds, augmented, nearest_words
from kdistill.data.dataset import Dataset, as_dataset
from kdistill.data.labels import NO_LABEL
from kdistill.text.classes import AutoTokenizer
from kdistill.text.tokenizer import PreTrainedTokenizerFast

LETTERS = ["good", "great", "bad", "awful", "film", "films", "plot", "actor", "scene", "über"]
OTHERS = ["12", ".", "'", "1st", "[unused0]"]
PIECES = ["##ing", "##s", "##2"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *OTHERS, *PIECES]
ID = {token: index for index, token in enumerate(VOCABULARY)}
EMBEDDINGS = np.random.default_rng(0).standard_normal((len(VOCABULARY), 8)).astype(np.float32)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    directory = tmp_path_factory.mktemp("tokenizer")
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return AutoTokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def kinds(tokenizer: PreTrainedTokenizerFast) -> TokenKinds:
    return TokenKinds.of(tokenizer, len(VOCABULARY))


@pytest.fixture
def fixed_knobs(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No spans, three neighbours, everything replaced: tests change what they are about."""
    monkeypatch.setattr(augmentation, "SPANS", 0.0)
    monkeypatch.setattr(augmentation, "NEIGHBOURS", 3)
    monkeypatch.setattr(augmentation, "REPLACED", (1.0, 1.0))
    return monkeypatch


def dataset_of(texts: Sequence[str]) -> Dataset:
    """Tokens separated by spaces; `|` between the two texts of a pair."""
    rows, types = [], []
    for text in texts:
        row = ["[CLS]", *text.replace("|", "[SEP]").split(), "[SEP]"]
        rows.append([ID[token] for token in row])
        second = np.cumsum([token == "[SEP]" for token in row]) - [token == "[SEP]" for token in row]
        types.append(second)
    starts = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    return Dataset(
        np.concatenate(rows).astype(np.int32),
        np.concatenate(types).astype(np.int32),
        starts,
        np.arange(len(rows), dtype=np.int64) % 2,
    )


def rows_of(dataset: Dataset) -> list[list[str]]:
    bounds = zip(dataset.starts[:-1], dataset.starts[1:], strict=True)
    return [[VOCABULARY[token] for token in dataset.ids[first:end]] for first, end in bounds]


def random_texts(n: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    words = [*LETTERS, *OTHERS, "[UNK]", "good ##ing", "12 ##2", "plot ##s ##ing"]
    return [" ".join(random.choice(words, random.integers(1, 12))) for _ in range(n)]


def neighbours_by_definition(word: int, candidates: Sequence[int], count: int) -> set[int]:
    exact = EMBEDDINGS.astype(np.float64)

    def cosine(other: int) -> float:
        return float(exact[word] @ exact[other] / np.linalg.norm(exact[word]) / np.linalg.norm(exact[other]))

    return set(sorted((c for c in candidates if c != word), key=cosine, reverse=True)[:count])


def test_kinds_of_tokens(kinds: TokenKinds) -> None:
    found = {name: {VOCABULARY[i] for i in np.flatnonzero(getattr(kinds, name))} for name in vars(kinds)}
    assert found == {"words": set(LETTERS), "pieces": set(PIECES), "borders": {"[CLS]", "[SEP]", "[PAD]"}}


@pytest.mark.parametrize("count", [1, 3, 100])
def test_nearest_words_are_those_of_the_definition(count: int) -> None:
    candidates = np.array([ID[word] for word in LETTERS])
    words = np.array([ID["good"], ID["12"], ID["scene"]])
    found = nearest_words(EMBEDDINGS, words, candidates, count)
    assert found.shape == (3, min(count, len(LETTERS) - 1))
    for word, nearest in zip(words, found, strict=True):
        assert (np.diff(nearest) > 0).all()
        if word in candidates or count < len(LETTERS):
            assert set(nearest) == neighbours_by_definition(word, candidates, found.shape[1])


def test_nearest_words_of_a_large_table_in_blocks() -> None:
    table = np.random.default_rng(1).standard_normal((1500, 16)).astype(np.float32)
    table[7] = 0  # a word that was never trained, as [unused] tokens
    candidates = np.arange(3, 1500)
    found = nearest_words(table, np.arange(1500), candidates, 12)
    units = table.astype(np.float64) / np.maximum(np.linalg.norm(table.astype(np.float64), axis=1, keepdims=True), 1e-9)
    cosines = units @ units[candidates].T
    for word in (0, 5, 255, 256, 1499):
        others = [c for c in np.argsort(-cosines[word]) + 3 if c != word]
        assert set(found[word]) == set(others[:12])


def test_rows_come_first_and_views_have_no_label(kinds: TokenKinds) -> None:
    dataset = dataset_of(random_texts(50))
    result = augmented(dataset, 3, kinds=kinds, embeddings=EMBEDDINGS, seed=1)
    assert len(result) == 200
    assert rows_of(result)[:50] == rows_of(dataset)
    np.testing.assert_array_equal(result.labels, np.concatenate([dataset.labels, [NO_LABEL] * 150]))
    for labels in (np.ones(50, np.float32), np.zeros((50, 4), np.float32)):
        numbers = Dataset(dataset.ids, dataset.types, dataset.starts, labels)
        found = augmented(numbers, 2, kinds=kinds, embeddings=EMBEDDINGS, seed=1).labels
        np.testing.assert_array_equal(found[:50], labels)
        assert found.dtype == labels.dtype
        assert found.shape == (150, *labels.shape[1:])
        assert np.isnan(found[50:]).all()


@pytest.mark.usefixtures("fixed_knobs")
def test_whole_words_of_letters_are_replaced_by_neighbours(kinds: TokenKinds) -> None:
    dataset = dataset_of([*random_texts(300), "good | bad ##s film", "[UNK] . 12"])
    letters = [ID[word] for word in LETTERS]
    expected = {word: neighbours_by_definition(word, letters, 3) for word in letters}
    result = augmented(dataset, 2, kinds=kinds, embeddings=EMBEDDINGS, seed=5)
    np.testing.assert_array_equal(result.types, np.tile(dataset.types, 3))
    came: dict[int, set[int]] = {word: set() for word in letters}
    for before, after in zip(rows_of(dataset) * 2, rows_of(result)[len(dataset) :], strict=True):
        assert len(before) == len(after)
        for place, (old, new) in enumerate(zip(before, after, strict=True)):
            if old in LETTERS and not before[place + 1].startswith("##"):
                came[ID[old]].add(ID[new])
            else:
                assert new == old
    assert came == expected


@pytest.mark.usefixtures("fixed_knobs")
def test_each_view_replaces_with_a_probability_of_its_own(kinds: TokenKinds, fixed_knobs: pytest.MonkeyPatch) -> None:
    fixed_knobs.setattr(augmentation, "REPLACED", (0.2, 0.6))
    dataset = dataset_of([" ".join(["good"] * 200)] * 400)
    ids = augmented(dataset, 1, kinds=kinds, embeddings=EMBEDDINGS, seed=5).ids.reshape(800, 202)[400:, 1:-1]
    shares = (ids != ID["good"]).mean(axis=1)
    # 400 uniform numbers between 0.2 and 0.6, each measured with a standard deviation of 0.035 at most.
    assert shares.mean() == pytest.approx(0.4, abs=0.03)
    assert shares.std() == pytest.approx(0.4 / 12**0.5, abs=0.02)
    counts = np.bincount(ids[ids != ID["good"]], minlength=len(VOCABULARY))
    assert (counts[counts > 0] / counts.sum()) == pytest.approx([1 / 3] * 3, abs=0.02)


def words_in(tokens: Sequence[str]) -> list[str]:
    """Words with their pieces; a piece at the beginning stands for itself."""
    return re.sub(r" (?=##)", "", " ".join(tokens)).split()


def is_part(part: Sequence[str], whole: Sequence[str]) -> bool:
    return any(whole[i : i + len(part)] == list(part) for i in range(len(whole) - len(part) + 1))


@pytest.mark.usefixtures("fixed_knobs")
def test_spans_are_of_whole_words_in_each_text(kinds: TokenKinds, fixed_knobs: pytest.MonkeyPatch) -> None:
    fixed_knobs.setattr(augmentation, "SPANS", 1.0)
    fixed_knobs.setattr(augmentation, "REPLACED", (0.0, 0.0))
    texts = random_texts(300)
    dataset = dataset_of([f"{a} | {b}" for a, b in zip(texts, random_texts(300, seed=1), strict=True)] + texts)
    result = augmented(dataset, 1, kinds=kinds, embeddings=EMBEDDINGS, seed=5)
    lengths = []
    for before, after in zip(rows_of(dataset), rows_of(result)[600:], strict=True):
        old, new = (" ".join(row).split("[SEP]") for row in (before, after))
        assert len(old) == len(new)
        assert new[-1] == ""
        for one, other in zip(old[:-1], new[:-1], strict=True):
            whole, part = (words_in(text.replace("[CLS]", "").split()) for text in (one, other))
            assert part
            assert is_part(part, whole)
            lengths.append((len(whole), len(part)))
        assert after[0] == "[CLS]"
        assert [token for token in after if token == "[CLS]"] == ["[CLS]"]
    second = result.types[result.starts[600] :]
    assert {VOCABULARY[i] for i in result.ids[result.starts[600] :][second == 1]} >= {"[SEP]", "good"}
    of_eight = np.bincount([part for whole, part in lengths if whole == 8], minlength=9)
    assert of_eight[1:].min() > 0.3 * of_eight[1:].mean()  # every length from one word to all of them


def test_a_share_of_the_views_is_cut(kinds: TokenKinds, fixed_knobs: pytest.MonkeyPatch) -> None:
    fixed_knobs.setattr(augmentation, "SPANS", 0.25)
    dataset = dataset_of([" ".join(["good"] * 50)] * 4000)
    result = augmented(dataset, 1, kinds=kinds, embeddings=EMBEDDINGS, seed=3)
    # A span of all 50 words, one in fifty, looks uncut. The standard deviation is 0.007.
    assert (result.lengths[4000:] < 52).mean() == pytest.approx(0.25 * 49 / 50, abs=0.03)


def test_views_follow_from_the_seed(kinds: TokenKinds) -> None:
    dataset = dataset_of(random_texts(100))

    def views(count: int, seed: int) -> list[list[str]]:
        return rows_of(augmented(dataset, count, kinds=kinds, embeddings=EMBEDDINGS, seed=seed))

    assert views(3, 1) == views(3, 1)
    assert views(3, 1)[:300] == views(2, 1), "more views begin with the same ones, which the teacher has seen"
    assert views(1, 1) != views(1, 2)
    assert views(2, 1)[100:200] != views(2, 1)[200:]


def test_the_numbers_drawn_never_change() -> None:
    """A run resumes with the same views: these are Philox's numbers, shifted to 53 bits."""
    found = augmentation._Draws(33, 1).uniform(3)
    raw = np.random.Philox(key=np.array([33, 1], dtype=np.uint64)).random_raw(3)
    assert found.tolist() == [int(value) // 2**11 / 2**53 for value in raw]
    assert found[0] == pytest.approx(0.665284, abs=1e-6)


@pytest.mark.parametrize("texts", [[". 12 .", "'"], ["", "good"], ["##s", "##ing good"]])
def test_rows_with_nothing_to_replace(kinds: TokenKinds, texts: list[str]) -> None:
    dataset = dataset_of(texts)
    result = augmented(dataset, 20, kinds=kinds, embeddings=EMBEDDINGS, seed=0)
    assert len(result) == 21 * len(texts)
    for row in rows_of(result):
        assert row[0] == "[CLS]"
        assert row[-1] == "[SEP]"


def test_a_vocabulary_of_one_word(kinds: TokenKinds) -> None:
    only = np.zeros(len(VOCABULARY), dtype=np.bool_)
    only[ID["good"]] = True
    dataset = dataset_of(["good good"])
    result = augmented(dataset, 5, kinds=TokenKinds(only, kinds.pieces, kinds.borders), embeddings=EMBEDDINGS, seed=0)
    assert {token for row in rows_of(result) for token in row} == {"[CLS]", "[SEP]", "good"}


def test_a_vocabulary_larger_than_the_model(tokenizer: PreTrainedTokenizerFast) -> None:
    kinds = TokenKinds.of(tokenizer, 8)
    assert len(kinds.words) == 8
    assert kinds.words[5:].all()
    assert kinds.borders[[0, 2, 3]].all()


def test_neighbours_of_a_real_teacher(shared_dir: Path) -> None:
    import kdistill as kd

    path = shared_dir / "models" / "minilm-l6-sst2"
    vocabulary = AutoTokenizer.from_pretrained(path).vocab
    teacher = kd.BertForSequenceClassification.from_pretrained(path).freeze()
    table = teacher.parameters["bert.embeddings.word_embeddings.weight"]
    words = TokenKinds.of(AutoTokenizer.from_pretrained(path), len(table)).words
    found = nearest_words(table, np.array([vocabulary["awful"]]), np.flatnonzero(words), 6)
    assert set(found[0]) >= {vocabulary[word] for word in ("terrible", "horrible", "worst")}
    assert not {vocabulary[token] for token in ("##s", ".", "2002", "[CLS]", "[unused5]")} & set(np.flatnonzero(words))


MARKED = ["good", "great", "bad", "film", "plot", "scene"]


def marking_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer that marks the first token of a word by the space before it, with pieces of letters and a comma."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    letters = sorted(set("".join([*MARKED, "ing"])))
    if kind == "Unigram":
        entries = [(token, 0.0) for token in ROBERTA_TOKENS]
        entries += [(f"\u2581{word}", -2.0) for word in MARKED]
        entries += [("ing", -3.0), (",", -3.0), ("\u2581", -4.0), *((letter, -20.0) for letter in letters)]
        backend = Tokenizer(models.Unigram(entries, unk_id=3))
        marks = pre_tokenizers.Metaspace()
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), marks])
        backend.decoder = decoders.Metaspace()
        backend.add_special_tokens(ROBERTA_TOKENS)
    else:
        words = [["\u0120", *word] for word in MARKED] + [[*"ing"], *map(list, MARKED)]
        backend = bpe(ROBERTA_TOKENS, ["\u0120", ",", *letters], words)
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind == "BPE with prefix space")
        backend.decoder = decoders.ByteLevel()
    tokens = [("<s>", 0), ("</s>", 2)]
    backend.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", tokens)
    return PreTrainedTokenizerFast(backend, ROBERTA_NAMES)


@pytest.mark.parametrize("kind", ["Unigram", "BPE", "BPE with prefix space"])
def test_marks_of_spaces_tell_whole_words_from_pieces(kind: str, fixed_knobs: pytest.MonkeyPatch) -> None:
    tokenizer = marking_tokenizer(kind)
    random = np.random.default_rng(1)
    words = [*MARKED, "filming", "good,"]
    texts = [" ".join(random.choice(words, random.integers(2, 9))) for _ in range(60)]
    dataset = as_dataset([{"text": text} for text in texts], tokenizer)
    embeddings = random.standard_normal((len(tokenizer), 8)).astype(np.float32)
    kinds = TokenKinds.of(tokenizer, len(tokenizer))
    known = {piece.text for piece in tokenizer.pieces().values() if piece.begins}  # of BPE beginnings of words, too
    replaced = set()

    def views() -> list[str]:
        result = augmented(dataset, 1, kinds=kinds, embeddings=embeddings, seed=3)
        rows = np.split(result.ids, result.starts[1:-1])[len(texts) :]
        return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]

    for before, after in zip(texts, views(), strict=True):
        pairs = list(zip(before.split(), after.split(), strict=True))
        if kind == "BPE":
            assert pairs[0][0] == pairs[0][1]  # the first word of a text has no mark
            del pairs[0]
        for old, new in pairs:
            if old == "filming":
                assert new == old
            else:
                assert new.strip(",") in known
                assert new.endswith(",") == old.endswith(",")
                assert new != old
                replaced.add(old.strip(","))
    assert replaced == set(MARKED)
    fixed_knobs.setattr(augmentation, "SPANS", 1.0)
    fixed_knobs.setattr(augmentation, "REPLACED", (0.0, 0.0))
    for before, after in zip(texts, views(), strict=True):
        apart = [text.replace(",", " ,").split() for text in (after, before)]
        assert is_part(*apart)


def test_tokens_that_show_no_words_are_refused() -> None:
    from tokenizers import Tokenizer, models

    backend = Tokenizer(models.WordLevel({token: place for place, token in enumerate(ROBERTA_TOKENS)}, "<unk>"))
    with pytest.raises(ValueError, match="model is WordLevel and its decoder NoneType, which do not show where words"):
        TokenKinds.of(PreTrainedTokenizerFast(backend, ROBERTA_NAMES), 5)
