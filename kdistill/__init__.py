"""kdistill: task-specific distillation of BERT on CPUs, with the names of `transformers` and a core in C.

`import kdistill` loads NumPy and the standard library only; the parts below are loaded when first used.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__version__ = "0.1.0"

# Where each public name lives.
_EXPORTS = {
    "AdamW": "optim",
    "AutoConfig": "auto",
    "AutoModelForSequenceClassification": "auto",
    "AutoTokenizer": "tokenizer",
    "Batch": "data",
    "BertConfig": "config",
    "BertForSequenceClassification": "model",
    "BertTokenizer": "tokenizer",
    "BestRun": "study",
    "DataCollatorWithPadding": "data_collator",
    "Dataset": "data",
    "DatasetDict": "table",
    "DefaultFlowCallback": "callbacks",
    "DistillationTrainer": "distill",
    "DistillationTrainingArguments": "arguments",
    "EarlyStoppingCallback": "callbacks",
    "EvalPrediction": "metrics",
    "ProgressCallback": "reporters",
    "SequenceClassifierOutput": "model",
    "TextClassificationPipeline": "pipelines",
    "Trainer": "trainer",
    "TrainerCallback": "callbacks",
    "TrainerControl": "callbacks",
    "TrainerState": "state",
    "TrainingArguments": "arguments",
    "clip_grad_norm_": "optim",
    "cross_entropy": "losses",
    "distillation_loss": "losses",
    "get_linear_schedule_with_warmup": "schedules",
    "get_num_threads": "runtime",
    "load_dataset": "splits",
    "pack": "data",
    "pipeline": "pipelines",
    "set_num_threads": "runtime",
    "show_config": "runtime",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        # Python suggests the nearest name of this object.
        raise AttributeError(f"module 'kdistill' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    value = getattr(importlib.import_module(f"kdistill.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
