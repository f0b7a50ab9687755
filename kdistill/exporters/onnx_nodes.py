"""`Nodes`: the nodes and constants of an ONNX graph, put down one behind the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Nodes:
    """What a graph computes. Every method puts something into it and returns the name of its value.

    Args:
        dtype: the type of floating-point numbers, "float32" or "float16".

    Attributes:
        nodes: in the order they are computed.
        constants: name -> values, in the graph's initializers.
        shapes: value -> its shape, where a reader of the graph cannot infer it.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = np.dtype(dtype)
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.shapes: dict[str, list[str | int]] = {}
        self._scope = ""
        self._used: Counter[str] = Counter()

    def within(self, scope: str) -> None:
        """Let the names of further nodes begin with `scope`."""
        self._scope = scope

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output.

        Args:
            kind: the operator.
            inputs: names of values.
            output: the name of its value (default: that of the node).
            attributes: of the operator.
        """
        name = self._free(f"{self._scope}/{kind}")
        return self._add(kind, inputs, [output or name], name, attributes)[0]

    def split(self, value: str, outputs: Sequence[str]) -> None:
        """Cut the last axis of a value, as wide as there are `outputs`, into columns of these names."""
        columns = [f"{output}/column" for output in outputs]
        widths = [1] * len(outputs)
        self._add("Split", [value], columns, self._free(f"{self._scope}/Split"), {"axis": -1, "split": widths})
        for column, output in zip(columns, outputs, strict=True):
            self.add("Squeeze", column, axes=[-1], output=output)

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant once; floating-point numbers take the graph's type.

        Raises:
            ValueError: a number is not finite, or does not fit into it.
        """
        if name not in self.constants:
            if values.dtype.kind == "f":
                if not np.isfinite(values).all():
                    raise ValueError(
                        f"{name} has numbers that are not finite; expected a model whose training did not diverge"
                    )
                with np.errstate(over="ignore"):
                    kept = values.astype(self.dtype)
                if not np.isfinite(kept).all():
                    raise ValueError(f"{name} has numbers beyond the range of {self.dtype}; expected dtype='float32'")
                values = kept
            self.constants[name] = np.asarray(values, order="C")
        return name

    def number(self, value: float, dtype: str | None = None) -> str:
        """Add a floating-point scalar, of the graph's type unless another one is given."""
        number = np.array(value, dtype or self.dtype)
        name = f"number/{value!r}" if number.dtype == self.dtype else f"number/{value!r}/{number.dtype}"
        self.constants[name] = number
        return name

    def integer(self, value: int) -> str:
        """Add a whole number, int64 ()."""
        return self.constant(f"integer/{value}", np.array(value, np.int64))

    def ints(self, values: Sequence[int]) -> str:
        """Add whole numbers, int64 (n,): a shape or places."""
        return self.constant(f"integers/{'_'.join(map(str, values))}", np.array(values, np.int64))

    def _free(self, name: str) -> str:
        self._used[name] += 1
        return name if self._used[name] == 1 else f"{name}_{self._used[name] - 1}"

    def _add(
        self, kind: str, inputs: Sequence[str], outputs: list[str], name: str, attributes: dict[str, Any]
    ) -> list[str]:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name, **attributes))
        return outputs
