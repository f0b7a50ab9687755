"""Write the model card README.md: a report as Markdown, under the metadata that the Hugging Face hub reads.

More than 500 lines, since the sections of a card are read one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..data.overlap import MIN_PHRASE_TOKENS
from ..distill.given import Given
from ..distill.sources import Teachers
from ..distill.teachers import Teacher
from ..metrics.entities import have_entities
from ..metrics.mcnemar import FEW_DISCORDANT_PAIRS, McNemar
from ..models.head_names import MASKED, SPAN, TOKEN
from ..models.layer_shapes import in_words as shapes_in_words
from ..models.trained_with import EVALUATION_ROWS, TRAINING_ROWS
from ..system.cpu import cpu_name
from ..system.files import json_text, write_text
from ..system.progress import format_duration
from ..system.threads import show_config
from ..tasks.base import Task
from ..train.arguments import greater_is_better
from ..train.directory import CARD_FILE, CLASSES_FILE, CONFUSIONS_FILE, may_replace
from ..train.evaluation_sets import metric_prefix
from ..train.without_effect import is_used_by
from .assessment import CALIBRATION_BINS, Spread
from .constant import constant_answer
from .measure import make_report
from .metadata import CardMetadata, header
from .per_class import tsv_of, worst
from .pictures import draw_report
from .report import Comparison, Measured, Questions, Report, Subject, spreads

_INTERVALS = {
    "accuracy": "Wilson's (1927) for the accuracy",
    "pearson": "Fisher's (1921) for Pearson's correlation",
    "spearmanr": "Bonett and Wright's (2000) for Spearman's",
}
_MOST_CLASSES = 10
_LISTED_GROUPS = ("training", "optimiser", "distillation", "evaluation")


def write_model_card(directory: Path, subject: Subject, questions: Questions, metadata: CardMetadata) -> Report:
    """Measure the subject, write its model card README.md into `directory` and return the report.

    With `args.plots` the pictures are written too, and the card shows them.

    Where there are classes, per_class.tsv and confusions.tsv hold all of those that the card shows the worst of.

    Raises what `measure.make_report` raises, and warns as it does; `FileExistsError` for a README.md that is no card.
    """
    path = directory / CARD_FILE
    if not may_replace(path):
        raise FileExistsError(f"{path} exists, and kdistill did not write it; move it elsewhere")
    report = make_report(subject, questions)
    pictures = draw_report(directory, report) if subject.args.plots else []
    for name, rows in ((CLASSES_FILE, report.class_rows), (CONFUSIONS_FILE, report.confused_rows)):
        if rows:
            write_text(directory / name, tsv_of(rows))
    write_text(path, model_card(report, metadata, pictures))  # last: without it, a resumed run writes them all
    return report


def model_card(report: Report, metadata: CardMetadata, pictures: Sequence[str] = ()) -> str:
    """Write the card as Markdown with the hub's YAML header (https://huggingface.co/docs/hub/model-cards).

    `pictures` are the paths of those to show, relative to the card.
    """
    sections = [
        header(report, metadata),
        _introduction(report),
        *_results(report),
        *_holdout(report),
        *_pictures(pictures),
        _data(report),
        _training(report),
        _environment(report),
        _usage(report),
    ]
    return "\n\n".join(sections) + "\n"


# What it is


def _introduction(report: Report) -> str:
    subject, config = report.subject, report.subject.model.config
    how = subject.task.learns_from
    if subject.teachers is not None:
        how = f"distilled from {_teachers(subject.teachers)}"
    start = f", starting from {_code(subject.started_from)}" if subject.started_from else ""
    use, layers = subject.task.description(list(config.id2label.values())), config.num_hidden_layers
    return (
        f"# {_line(subject.name)}\n\n"
        f"{config.kind} with {layers} layer{'s' * (layers > 1)}, hidden size {config.hidden_size}, "
        f"{shapes_in_words(config.layer_shapes())[0]} heads and {subject.model.num_parameters():,} parameters, "
        f"{how}{start} with kdistill. {use}"
    )


# How good it is


def _results(report: Report) -> Iterator[str]:
    data, measured = report.eval, report.measured
    if data is None or measured is None:
        text = "The model was not evaluated: nothing is known of how good it is."
        yield f"## Results\n\n{text}{_threshold_of_training_rows(report)}"
        if report.speed is not None:
            yield _models(report)
    else:
        yield f"## Results\n\nOn the {measured.n:,} {report.subject.task.rows_are} of {_code(data.name)}:"
        yield _models(report)
        yield _reading(measured, report.subject.task)
    if report.speed is not None:
        speed = report.speed
        yield (
            f"Speed is that of {speed.rows} {'' if speed.rows_are == 'rows' else f'{speed.rows_are} '}of these rows in "
            f"batches of {speed.batch_size}, on "
            f"{speed.threads} thread{'s' * (speed.threads > 1)} of this machine ({speed.cpu}, {speed.isa_level})."
        )
    yield _types(report)
    if measured is not None:
        yield _choice(report)
        for comparison in report.without_teacher[:1]:
            yield _without_teacher(comparison, report.subject.task)
        if report.seeds or len(report.without_teacher) > 1:
            yield _seeds(report)
        yield from _classes(report)
        if report.subject.state.log_history:
            yield f"### Course of the training\n\n{_history(report)}"


def _teachers(teachers: Teachers) -> str:
    """Return the names of the teachers with their architectures, and what each counts."""
    each = []
    for source, weight in zip(teachers.sources, teachers.weights.tolist(), strict=True):
        facts = [source.model.config.kind] if isinstance(source, Teacher) else []
        facts += [f"weight {weight:.3g}"] if len(teachers) > 1 else []
        each.append(_code(source.name) + (f" ({', '.join(facts)})" if facts else ""))
    return f"the teacher {each[0]}" if len(each) == 1 else f"the teachers {', '.join(each[:-1])} and {each[-1]}"


def _models(report: Report) -> str:
    """Write a row for each model, a column for each thing measured of any of them."""
    subject, speed = report.subject, report.speed
    rows: list[dict[str, str]] = []
    if subject.teachers is not None:
        rows += _rows_of_teachers(report, subject.teachers)
    rows.append(_sizes("this model", subject.model.num_parameters(), subject.file_bytes, speed and speed.model))
    rows[-1] |= _columns(report.measured)
    rows += [
        {"": f"the same without a teacher, {_code(other.name)}", **_columns(other.measured)}
        for other in report.without_teacher[:1]
    ]
    constant = {} if report.measured is None else constant_answer(subject, report.measured.scores)
    if constant:
        what = "the most frequent labels" if subject.task.names_labels else "the mean"
        what = "the most frequent label" if subject.task.one_label else what
        answer = f"always {what}, {_code(constant.pop('answer'))}"
        rows.append({"": answer} | {name: f"{value:.4f}" for name, value in constant.items()})
    return _table_of(rows)


def _rows_of_teachers(report: Report, teachers: Teachers) -> Iterator[dict[str, str]]:
    """Yield a row for each teacher, and one for several together."""
    for source, measured in zip(teachers.sources, report.each_teacher, strict=False):  # of one teacher there is none
        size = source.model.num_parameters() if isinstance(source, Teacher) else None
        yield _row_of_teacher(f"teacher {_code(source.name)}", size, None, measured)
    name = f"teacher {_code(teachers.name)}" if len(teachers) == 1 else "the teachers together"
    yield _row_of_teacher(name, teachers.num_parameters, report.speed and report.speed.teacher, report.teacher)


def _row_of_teacher(name: str, size: int | None, speed: float | None, measured: Measured | None) -> dict[str, str]:
    return ({"": name} if size is None else _sizes(name, size, 4 * size, speed)) | _columns(measured)


def _sizes(name: str, num_parameters: int, file_bytes: int | None, speed: float | None) -> dict[str, str]:
    row = {"": name, "parameters": f"{num_parameters:,}"}
    row |= {} if file_bytes is None else {"weights, MB": f"{file_bytes / 1e6:.1f}"}
    return row | ({} if speed is None else {"sentences/s": f"{speed:,.0f}"})


def _columns(measured: Measured | None) -> dict[str, str]:
    if measured is None:
        return {}
    row = {}
    for name, value in measured.scores.items():
        row[name] = f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        if name in measured.intervals:
            low, high = measured.intervals[name]
            row[f"95 % interval of {name}"] = f"{low:.4f} to {high:.4f}"
    row["loss"] = f"{measured.loss:.4f}"
    row |= {} if measured.ece is None else {"ECE": f"{measured.ece:.4f}"}
    return row | ({} if measured.agreement is None else {"agrees with teacher": f"{measured.agreement:.4f}"})


def _labelled(task: Task) -> str:
    """Return what has a label each: rows, or words."""
    return "words" if task.labels_per_token else "rows"


def _reading(measured: Measured, task: Task) -> str:
    """Explain the columns."""
    parts = [task.loss_is]
    sources = " and ".join(_INTERVALS[name] for name in measured.intervals)
    if sources:
        parts.insert(0, f"Intervals of 95 % are {sources}, on {measured.n:,} rows.")
    if task.name == SPAN:
        parts.append("exact_match and f1 are those of SQuAD's official evaluation, in percent.")
    if task.labels_per_token:
        entities = "; f1, precision and recall count entities, as seqeval does" if "f1" in measured.scores else ""
        parts.append(f"Accuracy is that of the words' tags{entities}.")
    if measured.ece is not None:
        parts.append(
            f"ECE, the expected calibration error, is the mean distance of accuracy and confidence in "
            f"{CALIBRATION_BINS} bins of equal width (Guo et al., 2017, arXiv:1706.04599)."
        )
    if measured.agreement is not None:
        parts.append(f"Agreement is the share of {_labelled(task)} that get the teacher's label.")
    parts.append("Weights are counted as float32.")
    return " ".join(parts)


def _types(report: Report) -> str:
    """State in which types the models multiplied."""
    subject = report.subject
    types = subject.types()
    text = f"This model was trained in {types['training_dtype']} and computes in {types['dtype']}"
    teachers = [] if subject.teachers is None else subject.teachers.models
    for teacher in teachers:
        if teacher.choice is not None:
            text += f"; {'the teacher' if len(teachers) == 1 else _code(teacher.name)} {teacher.choice.sentence()}"
    return f"{text}.{_given(subject.teachers)}"


def _given(teachers: Teachers | None) -> str:
    """State how the answers that came with the rows were found for them; "" without any."""
    text = ""
    for source in () if teachers is None else teachers.sources:
        if isinstance(source, Given):
            sha256 = source.figures().get("sha256")
            file = "" if sha256 is None else f" (sha256 {sha256})"
            text += f" The teacher {_code(source.name)}{file} was asked elsewhere: {source.sentence()}."
    return text


def _choice(report: Report) -> str:
    """List what the evaluation rows chose, which decides how far the figures on them can be trusted."""
    state, args = report.subject.state, report.subject.args
    chosen = []
    if args.load_best_model_at_end and state.best_global_step:
        loss = f"{metric_prefix('eval', report.subject.main_eval_set)}_loss"
        evaluations = sum(loss in entry for entry in state.log_history)
        chosen.append(
            f"the weights are those of step {state.best_global_step}, the best {args.metric_for_best_model} of "
            f"{evaluations} evaluation{'s' * (evaluations != 1)}"
        )
    if report.subject.model.config.trained_with.threshold_rows == EVALUATION_ROWS:
        chosen.append(
            f"the threshold, {report.subject.task.threshold_is} on them, which flatters the figures slightly"
            + (", and the teacher's is chosen likewise" if _teachers_threshold_is_chosen(report) else "")
        )
    if report.search_trials:
        trials = f"{report.search_trials} trial{'s' * (report.search_trials > 1)}"
        chosen.append(f"a hyperparameter search scored {trials} on them")
    chosen += _best_of_seeds(report)
    if not chosen:
        return (
            "The weights are those of the last step; the evaluation rows had no part in choosing them."
            f"{_threshold_of_training_rows(report)}"
        )
    below = "" if report.holdout is None else f", as on those of {_code(report.holdout.data.name)} below"
    text = f"**These rows chose the model**: {'; '.join(chosen)}. So expect less on new rows{below}."
    return text + _threshold_of_training_rows(report)


def _teachers_threshold_is_chosen(report: Report) -> bool:
    teachers = report.subject.teachers
    return teachers is not None and not teachers.has_threshold()


def _threshold_of_training_rows(report: Report) -> str:
    if report.subject.model.config.trained_with.threshold_rows != TRAINING_ROWS:
        return ""
    return f" The threshold, {report.subject.task.threshold_is} on training rows."


def _best_of_seeds(report: Report) -> list[str]:
    """Return a clause about a model that is better than all other seeds' by the metric that chooses weights."""
    subject, measured = report.subject, report.measured
    over = spreads(report.seeds.values())
    name, largest = subject.best_metric, subject.args.greater_is_better
    if name not in over:
        name, largest = subject.task.best_metric, greater_is_better(subject.task.best_metric)
    others = [of.scores_and_loss[name] for of in report.seeds.values() if of is not measured]
    if measured is None or not others:
        return []
    ours = measured.scores_and_loss[name]
    if not (ours > max(others) if largest else ours < min(others)):
        return []
    return [
        f"this is the best of {len(report.seeds)} seeds by {name}, and their mean of {over[name].mean:.4f} is what "
        "the recipe gives"
    ]


