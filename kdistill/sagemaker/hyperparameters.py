"""Hyperparameters, which are strings, as options of `kdistill distill` and `kdistill search`.

Version 2 of the SDK encodes every value as JSON in a string ('"abc"', '0.5', 'true'), version 3 all but strings; the
original script and tuners send text. All are understood.
"""

from __future__ import annotations

import ast
import json
from argparse import Action, BooleanOptionalAction
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..cli.command_line import switches_of
from ..cli.config_file import words_of_options
from ..cli.input_options import SEARCH_OPTIONS
from ..cli.options import build_parsers, options_of
from ..train.fields import did_you_mean_argument
from ..train.transformers_names import OTHER_ARGUMENTS

OF_THE_ORIGINAL = {
    "epochs": "num_train_epochs",
    "teacher_id": "teacher",
    "student_id": "student",
}
"""Names of the original's train.py -> options here; its other names are the same here, or those of `OF_THE_JOB`."""
OF_THE_JOB = {"dataset_id": str, "dataset_config": str, "run_hpo": bool, "output_dir": str}
"""Hyperparameters that the job reads, and no command -> what they are."""
MISSPELT = {
    "temparature": "the original's notebook misspelt temperature, so its script trained with 4 whatever was given; "
    "expected temperature",
}
# Options of the commands that the job sets itself -> what to do instead.
_SET_BY_THE_JOB = {
    "train": "the rows come by the channel train, or by dataset_id",
    "eval": "the rows come by the channel validation, or by dataset_id",
    "config": "give its options as hyperparameters",
    "resume": "a job goes on with what its checkpoints hold",
    "overwrite_output_dir": "a job goes on with what its checkpoints hold; give it other ones to begin anew",
    "json": "the metrics are read from the log",
    "storage": "the study lies in the checkpoints",
    "study_name": "a job has one study, in its checkpoints",
}
# Of SageMaker's toolkit and tuner, and of the SDK.
_NOT_OURS = ("sagemaker_", "_tuning_objective_metric", "default_user_module_name", "mp_parameters")
SECRET = "hub_token"
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")
_NUMBERS: dict[Any, str] = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Hyperparameters:
    """The hyperparameters of a job.

    Attributes:
        options: options of the commands by name, as they were given.
        run_hpo: whether the job searches hyperparameters first.
        dataset_id: a data set of the hub or a directory, in place of channels.
        dataset_config: its configuration.
        output_dir: where the model is to lie, which is not for the job to choose.
        hub_token: the hub's token, if it is one of them.
    """

    options: Mapping[str, Any]
    run_hpo: bool = False
    dataset_id: str | None = None
    dataset_config: str | None = None
    output_dir: str | None = None
    hub_token: str | None = None

    def words(self, command: str, more: Mapping[str, Any], *, but: Iterable[str] = ()) -> list[str]:
        """Return those that a command has as words of its command line.

        Args:
            command: "distill" or "search".
            more: options that the job adds, by name; None for those that it does not.
            but: names of options to leave out.
        """
        actions = _options_of(command)
        given = {
            name: value
            for name, value in self.options.items()
            if f"--{name.replace('_', '-')}" in actions or name in OTHER_ARGUMENTS
        }
        given |= {name: value for name, value in more.items() if value is not None}
        left = {name: value for name, value in given.items() if name not in but}
        several = [name for name, action in actions.items() if action.nargs == "+"]
        return [command, *words_of_options("the hyperparameters", left, switches_of(actions), several)]

    def to_dict(self) -> dict[str, Any]:
        """Return all but the token, ready for JSON."""
        return {
            **self.options,
            "run_hpo": self.run_hpo,
            "dataset_id": self.dataset_id,
            "dataset_config": self.dataset_config,
        }


def read_words(words: Sequence[str]) -> dict[str, Any]:
    """Return the words of a command line, `--name value` or `--name=value`, as hyperparameters; a name alone is True.

    Raises:
        ValueError: a word is neither.
    """
    given: dict[str, Any] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("--") or word == "--":
            raise ValueError(
                f"the job is given the word {word!r}; expected --name value (python -m kdistill.sagemaker --help)"
            )
        name, sign, value = word[2:].partition("=")
        if name in given:
            raise ValueError(f"--{name} is given twice; expected it once")
        if sign:
            given[name] = value
        else:
            given[name] = left.pop(0) if left and not left[0].startswith("--") else True
    return given


