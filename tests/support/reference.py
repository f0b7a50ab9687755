"""BERT for sequence classification and its training step in float64 NumPy.

Written from the papers, for reading rather than speed, and from nothing in kdistill:

- BERT: Devlin et al., arXiv:1810.04805; attention: Vaswani et al., arXiv:1706.03762, eq. 1;
- factorised embeddings, shared layers: Lan et al., arXiv:1909.11942, section 3.1;
- relative positions: Raffel et al., arXiv:1910.10683, section 2.1; Song et al., arXiv:2004.09297;
- LayerNorm: Ba, Kiros, Hinton, arXiv:1607.06450; GELU: Hendrycks, Gimpel, arXiv:1606.08415;
- dropout: Srivastava et al., JMLR 15 (2014); distillation: Hinton, Vinyals, Dean, arXiv:1503.02531;
- AdamW: Kingma, Ba, arXiv:1412.6980, with the decay of Loshchilov, Hutter, arXiv:1711.05101.

One sequence is computed at a time, so there is neither padding nor a mask. Parameters carry the names
and shapes `transformers` gives them, weights as (outputs, inputs).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Parameters = Mapping[str, Array]
# What dropout multiplies by, per sequence: masks[module][sequence], with transformers' module names
# (`dropout_shapes` lists them). A module that is absent drops nothing.
DropoutMasks = Mapping[str, Sequence[Array]]

IGNORED_LABEL = -100


class Config(Protocol):
    """The fields of a BertConfig that the forward pass reads."""

    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def hidden_act(self) -> str: ...
    @property
    def layer_norm_eps(self) -> float: ...


def gelu(x: Array) -> Array:
    """x * Phi(x), exact."""
    erf = np.vectorize(math.erf, otypes=[np.float64])
    return np.asarray(0.5 * x * (1.0 + erf(x / math.sqrt(2.0))))


def gelu_new(x: Array) -> Array:
    """GELU's tanh approximation."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0.0)


def silu(x: Array) -> Array:
    """x * sigmoid(x)."""
    return np.asarray(x * np.exp(-np.logaddexp(0.0, -x)))


def quick_gelu(x: Array) -> Array:
    """x * sigmoid(1.702 * x)."""
    return np.asarray(x * np.exp(-np.logaddexp(0.0, -1.702 * x)))


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_new": gelu_new,
    "gelu_fast": gelu_new,
    "gelu_pytorch_tanh": gelu_new,
    "gelu_python_tanh": gelu_new,
    "gelu_accurate": gelu_new,
    "quick_gelu": quick_gelu,
    "relu": relu,
    "silu": silu,
    "swish": silu,
    "tanh": np.tanh,
}
"""All that the core knows, by name."""


def softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def log_softmax(x: Array) -> Array:
    """Logarithm of the softmax over the last axis."""
    shifted = x - x.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def layer_norm(x: Array, gamma: Array, beta: Array, eps: float) -> Array:
    """gamma * (x - mean) / sqrt(variance + eps) + beta over the last axis; the variance divides by n."""
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return np.asarray(gamma * (x - mean) / np.sqrt(variance + eps) + beta)


def linear(x: Array, parameters: Parameters, name: str) -> Array:
    """x (..., inputs) -> (..., outputs)."""
    return x @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]


def relative_bucket(offset: int, buckets: int, distance: int) -> int:
    """The bucket of a key `offset` places behind its query: T5's, as MPNet of transformers has them.

    Half of the buckets are for keys behind the query. Of these, half hold one distance each; the rest grow by powers up
    to `distance`, from which on all are in the last.
    """
    half = buckets // 2
    single, d = half // 2, abs(offset)
    grown = single + int(math.log(max(d, 1) / single) / math.log(distance / single) * (half - single))
    return (half if offset > 0 else 0) + (d if d < single else min(grown, half - 1))


def relative_bias(table: Array, n: int, distance: int) -> Array:
    """(buckets, heads) -> what the scores of n queries and keys get, (heads, n, n)."""
    rows = [[relative_bucket(key - query, len(table), distance) for key in range(n)] for query in range(n)]
    return np.asarray(table[np.array(rows)].transpose(2, 0, 1))


def attention_scores(q: Array, k: Array, heads: int, bias: Array | float = 0.0) -> Array:
    """(n, heads * width) each -> q k^T / sqrt(width) + bias (heads, n, n) of each head, (heads, n, n)."""
    by_head = [np.asarray(x.reshape(len(x), heads, -1).transpose(1, 0, 2)) for x in (q, k)]
    return np.asarray(by_head[0] @ by_head[1].transpose(0, 2, 1) / math.sqrt(by_head[0].shape[2]) + bias)


