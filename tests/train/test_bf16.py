"""`bf16`: training multiplies in bfloat16, with the same bits for any threads and for a run that is killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.resumable_run import result, run_python, trainer
from support.small_run import run_fields, small_dataset, small_model, weights, write_model, write_rows

from kdistill import _core
from kdistill.data.sampler import RandomSampler
from kdistill.losses.labels import cross_entropy
from kdistill.models.classes import BertForSequenceClassification
from kdistill.system.threads import using_num_threads
from kdistill.train.arguments import TrainingArguments
from kdistill.train.callbacks import TrainerCallback
from kdistill.train.optim import AdamW, clip_grad_norm_
from kdistill.trainers import Trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:bfloat16 is computed portably"),
    pytest.mark.filterwarnings("ignore:the teacher's accuracy is 0.5000"),
]


def run_of(directory: Path, **changes: Any) -> Trainer:
    args = TrainingArguments(**run_fields(directory, changes))
    return Trainer(small_model(2), args, train_dataset=small_dataset(20), eval_dataset=small_dataset(20, seed=1))


class Kill(TrainerCallback):
    """Ends this process after a step, as the kernel does when memory runs out."""

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == 9:
            os.kill(os.getpid(), signal.SIGKILL)


def child(output_dir: str) -> None:
    """Train in this process until it is killed."""
    trainer(Path(output_dir), callbacks=[Kill()], bf16=True).train()


def test_equals_a_loop_written_out_by_hand(tmp_path: Path) -> None:
    run = run_of(tmp_path, bf16=True, num_train_epochs=1)
    run.train()
    results = {}
    for dtype in ("bfloat16", "float32"):
        model = small_model(2)
        model.training_dtype = dtype
        model.dropout_seed = run.args.seed
        optimizer, order = AdamW(model, lr=0.01), RandomSampler(20, run.args.seed).permutation(0)
        for step, rows in enumerate((order[:8], order[8:16], order[16:])):
            optimizer.lr = 0.01 * (3 - step) / 3
            batch, labels = run.train_dataset.batch(rows)
            _, dlogits = cross_entropy(model.forward(batch, train=True), labels)
            model.backward(dlogits)
            clip_grad_norm_(model, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        results[dtype] = weights(model)
    np.testing.assert_array_equal(weights(run.model), results["bfloat16"])
    assert not np.array_equal(results["bfloat16"], results["float32"])


def test_evaluations_and_the_saved_model_are_in_float32(tmp_path: Path) -> None:
    run = run_of(tmp_path, bf16=True)
    run.train()
    saved = BertForSequenceClassification.from_pretrained(tmp_path / "out")
    batch, labels = run.eval_dataset.batch(np.arange(20))
    logits = saved.forward(batch)
    np.testing.assert_array_equal(run.predict(run.eval_dataset).predictions, logits)
    assert run.results["eval_loss"] == pytest.approx(cross_entropy(logits, labels)[0], rel=1e-6)
    np.testing.assert_array_equal(run.model.forward(batch), logits)


def test_it_is_off_by_default_and_written_down(tmp_path: Path) -> None:
    for name, changes, dtype in (("plain", {}, "float32"), ("narrow", {"bf16": True}, "bfloat16")):
        run = run_of(tmp_path / name, **changes)
        run.train()
        directory = tmp_path / name / "out"
        assert json.loads((directory / "trainer_state.json").read_text())["args"]["bf16"] == bool(changes)
        assert f"This model was trained in {dtype} and computes in float32." in (directory / "README.md").read_text()
        assert run.create_model_card(measure_speed=False)["training_dtype"] == dtype


def test_the_bits_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    found = []
    for threads in (1, 2, 3):
        with using_num_threads(threads):
            run = run_of(tmp_path / str(threads), bf16=True)
            run.train()
        found.append(weights(run.model))
    np.testing.assert_array_equal(found[1:], [found[0]] * 2)


def test_a_run_that_is_killed_and_resumed_ends_with_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    trainer(tmp_path / "whole", bf16=True).train()
    process = run_python(f"import test_bf16; test_bf16.child({str(tmp_path / 'killed')!r})")
    assert process.returncode == -signal.SIGKILL, process.stderr
    trainer(tmp_path / "killed", bf16=True).train(resume_from_checkpoint=True)
    assert result(tmp_path / "killed") == result(tmp_path / "whole")
    trainer(tmp_path / "float32").train()
    assert result(tmp_path / "float32")["model"] != result(tmp_path / "whole")["model"]


def test_resuming_with_another_value_is_told_as_of_every_argument(tmp_path: Path) -> None:
    run_of(tmp_path, bf16=True, max_steps=2, save_strategy="steps", save_steps=1).train()
    run = run_of(tmp_path, max_steps=2, save_strategy="steps", save_steps=1)
    with pytest.warns(UserWarning, match="continues with changed arguments: bf16 was True and is now False"):
        run.train(resume_from_checkpoint=tmp_path / "out" / "checkpoint-1")


@pytest.mark.filterwarnings("default:bfloat16 is computed portably")
def test_a_cpu_without_bfloat16_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_core.COMPUTE, "bfloat16", None)
    with pytest.warns(UserWarning, match="^bfloat16 is computed portably"):
        run_of(tmp_path, bf16=True, max_steps=1).train()


@pytest.mark.parametrize("name", ["fp16", "bf16_full_eval"])
def test_other_narrow_types_are_still_ignored(tmp_path: Path, name: str) -> None:
    told = f"^{name} is ignored: products are float32, or bfloat16 with bf16, and the model is saved in float32"
    with pytest.warns(UserWarning, match=told):
        assert not TrainingArguments(str(tmp_path), **{name: True}).bf16


def test_the_command_trains_in_bfloat16(tmp_path: Path) -> None:
    from kdistill.cli.main import main

    write_model(tmp_path / "model")
    write_rows(tmp_path / "train.tsv", 40)
    words = ["finetune", "--model", tmp_path / "model", "--train", tmp_path / "train.tsv", "--max-steps", 2]
    assert main([*map(str, words), "--bf16", "--output-dir", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "trainer_state.json").read_text())["args"]["bf16"] is True


def test_evaluations_of_a_run_do_not_change_its_training(tmp_path: Path) -> None:
    """They come between steps, with an average of the weights in their place and updates that rows still miss."""
    found = []
    for strategy in ("no", "steps"):
        changes = {"eval_strategy": strategy, "load_best_model_at_end": False, "ema_decay": 0.5}
        run = run_of(tmp_path / strategy, bf16=True, **({"eval_steps": 1} if strategy == "steps" else {}), **changes)
        run.train()
        found.append(weights(run.model))
    np.testing.assert_array_equal(*found)
