"""kdistill: task-specific distillation of the BERT family on CPUs, with the names of `transformers` and a core in C.

`import kdistill` loads NumPy and the standard library only; the parts below are loaded when first used.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__version__ = "0.1.0"

_ARCHITECTURES = ("Bert", "DistilBert", "Roberta", "XLMRoberta", "Camembert", "Electra", "Albert", "MPNet")
_ENDINGS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM", "Model")
_OUTPUTS = (
    "BaseModelOutput",
    "BaseModelOutputWithPooling",
    "MaskedLMOutput",
    "QuestionAnsweringModelOutput",
    "SentenceEmbeddingOutput",
    "SequenceClassifierOutput",
    "TokenClassifierOutput",
)
_AUTO = ("AutoConfig", "AutoModel", *(f"AutoModel{ending}" for ending in _ENDINGS if ending != "Model"))
# Public name -> the module that defines it.
_EXPORTS = {
    **{f"{architecture}Config": "models.config" for architecture in _ARCHITECTURES},
    **{f"{architecture}{ending}": "models.classes" for architecture in _ARCHITECTURES for ending in _ENDINGS},
    **dict.fromkeys(_AUTO, "models.auto"),
    **dict.fromkeys(_OUTPUTS, "models.outputs"),
    "AdamW": "train.optim",
    "AnswerSettings": "tasks.question_pipeline",
    **{f"{architecture}Tokenizer{fast}": "text.classes" for architecture in _ARCHITECTURES for fast in ("", "Fast")},
    "AutoTokenizer": "text.classes",
    "Batch": "data.batch",
    "BestRun": "search.study",
    "DataCollatorForLanguageModeling": "data.language_model_collator",
    "DataCollatorWithPadding": "text.collator",
    "Dataset": "data.dataset",
    "DatasetDict": "data.table",
    "DefaultFlowCallback": "train.callbacks",
    "DistillationTrainer": "trainers",
    "DistillationTrainingArguments": "train.arguments",
    "EarlyStoppingCallback": "train.callbacks",
    "EvalPrediction": "metrics.prediction",
    "ProgressCallback": "train.default_callbacks",
    "FeatureExtractionPipeline": "tasks.feature_pipeline",
    "FillMaskPipeline": "tasks.fill_mask_pipeline",
    "HfArgumentParser": "train.argument_parser",
    "Masking": "data.masking",
    "Match": "train.matches",
    "PreTrainedTokenizerFast": "text.tokenizer",
    "Provenance": "train.recipe",
    "QuestionAnsweringPipeline": "tasks.question_pipeline",
    "Stage": "train.matches",
    "TextClassificationPipeline": "tasks.pipelines",
    "TokenClassificationPipeline": "tasks.token_pipeline",
    "Trainer": "trainers",
    "TrainerCallback": "train.callbacks",
    "TrainerControl": "train.callbacks",
    "TrainerState": "train.state",
    "TokenFiles": "data.token_files",
    "TeacherFunction": "distill.functions",
    "TrainingArguments": "train.arguments",
    "choose_metrics": "tasks.registry",
    "clip_grad_norm_": "train.optim",
    "cross_entropy": "losses.labels",
    "distillation_loss": "losses.teacher",
    "embedding_loss": "losses.embeddings",
    "encode": "train.token_encoding",
    "export": "exporters.export",
    "get_linear_schedule_with_warmup": "train.schedules",
    "get_num_threads": "system.threads",
    "label_loss": "losses.labels",
    "load_dataset": "data.splits",
    "open_journal": "search.study",
    "pack": "data.batch",
    "pipeline": "tasks.pipelines",
    "prune": "compress.prune",
    "quantize": "compress.int8",
    "set_num_threads": "system.threads",
    "set_seed": "system.seeds",
    "show_config": "system.threads",
}
# Public name -> module, for modules that are public as a whole.
_MODULES = {"assessment": "report.assessment", "figures": "report.figures"}

__all__ = ["__version__", *_EXPORTS, *_MODULES]


_BY_TYPE = "kd.AutoModel, or the AutoModel class of a head"
_STRATEGY = 'the strategy as text: "no", "steps" or "epoch"'
_SCHEDULE = "lr_scheduler_type= of the training arguments"
# Names of transformers that are not here -> what to use.
_INSTEAD = {
    **dict.fromkeys(("PreTrainedModel", "BertPreTrainedModel"), _BY_TYPE),
    "PreTrainedTokenizer": "kd.AutoTokenizer",
    **dict.fromkeys(("IntervalStrategy", "EvaluationStrategy"), _STRATEGY),
    "SchedulerType": f"the schedule as text in {_SCHEDULE}",
    **dict.fromkeys(
        ("get_scheduler", "get_cosine_schedule_with_warmup", "get_constant_schedule"),
        f"{_SCHEDULE}, or kd.get_linear_schedule_with_warmup",
    ),
    **dict.fromkeys(
        ("DataCollator", "default_data_collator", "DataCollatorForTokenClassification"),
        "no collator: a trainer packs rows itself, and kd.DataCollatorWithPadding pads them for others",
    ),
    **dict.fromkeys(("PretrainedConfig", "PreTrainedConfig"), "kd.AutoConfig, or the configuration of an architecture"),
    "Seq2SeqTrainer": "kd.Trainer",
    "PrinterCallback": "kd.ProgressCallback",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = importlib.import_module(f"kdistill.{_MODULES[name]}")
    elif name in _EXPORTS:
        value = getattr(importlib.import_module(f"kdistill.{_EXPORTS[name]}"), name)
    elif name in _INSTEAD:
        sentence = f"kdistill has no {name}; use {_INSTEAD[name]}"
        # `from kdistill import name` drops the message of an AttributeError.
        imported = sys._getframe(1).f_code.co_name == "_handle_fromlist"
        raise ImportError(sentence, name=__name__) if imported else AttributeError(sentence)
    else:
        # Python suggests the nearest name of this object.
        raise AttributeError(f"module 'kdistill' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS, *_MODULES])