def _without_teacher(other: Comparison, task: Task) -> str:
    text = f"The same student without a teacher is the run {_code(other.name)}, trained on the labels alone"
    if other.differences:
        listed = (f"`{name}` ({there} there, {here} here)" for name, (there, here) in other.differences.items())
        text += f"; beside the teacher it differs in {', '.join(listed)}"
    if other.mcnemar is None:
        return f"{text}."
    right = f" A row is right when {task.right_when}." if task.right_when else ""
    return f"{text}. {_tested(other.mcnemar)}{right}"


def _tested(test: McNemar) -> str:
    kind = (
        "the exact test, on the binomial distribution"
        if test.exact
        else "the chi-square approximation with the continuity correction of Edwards (1948)"
    )
    verdict = (
        "a difference that chance alone seldom makes"
        if test.p_value < 0.05
        else "no more of a difference than chance makes"
    )
    return (
        f"{test.only_first} rows only this model has right, {test.only_second} only the other: McNemar's test (1947; "
        f"{kind}, taken for {'fewer than' if test.exact else 'at least'} {FEW_DISCORDANT_PAIRS} such rows) gives "
        f"p = {test.p_value:.4g}, {verdict}."
    )


def _classes(report: Report) -> Iterator[str]:
    """Write the classes, or the worst of many, and the pairs that are confused most."""
    rows = report.class_rows
    if not rows:
        return
    shown: Sequence[Mapping[str, Any]] = rows
    labelled = _labelled(report.subject.task)
    text = f"Support is the number of {labelled} that have the label."
    if len(rows) > _MOST_CLASSES:
        shown = worst(rows, _MOST_CLASSES)
        text = f"The {len(shown)} of {len(rows)} labels with the lowest F1; `{CLASSES_FILE}` holds all. {text}"
    missed = sum(row["support"] > 0 and not row["predicted"] for row in rows)
    if missed:
        text += f" **The model predicts {missed:,} of the labels for no {labelled[:-1]}.**"
    yield f"### Each label\n\n{text}\n\n{_table_of([_figures_of(row) for row in shown])}"
    pairs = report.confused_rows
    if pairs:
        named = [{labelled if name == "rows" else name: of for name, of in row.items()} for row in pairs]
        few = _table_of([_figures_of(row) for row in named[:_MOST_CLASSES]])
        rest = "" if len(pairs) <= _MOST_CLASSES else f" `{CONFUSIONS_FILE}` holds all {len(pairs)} pairs."
        yield f"The share is that of the label's {labelled} which got the predicted label instead.{rest}\n\n{few}"


