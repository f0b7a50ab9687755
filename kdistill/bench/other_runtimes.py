"""PyTorch, ONNX Runtime and OpenVINO evaluating the same model, for comparison with kdistill.

Each runtime has variants, settings worth trying, which are loaded one by one: a variant is a `Forward`, from a padded
batch to what the model's head gives, logits or the embedding of each text. Loading a runtime or a variant raises
`ModuleNotFoundError` when a package it needs is not installed, and whatever the runtime raises for a model that it
cannot take.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.dataset import Dataset
from ..data.ragged import units_of
from ..exporters.export import export
from ..exporters.onnx_graph import END_LOGITS, LOGITS, SENTENCE_EMBEDDING, START_LOGITS
from ..models.auto import AutoConfig, answering_class
from ..models.configuration import Config
from ..models.head_names import ENCODER
from ..models.layer_shapes import FIELDS
from ..models.pooling import MEAN, Pooling
from ..models.sentence_files import read_sentence_files
from ..tasks.registry import task_for

_GIVEN = {LOGITS, START_LOGITS, END_LOGITS, SENTENCE_EMBEDDING}
"""Outputs that heads give; a graph may have others beside them."""
_EXAMPLE_TOKENS = 8  # tokens of the batch an exporter traces; any number will do


class PaddedBatch(NamedTuple):
    """Rows of similar length, padded to the longest.

    Attributes:
        rows: int64 (B,), their indices in the data set.
        ids: int64 (B, S).
        mask: int64 (B, S), 1 for a token, 0 for padding.
        full: whether all rows have S tokens, so that no mask is needed.
        types: int64 (B, S), of tokens and padding; None: all zeros.
    """

    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    full: bool
    types: NDArray[np.int64] | None = None


class CannotRunError(Exception):
    """A model of a kind that a runtime has no form for."""


Forward = Callable[[PaddedBatch], NDArray[np.float32]]
Variants = Mapping[str, Callable[[], Forward]]
"""Name of a variant -> loads it."""


def bucketed(dataset: Dataset, batch_size: int) -> list[PaddedBatch]:
    """Return all rows in batches of similar length."""
    return [padded(dataset, rows) for rows in _cut(np.argsort(dataset.lengths, kind="stable"), batch_size)]


def padded(dataset: Dataset, rows: NDArray[np.int64]) -> PaddedBatch:
    """Return the rows with these indices, int64 (B,), as one batch padded to the longest."""
    lengths = dataset.lengths[rows]
    present = np.arange(lengths.max()) < lengths[:, None]
    ids, types = np.zeros(present.shape, np.int64), np.zeros(present.shape, np.int64)
    batch = dataset.batch(rows)[0]
    ids[present], types[present] = batch.ids, batch.types
    full = bool(present.all())
    return PaddedBatch(rows, ids, present.astype(np.int64), full, types if types.any() else None)


def _cut(order: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    for first in range(0, len(order), batch_size):
        yield order[first : first + batch_size]


def forward_pass(
    forward: Forward, batches: Sequence[PaddedBatch], num_labels: int, starts: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Return the logits of all rows, float32 (rows, num_labels), in the order of the data set.

    With `starts`, where the tokens of each row begin, those of all tokens, float32 (tokens, num_labels).
    """
    count = sum(len(batch.rows) for batch in batches) if starts is None else int(starts[-1])
    logits = np.empty((count, num_labels), np.float32)
    for batch in batches:
        if starts is None:
            logits[batch.rows] = forward(batch)
        else:
            logits[units_of(starts, batch.rows)] = forward(batch)[batch.mask == 1]
    return logits


def load_torch(directory: Path) -> Any:
    """Load a model directory with transformers, in evaluation mode.

    Attention is PyTorch's fused one, the default of transformers, except for architectures that have none, as MPNet. A
    model that embeds texts gives their embeddings, `sentence_embedding`.

    Raises:
        CannotRunError: its layers differ in heads or feed-forward, or lack heads, which no class of transformers has.
    """
    if field := _of_layers(directory):
        raise CannotRunError(f"its config.json has {field}, and in transformers all layers are alike and whole")
    return _opened(directory).eval()


def _of_layers(directory: Path) -> str | None:
    """Return the field of a model directory's config.json that makes its layers differ, or lack heads."""
    config = AutoConfig.from_pretrained(directory)
    return next((field for field in FIELDS if getattr(config, field) is not None), None)


