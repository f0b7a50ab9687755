"""What a call of a model with each kind of head takes and returns."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.batch import Batch, pack
from ..data.label_values import NO_LABEL
from ..hub import resolve
from ..keywords import take_location
from ..losses.labels import cross_entropy, label_loss
from ..losses.spans import loss_of_spans
from ..system.names import check_others
from ..system.threads import get_num_threads
from .checkpoint import WEIGHTS_FILES
from .configuration import CONFIG_FILE, Config
from .given_rows import Given
from .head_names import ENCODER, ENDINGS, MASKED, SEQUENCE, SPAN, TOKEN
from .masked_loss import MaskedLoss, MaskedPass, check_mixture, words_of
from .model import Model, Tap
from .outputs import (
    BaseModelOutput,
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    PerToken,
    QuestionAnsweringModelOutput,
    SentenceEmbeddingOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from .parameters import Flat
from .pooling import pooling_of
from .sentence_files import OPTIONAL_FILES, config_in, config_of_sentences, write_sentence_files
from .transformers_names import CALL


class Inside(NamedTuple):
    """What a call hands out of the encoder; None: not asked for."""

    hidden_states: tuple[PerToken, ...] | None
    attentions: tuple[PerToken, ...] | None


class _Called(Model):
    """A model that is called with rows of token ids."""

    def _given(self, input_ids: Any, attention_mask: Any, token_type_ids: Any, others: dict[str, Any]) -> Given:
        """Return the first arguments of a call, after settling those that change nothing."""
        if others:
            check_others(type(self).__name__, others, inspect.signature(type(self).__call__).parameters, CALL)
        beside = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        beside = {name: value for name, value in beside.items() if value is not None}
        if not isinstance(input_ids, Mapping | Batch):
            input_ids = {"input_ids": input_ids, **beside}
        elif beside:
            raise TypeError(f"input_ids is a {type(input_ids).__name__}, which already contains {min(beside)}")
        return Given.of(input_ids)

    def _computed(
        self, given: Given, hidden_states: bool | None, attentions: bool | None, *, last: bool = False
    ) -> tuple[NDArray[np.float32], Inside, NDArray[np.float32] | None]:
        """Return the head's outputs, what else is asked for, and the last layer's output if `last`."""
        layers = self.config.num_hidden_layers
        asked = [("hidden", layer) for layer in range(layers + 1)] if hidden_states else []
        asked += [("scores", layer) for layer in range(layers)] if attentions else []
        if last and not hidden_states:
            asked.append(("hidden", layers))
        outputs, taps = self.forward(given.batch, taps=asked)
        shapes = self.config.layer_shapes()
        inside = Inside(
            tuple(given.rows(taps["hidden", layer]) for layer in range(layers + 1)) if hidden_states else None,
            tuple(given.probabilities(taps["scores", layer], shapes[layer].heads) for layer in range(layers))
            if attentions
            else None,
        )
        return outputs, inside, taps["hidden", layers] if last else None


class SequenceClassifier(_Called):
    """A model that classifies texts or pairs, or gives them numbers. A call returns logits of each."""

    head = SEQUENCE

    def __call__(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: ArrayLike | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **others: Any,
    ) -> SequenceClassifierOutput:
        """Return the logits of padded arrays or ragged lists of token ids, without dropout.

        Args:
            input_ids: (B, S) or B lists of ids; or all three at once, as a tokenizer returns them or `pack` does.
            attention_mask: like input_ids, ones then zeros; tokens under a zero are left out.
            token_type_ids: like input_ids; default zeros.
            labels: (B,) whole numbers, or floating-point numbers (B, num_labels); then `loss` is the mean loss of
                `config.problem_type`, see `losses.labels.label_loss`. One output takes (B,) numbers.
            output_attentions: also return each layer's attention probabilities.
            output_hidden_states: also return the first layer's input and each layer's output.
            others: arguments of transformers, accepted where they change nothing, such as `return_dict=True`.

        Raises:
            TypeError: an unknown argument; the message names the nearest one.
            ValueError: an id, a length or a mask out of range; names argument and position.
        """
        given = self._given(input_ids, attention_mask, token_type_ids, others)
        logits, inside, _ = self._computed(given, output_hidden_states, output_attentions)
        loss = None if labels is None else label_loss(logits, labels, self.config.problem_type)[0]
        return SequenceClassifierOutput(loss, logits, *inside)


class TokenClassifier(_Called):
    """A model that classifies each token. A call returns logits of each.

    `forward` returns the logits of all tokens of a batch, float32 (N, num_labels), and `backward` takes their gradient.
    """

    head = TOKEN

    def __call__(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **others: Any,
    ) -> TokenClassifierOutput:
        """Return the logits of each token, without dropout: of padded rows an array, of lists a list of arrays.

        The arguments that `SequenceClassifier.__call__` has are as there.

        Args:
            labels: whole numbers in the form of input_ids; then `loss` is the mean cross-entropy of the tokens whose
                label is not -100.

        Raises:
            TypeError, ValueError: as there; also for labels of another form, or of no token.
        """
        given = self._given(input_ids, attention_mask, token_type_ids, others)
        logits, inside, _ = self._computed(given, output_hidden_states, output_attentions)
        loss = None if labels is None else _loss_of_tokens(logits, given.labels(labels))
        return TokenClassifierOutput(loss, given.rows(logits), *inside)


def _loss_of_tokens(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    labelled = labels != NO_LABEL
    return cross_entropy(logits[labelled], labels[labelled])[0]


class QuestionAnswerer(_Called):
    """A model that finds the span of an answer in a text. A call returns logits of each token as its first and last.

    `forward` returns both of all tokens of a batch, float32 (N, 2), and `backward` takes their gradient.
    """

    head = SPAN

    def __call__(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        start_positions: ArrayLike | None = None,
        end_positions: ArrayLike | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **others: Any,
    ) -> QuestionAnsweringModelOutput:
        """Return the logits of each token, without dropout: of padded rows arrays, of lists lists of arrays.

        The arguments that `SequenceClassifier.__call__` has are as there.

        Args:
            start_positions: (B,) whole numbers, the answer's first token in each row; one outside of the row counts as
                none. With end_positions, `loss` is the mean of both mean losses, see `losses.spans.loss_of_spans`.
            end_positions: (B,) likewise the last token.

        Raises:
            TypeError, ValueError: as there.
        """
        if (start_positions is None) != (end_positions is None):
            lacking = "start_positions" if start_positions is None else "end_positions"
            raise ValueError(f"{lacking} is None, and the other is given; expected both, or neither")
        given = self._given(input_ids, attention_mask, token_type_ids, others)
        logits, inside, _ = self._computed(given, output_hidden_states, output_attentions)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = loss_of_spans(logits, given.batch.starts, start_positions, end_positions)
        start_logits, end_logits = given.rows(logits[:, 0]), given.rows(logits[:, 1])
        return QuestionAnsweringModelOutput(loss, start_logits, end_logits, *inside)


class Encoder(_Called):
    """A model without a head for a task: a call returns what its last layer makes of each token.

    With a pooling it embeds texts: a call returns the embedding of each too, `forward` returns the embeddings alone,
    float32 (B, hidden_size), and `backward` takes their gradient.
    """

    head = ENCODER

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | os.PathLike[str],
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        config: Config | None = None,
        **keywords: Any,
    ) -> Self:
        """Load a checkpoint, see `Model.from_pretrained`, or a model of sentence-transformers.

        Args:
            path_or_id: as there.
            pooling: how texts are embedded: the "mean" of their tokens, or "cls", the first one; "none": not at all.
                Default: as the files of sentence-transformers state it; not at all where there are none.
            normalize: whether embeddings are divided by their length (default: likewise).
            config: as there.
            **keywords: as there.

        Raises:
            FileNotFoundError, TypeError, ValueError: as there; also for a module or pooling that is not computed here.
        """
        needed = [WEIGHTS_FILES] if config is not None else [(CONFIG_FILE,), WEIGHTS_FILES]
        directory = resolve(path_or_id, needed, OPTIONAL_FILES, **take_location(keywords))
        if config is None:
            config = config_in(directory, cls.architecture.config.from_pretrained(directory), cls.head)
        cls._check_own(config)
        config = config_of_sentences(directory, config)
        config = config.with_pooling(pooling_of(config.pooling, pooling, normalize))
        return super().from_pretrained(directory, config=config, **keywords)

    def with_pooling(self, pooling: str, normalize: bool = False) -> Self:
        """Return another model with the same weights, which embeds texts so; arguments as in `from_pretrained`.

        The weights of a pooler are left out.
        """
        model = type(self)(self.config.with_pooling(pooling_of(None, pooling, normalize)))
        own = {tensor.name for tensor in model.layout}
        model.load_state_dict({name: view for name, view in self.parameters.items() if name in own})
        return model.freeze(str(self.dtype)) if self.frozen else model

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write the model, see `Model.save_pretrained`; with a pooling as sentence-transformers reads it."""
        super().save_pretrained(directory)
        if self.config.pooling is not None:
            write_sentence_files(Path(directory), self.config)

    def __call__(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **others: Any,
    ) -> BaseModelOutput | BaseModelOutputWithPooling | SentenceEmbeddingOutput:
        """Return the last layer's output of each token, without dropout, and where there is a pooler its output.

        With a pooling it is the embedding of each text instead, `sentence_embedding`.

        The arguments are those of `SequenceClassifier.__call__`, without labels.

        Raises:
            TypeError, ValueError: as there.
        """
        given = self._given(input_ids, attention_mask, token_type_ids, others)
        outputs, inside, last = self._computed(given, output_hidden_states, output_attentions, last=True)
        assert last is not None
        state = given.rows(last)
        if self.config.pooling is not None:
            return SentenceEmbeddingOutput(state, outputs, *inside)
        if self.architecture.heads[self.head].pick == "first":
            return BaseModelOutputWithPooling(state, outputs, *inside)
        return BaseModelOutput(state, *inside)


