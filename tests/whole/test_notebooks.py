"""The notebooks as they are committed, and a small version of each run from top to bottom in a kernel of its own."""

from __future__ import annotations

import ast
import re
import runpy
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.hub_stub import NOWHERE, TOKEN, environment, hub_server
from support.paths import ROOT

import kdistill as kd

nbformat = pytest.importorskip("nbformat")
for package in ("nbclient", "nbconvert", "ipykernel", "matplotlib", "optuna", "huggingface_hub"):
    pytest.importorskip(package)

TOOL = runpy.run_path(str(ROOT / "tools" / "notebooks.py"))
NOTEBOOK = ROOT / "notebooks" / "knowledge-distillation.ipynb"
ROWS = ROOT / "examples" / "SST-2"


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", TOOL["NOTEBOOKS"], ids=lambda path: path.name)
def test_a_committed_notebook_has_no_outputs(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    TOOL["strip"](notebook)
    assert path.read_text() == nbformat.writes(notebook) + "\n", "run: python tools/notebooks.py strip"


def test_what_the_notebook_imports_from_the_examples_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run below gives a model of its own, so it does not get there."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    code = "\n".join(cell.source for cell in read(NOTEBOOK).cells if cell.cell_type == "code")
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    of_examples = [node for node in imports if (ROOT / "examples" / f"{node.module}.py").is_file()]
    assert of_examples
    for node in of_examples:
        module = runpy.run_path(str(ROOT / "examples" / f"{node.module}.py"), run_name=str(node.module))
        assert {name.name for name in node.names} <= module.keys()


@pytest.mark.parametrize("path", TOOL["NOTEBOOKS"], ids=lambda path: path.name)
def test_a_notebook_begins_with_its_parameters(path: Path) -> None:
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.metadata.get("tags", []) for cell in cells] == [["parameters"]] + [[]] * (len(cells) - 1)


def test_with_a_network_the_models_and_rows_are_those_of_the_original() -> None:
    parameters: dict[str, Any] = {}
    exec(next(cell.source for cell in read(NOTEBOOK).cells if cell.cell_type == "code"), parameters)
    assert parameters["teacher_id"] == "textattack/bert-base-uncased-SST-2"
    assert parameters["student_id"] == "google/bert_uncased_L-2_H-128_A-2"
    assert (parameters["dataset_id"], parameters["dataset_config"]) == ("glue", "sst2")
    recipe = {"num_train_epochs": 7, "batch_size": 128, "learning_rate": 6e-5, "alpha": 0.5, "temperature": 4.0}
    assert {name: parameters[name] for name in recipe} == recipe
    assert parameters["n_trials"] == 50


def test_a_notebook_without_its_data_is_left_out_visibly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = TOOL["without_missing_data"]
    assert chosen(TOOL["NOTEBOOKS"], tmp_path) == TOOL["NOTEBOOKS"]
    left = chosen(TOOL["NOTEBOOKS"], tmp_path / "gone")
    out = [path.name for path in TOOL["NOTEBOOKS"] if path not in left]
    assert "second-step-distillation.ipynb" in out
    assert NOTEBOOK in left
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == [f"skipped: {name}" for name in out]


def test_stripping_takes_all_that_a_run_leaves() -> None:
    notebook = read(NOTEBOOK)
    expected = nbformat.writes(notebook)
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    code.outputs, code.execution_count = [nbformat.v4.new_output("stream", text="3")], 7
    code.metadata["execution"] = {"iopub.status.busy": "2026-01-01"}
    notebook.metadata["widgets"] = {}
    TOOL["strip"](notebook)
    assert nbformat.writes(notebook) == expected


class Sources(HTMLParser):
    """The parts of a page that come from the notebook itself, by the ids of its cells, and its title."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._inside: str | None = None
        self.feed(page)
        self.found = {name: text.strip() for name, text in self.found.items()}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        classes = told.get("class", "").split()
        if tag == "title" or "cell" in classes:
            self._inside = told.get("id", tag)
        elif "output_wrapper" in classes:
            self._inside = None
        self.handle_data(told.get("href", "") + told.get("alt", ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is not None and not re.fullmatch(r"In\s\[.*\]:", data):  # which differs from run to run
            self.found[self._inside] = self.found.get(self._inside, "") + data


@pytest.mark.parametrize("path", TOOL["NOTEBOOKS"], ids=lambda path: path.name)
def test_a_page_shows_the_committed_notebook(path: Path) -> None:
    notebook = read(path)
    expected = Sources(TOOL["page"](notebook, path.parent)).found
    for cell in notebook.cells:
        shown = expected[f"cell-id={cell.id}"]
        assert shown == cell.source if cell.cell_type == "code" else shown
    found = Sources((TOOL["PAGES"] / f"{path.stem}.html").read_text()).found
    differing = [name for name in dict.fromkeys((*expected, *found)) if expected.get(name) != found.get(name)]
    assert not differing, "the page is of another version of these cells; run: make notebooks"


@pytest.fixture(scope="module")
def model_that_has_read(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT that has seen some sentiment, in the place of a pretrained one."""
    directory = tmp_path_factory.mktemp("pretrained")
    rows = kd.load_dataset(ROWS)["train"].select(range(6000))
    words = Counter(word for sentence in rows["sentence"] for word in sentence.split())
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(word for word, _ in words.most_common(3000))]
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    # Wider than the student, whose layers are new then, as in the notebook.
    shape = {"hidden_size": 144, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 512}
    config = kd.BertConfig(vocab_size=len(vocabulary), max_position_embeddings=128, **shape)
    trainer = kd.Trainer(
        kd.BertForSequenceClassification(config, seed=1),
        kd.TrainingArguments(
            str(directory / "run"),
            num_train_epochs=2,
            per_device_train_batch_size=16,
            learning_rate=5e-4,
            warmup_ratio=0.1,
            disable_tqdm=True,
        ),
        train_dataset=rows,
        eval_dataset=ROWS / "dev.tsv.xz",
        processing_class=kd.AutoTokenizer.from_pretrained(directory),
    )
    trainer.train()
    trainer.model.save_pretrained(directory)
    return directory


