"""Every architecture with every head beside PyTorch's, f32 both: logits, gradients, steps of training, files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from architecture_cases import (
    CASES,
    ENDINGS,
    TOKENS,
    Case,
    is_truly_zero,
    labels_of,
    named_parameters,
    pair,
    random_rows,
    torch_logits,
    torch_outputs,
)

import kdistill as kd
from kdistill.losses.spans import span_loss

LENGTHS = [1, TOKENS, 2, 17, 9, TOKENS - 1, 33, 3, 16]
WITH_LOGITS = [ending for ending in ENDINGS if ending != "Model"]
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
HEADS = pytest.mark.parametrize("ending", WITH_LOGITS)


@EVERY
@HEADS
def test_logits_of_all_lengths_in_one_batch(case: Case, ending: str) -> None:
    ours, theirs = pair(case, ending, std=0.3, seed=1)
    rows = random_rows(case, LENGTHS, seed=2)
    with torch.inference_mode():
        expected = torch_logits(theirs, case, rows).numpy()
    logits = ours.forward(rows.packed)
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


@EVERY
@HEADS
def test_all_named_gradients(case: Case, ending: str) -> None:
    ours, theirs = pair(case, ending, std=0.1, seed=3)
    rows = random_rows(case, LENGTHS, seed=4)
    logits = ours.forward(rows.packed, train=True)
    labels = labels_of(logits, seed=5)
    loss, dlogits = kd.cross_entropy(logits, labels)
    ours.backward(dlogits)
    expected_loss = torch.nn.functional.cross_entropy(torch_logits(theirs, case, rows), torch.tensor(labels))
    expected_loss.backward()
    assert loss == pytest.approx(expected_loss.item(), rel=1e-5)
    assert_same_gradients(ours, theirs, is_truly_zero)


def assert_same_gradients(ours: Any, theirs: Any, is_zero: Callable[[str], bool]) -> None:
    expected = {name: p.grad.numpy() for name, p in named_parameters(theirs).items() if p.grad is not None}
    assert {*ours.gradients} >= {*expected}
    for name, gradient in ours.gradients.items():
        norm = float(np.linalg.norm(expected[name])) if name in expected else 0.0
        if is_zero(name) or not norm:
            assert np.linalg.norm(gradient) <= 1e-5, name
        else:
            assert np.linalg.norm(gradient - expected[name]) <= 1e-4 * norm, name


# What moves all logits of a row alike is not seen by a softmax over its tokens. ALBERT's layers share the LayerNorm.
BIASES_OF_ALL_TOKENS = ("qa_outputs.bias", ".layer.2.output.LayerNorm.bias", ".layer.2.output_layer_norm.bias")


@EVERY
def test_all_named_gradients_of_answers_as_spans(case: Case) -> None:
    """The loss of question answering: a softmax over the tokens of each row, for the first and for the last."""
    ours, theirs = pair(case, "ForQuestionAnswering", std=0.1, seed=14)
    rows = random_rows(case, LENGTHS, seed=15)
    labels = np.random.default_rng(16).integers(np.array(LENGTHS)[:, None], size=(len(LENGTHS), 2))
    batch = rows.packed
    parts = span_loss(ours.forward(batch, train=True), batch.starts, labels, alpha=1.0)
    ours.backward(parts.dlogits)
    losses = [
        torch.nn.functional.cross_entropy(out[f"{end}_logits"], torch.tensor([label]))
        for out, row in zip(torch_outputs(theirs, case, rows), labels, strict=True)
        for end, label in zip(("start", "end"), row, strict=True)
    ]
    expected_loss = torch.stack(losses).mean()
    expected_loss.backward()
    assert parts.loss == pytest.approx(expected_loss.item(), rel=1e-5)
    assert_same_gradients(ours, theirs, lambda name: is_truly_zero(name) or name.endswith(BIASES_OF_ALL_TOKENS))


STEPS, WARMUP, LEARNING_RATE, DECAY, MAX_NORM = 20, 4, 1e-4, 0.01, 1.0


def decays(name: str) -> bool:
    return "bias" not in name and "LayerNorm" not in name and "layer_norm" not in name


@EVERY
@HEADS
def test_twenty_steps_with_clipping_decay_and_warmup(case: Case, ending: str) -> None:
    # A language model learns 101 words more slowly than others three labels, from small weights.
    ours, theirs = pair(case, ending, std=0.2 if ending == "ForMaskedLM" else 0.1, seed=6)
    rows = random_rows(case, LENGTHS, seed=7)
    labels = labels_of(ours.forward(rows.packed), seed=8)
    optimizer = kd.AdamW(ours, lr=LEARNING_RATE, weight_decay=DECAY)
    schedule = kd.get_linear_schedule_with_warmup(WARMUP, STEPS)
    named = list(named_parameters(theirs).items())
    groups = [
        {"params": [p for name, p in named if decays(name)], "weight_decay": DECAY},
        {"params": [p for name, p in named if not decays(name)], "weight_decay": 0.0},
    ]
    torch_optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    scheduler = transformers.get_linear_schedule_with_warmup(torch_optimizer, WARMUP, STEPS)
    losses, expected = [], []
    for step in range(STEPS):
        optimizer.lr = LEARNING_RATE * schedule(step)
        loss, dlogits = kd.cross_entropy(ours.forward(rows.packed, train=True), labels)
        ours.backward(dlogits)
        kd.clip_grad_norm_(ours, MAX_NORM)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)
        torch_loss = torch.nn.functional.cross_entropy(torch_logits(theirs, case, rows), torch.tensor(labels))
        torch_loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), MAX_NORM)
        torch_optimizer.step()
        scheduler.step()
        torch_optimizer.zero_grad()
        expected.append(torch_loss.item())
    assert losses[-1] <= 0.95 * losses[0]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@EVERY
@pytest.mark.parametrize("padded", [False, True], ids=["lists", "padded"])
def test_a_call_returns_what_lies_inside(case: Case, padded: bool) -> None:
    ours, theirs = pair(case, "Model", std=0.3, seed=9)
    rows = random_rows(case, [3, 7, 1], seed=10)
    given: Any = {"input_ids": rows.ids, "token_type_ids": rows.types}
    if padded:
        given["attention_mask"] = [[1] * len(row) for row in rows.ids]
        given = {name: np.array([row + [0] * (7 - len(row)) for row in values]) for name, values in given.items()}
    result = ours(given, output_hidden_states=True, output_attentions=True)
    asked = {"output_hidden_states": True, "output_attentions": True}
    for index, (ids, types) in enumerate(zip(rows.ids, rows.types, strict=True)):
        given = {"token_type_ids": torch.tensor([types])} if case.types else {}
        with torch.inference_mode():
            expected = theirs(input_ids=torch.tensor([ids]), **given, **asked)
        n = len(ids)
        assert [*result] == [name for name in expected if name != "cross_attentions"]
        close(result.last_hidden_state[index][:n], expected.last_hidden_state[0])
        if "pooler_output" in expected:
            close(result.pooler_output[index], expected.pooler_output[0])
        for mine, other in zip(result.hidden_states, expected.hidden_states, strict=True):
            close(mine[index][:n], other[0])
        for mine, other in zip(result.attentions, expected.attentions, strict=True):
            close(mine[index][:, :n, :n], other[0])
            assert not padded or not mine[index][:, n:].any()


def close(ours: Any, theirs: Any) -> None:
    assert ours.shape == tuple(theirs.shape)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)


@EVERY
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_saved_model_opens_in_transformers_and_theirs_here(case: Case, ending: str, tmp_path: Path) -> None:
    ours, theirs = pair(case, ending, std=0.3, seed=11)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    torch.save(theirs.state_dict(), tmp_path / "theirs" / "pytorch_model.bin")
    opened, info = getattr(transformers, case.name + ending).from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(info.values()), info
    for name, parameter in named_parameters(opened).items():
        np.testing.assert_array_equal(parameter.detach().numpy(), ours.parameters[name])
    for name in ("model.safetensors", "pytorch_model.bin"):
        back = getattr(kd, case.name + ending).from_pretrained(tmp_path / "theirs")
        np.testing.assert_array_equal(back.flat_parameters, ours.flat_parameters, err_msg=name)
        (tmp_path / "theirs" / "model.safetensors").unlink(missing_ok=True)


@EVERY
def test_a_head_begins_with_the_encoder_of_another(case: Case, tmp_path: Path) -> None:
    _, theirs = pair(case, "Model", std=0.3, seed=12)
    theirs.save_pretrained(tmp_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = getattr(kd, f"{case.name}ForTokenClassification").from_pretrained(tmp_path)
    texts = [str(one.message) for one in said]
    assert sum("lacks classifier.weight, classifier.bias: initialised at random" in text for text in texts) == 1
    assert not any("does not use" in text for text in texts), "nobody reads a pooler"
    rows = random_rows(case, [5, 2], seed=13)
    result = model(rows.packed, output_hidden_states=True)
    for mine, expected in zip(result.hidden_states[-1], torch_outputs(theirs, case, rows), strict=True):
        close(mine, expected.last_hidden_state[0].detach())


@EVERY
@pytest.mark.parametrize("with_teacher", [False, True], ids=["words", "teacher"])
def test_the_loss_of_hidden_words_and_its_gradients(case: Case, with_teacher: bool) -> None:
    """In blocks and of the hidden words alone, against autograd on all logits of both models."""
    ours, theirs = pair(case, "ForMaskedLM", std=0.1, seed=14)
    teacher, their_teacher = pair(case, "ForMaskedLM", std=0.3, seed=15) if with_teacher else (None, None)
    rows = random_rows(case, LENGTHS, seed=16)
    labels = np.where(np.random.default_rng(17).random(len(rows.packed.ids)) < 0.3, rows.packed.ids, -100).astype(
        np.int64
    )
    alpha, temperature = (0.3, 2.0) if with_teacher else (1.0, 1.0)
    found = ours.masked_loss(
        rows.packed, labels, train=True, teacher=teacher, alpha=alpha, temperature=temperature, label_smoothing=0.1
    )
    known = torch.tensor(labels != -100)
    logits = torch_logits(theirs, case, rows)[known]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels)[known], label_smoothing=0.1)
    if with_teacher:
        with torch.no_grad():
            taught = torch_logits(their_teacher, case, rows)[known]
        softened = torch.log_softmax(logits / temperature, 1), torch.log_softmax(taught / temperature, 1)
        soft = torch.nn.functional.kl_div(*softened, reduction="batchmean", log_target=True) * temperature**2
        loss = alpha * loss + (1 - alpha) * soft
    loss.backward()
    assert found.loss == pytest.approx(loss.item(), rel=1e-5)
    check_all_gradients(ours, theirs)


def check_all_gradients(ours: Any, theirs: Any, scale: float = 1.0) -> None:
    """Compare `scale` times the gradients of ours with autograd's."""
    expected = {name: p.grad.numpy() for name, p in named_parameters(theirs).items() if p.grad is not None}
    for name, gradient in ours.gradients.items():
        norm = float(np.linalg.norm(expected[name])) if name in expected else 0.0
        if is_truly_zero(name) or not norm:
            assert np.linalg.norm(gradient) <= 1e-5, name
        else:
            assert np.linalg.norm(scale * gradient - expected[name]) <= 1e-4 * norm, name