def _figures_of(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        name.replace("_", " "): f"{value:.4f}" if isinstance(value, float) else str(value)
        for name, value in row.items()
    }


def _seeds(report: Report) -> str:
    """Write mean and deviation over seeds, of this recipe and of the one without a teacher."""
    alone = {comparison.seed: comparison.measured for comparison in report.without_teacher}
    rows = [
        {"": name, "seeds": ", ".join(map(str, runs))}
        | {score: _spread(of) for score, of in spreads(runs.values()).items()}
        for name, runs in (("this recipe", report.seeds), ("without a teacher", alone))
        if len(runs) > 1
    ]
    return (
        f"### Other seeds\n\n{_table_of(rows)}\n\n"
        "Mean and sample standard deviation over runs that differ in their seed alone, on the same rows."
    )


def _spread(of: Spread) -> str:
    return f"{of.mean:.4f}" if of.deviation is None else f"{of.mean:.4f} (deviation {of.deviation:.4f})"


def _history(report: Report) -> str:
    task = report.subject.task
    shown = {"loss": "training loss"}
    for name in report.subject.eval_sets or ("",):
        prefix, of = metric_prefix("eval", name), f"{name} " if name else ""
        shown[f"{prefix}_loss"] = f"{of}evaluation loss"
        for metric in (task.best_metric, task.card_metric, report.subject.best_metric):
            shown.setdefault(f"{prefix}_{metric}", f"{of}{metric}")
    return _table(
        ["epoch", "step", *shown.values()],
        (
            [
                f"{entry['epoch']:.2f}",
                f"{entry['step']:.0f}",
                *(f"{entry[name]:.4f}" if name in entry else "" for name in shown),
            ]
            for entry in report.subject.state.history()
        ),
    )


