"""The best checkpoint of a run, damaged or gone: its weights never become the result unseen, and no work is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.resumable_run import LAST_STEP, result, trainer
from support.small_run import small_model

from kdistill.models.auto import AutoModelForSequenceClassification
from kdistill.models.config import BertConfig
from kdistill.report.finished import load_run
from kdistill.text.classes import AutoTokenizer
from kdistill.train.callbacks import TrainerCallback

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")
BEST = 4  # the step whose score is the best of all evaluations


class After(TrainerCallback):
    """Does something after a step."""

    def __init__(self, step: int, do: Any) -> None:
        self.step, self.do = step, do

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.do()


def scores() -> Any:
    """A compute_metrics whose second evaluation, that of step 4, is the best; it measures the teacher first."""
    values = iter([1.0, 0.1, 0.9, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    return lambda prediction: {"score": next(values)}


def run_of(out: Path, *, after: int = 0, do: Any = None, metrics: Any = None) -> Any:
    run = trainer(out, metric_for_best_model="score", greater_is_better=True)
    run.compute_metrics = metrics or scores()
    if after:
        run.add_callback(After(after, do))
    return run


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def losses(out: Path) -> dict[str, Any]:
    return json.loads((out / "all_results.json").read_text())


def test_undisturbed_the_best_weights_are_the_result(tmp_path: Path) -> None:
    run_of(tmp_path).train()
    best = tmp_path / f"checkpoint-{BEST}"
    assert (tmp_path / "model.safetensors").read_bytes() == (best / "model.safetensors").read_bytes()
    assert losses(tmp_path)["eval_score"] == 0.9


@pytest.mark.parametrize("damage", ["flipped bit", "gone"])
def test_lost_best_weights_leave_the_last_ones_with_a_warning(tmp_path: Path, damage: str) -> None:
    best = tmp_path / f"checkpoint-{BEST}"

    def destroy() -> None:
        flip_a_bit(best / "model.safetensors") if damage == "flipped bit" else shutil.rmtree(best)

    run = run_of(tmp_path, after=LAST_STEP - 1, do=destroy)
    why = "is not the file that was written" if damage == "flipped bit" else "manifest.json is missing"
    sentence = (
        rf"the weights of the last step, {LAST_STEP}, are kept, because the best ones, those of step {BEST}, .*{why}"
    )
    with pytest.warns(UserWarning, match=sentence):
        run.train()
    newest = tmp_path / f"checkpoint-{LAST_STEP}"
    assert (tmp_path / "model.safetensors").read_bytes() == (newest / "model.safetensors").read_bytes()
    assert losses(tmp_path)["eval_score"] == 0.8
    assert list(run.failed) == ["best_model"]
    assert run.state.best_model_checkpoint is None
    run_of(tmp_path).load_finished_run()


@pytest.mark.parametrize("damage", ["flipped bit", "gone"])
def test_best_weights_lost_before_a_resumption_are_said_and_replaced(tmp_path: Path, damage: str) -> None:
    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run_of(tmp_path, after=10, do=stop).train()
    best = tmp_path / f"checkpoint-{BEST}"
    flip_a_bit(best / "model.safetensors") if damage == "flipped bit" else shutil.rmtree(best)
    values = iter([1.0, 0.2, 0.7, 0.4, 0.3])  # of the teacher, and of steps 10, 12, 14, 15
    resumed = run_of(tmp_path, metrics=lambda prediction: {"score": next(values)})
    with pytest.warns(UserWarning, match=f"the best weights so far, those of step {BEST}, are lost"):
        resumed.train(resume_from_checkpoint=True)
    assert resumed.state.best_global_step == 12
    kept = tmp_path / "checkpoint-12" / "model.safetensors"
    assert (tmp_path / "model.safetensors").read_bytes() == kept.read_bytes()


def model_in_the_cache(cache: Path, repo_id: str) -> None:
    """Somebody's model of this name, as huggingface_hub leaves it in its cache."""
    repository = cache / f"models--{repo_id.replace('/', '--')}"
    small_model(77).save_pretrained(repository / "snapshots" / "abc")
    (repository / "snapshots" / "abc" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_never_finite_chooses_nothing_and_the_run_reports_it(tmp_path: Path, value: float) -> None:
    run = run_of(tmp_path, metrics=lambda prediction: {"score": value})
    with pytest.warns(UserWarning, match="the weights of the last step, 15, are kept: no evaluation .* finite 'score'"):
        run.train()
    newest = tmp_path / f"checkpoint-{LAST_STEP}"
    assert (tmp_path / "model.safetensors").read_bytes() == (newest / "model.safetensors").read_bytes()


def test_a_path_is_never_looked_up_in_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of that name in the hub's cache once became the result of a run whose best checkpoint was gone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    model_in_the_cache(tmp_path / "cache", f"out/checkpoint-{BEST}")
    out = Path("out")
    run = run_of(out, after=LAST_STEP - 1, do=lambda: shutil.rmtree(out / f"checkpoint-{BEST}"))
    with pytest.warns(UserWarning, match="the weights of the last step, 15, are kept"):
        run.train()
    newest = out / f"checkpoint-{LAST_STEP}"
    assert (out / "model.safetensors").read_bytes() == (newest / "model.safetensors").read_bytes()
    gone = Path(f"out/checkpoint-{BEST}")
    for cls in (AutoModelForSequenceClassification, AutoTokenizer, BertConfig):
        cls.from_pretrained(str(gone))  # as a text it is a hub id
        with pytest.raises(FileNotFoundError, match=f"there is no directory 'out/checkpoint-{BEST}'"):
            cls.from_pretrained(gone)
    with pytest.raises(FileNotFoundError, match=f"out/checkpoint-{BEST}"):
        load_run(str(gone))


def test_the_last_step_being_the_best_needs_no_file(tmp_path: Path, resumable_result: dict[str, Any]) -> None:
    """The model holds these weights already."""
    run = trainer(tmp_path, metric_for_best_model="score", greater_is_better=True)
    counter = iter(range(100))
    run.compute_metrics = lambda prediction: {"score": next(counter)}

    class Remove(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == LAST_STEP:
                shutil.copytree(tmp_path / f"checkpoint-{LAST_STEP}", tmp_path / "copy")
                flip_a_bit(tmp_path / f"checkpoint-{LAST_STEP}" / "model.safetensors")

    run.add_callback(Remove())
    run.train()
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "copy" / "model.safetensors").read_bytes()
    assert result(tmp_path)["optimizer"] == resumable_result["optimizer"]
