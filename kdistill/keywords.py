"""Keywords of `from_pretrained` and `pipeline` in transformers: one table, which everything that loads reads.

It covers the models, configurations and tokenizers, those of the Auto classes, and `pipeline`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from .system.compute import compute_type
from .system.names import did_you_mean

LOCATION = ("token", "revision", "cache_dir", "force_download", "local_files_only", "subfolder")
"""Where the files of a model are: the arguments of `hub.resolve`."""


Verdict = Literal["ignored", "refused"]


class Keyword(NamedTuple):
    """A keyword of transformers about something else than where files are.

    Attributes:
        name: the keyword.
        verdict: the effect of giving it. "ignored": a warning gives the reason. "refused": `ValueError` gives the
            reason and the alternative.
        reason: a clause without the keyword's name and without a full stop.
        harmless: values, besides None, that ask for what is done anyway.
    """

    name: str
    verdict: Verdict
    reason: str
    harmless: tuple[Any, ...] = ()


def _group(verdict: Verdict, reason: str, *names: str, harmless: tuple[Any, ...] = ()) -> list[Keyword]:
    return [Keyword(name, verdict, reason, harmless) for name in names]


_CPU = ("cpu", "auto", "balanced", "sequential", {"": "cpu"}, -1)
_ON_CPU = "kdistill always computes on the CPU"
_IN_MEMORY = "the whole model is in the memory of one process"
_NO_CODE = "the code of a repository is never run"
_ONE_ATTENTION = "attention has one implementation here, with the result of all of theirs"
_OWN_KERNELS = "all arithmetic is kdistill's own compiled C"
_FLOAT_WEIGHTS = "kdistill loads weights in float32, float64, float16 and bfloat16 only; choose such a checkpoint"
_FROM_FLOATS = 'a model of 8 bits is made from one in floating point: load that with dtype="int8"'
_CONVERT = "open the checkpoint with transformers and save it with save_pretrained as safetensors"

KEYWORDS = {
    row.name: row
    for row in (
        # Used in one way alone
        Keyword("use_fast", "ignored", "there is one kind of tokenizer, with the ids of both kinds", (True,)),
        Keyword("low_cpu_mem_usage", "ignored", "weights are always mapped and copied one by one", (True, False)),
        Keyword("weights_only", "ignored", "a .bin file is always read without running what it contains", (True,)),
        Keyword("use_safetensors", "ignored", "safetensors are read where they are there, else a .bin file"),
        Keyword("resume_download", "ignored", "downloads always go on where they ended", (True, False)),
        Keyword("_fast_init", "ignored", "only what a file lacks is initialised", (True,)),
        *_group("ignored", _NO_CODE, "trust_remote_code", "code_revision", harmless=(False,)),
        *_group("ignored", _ON_CPU, "device_map", harmless=_CPU),
        *_group("ignored", _IN_MEMORY, "max_memory", "offload_folder", "offload_state_dict", "offload_buffers"),
        *_group("ignored", _ONE_ATTENTION, "attn_implementation", "experts_implementation"),
        *_group("ignored", _OWN_KERNELS, "use_kernels", "allow_all_kernels", harmless=(False,)),
        *_group("ignored", _OWN_KERNELS, "kernel_config", "fusion_config"),
        Keyword("disable_mmap", "ignored", "weights are always mapped", (False,)),
        Keyword("proxies", "ignored", "set the environment variable HTTPS_PROXY"),
        Keyword("mirror", "ignored", "set the environment variable HF_ENDPOINT"),
        Keyword("tqdm_class", "ignored", "the hub's own progress is shown"),
        *_group("ignored", "they are of the process that called", "_from_auto", "_from_pipeline", "_commit_hash"),
        # What cannot be done
        Keyword(
            "output_loading_info",
            "refused",
            "warnings name what a file lacks and what is left unused; leave it out",
            (False,),
        ),
        Keyword("return_unused_kwargs", "refused", "an unknown keyword is an error; leave it out", (False,)),
        Keyword("state_dict", "refused", "load the model, then call its load_state_dict"),
        Keyword(
            "variant", "refused", "rename the files to model.safetensors, or choose a checkpoint without a variant"
        ),
        Keyword("key_mapping", "refused", "rename the tensors and call load_state_dict"),
        Keyword("generation_config", "refused", "a classifier generates nothing; leave it out"),
        *_group("refused", _CONVERT, "from_tf", "from_flax", harmless=(False,)),
        *_group("refused", _CONVERT, "gguf_file", "adapter_kwargs", "adapter_name", "mistral_format"),
        *_group("refused", _FROM_FLOATS, "load_in_8bit", "load_in_4bit", harmless=(False,)),
        *_group("refused", _FLOAT_WEIGHTS, "quantization_config"),
        *_group("refused", _IN_MEMORY + "; leave it out", "tp_plan", "tp_size", "device_mesh", "distributed_config"),
        Keyword("tokenizer_type", "refused", "the files decide which tokenizer it is; leave it out"),
    )
}
"""Every other keyword, by name."""
NAMES = (*LOCATION, "use_auth_token", "dtype", "torch_dtype", *KEYWORDS)
"""All keywords that are known."""
OF_PIPELINE = {
    row.name: row
    for row in (
        *_group(
            "ignored", "a model of text needs none", "feature_extractor", "image_processor", "video_processor",
            "processor", "pipeline_class",
        ),
        *_group(
            "ignored", "kdistill computes with NumPy arrays in its own threads", "framework", "num_workers",
            "binary_output", harmless=(0, "pt"),
        ),
    )
}  # fmt: skip
"""Those that `pipeline` has beside them."""


def location(
    given: Mapping[str, Any],
    owner: str,
    known: Iterable[str] = (),
    beside: Mapping[str, Keyword] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the keywords about where files are, as `hub.resolve` takes them, after settling the others.

    One warning names all keywords that are ignored.

    Args:
        given: the keywords that a function of transformers would take.
        owner: the function, in messages.
        known: its arguments, for the suggestion about a misspelt one.
        beside: keywords that this function has beside those of all, `OF_PIPELINE`.

    Raises:
        TypeError: a keyword that is unknown, with the nearest name.
        ValueError: a keyword that is refused, or a dtype in which nothing is computed.
    """
    others, ignored, keywords = dict(given), [], {**KEYWORDS, **beside}
    found = take_location(others)
    for name, value in others.items():
        if name in ("dtype", "torch_dtype"):
            compute_type(name, value)
        elif name not in keywords:
            raise TypeError(f"{owner} has no argument {name!r}{did_you_mean(name, [*known, *NAMES, *beside])}")
        elif value is not None and not any(value == harmless for harmless in keywords[name].harmless):
            if keywords[name].verdict == "refused":
                raise ValueError(f"{owner} does not take {name}: {keywords[name].reason}")
            ignored.append(f"{name} is ignored: {keywords[name].reason}")
    if ignored:
        warnings.warn("; ".join(ignored), stacklevel=3)
    return found


def take_location(keywords: dict[str, Any]) -> dict[str, Any]:
    """Take the keywords about where files are out of `keywords`, and return them as `hub.resolve` takes them."""
    found = {name: keywords.pop(name) for name in LOCATION if name in keywords}
    if "use_auth_token" in keywords:  # the older name of token
        found.setdefault("token", keywords.pop("use_auth_token"))
    return found


def take_dtype(keywords: dict[str, Any]) -> str | None:
    """Take `dtype` and `torch_dtype` out of `keywords`, and return the compute type that a model is frozen in.

    `torch_dtype` is the older name of transformers. There it is the type of the weights of any model, so float32, what
    kdistill trains in, leaves the model as it is: None, as for "auto".

    Raises:
        ValueError: another type, or two that differ.
        TypeError: what is no type.
    """
    dtype = compute_type("dtype", keywords.pop("dtype", None))
    older = compute_type("torch_dtype", keywords.pop("torch_dtype", None))
    if dtype and older and dtype != older:
        raise ValueError(f"dtype is {dtype} and torch_dtype, its older name, is {older}; expected one of the two")
    return dtype or (None if older == "float32" else older)