@EVERY
def test_the_triple_loss_of_distilbert_and_its_gradients(case: Case) -> None:
    """Written from DistilBERT's distiller.py: 5 * soft + 2 * words + 1 * cosine, temperature 2.

    The soft part is that of the hidden words (`--restrict_ce_to_mask`), the cosine that of all tokens. Ours is a
    seventh of it: alpha 2/7, and gradients of a seventh of the cosine's.
    """
    (ours, theirs), (teacher, their_teacher) = (
        pair(case, "ForMaskedLM", std, seed) for std, seed in ((0.1, 18), (0.3, 19))
    )
    rows, last = random_rows(case, LENGTHS, seed=20), ("hidden", 3)
    drawn = np.random.default_rng(21).random(len(rows.packed.ids)) < 0.3
    labels = np.where(drawn, rows.packed.ids, -100).astype(np.int64)
    taught = teacher.masked_pass(rows.packed, labels, taps=[last])
    learned = ours.masked_pass(rows.packed, labels, train=True, taps=[last])
    states = torch.tensor(learned.taps[last], requires_grad=True)
    cosine = cosine_embedding_loss(states, torch.tensor(taught.taps[last]))
    (cosine / 7).backward()
    assert states.grad is not None
    mixture = {"alpha": 2 / 7, "temperature": 2.0}
    found = learned.loss(teacher=taught, **mixture, gradients={last: states.grad.numpy()})

    known = torch.tensor(labels != -100)
    outputs = torch_outputs(theirs, case, rows, output_hidden_states=True)
    with torch.no_grad():
        from_teacher = torch_outputs(their_teacher, case, rows, output_hidden_states=True)
    logits, soft_targets = (torch.cat([out.logits[0] for out in of])[known] for of in (outputs, from_teacher))
    hidden, hidden_teacher = (torch.cat([out.hidden_states[-1][0] for out in of]) for of in (outputs, from_teacher))
    soft = torch.nn.functional.kl_div(
        torch.log_softmax(logits / 2, dim=-1), torch.softmax(soft_targets / 2, dim=-1), reduction="batchmean"
    )
    words = torch.nn.functional.cross_entropy(logits, torch.tensor(labels)[known])
    loss = 5 * 4 * soft + 2 * words + cosine_embedding_loss(hidden, hidden_teacher)
    loss.backward()
    assert 7 * found.loss + cosine.item() == pytest.approx(loss.item(), rel=1e-5)
    check_all_gradients(ours, theirs, 7)


def cosine_embedding_loss(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Return PyTorch's loss of rows that are to point in the same direction."""
    return torch.nn.functional.cosine_embedding_loss(ours, theirs, torch.ones(len(ours)))


@EVERY
def test_a_language_model_whose_decoder_is_not_tied(case: Case, tmp_path: Path) -> None:
    """Its decoder has a weight of its own, in both directions."""
    kind = getattr(transformers, f"{case.name}Config")
    theirs = getattr(transformers, f"{case.name}ForMaskedLM")(kind(**case.sizes, tie_word_embeddings=False)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = kd.AutoModelForMaskedLM.from_pretrained(tmp_path / "theirs")
    rows = random_rows(case, [5, 1, TOKENS], seed=3)
    with torch.inference_mode():
        expected = torch_logits(theirs, case, rows).numpy()
    np.testing.assert_allclose(ours.forward(rows.packed), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    ours.save_pretrained(tmp_path / "ours")
    opened = getattr(transformers, f"{case.name}ForMaskedLM").from_pretrained(tmp_path / "ours").eval()
    tensors = theirs.state_dict()
    assert opened.state_dict().keys() == tensors.keys()
    for name, tensor in opened.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), tensors[name].numpy(), err_msg=name)
