"""How a command line is read: files of options, names of transformers, completion, the command that repeats a run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT
from support.small_run import write_model, write_rows

from kdistill.cli import commands
from kdistill.cli import main as cli
from kdistill.cli.command_line import parse
from kdistill.cli.command_list import COMMANDS
from kdistill.cli.completion import script
from kdistill.cli.input_options import SHELLS
from kdistill.cli.inputs import read_arguments
from kdistill.train.arguments import DistillationTrainingArguments

DISTILL = ["distill", "--teacher", "t", "--student", "s", "--train", "x.tsv"]


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = cli.main([str(word) for word in words])
    return status, *capsys.readouterr()


def error_of(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    status, output, errors = run(capsys, *words)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    return errors.removeprefix("kdistill: error: ")


@pytest.mark.parametrize(
    ("misspelt", "nearest"),
    [
        ("trian", "finetune' or 'distill"),
        ("train", "finetune' or 'distill"),
        ("fine-tune", "finetune"),
        ("distil", "distill"),
        ("evalute", "evaluate"),
        ("eval", "evaluate"),
        ("preditc", "predict"),
        ("cahce", "cache"),
    ],
)
def test_misspelt_command(capsys: pytest.CaptureFixture[str], misspelt: str, nearest: str) -> None:
    assert f"there is no command '{misspelt}'; did you mean '{nearest}'?" in error_of(capsys, misspelt)


def test_command_that_is_like_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no command 'qqq'; expected one of finetune, distill, doctor, search" in error_of(capsys, "qqq")
    assert "invalid choice: 'cler'" in error_of(capsys, "cache", "cler")


@pytest.mark.parametrize("command", ["finetune", "distill", "evaluate", "predict", "bench", "cache", "completion"])
def test_a_command_alone_says_what_it_needs(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert f"the following arguments are required: {'--' if command[0] not in 'c' else ''}" in error_of(capsys, command)


def test_names_of_transformers_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--num_train_epochs", "2", "--evaluation_strategy=steps", "--per-gpu-train-batch-size", "4"]
    args = read_arguments(DistillationTrainingArguments, parse([*DISTILL, *words]))
    assert (args.num_train_epochs, args.eval_strategy, args.per_device_train_batch_size) == (2.0, "steps", 4)
    assert "no option --fp16: products are float32, or bfloat16 with bf16" in error_of(capsys, *DISTILL, "--fp16")
    assert "no option --optim: the optimiser is AdamW" in error_of(capsys, *DISTILL, "--optim", "adafactor")


def test_several_teachers_in_a_file_and_others_beside_it(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('teacher = ["a", "b"]\nteacher_weights = [0.7, 0.3]\nstudent = "self"\ntrain = "x.tsv"\n')
    options = parse(["distill", "--config", str(config), "--output-dir", "out"])
    assert (options.teacher, options.teacher_weights) == (["a", "b"], [0.7, 0.3])
    assert parse(options.command_line.split()[1:]).teacher == ["a", "b"]
    options = parse(["distill", "--config", str(config), "--teacher", "c", "--teacher", "d", "--output-dir", "out"])
    assert options.teacher == ["c", "d"]


def test_options_from_a_file(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        'teacher = "t"\nstudent = "L2-H8-A2"\ntrain = "my rows.tsv"\n# a comment\n'
        "learning_rate = 6e-5\nnum-train-epochs = 7\nmax_steps = -1\nwarmup_steps = 0.1\nseed = 33\nalpha = 1\n"
        'push_to_hub = true\nteacher_cache = false\nresume = true\nreport_to = ["tensorboard"]\n'
        'evaluation_strategy = "steps"\nno_cuda = true\n'
    )
    options = parse(["distill", "--config", str(config), "--seed", "7", "--no-push-to-hub"])
    assert (options.teacher, options.student, options.train) == (["t"], "L2-H8-A2", "my rows.tsv")
    assert options.resume is True
    assert read_arguments(DistillationTrainingArguments, options) == DistillationTrainingArguments(
        learning_rate=6e-5,
        num_train_epochs=7,
        warmup_steps=0.1,
        seed=7,  # the command line wins
        alpha=1.0,
        push_to_hub=False,
        teacher_cache=False,
        report_to="tensorboard",
        eval_strategy="steps",
        recipe="auto",  # the default of commands
    )
    assert parse(["distill", f"--config={config}", "--no-resume"]).resume is False


def test_settings_of_a_schedule_are_a_table_in_a_file_and_json_as_an_option(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('lr_scheduler_type = "polynomial"\n[lr_scheduler_kwargs]\npower = 2.0\n')
    from_file = parse([*DISTILL, "--config", str(tmp_path / "run.toml")])
    words = ["--lr-scheduler-type", "polynomial", "--lr-scheduler-kwargs", '{"power": 2.0}']
    for options in (from_file, parse([*DISTILL, *words]), parse(shlex.split(from_file.command_line)[1:])):
        args = read_arguments(DistillationTrainingArguments, options)
        assert args.lr_scheduler_kwargs == {"power": 2.0}


def test_a_number_of_steps_decides_the_strategy_on_the_command_line_and_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("logging_steps = 5\n")
    for words in (["--logging-steps", "5"], ["--config", str(tmp_path / "run.toml")]):
        args = read_arguments(DistillationTrainingArguments, parse([*DISTILL, *words]))
        assert (args.logging_strategy, args.logging_steps, args.eval_strategy) == ("steps", 5, "epoch")
    with pytest.warns(UserWarning, match="logging_steps has no effect here: logging_strategy is given"):
        read_arguments(
            DistillationTrainingArguments, parse([*DISTILL, "--logging-steps", "5", "--logging-strategy", "no"])
        )


def test_every_argument_can_stand_in_a_file(tmp_path: Path) -> None:
    defaults = DistillationTrainingArguments().to_dict()
    lines = [f"{name} = {json.dumps(value)}" for name, value in defaults.items() if value is not None]
    (tmp_path / "run.toml").write_text("\n".join(lines))
    options = parse([*DISTILL, "--config", str(tmp_path / "run.toml")])
    assert read_arguments(DistillationTrainingArguments, options) == DistillationTrainingArguments()
    assert len(lines) > 30


def test_texts_in_a_file_may_begin_with_a_dash(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('text = ["good", "-bad"]\n')
    assert parse(["predict", "--model", "m", "--config", str(tmp_path / "run.toml")]).text == ["good", "-bad"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("alhpa = 0.5", "there is no option 'alhpa'; did you mean 'alpha'?"),
        ("alpha = ", "is not valid TOML: Invalid value (at end of document)"),
        ("[training]\nseed = 3", "there is no option 'training'"),
        ("[seed]\nx = 3", "seed is a table; expected a string, a number"),
        ("seed = 2020-01-01", "seed is datetime.date(2020, 1, 1); expected a string"),
        ('seed = "x"', "argument --seed: invalid int value: 'x'"),
        ("seed = true", "run.toml: seed is true; expected a value"),
        ("push-to-hub = 3", "run.toml: push-to-hub is 3; expected true or false"),
        ('resume = "yes"', "run.toml: resume is 'yes'; expected true or false"),
        ("alpha = 1.5", "alpha is 1.5; expected"),
        ('config = "other.toml"', "there is no option 'config'"),
        ('optim = "adafactor"', "optim is 'adafactor', which kdistill does not support: the optimiser is AdamW"),
    ],
)
def test_file_with_a_mistake(capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "run.toml").write_text(content)
    assert message in error_of(capsys, *DISTILL, "--config", tmp_path / "run.toml")


def test_file_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no.toml'; there is no such file" in error_of(capsys, *DISTILL, "--config", tmp_path / "no.toml")
    assert "argument --config: expected one argument" in error_of(capsys, *DISTILL, "--config")
    (tmp_path / "latin.toml").write_bytes(b'train = "\xe4"')
    assert "is not valid TOML" in error_of(capsys, *DISTILL, "--config", tmp_path / "latin.toml")


def test_what_is_ignored_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("fp16 = true\nbf16 = false\ntrain = 'no-rows.tsv'\n")
    model = write_model(tmp_path / "model")
    words = ["finetune", "--model", model, "--config", tmp_path / "run.toml", "--output-dir", tmp_path / "out"]
    status, _, errors = run(capsys, *words)
    assert status == 2
    first, second = errors.splitlines()
    products = "products are float32, or bfloat16 with bf16, and the model is saved in float32"
    assert first == f"kdistill: warning: fp16 is ignored: {products}"
    assert "no-rows.tsv" in second


@pytest.mark.parametrize("with_file", [False, True])
def test_the_command_that_a_run_leaves_repeats_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_file: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "a model")
    write_rows(tmp_path / "rows.tsv", 24)
    fields: dict[str, Any] = {
        "model": "a model",
        "train": "rows.tsv",
        "eval": "rows.tsv",
        "output_dir": "first",
        "num_train_epochs": 2.0,
        "per_device_train_batch_size": 8,
        "seed": 5,
        "dataloader_drop_last": True,
        "hub_token": "hf_secret",
    }
    if with_file:
        Path("run.toml").write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items()))
        words = ["--config", "run.toml"]
    else:
        pairs = [[f"--{name.replace('_', '-')}", str(value)] for name, value in fields.items()]
        words = [word for pair in pairs for word in (pair if pair[1] != "True" else pair[:1])]
    assert run(capsys, "finetune", *words, "--resume", "--json")[0] == 0

    comment, line = Path("first", "command.txt").read_text().splitlines()
    assert comment.startswith("# kdistill ")
    assert comment.endswith(f", in {tmp_path}")
    assert "hf_secret" not in line
    program, *again = shlex.split(line)
    assert program == "kdistill"
    assert not {"--resume", "--json", "--config"} & set(again)
    again[again.index("first")] = "second"
    assert run(capsys, *again, "--disable-tqdm")[0] == 0
    for name in ("model.safetensors", "config.json"):
        assert Path("first", name).read_bytes() == Path("second", name).read_bytes()
    arguments = [json.loads(Path(name, "training_args.json").read_text()) for name in ("first", "second")]
    assert arguments[0] == arguments[1] | {"output_dir": "first"}


def test_cache_is_shown_and_emptied(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))
    empty = {"teacher_cache": str(tmp_path / "cache"), "teacher_cache_files": 0}
    empty |= {"teacher_cache_rows": 0, "teacher_cache_bytes": 0, "hidden_cache_bytes": 0}
    assert json.loads(run(capsys, "cache", "info", "--json")[1]) == empty
    teacher, rows = write_model(tmp_path / "teacher"), write_rows(tmp_path / "rows.tsv", 24)
    words = ["distill", "--teacher", teacher, "--student", "L1-H8-A2", "--train", rows]
    assert run(capsys, *words, "--output-dir", tmp_path / "out", "--json", "--max-steps", "1")[0] == 0
    figures = json.loads(run(capsys, "cache", "info", "--json")[1])
    size = sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())
    assert (figures["teacher_cache_files"], figures["teacher_cache_bytes"]) == (1, size)
    assert figures["teacher_cache_rows"] > 0
    status, output, _ = run(capsys, "cache", "clear")
    assert status == 0
    assert f"bytes_freed    {size}" in output
    assert json.loads(run(capsys, "cache", "info", "--json")[1]) == empty
    assert json.loads(run(capsys, "info", "--json")[1]).items() >= empty.items()


def completed(line: str) -> list[str]:
    """Return the words that bash offers at the end of a line."""
    words = line.split(" ")
    code = f"{script('bash')}\nCOMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _kdistill\n"
    code += 'printf "%s\\n" "${COMPREPLY[@]}"'
    process = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert process.stderr == ""
    return process.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_completion_in_bash() -> None:
    assert completed("kdistill ") == [command.name for command in COMMANDS]
    assert completed("kdistill ev") == ["evaluate"]
    assert completed("kdistill distill --temp") == ["--temperature", "--temperature-schedule", "--temperature-end"]
    assert completed("kdistill finetune --temp") == []
    assert completed("kdistill finetune --lr-scheduler-type co") == [
        *("cosine", "cosine_with_restarts", "constant", "constant_with_warmup"),
        *("cosine_with_min_lr", "cosine_warmup_with_min_lr"),
    ]
    assert completed("kdistill cache ") == ["info", "clear"]
    assert completed("kdistill completion f") == ["fish"]
    assert completed("kdistill distill --train tr") == []  # names of files, which bash completes itself
    assert "--config" in completed("kdistill predict --")


@pytest.mark.parametrize(("shell", "check"), [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")])
def test_script_is_one_of_its_shell(capsys: pytest.CaptureFixture[str], shell: str, check: str) -> None:
    status, output, errors = run(capsys, "completion", shell)
    assert (status, output, errors) == (0, script(shell), "")
    assert json.loads(run(capsys, "completion", shell, "--json")[1]) == {"shell": shell, "script": output}
    for command in COMMANDS:
        assert command.name in output
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    subprocess.run([shell, check], input=output, text=True, check=True)


def test_every_shell_has_its_script() -> None:
    assert len({script(shell) for shell in SHELLS}) == len(SHELLS)


def exit_status(code: str) -> int:
    """The exit status of a process that runs the command line `info`, with `code` in the place of what it does."""
    program = (
        f"import os, signal, sys\nfrom kdistill.cli import commands, main as cli\ndef info(options):\n    {code}\n"
    )
    program += "commands.info = info\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "sys.exit(cli.main(['info']))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command, quiet = [sys.executable, "-c", program], subprocess.DEVNULL
    return subprocess.run(command, env=environment, stdout=quiet, stderr=quiet, check=False).returncode


EXITS = {
    0: "return {'version': 1}",
    1: "raise FloatingPointError('x')",
    2: "raise ValueError('x')",
    130: "os.kill(os.getpid(), signal.SIGINT)",
    141: "raise BrokenPipeError",
    143: "os.kill(os.getpid(), signal.SIGTERM)",
}


@pytest.mark.parametrize("status", EXITS)
def test_exit_status(status: int) -> None:
    assert exit_status(EXITS[status]) == status


def test_page_of_the_commands_tells_all() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    for status in EXITS:
        assert f"\n| {status} | " in page
    for command in COMMANDS:
        assert f"\n| `{command.name}` | " in page
        assert hasattr(commands, command.name)
    assert f"{signal.SIGTERM + 128} | " in page
