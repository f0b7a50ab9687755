"""BERT (Devlin et al., arXiv:1810.04805) under the names of `transformers.BertForSequenceClassification`."""

from ..architecture import Architecture

_LAYER = "bert.encoder.layer.*"

BERT = Architecture(
    prefix="bert.",
    modules={
        "embeddings.word": "bert.embeddings.word_embeddings",
        "embeddings.position": "bert.embeddings.position_embeddings",
        "embeddings.type": "bert.embeddings.token_type_embeddings",
        "embeddings.norm": "bert.embeddings.LayerNorm",
        "layer.*.query": f"{_LAYER}.attention.self.query",
        "layer.*.key": f"{_LAYER}.attention.self.key",
        "layer.*.value": f"{_LAYER}.attention.self.value",
        "layer.*.output": f"{_LAYER}.attention.output.dense",
        "layer.*.attention_norm": f"{_LAYER}.attention.output.LayerNorm",
        "layer.*.up": f"{_LAYER}.intermediate.dense",
        "layer.*.down": f"{_LAYER}.output.dense",
        "layer.*.ffn_norm": f"{_LAYER}.output.LayerNorm",
        "head.dense": "bert.pooler.dense",
        "head.output": "classifier",
    },
    fields={
        "layers": "num_hidden_layers",
        "hidden": "hidden_size",
        "heads": "num_attention_heads",
        "feed_forward": "intermediate_size",
        "vocabulary": "vocab_size",
        "positions": "max_position_embeddings",
        "types": "type_vocab_size",
        "activation": "hidden_act",
        "eps": "layer_norm_eps",
        "dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
    },
    heads={
        "sequence-classification": {"pick": "first", "dense": "tanh"},
        "token-classification": {"pick": "all", "dense": None},
        "question-answering": {"pick": "all", "dense": None},
    },
)
