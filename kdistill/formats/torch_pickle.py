"""An interpreter for pickles of tensors: the few opcodes that torch.save writes, none of which can run code.

Python's pickle module calls any function that a file names. Here the names are a closed list, and calling one builds a
description of a tensor. Opcodes: docstrings of Lib/pickletools.py; objects: torch/serialization.py and torch/_utils.py.
Every loop is bounded by the length of the input, nothing recurses, and containers are never expanded, so cycles and
nested references cost no more than their bytes in the file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_PICKLE_BYTES = 16 << 20  # BERT-large needs 60 kB
_MAX_OPERATIONS = 1_000_000  # BERT-large needs 25 thousand

# Storage classes by their names in torch, and the element types they hold (named as in safetensors).
STORAGE_TYPES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL",
}  # fmt: skip
_ORDERED_DICT = ("collections", "OrderedDict")
_REBUILD_TENSOR = ("torch._utils", "_rebuild_tensor_v2")
_REBUILD_PARAMETER = ("torch._utils", "_rebuild_parameter")
_ALLOWED = {_ORDERED_DICT, _REBUILD_TENSOR, _REBUILD_PARAMETER, *(("torch", name) for name in STORAGE_TYPES)}


@dataclass(frozen=True)
class Global:
    """A function or class of the allowed list, not yet called."""

    module: str
    name: str


@dataclass(frozen=True)
class StorageRef:
    """A storage by its key in the file; `view` is (first element, number of elements) of a part of it, or None."""

    key: str
    element_type: str
    numel: int
    view: tuple[int, int] | None = None


@dataclass(frozen=True)
class TensorRef:
    """A tensor by its storage; `offset`, `shape` and `strides` count elements and are not checked yet."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load(data: bytes | memoryview, start: int = 0) -> tuple[Any, int]:
    """Interpret the pickle that begins at `start`.

    Args:
        data: the file's bytes.
        start: the position of the pickle's first byte.

    Returns:
        Its value and the position after its end. A value consists of None, bool, int, float, str, tuple, list, dict,
        `Global`, `StorageRef` and `TensorRef`.

    Raises:
        ValueError: the pickle is truncated or malformed, or has an opcode or a name that is not allowed.
    """
    machine = _Machine(memoryview(data)[: start + MAX_PICKLE_BYTES], start)
    for _ in range(_MAX_OPERATIONS):
        opcode = machine.byte()
        if opcode == _STOP:
            return machine.pop(), machine.position
        operation = _OPERATIONS.get(opcode)
        if operation is None:
            raise ValueError(f"opcode {bytes([opcode])!r} at byte {machine.position - 1} is not one that tensors need")
        operation(machine)
    raise ValueError(f"more than {_MAX_OPERATIONS} operations; no state dict needs as many")


class _Mark:
    """The object that the opcode MARK pushes."""


_MARK = _Mark()


