"""`kdistill bench --export`: a model as it can be deployed, in kdistill and in other runtimes."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from ..bench.bench import default_batch_size, synthetic_rows
from ..bench.exports import PROGRAMS, Subject, bench_exports
from ..hub import resolve
from ..models.auto import load_model
from ..models.checkpoint import WEIGHTS_FILES
from ..models.classes import BertForSequenceClassification
from ..models.config import BertConfig, shape_of
from ..models.configuration import CONFIG_FILE, Config
from ..system.progress import Progress
from ..text.classes import AutoTokenizer
from ..train.arguments import TrainingArguments
from .inputs import dataset_of

ALL = "all"


def bench_exported(options: Namespace) -> dict[str, Any]:
    """Measure `--model`, and the models of `--variants`, in the programs of `--export`."""
    if options.dtype:
        raise ValueError("--dtype is given beside --export, whose programs have a type each; leave it out")
    chosen = PROGRAMS if ALL in options.export else dict.fromkeys(options.export)
    with tempfile.TemporaryDirectory(prefix="kdistill-") as work:
        names = (options.model, *(options.variants or ()))
        read = [_subject(name, options, Path(work)) for name in names]
        subjects = [subject for subject, _ in read]
        batch_size = options.batch_size or min(default_batch_size(config, subject.rows) for subject, config in read)
        with Progress("bench", unit="rounds", quiet=options.json) as progress:
            asked = [(subject, [*chosen]) for subject in subjects]
            figures = bench_exports(asked, batch_size=batch_size, progress=progress)
    return {"model": options.model} | figures


def _subject(name: str, options: Namespace, work: Path) -> tuple[Subject, Config]:
    """Return the model of this name, with the rows as it reads them, and its configuration."""
    shape = shape_of(name)
    if shape is not None:
        model = BertForSequenceClassification(BertConfig(**shape))
        directory = work / name
        model.save_pretrained(directory)
        return Subject(name, directory, synthetic_rows(model.config, options.rows)), model.config
    loaded = load_model(name, language_models=True)
    directory = resolve(name, [[CONFIG_FILE], WEIGHTS_FILES])
    if options.data is None:
        return Subject(name, directory, synthetic_rows(loaded.config, options.rows)), loaded.config
    tokenizer, args = AutoTokenizer.from_pretrained(name), TrainingArguments(disable_tqdm=True)
    rows = dataset_of(options.data, tokenizer, loaded.config, args, options)
    return Subject(name, directory, rows.take(np.arange(min(options.rows, len(rows))))), loaded.config
