"""Names of other packages: each attribute or argument that is not here names what to use."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest
from support.small_run import VOCABULARY, small_model

import kdistill
from kdistill.data.table import Table
from kdistill.models import transformers_names as of_models
from kdistill.system.names import did_you_mean
from kdistill.text import transformers_names as of_tokenizers
from kdistill.text.classes import BertTokenizer


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("PreTrainedModel", "kd.AutoModel"),
        ("PreTrainedTokenizer", "kd.AutoTokenizer"),
        ("IntervalStrategy", '"no", "steps" or "epoch"'),
        ("get_scheduler", "lr_scheduler_type="),
    ],
)
def test_names_of_transformers_name_what_to_import(name: str, instead: str) -> None:
    with pytest.raises(ImportError, match=rf"kdistill has no {name}; use .*{re.escape(instead)}"):
        exec(f"from kdistill import {name}")
    with pytest.raises(AttributeError, match=rf"kdistill has no {name}; use .*{re.escape(instead)}"):
        getattr(kdistill, name)
    assert not hasattr(kdistill, name)


def test_what_to_use_exists_and_what_not_does_not() -> None:
    for name, instead in kdistill._INSTEAD.items():
        assert name not in kdistill.__all__
        for named in re.findall(r"kd\.(\w+)", instead):
            assert hasattr(kdistill, named)


def test_suggestions_are_near() -> None:
    options = ["--hub-token", "--teacher", "--temperature", "--alpha", "--model", "--label-names", "--delimiter"]
    near = {
        "--temparature": "--temperature",
        "--alhpa": "--alpha",
        "--model-name": "--model",
        "--labels": "--label-names",
    }
    for name, meant in near.items():
        assert did_you_mean(name, options) == f"; did you mean {meant!r}?"
    for name in ("--tokenizer", "--epoch", "--device", "--test"):
        assert did_you_mean(name, options) == ""


@pytest.fixture
def tokenizer(tmp_path: Any) -> BertTokenizer:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return BertTokenizer.from_pretrained(tmp_path)


def test_attributes_of_transformers_name_what_to_use(tokenizer: BertTokenizer) -> None:
    table = Table("rows", {"label": [1, 0, 1]})
    for owner, names in (
        (small_model(), of_models.ATTRIBUTES),
        (tokenizer, of_tokenizers.ATTRIBUTES),
        (table, {"unique": "sorted", "set_format": "leave it out", "sort": "datasets.load_dataset"}),
    ):
        for name, instead in names.items():
            with pytest.raises(AttributeError) as raised:
                getattr(owner, name)
            assert str(raised.value).startswith(f"{type(owner).__name__} has no attribute {name!r}: ")
            assert instead in str(raised.value)
        assert not hasattr(owner, "__array_interface__")  # what packages ask every object for
    with pytest.raises(AttributeError, match="'save_pretraned'; did you mean 'save_pretrained'"):
        small_model().save_pretraned  # noqa: B018
    assert copy.deepcopy(tokenizer).vocab == pickle.loads(pickle.dumps(tokenizer)).vocab
    assert pickle.loads(pickle.dumps(table)).columns == copy.copy(table).columns


def test_arguments_of_transformers_are_accepted_where_they_change_nothing(tokenizer: BertTokenizer) -> None:
    model = small_model()
    plain = {"return_dict": True, "output_attentions": False, "head_mask": None, "position_ids": None}
    assert np.array_equal(model([[2, 5, 3]], **plain).logits, model([[2, 5, 3]]).logits)
    assert tokenizer("good film", stride=0, verbose=False, return_length=None) == tokenizer("good film")
    for call, row, others in ((model, [[2, 5, 3]], of_models.CALL), (tokenizer, "good", of_tokenizers.CALL)):
        for name, (harmless, instead) in others.items():
            if name == "verbose":
                continue
            wrong: Any = not harmless[0] if harmless else np.zeros((1, 3))
            with pytest.raises(ValueError, match="does not take") as raised:
                call(row, **{name: wrong})
            assert str(raised.value).endswith(f"does not take {name}: {instead}")
    with pytest.raises(TypeError, match="BertTokenizer has no argument 'max_lenght'; did you mean 'max_length'"):
        tokenizer("good film", max_lenght=3)
    with pytest.raises(TypeError, match="has no argument 'lables'; did you mean 'labels'"):
        model([[2, 5, 3]], lables=[0])


def test_a_model_is_where_it_is() -> None:
    model = small_model()
    assert (model.to("cpu"), model.to(dtype=np.float32), model.cpu()) == (model, model, model)
    assert (model.device, model.dtype, model.num_labels) == ("cpu", np.float32, 2)
    for place in ("cuda", "cuda:0", np.float16, "bfloat16"):
        with pytest.raises(ValueError, match="kdistill computes on the CPU in float32"):
            model.to(place)
