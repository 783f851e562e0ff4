"""Which attention is asked of torch: without a mask wherever that is possible, with the same results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.nn.attention.bias import CausalBias
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from framework.gbc.attribution.options import GradientOptions
from framework.gbc.attribution.token_gradients import TokenScores, token_scores
from framework.gbc.execution import teacher_forcing
from framework.gbc.execution.teacher_forcing import TokenRow, chunk_rows
from framework.gbc.language_models.layers.attention import NAME, read_prefixes_unmasked
from framework.gbc.language_models.prefix_cache import prompt_states
from framework.gbc.language_models.transformers_compat import attention_implementation
from framework.testing.language_models import tiny_language_model, tiny_local_model

PROMPT, OTHER = (5, 6, 7, 8), (9, 10)


@dataclass(frozen=True)
class Asked:
    """One call: a mask in numbers, a count from the last key, or none; and whether keys stand for groups."""

    mask: str
    grouped: bool


class Attention(TorchFunctionMode):
    """Notes what is asked of torch's attention. On a GPU a mask in numbers rules out the flash kernel."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.inside = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        options: Mapping[str, Any] = kwargs or {}
        if func is scaled_dot_product_attention:
            mask = options.get("attn_mask")
            kind = "none" if mask is None else "from the end" if isinstance(mask, CausalBias) else "numbers"
            self.asked.append(Asked(kind, options.get("enable_gqa", False)))
        return func(*args, **options)


def row(prompt: Sequence[int], read: int, said: int) -> TokenRow:
    ids = (*prompt, *range(20, 20 + read))
    return TokenRow(input_ids=ids, prefix=len(prompt), output_ids=tuple(range(30, 30 + said)))


def scored(model: PreTrainedModel, rows: Sequence[TokenRow], **options: Any) -> tuple[list[TokenScores], set[Asked]]:
    prompt_states(model).clear()
    with Attention() as attention:
        found = token_scores(model, rows, GradientOptions(**options))
    return found, set(attention.asked)


def test_a_local_model_needs_no_mask_after_a_prefix():
    assert attention_implementation(tiny_local_model("qwen3").model) == NAME
    eager = tiny_language_model("gemma2")
    before = attention_implementation(eager)
    read_prefixes_unmasked(eager)
    assert attention_implementation(eager) == before


@pytest.mark.parametrize("options", [{}, {"checkpointing": True}, {"scalar": "finegrained", "gradients_at_once": 2}])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_prefixes_of_one_length_are_read_without_a_mask(family: Any, options: dict[str, Any]):
    rows = [row(PROMPT, read, said) for read, said in ((3, 2), (6, 4), (4, 1))]
    model = tiny_language_model(family)
    expected, before = scored(model, rows, **options)
    assert Asked("numbers", False) in before
    read_prefixes_unmasked(model)
    found, after = scored(model, rows, **options)
    # Of the prompt itself, groups have their keys; after it, where the flash kernel is there. The call for a count from
    # the end makes one for CPUs itself.
    assert Asked("none", True) in after
    assert {each.mask for each in after} == {"none", "from the end"}
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.l1, theirs.l1, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(ours.gradient_input, theirs.gradient_input, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.log_probs, theirs.log_probs, rtol=1e-5, atol=1e-5)


def test_padding_behind_and_no_prefix_need_no_mask():
    rows = [row((), read, said) for read, said in ((3, 2), (6, 4), (4, 1))]
    model = tiny_language_model("qwen3")
    found, asked = scored(model, rows)
    assert asked == {Asked("none", True)}
    for each, alone in zip(found, rows, strict=True):
        torch.testing.assert_close(each.l1, scored(model, [alone])[0][0].l1, rtol=1e-4, atol=1e-6)


def test_unlike_prefixes_are_masked_in_small_passes_and_parted_in_large_ones(monkeypatch: pytest.MonkeyPatch):
    rows = [row(PROMPT, 3, 2), row(OTHER, 3, 2), row(PROMPT, 4, 2)]
    model = tiny_local_model("qwen3").model
    together, asked = scored(model, rows)
    assert Asked("numbers", False) in asked
    assert list(chunk_rows(model, rows, 1000)) == [[1, 0, 2]]
    monkeypatch.setattr(teacher_forcing, "_FULL", 4)
    assert list(chunk_rows(model, rows, 1000)) == [[1], [0, 2]]
    apart, asked = scored(model, rows)
    assert Asked("numbers", False) not in asked
    for ours, theirs in zip(apart, together, strict=True):
        torch.testing.assert_close(ours.l1, theirs.l1, rtol=1e-4, atol=1e-6)