def _opened(directory: Path, **settings: Any) -> Any:
    """Return a model directory as the class of transformers that has the name of kdistill's, pooled where it pools."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # of a pooler that a model which embeds texts does without
    kind = answering_class(directory)
    model = getattr(transformers, kind.__name__).from_pretrained(directory, **settings)
    files = read_sentence_files(directory) if kind.head == ENCODER else None
    return model if files is None else _embedding(model, files.pooling)


def _embedding(encoder: Any, pooling: Pooling) -> Any:
    """Return an encoder of transformers as a module that gives the embedding of each text, as sentence-transformers."""
    import torch

    class Embedding(torch.nn.Module):  # type: ignore[misc]  # which mypy does not see
        """The encoder with its pooling."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: Any, attention_mask: Any = None, **types: Any) -> dict[str, Any]:
            states = self.encoder(input_ids, attention_mask=attention_mask, **types).last_hidden_state
            vectors = states[:, 0]
            if pooling.mode == MEAN and attention_mask is None:
                vectors = states.mean(dim=1)
            elif pooling.mode == MEAN:
                mask = attention_mask.unsqueeze(-1).to(states.dtype)
                vectors = (states * mask).sum(dim=1) / mask.sum(dim=1)
            if pooling.normalize:
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
            return {SENTENCE_EMBEDDING: vectors}

    return Embedding()


def _of_head(outputs: Mapping[str, Any], stack: Callable[..., Any]) -> Any:
    """Return what a model's head gives among named outputs: of questions both logits of each token, B x S x 2.

    Args:
        outputs: of a model of transformers, or of a graph.
        stack: (arrays, axis) -> one array.
    """
    if START_LOGITS in outputs:
        return stack([outputs[START_LOGITS], outputs[END_LOGITS]], -1)
    return outputs[SENTENCE_EMBEDDING if SENTENCE_EMBEDDING in outputs else LOGITS]


def torch_forward(model: Any, *, mask: bool = False) -> Forward:
    """Return a PyTorch module as a `Forward`. `mask` passes a mask with every batch, so that all inputs are alike."""
    import torch

    def forward(batch: PaddedBatch) -> NDArray[np.float32]:
        given = torch.from_numpy(batch.mask) if mask or not batch.full else None
        with torch.inference_mode():
            types = {} if batch.types is None else {"token_type_ids": torch.from_numpy(batch.types)}
            outputs = _of_head(model(torch.from_numpy(batch.ids), attention_mask=given, **types), torch.stack)
        values: NDArray[np.float32] = outputs.float().numpy()
        return values

    return forward


def pytorch(directory: Path, threads: int) -> Variants:
    """Return PyTorch's variants, after setting `threads` for the whole process.

    "oneDNN" has its linear layers packed for oneDNN's products, which are faster than MKL's on some CPUs and in large
    batches. It can only evaluate.
    """
    import torch

    torch.set_num_threads(threads)

    def packed() -> Forward:
        with _without_warnings():
            import torch.utils.mkldnn

            return torch_forward(torch.utils.mkldnn.to_mkldnn(load_torch(directory)))

    return {"eager": lambda: torch_forward(load_torch(directory)), "oneDNN": packed}


def export_onnx(directory: Path, target: Path, *, mask: bool = True) -> None:
    """Write a model directory as ONNX: input_ids and, with `mask`, attention_mask (int64, B x S) in, logits out.

    The output is that of a `Forward`, one array, of questions and embeddings too. Through PyTorch's tracing exporter,
    with attention in single products: the form whose parts ONNX Runtime's optimiser recognises.
    """
    import torch

    model = _opened(directory, attn_implementation="eager")

    class Traced(torch.nn.Module):  # type: ignore[misc]  # which mypy does not see
        """The model, with logits alone as its output."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any = None) -> Any:
            return _of_head(self.model(input_ids, attention_mask=attention_mask), torch.stack)

    ids = torch.ones((2, _EXAMPLE_TOKENS), dtype=torch.int64)
    attention_mask = torch.ones_like(ids)
    attention_mask[1, _EXAMPLE_TOKENS // 2 :] = 0
    inputs = {"input_ids": ids, "attention_mask": attention_mask} if mask else {"input_ids": ids}
    any_size = {0: "batch", 1: "tokens"}
    per_token = task_for(AutoConfig.from_pretrained(directory).with_head(answering_class(directory).head)).per_token
    with _without_warnings():
        torch.onnx.export(
            Traced().eval(),
            tuple(inputs.values()),
            str(target),
            dynamo=False,
            opset_version=17,
            input_names=list(inputs),
            output_names=[LOGITS],
            dynamic_axes=dict.fromkeys(inputs, any_size) | {LOGITS: any_size if per_token else {0: "batch"}},
        )


def exported_onnx(directory: Path, work: Path) -> Path:
    """Return the model directory's graph in `work`, where it is written once, see `export_onnx`.

    A model that transformers cannot open, because its layers differ or lack heads, is written by `kdistill export`.

    Raises:
        CannotRunError: a package that writes the graph is not installed, while the runtime may be.
    """
    exported = work / "exported.onnx"
    try:
        if not exported.exists() and _of_layers(directory):
            _needs("onnx")
            export(directory, exported, format="onnx")
        elif not exported.exists():
            export_onnx(directory, exported)
    except ModuleNotFoundError as error:
        raise CannotRunError(
            f"{error.name}, which writes its graph, is not installed; --export measures it with graphs of `kdistill "
            "export`"
        ) from error
    return exported


def _needs(package: str) -> None:
    """Raise ModuleNotFoundError for a package that is not installed, under its own name."""
    import importlib

    importlib.import_module(package)


def optimize_onnx(source: Path, target: Path, config: Config) -> None:
    """Apply ONNX Runtime's transformer optimiser, which fuses attention, embeddings, norms and activations.

    It knows the encoders of all architectures as "bert": it looks for patterns in the graph and leaves what fits none.

    Args:
        source: the exported model.
        target: the file to write.
        config: the model's shape.
    """
    from onnxruntime.transformers import optimizer

    # 0: the graph of each layer tells.
    heads, width = (0, 0) if config.pruned_heads else (config.num_attention_heads, config.hidden_size)
    with _without_warnings():
        model = optimizer.optimize_model(str(source), "bert", num_heads=heads, hidden_size=width, opt_level=0)
        model.save_model_to_file(str(target))


def onnx_session(path: Path, threads: int) -> Forward:
    """Return an ONNX file in ONNX Runtime, with all of its optimisations, as a `Forward`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = {given.name for given in session.get_inputs()}
    names = [made.name for made in session.get_outputs() if made.name in _GIVEN]

    def forward(batch: PaddedBatch) -> NDArray[np.float32]:
        found = session.run(names, {name: of for name, of in _inputs(batch).items() if name in wanted})
        values: NDArray[np.float32] = _of_head(dict(zip(names, found, strict=True)), np.stack)
        return values

    return forward


