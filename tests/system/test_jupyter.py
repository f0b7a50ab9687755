"""Output for Jupyter: the HTML of models, arguments and results, and the progress bar in a real kernel's output."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from support.paths import ROOT
from support.small_run import run_fields, small_dataset, small_model

import kdistill as kd
from kdistill.system.notebook import Metrics, html_table, shown
from kdistill.train.state import TrainerState


class Tables(HTMLParser):
    """The cells of each table, row by row; fails on tags that do not close in their order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


def tables_of(value: object) -> list[list[list[str]]]:
    return Tables(value._repr_html_()).tables


def test_text_is_escaped() -> None:
    rows = Tables(html_table("a < b", [("<script>", None, "x & y")], header=("<i>", "", ""))).tables[0]
    assert rows == [["<i>", "", ""], ["<script>", "", "x & y"]]


def test_a_column_of_numbers_is_aligned_to_the_right() -> None:
    html = html_table("", [("loss", 1.0, 2), ("none", None, "text")], header=("name", "value", "other"))
    assert re.findall(r"text-align: (\w+)", html) == ["left", "right", "left"] * 3


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1,234,567"), (0.5, "0.5000"), (6e-5, "6e-05"), (0.00123456, "0.0012346"), (4.0, "4"), (True, "True")],
)
def test_numbers(value: object, text: str) -> None:
    assert shown(value) == text


def test_numbers_that_are_none() -> None:
    assert shown(float("nan")) == "nan"
    assert shown(float("inf")) == "inf"


def test_a_model_tells_its_shape_and_its_tensors() -> None:
    model = small_model(id2label={0: "<good>", 1: "bad"})
    shape, tensors = tables_of(model)
    assert ["hidden size", "16"] in shape
    assert ["labels", "<good>, bad"] in shape
    assert ["state", "trainable"] in shape
    assert ["parameters", f"{sum(array.size for array in model.parameters()):,}"] in shape
    assert {row[0] for row in tensors[1:]} == set(model.parameters)
    assert ["state", "frozen (a teacher)"] in tables_of(model.freeze())[0]


def test_arguments_that_were_chosen_come_first() -> None:
    args = kd.DistillationTrainingArguments(learning_rate=6e-5, temperature=9.0, hub_token="secret")
    chosen, others = tables_of(args)
    assert {row[0]: row[1] for row in chosen[1:]} == {"learning_rate": "6e-05", "temperature": "9.0"}
    assert ["alpha", "0.5"] in [row[:2] for row in others[1:]]
    assert len(chosen) + len(others) - 2 == len(args.to_dict())
    assert "secret" not in args._repr_html_()


def test_results_are_tables_and_still_what_they_were(tmp_path: Path) -> None:
    rows = small_dataset(40)
    args = kd.TrainingArguments(**run_fields(tmp_path, {}))
    trainer = kd.Trainer(small_model(), args, train_dataset=rows, eval_dataset=rows)
    output = trainer.train()
    assert ["epoch", "2"] in tables_of(output)[0]
    metrics = trainer.evaluate()
    assert isinstance(metrics, dict)
    assert json.loads(json.dumps(metrics)) == metrics
    assert ["eval_n", "40"] in tables_of(metrics)[0]
    assert ["test_n", "40"] in tables_of(trainer.predict(rows))[0]


def test_the_history_has_a_line_a_step() -> None:
    log = [
        {"loss": 0.7, "learning_rate": 0.5, "epoch": 1.0, "step": 5},
        {"eval_loss": 0.6, "eval_accuracy": 0.75, "eval_n": 8, "eval_runtime": 0.1, "epoch": 1.0, "step": 5},
        {"loss": 0.5, "learning_rate": 0.25, "epoch": 2.0, "step": 10},
        {"train_loss": 0.6, "train_runtime": 1.0, "epoch": 2.0, "step": 10},
    ]
    state = TrainerState(global_step=10, max_steps=10, log_history=log)
    assert tables_of(state)[0] == [
        ["epoch", "step", "loss", "learning_rate", "eval_loss", "eval_accuracy"],
        ["1.00", "5", "0.7000", "0.5000", "0.6000", "0.7500"],
        ["2.00", "10", "0.5000", "0.2500", "", ""],
    ]
    assert [entry["step"] for entry in state.history()] == [5, 10]
    assert log[0] == {"loss": 0.7, "learning_rate": 0.5, "epoch": 1.0, "step": 5}, "the log itself is left alone"


def test_metrics_compare_like_dictionaries() -> None:
    assert Metrics({"a": 1.0}) == {"a": 1.0}
    assert tables_of(Metrics({"accuracy": np.float64(0.25)})) == [[["accuracy", "0.2500"]]]


CELLS = {
    "a bar that ends": """
import time
from kdistill.system.progress import Progress
with Progress("brew <tea>", unit="cups") as progress:
    for done in range(13):
        progress(done, 12)
        time.sleep(0.1)
""",
    "short work": "with Progress('sip', unit='cups') as progress: progress(0, 1)",
    "lines and tables": """
class Table:
    def _repr_html_(self): return "<b>table</b>"
with Progress("pour", unit="cups") as progress:
    progress(0, 2)
    progress.write("first cup")
    progress.write("second cup", Table())
""",
    "nothing": "with Progress('hush', unit='cups', quiet=True) as progress: progress(0, 1); progress.write('no')",
}


def test_progress_in_a_kernel() -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS.values()])
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(ROOT)}}).execute()
    bar, short, table, nothing = (cell.outputs for cell in notebook.cells)
    (end,) = bar
    assert re.fullmatch(r"<div>brew &lt;tea&gt;: 12 cups in 0:\d\d</div>", end.data["text/html"])
    assert re.fullmatch(r"brew <tea>: 12 cups in 0:\d\d", end.data["text/plain"])
    assert [output.data["text/html"] for output in table] == ["<b>table</b>"]
    assert "first cup" in table[0].data["text/plain"]
    assert not short
    assert not nothing
