"""`AutoConfig` and `AutoModelForSequenceClassification`, which choose the class by a config's `model_type`."""

from __future__ import annotations

from typing import Any

from .config import BertConfig
from .model import BertForSequenceClassification


class AutoConfig:
    """The configuration class by model type: `BertConfig`. Another `model_type` raises `ValueError`."""

    from_pretrained = BertConfig.from_pretrained

    @staticmethod
    def for_model(model_type: str, **values: Any) -> BertConfig:
        """Return the configuration of a model type: "bert", with the arguments of `BertConfig`."""
        return BertConfig.from_dict({"model_type": model_type}).replace(**values)


class AutoModelForSequenceClassification:
    """The classifier by model type: `BertForSequenceClassification`. Another `model_type` raises `ValueError`."""

    from_pretrained = BertForSequenceClassification.from_pretrained

    @staticmethod
    def from_config(config: BertConfig, seed: int = 0) -> BertForSequenceClassification:
        """Return a model of this shape with new weights, drawn from `seed`."""
        return BertForSequenceClassification(config, seed=seed)