@dataclass
class _Machine:
    data: memoryview
    position: int
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def take(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self.data):
            raise ValueError(f"ends in the middle of an operation, or is longer than {MAX_PICKLE_BYTES} bytes")
        self.position, begin = end, self.position
        return self.data[begin:end]

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        """Take text up to a newline, as in the opcode GLOBAL."""
        characters = bytearray()
        while (character := self.byte()) != 0x0A:
            characters.append(character)
        return characters.decode("utf-8")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def peek(self) -> Any:
        """Return the topmost value. A mark does not count as one."""
        if not self.stack or self.stack[-1] is _MARK:
            raise ValueError(f"takes a value from an empty stack at byte {self.position - 1}")
        return self.stack[-1]

    def pop(self) -> Any:
        value = self.peek()
        self.stack.pop()
        return value

    def pop_to_mark(self) -> list[Any]:
        for depth in range(len(self.stack) - 1, -1, -1):
            if self.stack[depth] is _MARK:
                values = self.stack[depth + 1 :]
                del self.stack[depth:]
                return values
        raise ValueError(f"looks for a mark that is not there at byte {self.position - 1}")

    def pop_many(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

    def top(self, kind: type) -> Any:
        """Return the topmost value, which an operation is about to fill, and leave it on the stack."""
        value = self.peek()
        if type(value) is not kind:
            raise ValueError(f"fills a {type(value).__name__} as if it were a {kind.__name__}")
        return value

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError(f"refers to the object {index}, which it has not made")
        self.push(self.memo[index])

    def memoize(self, index: int) -> None:
        self.memo[index] = self.peek()

    def set_items(self, values: list[Any]) -> None:
        target = self.top(dict)
        if len(values) % 2:
            raise ValueError("sets a key without a value")
        _fill(target, zip(values[::2], values[1::2], strict=True))

    def find_global(self) -> None:
        name = (self.line(), self.line())
        if name not in _ALLOWED:
            raise ValueError(f"names {'.'.join(name)!r}; a file of weights needs only tensors, so this could run code")
        self.push(Global(*name))

    def reduce(self) -> None:
        function, arguments = self.pop_many(2)
        if not isinstance(function, Global) or type(arguments) is not tuple:
            raise ValueError(f"calls a {type(function).__name__} with a {type(arguments).__name__}")
        name = (function.module, function.name)
        if name == _ORDERED_DICT:
            self.push(_ordered_dict(arguments))
        elif name == _REBUILD_TENSOR:
            self.push(_rebuild_tensor(arguments))
        elif name == _REBUILD_PARAMETER and len(arguments) == 3 and isinstance(arguments[0], TensorRef):
            self.push(arguments[0])
        else:
            raise ValueError(f"calls {function.name} with arguments it does not take")

    def build(self) -> None:
        """Drop the attributes to set: a state dict sets its `_metadata`, which does not concern the tensors."""
        if type(self.pop()) is not dict:
            raise ValueError("sets attributes from something other than a dict")
        self.top(dict)

    def persistent(self) -> None:
        self.push(_storage(self.pop()))


def _fill(target: dict[Any, Any], pairs: Any) -> None:
    """Set the pairs in `target`. Keys must be plain, because hashing a deep tuple recurses in C without a limit."""
    for key, value in pairs:
        if not isinstance(key, (str, int)):
            raise ValueError(f"uses a {type(key).__name__} as a key; expected a str or an int")
        target[key] = value


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Build an OrderedDict from no arguments, or from a list of pairs as Python 2 wrote it."""
    pairs = arguments[0] if len(arguments) == 1 else []
    if len(arguments) > 1 or type(pairs) is not list or any(type(p) not in (list, tuple) or len(p) != 2 for p in pairs):
        raise ValueError("calls OrderedDict with arguments it does not take")
    result: dict[Any, Any] = {}
    _fill(result, pairs)
    return result


def _rebuild_tensor(arguments: tuple[Any, ...]) -> TensorRef:
    """Describe a tensor from (storage, offset, size, stride, requires_grad, backward_hooks[, metadata])."""
    if len(arguments) in (6, 7) and isinstance(arguments[0], StorageRef):
        storage, offset, shape, strides = arguments[:4]
        if type(offset) is int and _are_integers(shape) and _are_integers(strides):
            return TensorRef(storage, offset, shape, strides)
    raise ValueError("rebuilds a tensor from malformed arguments")


def _storage(identifier: Any) -> StorageRef:
    """Describe a storage from ("storage", class, key, location, number of elements[, view]).

    view is (key, offset, size) or None.
    """
    if type(identifier) is tuple and len(identifier) in (5, 6):
        kind, storage_class, key, _location, numel, *rest = identifier
        if kind == "storage" and isinstance(storage_class, Global) and storage_class.name in STORAGE_TYPES:
            view = _view(rest[0]) if rest and rest[0] is not None else None
            if type(key) is str and type(numel) is int:
                return StorageRef(key, STORAGE_TYPES[storage_class.name], numel, view)
    raise ValueError("gives a malformed reference to a storage")


def _view(value: Any) -> tuple[int, int]:
    if type(value) is tuple and len(value) == 3 and _are_integers(value[1:]):
        return value[1], value[2]
    raise ValueError("gives a malformed view of a storage")


def _are_integers(value: Any) -> bool:
    return type(value) is tuple and all(type(item) is int for item in value)


def _text(machine: _Machine, layout: str) -> None:
    machine.push(bytes(machine.take(machine.number(layout))).decode("utf-8"))


_STOP = ord(".")
_OPERATIONS: dict[int, Callable[[_Machine], object]] = {
    ord(code): operation
    for code, operation in {
        "\x80": lambda m: m.take(1),  # the protocol; the opcodes that follow do not depend on it
        "(": lambda m: m.push(_MARK),
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "K": lambda m: m.push(m.byte()),
        "M": lambda m: m.push(m.number("<H")),
        "J": lambda m: m.push(m.number("<i")),
        "\x8a": lambda m: m.push(int.from_bytes(m.take(m.byte()), "little", signed=True)),
        "G": lambda m: m.push(m.number(">d")),
        "X": lambda m: _text(m, "<I"),
        "U": lambda m: _text(m, "<B"),  # str of Python 2
        "T": lambda m: _text(m, "<I"),  # str of Python 2
        ")": lambda m: m.push(()),
        "t": lambda m: m.push(tuple(m.pop_to_mark())),
        "\x85": lambda m: m.push(tuple(m.pop_many(1))),
        "\x86": lambda m: m.push(tuple(m.pop_many(2))),
        "\x87": lambda m: m.push(tuple(m.pop_many(3))),
        "]": lambda m: m.push([]),
        "a": lambda m: _append(m, m.pop_many(1)),
        "e": lambda m: _append(m, m.pop_to_mark()),
        "}": lambda m: m.push({}),
        "s": lambda m: m.set_items(m.pop_many(2)),
        "u": lambda m: m.set_items(m.pop_to_mark()),
        "q": lambda m: m.memoize(m.byte()),
        "r": lambda m: m.memoize(m.number("<I")),
        "h": lambda m: m.recall(m.byte()),
        "j": lambda m: m.recall(m.number("<I")),
        "c": _Machine.find_global,
        "R": _Machine.reduce,
        "b": _Machine.build,
        "Q": _Machine.persistent,
    }.items()
}


def _append(machine: _Machine, values: list[Any]) -> None:
    machine.top(list).extend(values)
