"""The endpoints: what they take, what they answer, and what they refuse with which status."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.served import PATIENCE, Answer, Gate, Served, in_threads, served, until
from support.small_run import LABELS, sentences, write_model

import kdistill as kd
from kdistill.serve.classifier import Classifier

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

TEXTS = [text for text, _ in sentences(12)]
PAIRS = [{"text": "good film", "text_pair": "bad plot"}, {"text": "awful", "text_pair": "great great actor"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("served") / "model")


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Served]:
    with served(model, max_texts=50, max_request_bytes=4000) as running:
        yield running


@pytest.fixture(scope="module")
def classify(model: Path) -> Any:
    return kd.pipeline(model=str(model))


def refusal(answer: Answer, status: int) -> str:
    assert (answer.status, list(answer.json)) == (status, ["error"])
    assert "\n" not in answer.json["error"]
    return str(answer.json["error"])


@pytest.mark.parametrize("parameters", [{}, {"top_k": 1}, {"top_k": None}, {"function_to_apply": "none"},
                                        {"top_k": 2, "function_to_apply": "sigmoid"}])  # fmt: skip
@pytest.mark.parametrize("inputs", [TEXTS[0], TEXTS[:1], TEXTS, PAIRS[0], PAIRS, {"text": TEXTS[0]}])
def test_an_answer_is_that_of_the_pipeline(
    server: Served, classify: Any, inputs: Any, parameters: dict[str, Any]
) -> None:
    answer = server.post({"inputs": inputs, "parameters": parameters})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == classify(inputs, **parameters)


def test_the_shorter_path_has_the_same_answers(server: Served) -> None:
    request = {"inputs": TEXTS, "parameters": {"top_k": None}}
    assert server.post(request, "/predict").json == server.post(request, "/invocations").json


def test_inputs_may_stand_alone_and_parameters_without_effect_are_taken(server: Served, classify: Any) -> None:
    assert server.post(TEXTS[:2]).json == server.post({"inputs": TEXTS[:2], "parameters": None}).json
    assert server.post(PAIRS[0]).json == classify(PAIRS[0])
    without_effect = {"truncation": True, "padding": True}
    assert server.post({"inputs": TEXTS[0], "parameters": without_effect}).json == classify(TEXTS[0])


def test_texts_that_json_spells_with_escapes_are_read(server: Served, classify: Any) -> None:
    assert server.post('{"inputs": "good\\u00e9 \\ud83d\\ude00 film\\u0000"}').json == classify(
        "good\xe9 \U0001f600 film\0"
    )
    assert server.post("\ufeff" + json.dumps({"inputs": "good"})).json == classify("good")


def test_json_lines_and_plain_text_have_an_answer_a_line(server: Served, classify: Any) -> None:
    lines = [json.dumps({"inputs": text}) for text in TEXTS[:2]] + [
        json.dumps(TEXTS[2]),
        json.dumps({"text": TEXTS[3]}),
    ]
    answer = server.post("\n".join(lines) + "\n", content_type="application/jsonlines")
    assert answer.headers["content-type"] == "application/jsonlines"
    assert [json.loads(line) for line in answer.body.splitlines()] == classify(TEXTS[:4])
    plain = server.post("\r\n".join(TEXTS[:4]), content_type="text/plain; charset=UTF-8")
    assert plain.json == classify(TEXTS[:4])
    with_parameters = json.dumps({"inputs": TEXTS[0], "parameters": {"top_k": 2}})
    ranked = server.post(with_parameters, content_type="application/x-ndjson", accept="application/json")
    assert ranked.json == classify([TEXTS[0]], top_k=2)


def test_csv_is_read_with_and_without_a_header_and_written_without(server: Served, classify: Any) -> None:
    rows = f'{TEXTS[0]}\n"{TEXTS[1]}, {TEXTS[2]}"\n'
    expected = classify([TEXTS[0], f"{TEXTS[1]}, {TEXTS[2]}"])
    for header in ("", "inputs\n", "Text\r\n", "sentence\n"):
        assert server.post(header + rows, content_type="text/csv").json == expected
    pair = classify([PAIRS[0]])
    assert server.post("good film,bad plot\n", content_type="text/csv").json == pair
    assert server.post("text_pair,text\nbad plot,good film\n", content_type="text/csv").json == pair
    for header in ("sentence1,sentence2", "premise,hypothesis", "question1,question2", "#1 String,#2 String"):
        assert server.post(f"{header}\ngood film,bad plot\n", content_type="text/csv").json == pair
    written = server.post(rows, content_type="text/csv", accept="text/csv")
    assert written.headers["content-type"] == "text/csv"
    assert written.body.decode() == "".join(f"{row['label']},{row['score']!r}\n" for row in expected)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", "application/json"),
        ("text/*", "text/csv"),
        ("text/html, application/jsonlines;q=0.5", "application/jsonlines"),
        ("application/json;q=0.1, text/csv;q=0.9", "text/csv"),
    ],
)
def test_the_answer_has_the_type_that_the_client_prefers(server: Served, accept: str, expected: str) -> None:
    assert server.post({"inputs": "good"}, accept=accept).headers["content-type"] == expected


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("", "the body is not JSON: Expecting value at character 0"),
        (b'{"inputs": "\xff"}', "the body is not UTF-8: invalid start byte at byte 12"),
        ("[" * 3900, "JSON of too many levels"),
        ('{"inputs": ' + "9" * 3900 + "}", "inputs is 9999"),
        ('{"inputs": NaN}', "inputs is NaN; expected a text"),
        ('{"inputs": []}', "the request has no text"),
        ('{"inputs": null}', "inputs is null; expected a text"),
        ('{"inputs": ["good", 3]}', "inputs[1] is 3; expected a text"),
        ('{"inputs": [["good", "bad"]]}', 'inputs[0] is ["good", "bad"]; expected a text'),
        ('{"inputs": {"text": 1}}', "inputs.text is 1; expected a text"),
        ('{"inputs": {"text": "a", "text_pair": []}}', "inputs.text_pair is []; expected a text"),
        ('{"inputs": "a\\ud800b"}', "text 0 holds \\ud800 at character 1, half of a character"),
        ('{"inputs": "a", "parameter": {}}', 'the body has "parameter"; expected inputs and perhaps parameters'),
        ('{"text_input": "a"}', 'the body has no "inputs"'),
        ('{"inputs": "a", "parameters": []}', "parameters is []; expected an object"),
        ('{"inputs": "a", "parameters": {"top_k": 0}}', "parameters.top_k is 0; expected a whole number"),
        ('{"inputs": "a", "parameters": {"top_k": NaN}}', "parameters.top_k is NaN; expected a whole number"),
        ('{"inputs": "a", "parameters": {"topk": 1}}', 'parameters has "topk"; expected top_k or function_to_apply'),
        ('{"inputs": "a", "parameters": {"function_to_apply": "tanh"}}', 'is "tanh"; expected one of "sigmoid"'),
        ('{"inputs": "a", "parameters": {"function_to_apply": []}}', 'is []; expected one of "sigmoid"'),
        ('{"inputs": "a", "parameters": {"max_length": 5}}', "parameters.max_length is 5; leave it out"),
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_understood_is_400_with_one_sentence(
    server: Served, body: str | bytes, sentence: str
) -> None:
    assert sentence in refusal(server.post(body), 400)
    assert server.ask("GET", "/ping").status == 200


@pytest.mark.parametrize(
    ("content_type", "body", "sentence"),
    [
        ("application/jsonlines", '"a"\n{', "line 2 is not JSON"),
        ("application/jsonlines", '["a", "b"]', "line 1 holds a list"),
        ("application/jsonlines", "\n\n", "the request has no text"),
        ("application/jsonlines", '{"inputs": "a"}\n{"inputs": "a", "parameters": {"top_k": 1}}', "different param"),
        ("text/csv", 'a,b\n"c\n', "the body is not CSV"),
        ("text/csv", "a\nb,c\n", "row 2 of the CSV has 2 columns"),
        ("text/csv", "a,b,c\n", "row 1 of the CSV has 3 columns"),
        ("text/csv", "inputs\n", "the request has no text"),
        ("text/csv", "text,label\ngood,1\n", "the CSV has the columns text and label; expected texts only"),
        ("text/plain", "", "the request has no text"),
    ],
)  # fmt: skip
def test_other_forms_that_cannot_be_understood_are_400(
    server: Served, content_type: str, body: str, sentence: str
) -> None:
    assert sentence in refusal(server.post(body, content_type=content_type), 400)


def test_types_that_are_not_read_or_written_are_415_and_406(server: Served) -> None:
    assert "Content-Type is 'image/png'; expected one of application/json" in refusal(
        server.post("a", content_type="image/png"), 415
    )
    assert "charset 'latin-1'" in refusal(server.post("a", content_type="text/plain; charset=latin-1"), 415)
    assert "Accept is 'text/html'" in refusal(server.post({"inputs": "a"}, accept="text/html"), 406)
    refusal(server.post({"inputs": "a"}, accept="application/json;q=0"), 406)


def test_a_compressed_body_is_415(server: Served) -> None:
    body = gzip.compress(b'{"inputs": "good"}')
    assert "Content-Encoding is 'gzip'" in refusal(server.post(body, content_encoding="gzip"), 415)
    assert server.post({"inputs": "good"}, content_encoding="identity").status == 200


def test_an_offer_to_upgrade_is_refused_with_the_remedy(server: Served) -> None:
    """As Java's HttpClient sends it unless it is told otherwise; the body does not reach the endpoint then."""
    headers = b"host: x\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB"
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\n" + headers + b'\r\ncontent-length: 6\r\n\r\n"good"')
        with connection.makefile("rb") as file:
            answer = file.read()  # to the end: the connection is closed
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"make the client use HTTP/1.1" in answer


