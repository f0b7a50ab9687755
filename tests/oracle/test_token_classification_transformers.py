"""Token classification against transformers: logits, loss, gradients, alignment of words, and the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from support.eight_tokenizers import WITH_SENTENCEPIECE, write_model_with_vocabulary, write_vocabulary
from support.small_run import small_config

import kdistill as kd
from kdistill.bench.other_runtimes import bucketed, forward_pass, load_torch, torch_forward
from kdistill.data.dataset import Dataset
from kdistill.data.ragged import Ragged, starts_of
from kdistill.data.sources import read_table
from kdistill.data.tagged import encode_words
from kdistill.data.words import words_of
from kdistill.tasks.token import TASK

TAGS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC", 5: "MISC"}
WORDS = ["anna", "maria", "lives", "york", "new", "in", "and", "o'neill", "1999", "straße", "東京", "x"]
PIECES = ["##na", "##ria", "##s", "##rk", "##il", "##l", "##9", "##e", "an", "ma", "li", "yo", "o", "'", "ne", "19"]
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *PIECES,
    "##ves",
    "lives",
    "york",
    "new",
    "in",
    "and",
    ".",
    "東",
]
TEXTS = [
    "Anna Maria lives in New York.",
    "O'Neill and  Anna, 1999!",
    "straße 東京 Maria\tlives",
    "x",
    "",
    "new york new york and new york",
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tagger with random weights, as wide as it takes to give all tags."""
    directory = tmp_path_factory.mktemp("tagger")
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    config = small_config(vocab_size=len(VOCABULARY), id2label=TAGS, initializer_range=0.6, max_position_embeddings=64)
    kd.BertForTokenClassification(config, seed=3).save_pretrained(directory)
    tokenizer = kd.AutoTokenizer.from_pretrained(directory, model_max_length=64)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def theirs(directory: Path) -> Any:
    found = transformers.AutoModelForTokenClassification.from_pretrained(directory)
    assert type(found) is transformers.BertForTokenClassification
    return found.eval()


