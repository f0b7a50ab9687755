"""The list of architectures."""

from __future__ import annotations

from collections.abc import Mapping

from .architecture import Architecture
from .architectures.albert import ALBERT
from .architectures.bert import BERT
from .architectures.camembert import CAMEMBERT
from .architectures.distilbert import DISTILBERT
from .architectures.electra import ELECTRA
from .architectures.mpnet import MPNET
from .architectures.roberta import ROBERTA
from .architectures.xlm_roberta import XLM_ROBERTA

_ALL = (BERT, DISTILBERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, ELECTRA, ALBERT, MPNET)
ARCHITECTURES: Mapping[str, Architecture] = {each.model_type: each for each in _ALL}
"""Every architecture, by its `model_type`."""
