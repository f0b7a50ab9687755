"""The C core. Arrays are C-contiguous; shapes and types are checked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final, overload

import numpy as np
from numpy.typing import NDArray

from kdistill._core import testing as testing

ISA_LEVEL: str  # of the float32 kernels
ISA_LEVELS: tuple[str, ...]  # every instruction set of this CPU that KDISTILL_ISA takes
COMPUTE: dict[str, str | None]  # compute type: the instruction set that multiplies it
ACTIVATIONS: tuple[str, ...]
BLIS_VERSION: str
BLIS_KERNELS: str
COMPILER: str
COMPILER_FLAGS: str
NUMERICS_VERSION: int
ALIGNMENT: int  # bytes, of the flat arrays
ADAMW_CONSTANTS: int  # floats, of one step in an optimiser's history
MAX_THREADS: int
MAX_LAYERS: int
NO_LABEL: int
LOSS_SINGLE_LABEL: int
LOSS_MULTI_LABEL: int
LOSS_REGRESSION: int
LOSS_COSINE: int

_Floats = NDArray[np.float32]
# An encoder: layers ((heads, feed_forward), ...), hidden, head_width, vocabulary, positions, types (0: none),
# first_position, activation, eps, dropout, attention_dropout; output_dropout, feed_forward_dropout (default: dropout),
# behind the products that end attention and feed-forward; embedding_width (0: hidden), of the tables in front of a
# product that leads to hidden; shared (False): all layers compute with the tensors of layer 0;
# relative_buckets, relative_distance (0: none): what scores get for the distance of key and query, as T5 buckets it,
# from a table with a column for each head; relative_heads (n, ((head, ...), ...)): it has n, and these are the layers'.
# A head: pick ("first", "all", "listed" or "mean"), dense (the activation of its dense product, None: no such product),
# dropout_before, dropout_after, outputs (0: no last product); optional: norm (False: no LayerNorm behind the
# activation), dense_width (0: hidden), tied (False: the last product has a weight of its own, not the word embeddings),
# unit (False; True without a last product: what it would read is divided by its length).
_Shape = dict[str, Any]
_Tap = tuple[str, int]  # "hidden", "query", "key", "value" or "scores", and a layer
_Constants = tuple[float, float, float, float, float, float]  # lr, beta1, beta2, eps, weight_decay, the average's share
# m, v, average, done, history, base, t
_State = tuple[_Floats, _Floats, _Floats | None, NDArray[np.int32], _Floats, int, int]

@final
class Model:
    def __init__(
        self,
        encoder: _Shape,
        head: _Shape,
        parameters: NDArray[np.float32],
        gradients: NDArray[np.float32] | None,
        workspace: Callable[[int, int, int], NDArray[np.int8]],
        *,
        dtype: str = "float32",
    ) -> None: ...
    @property
    def workspace_bytes(self) -> int: ...
    @property
    def packed_bytes(self) -> int: ...
    @property
    def compute(self) -> str: ...
    def check(
        self, ids: NDArray[np.int32], types: NDArray[np.int32], starts: NDArray[np.int64], /
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]: ...
    @overload
    def forward(
        self,
        ids: NDArray[np.int32],
        types: NDArray[np.int32],
        starts: NDArray[np.int64],
        train: bool,
        seed: int,
        step: int,
        place: int,
        threads: int,
        whole_last: bool = False,
        *,
        rows: NDArray[np.int64] | None = None,
        outputs: Literal[True] = True,
    ) -> _Floats: ...
    @overload
    def forward(
        self,
        ids: NDArray[np.int32],
        types: NDArray[np.int32],
        starts: NDArray[np.int64],
        train: bool,
        seed: int,
        step: int,
        place: int,
        threads: int,
        whole_last: bool = False,
        *,
        taps: Sequence[_Tap],
        rows: NDArray[np.int64] | None = None,
        outputs: Literal[True] = True,
    ) -> tuple[_Floats, dict[_Tap, _Floats]]: ...
    @overload
    def forward(
        self,
        ids: NDArray[np.int32],
        types: NDArray[np.int32],
        starts: NDArray[np.int64],
        train: bool,
        seed: int,
        step: int,
        place: int,
        threads: int,
        whole_last: bool = False,
        *,
        rows: NDArray[np.int64] | None = None,
        outputs: Literal[False],
    ) -> None: ...
    @overload
    def forward(
        self,
        ids: NDArray[np.int32],
        types: NDArray[np.int32],
        starts: NDArray[np.int64],
        train: bool,
        seed: int,
        step: int,
        place: int,
        threads: int,
        whole_last: bool = False,
        *,
        taps: Sequence[_Tap],
        rows: NDArray[np.int64] | None = None,
        outputs: Literal[False],
    ) -> tuple[None, dict[_Tap, _Floats]]: ...
    def softmax_loss(
        self,
        labels: NDArray[np.int64],
        alpha: float,
        temperature: float,
        smoothing: float,
        threads: int,
        teacher: Model | None = None,
        share: float = 1.0,
        scores: _Floats | None = None,
        gradients: Mapping[_Tap, _Floats] | None = None,
    ) -> tuple[float, float, float, int, tuple[int, ...]]: ...
    def backward(self, dlogits: _Floats, threads: int, gradients: Mapping[_Tap, _Floats] | None = None, /) -> None: ...
    def clear_gradients(self, threads: int, /) -> None: ...
    def gradient_norm(self, threads: int, /) -> float: ...
    def scale_gradients(self, factor: float, threads: int, /) -> None: ...
    def touched_rows(self) -> NDArray[np.int32]: ...
    def touch_rows(self, ids: NDArray[np.int32] | None, /) -> None: ...
    def adamw_step(self, state: _State, constants: _Constants, threads: int, /) -> None: ...
    def catch_up(self, state: _State, ids: NDArray[np.int32] | None, threads: int, /) -> None: ...
    def pack(self, index: int, values: _Floats, /) -> None: ...
    def take_words(self, integers: NDArray[np.int8], scales: _Floats, /) -> None: ...
    def touch(self) -> None: ...
    def release(self) -> None: ...

def layout(encoder: _Shape, head: _Shape, /) -> tuple[int, list[tuple[str, tuple[int, ...], int, bool]]]: ...
def adamw(
    p: _Floats,
    g: _Floats,
    m: _Floats,
    v: _Floats,
    constants: tuple[float, float, float, float, float],  # lr, beta1, beta2, eps, weight_decay
    t: int,
    threads: int,
    /,
) -> None: ...
def pack_lists(rows: object, /) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]] | None: ...
def take_rows(
    ids: NDArray[np.int32], types: NDArray[np.int32], starts: NDArray[np.int64], indices: NDArray[np.int64], /
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]: ...
def loss(
    kind: int,
    logits: NDArray[np.float32],
    teacher_logits: NDArray[np.float32] | None,
    labels: NDArray[np.int64] | NDArray[np.float32] | None,
    alpha: float,
    temperature: float,
    smoothing: float,
    threads: int,
    weights: NDArray[np.float64] | None = None,
    starts: NDArray[np.int64] | None = None,
    /,
) -> tuple[float, NDArray[np.float32], float, float, int, tuple[int, ...]]: ...
def match_rows(
    loss: str, student: _Floats, teacher: _Floats, projection: _Floats | None, threads: int, /
) -> tuple[float, _Floats, _Floats | None]: ...
def match_attention(
    loss: str, student_scores: _Floats, teacher_scores: _Floats, starts: NDArray[np.int64], heads: int, threads: int, /
) -> tuple[float, _Floats]: ...
def match_relation(
    loss: str, student: _Floats, teacher: _Floats, starts: NDArray[np.int64], heads: int, threads: int, /
) -> tuple[float, _Floats]: ...
def multiply_adds(rounds: int, threads: int, /) -> float: ...
