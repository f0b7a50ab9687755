"""A model with its tokenizer, from texts to logits and from logits to what a request is answered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..data.batch import Batch, pack
from ..metrics.prediction import Logits
from ..models.auto import load_trained
from ..models.flops import forward_flops
from ..models.model import Model
from ..system.unicode import encodable
from ..tasks.pipelines import FUNCTIONS, apply_function
from ..tasks.predictions import LabelPredictions, predictions_of
from ..tasks.registry import task_for
from ..text.blocks import Input, TokenRow
from ..text.classes import AutoTokenizer
from ..text.tokenizer import PreTrainedTokenizerFast, check_embeddings, check_tokenizer
from .refusal import shown

NOT_GIVEN: Any = ...
# Parameters of transformers' pipeline whose effect is here anyway, with the values that ask for it.
_AS_HERE: dict[str, tuple[Any, ...]] = {
    "truncation": (True, "longest_first"),
    "padding": (True, False, "longest"),
    "max_length": (),
    "batch_size": (),
}
_REASON = "texts are cut to the length of the training, or --max-length of the server, and batches have no padding"
WARM_UP = "a first text"
_SHORT = 25  # tokens; sentences of SST-2 have as many


class Form(NamedTuple):
    """How a request wants its answers; the defaults are those of `kdistill predict`.

    Attributes:
        top_k: how many labels, the best first; None: all of them.
        function_to_apply: "softmax", "sigmoid" or "none" in place of what the task makes scores with.
    """

    top_k: int | None = NOT_GIVEN
    function_to_apply: str | None = None

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> Form:
        """Return the form that the parameters of a request ask for, under the names of transformers.

        Raises:
            ValueError: a parameter is unknown or has a value that cannot be.
        """
        for name, value in parameters.items():
            if name == "top_k":
                whole = isinstance(value, int) and not isinstance(value, bool)
                if value is not None and not (whole and value >= 1):
                    raise ValueError(f"parameters.top_k is {shown(value)}; expected a whole number from 1 on, or null")
            elif name == "function_to_apply":
                if value is not None and value not in FUNCTIONS:
                    known = ", ".join(map(shown, FUNCTIONS))
                    raise ValueError(f"parameters.function_to_apply is {shown(value)}; expected one of {known}")
            elif name not in _AS_HERE:
                raise ValueError(f"parameters has {shown(name)}; expected top_k or function_to_apply")
            elif value not in _AS_HERE[name]:
                raise ValueError(f"parameters.{name} is {shown(value)}; leave it out: {_REASON}")
        return cls(**{name: value for name, value in parameters.items() if name in cls._fields})


class Classifier:
    """Answers texts as `kdistill predict` does, to the bit.

    Args:
        model: a frozen model.
        tokenizer: the model's.
        max_length: tokens that texts are cut to; None: as the model was trained, or can read.

    Attributes:
        max_length: the tokens that texts are really cut to.
        labels: names of the labels, or of the outputs of a regression.
        flops_per_token: operations of a pass for a token of a short text.
    """

    def __init__(self, model: Model, tokenizer: PreTrainedTokenizerFast, max_length: int | None = None) -> None:
        check_tokenizer("tokenizer", tokenizer)
        check_embeddings(tokenizer, model.config.vocab_size)
        config = model.config
        if task_for(config).per_token or config.embeds:
            raise ValueError(
                f"the model is one for {task_for(config).name}, and only classifiers of whole texts are served; use it "
                f"with `kdistill predict`, or in Python with pipeline({task_for(config).pipeline_tag!r}, ...)"
            )
        asked = config.trained_with.max_length if max_length is None else max_length
        limits = [config.max_tokens, asked, tokenizer.model_max_length]
        self.max_length = min(limit for limit in limits if limit is not None)
        self.model, self.tokenizer, self.task = model, tokenizer, task_for(config)
        self.labels = [encodable(config.id2label[index]) for index in range(config.num_labels)]
        self.flops_per_token = forward_flops(config, np.array([_SHORT])) / _SHORT
        self._plain = Form()

    @classmethod
    def load(cls, model: str | os.PathLike[str], max_length: int | None = None, dtype: str | None = None) -> Classifier:
        """Load a model directory or hub id and let it answer a first text, which makes its memory ready.

        Raises:
            FileNotFoundError: there is no such model.
            ValueError: its files do not fit together.
        """
        trained = load_trained(model, dtype=dtype, keep_weights=False)
        classifier = cls(trained, AutoTokenizer.from_pretrained(model), max_length)
        rows = classifier.tokenise([WARM_UP])
        classifier.answers(classifier.logits(rows), classifier._plain)
        return classifier

    @property
    def takes_pairs(self) -> bool:
        """Whether the model was trained on pairs of texts."""
        return self.model.config.trained_with.text_pair_column is not None

    def tokenise(self, inputs: Sequence[Input]) -> list[TokenRow]:
        """Return the token ids of texts and (text, pair) tuples, cut to `max_length`."""
        return self.tokenizer.encode_rows(inputs, self.max_length)

    def logits(self, rows: Sequence[TokenRow]) -> Logits:
        """Return the logits of tokenised rows, float32 (rows, labels), which do not depend on the other rows."""
        ids, types = (pack([part[kind] for part in rows]) for kind in (0, 1))  # lists are packed in C
        return self.model.forward(Batch(ids.ids, types.ids, ids.starts))

    def answers(self, logits: Logits, form: Form) -> list[Any]:
        """Return the answer to each row, as `kdistill predict` or a pipeline of transformers gives it.

        Without a form of their own: the best label with its score; of several labels those above the threshold, the
        best first; of numbers each output. With `top_k`: a list of labels with scores, the best first.
        """
        if form == self._plain:
            return predictions_of(self.task, logits, self.labels).as_pipeline()
        scores = self.task.answers(logits)[0]
        if form.function_to_apply is not None:
            scores = apply_function(logits, form.function_to_apply)
        top_k = 1 if form.top_k is NOT_GIVEN else len(self.labels) if form.top_k is None else form.top_k
        best = LabelPredictions(self.labels, scores, np.ones(scores.shape, np.bool_), False, top_k=top_k).as_pipeline()
        return [labels[0] for labels in best] if form.top_k is NOT_GIVEN else best
