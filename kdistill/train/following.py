"""Learning rates that follow the metric of each evaluation: ReduceLROnPlateau and GreedyLR, as in transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_MODES, _THRESHOLDS = ("min", "max"), ("rel", "abs")


class _Following:
    """A learning rate that is changed after evaluations; `_KEPT` names what a resumed run goes on with."""

    _KEPT: tuple[str, ...] = ()

    def __init__(
        self, lr: float, mode: str, factor: float, threshold: float, threshold_mode: str, min_lr: float, eps: float
    ) -> None:
        if mode not in _MODES:
            raise ValueError(f"mode is {mode!r}; expected 'min' or 'max'")
        if threshold_mode not in _THRESHOLDS:
            raise ValueError(f"threshold_mode is {threshold_mode!r}; expected 'rel' or 'abs'")
        if not factor < 1:
            raise ValueError(f"factor is {factor}; expected a number below 1")
        self.lr, self.factor, self._min_lr, self._eps = lr, factor, float(min_lr), eps
        self._mode, self._threshold, self._threshold_mode = mode, threshold, threshold_mode
        self.best = self._worst

    @property
    def _worst(self) -> float:
        return math.inf if self._mode == "min" else -math.inf

    def at(self, step: int) -> float:
        """Return the present learning rate."""
        return self.lr

    def _is_better(self, metric: float) -> bool:
        sign = -1.0 if self._mode == "min" else 1.0
        if self._threshold_mode == "rel":
            bound = self.best * (1.0 + sign * self._threshold)
        else:
            bound = self.best + sign * self._threshold
        return metric < bound if self._mode == "min" else metric > bound

    def _reduce(self) -> None:
        """Multiply the learning rate with `factor`, unless that is a fall by no more than `eps`."""
        lower = max(self.lr * self.factor, self._min_lr)
        if self.lr - lower > self._eps:
            self.lr = lower

    def state(self) -> dict[str, Any]:
        """Return what a resumed run goes on with."""
        return {name: getattr(self, name) for name in ("lr", "best", *self._KEPT)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state` returned."""
        for name in ("lr", "best", *self._KEPT):
            if name in state:
                setattr(self, name, state[name])


class ReduceOnPlateau(_Following):
    """The learning rate falls to `factor` of itself when more than `patience` evaluations in a row are no better.

    Formulas and names are those of `torch.optim.lr_scheduler.ReduceLROnPlateau`.

    Args:
        lr: the first learning rate.
        mode: whether a small ("min") or a large ("max") metric is good.
        factor: of the learning rate.
        patience: evaluations that it waits for.
        threshold: by how much an evaluation must be better than the best, ...
        threshold_mode: ... as a share of the best ("rel") or as it is ("abs").
        cooldown: evaluations after a fall that do not count.
        min_lr: the smallest learning rate.
        eps: a fall by less than this does not take place.
    """

    _KEPT = ("num_bad_epochs", "cooldown_counter")

    def __init__(
        self,
        lr: float,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(lr, mode, factor, threshold, threshold_mode, min_lr, eps)
        self._patience, self._cooldown = int(patience), int(cooldown)
        self.num_bad_epochs = self.cooldown_counter = 0

    def follow(self, metric: float) -> None:
        """Take note of an evaluation."""
        if self._is_better(metric):
            self.best, self.num_bad_epochs = metric, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self._patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self._cooldown, 0


class Greedy(_Following):
    """The learning rate rises while evaluations get better and falls while they do not (arXiv:2512.14527).

    Formulas, names and defaults are those of `transformers.optimization.GreedyLR`.

    Args:
        lr: the first learning rate.
        mode, threshold, threshold_mode, min_lr, eps: as for `ReduceOnPlateau`.
        factor: what the learning rate is multiplied with to fall, and divided by to rise.
        patience: evaluations in a row, better or not, that it waits for.
        cooldown, warmup: evaluations after a fall, and after a rise, that do not count.
        max_lr: the largest learning rate.
        smooth: whether the mean of the last `window_size` metrics is compared.
        window_size: of the mean.
        reset_start: after so many falls at `min_lr` it begins anew.
    """

    _KEPT = ("num_bad_epochs", "num_good_epochs", "cooldown_counter", "warmup_counter", "reset_left", "window", "total")

    def __init__(
        self,
        lr: float,
        mode: str = "min",
        factor: float = 0.95,
        patience: int = 10,
        threshold: float = 1e-6,
        threshold_mode: str = "abs",
        cooldown: int = 0,
        warmup: int = 0,
        min_lr: float = 1e-3,
        max_lr: float = 1.0,
        eps: float = 1e-8,
        smooth: bool = False,
        window_size: int = 50,
        reset_start: int = 500,
    ) -> None:
        super().__init__(lr, mode, factor, threshold, threshold_mode, min_lr, eps)
        self._first_lr, self._patience, self._cooldown, self._warmup = lr, int(patience), int(cooldown), int(warmup)
        self._max_lr, self._reset_start = float(max_lr), int(reset_start)
        self._smooth, self._window_size = smooth, int(window_size)
        self._begin()

    def _begin(self) -> None:
        self.best = self._worst
        self.num_bad_epochs = self.num_good_epochs = self.cooldown_counter = self.warmup_counter = 0
        self.reset_left = self._reset_start
        self.window: list[float] = []
        self.total = 0.0

    def follow(self, metric: float) -> None:
        """Take note of an evaluation."""
        metric = self._smoothed(metric) if self._smooth else metric
        if self.cooldown_counter > 0 or self.warmup_counter > 0:
            waiting = "cooldown_counter" if self.cooldown_counter > 0 else "warmup_counter"
            setattr(self, waiting, getattr(self, waiting) - 1)
            self.num_bad_epochs = self.num_good_epochs = 0
            return
        if self._is_better(metric):
            self.best, self.num_bad_epochs = metric, 0
            self.num_good_epochs += 1
        else:
            self.num_good_epochs = 0
            self.num_bad_epochs += 1
        if self.num_good_epochs > self._patience:
            self._rise()
            self.warmup_counter, self.num_good_epochs = self._warmup, 0
        elif self.num_bad_epochs > self._patience:
            self._fall()
            self.cooldown_counter, self.num_bad_epochs = self._cooldown, 0

    def _smoothed(self, metric: float) -> float:
        self.window.append(metric)
        self.total += metric
        if len(self.window) > self._window_size:
            self.total -= self.window.pop(0)
        return self.total / len(self.window)

    def _rise(self) -> None:
        higher = min(self.lr / self.factor, self._max_lr)
        if higher - self.lr > self._eps:
            self.lr = higher
        self.reset_left = self._reset_start

    def _fall(self) -> None:
        self._reduce()
        if self.lr <= self._min_lr:
            self.reset_left -= 1
            if self.reset_left <= 0:
                self.lr = self._first_lr
                self._begin()