def attention(q: Array, k: Array, v: Array, heads: int, mask: Array | None = None, bias: Array | float = 0.0) -> Array:
    """(n, heads * width) each -> context of that shape; mask (heads, n, n) multiplies the probabilities."""
    context = np.empty_like(q)
    width = q.shape[1] // heads
    for h, scores in enumerate(attention_scores(q, k, heads, bias)):
        columns = slice(h * width, (h + 1) * width)
        probabilities = softmax(scores)
        if mask is not None:
            probabilities = probabilities * mask[h]
        context[:, columns] = probabilities @ v[:, columns]
    return context


def dropout_shapes(config: Config, length: int) -> dict[str, tuple[int, ...]]:
    """Module name -> shape of its dropout mask for a sequence of `length` tokens."""
    hidden = (length, config.hidden_size)
    shapes: dict[str, tuple[int, ...]] = {"bert.embeddings.dropout": hidden}
    for layer in range(config.num_hidden_layers):
        prefix = f"bert.encoder.layer.{layer}"
        shapes[f"{prefix}.attention.self.dropout"] = (config.num_attention_heads, length, length)
        shapes[f"{prefix}.attention.output.dropout"] = hidden
        shapes[f"{prefix}.output.dropout"] = hidden
    shapes["dropout"] = (config.hidden_size,)
    return shapes


@dataclass(frozen=True)
class Variant:
    """The ways in which an encoder with a head can differ from BERT's classifier."""

    head_width: int | None = None  # of attention, where it is not hidden_size / num_attention_heads
    first_position: int = 0
    relative_distance: int = 0  # of the last bucket of relative positions, where there is a table of them
    relative_heads: Sequence[Sequence[int]] | None = None  # of each layer, the table's columns; None: all
    shared: bool = False  # every layer computes with layer 0's parameters
    pick: str = "first"  # the rows that the head reads: [CLS], "all", "listed" or the "mean" of all
    listed: Sequence[Sequence[int]] = ()  # of each sequence
    head_activation: str | None = "tanh"  # behind the head's dense product; None: no such product
    head_norm: bool = False  # behind the activation
    outputs: bool = True  # there is a last product,
    tied: bool = False  # with the word embeddings
    unit: bool = False  # without it, what it would read is divided by its length


BERT_CLASSIFIER = Variant()
# Kind and layer. ("hidden", l) is the input of layer l, or the last one's output, (n, C); "query", "key" and "value"
# are (n, heads * width), "scores" before the softmax (heads, n, n).
Tap = tuple[str, int]


class _Pass:
    """One sequence going through the model: what every layer needs at hand."""

    def __init__(
        self, parameters: Parameters, config: Config, masks: DropoutMasks | None, sequence: int, variant: Variant
    ) -> None:
        self.parameters = parameters
        self.config = config
        self.variant = variant
        self.taps: dict[Tap, Array] = {}
        self._masks = masks or {}
        self._sequence = sequence

    def mask(self, module: str) -> Array | None:
        masks = self._masks.get(module)
        return None if masks is None else np.asarray(masks[self._sequence], np.float64)

    def dropout(self, x: Array, module: str) -> Array:
        mask = self.mask(module)
        return x if mask is None else x * mask

    def norm(self, x: Array, name: str) -> Array:
        gamma, beta = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        return layer_norm(x, gamma, beta, self.config.layer_norm_eps)

    def embed(self, ids: Sequence[int], types: Sequence[int]) -> Array:
        tables = "bert.embeddings"
        first = self.variant.first_position
        x = (
            self.parameters[f"{tables}.word_embeddings.weight"][list(ids)]
            + self.parameters[f"{tables}.position_embeddings.weight"][first : first + len(ids)]
        )
        if f"{tables}.token_type_embeddings.weight" in self.parameters:
            x = x + self.parameters[f"{tables}.token_type_embeddings.weight"][list(types)]
        x = self.dropout(self.norm(x, f"{tables}.LayerNorm"), f"{tables}.dropout")
        projection = "bert.embeddings_project"  # of tables that are not as wide as the encoder
        return linear(x, self.parameters, projection) if f"{projection}.weight" in self.parameters else x

    def relative_bias(self, n: int, layer: int) -> Array | float:
        table, heads = self.parameters.get("bert.encoder.relative_attention_bias.weight"), self.variant.relative_heads
        if table is None:
            return 0.0
        return relative_bias(
            table if heads is None else table[:, list(heads[layer])], n, self.variant.relative_distance
        )

    def layer(self, x: Array, layer: int) -> Array:
        of_layer = f"bert.encoder.layer.{layer}"
        prefix = "bert.encoder.layer.0" if self.variant.shared else of_layer
        attend, activation = f"{prefix}.attention", ACTIVATIONS[self.config.hidden_act]
        q, k, v = (linear(x, self.parameters, f"{attend}.self.{part}") for part in ("query", "key", "value"))
        width = self.variant.head_width or self.config.hidden_size // self.config.num_attention_heads
        heads = q.shape[1] // width  # a pruned layer has fewer
        self.taps |= {("query", layer): q, ("key", layer): k, ("value", layer): v}
        bias = self.relative_bias(len(x), layer)
        self.taps["scores", layer] = attention_scores(q, k, heads, bias)
        context = attention(q, k, v, heads, bias=bias, mask=self.mask(f"{of_layer}.attention.self.dropout"))
        y = linear(context, self.parameters, f"{attend}.output.dense")
        x = self.norm(x + self.dropout(y, f"{of_layer}.attention.output.dropout"), f"{attend}.output.LayerNorm")
        y = activation(linear(x, self.parameters, f"{prefix}.intermediate.dense"))
        y = linear(y, self.parameters, f"{prefix}.output.dense")
        return self.norm(x + self.dropout(y, f"{of_layer}.output.dropout"), f"{prefix}.output.LayerNorm")

    def classify(self, x: Array) -> Array:
        x = self.dropout(self.picked(x), "input dropout")
        if self.variant.head_activation is not None:
            x = ACTIVATIONS[self.variant.head_activation](linear(x, self.parameters, "bert.pooler.dense"))
        if self.variant.head_norm:
            x = self.norm(x, "head.LayerNorm")
        x = self.dropout(x, "dropout")
        if self.variant.tied:
            words = self.parameters["bert.embeddings.word_embeddings.weight"]
            return np.asarray(x @ words.T + self.parameters["classifier.bias"])
        if self.variant.unit:
            return np.asarray(x / np.sqrt((x * x).sum(axis=-1, keepdims=True)))
        return linear(x, self.parameters, "classifier") if self.variant.outputs else x

    def picked(self, x: Array) -> Array:
        match self.variant.pick:
            case "first":
                return x[0]
            case "mean":
                return np.asarray(x.mean(axis=0))
            case "listed":
                return x[list(self.variant.listed[self._sequence])]
            case _:
                return x