def _holdout(report: Report) -> Iterator[str]:
    holdout = report.holdout
    if holdout is None:
        return
    rows_of = f"{holdout.measured.n:,} {report.subject.task.rows_are} of {_code(holdout.data.name)}"
    yield f"## Rows that chose nothing\n\nOn the {rows_of}:"
    rows = [("teacher", holdout.teacher), ("this model", holdout.measured)]
    rows.append(("this model, rows that share no text with the others", holdout.apart))
    yield _table_of([{"": name, "rows": f"{of.n:,}", **_columns(of)} for name, of in rows if of is not None])
    for what, overlap in (("training", holdout.training), ("evaluation", holdout.evaluation)):
        if overlap is None:
            continue
        total = int(overlap.shared.sum())
        if total:
            yield (
                f"**{total:,} of the {holdout.data.rows:,} rows share text with the {what} rows**: "
                f"{int(overlap.equal.sum()):,} are equal to one, {int(overlap.inside.sum()):,} are a phrase of one, "
                f"and {int(overlap.around.sum()):,} hold one of at least {MIN_PHRASE_TOKENS} tokens as a phrase. "
                "Such rows do not measure how good the model is on new text."
            )
        else:
            yield f"No row shares text with the {what} rows."


def _pictures(pictures: Sequence[str]) -> Iterator[str]:
    if pictures:
        shown = (f"![{Path(path).stem.replace('_', ' ')}]({path})" for path in pictures)
        yield "\n\n".join(["## Pictures", *shown])


