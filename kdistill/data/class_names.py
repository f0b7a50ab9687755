"""Find the names that a source states for its labels: `datasets.ClassLabel`, in its features or in Arrow's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_KEY = b"huggingface"  # of a schema's metadata, where datasets writes its features
CLASS_NAMES = "class_names"
"""Of a schema's metadata: the names of the labels 0, 1, ... by column, an object in JSON."""
LABEL_NAMES = "label_names"
"""Of a schema's metadata: the names of the outputs that a teacher's answers are in the order of, a list in JSON."""


def class_names_of_features(features: Mapping[str, Any] | None) -> dict[str, Sequence[str]]:
    """Return the names of the labels 0, 1, ... by column, for columns of class labels or of lists of them.

    Args:
        features: a `datasets.Features`, or what datasets writes of one as JSON.
    """
    names = {column: _names(feature) for column, feature in (features or {}).items()}
    return {column: of for column, of in names.items() if of is not None}


def class_names_of_schema(schema: Any) -> dict[str, Sequence[str]]:
    """Return the same of a pyarrow schema, in which datasets keeps its features, also in Parquet files.

    And those that `kdistill label` writes: under `CLASS_NAMES` by column, under `LABEL_NAMES` those of a teacher.
    """
    metadata = getattr(schema, "metadata", None) or {}
    by_column = _json_of(metadata.get(CLASS_NAMES.encode()))
    of_columns = by_column if isinstance(by_column, dict) else {}
    own = {**of_columns, LABEL_NAMES: _json_of(metadata.get(LABEL_NAMES.encode()))}
    named = {column: tuple(names) for column, names in own.items() if _is_list_of_names(names)}
    return _of_features_in(metadata) | named


def _json_of(content: bytes | None) -> Any:
    try:
        return None if content is None else json.loads(content)
    except (ValueError, RecursionError):  # another program's
        return None


def _is_list_of_names(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _of_features_in(metadata: Mapping[bytes, bytes]) -> dict[str, Sequence[str]]:
    content = metadata.get(_KEY)
    if content is None:
        return {}
    try:
        features = json.loads(content)["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}  # another program's metadata: the labels have no names then
    return class_names_of_features(features) if isinstance(features, Mapping) else {}


def _names(feature: Any) -> Sequence[str] | None:
    """Return the class names of a feature, or of the elements of a list."""
    while feature is not None:
        if isinstance(feature, list):  # [ClassLabel(...)], an older way to write a list
            feature = feature[0] if feature else None
            continue
        names, inner = (
            (feature.get("names"), feature.get("feature"))
            if isinstance(feature, Mapping)
            else (getattr(feature, "names", None), getattr(feature, "feature", None))
        )
        if isinstance(names, Sequence) and not isinstance(names, str) and all(isinstance(name, str) for name in names):
            return tuple(names)
        feature = inner
    return None