def forward(
    parameters: Parameters,
    config: Config,
    ids: Sequence[Sequence[int]],
    types: Sequence[Sequence[int]] | None = None,
    masks: DropoutMasks | None = None,
) -> Array:
    """Ragged rows of token ids -> logits (rows, labels). Absent types are zeros."""
    return forward_with_taps(parameters, config, ids, types, masks)[0]


def forward_with_taps(
    parameters: Parameters,
    config: Config,
    ids: Sequence[Sequence[int]],
    types: Sequence[Sequence[int]] | None = None,
    masks: DropoutMasks | None = None,
    variant: Variant = BERT_CLASSIFIER,
) -> tuple[Array, list[dict[Tap, Array]]]:
    """The outputs, (rows, labels) or of as many rows as the head picks, and what each row's pass can be tapped of."""
    outputs, taps = [], []
    for b, row in enumerate(ids):
        run = _Pass(parameters, config, masks, b, variant)
        x = run.embed(row, [0] * len(row) if types is None else types[b])
        for layer in range(config.num_hidden_layers):
            run.taps["hidden", layer] = x
            x = run.layer(x, layer)
        run.taps["hidden", config.num_hidden_layers] = x
        outputs.append(np.atleast_2d(run.classify(x)))
        taps.append(run.taps)
    return np.concatenate(outputs), taps


def cross_entropy(logits: Array, labels: Sequence[int]) -> tuple[float, Array]:
    """Mean over rows of -log softmax(logits)[label], and its gradient (rows, labels)."""
    logits = np.asarray(logits, np.float64)
    rows, chosen = np.arange(len(logits)), np.asarray(labels)
    gradient = softmax(logits)
    gradient[rows, chosen] -= 1.0
    return float(-log_softmax(logits)[rows, chosen].mean()), gradient / len(logits)


def distillation_loss(
    logits: Array,
    teacher_logits: Array,
    labels: Sequence[int] | None = None,
    alpha: float = 0.5,
    temperature: float = 4.0,
) -> tuple[float, Array]:
    """Mean over rows of alpha * CE + (1 - alpha) * T^2 * KL(softmax(teacher / T) || softmax(student / T)).

    Returns it with its gradient (rows, labels). A row without a label (-100, or no labels at all) has
    alpha = 0.
    """
    logits, teacher_logits = np.asarray(logits, np.float64), np.asarray(teacher_logits, np.float64)
    count = len(logits)
    chosen = np.full(count, IGNORED_LABEL) if labels is None else np.asarray(labels)
    hard = np.where(chosen == IGNORED_LABEL, 0.0, alpha)
    log_student, log_teacher = log_softmax(logits / temperature), log_softmax(teacher_logits / temperature)
    teacher = np.exp(log_teacher)
    soft_loss = temperature**2 * (teacher * (log_teacher - log_student)).sum(axis=1)
    soft_gradient = temperature * (np.exp(log_student) - teacher)
    target = np.maximum(chosen, 0)  # any class: weighed by zero where the label is missing
    hard_loss = -log_softmax(logits)[np.arange(count), target]
    hard_gradient = softmax(logits) - np.eye(logits.shape[1])[target]
    loss = (hard * hard_loss + (1.0 - hard) * soft_loss).mean()
    gradient = (hard[:, None] * hard_gradient + (1.0 - hard)[:, None] * soft_gradient) / count
    return float(loss), gradient


