"""The C core. Arrays are C-contiguous; shapes and types are checked."""

import numpy as np
from numpy.typing import NDArray

ISA_LEVEL: str
ISA_LEVELS: tuple[str, ...]
BLIS_VERSION: str
COMPILER: str
COMPILER_FLAGS: str
NUMERICS_VERSION: int
MAX_THREADS: int
NO_LABEL: int
LOSS_SINGLE_LABEL: int
LOSS_MULTI_LABEL: int
LOSS_REGRESSION: int

Floats = NDArray[np.float32]
Constants = tuple[float, float, float, float, float]  # lr, beta1, beta2, eps, weight_decay
StepConstants = tuple[float, float, float, float, float, float]  # and the average's share
# m, v, average, done, history, base, t
State = tuple[Floats, Floats, Floats | None, NDArray[np.int32], Floats, int, int]

class Bert:
    def __init__(
        self,
        sizes: tuple[int, ...],
        activation: str,
        layer_norm_eps: float,
        dropouts: tuple[float, float, float],
        parameters: NDArray[np.float32],
        gradients: NDArray[np.float32] | None,
    ) -> None: ...
    @property
    def workspace_bytes(self) -> int: ...
    def check(self, ids: NDArray[np.int32], types: NDArray[np.int32], starts: NDArray[np.int64]) -> None: ...
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
        cls_only: bool = True,
    ) -> NDArray[np.float32]: ...
    def backward(self, dlogits: NDArray[np.float32], threads: int) -> None: ...
    def clear_gradients(self, threads: int) -> None: ...
    def gradient_norm(self, threads: int) -> float: ...
    def scale_gradients(self, factor: float, threads: int) -> None: ...
    def adamw_step(self, state: State, constants: StepConstants, threads: int) -> None: ...
    def catch_up(self, state: State, ids: NDArray[np.int32] | None, threads: int) -> None: ...
    def touch(self) -> None: ...
    def release(self) -> None: ...

def bert_layout(sizes: tuple[int, ...]) -> tuple[int, list[tuple[str, tuple[int, ...], int, bool]]]: ...
def pack_lists(rows: object) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]] | None: ...
def take_rows(
    ids: NDArray[np.int32], types: NDArray[np.int32], starts: NDArray[np.int64], indices: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]: ...
def loss(
    kind: int,
    logits: NDArray[np.float32],
    teacher_logits: NDArray[np.float32] | None,
    labels: NDArray[np.int64] | NDArray[np.float32] | None,
    alpha: float,
    temperature: float,
    smoothing: float,
) -> tuple[float, NDArray[np.float32], float, float, int, tuple[int, ...]]: ...
def adamw(p: Floats, g: Floats, m: Floats, v: Floats, constants: Constants, t: int, threads: int) -> None: ...
def multiply_adds(rounds: int, threads: int) -> float: ...

Dropout = tuple[float, int, int, int, int]  # p, seed, step, tensor, place of the first row's token

def product(c: Floats, a: Floats, b: Floats, transposed: bool) -> None: ...
def norm_forward(x: Floats, gamma: Floats, beta: Floats, eps: float) -> tuple[Floats, Floats]: ...
def norm_backward(dy: Floats, x: Floats, stats: Floats, gamma: Floats) -> tuple[Floats, Floats, Floats]: ...
def activation(x: Floats, dy: Floats, name: str) -> tuple[Floats, Floats]: ...
def dropout(x: Floats, dropout: Dropout) -> Floats: ...
def attention_forward(
    q: Floats, k: Floats, v: Floats, heads: int, features: int, dropout: Dropout
) -> tuple[Floats, Floats]: ...
def attention_backward(
    dctx: Floats,
    ctx: Floats,
    lse: Floats,
    q: Floats,
    k: Floats,
    v: Floats,
    heads: int,
    features: int,
    dropout: Dropout,
) -> tuple[Floats, Floats, Floats]: ...
def random_bits(seed: int, step: int, tensor: int, place: int, block: int) -> NDArray[np.uint32]: ...