def test_unknown_paths_and_methods_are_404_and_405(server: Served) -> None:
    assert "expected POST /invocations" in refusal(server.ask("GET", "/foo"), 404)
    assert "expected POST /invocations" in refusal(server.ask("GET", "/predict"), 405)


def test_too_many_bytes_or_texts_are_413_also_without_a_length(server: Served) -> None:
    assert "larger than 4,000 bytes" in refusal(server.post({"inputs": "good " * 1000}), 413)
    chunks = iter([b'{"inputs": "', *[b"good " * 100] * 20, b'"}'])  # sent chunked
    answer = server.ask("POST", "/predict", chunks, content_type="application/json")
    assert "larger than 4,000 bytes" in refusal(answer, 413)
    assert "51 texts; expected at most 50" in refusal(server.post({"inputs": ["good"] * 51}), 413)
    assert server.post({"inputs": ["good"] * 50}).status == 200


def test_a_declared_length_far_beyond_the_limit_is_413_before_it_is_sent(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come_is_408(model: Path) -> None:
    with served(model, timeout=0.2) as server, socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(PATIENCE)
        connection.sendall(b'POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n{"inp')
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_texts_that_were_cut_are_counted_in_a_header(server: Served, classify: Any) -> None:
    long = " ".join(["good"] * 15)
    answer = server.post({"inputs": [long, "good", long]})
    assert answer.headers["x-kdistill-truncated"] == "2"
    assert "x-kdistill-truncated" not in server.post({"inputs": "good"}).headers
    with pytest.warns(UserWarning, match="truncated"):
        assert answer.json == kd.pipeline(model=classify.model, tokenizer=classify.tokenizer)([long, "good", long])


def test_max_length_cuts_as_predict_does(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from kdistill.cli.main import main

    text = "good film bad plot awful actor"
    assert main(["predict", "--model", str(model), "--max-length", "5", "--text", text, "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["predictions"]
    with served(model, max_length=5) as server:
        answer = server.post({"inputs": text})
    assert answer.json == expected
    assert answer.headers["x-kdistill-truncated"] == "1"


@pytest.mark.parametrize(
    "changes",
    [
        {"problem_type": "multi_label_classification", "id2label": {0: "a", 1: "b", 2: "c"},
         "extra": {"kdistill": {"threshold": 0.4}}},
        {"problem_type": "regression", "id2label": {0: "stars"}},
        {"problem_type": "regression", "id2label": {0: "stars", 1: "price"}},
    ],
)  # fmt: skip
def test_every_task_is_answered_as_predict_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any]
) -> None:
    """For several labels those above the model's threshold, for numbers each output. One label: test_gathering.py."""
    from kdistill.cli.main import main

    model = write_model(tmp_path / "model", **changes)
    assert main(["predict", "--model", str(model), "--json", "--text", *TEXTS]) == 0
    expected = json.loads(capsys.readouterr().out)["predictions"]
    with served(model) as server:
        assert server.post({"inputs": TEXTS}).json == expected
        assert [server.post({"inputs": text}).json[0] for text in TEXTS] == expected
        ranked = server.post({"inputs": TEXTS, "parameters": {"top_k": None}}).json
    if changes["problem_type"] == "regression":
        assert ranked == kd.pipeline(model=str(model))(TEXTS, top_k=None)
    else:
        assert main(["predict", "--model", str(model), "--json", "--top-k", "9", "--text", *TEXTS]) == 0
        assert ranked == json.loads(capsys.readouterr().out)["predictions"]


def test_health_shows_model_labels_and_queue(server: Served) -> None:
    health = server.ask("GET", "/health").json
    assert health["status"] == "ready"
    assert health["model"] == "small"
    assert health["dtype"] == "float32"
    assert health["version"] == kd.__version__
    assert health["labels"] == list(LABELS.values())
    assert health["max_length"] == 16
    assert health["queue"] == {"texts": 0, "max_texts": 1024}
    assert health["uptime_seconds"] > 0


@pytest.mark.filterwarnings("ignore:.* is computed portably")
def test_health_shows_the_compute_type(tmp_path: Path) -> None:
    with served(Classifier.load(write_model(tmp_path / "model"), dtype="int8")) as server:
        assert server.ask("GET", "/health").json["dtype"] == "int8"


def test_metrics_count_answers_by_status_and_the_texts_of_batches(model: Path) -> None:
    with served(model) as server:
        server.post({"inputs": TEXTS[:3]})
        server.post({"inputs": TEXTS[0]})
        server.post("{")
        assert server.metric('kdistill_requests_total{status="200"}') == 2
        assert server.metric('kdistill_requests_total{status="400"}') == 1
        assert server.metric("kdistill_request_seconds_count") == 2
        assert (server.metric("kdistill_batch_texts_count"), server.metric("kdistill_batch_texts_sum")) == (2, 4)
        tokens = sum(len(text.split()) + 2 for text in [*TEXTS[:3], TEXTS[0]])
        assert server.metric("kdistill_batch_tokens_sum") == tokens
        assert server.metric("kdistill_queue_texts") == 0
        labels = f'labels="negative,positive",name="small",version="{kd.__version__}"'
        assert server.metric(f"kdistill_model_info{{{labels}}}") == 1


def test_a_full_queue_is_429_until_there_is_room(model: Path) -> None:
    classifier = Classifier.load(model)
    gate = Gate(classifier)
    with served(classifier, max_queue=3) as server:
        answers, join = in_threads([lambda: server.post({"inputs": "good"})] * 3)
        until(lambda: server.metric("kdistill_queue_texts") == 3)
        refused = server.post({"inputs": "good"})
        assert "3 texts wait already, and the queue takes 3 (--max-queue)" in refusal(refused, 429)
        assert refused.headers["retry-after"] == "1"
        gate.open()
        join()
        assert [answer.status for answer in answers] == [200] * 3
        assert server.post({"inputs": "good"}).status == 200


def test_a_request_that_waits_too_long_is_503_and_its_texts_are_left_out(model: Path) -> None:
    classifier = Classifier.load(model)
    gate = Gate(classifier)
    with served(classifier, timeout=2) as server:
        answers, join = in_threads([lambda: server.post({"inputs": "good"})])
        until(lambda: gate.rows == [1])
        late = server.post({"inputs": ["good"] * 7})
        assert "waited 2 seconds for its answer (--timeout)" in refusal(late, 503)
        assert late.headers["retry-after"] == "1"
        join()
        assert answers[0].status == 503
        gate.open()
        until(lambda: server.metric("kdistill_queue_texts") == 0)
        assert server.post({"inputs": ["good"] * 2}).status == 200
        assert gate.rows == [1, 2]


def test_a_client_that_is_gone_has_its_texts_left_out(model: Path) -> None:
    classifier = Classifier.load(model)
    gate = Gate(classifier)
    with served(classifier) as server:
        answers, join = in_threads([lambda: server.post({"inputs": "good"})])
        until(lambda: gate.rows == [1])
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            body = json.dumps({"inputs": ["good"] * 7}).encode()
            connection.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            until(lambda: server.metric("kdistill_queue_texts") == 8)
        until(lambda: server.metric("kdistill_queue_texts") == 1)
        gate.open()
        join()
        assert answers[0].status == 200
        assert server.post({"inputs": ["good"] * 2}).status == 200
        assert gate.rows == [1, 2]


def test_a_fault_of_the_model_is_500_for_its_request_alone(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    classifier = Classifier.load(model)
    gate, tokenise = Gate(classifier), classifier.tokenise

    def failing(inputs: Any) -> Any:
        if "bad" in inputs:
            raise RuntimeError("out of luck")
        return tokenise(inputs)

    classifier.tokenise = failing
    with served(classifier) as server:
        first, join_first = in_threads([lambda: server.post({"inputs": "good"})])
        until(lambda: gate.rows == [1])
        answers, join = in_threads(
            [lambda text=text: server.post({"inputs": text}) for text in ("good", "bad", "film")]
        )
        until(lambda: server.metric("kdistill_queue_texts") == 4)
        gate.open()
        join_first()
        join()
        assert [answer.status for answer in (*first, *answers)] == [200, 200, 500, 200]
        assert refusal(answers[1], 500) == "the model failed: RuntimeError; the server's log has more"
        assert server.ask("GET", "/ping").status == 200
    assert "kdistill: error: a batch failed: RuntimeError: out of luck" in capfd.readouterr().err


def test_ping_is_503_when_no_thread_answers(model: Path) -> None:
    with served(model) as server:
        assert server.ask("GET", "/ping").status == 200
        server.service.gatherer.stop(PATIENCE)
        assert server.ask("GET", "/ping").status == 503
        assert server.ask("GET", "/health").json["status"] == "failed"


def test_requests_one_after_another_in_one_packet_are_answered_in_their_order(server: Served, classify: Any) -> None:
    requests = b""
    for text in TEXTS[:3]:
        body = json.dumps({"inputs": text}).encode()
        requests += b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    expected = [json.dumps(classify(text)).encode() for text in TEXTS[:3]]
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        connection.sendall(requests)
        received, end = b"", time.monotonic() + PATIENCE
        while expected[-1] not in received and time.monotonic() < end:
            received += connection.recv(10_000)
    places = [received.index(answer) for answer in expected]
    assert places == sorted(places)