def merged(given: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters with those of the command line, which the toolkit makes of the same ones.

    Raises:
        ValueError: the two differ.
    """
    for name, word in words.items():
        if name in given and not _are_the_same(given[name], word):
            values = ("a token", "another") if name.replace("-", "_") == SECRET else (repr(word), repr(given[name]))
            raise ValueError(
                f"{name} is {values[0]} on the command line and {values[1]} in the hyperparameters; expected the same"
            )
    return {**words, **given}


def token_in(given: Mapping[str, Any]) -> str | None:
    """Return the hub's token among hyperparameters, if there is one."""
    tokens = [_as_text(value) for name, value in given.items() if name.replace("-", "_") == SECRET]
    return next((token for token in tokens if isinstance(token, str) and token), None)


def understood(given: Mapping[str, Any]) -> Hyperparameters:
    """Return the hyperparameters of a job, each checked as far as it can be alone.

    Raises:
        ValueError: one is unknown, misspelt, set by the job, given twice, or has a value that it cannot have.
    """
    actions = _options_of("distill") | _options_of("search")
    options: dict[str, Any] = {}
    names: dict[str, str] = {}  # as the option is called -> as it was given
    for name, raw in given.items():
        if name.startswith(_NOT_OURS):
            continue
        option = _option_of(name, actions)
        value = _value(name, option, raw, actions)
        if value is None:
            continue
        if option in options and options[option] != value:
            raise ValueError(
                f"{names[option]} and {name} are the same and have different values; expected one of the two"
            )
        options[option], names[option] = value, name
    job = {name: options.pop(name, None) for name in (*OF_THE_JOB, SECRET)}
    _check_together(options, job, given_names=names)
    return Hyperparameters(
        options,
        run_hpo=bool(job["run_hpo"]),
        dataset_id=job["dataset_id"],
        dataset_config=job["dataset_config"],
        output_dir=job["output_dir"],
        hub_token=job[SECRET],
    )


def _option_of(name: str, actions: Mapping[str, Action]) -> str:
    """Return the name of the option that a hyperparameter is."""
    plain = name.replace("-", "_")
    if plain in MISSPELT:
        raise ValueError(f"{name} is not a hyperparameter: {MISSPELT[plain]}")
    if plain in _SET_BY_THE_JOB:
        raise ValueError(f"{name} is set by the job: {_SET_BY_THE_JOB[plain]}")
    option = OF_THE_ORIGINAL.get(plain, plain)
    other = OTHER_ARGUMENTS.get(option)
    if other is not None and other.becomes is not None:
        option = other.becomes
    known = [action[2:].replace("-", "_") for action in actions if not action.startswith("--no-")]
    if option not in known and option not in OF_THE_JOB and option not in OTHER_ARGUMENTS:
        hidden = (*_SET_BY_THE_JOB, "help")
        offered = [*(each for each in known if each not in hidden), *OF_THE_JOB, *OF_THE_ORIGINAL]
        raise ValueError(f"there is no hyperparameter {name!r}{did_you_mean_argument(plain, offered)}")
    return option


def _value(name: str, option: str, raw: Any, actions: Mapping[str, Action]) -> Any:
    """Return the value of a hyperparameter as its option takes it: True or False, or text; None where there is none."""
    if isinstance(raw, str) and raw.strip() in ("", "null", "None"):
        return None
    action = actions.get(f"--{option.replace('_', '-')}")
    if option in OTHER_ARGUMENTS and action is None:
        return _meaning(raw)
    if isinstance(action, BooleanOptionalAction) or OF_THE_JOB.get(option) is bool:
        return _as_bool(name, raw)
    value = _as_text(raw)
    if value is None or option == SECRET:
        return value
    if isinstance(value, bool) or (isinstance(value, list | dict) and getattr(action, "type", None) in _NUMBERS):
        raise ValueError(f"{name} is {json.dumps(value)}; expected {_expected(action)}")
    if action is not None and isinstance(value, str):
        _check(name, value, action)
    return value


def _as_bool(name: str, raw: Any) -> bool | None:
    """Return what a text means that is true or false."""
    value = _meaning(raw)
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in (*_TRUE, *_FALSE):
        raise ValueError(f"{name} is {value!r}; expected true or false")
    return text in _TRUE


def _as_text(raw: Any) -> Any:
    """Return the text of a value, as it was written where it was no text in JSON; lists and mappings stay."""
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        return repr(raw)
    if not isinstance(raw, str):
        return raw
    try:
        decoded = json.loads(raw)
    except ValueError:
        decoded = raw
    return decoded if isinstance(decoded, str | list | dict) else raw


def _are_the_same(value: Any, word: Any) -> bool:
    """Return whether a word of the command line is what the toolkit, or the SDK, makes of a value."""
    value, said = _meaning(value), _meaning(word)
    if isinstance(value, dict) and isinstance(said, str):  # the toolkit's words of a mapping
        return ",".join(f"{name}={of}" for name, of in sorted(value.items())) == said
    return bool(value == said)


def _meaning(raw: Any) -> Any:
    """Return the value that a text stands for, in JSON or as Python prints it."""
    if not isinstance(raw, str):
        return raw
    try:
        return _meaning_of_json(raw)
    except ValueError:
        pass
    if raw in ("True", "False", "None") or raw.startswith(("[", "{", "(")):
        try:
            return ast.literal_eval(raw)
        except (ValueError, SyntaxError):
            return raw
    return raw or None


def _meaning_of_json(raw: str) -> Any:
    value = json.loads(raw)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)  # text in JSON in JSON, as version 2 of the SDK sends what is text already
    except ValueError:
        return value


def _check(name: str, text: str, action: Action) -> None:
    """Raise `ValueError` for a text that the option does not take."""
    kind: Any = action.type
    if kind in _NUMBERS:
        try:
            kind(text)
        except ValueError:
            raise ValueError(f"{name} is {text!r}; expected {_NUMBERS[kind]}") from None
    if action.choices is not None and text not in action.choices:
        raise ValueError(f"{name} is {text!r}; expected one of {', '.join(action.choices)}")


def _expected(action: Action | None) -> str:
    kind: Any = getattr(action, "type", None)
    return _NUMBERS.get(kind, "text")


def _check_together(options: Mapping[str, Any], job: Mapping[str, Any], given_names: Mapping[str, str]) -> None:
    """Raise `ValueError` for hyperparameters that do not go together."""
    if job["run_hpo"] is None:
        of_search = [given_names[name] for name in options if name in SEARCH_OPTIONS]
        if of_search:
            raise ValueError(f"{of_search[0]} is given, which is of a search; expected run_hpo true (or false) with it")
    if job["dataset_config"] is not None and job["dataset_id"] is None:
        raise ValueError("dataset_config is given without dataset_id; expected both")
    if options.get("push_to_hub") and options.get("hub_model_id") is None:
        raise ValueError("push_to_hub is true; expected hub_model_id, the repository on the hub, such as user/name")


def _options_of(command: str) -> dict[str, Action]:
    _, of_command = build_parsers()
    return options_of(of_command[command])