def decays(name: str) -> bool:
    """Whether AdamW's weight decay touches a parameter: not biases, not LayerNorm."""
    return not name.endswith(".bias") and ".LayerNorm." not in name


def clip_scale(gradients: Iterable[Array], max_norm: float) -> tuple[float, float]:
    """Global L2 norm, and what clipping multiplies by: min(1, max_norm / (norm + 1e-6)), as PyTorch does."""
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
    return norm, min(1.0, max_norm / (norm + 1e-6))


def adamw_step(
    parameters: MutableMapping[str, Array],
    gradients: Parameters,
    m: MutableMapping[str, Array],
    v: MutableMapping[str, Array],
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> None:
    """One update in place; `step` counts from 1, `m` and `v` start as zeros."""
    for name, gradient in gradients.items():
        m[name] = betas[0] * m[name] + (1.0 - betas[0]) * gradient
        v[name] = betas[1] * v[name] + (1.0 - betas[1]) * gradient**2
        m_hat, v_hat = m[name] / (1.0 - betas[0] ** step), v[name] / (1.0 - betas[1] ** step)
        decay = weight_decay if decays(name) else 0.0
        parameters[name] = parameters[name] * (1.0 - lr * decay) - lr * m_hat / (np.sqrt(v_hat) + eps)


def linear_schedule_with_warmup(step: int, num_warmup_steps: int, num_training_steps: int) -> float:
    """Return the factor of the learning rate in step `step`, counted from 0."""
    if step < num_warmup_steps:
        return step / max(1, num_warmup_steps)
    return max(0.0, (num_training_steps - step) / max(1, num_training_steps - num_warmup_steps))


def finite_difference(
    function: Callable[[Array], float],
    x: Array,
    step: float = 1e-5,
    indices: Iterable[tuple[int, ...]] | None = None,
) -> Array:
    """Gradient of a scalar function at x by central differences, error O(step^2).

    With `indices` only these elements are differentiated, and the result is one-dimensional in their
    order; else it has the shape of x. `function` gets a copy that it may keep.
    """
    x = np.array(x, np.float64)
    wanted = list(np.ndindex(x.shape)) if indices is None else list(indices)
    gradient = np.empty(len(wanted))
    for place, index in enumerate(wanted):
        above, below = x.copy(), x.copy()
        above[index] += step
        below[index] -= step
        gradient[place] = (function(above) - function(below)) / (above[index] - below[index])
    return gradient if indices is not None else gradient.reshape(x.shape)


def parameter_gradient(
    loss: Callable[[Parameters], float],
    parameters: Parameters,
    name: str,
    step: float = 1e-5,
    indices: Iterable[tuple[int, ...]] | None = None,
) -> Array:
    """`finite_difference` of loss(parameters) in the parameter called `name`."""
    return finite_difference(lambda value: loss({**parameters, name: value}), parameters[name], step, indices)


def random_parameters(shapes: Mapping[str, tuple[int, ...]], std: float, seed: int) -> dict[str, Array]:
    """Float32-representable N(0, std) for everything; LayerNorm weights around 1."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, shape in shapes.items():
        centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        drawn[name] = (centre + std * rng.standard_normal(shape)).astype(np.float32).astype(np.float64)
    return drawn


def parameter_shapes(
    *,
    hidden_size: int,
    num_hidden_layers: int,
    intermediate_size: int,
    vocab_size: int,
    max_position_embeddings: int,
    type_vocab_size: int,
    num_labels: int,
) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter, as `transformers` has them."""
    c, f = hidden_size, intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (vocab_size, c),
        "bert.embeddings.position_embeddings.weight": (max_position_embeddings, c),
        "bert.embeddings.token_type_embeddings.weight": (type_vocab_size, c),
    }
    norms, linears = ["bert.embeddings.LayerNorm"], {"bert.pooler.dense": (c, c), "classifier": (num_labels, c)}
    for layer in range(num_hidden_layers):
        prefix = f"bert.encoder.layer.{layer}"
        norms += [f"{prefix}.attention.output.LayerNorm", f"{prefix}.output.LayerNorm"]
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            linears[f"{prefix}.attention.{part}"] = (c, c)
        linears[f"{prefix}.intermediate.dense"] = (f, c)
        linears[f"{prefix}.output.dense"] = (c, f)
    for name in norms:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (c,)
    for name, shape in linears.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]
    return shapes
