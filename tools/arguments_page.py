"""The page docs/arguments.md, made from the declarations of the arguments: `python tools/arguments_page.py`."""

from __future__ import annotations

from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from kdistill.train.arguments import DistillationTrainingArguments
from kdistill.train.fields import GROUPS, argument_types
from kdistill.train.transformers_names import OTHER_ARGUMENTS, OtherArgument

PAGE = Path(__file__).resolve().parent.parent / "docs" / "arguments.md"
INTRODUCTION = """\
# Arguments

<!-- Made by tools/arguments_page.py from the declarations in kdistill/; edit those and run `make docs`. -->

Every argument of `transformers.TrainingArguments` (versions 4 and 5) is known: it exists here under the same name, sets
the equivalent argument, is ignored with a warning, or raises `ValueError` with the reason. An unknown name raises an
error that suggests the nearest one. Defaults are those of `transformers` unless the table gives both.

The same arguments are the options of the [commands](commands.md) (`--learning-rate`, or `--learning_rate`) and the keys
of a file given with `--config`. Values are checked when they are set, in the constructor and later.
"""
FOREWORDS = {
    "renamed": "## Older names\n\nEach sets the argument under its current name.",
    "without effect": "## Without effect\n\nAccepted without a warning: they request what is always done, or are read "
    "by scripts only.",
    "ignored": "## Ignored\n\nA warning gives the reason. The default of `transformers` gives no warning.",
    "refused": "## Not supported\n\nThey raise `ValueError` with the reason. The default of `transformers` does not.",
}


def page() -> str:
    """Return the whole page."""
    sections = [INTRODUCTION.rstrip()]
    sections += [_group(group) for group in GROUPS]
    sections += [f"{foreword}\n\n{_others(verdict)}" for verdict, foreword in FOREWORDS.items()]
    return "\n\n".join(sections) + "\n"


def _group(group: str) -> str:
    kinds = argument_types(DistillationTrainingArguments)
    rows = [
        (
            f"`{field.name}`",
            f"`{field.metadata['default']!r}`",
            f"{field.metadata['help']}<br>{_values(field, *kinds[field.name])}",
        )
        for field in fields(DistillationTrainingArguments)
        if field.metadata["group"] == group
    ]
    only = "Only in `DistillationTrainingArguments`.\n\n" if group == "distillation" else ""
    return f"## {group.capitalize()}\n\n{only}{_table(('argument', 'default', 'meaning and values'), rows)}"


def _values(field: Field[Any], kind: type, optional: bool) -> str:
    """Return the values that an argument may have, and how it differs from that of transformers."""
    if field.metadata["choices"] is not None:
        listed = ", ".join(f"`{choice}`" for choice in field.metadata["choices"])
        values = f"{'any of' if field.metadata['several'] else 'one of'} {listed}"
    else:
        limits = [f"{sign} {limit}" for sign, limit in field.metadata["limits"].items()]
        values = ", ".join([f"{kind.__name__}{' or None' if optional else ''}", *limits])
    ours, theirs, origin = (field.metadata[name] for name in ("default", "theirs", "origin"))
    if origin != "transformers":
        return f"{values}; {'transformers 4' if origin == 'transformers 4' else 'kdistill only'}"
    return values if theirs == ours else f"{values}; default in transformers: `{theirs!r}`"


def _others(verdict: str) -> str:
    if verdict == "renamed":
        renamed = [(f"`{row.name}`", f"`{row.becomes}`") for row in OTHER_ARGUMENTS.values() if row.verdict == verdict]
        return _table(("name", "sets"), renamed)
    by_reason: dict[str, list[OtherArgument]] = {}
    for row in OTHER_ARGUMENTS.values():
        if row.verdict == verdict:
            by_reason.setdefault(row.reason, []).append(row)
    return _table(
        ("name (default of transformers)", "reason"),
        [(", ".join(map(_name, rows)), reason) for reason, rows in by_reason.items()],
    )


def _name(row: OtherArgument) -> str:
    also = "".join(f", also `{value!r}`" for value in row.harmless)
    return f"`{row.name}` (`{row.default!r}`{also})"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page())
