"""`kdistill predict`: what a model says of texts, a line or a row for each."""

from __future__ import annotations

import sys
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np

from ..data.dataset import Dataset
from ..data.files import DataFile
from ..data.patterns import matching_paths
from ..data.ragged import Ragged, units
from ..data.sentences import Sentences
from ..data.table import Table
from ..data.token_files import token_files_of
from ..data.windows import Windows
from ..data.words import words_of
from ..models.head_names import ENCODER, MASKED, SEQUENCE, SPAN, TOKEN
from ..models.heads import MaskedLanguageModel
from ..models.trained_with import check_threshold
from ..system.output import check_output, open_output
from ..system.unicode import encodable
from ..tasks.answer_predictions import AnswerPredictions
from ..tasks.base import write_json_lines
from ..tasks.embedding_predictions import EmbeddingPredictions
from ..tasks.fill_mask_pipeline import TOP_K, FillMaskPipeline
from ..tasks.predictions import ALL_DIGITS, DIGITS, predictions_of
from ..tasks.question_answering import answers_of, rules_of
from ..tasks.registry import task_for
from ..tasks.token_predictions import TokenPredictions
from ..tasks.word_predictions import WordPredictions
from ..train.encoding import encode_for, trained_on
from ..trainers import Trainer
from .data_files import rows_to_predict, single_texts, texts_of
from .evaluate import measuring_trainer
from .inputs import columns_of

Figures = dict[str, Any]


class Records(Protocol):
    """Predictions of rows that are written as JSON lines."""

    def records(self) -> Iterator[Mapping[str, Any]]: ...
    def as_pipeline(self) -> list[Any]: ...


def predict(options: Namespace) -> Figures:
    """Write the prediction for every row, as TSV: label and probability of each label; for regression, the number.

    With `--json`, texts that are typed or piped in have their predictions among the figures instead.
    """
    for option, value, most in (("--top-k", options.top_k, None), ("--digits", options.digits, ALL_DIGITS)):
        if value is not None and not 1 <= value <= (most or value):
            expected = "at least 1" if most is None else f"1 to {most}"
            raise ValueError(f"{option} is {value}; expected {expected}")
    threshold = None if options.above is None else check_threshold("--threshold", options.above)
    if options.output is not None:
        inputs = [*([] if options.data is None else matching_paths(options.data)), options.model]
        check_output("--output", options.output, inputs=inputs)
    trainer = measuring_trainer(options)
    if options.digits is not None and (trainer.model.head != SEQUENCE or (options.output or "").endswith(".jsonl")):
        warnings.warn("--digits has no effect here: JSON has all digits", stacklevel=2)
    if task_for(trainer.model.config).at_threshold is not None and threshold is not None:
        trainer.recipe.set_threshold(threshold)
    return _OF_HEADS[trainer.model.config.head](trainer, options)


def _predict_labels(trainer: Trainer, options: Namespace) -> Figures:
    """Write the labels of every row with their scores, or its numbers: a table, or JSON lines."""
    config = trainer.model.config
    names = [encodable(config.id2label[index]) for index in range(config.num_labels)]
    answer = partial(predictions_of, task_for(config), names=names, threshold=options.above, top_k=options.top_k)
    answer(logits=np.zeros((1, config.num_labels), np.float32))  # refuses options before the work
    source = rows_to_predict(options, config.trained_with)
    dataset = _encoded(trainer, source, options)
    output = trainer.predict(dataset)
    predictions = answer(logits=units(output.predictions), texts=texts_of(source, dataset))
    figures = _figures(trainer, options, len(dataset), output.metrics["test_runtime"])
    if options.output is not None:
        with open_output(options.output) as file:
            if options.output.endswith(".jsonl"):
                write_json_lines(file, predictions.records())
            else:
                predictions.write_tsv(file, options.digits or DIGITS)
    elif options.json and not isinstance(source, DataFile):
        figures["predictions"] = predictions.as_pipeline()
    else:
        predictions.write_tsv(sys.stdout, options.digits or DIGITS)
    return figures


def _predict_tags(trainer: Trainer, options: Namespace) -> Figures:
    """Write the tags of the words of every row, and the spans that they mark, as JSON lines."""
    config = trainer.model.config
    _refuse("the model gives each word one tag", {"--top-k": options.top_k, "--threshold": options.above})
    if options.text_pair is not None:
        raise ValueError("--text-pair is given, and the model tags the words of single texts; leave it out")
    _refuse_table(options, "tags")
    source = rows_to_predict(options, config.trained_with, config.head)
    table = source.table if isinstance(source, DataFile) else source
    dataset = _encoded(trainer, table, options)
    if not isinstance(dataset.windows, Windows):
        raise ValueError(f"{table.source} holds token ids, which have no words; expected a column of words or texts")
    columns = columns_of(options)
    del columns["text_pair_column"]
    rows = words_of(table, **columns, trained_on=trained_on(config))
    output = trainer.predict(dataset)
    assert isinstance(output.predictions, Ragged)
    names = [encodable(config.id2label[index]) for index in range(config.num_labels)]
    predictions = TokenPredictions(names, output.predictions, rows, dataset.windows)
    figures = _figures(trainer, options, len(rows), output.metrics["test_runtime"])
    return _written(predictions, figures, options, source)


