"""Gathering: what is computed together, and that nobody's answer depends on it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from support.served import PATIENCE, Gate, in_threads, served, until
from support.small_run import VOCABULARY, WORDS, sentences, write_model

import kdistill as kd
from kdistill.serve.classifier import Classifier

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("gathered") / "model")


@pytest.mark.parametrize("most", [20, 2048])
def test_scores_have_the_bits_of_predict_whatever_batch_they_are_computed_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], most: int
) -> None:
    """Many clients with texts and pairs of all lengths, in forms of their own, at once."""
    from kdistill.cli.main import main

    model = write_model(tmp_path / "model", id2label=dict(enumerate("abcde")), hidden_size=32)
    texts = [text for text, _ in sentences(60, seed=3)]
    command = ["predict", "--model", str(model), "--json", "--text", *texts]
    assert main(command) == 0
    best = json.loads(capsys.readouterr().out)["predictions"]
    assert main([*command, "--top-k", "5"]) == 0
    ranked = json.loads(capsys.readouterr().out)["predictions"]
    pairs = kd.pipeline(model=str(model))([{"text": text, "text_pair": "good plot"} for text in texts])
    chance = random.Random(1)
    with served(model, max_batch_tokens=most) as server:

        def ask() -> None:
            for _ in range(12):
                rows = chance.choices(range(len(texts)), k=chance.choice([1, 1, 2, 9]))
                chosen = [texts[row] for row in rows]
                assert server.post({"inputs": chosen}).json == [best[row] for row in rows]
                ordered = server.post({"inputs": chosen, "parameters": {"top_k": None}}).json
                assert ordered == [ranked[row] for row in rows]
                both = [{"text": text, "text_pair": "good plot"} for text in chosen]
                assert server.post({"inputs": both}).json == [pairs[row] for row in rows]
            done.append(True)

        done: list[bool] = []
        _, join = in_threads([ask] * 6)
        join()
        assert len(done) == 6
        batches, computed = server.metric("kdistill_batch_texts_count"), server.metric("kdistill_batch_texts_sum")
        assert batches < 6 * 12 * 3 or most == 20
        assert computed == server.service.metrics.texts


def test_what_came_during_a_batch_is_the_next_batch(model: Path) -> None:
    classifier = Classifier.load(model)
    gate = Gate(classifier)
    with served(classifier) as server:
        answers, join = in_threads([lambda: server.post({"inputs": "good"})])
        until(lambda: gate.rows == [1])
        more, join_more = in_threads([lambda: server.post({"inputs": ["bad", "film"]})] * 5)
        until(lambda: server.metric("kdistill_queue_texts") == 11)
        gate.open()
        join()
        join_more()
        assert gate.rows == [1, 10]
        assert {answer.status for answer in (*answers, *more)} == {200}


def test_a_pass_has_no_more_tokens_than_its_bound(model: Path) -> None:
    """Short words deceive the estimate by characters: the tokens are counted again."""
    directory = model.parent / "short"
    write_model(directory, vocab_size=len(VOCABULARY) + 1)
    (directory / "vocab.txt").write_text("\n".join([*VOCABULARY, "a"]) + "\n")
    classifier = Classifier.load(directory)
    seen, logits = [], classifier.logits

    def counted(rows: list[object]) -> object:
        seen.append([len(row.ids) for row in rows])
        return logits(rows)

    classifier.logits = counted
    with served(classifier, max_batch_tokens=30) as server:
        assert server.post({"inputs": ["a a a a a a a a"] * 10}).status == 200
    assert sum(map(len, seen)) == 10
    assert max(map(sum, seen)) <= 30
    assert max(map(len, seen)) == 3


@pytest.mark.parametrize(
    ("threads", "flops_per_token", "expected"), [(3, 1e5, 2), (3, 1e9, 3), (1, 1e5, 1), (1, 1e9, 1)]
)
def test_small_requests_leave_a_core_to_the_event_loop(
    model: Path, threads: int, flops_per_token: float, expected: int
) -> None:
    classifier = Classifier.load(model)
    seen, logits = [], classifier.logits

    def watched(rows: list[object]) -> object:
        seen.append(kd.get_num_threads())
        return logits(rows)

    classifier.logits, classifier.flops_per_token = watched, flops_per_token
    before = kd.get_num_threads()
    kd.set_num_threads(threads)
    try:
        with served(classifier) as server:
            assert server.post({"inputs": "good film"}).status == 200
            assert server.ask("GET", "/health").json["threads"] == threads
    finally:
        kd.set_num_threads(before)
    assert seen == [expected]


def test_a_request_of_many_texts_lets_others_in_between(model: Path) -> None:
    classifier = Classifier.load(model)
    gate = Gate(classifier)
    order: list[str] = []
    with served(classifier, max_batch_tokens=12) as server:

        def ask(name: str, count: int) -> None:
            assert server.post({"inputs": ["good film"] * count}).status == 200
            order.append(name)

        _, join_large = in_threads([lambda: ask("large", 60)])
        until(lambda: len(gate.rows) == 1)
        _, join_small = in_threads([lambda: ask("small", 1)])
        until(lambda: server.metric("kdistill_queue_texts") == 61)
        gate.open()
        join_large()
        join_small()
    assert order == ["small", "large"]


def test_a_batch_waits_for_more_only_if_it_is_told_to(model: Path) -> None:
    for wait, expected in ((0, [1, 1]), (PATIENCE * 10_000, [2])):
        classifier = Classifier.load(model)
        gate = Gate(classifier)
        gate.open()
        with served(classifier, max_wait_ms=wait, max_batch_tokens=6) as server:
            first, join = in_threads([lambda server=server: server.post({"inputs": WORDS[0]})])
            until(lambda server=server, wait=wait: server.metric("kdistill_queue_texts") == (1 if wait else 0))
            if not wait:
                join()
            second = server.post({"inputs": WORDS[1]})
            join()
            assert (first[0].status, second.status) == (200, 200)
            assert gate.rows == expected
