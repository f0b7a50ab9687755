"""`AutoConfig` and `AutoModelForSequenceClassification`: the names people type, for the one architecture there is."""

from __future__ import annotations

from typing import Any

from .config import BertConfig
from .model import BertForSequenceClassification


class AutoConfig:
    """Makes a `BertConfig`; any other `model_type` is an error that names it."""

    from_pretrained = BertConfig.from_pretrained

    @staticmethod
    def for_model(model_type: str, **values: Any) -> BertConfig:
        """The configuration of a model type: "bert", with the arguments of `BertConfig`."""
        return BertConfig.from_dict({"model_type": model_type}).replace(**values)


class AutoModelForSequenceClassification:
    """Makes a `BertForSequenceClassification`; any other `model_type` is an error that names it."""

    from_pretrained = BertForSequenceClassification.from_pretrained

    @staticmethod
    def from_config(config: BertConfig, seed: int = 0) -> BertForSequenceClassification:
        """A model of this shape with new weights, drawn from `seed`."""
        return BertForSequenceClassification(config, seed=seed)
