"""Rows of words with tags: how they are read, aligned to tokens and cut into windows."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdistill.data.dataset import Dataset
from kdistill.data.files import FileFormat, read_file
from kdistill.data.labels import NO_LABEL, UNTAGGED
from kdistill.data.sources import read_table
from kdistill.data.tagged import encode_words
from kdistill.data.tags import implied_tags
from kdistill.data.windows import cut_between_words, owners
from kdistill.data.words import WordRows, has_words, words_of
from kdistill.text.classes import AutoTokenizer
from kdistill.text.tokenizer import PreTrainedTokenizerFast

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ann", "##a", "liv", "##es", "in", "new", "york", ".", "a"]
TAGS = {0: "O", 1: "B-city", 2: "B-person", 3: "I-city"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    directory = tmp_path_factory.mktemp("tokenizer")
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return AutoTokenizer.from_pretrained(directory)


def rows_of(source: Any, **columns: Any) -> WordRows:
    return words_of(read_table(source), **columns)


CONLL = "-DOCSTART- -X- O O\n\nAnna NNP I-NP B-person\nlives VBZ I-VP O\n\n# sent_id = 2\nYork NNP I-NP B-city\n"


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.conll", CONLL, None),
        ("a.iob", CONLL.replace(" ", "\t").replace("#\tsent_id\t=\t2", "# sent_id = 2"), None),
        ("a.bio", "Anna\tB-person\nlives\tO\n\nYork\tB-city\n", None),
        ("a.txt", "Anna B-person\nlives O\n\n\nYork B-city", "conll"),
        ("a.tsv", "Anna\tB-person\r\nlives\tO\r\n\r\nYork\tB-city\r\n", "conll"),
    ],
)
def test_files_of_a_word_a_line(tmp_path: Path, name: str, content: str, kind: str | None) -> None:
    (tmp_path / name).write_bytes(content.encode())
    table = read_file(tmp_path / name, FileFormat(kind))
    assert has_words(table)
    rows = words_of(table)
    assert rows.words == [["Anna", "lives"], ["York"]]
    assert rows.tags == [["B-person", "O"], ["B-city"]]
    assert rows.id2label() == {0: "O", 1: "B-city", 2: "B-person"}


def test_a_file_of_words_alone_has_no_tags(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("#\n#\nAnna\n\nYork\n")
    rows = words_of(read_file(tmp_path / "a.conll"))
    assert rows.words == [["#", "#", "Anna"], ["York"]]
    assert rows.tags is None
    assert rows.read_tags(TAGS) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Anna B-person\nlives\n", r"a.conll:2: 1 columns \('lives'\); expected 2 as before"),
        ("\n\n", "a.conll has no words"),
        ("1\tAnna\tPROPN\n2\tlives\tVERB\n\n1\tYork\tPROPN\n", "the first column counts the words, as in CoNLL-U"),
        (
            "\nword\ttag\nAnna\tO\n",
            r"a.conll:2: 'word\\ttag' is a header, and a file with a word and its tag a line has",
        ),
        ("Tokens pos ner_tags\nAnna X O\n", r"a.conll:1: 'Tokens pos ner_tags' is a header"),
        (
            "Anna lives here\tgood\nYork\tO\nYork is old\tbad\n",
            r"2 lines begin with more than a word, such as 'Anna lives here'; .* \(a table has a header with",
        ),
    ],
)
def test_broken_files_name_the_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.conll").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_file(tmp_path / "a.conll")


def test_the_place_of_a_sentence_is_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("# text = Anna lives\nAnna B-person\nlives O\n\n\nYork B-city\n\nin O\nParis B-lake\nnow O")
    table = read_file(path)
    assert [table.where(row) for row in range(3)] == [f"{path}:2-3", f"{path}:6", f"{path}:8-10"]
    with pytest.raises(ValueError, match=r"a\.conll:8-10: label 'B-lake' is not one of the model's labels"):
        words_of(table).read_tags({0: "O", 1: "B-person", 2: "B-city"})


def test_tags_in_the_first_column_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("B-person Anna\nO lives\nO O\n\nB-city York\n")
    expected = r"a\.conll: the first column looks like the tags \('B-person'\) and the last does not \('Anna'\)"
    with pytest.warns(UserWarning, match=expected):
        assert len(read_file(path)) == 2
    for content in ("O O\nB-52 B-plane\n", "O UH\nAnna NNP\nlives VBZ\n", "O\nO\n"):
        path.write_text(content)
        read_file(path)


def test_some_words_may_have_spaces(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("10 000\tB-number\nmen\tO\n")
    assert words_of(read_file(tmp_path / "a.conll")).words == [["10 000", "men"]]
    (tmp_path / "a.conll").write_text("10\u202f000  B-number\nmen\u00a0 O \n\u00a0\nold O\n")
    assert words_of(read_file(tmp_path / "a.conll")).words == [["10\u202f000", "men\u00a0"], ["old"]]


TOKENS = [["Anna", "lives", "in", "New", "York"], ["Anna", "."]]


@pytest.mark.parametrize("column", ["tags", "ner_tags", "labels"])
def test_tokens_with_lists_of_tags(column: str, tmp_path: Path) -> None:
    tags = [["B-person", "O", "O", "B-city", "I-city"], ["B-person", "O"]]
    records = [{"tokens": words, column: of} for words, of in zip(TOKENS, tags, strict=True)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    for source in (records, path, {"tokens": TOKENS, column: tags}):
        rows = rows_of(source)
        assert rows.words == TOKENS
        found = rows.read_tags(TAGS)
        assert found is not None
        assert [of.tolist() for of in found] == [[2, 0, 0, 1, 3], [2, 0]]


def test_class_labels_of_datasets_name_the_tags() -> None:
    datasets = pytest.importorskip("datasets")
    inner = datasets.ClassLabel(names=["O", "B-person", "B-city", "I-city"])
    lists = datasets.List(inner) if hasattr(datasets, "List") else datasets.Sequence(inner)
    features = datasets.Features({"tokens": [datasets.Value("string")], "ner_tags": lists})
    data = datasets.Dataset.from_dict({"tokens": TOKENS, "ner_tags": [[1, 0, 0, 2, 3], [1, 0]]}, features=features)
    rows = rows_of(data)
    assert rows.id2label() == {0: "O", 1: "B-person", 2: "B-city", 3: "I-city"}
    found = rows.read_tags(TAGS)
    assert found is not None
    assert found[0].tolist() == [2, 0, 0, 1, 3]


def test_spans_become_tags_of_the_words_they_cover() -> None:
    text = "Anna lives in New York."
    spans = [{"start": 14, "end": 22, "label": "city"}, {"start": 0, "end": 4, "label": "person"}]
    rows = rows_of(
        [{"text": text, "entities": spans}, {"text": "Anna.", "entities": []}, {"text": "a", "entities": None}]
    )
    assert rows.words[0] == ["Anna", "lives", "in", "New", "York", "."]
    assert rows.tags == [["B-person", "O", "O", "B-city", "I-city", "O"], ["O", "O"], None]
    assert rows.offsets is not None
    assert [text[start:end] for start, end in rows.offsets[0]] == rows.words[0]
    with pytest.warns(UserWarning, match="1 of 1 spans begin or end inside of a word, which is tagged whole"):
        cut = rows_of([{"text": "Annas", "spans": [{"start": 0, "end": 4, "label": "person"}]}])
    assert cut.tags == [["B-person"]]


def test_pieces_of_text_with_entities_as_snips_has_them(tmp_path: Path) -> None:
    pieces = [{"text": "in "}, {"text": "New York", "entity": "city"}, {"text": "."}]
    (tmp_path / "a.json").write_text(json.dumps({"GetWeather": [{"data": pieces}, {"data": [{"text": "in a"}]}]}))
    rows = rows_of(tmp_path / "a.json")
    assert rows.texts == ["in New York.", "in a"]
    assert rows.tags == [["O", "B-city", "I-city", "O"], ["O", "O"]]


@pytest.mark.parametrize(
    ("record", "error", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, ValueError, "row 1 of the list: 2 tokens and 1 tags; expected a tag"),
        (
            {"tokens": ["a"], "tags": ["B-lake"]},
            ValueError,
            "row 1 of the list: label 'B-lake' is not one of the model",
        ),
        ({"tokens": ["a"], "tags": [9]}, ValueError, "row 1 of the list: label 9 is not one of the model's labels"),
        (
            {"tokens": ["a"], "tags": [0.5]},
            ValueError,
            "row 1 of the list: label 0.5 is not one of .* 3 .I-city.; a tag is a name, or the whole number of one",
        ),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, TypeError, "row 1 of the list: 'tokens' holds None; expected"),
        ({"tokens": "a b", "tags": ["O", "O"]}, TypeError, "row 1 of the list: 'tokens' holds 'a b'; expected a list"),
        ({"tokens": ["a"], "tags": "O"}, TypeError, "label 'O' is a str; expected a list with a tag for each token"),
    ],
)
def test_wrong_rows_are_named(record: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rows_of([{"tokens": ["a"], "tags": ["O"]}, record]).read_tags(TAGS)


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ({"start": 2, "end": 9, "label": "x"}, "the span 'x' is 2 to 9 in a text of 4 characters"),
        ({"start": 2, "label": "x"}, "row 0 of the list: 'entities' holds .*; expected .*start"),
        ("x", "row 0 of the list: 'entities' holds 'x'"),
    ],
)
def test_wrong_spans_are_named(span: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rows_of([{"text": "Anna", "entities": [span]}])


def test_words_that_are_texts_are_refused_unless_they_are_named() -> None:
    rows = [{"words": "Anna lives", "entities": [{"start": 0, "end": 4, "label": "person"}]}]
    with pytest.raises(
        TypeError, match=r"'words' holds 'Anna lives'; expected a list of words, as in .*--text-column wor"
    ):
        rows_of(rows)
    assert rows_of(rows, text_column="words").words == [["Anna", "lives"]]


def spans_of(*spans: tuple[int, int, str]) -> list[dict[str, Any]]:
    return [{"start": start, "end": end, "label": label} for start, end, label in spans]


def test_spans_that_overlap_are_refused() -> None:
    whole = {"text": "in New York City", "entities": spans_of((3, 11, "city"), (11, 12, "sign"), (12, 16, "x"))}
    cut = {"text": "in New York City", "entities": spans_of((7, 16, "city"), (3, 11, "city"))}
    with pytest.raises(
        ValueError, match=r"row 1 of the list: the spans 'city' \(3 to 11\) and 'city' \(7 to 16\) overlap; expected"
    ):
        rows_of([cut | {"entities": []}, cut])
    with pytest.warns(UserWarning, match=r"1 of 3 spans are left out.*: 'sign' \(11 to 12\) in row 0 of the list"):
        assert rows_of([whole]).tags == [["O", "B-city", "I-city", "B-x"]]
    twice = {"text": "Anna", "entities": spans_of((0, 4, "x"), (0, 4, "x"))}
    assert rows_of([twice]).tags == [["B-x"]]


def test_a_span_lies_in_the_text_that_is_read_and_not_in_another_column() -> None:
    row = {"text": "a longer text", "title": "Anna", "entities": [{"start": 2, "end": 9, "label": "x"}]}
    with pytest.raises(ValueError, match="the span 'x' is 2 to 9 in a text of 4 characters"):
        rows_of([row], text_column="title")


def test_what_has_no_words_or_tags_is_refused() -> None:
    with pytest.raises(ValueError, match="has no words: expected a column tokens, words"):
        rows_of([{"other": 1}])
    table = read_table([{"tokens": ["a"]}])
    with pytest.raises(ValueError, match="has no tags; its columns are tokens"):
        implied_tags([], table)
    with pytest.raises(ValueError, match="every tag of the list is 'O'"):
        implied_tags([["O", "O"]], table)
    with pytest.raises(ValueError, match="has the tag -1; expected names, whole numbers from 0 on, or -100 for a tok"):
        implied_tags([[0, -1], [-100]], table)
    with pytest.raises(TypeError, match=r"row 0 of the list: the tag .'O'. is a list; expected name or number"):
        implied_tags([[["O"]]], table)


def test_marks_of_missing_tags_are_reported() -> None:
    rows = rows_of([{"tokens": ["a", "b"], "tags": ["O", "-"]}])
    with pytest.warns(UserWarning, match="1 of 2 words of the list have the label '-', which is read as a missing lab"):
        found = rows.read_tags(TAGS)
    assert found is not None
    assert found.values.tolist() == [0, UNTAGGED]
    assert rows.id2label() == {0: "O", 1: "-"}


def test_a_tagger_of_one_tag_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    from kdistill.models.config import BertConfig
    from kdistill.train.arguments import TrainingArguments
    from kdistill.train.encoding import encode_for

    config = BertConfig(id2label={0: "O"}).with_head("token-classification")
    message = "num_labels is 1, and a model for token-classification chooses among tags; expected 2 or more"
    for rows in ({"tokens": [["a"]], "tags": [["O"]]}, {"input_ids": [[2, 5, 3]], "labels": [[-100, 0, -100]]}):
        with pytest.raises(ValueError, match=message):
            encode_for(config, rows, tokenizer, TrainingArguments(disable_tqdm=True))


def test_the_first_token_of_a_word_carries_its_tag(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = rows_of({"tokens": TOKENS, "tags": [["B-person", "O", "O", "B-city", "I-city"], None]})
    dataset = encode_words(rows, tokenizer, id2label=TAGS)
    tokens = [tokenizer.convert_ids_to_tokens(dataset.ids[a:b]) for a, b in pairwise(dataset.starts)]
    assert tokens[0] == ["[CLS]", "ann", "##a", "liv", "##es", "in", "new", "york", "[SEP]"]
    no = NO_LABEL
    assert dataset.targets[0].tolist() == [no, 2, no, 0, no, 0, 1, 3, no]
    assert dataset.targets[1].tolist() == [no, UNTAGGED, no, UNTAGGED, no]
    assert dataset.windows is not None
    assert dataset.windows.words[: len(tokens[0])].tolist() == [-1, 0, -1, 1, -1, 2, 3, 4, -1]
    all_tokens = encode_words(rows, tokenizer, id2label=TAGS, all_tokens=True)
    assert all_tokens.targets[0].tolist() == [no, 2, 2, 0, 0, 0, 1, 3, no]
    inside = encode_words(
        rows_of({"tokens": [["Anna"]], "tags": [["B-city"]]}), tokenizer, id2label=TAGS, all_tokens=True
    )
    assert inside.labels.tolist() == [no, 1, 3, no]


def test_words_without_a_token_are_reported(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = rows_of({"tokens": [["Anna"], ["\u200b", "in", ""]], "tags": [["O"], ["B-city", "O", None]]})
    with pytest.warns(UserWarning, match=r"makes nothing of words that have a tag.*: 1, the first is .*200b' in row 1"):
        dataset = encode_words(rows, tokenizer, id2label=TAGS)
    assert (dataset.labels >= 0).sum() == 2


@pytest.mark.parametrize(
    ("sound", "half"),
    [
        ({"tokens": ["a"]}, {"tokens": ["a", "\ud800"]}),
        ({"text": "a"}, {"text": "\ud800"}),
        ({"data": [{"text": "a"}]}, {"data": [{"text": "\ud800"}]}),
    ],
)
def test_half_characters_are_named_with_their_row(sound: dict[str, Any], half: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"row 1 of the list: column '(tokens|text|data)' holds .ud800"):
        rows_of([sound, half])


def test_long_rows_become_windows_and_each_word_answers_once(tokenizer: PreTrainedTokenizerFast) -> None:
    random = np.random.default_rng(2)
    words = [list(random.choice(["Anna", "lives", "in", "York", "."], size)) for size in (50, 3, 21)]
    tags = [list(random.choice(list(TAGS.values()), len(of))) for of in words]
    rows = rows_of({"tokens": words, "tags": tags})
    whole = encode_words(rows, tokenizer, id2label=TAGS)
    dataset = encode_words(rows, tokenizer, max_length=12, doc_stride=4, id2label=TAGS)
    assert dataset.lengths.max() <= 12
    assert len(dataset) > 8
    assert dataset.windows is not None
    assert len(dataset.targets) == 3
    for cut, uncut, of in zip(dataset.targets, whole.targets, words, strict=True):
        assert cut[cut != NO_LABEL].tolist() == uncut[uncut != NO_LABEL].tolist()
        assert len(cut[cut != NO_LABEL]) == len(of)
    starts = dataset.windows.starts(dataset.starts)
    for row, of in enumerate(words):
        answered = dataset.windows.words[starts[row] : starts[row + 1]]
        assert answered[answered >= 0].tolist() == list(range(len(of)))
    with pytest.raises(ValueError, match="doc_stride is 10; expected 0 to 9: windows have room for 10 tokens"):
        encode_words(rows, tokenizer, max_length=12, doc_stride=10, id2label=TAGS)


def test_windows_overlap_and_the_one_with_most_context_answers() -> None:
    random = np.random.default_rng(7)
    for _ in range(100):
        lengths = random.integers(0, 4, random.integers(1, 40))
        size = int(random.integers(3, 15))
        overlap = int(random.integers(0, size))
        windows = cut_between_words(lengths, size, overlap)
        owner = owners(lengths, windows)
        assert windows[0][0] == 0
        assert windows[-1][1] == len(lengths)
        for (first, end), (next_first, _) in pairwise(windows):
            assert first < next_first <= end
            assert lengths[next_first:end].sum() <= overlap
        for word, of in enumerate(owner):
            contexts = [
                min(lengths[first:word].sum(), lengths[word + 1 : end].sum()) if first <= word < end else -1
                for first, end in windows
            ]
            assert contexts[of] == max(contexts) >= 0
        assert all(lengths[first:end].sum() <= size for first, end in windows)


def test_real_files_are_read_whole(shared_dir: Path) -> None:
    data = shared_dir / "data"
    expected = {"wnut17/dev.conll": 13, "bc5cdr/devel.tsv": 5}
    for name, tags in expected.items():
        if not (data / name).is_file():
            pytest.skip(f"needs {data / name}")
        rows = words_of(read_file(data / name, FileFormat("conll")))
        assert len(rows.id2label()) == tags
        content = (data / name).read_text(encoding="utf-8")
        assert sum(map(len, rows.words)) == sum(bool(line.strip()) for line in content.split("\n"))
        assert all(len(words) == len(of) for words, of in zip(rows.words, rows.tags or (), strict=True))
    slots = words_of(read_file(data / "snips/train_PlayMusic_full.json", FileFormat(encoding="latin-1")))
    assert len(slots) == 2000
    assert len(slots.id2label()) == 18
    assert slots.texts is not None
    assert slots.offsets is not None
    for text, words, of in zip(slots.texts, slots.words, slots.offsets, strict=True):
        assert [text[start:end] for start, end in of] == words
        assert "".join(words) == "".join(text.split())


def test_tokenised_rows_bring_a_label_for_each_token() -> None:
    from kdistill.models.config import BertConfig
    from kdistill.models.trained_with import TrainedWith
    from kdistill.train.arguments import TrainingArguments
    from kdistill.train.encoding import encode_for

    config = BertConfig(id2label=TAGS).with_head("token-classification")
    args = TrainingArguments(disable_tqdm=True)
    rows = {
        "input_ids": [[2, 5, 6, 3, 0, 0], [2, 7, 3]],
        "attention_mask": [[1, 1, 1, 1, 0, 0], [1, 1, 1]],
        "labels": [[-100, 1, -100, -100, -100, -100], [-100, 0, -100]],
    }
    dataset: Dataset = encode_for(config, rows, None, args)
    assert dataset.labels.tolist() == [-100, 1, -100, -100, -100, 0, -100]
    assert dataset.lengths.tolist() == [4, 3]
    with_words = {**rows, "tokens": [["ann"], ["a"]], "tags": [["B-city"], ["O"]]}  # as `map` leaves them there
    trained = config.with_trained(TrainedWith(text_column="tokens", label_column="tags"))
    for each in (config, trained):
        assert encode_for(each, with_words, None, args).labels.tolist() == dataset.labels.tolist()
    with pytest.raises(ValueError, match="row 1 of the dict: 3 input_ids and 2 labels; expected one for each token"):
        encode_for(config, {**rows, "labels": [rows["labels"][0], [0, 1]]}, None, args)
    with pytest.raises(ValueError, match="label 7 is not one of the model's labels"):
        encode_for(config, {**rows, "labels": [rows["labels"][0], [0, 7, 0]]}, None, args)
    for_texts = Dataset(dataset.ids, dataset.types, dataset.starts, np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="has a label for each row; a model for token-classification expects one for"):
        encode_for(config, for_texts, None, args)
    with pytest.raises(ValueError, match="has a label for each token; a model for single_label_classification expects"):
        encode_for(BertConfig(id2label=TAGS), dataset, None, args)