# How it was made


def _data(report: Report) -> str:
    held = None if report.holdout is None else report.holdout.data
    made = report.subject.task.makes_labels
    uses = (("training", report.train), ("evaluation", report.eval), ("held out", held))
    rows = (
        [use, _code(of.name), f"{of.rows:,}", "" if made else f"{of.labelled:,}", _percent(of.majority_share)]
        for use, of in uses
        if of is not None
    )
    return f"## Data\n\n{_table(['use', 'data', 'rows', 'with label', 'most frequent label'], rows)}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _training(report: Report) -> str:
    args, state = report.subject.args, report.subject.state
    head = report.subject.model.config.head
    listed = [field.name for field in fields(args) if field.metadata["group"] in _LISTED_GROUPS]
    listed = [name for name in listed if is_used_by(name, head)]
    values = {name: getattr(args, name) for name in listed}
    values |= {"gradient_accumulation_steps": args.micro_batches_per_step}  # as the run's files have it
    table = _table(["argument", "value"], ([f"`{name}`", f"{value}"] for name, value in values.items()))
    duration = format_duration(state.train_runtime)
    together = f", by {state.ranks} processes that shared the micro-batches" if state.ranks > 1 else ""
    return f"## Training\n\n{state.global_step:,} steps of AdamW in {duration}{together}.\n\n{table}"