def _predict_answers(trainer: Trainer, options: Namespace) -> Figures:
    """Write the answer to every question as JSON lines."""
    config = trainer.model.config
    _refuse_table(options, "answers")
    rules = rules_of(config.trained_with)
    if options.top_k is not None and options.top_k > rules.n_best:
        raise ValueError(f"--top-k is {options.top_k}; expected at most --n-best, which is {rules.n_best}")
    source = rows_to_predict(options, config.trained_with, config.head)
    dataset = _encoded(trainer, source, options)
    output = trainer.predict(dataset)
    assert isinstance(output.predictions, Ragged)
    answers = answers_of(output.predictions, dataset.targets, rules)
    predictions = AnswerPredictions(dataset.targets.spans.questions.ids, answers, options.top_k)
    figures = _figures(trainer, options, len(answers), output.metrics["test_runtime"])
    return _written(predictions, figures, options, source)


def _predict_words(trainer: Trainer, options: Namespace) -> Figures:
    """Write the words that are expected under the masks of every text as JSON lines."""
    model, tokenizer = trainer.model, trainer.processing_class
    assert isinstance(model, MaskedLanguageModel)
    assert tokenizer is not None
    _refuse("the model fills each mask", {"--threshold": options.above})
    if options.text_pair is not None:
        raise ValueError("--text-pair is given, and the model fills the masks of single texts; leave it out")
    _refuse_table(options, "words")
    source = rows_to_predict(options, model.config.trained_with)
    texts = single_texts(source, **columns_of(options))
    size, length = trainer.args.per_device_eval_batch_size, trainer.args.max_length
    cut = {} if length is None else {"max_length": length, "truncation": True}
    started = time.monotonic()
    fill = FillMaskPipeline(model, tokenizer, top_k=options.top_k or TOP_K, batch_size=size, tokenizer_kwargs=cut)
    filled = fill(texts)
    predictions = WordPredictions([filled] if len(texts) == 1 else filled)
    return _written(predictions, _figures(trainer, options, len(texts), time.monotonic() - started), options, source)


def _predict_embeddings(trainer: Trainer, options: Namespace) -> Figures:
    """Write the embedding of every row as JSON lines, or all of them as a matrix of NumPy."""
    config = trainer.model.config
    _refuse("the model gives each text an embedding", {"--top-k": options.top_k, "--threshold": options.above})
    _refuse_table(options, "embeddings")
    source = rows_to_predict(options, config.trained_with, config.head)
    dataset = _encoded(trainer, source, options)
    output = trainer.predict(dataset)
    assert isinstance(dataset.windows, Sentences)
    assert isinstance(output.predictions, np.ndarray)
    predictions = EmbeddingPredictions.of(output.predictions, dataset.windows, texts_of(source, dataset))
    figures = _figures(trainer, options, len(predictions.values), output.metrics["test_runtime"])
    if options.output is not None and options.output.endswith(".npy"):
        with open_output(options.output, binary=True) as file:
            predictions.write_npy(file)
        return figures
    return _written(predictions, figures, options, source)


_OF_HEADS: Mapping[str, Callable[[Trainer, Namespace], Figures]] = {
    SEQUENCE: _predict_labels,
    TOKEN: _predict_tags,
    SPAN: _predict_answers,
    MASKED: _predict_words,
    ENCODER: _predict_embeddings,
}
"""Name of a head -> what writes the predictions of a model with it."""


def _refuse(why: str, given: Mapping[str, float | None]) -> None:
    """Raise ValueError for the first of these options that is given, of which the model can make nothing."""
    for option, value in given.items():
        if value is not None:
            raise ValueError(f"{option} is {value}, and {why}; leave it out")


def _refuse_table(options: Namespace, what: str) -> None:
    """Raise ValueError for an output that by its name is to be a table."""
    if options.output is not None and options.output.endswith((".tsv", ".csv")):
        raise ValueError(f"--output is {options.output!r}; {what} are written as JSON lines: expected a name in .jsonl")


def _encoded(trainer: Trainer, source: DataFile | Table, options: Namespace) -> Dataset:
    """Return the rows as the model reads them, without labels; of token files with their texts, if these were kept."""
    files, columns = token_files_of(source), columns_of(options)
    given, texts = (source, False) if files is None else (files, files.has_texts)
    config, tokenizer = trainer.model.config, trainer.processing_class
    return encode_for(config, given, tokenizer, trainer.args, **columns, keep_texts=texts).without_labels()


def _figures(trainer: Trainer, options: Namespace, rows: int, seconds: float) -> Figures:
    return {"n": rows, "output": options.output, "dtype": str(trainer.model.dtype), "runtime": seconds}


def _written(predictions: Records, figures: Figures, options: Namespace, source: DataFile | Table) -> Figures:
    """Write predictions as JSON lines to `--output` or stdout, or add those of `--text` to the figures of `--json`."""
    if options.output is not None:
        with open_output(options.output) as file:
            write_json_lines(file, predictions.records())
    elif options.json and not isinstance(source, DataFile):
        return figures | {"predictions": predictions.as_pipeline()}
    else:
        write_json_lines(sys.stdout, predictions.records())
    return figures
