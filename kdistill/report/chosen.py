"""What the evaluation rows chose of a model, which decides how far its figures on them can be trusted."""

from __future__ import annotations

from ..models.trained_with import EVALUATION_ROWS, TRAINING_ROWS
from ..train.arguments import greater_is_better
from ..train.evaluation_sets import metric_prefix
from .markdown import code
from .report import Report, spreads


def choice(report: Report) -> str:
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
            f"{threshold_of_training_rows(report)}"
        )
    below = "" if report.holdout is None else f", as on those of {code(report.holdout.data.name)} below"
    text = f"**These rows chose the model**: {'; '.join(chosen)}. So expect less on new rows{below}."
    return text + threshold_of_training_rows(report)


def _teachers_threshold_is_chosen(report: Report) -> bool:
    teachers = report.subject.teachers
    return teachers is not None and not teachers.has_threshold()


def threshold_of_training_rows(report: Report) -> str:
    """Return a sentence about a threshold that training rows chose; "" where they chose none."""
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