def run(parameters: dict[str, object], directory: Path, hub: dict[str, str]) -> Any:
    """The executed notebook, with these parameters and everything else small, in an environment that has this hub."""
    small = {
        "num_train_epochs": 4,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "beside_recipe": {"augment": 1, "num_train_epochs": 1},
        "output_dir": str(directory),
        "least_teacher": 0.65,
        "least_student": 0.6,
        "least_best": 0.6,
    }
    notebook = read(NOTEBOOK)
    lines = [f"{name} = {value!r}" for name, value in (small | parameters).items()]
    TOOL["with_parameters"](notebook, "\n".join(lines))
    # The package of this checkout, and a cache and a tracker of the test's own.
    own = {"PYTHONPATH": str(ROOT), "KDISTILL_CACHE": str(directory / "cache")}
    own |= {"MLFLOW_TRACKING_URI": TOOL["mlflow_below"](directory)}
    TOOL["execute"](notebook, NOTEBOOK.parent, env=hub | own)
    return notebook


def printed(notebook: Any, cell: str) -> str:
    (found,) = (of for of in notebook.cells if of.id == cell)
    return "".join(output.get("text", "") for output in found.outputs)


def test_without_a_network(model_that_has_read: Path, tmp_path: Path) -> None:
    parameters = {"pretrained_dir": str(model_that_has_read), "offline_rows": 1200, "offline_trials": 3}
    notebook = run(parameters, tmp_path, environment(NOWHERE, tmp_path / "home", offline=True))
    html = TOOL["page"](notebook, NOTEBOOK.parent)
    assert html.count("data:image/svg+xml") >= 8, "a drawing, and a picture for each question"
    assert "<script" not in html
    assert 'src="http' not in html
    assert "(checked in" in printed(notebook, "ask-doctor")
    assert "recipe tiny: for a student of L2-H128-A2" in html
    exported = printed(notebook, "export-onnx")  # tests/oracle runs this cell with the packages
    assert "checked with onnxruntime" in exported or 'pip install "kdistill[export]"' in exported
    assert "after: McNemar's p is" in printed(notebook, "quantize-it")
    card = (tmp_path / "tiny-bert-best" / "README.md").read_text()
    assert "McNemar" in card
    assert kd.BertForSequenceClassification.from_pretrained(tmp_path / "tiny-bert-best").num_parameters() < 1_000_000


def test_with_a_network(model_that_has_read: Path, tmp_path: Path) -> None:
    """Models and rows by name, where the ids are directories; and the upload, to a hub on this machine."""
    rows = tmp_path / "rows"
    rows.mkdir()
    table = kd.load_dataset(ROWS)["train"]
    for name, chosen in (("train", range(600)), ("validation", range(600, 800))):
        lines = [f"{row['sentence']}\t{row['label']}\n" for row in table.select(chosen)]
        (rows / f"{name}.tsv").write_text("sentence\tlabel\n" + "".join(lines))
    teacher, student = kd.BertForSequenceClassification.from_pretrained(model_that_has_read), tmp_path / "student"
    config = teacher.config.replace(num_hidden_layers=2)
    kd.BertForSequenceClassification.from_teacher(teacher, config).save_pretrained(student)
    shutil.copy(model_that_has_read / "vocab.txt", student)
    ids = {"teacher_id": str(model_that_has_read), "student_id": str(student)}
    data = {"dataset_id": str(rows), "dataset_config": None, "online": True, "n_trials": 3}
    with hub_server() as hub:
        there = environment(hub.endpoint, tmp_path / "home", token=TOKEN)
        notebook = run(ids | data | {"push_to_hub": True}, tmp_path / "out", there)
        address = f"{hub.endpoint}/me/tiny-bert-sst2-distilled/commit/{1:040x}"
    assert printed(notebook, "push") == f"{address}\n"
    uploaded = hub.repositories["me/tiny-bert-sst2-distilled"].branches["main"]
    best = tmp_path / "out" / "tiny-bert-best"  # the retrained model, not that of the first training
    for name in ("model.safetensors", "README.md", "config.json", "tokenizer.json", "all_results.json"):
        assert uploaded[name] == (best / name).read_bytes()
    assert not [name for name in uploaded if name.startswith("checkpoint-")]
    card = uploaded["README.md"].decode()
    assert f"a hyperparameter search scored {data['n_trials']} trials on them" in card
    assert "McNemar" in card
