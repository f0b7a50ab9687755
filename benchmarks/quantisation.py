"""How much products in bfloat16 and int8 change what real models answer, and what remedies for large activations bring.

The products of encoder and head are simulated in PyTorch as docs/numerics.md defines them, with exact sums of integers;
attention, norms, GELU and embeddings stay float32. `--task NAME MODEL TRAIN EVAL` names a model directory and its rows
(CSV, TSV or JSON lines), and may be repeated. A model without a classifier is compared by its mean-pooled sentences;
its rows are pairs with a score of their likeness. What a remedy chooses on data, it chooses on rows of TRAIN.

Two tables a model: the figures of each scheme, and for each product how large the largest activation of a row is.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor

from . import common

LEVELS = 127
TINY = torch.finfo(torch.float32).tiny
GELU_FLOOR = -0.17  # GELU is never below
CLIPPED = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)  # shares of a maximum that least squares tries
CAPS = (1.0, 0.99, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1)  # quantiles of the rows' maxima that are tried as a cap
SAMPLE = 1024  # tokens that a remedy is chosen on
SPREAD_ROWS = 256
BATCH = 32

# Names of modules in BERT and in MPNet.
KINDS: Mapping[str, str] = {
    "query": r"attention\.(self\.query|attn\.q)$",
    "key": r"attention\.(self\.key|attn\.k)$",
    "value": r"attention\.(self\.value|attn\.v)$",
    "attention output": r"attention\.(output\.dense|attn\.o)$",
    "up": r"intermediate\.dense$",
    "down": r"layer\.\d+\.output\.dense$",
    "head's dense": r"pooler\.dense$",
    "classifier": r"^classifier$",
}
READERS = {"query", "key", "value"}  # read the same rows, which are quantised once for all three
HEAD = {"head's dense", "classifier"}


@dataclass(frozen=True)
class Scheme:
    """A way to compute a product; the defaults are int8 as numerics.md defines it.

    Attributes:
        activations: where a row's scale comes from. "row": its largest value; "quantile": its 99.9 % quantile;
            "least squares": the clipping that changes the row least; "cap": its largest value, or a constant of the
            product where that is smaller; "float": rows stay as they are.
        weights: the same for each output channel: "row", "least squares" or "float".
        migrated: whether factors make the columns of activations more alike and are taken back in the weights
            (SmoothQuant with alpha 0.5, Xiao et al. 2022, arXiv:2211.10438).
        down: levels of the input of `down`, which is one-sided. "signed": as all others; "minimum": 256 levels above
            each row's minimum; "floor": 256 levels above -0.17.
        group: columns of the input of `down` that share a scale within a row; 0: all.
    """

    activations: str = "row"
    weights: str = "row"
    migrated: bool = False
    down: str = "signed"
    group: int = 0


INT8 = Scheme()
BFLOAT16 = Scheme("bfloat16", "bfloat16")


def largest(x: Tensor) -> Tensor:
    """Return the largest |x| of each row, (N, 1), not 0."""
    return x.abs().amax(dim=1, keepdim=True).clamp_min(TINY)


def least_squares(x: Tensor) -> Tensor:
    """Return the maximum at which clipping and rounding change each row least, (N, 1)."""
    whole = largest(x)
    best, error = whole, torch.full_like(whole, torch.inf)
    for share in CLIPPED:
        q, scale = signed(x, whole * share)
        wrong = (q * scale - x).square().sum(dim=1, keepdim=True)
        best, error = torch.where(wrong < error, whole * share, best), torch.minimum(wrong, error)
    return best


def signed(x: Tensor, maximum: Tensor) -> tuple[Tensor, Tensor]:
    """Return x (N, K) in levels from -127 to 127, int8, and the scale of each row (N, 1)."""
    scale = maximum / LEVELS
    return (x / scale).round().clamp(-LEVELS, LEVELS).to(torch.int8), scale


def one_sided(x: Tensor, floor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return x (N, K) in 256 levels above the floor (N, 1): int8, the scale and what 0 stands for, both (N, 1)."""
    scale = (x.amax(dim=1, keepdim=True) - floor).clamp_min(TINY) / 255
    return (((x - floor) / scale).round().clamp(0, 255) - 128).to(torch.int8), scale, floor + 128 * scale