def test_logits_loss_and_gradients(directory: Path, theirs: Any) -> None:
    random = np.random.default_rng(1)
    rows = [random.integers(5, len(VOCABULARY), n).tolist() for n in (1, 7, 64, 12)]
    labels = [random.choice([-100, 0, 1, 2, 3, 4, 5], len(row)) for row in rows]
    ours = kd.BertForTokenClassification.from_pretrained(directory)
    expected = [theirs(torch.tensor([row])).logits[0] for row in rows]
    found = ours(rows, labels=labels)
    for one, other in zip(found.logits, expected, strict=True):
        np.testing.assert_allclose(one, other.detach().numpy(), atol=1e-4 * float(other.detach().abs().max()))
    loss = torch.nn.functional.cross_entropy(torch.cat(expected), torch.tensor(np.concatenate(labels)))
    assert found.loss == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()
    ours = kd.BertForTokenClassification(ours.config.replace(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    ours.load_state_dict({name: p.detach().numpy() for name, p in theirs.named_parameters()})
    batch = kd.pack(rows)
    _, dlogits = TASK.label_loss(Ragged(ours.forward(batch, train=True), batch.starts), np.concatenate(labels))
    ours.backward(dlogits)
    for name, parameter in theirs.named_parameters():
        if not name.endswith("key.bias"):  # truly zero
            wanted = parameter.grad.numpy()
            np.testing.assert_allclose(
                ours.gradients[name], wanted, atol=1e-4 * max(np.abs(wanted).max(), 1e-6), err_msg=name
            )


def test_padded_arrays_give_padded_logits(directory: Path, theirs: Any) -> None:
    ours = kd.BertForTokenClassification.from_pretrained(directory)
    tokenizer = kd.AutoTokenizer.from_pretrained(directory)
    batch = tokenizer(TEXTS[:3], padding=True, return_tensors="np")
    labels = np.where(batch["attention_mask"] == 1, 2, -100)
    found = ours(**batch, labels=labels)
    expected = theirs(**{name: torch.tensor(of) for name, of in batch.items()}, labels=torch.tensor(labels))
    assert found.loss == pytest.approx(expected.loss.item(), rel=1e-5)
    known = batch["attention_mask"] == 1
    np.testing.assert_allclose(found.logits[known], expected.logits.detach().numpy()[known], rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:the dict. the tokenizer makes nothing of words")
def test_words_are_aligned_as_in_the_examples_of_transformers(directory: Path) -> None:
    random = np.random.default_rng(4)
    words = [random.choice([*WORDS, "\u200b", "Anna,Maria"], n).tolist() for n in (1, 5, 9)]
    tags = [random.choice(list(TAGS.values()), len(row)).tolist() for row in words]
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    ids = {name: index for index, name in TAGS.items()}
    encoded = tokenizer(words, is_split_into_words=True)
    for all_tokens in (False, True):
        rows = words_of(read_table({"tokens": words, "ner_tags": tags}))
        dataset = encode_words(rows, kd.AutoTokenizer.from_pretrained(directory), id2label=TAGS, all_tokens=all_tokens)
        for row, of in enumerate(tags):
            expected, last = [], None
            for word in encoded.word_ids(row):
                label = "" if word is None else of[word]
                inside = label.replace("B-", "I-", 1)
                further = ids[inside if inside in ids else label] if word is not None and all_tokens else -100
                expected.append(-100 if word is None else ids[label] if word != last else further)
                last = word
            part = slice(dataset.starts[row], dataset.starts[row + 1])
            assert dataset.ids[part].tolist() == encoded["input_ids"][row]
            assert dataset.labels[part].tolist() == expected


def assert_same_findings(found: Any, expected: Any) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.pop("score") == pytest.approx(float(other.pop("score")), rel=2e-5)
        assert one == other


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
@pytest.mark.parametrize("ignored", [None, [], ["O", "MISC", "PER"]])
def test_the_pipeline_finds_what_that_of_transformers_finds(
    directory: Path, theirs: Any, strategy: str, ignored: list[str] | None
) -> None:
    settings = {} if ignored is None else {"ignore_labels": ignored}
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    reference = transformers.pipeline(
        "token-classification", theirs, tokenizer=tokenizer, aggregation_strategy=strategy, device="cpu", **settings
    )
    pipe = kd.pipeline("token-classification", str(directory), aggregation_strategy=strategy, **settings)
    assert isinstance(pipe, kd.TokenClassificationPipeline)
    some = 0
    for text in TEXTS:
        found, expected = pipe(text), reference(text)
        some += len(expected)
        assert_same_findings(found, expected)
    assert some
    assert [len(of) for of in pipe(TEXTS)] == [len(pipe(text)) for text in TEXTS]


@pytest.mark.parametrize("strategy", ["none", "simple", "first"])
@pytest.mark.parametrize("delimiter", [None, "", ", "])
def test_words_are_tagged_as_by_transformers(
    directory: Path, theirs: Any, strategy: str, delimiter: str | None
) -> None:
    settings: dict[str, Any] = {"is_split_into_words": True, "aggregation_strategy": strategy, "ignore_labels": []}
    settings |= {} if delimiter is None else {"delimiter": delimiter}
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    reference = transformers.pipeline("token-classification", theirs, tokenizer=tokenizer, device="cpu")
    pipe = kd.pipeline("token-classification", str(directory), is_split_into_words=True)
    rows = [text.split() for text in TEXTS]
    for found, expected in zip(pipe(rows, **settings), reference(rows, **settings), strict=True):
        assert_same_findings(found, expected)
    (found,), (expected,) = pipe(rows[0], **settings), reference(rows[0], **settings)
    assert_same_findings(found, expected)


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize(("model_type", "name"), [("roberta", "Roberta"), ("xlm-roberta", "XLMRoberta")])
def test_kinds_without_a_mark_on_pieces_are_read_as_by_transformers(model_type: str, name: str, tmp_path: Path) -> None:
    """Rows of words as run_ner.py reads them, and texts in the pipeline, by the files that a tagger is saved as."""
    if model_type in WITH_SENTENCEPIECE:
        pytest.importorskip("sentencepiece")
    write_vocabulary(model_type, tmp_path)
    tokenizer = kd.AutoTokenizer.from_pretrained(tmp_path, model_max_length=60)
    prefix = {"add_prefix_space": True} if model_type == "roberta" else {}
    of_words = transformers.AutoTokenizer.from_pretrained(tmp_path, **prefix)
    words = [text.split() for text in TEXTS]
    rows = words_of(read_table({"tokens": words, "ner_tags": [["O"] * len(row) for row in words]}))
    dataset = encode_words(rows, tokenizer, id2label=TAGS)
    expected = of_words(words, is_split_into_words=True)
    assert dataset.ids.tolist() == [index for row in expected["input_ids"] for index in row]
    like = small_config(vocab_size=len(tokenizer), id2label=TAGS, initializer_range=0.6, max_position_embeddings=64)
    shape = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "id2label")
    config = getattr(kd, f"{name}Config")(
        **{field: getattr(like, field) for field in (*shape, "initializer_range", "max_position_embeddings")}
    )
    getattr(kd, f"{name}ForTokenClassification")(config, seed=3).save_pretrained(tmp_path / "tagger")
    tokenizer.for_words().save_pretrained(tmp_path / "tagger")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "tagger")
    for strategy in ("none", "simple", "first", "average", "max"):
        settings: dict[str, Any] = {"aggregation_strategy": strategy, "ignore_labels": []}
        reference = transformers.pipeline(
            "token-classification", str(tmp_path / "tagger"), tokenizer=theirs, device="cpu", **settings
        )
        pipe = kd.pipeline("token-classification", str(tmp_path / "tagger"), **settings)
        for text in TEXTS:
            assert_same_findings(pipe(text), reference(text))
        for row in filter(None, words):
            of_words = {"is_split_into_words": True}
            assert_same_findings(pipe(row, **of_words)[0], reference(row, **of_words)[0])


ODD_TEXTS = [
    "  Anna   lives\t in \n New  York !? ",
    "e\u0301tude à Zu\u0308rich, naïve, İstanbul",
    "O'Neill-Müller's “caf\u00e9” — (U.S.A.), 1,000.50 €/m²…",
    "wow😀😀 Maria👩‍👩‍👧 lives ❤️ here 🇫🇷",
    "東京都に住む安娜。 Анна живёт в Москве",
    "a\u0300\u0301\u0302b \u200bzero\u00adwidth\u00a0space\u3000wide",
    "....",
    " ",
    "नमस्ते अन्ना สวัสดี안녕 يعيش",
]


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("model_type", ["bert", "mpnet", "roberta", "xlm-roberta", "albert"])
def test_odd_texts_are_tagged_as_by_transformers(model_type: str, tmp_path: Path) -> None:
    """Several spaces, combining marks, emoji of several characters, scripts without them; in all strategies."""
    if model_type in WITH_SENTENCEPIECE:
        pytest.importorskip("sentencepiece")
    sizes = {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 32}
    fields = {"tokens": 250, "seed": 3, "initializer_range": 0.2, "id2label": TAGS}
    write_model_with_vocabulary(model_type, "ForTokenClassification", tmp_path, **fields, **sizes)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    settings: dict[str, Any] = {"ignore_labels": []}
    reference = transformers.pipeline("ner", str(tmp_path), tokenizer=theirs, device="cpu", **settings)
    pipe = kd.pipeline("ner", str(tmp_path), **settings)
    found = 0
    for strategy in ("none", "simple", "first", "average", "max"):
        for text in ODD_TEXTS:
            expected = reference(text, aggregation_strategy=strategy)
            assert_same_findings(pipe(text, aggregation_strategy=strategy), expected)
            found += len(expected)
    assert found > 5 * len(ODD_TEXTS)


def test_texts_beyond_the_model_are_answered_in_windows(directory: Path) -> None:
    pipe = kd.pipeline("ner", str(directory), ignore_labels=[])
    text = " ".join(["anna lives in new york and"] * 30)
    found = pipe(text)
    assert [one["index"] for one in found] == list(range(1, len(found) + 1))
    assert "".join(text[one["start"] : one["end"]] for one in found) == text.replace(" ", "")
    short = pipe(text[: text.index("and") + 3])
    assert [one["word"] for one in short] == [one["word"] for one in found[: len(short)]]


def test_bench_gives_pytorch_the_same_tokens(directory: Path) -> None:
    random = np.random.default_rng(6)
    lengths = random.integers(1, 30, 11)
    ids = random.integers(5, len(VOCABULARY), lengths.sum()).astype(np.int32)
    dataset = Dataset(ids, np.zeros_like(ids), starts_of(lengths), np.full(len(lengths), -100))
    found = forward_pass(torch_forward(load_torch(directory)), bucketed(dataset, 4), len(TAGS), dataset.starts)
    expected = kd.BertForTokenClassification.from_pretrained(directory).forward(dataset.batch(np.arange(11))[0])
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(np.abs(expected).max()))
