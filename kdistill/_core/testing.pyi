"""Single kernels and layers of the core on plain arrays, for tests."""

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float32]
_Bytes = NDArray[np.uint8]
_Dropout = tuple[float, int, int, int, int]  # p, seed, step, tensor, place of the first row's token

def product(c: _Floats, a: _Floats, b: _Floats, transposed: bool, /) -> None: ...
def pack_right(b: _Floats, transposed: bool, /) -> _Floats: ...
def packed_product(
    c: _Floats,
    a: _Floats,
    right: _Floats,
    right_rows: int,
    first_row: int,
    first_column: int,
    bias: _Floats | None,
    activation: str | None,
    slope: _Floats | None,
    /,
) -> None: ...
def dots(c: _Floats, row_bias: _Floats, a: _Floats, b: _Floats, /) -> None: ...
def add_scaled(y: _Floats, x: _Floats, scale: float, /) -> None: ...
def norm_forward(x: _Floats, gamma: _Floats, beta: _Floats, eps: float, /) -> tuple[_Floats, _Floats]: ...
def norm_backward(dy: _Floats, x: _Floats, stats: _Floats, gamma: _Floats, /) -> tuple[_Floats, _Floats, _Floats]: ...
def activation(x: _Floats, dy: _Floats, name: str, /) -> tuple[_Floats, _Floats]: ...
def dropout(x: _Floats, dropout: _Dropout, /) -> _Floats: ...
def attention_forward(
    q: _Floats, k: _Floats, v: _Floats, heads: int, features: int, dropout: _Dropout, spread: _Floats | None = None, /
) -> tuple[_Floats, _Floats]: ...
def attention_backward(
    dctx: _Floats,
    ctx: _Floats,
    lse: _Floats,
    q: _Floats,
    k: _Floats,
    v: _Floats,
    heads: int,
    features: int,
    dropout: _Dropout,
    relative: tuple[_Floats, _Floats] | None = None,
    /,
) -> tuple[_Floats, _Floats, _Floats]: ...
def relative_spread(table: _Floats, n: int, distance: int, scale: float, /) -> _Floats: ...
def engines() -> list[tuple[str, str]]: ...
def engine_bytes(compute: str, isa: str, m: int, n: int, k: int, /) -> tuple[int, int]: ...
def engine_convert(compute: str, isa: str, left: _Bytes, a: _Floats, /) -> None: ...
def engine_pack(compute: str, isa: str, right: _Bytes, w: _Floats, transposed: bool, /) -> None: ...
def engine_product(
    compute: str,
    isa: str,
    c: _Floats,
    left: _Bytes,
    right: _Bytes,
    k: int,
    bias: _Floats | None,
    activation: str | None,
    slope: _Floats | None,
    next: _Bytes | None,
    threads: int,
    /,
) -> None: ...
def engine_outer_bytes(compute: str, isa: str, m: int, n: int, /) -> int: ...
def engine_outer(
    compute: str, isa: str, c: _Floats, a: _Floats, b: _Floats, m: int, n: int, scratch: _Bytes, /
) -> None: ...
def engine_widen(compute: str, isa: str, a: _Floats, operand: _Bytes, /) -> None: ...
def engine_attend_bytes(compute: str, isa: str, n: int, heads: int, width: int, /) -> int: ...
def engine_attend(
    compute: str,
    isa: str,
    ctx: _Bytes,
    scores: _Floats | None,
    q: _Bytes,
    k: _Bytes,
    v: _Bytes,
    m: int,
    first: int,
    n: int,
    heads: int,
    width: int,
    from_head: int,
    to_head: int,
    scratch: _Bytes,
    /,
) -> None: ...
def random_bits(seed: int, step: int, tensor: int, place: int, block: int, /) -> NDArray[np.uint16]: ...
