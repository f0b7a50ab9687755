"""`FillMaskPipeline` beside transformers' on the same weights and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import transformers
from support.eight_tokenizers import WITH_SENTENCEPIECE, write_model_with_vocabulary

import kdistill as kd
from kdistill.tasks.fill_mask_pipeline import FillMaskPipeline

TEXTS = ["The capital of France is [MASK].", "[MASK] is a [MASK] of the river, isn't it?", "A film that's [MASK]!"]


@pytest.fixture(scope="module")
def both(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[FillMaskPipeline, Any]:
    directory: Path = tmp_path_factory.mktemp("model")
    config = kd.BertConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=60, initializer_range=0.4
    )
    kd.BertForMaskedLM(config, seed=2).save_pretrained(directory)
    kd.AutoTokenizer.from_pretrained(shared_dir / "models" / "bert-base-uncased").save_pretrained(directory)
    theirs = transformers.pipeline("fill-mask", str(directory), device="cpu")
    ours = FillMaskPipeline(
        kd.AutoModelForMaskedLM.from_pretrained(directory).freeze(), kd.AutoTokenizer.from_pretrained(directory)
    )
    return ours, theirs


def check(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            check(one, other)
        return
    assert {**ours, "score": 0} == {**theirs, "score": 0}
    np.testing.assert_allclose(ours["score"], theirs["score"], rtol=1e-4)


def test_texts_with_one_and_several_masks(both: tuple[FillMaskPipeline, Any]) -> None:
    ours, theirs = both
    for inputs in (TEXTS, TEXTS[0], TEXTS[1], [TEXTS[2]]):
        check(ours(inputs), theirs(inputs))


def test_top_k_and_targets(both: tuple[FillMaskPipeline, Any]) -> None:
    ours, theirs = both
    check(ours(TEXTS[0], top_k=12), theirs(TEXTS[0], top_k=12))
    targets = ["paris", "london", "rome"]
    check(ours(TEXTS, targets=targets), theirs(TEXTS, targets=targets))


@pytest.mark.parametrize("model_type", ["roberta", "xlm-roberta", "mpnet"])
def test_vocabularies_of_other_kinds(model_type: str, tmp_path: Path) -> None:
    """Byte-level BPE and Unigram, whose mask may or may not take the space before it; MPNet's WordPiece does."""
    if model_type in WITH_SENTENCEPIECE:
        pytest.importorskip("sentencepiece")
    fields = {"tokens": 60, "seed": 2, "initializer_range": 0.4}
    tokenizer = write_model_with_vocabulary(model_type, "ForMaskedLM", tmp_path, **fields)
    theirs = transformers.pipeline("fill-mask", str(tmp_path), device="cpu")
    ours = kd.pipeline("fill-mask", str(tmp_path))
    texts = [text.replace("[MASK]", tokenizer.mask_token) for text in (*TEXTS, "film[MASK]s, stra\u00dfe\n[MASK]")]
    for text in texts:
        check(ours(text), theirs(text))
    words = tokenizer.convert_ids_to_tokens([30, 40, 50])
    check(ours(texts[0], targets=words), theirs(texts[0], targets=words))
    with pytest.warns(UserWarning, match="'greatfilm', which is no word"):
        found = ours(texts[0], targets=["greatfilm", *words])
    check(found, theirs(texts[0], targets=["greatfilm", *words]))