class MaskedLanguageModel(_Called):
    """A model that predicts words under a mask. A call returns logits of each token over the vocabulary.

    `forward` returns the logits of all tokens of a batch, float32 (N, vocab_size), or of listed ones, and `backward`
    takes their gradient. `masked_loss` trains and evaluates without them: they exist a few hundred tokens at a time.
    """

    head = MASKED

    def __call__(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **others: Any,
    ) -> MaskedLMOutput:
        """Return the logits of each token, without dropout; with labels the loss alone, for which they never exist.

        The arguments that `SequenceClassifier.__call__` has are as there.

        Args:
            labels: words, whole numbers in the form of input_ids; then `loss` is the mean cross-entropy of the tokens
                whose label is not -100, and there are no logits.

        Raises:
            TypeError, ValueError: as there; also for labels of another form, or of no token.
        """
        given = self._given(input_ids, attention_mask, token_type_ids, others)
        if labels is None:
            logits, inside, _ = self._computed(given, output_hidden_states, output_attentions)
            return MaskedLMOutput(None, given.rows(logits), *inside)
        if output_hidden_states or output_attentions:
            raise ValueError("labels and output_hidden_states or output_attentions are given; expected one of them")
        return MaskedLMOutput(self.masked_loss(given.batch, given.labels(labels)).loss, None)

    def masked_loss(
        self,
        batch: Batch | Any,
        labels: ArrayLike,
        *,
        train: bool = False,
        teacher: MaskedLanguageModel | None = None,
        alpha: float = 0.5,
        temperature: float = 4.0,
        label_smoothing: float = 0.0,
        share: float = 1.0,
    ) -> MaskedLoss:
        """Return the mean loss of the tokens that have a label; with `train` add its gradient to `gradients`.

        With a teacher the loss is alpha * hard + (1 - alpha) * soft, see `losses.teacher.distillation_loss`.

        Args:
            batch: as in `forward`.
            labels: int64 (N,), a word for each token of the packed batch, or -100 for one that does not count.
            train: dropout is on, and the gradient of `share` times the loss is added: forward and backward in one.
            teacher: another language model of the same vocabulary, which computes the same tokens.
            alpha: weight of the labels beside a teacher, 0 to 1.
            temperature: T of the teacher's part, 1e-5 to 1e5.
            label_smoothing: share of each label spread evenly over the vocabulary, 0 to 1.
            share: what the gradient is multiplied by: a micro-batch's share of the labels of its step.

        Returns:
            The parts; all 0 where no token has a label.

        Raises:
            ValueError: an argument is out of range, or shapes differ.
            FloatingPointError: a token's loss is not finite; names the tokens. All gradients are then 0.
            TypeError: the teacher is no other language model.
            RuntimeError, MemoryError: as in `forward`.
        """
        check_mixture(alpha, temperature, label_smoothing)
        if teacher is not None and (teacher is self or not isinstance(teacher, MaskedLanguageModel)):
            found = "the model itself" if teacher is self else f"a {type(teacher).__name__}"
            raise TypeError(f"teacher is {found}; expected another model that predicts masked words, or None")
        packed = pack(batch)
        words = words_of(labels, packed)
        return self.masked_pass(packed, words, train=train).loss(
            teacher=None if teacher is None else teacher.masked_pass(packed, words),
            alpha=alpha,
            temperature=temperature,
            label_smoothing=label_smoothing,
            share=share,
        )

    def masked_pass(
        self, batch: Batch | Any, labels: ArrayLike | None, *, train: bool = False, taps: Sequence[Tap] = ()
    ) -> MaskedPass:
        """Compute what the product with the vocabulary reads of the tokens that have a label, and leave it out.

        `masked_loss` is this and `MaskedPass.loss`.

        Args:
            batch: as in `forward`.
            labels: as in `masked_loss`; None: no token has one, so that the loss is that of the taps alone.
            train: dropout is on, and the loss goes back.
            taps: what lies inside the encoder and is wanted, as in `forward`.

        Raises:
            ValueError: shapes differ, or there is no such tap.
            RuntimeError, MemoryError: as in `forward`.
        """
        packed = pack(batch)
        words = words_of(labels, packed)
        found = self._computed_features(packed, np.flatnonzero(words != NO_LABEL), train=train, taps=taps)
        return MaskedPass(self.core, words, found)

    def masked_scores(self, batch: Batch | Any, labels: ArrayLike) -> NDArray[np.float32]:
        """Return how well the model predicts the tokens that have a label, without dropout.

        Args:
            batch: as in `forward`.
            labels: as in `masked_loss`.

        Returns:
            float32 (N, 2): a token's cross-entropy, and 1 where its label is the most probable word, else 0 (of equally
            probable words the first counts). Both are 0 for a token without a label.

        Raises:
            ValueError: shapes differ.
            FloatingPointError: a token's loss is not finite.
            RuntimeError, MemoryError: as in `forward`.
        """
        packed = pack(batch)
        passed = self.masked_pass(packed, labels)
        scores = np.zeros((len(packed.ids), 2), np.float32)
        scores[passed.rows] = passed.scores()
        return scores

    def _computed_features(
        self, batch: Batch, rows: NDArray[np.int64], *, train: bool, taps: Sequence[Tap]
    ) -> Mapping[Tap, Flat]:
        """Compute what the last product reads of these tokens, leave it out, and return the taps."""
        core = self.trainable_core() if train else self.core
        batch = self._ready(batch)
        place, threads = self._place(), get_num_threads()
        found: Mapping[Tap, Flat] = {}
        if taps:
            _, found = core.forward(*batch, train, *place, threads, rows=rows, outputs=False, taps=taps)
        else:
            core.forward(*batch, train, *place, threads, rows=rows, outputs=False)
        if train:
            self.tokens_in_step += len(batch.ids)
        return found


KINDS: Mapping[str, type[Model]] = {
    kind.head: kind for kind in (SequenceClassifier, TokenClassifier, QuestionAnswerer, MaskedLanguageModel, Encoder)
}
"""Name of a head -> the class that the classes of all architectures with it derive from."""


def check_head(model: Model, head: str) -> None:
    """Raise ValueError, which names what loads the right one, for a model with another head."""
    if model.config.head != head:
        loader = f"AutoModel{'' if head == ENCODER else ENDINGS[head]}.from_pretrained(...)"
        raise ValueError(f"model is a {type(model).__name__}; expected one for {head}: {loader}")
