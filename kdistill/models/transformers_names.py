"""What models of transformers have and models here have not: the alternative of each, for messages."""

from __future__ import annotations

from typing import Any

from .registry import ARCHITECTURES

_WEIGHTS = "model.parameters has the weights by name; list(model.parameters) shows the names"
_NARROW = "call freeze(dtype='bfloat16') for a model that only evaluates, or train with bf16=True"
_FLOAT32 = "parameters are always float32; leave it out"
_FROZEN = "freeze() makes the whole model untrainable; parts of it cannot be"
_TAPPED = "a call with output_hidden_states=True or output_attentions=True returns what lies inside"

ATTRIBUTES = {
    **dict.fromkeys((each.prefix.removesuffix(".") for each in ARCHITECTURES.values()), _WEIGHTS),
    **dict.fromkeys(("classifier", "qa_outputs", "cls", "lm_head", "base_model", "encoder", "embeddings"), _WEIGHTS),
    **dict.fromkeys(("modules", "named_modules", "children", "named_children", "get_parameter"), _WEIGHTS),
    **dict.fromkeys(("get_input_embeddings", "get_encoder", "buffers", "named_buffers"), _WEIGHTS),
    **dict.fromkeys(("double", "float"), _FLOAT32),
    **dict.fromkeys(("half", "bfloat16"), _NARROW),
    **dict.fromkeys(("requires_grad_", "requires_grad"), _FROZEN),
    "cuda": "kdistill always computes on the CPU; leave it out",
    "push_to_hub": "call push_to_hub of the trainer, or upload what save_pretrained writes with huggingface_hub",
    "gradient_checkpointing_enable": "lower per_device_train_batch_size and raise gradient_accumulation_steps",
    "register_forward_hook": _TAPPED,
    "compile": "all arithmetic is compiled C already; leave it out",
    "generate": "encoders and their heads generate no text; pipeline('fill-mask', ...) fills masks",
    "add_adapter": "adapters cannot be loaded or trained; merge them into the weights with peft",
}
"""Attributes and methods -> what to use."""

CALL: dict[str, tuple[tuple[Any, ...], str]] = {
    "return_dict": ((True,), "the result has to_tuple()"),
    "position_ids": ((), "the tokens of a row are at positions one after another; leave it out"),
    "inputs_embeds": ((), "give input_ids; the embeddings are in model.parameters"),
    "head_mask": ((), "heads cannot be masked; leave it out"),
}
"""Arguments of a call -> values that change nothing, and what to do instead of giving another."""