class Packed(NamedTuple):
    """A weight ready for a scheme.

    Attributes:
        whole: (M, K), int8, or float32 where the scheme leaves weights alone.
        scale: (M,).
        factors: (K,), what columns of activations are divided by; None: nothing.
        cap: of a row's maximum.
    """

    whole: Tensor
    scale: Tensor
    factors: Tensor | None
    cap: float = float("inf")


class Product(torch.nn.Module):
    """A linear layer in the place of PyTorch's, computed by a scheme.

    Args:
        layer: the layer it replaces.
        kind: one of KINDS.
        number: of the encoder's layer; -1 in the head.
    """

    def __init__(self, layer: torch.nn.Linear, kind: str, number: int) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight.detach(), layer.bias.detach()
        self.kind, self.number = kind, number
        self.packed: Packed | None = None
        self.scheme: Scheme | None = None
        self.sample = torch.empty(0, self.weight.shape[1])  # rows it reads in the training data
        self.same_rows = [self]  # the products that read the same rows
        self.listener: Callable[[Product, Tensor], None] | None = None

    def use(self, scheme: Scheme | None) -> None:
        """Compute by a scheme from now on; None: float32."""
        self.scheme = scheme
        if scheme is None or scheme == BFLOAT16:
            return
        factors = self._factors() if scheme.migrated else None
        weight = self.weight if factors is None else self.weight * factors
        if scheme.weights == "float":
            self.packed = Packed(weight, torch.ones(len(weight)), factors)
        else:
            maximum = least_squares(weight) if scheme.weights == "least squares" else largest(weight)
            whole, scale = signed(weight, maximum)
            self.packed = Packed(whole, scale.flatten(), factors)
        if scheme.activations == "cap":
            self.packed = self._best_cap(self.packed)

    def _factors(self) -> Tensor:
        columns = self.sample.abs().amax(dim=0).clamp_min(1e-5)
        weights = torch.stack([product.weight.abs().amax(dim=0) for product in self.same_rows]).amax(dim=0)
        return (columns / weights.clamp_min(1e-5)).sqrt()

    def _best_cap(self, packed: Packed) -> Packed:
        exact = torch.nn.functional.linear(self.sample, self.weight, self.bias)
        maxima = largest(self.sample).flatten()

        def error(capped: Packed) -> float:
            self.packed = capped
            return float((self.computed(self.sample) - exact).square().sum())

        return min((packed._replace(cap=float(torch.quantile(maxima, quantile))) for quantile in CAPS), key=error)

    def quantised(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return activations (N, K) as int8, their scales (N, 1), and what 0 stands for (N, 1) unless that is 0."""
        assert self.scheme is not None
        assert self.packed is not None
        if self.kind == "down" and self.scheme.down != "signed":
            minimum = x.amin(dim=1, keepdim=True)
            return one_sided(x, minimum if self.scheme.down == "minimum" else torch.full_like(minimum, GELU_FLOOR))
        if self.scheme.activations == "quantile":
            maximum = torch.quantile(x.abs(), 0.999, dim=1, keepdim=True).clamp_min(TINY)
        elif self.scheme.activations == "least squares":
            maximum = least_squares(x)
        else:
            maximum = largest(x).clamp_max(self.packed.cap)
        return *signed(x, maximum), None

    def computed(self, x: Tensor) -> Tensor:
        """Return the product of rows x (N, K) by the scheme, (N, M)."""
        if self.scheme is None:
            return torch.nn.functional.linear(x, self.weight, self.bias)
        if self.scheme == BFLOAT16:
            return torch.nn.functional.linear(x.bfloat16().float(), self.weight.bfloat16().float(), self.bias)
        assert self.packed is not None
        whole, scale, factors, _ = self.packed
        x = x if factors is None else x / factors
        if self.scheme.activations == "float":
            return x @ (whole.float() * scale[:, None]).T + self.bias
        width = self.scheme.group if self.scheme.group and self.kind == "down" else x.shape[1]
        found = self.bias
        for start in range(0, x.shape[1], width):
            a, a_scale, zero = self.quantised(x[:, start : start + width])
            w = whole[:, start : start + width]
            sums = a.float() @ w.T if self.scheme.weights == "float" else torch._int_mm(a, w.T).float()
            found = found + sums * (a_scale * scale)
            if zero is not None:
                found = found + zero * (w.float().sum(dim=1) * scale)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return the product of x (..., K), (..., M)."""
        rows = x.reshape(-1, x.shape[-1])
        if self.listener is not None:
            self.listener(self, rows)
        return self.computed(rows).reshape(*x.shape[:-1], -1)


Which = Callable[[Product], bool]


def schemes(layers: int) -> dict[str, tuple[Scheme, Which]]:
    """Return what is compared on an encoder with so many layers: a scheme, and which products it computes.

    All others are float32.
    """

    def everywhere(product: Product) -> bool:
        return True

    compared: dict[str, tuple[Scheme, Which]] = {
        "bfloat16": (BFLOAT16, everywhere),
        "int8": (INT8, everywhere),
        "int8 weights, float32 activations": (Scheme(activations="float"), everywhere),
        "int8 activations, float32 weights": (Scheme(weights="float"), everywhere),
        "head in float32": (INT8, lambda product: product.kind not in HEAD),
        "head and last layer in float32": (INT8, lambda product: 0 <= product.number < layers - 1),
        "down in float32": (INT8, lambda product: product.kind != "down"),
        "clipped at the row's 99.9 %": (Scheme(activations="quantile"), everywhere),
        "clipped by least squares": (Scheme(activations="least squares"), everywhere),
        "cap chosen on data": (Scheme(activations="cap"), everywhere),
        "scales migrated": (Scheme(migrated=True), everywhere),
        "weights clipped by least squares": (Scheme(weights="least squares"), everywhere),
        "down above the row's minimum": (Scheme(down="minimum"), everywhere),
        "down above -0.17": (Scheme(down="floor"), everywhere),
        "down in groups of 384": (Scheme(group=384), everywhere),
        "scales migrated, down above -0.17": (Scheme(migrated=True, down="floor"), everywhere),
    }
    for name in KINDS:
        compared[f"only {name}"] = INT8, lambda product, name=name: product.kind == name
    return compared


class Task(NamedTuple):
    """A model with its rows, as `--task` gives it."""

    name: str
    model: str
    train: str
    eval: str


class Rows(NamedTuple):
    """Rows of a file: texts or pairs of texts, and labels as the file has them."""

    first: list[str]
    second: list[str] | None
    labels: list[Any]


def read(path: str, count: int) -> Rows:
    """Return so many rows of a file, spread evenly over it (0: all)."""
    if path.endswith(".jsonl"):
        frame = pd.read_json(path, lines=True)
    else:
        frame = pd.read_csv(path, sep="\t" if path.endswith(".tsv") else ",", keep_default_na=False)
    if count:
        frame = frame.iloc[np.unique(np.linspace(0, len(frame) - 1, min(count, len(frame))).astype(int))]
    texts = [column for column in ("sentence", "text", "sentence1", "sentence2") if column in frame]
    second = list(frame[texts[1]]) if len(texts) > 1 else None
    return Rows(list(frame[texts[0]]), second, list(frame["labels" if "labels" in frame else "label"]))


class Subject:
    """A model whose products are simulated.

    Args:
        directory: of the model.
        max_length: tokens of a row.
    """

    def __init__(self, directory: str, max_length: int) -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        self.config = transformers.AutoConfig.from_pretrained(directory)
        self.encoder = "SequenceClassification" not in self.config.architectures[0]
        kind = transformers.AutoModel if self.encoder else transformers.AutoModelForSequenceClassification
        self.model = kind.from_pretrained(directory, dtype=torch.float32).eval()
        self.max_length = max_length
        self.mask = torch.empty(0, dtype=torch.bool)  # of the batch that is computed, (B, S)
        self.products = list(self._replace_products())
        for product in self.products:
            if product.kind in READERS:
                product.same_rows = [p for p in self.products if p.kind in READERS and p.number == product.number]

    def _replace_products(self) -> Iterator[Product]:
        modules = dict(self.model.named_modules())
        for name, module in modules.items():
            kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), None)
            if kind is None or (self.encoder and kind in HEAD):
                continue
            layer = re.search(r"layer\.(\d+)\.", name)
            product = Product(module, kind, int(layer[1]) if layer else -1)
            parent, _, child = name.rpartition(".")
            setattr(modules[parent], child, product)
            yield product

    def use(self, scheme: Scheme | None, which: Which) -> None:
        """Compute the chosen products by a scheme and all others in float32."""
        for product in self.products:
            product.use(scheme if which(product) else None)

    def outputs(self, rows: Rows) -> NDArray[np.float32]:
        """Return logits (rows, K); of an encoder the embeddings of the first texts, then of the second ones (rows, C).

        An embedding is the mean over the tokens, with length 1.
        """
        pairs = None if self.encoder else rows.second
        texts = [*rows.first, *(rows.second or [])] if self.encoder else rows.first
        given = self.tokenizer(texts, pairs, truncation=True, max_length=self.max_length)
        order = np.argsort([len(ids) for ids in given["input_ids"]], kind="stable")
        found: list[NDArray[np.float32]] = []
        for start in range(0, len(order), BATCH):
            chosen = [{name: values[i] for name, values in given.items()} for i in order[start : start + BATCH]]
            found.append(self._batch(self.tokenizer.pad(chosen, return_tensors="pt")).numpy())
        return np.concatenate(found)[np.argsort(order)]

    def _batch(self, padded: Mapping[str, Tensor]) -> Tensor:
        self.mask = padded["attention_mask"].bool()
        with torch.inference_mode():
            found = self.model(**padded)
            if not self.encoder:
                return found.logits
            kept = self.mask[..., None].float()
            return torch.nn.functional.normalize((found.last_hidden_state * kept).sum(1), dim=1)

    @contextmanager
    def listening(self, listener: Callable[[Product, Tensor], None]) -> Iterator[None]:
        """Call `listener(product, rows)` with the rows (N, K) that each product reads, without those of padding."""

        def heard(product: Product, rows: Tensor) -> None:
            listener(product, rows if product.kind in HEAD else rows[self.mask.flatten()])

        for product in self.products:
            product.listener = heard
        yield
        for product in self.products:
            product.listener = None

    def calibrate(self, rows: Rows) -> None:
        """Keep a sample of the rows that each product reads."""
        heard: dict[Product, list[Tensor]] = {product: [] for product in self.products}
        with self.listening(lambda product, x: heard[product].append(x)):
            self.outputs(rows)
        for product, parts in heard.items():
            tokens = torch.cat(parts)
            product.sample = tokens[:: max(1, len(tokens) // SAMPLE)]


def divergence(exact: NDArray[np.float32], found: NDArray[np.float32], *, labels: bool) -> float:
    """Return the mean KL divergence of the answer from float32's: of one distribution, or summed over the labels."""
    a, b = torch.from_numpy(exact).double(), torch.from_numpy(found).double()
    if labels:
        a, b = torch.stack([a, -a], dim=-1), torch.stack([b, -b], dim=-1)
        a, b = torch.nn.functional.logsigmoid(a).flatten(1), torch.nn.functional.logsigmoid(b).flatten(1)
    else:
        a, b = torch.log_softmax(a, dim=1), torch.log_softmax(b, dim=1)
    return float((a.exp() * (a - b)).sum(dim=1).mean())


def rank_correlation(scores: NDArray[np.float32], rows: Rows) -> float:
    """Return Spearman's rho of scores (rows,) with the labels."""
    return float(scipy.stats.spearmanr(scores, np.asarray(rows.labels, float)).statistic)


def of_embeddings(exact: NDArray[np.float32], found: NDArray[np.float32], rows: Rows) -> dict[str, Any]:
    """Return the figures of embeddings of unit length; they agree where a text's nearest neighbour is the same."""
    first, second = np.split(found, 2)
    cosines, nearest = (exact * found).sum(axis=1), []
    for queries in (exact, found):
        likeness = queries @ exact.T
        np.fill_diagonal(likeness, -1)
        nearest.append(likeness.argmax(axis=1))
    return {
        "rho": rank_correlation((first * second).sum(axis=1), rows),
        "agreement": float((nearest[0] == nearest[1]).mean()),
        "mean cosine": f"{cosines.mean():.5f}",
        "least cosine": f"{cosines.min():.4f}",
    }


def figures(subject: Subject, exact: NDArray[np.float32], found: NDArray[np.float32], rows: Rows) -> dict[str, Any]:
    """Return the figures of a scheme's outputs, beside the outputs of float32."""
    if subject.encoder:
        return of_embeddings(exact, found, rows)
    difference = {"largest difference": float(np.abs(exact - found).max())}
    problem = getattr(subject.config, "problem_type", None)
    if problem == "regression":
        return {"rho": rank_correlation(found[:, 0], rows), **difference}
    several = problem == "multi_label_classification"
    if several:
        threshold = (getattr(subject.config, "kdistill", None) or {}).get("threshold", 0.5)
        cut = np.log(threshold / (1 - threshold))
        answers, before = found > cut, exact > cut
        right = [
            set(np.flatnonzero(answer)) == set(labels) for answer, labels in zip(answers, rows.labels, strict=True)
        ]
        same = (answers == before).all(axis=1)
    else:
        names = subject.config.label2id
        right = found.argmax(axis=1) == [int(names.get(str(label), label)) for label in rows.labels]
        same = found.argmax(axis=1) == exact.argmax(axis=1)
    kl = divergence(exact, found, labels=several)
    return {"right": int(np.sum(right)), "agreement": float(same.mean()), "mean KL": kl, **difference}


def spreads(subject: Subject, rows: Rows) -> list[tuple[object, ...]]:
    """Return a line for each product: largest over median activation, its column, and decibels of int8."""
    heard: dict[Product, list[tuple[Tensor, Tensor]]] = {product: [] for product in subject.products}
    power = {product: [0.0, 0.0] for product in subject.products}  # of the exact product, of what int8 adds to it

    def listen(product: Product, x: Tensor) -> None:
        size, columns = x.abs().max(dim=1)
        heard[product].append((size / x.abs().median(dim=1).values.clamp_min(TINY), columns))
        exact = torch.nn.functional.linear(x, product.weight, product.bias)
        power[product][0] += float((exact - product.bias).square().sum())
        power[product][1] += float((product.computed(x) - exact).square().sum())

    subject.use(INT8, lambda product: True)
    with subject.listening(listen):
        subject.outputs(rows)
    lines: list[tuple[object, ...]] = []
    for product, parts in heard.items():
        ratios, columns = (torch.cat(part) for part in zip(*parts, strict=True))
        column = int(columns[ratios.argmax()])
        signal, noise = power[product]
        lines.append((
            product.kind, product.number, float(ratios.median()), float(ratios.quantile(0.99)), float(ratios.max()),
            str(column), float((ratios > 60).float().mean()), 10 * float(np.log10(signal / noise)),
        ))  # fmt: skip
    return lines


def measure(options: argparse.Namespace, task: Task) -> dict[str, Any]:
    """Return all figures of a model."""
    subject = Subject(task.model, options.max_length)
    rows = read(task.eval, options.rows)
    subject.calibrate(read(task.train, options.calibration_rows))
    exact = subject.outputs(rows)
    results = {"float32": figures(subject, exact, exact, rows)}
    for name, (scheme, which) in schemes(subject.config.num_hidden_layers).items():
        if name in options.schemes and any(map(which, subject.products)):
            subject.use(scheme, which)
            results[name] = figures(subject, exact, subject.outputs(rows), rows)
            print(task.name, name, results[name], sep="\t", file=sys.stderr, flush=True)
    return {
        "schemes": results,
        "spreads": spreads(subject, read(task.eval, min(options.rows or SPREAD_ROWS, SPREAD_ROWS))),
    }


def main() -> None:
    """Read the options."""
    parser = common.parser(__doc__)
    parser.add_argument("--task", nargs=4, action="append", required=True, metavar=("NAME", "MODEL", "TRAIN", "EVAL"))
    parser.add_argument("--rows", type=int, default=0, help="use only so many of the evaluation rows (0: all)")
    parser.add_argument("--calibration-rows", type=int, default=128, help="training rows that remedies are chosen on")
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a row")
    names = list(schemes(0))
    parser.add_argument("--schemes", nargs="+", choices=names, default=names, metavar="NAME", help="lines of the table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    measured = {task.name: measure(options, task) for task in (Task(*words) for words in options.task)}
    parts = []
    for name, found in measured.items():
        columns = list(found["schemes"]["float32"])
        lines = [(label, *(result[column] for column in columns)) for label, result in found["schemes"].items()]
        parts.append(f"### {name}\n\n{common.table(['products', *columns], lines)}")
        header = ["product", "layer", "max / median", "its 99 %", "its largest", "column", "rows above 60", "dB"]
        parts.append(common.table(header, found["spreads"]))
    common.report("bfloat16 and int8 on real models", "\n\n".join(parts), measured, options)


if __name__ == "__main__":
    main()
