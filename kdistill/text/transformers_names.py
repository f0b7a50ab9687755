"""What tokenizers of transformers have and the one here has not: the alternative of each, for messages."""

from __future__ import annotations

from typing import Any

_CALL_IT = "call the tokenizer itself, with the same arguments"
_IDS = "compare input_ids with all_special_ids"

ATTRIBUTES = {
    **dict.fromkeys(("encode_plus", "batch_encode_plus", "prepare_for_model", "prepare_seq2seq_batch"), _CALL_IT),
    **dict.fromkeys(("added_tokens_encoder", "get_added_vocab", "added_tokens_decoder"), "get_vocab() has them all"),
    **dict.fromkeys(
        ("backend_tokenizer", "train_new_from_iterator"), "open tokenizer.json with the package tokenizers"
    ),
    "save_vocabulary": "save_pretrained writes vocab.txt",
    "get_special_tokens_mask": _IDS,
    "build_inputs_with_special_tokens": _CALL_IT,
    "create_token_type_ids_from_sequences": _CALL_IT,
    "max_len": "it is model_max_length",
    "max_len_single_sentence": "it is model_max_length - num_special_tokens_to_add()",
    "push_to_hub": "call push_to_hub of the trainer, or upload what save_pretrained writes with huggingface_hub",
    "apply_chat_template": "a classifier reads text; make it a string yourself",
}
"""Attributes and methods -> what to use."""

CALL: dict[str, tuple[tuple[Any, ...], str]] = {
    "verbose": ((False, True), ""),
    "split_special_tokens": ((False,), "set it in tokenizer_config.json"),
    "text_target": ((), "a classifier has no target text; give the label as a column of the rows"),
    "text_pair_target": ((), "a classifier has no target text; give the label as a column of the rows"),
}
"""Arguments of a call -> values that change nothing, and what to do instead of giving another."""
