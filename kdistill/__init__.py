"""kdistill: task-specific distillation of BERT on CPUs, with the names of `transformers` and a core in C.

`import kdistill` loads NumPy and the standard library only; the parts below are loaded when first used.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that defines it.
_EXPORTS = {
    "AdamW": "train.optim",
    "AutoConfig": "models.classes",
    "AutoModelForSequenceClassification": "models.classes",
    "AutoTokenizer": "text.tokenizer",
    "Batch": "data.batch",
    "BertConfig": "models.config",
    "BertForSequenceClassification": "models.classes",
    "BertTokenizer": "text.tokenizer",
    "BestRun": "search.study",
    "DataCollatorWithPadding": "text.collator",
    "Dataset": "data.dataset",
    "DatasetDict": "data.table",
    "DefaultFlowCallback": "train.callbacks",
    "DistillationTrainer": "trainers",
    "DistillationTrainingArguments": "train.arguments",
    "EarlyStoppingCallback": "train.callbacks",
    "EvalPrediction": "metrics.prediction",
    "ProgressCallback": "train.default_callbacks",
    "Provenance": "train.recipe",
    "SequenceClassifierOutput": "models.classes",
    "TextClassificationPipeline": "tasks.pipelines",
    "Trainer": "trainers",
    "TrainerCallback": "train.callbacks",
    "TrainerControl": "train.callbacks",
    "TrainerState": "train.state",
    "TrainingArguments": "train.arguments",
    "choose_metrics": "tasks.registry",
    "clip_grad_norm_": "train.optim",
    "cross_entropy": "losses.labels",
    "distillation_loss": "losses.teacher",
    "get_linear_schedule_with_warmup": "train.schedules",
    "get_num_threads": "system.threads",
    "label_loss": "losses.labels",
    "load_dataset": "data.splits",
    "open_journal": "search.study",
    "pack": "data.batch",
    "pipeline": "tasks.pipelines",
    "set_num_threads": "system.threads",
    "set_seed": "system.seeds",
    "show_config": "system.threads",
}
# Public name -> module, for modules that are public as a whole.
_MODULES = {"assessment": "report.assessment", "figures": "report.figures"}

__all__ = ["__version__", *_EXPORTS, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = importlib.import_module(f"kdistill.{_MODULES[name]}")
    elif name in _EXPORTS:
        value = getattr(importlib.import_module(f"kdistill.{_EXPORTS[name]}"), name)
    else:
        # Python suggests the nearest name of this object.
        raise AttributeError(f"module 'kdistill' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS, *_MODULES])
