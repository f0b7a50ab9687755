"""The classes of models by name, for type checkers; the module makes them of the tables."""

from collections.abc import Mapping

from .architecture import Architecture
from .architectures.albert import AlbertConfig
from .architectures.bert import BertConfig
from .architectures.camembert import CamembertConfig
from .architectures.distilbert import DistilBertConfig
from .architectures.electra import ElectraConfig
from .architectures.mpnet import MPNetConfig
from .architectures.roberta import RobertaConfig
from .architectures.xlm_roberta import XLMRobertaConfig
from .heads import Encoder, MaskedLanguageModel, QuestionAnswerer, SequenceClassifier, TokenClassifier
from .model import Model

CLASSES: Mapping[str, type[Model]]

def class_of(architecture: Architecture, head: str) -> type[Model]: ...

class BertForSequenceClassification(SequenceClassifier):
    config: BertConfig

class BertForTokenClassification(TokenClassifier):
    config: BertConfig

class BertForQuestionAnswering(QuestionAnswerer):
    config: BertConfig

class BertForMaskedLM(MaskedLanguageModel):
    config: BertConfig

class BertModel(Encoder):
    config: BertConfig

class DistilBertForSequenceClassification(SequenceClassifier):
    config: DistilBertConfig

class DistilBertForTokenClassification(TokenClassifier):
    config: DistilBertConfig

class DistilBertForQuestionAnswering(QuestionAnswerer):
    config: DistilBertConfig

class DistilBertForMaskedLM(MaskedLanguageModel):
    config: DistilBertConfig

class DistilBertModel(Encoder):
    config: DistilBertConfig

class RobertaForSequenceClassification(SequenceClassifier):
    config: RobertaConfig

class RobertaForTokenClassification(TokenClassifier):
    config: RobertaConfig

class RobertaForQuestionAnswering(QuestionAnswerer):
    config: RobertaConfig

class RobertaForMaskedLM(MaskedLanguageModel):
    config: RobertaConfig

class RobertaModel(Encoder):
    config: RobertaConfig

class XLMRobertaForSequenceClassification(SequenceClassifier):
    config: XLMRobertaConfig

class XLMRobertaForTokenClassification(TokenClassifier):
    config: XLMRobertaConfig

class XLMRobertaForQuestionAnswering(QuestionAnswerer):
    config: XLMRobertaConfig

class XLMRobertaForMaskedLM(MaskedLanguageModel):
    config: XLMRobertaConfig

class XLMRobertaModel(Encoder):
    config: XLMRobertaConfig

class CamembertForSequenceClassification(SequenceClassifier):
    config: CamembertConfig

class CamembertForTokenClassification(TokenClassifier):
    config: CamembertConfig

class CamembertForQuestionAnswering(QuestionAnswerer):
    config: CamembertConfig

class CamembertForMaskedLM(MaskedLanguageModel):
    config: CamembertConfig

class CamembertModel(Encoder):
    config: CamembertConfig

class ElectraForSequenceClassification(SequenceClassifier):
    config: ElectraConfig

class ElectraForTokenClassification(TokenClassifier):
    config: ElectraConfig

class ElectraForQuestionAnswering(QuestionAnswerer):
    config: ElectraConfig

class ElectraForMaskedLM(MaskedLanguageModel):
    config: ElectraConfig

class ElectraModel(Encoder):
    config: ElectraConfig

class AlbertForSequenceClassification(SequenceClassifier):
    config: AlbertConfig

class AlbertForTokenClassification(TokenClassifier):
    config: AlbertConfig

class AlbertForQuestionAnswering(QuestionAnswerer):
    config: AlbertConfig

class AlbertForMaskedLM(MaskedLanguageModel):
    config: AlbertConfig

class AlbertModel(Encoder):
    config: AlbertConfig

class MPNetForSequenceClassification(SequenceClassifier):
    config: MPNetConfig

class MPNetForTokenClassification(TokenClassifier):
    config: MPNetConfig

class MPNetForQuestionAnswering(QuestionAnswerer):
    config: MPNetConfig

class MPNetForMaskedLM(MaskedLanguageModel):
    config: MPNetConfig

class MPNetModel(Encoder):
    config: MPNetConfig