def _inputs(batch: PaddedBatch) -> dict[str, NDArray[np.int64]]:
    """Return a batch under the names that graphs may have."""
    types = np.zeros_like(batch.ids) if batch.types is None else batch.types
    return {"input_ids": batch.ids, "attention_mask": batch.mask, "token_type_ids": types}


def onnx_runtime(directory: Path, threads: int, work: Path) -> Variants:
    """Return ONNX Runtime's variants: the exported graph, with and without the transformer optimiser.

    Which is faster depends on the batch. Their files are written into `work`.
    """
    import onnxruntime  # noqa: F401  # to fail before the export, which takes seconds

    exported, optimized = exported_onnx(directory, work), work / "optimised.onnx"

    def optimised() -> Forward:
        optimize_onnx(exported, optimized, AutoConfig.from_pretrained(directory))
        return onnx_session(optimized, threads)

    return {"exported": lambda: onnx_session(exported, threads), "optimised": optimised}


def openvino(directory: Path, threads: int, work: Path) -> Variants:
    """Return OpenVINO's one variant: the graph that is exported into `work`, with the hint for a request at a time."""
    import openvino as runtime  # noqa: F401  # to fail before the export, which takes seconds

    exported = exported_onnx(directory, work)
    return {
        "latency": lambda: openvino_forward(openvino_graph(exported, threads, hint={"PERFORMANCE_HINT": "LATENCY"}))
    }


def openvino_graph(path: Path, threads: int, precision: str = "f32", *, hint: Mapping[str, Any]) -> Any:
    """Return a graph's file compiled by OpenVINO.

    Args:
        path: the file.
        threads: of all streams together.
        precision: "f32" or "bf16", the type of products; OpenVINO's own choice is bf16 on CPUs that support it.
        hint: settings for one request at a time or for several.
    """
    import openvino as runtime

    # With one thread the caller may choose the core; OpenVINO would take the first.
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, **hint}
    settings |= {"ENABLE_CPU_PINNING": threads > 1}
    return runtime.Core().compile_model(str(path), "CPU", settings)


def openvino_forward(graph: Any) -> Forward:
    """Return a graph that OpenVINO has compiled as a `Forward`, for one request at a time."""
    request = graph.create_infer_request()
    wanted = {given.get_any_name() for given in graph.inputs}
    names = [min(made.get_names() & _GIVEN, default="") for made in graph.outputs]  # the runtime adds names of its own

    def forward(batch: PaddedBatch) -> NDArray[np.float32]:
        inputs = {name: of for name, of in _inputs(batch).items() if name in wanted}
        found = request.infer(inputs, share_inputs=True, share_outputs=True).values()
        values: NDArray[np.float32] = _of_head(dict(zip(names, found, strict=True)), np.stack)
        return values

    return forward


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence the exporters' warnings about tracing and deprecation, which do not matter for a measurement."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