def _environment(report: Report) -> str:
    config = show_config()
    rows = [["CPU", cpu_name()], ["kdistill", str(config.pop("version"))]]
    rows += [[name, str(value)] for name, value in config.items()]
    rows += [[name, _version(name)] for name in ("tokenizers", "safetensors")]
    return f"## Environment\n\nWhere this card was written:\n\n{_table(['what', 'which'], rows)}"


def _version(package: str) -> str:
    """Return the version of an installed package; some are installed without the files that state it."""
    try:
        return str(version(package))
    except PackageNotFoundError:
        return "unknown"


def _usage(report: Report) -> str:
    model, tag = report.subject.model, report.subject.task.pipeline_tag
    name = json_text(report.subject.name, ensure_ascii=False)  # a string of Python as well
    begin = f'import kdistill as kd  # transformers loads it too: pipeline("{tag}", model=...)'
    if model.head == SPAN:
        lines = [
            "import kdistill as kd  # transformers loads the model too, and up to version 4 has such a pipeline",
            "",
            f'answer = kd.pipeline("{tag}", model={name})',
            'answer(question="Where does she live?", context="Anna lives in Paris.")',
        ]
    elif model.head == TOKEN:
        strategy = ', aggregation_strategy="simple"' if have_entities([*model.config.id2label.values()]) else ""
        lines = [
            begin,
            "",
            f'tag = kd.pipeline("{tag}", model={name}{strategy})',
            'tag("Anna lives in Paris.")',
        ]
    elif model.head == MASKED:
        lines = [
            begin,
            "",
            f'fill = kd.pipeline("{tag}", model={name})',
            'fill(f"Anna lives in {fill.tokenizer.mask_token}.")',
        ]
    elif model.config.embeds:
        lines = [
            "import kdistill as kd  # sentence-transformers loads it too: SentenceTransformer(...)",
            "",
            f'embed = kd.pipeline("{tag}", model={name}, pooling="model")',
            f'vectors = embed(["a text", "another text"])  # (2, {model.config.num_outputs})',
        ]
    else:
        pairs = model.config.trained_with.text_pair_column is not None
        texts = '["a text"], ["the second of a pair"]' if pairs else '["a text", "another text"]'
        lines = [
            begin,
            "",
            f"tokenizer = kd.AutoTokenizer.from_pretrained({name})",
            f"model = kd.{type(model).__name__}.from_pretrained({name})",
            f"logits = model(**tokenizer({texts})).logits  # ({1 if pairs else 2}, {model.config.num_labels})",
        ]
    return "\n".join(["## Use", "", "```python", *lines, "```"])


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table, without the columns in which no row has anything."""
    header, *lines = [list(map(_cell, line)) for line in (columns, *rows)]
    kept = [place for place, column in enumerate(zip(*lines, strict=True)) if any(column)] or [*range(len(header))]
    lines = [[line[place] for place in kept] for line in (header, *lines)]
    lines.insert(1, ["---"] * len(kept))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Return text that stays in one cell of a table."""
    return _line(text).replace("|", "\\|")


def _code(text: str) -> str:
    """Return text as code inside of a line, whatever it holds: the fence is longer than the backticks in it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{_line(text)}{space}{fence}"


def _line(text: str) -> str:
    """Return text without line ends and other characters that nobody sees: the names of files may have any."""
    return "".join(c if c.isprintable() or "\ud800" <= c <= "\udfff" else " " for c in text)


def _table_of(rows: Sequence[Mapping[str, str]]) -> str:
    """Write a column for each name that any row has, in the order of their first appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return _table(columns, ([row.get(name, "") for name in columns] for row in rows))
