"""A model as a person reads it: one line, or HTML for Jupyter."""

from __future__ import annotations

from collections.abc import Sequence

from ..system.notebook import folded, html_table
from .config import shape_name
from .configuration import Config
from .head_names import LABELLED
from .initialization import WORD_EMBEDDINGS
from .layer_shapes import in_words
from .parameters import Tensor, count_parameters


def in_one_line(name: str, config: Config, layout: Sequence[Tensor], state: str) -> str:
    """Return the shape of a model in one line.

    Args:
        name: of its class.
        config: its configuration.
        layout: its tensors.
        state: such as "frozen"; "" for a model that can be trained.
    """
    heads, units = in_words(config.layer_shapes())
    pruned = "" if config.pruned_heads is None else f"heads {heads}, "
    labels = f"{config.num_labels} labels, " if config.head in LABELLED else ""
    return (
        f"{name}({shape_name(config)}, {pruned}"
        f"feed-forward {units}, vocabulary {config.vocab_size}, {labels}"
        f"{count_parameters(layout):,} parameters{state and f', {state}'})"
    )


def as_html(name: str, config: Config, layout: Sequence[Tensor], state: str, compute: str) -> str:
    """Return the shape of a model as HTML, with a folded list of all tensors.

    Args:
        name: of its class.
        config: its configuration.
        layout: its tensors.
        state: whether it can be trained.
        compute: the type of its products.
    """
    heads, units = in_words(config.layer_shapes())
    rows = [
        ("layers", config.num_hidden_layers),
        ("hidden size", config.hidden_size),
        ("attention heads", heads),
        ("feed-forward", units),
        ("vocabulary", config.vocab_size),
        ("positions", config.max_position_embeddings),
        ("labels", ", ".join(config.id2label.values())),
        ("parameters", count_parameters(layout)),
        ("of these word embeddings", next(tensor.size for tensor in layout if tensor.canonical == WORD_EMBEDDINGS)),
        ("state", state),
        ("compute type", compute),
    ]
    tensors = html_table(
        "",
        ((tensor.name, " x ".join(map(str, tensor.shape)), tensor.size) for tensor in layout),
        header=("tensor", "shape", "parameters"),
    )
    return html_table(name, rows) + folded(f"{len(layout)} tensors", tensors)
