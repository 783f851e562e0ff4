"""One teacher-forced pass: against the kept graph, by hand on a linear model, batching, bounds of memory."""

import math
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from framework.core.errors import ConfigError
from framework.gbc.attribution.options import GradientOptions, Scalar
from framework.gbc.attribution.reference import kept_graph_scores
from framework.gbc.attribution.token_gradients import combinations, likeliest_tokens, output_log_probs, token_scores
from framework.gbc.execution.teacher_forcing import TokenRow
from framework.gbc.language_models.agent_parameters import BoundParameters
from framework.gbc.language_models.transformers_compat import keeps_keys_and_values
from framework.testing.language_models import Family, Hybrid, LinearLM, tiny_hybrid_model, tiny_language_model

VOCABULARY = 97


def tokens(count: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(4, VOCABULARY, (count,), generator=generator).tolist())


PROMPT, OTHER = tokens(11, 1), tokens(5, 2)
# Two share a prompt, one has another, one has none; all lengths differ, and Gemma's window is 8.
ROWS = [
    TokenRow(input_ids=PROMPT + tokens(7, 3), prefix=11, output_ids=tokens(4, 4)),
    TokenRow(input_ids=OTHER + tokens(13, 5), prefix=5, output_ids=tokens(6, 6)),
    TokenRow(input_ids=PROMPT + tokens(3, 7), prefix=11, output_ids=tokens(1, 8)),
    TokenRow(input_ids=tokens(9, 9), prefix=0, output_ids=tokens(5, 10)),
]


def far(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    assert actual.shape == expected.shape
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.slow
@pytest.mark.parametrize("family", get_args(Family))
@pytest.mark.parametrize("scalar", get_args(Scalar))
def test_one_pass_equals_the_graph_kept_through_generation(family: Family, scalar: Scalar):
    model = tiny_language_model(family, vocabulary=VOCABULARY)
    slow = [kept_graph_scores(model, row, scalar) for row in ROWS]
    size = model.get_input_embeddings().weight.abs().mean().item()
    for options in (
        GradientOptions(scalar=scalar),
        GradientOptions(scalar=scalar, gradients_at_once=16),
        GradientOptions(scalar=scalar, checkpointing=True),
        GradientOptions(scalar=scalar, max_tokens=10, gradients_at_once=1),
    ):
        for expected, scores in zip(slow, token_scores(model, ROWS, options), strict=True):
            assert expected.l1.max() > 0
            assert far(scores.absolute("l1"), expected.l1.double()) < 1e-5
            # The terms of this sum cancel: relative to their magnitudes.
            error = (scores.absolute("gradient_input") - expected.gradient_input).abs().max().item()
            assert error < 1e-5 * expected.l1.max().item() * size
            assert far(scores.log_probs, expected.log_probs) < 1e-5


def steered_rows(model: Any) -> list[TokenRow]:
    """Soft prompts in the prefix, at its end, after it and before all; gates in the prefix and after it."""
    generator = torch.Generator().manual_seed(3)
    soft = torch.randn(2, 32, generator=generator)
    neutral = model.get_input_embeddings().weight.detach().mean(dim=0)

    def bind(index: int, position: int, **options: Any) -> BoundParameters:
        scale = torch.rand(len(ROWS[index].input_ids), generator=generator)
        given = {"scale": scale, "mean_embedding": neutral, **options}
        return BoundParameters(agent=f"agent {index}", position=position, **given)

    bound = [bind(0, 11, soft_prompt=soft), bind(1, 9, soft_prompt=soft), bind(2, 3), None]
    rows = [replace(row, bound=each) for row, each in zip(ROWS, bound, strict=True)]
    first = bind(3, 0, soft_prompt=soft, scale=None)
    more = [replace(ROWS[0], bound=bind(0, 4, soft_prompt=-soft, scale=None)), replace(ROWS[3], bound=first)]
    return rows + more


def plain_scores(model: Any, row: TokenRow) -> tuple[Tensor, Tensor]:
    """Magnitudes of the gradients of each output token, and its log-probability, by one plain pass each."""
    embed = model.get_input_embeddings()
    leaf = embed(torch.tensor(row.input_ids)).detach().requires_grad_()
    read, soft = leaf, torch.zeros(0, 32)
    if row.bound is not None and row.bound.scale is not None:
        read = row.bound.mean_embedding + row.bound.scale[:, None] * (leaf - row.bound.mean_embedding)
    if row.bound is not None and row.bound.soft_prompt is not None:
        soft = row.bound.soft_prompt
    place = 0 if row.bound is None else row.bound.position
    inputs = torch.cat([read[:place], soft, read[place:], embed(torch.tensor(row.output_ids)).detach()])
    last = len(row.input_ids) + len(soft) - 1
    logits = model(inputs_embeds=inputs[None], use_cache=False).logits[0, last:-1]
    log_probs = logits.log_softmax(dim=1).gather(1, torch.tensor(row.output_ids)[:, None])[:, 0]
    gradients = [torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in log_probs]
    return torch.stack(gradients).abs().sum(dim=-1)[:, row.prefix :], log_probs.detach()


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("changes", [{"gradients_at_once": 16}, {"max_tokens": 10}, {"checkpointing": True}])
def test_gradients_pass_soft_prompts_and_gates(family: Family, changes: dict[str, Any]):
    model = tiny_language_model(family, vocabulary=VOCABULARY)
    rows = steered_rows(model)
    plain = token_scores(model, [replace(row, bound=None) for row in rows], GradientOptions())
    found = token_scores(model, rows, GradientOptions(**changes))
    for row, scores, without in zip(rows, found, plain, strict=True):
        l1, log_probs = plain_scores(model, row)
        assert far(scores.l1, l1) < 1e-4
        assert far(scores.log_probs, log_probs) < 1e-4
        assert (far(scores.l1, without.l1) > 0.01) == (row.bound is not None)


def test_likeliest_tokens_are_those_of_a_plain_pass():
    model = tiny_language_model(vocabulary=VOCABULARY)
    for row, found in zip(ROWS, likeliest_tokens(model, ROWS, count=3, max_tokens=40), strict=True):
        logits = model(input_ids=torch.tensor([row.input_ids + row.output_ids[:-1]])).logits[0]
        expected = logits[len(row.input_ids) - 1 :].topk(3).indices
        assert found.tolist() == expected.tolist()


def test_a_prefix_outside_the_graph_changes_nothing():
    model = tiny_language_model(vocabulary=VOCABULARY)
    for row in ROWS:
        whole = kept_graph_scores(model, row, "sequence_log_prob")
        cached = kept_graph_scores(model, row, "sequence_log_prob", cache_prefix=True)
        assert far(cached.l1, whole.l1) < 1e-5


def test_the_order_of_rows_is_kept_and_has_no_influence():
    model = tiny_language_model(vocabulary=VOCABULARY)
    options = GradientOptions(scalar="sequence_log_prob")
    forward, backward = token_scores(model, ROWS, options), token_scores(model, ROWS[::-1], options)
    for one, other in zip(forward, backward[::-1], strict=True):
        assert far(one.l1, other.l1) < 1e-6


def test_finegrained_gradients_add_up_to_those_of_the_sequence():
    model = tiny_language_model(vocabulary=VOCABULARY)
    each = token_scores(model, ROWS, GradientOptions(scalar="finegrained", gradients_at_once=3))
    whole = token_scores(model, ROWS, GradientOptions(scalar="sequence_log_prob"))
    for row, fine, coarse in zip(ROWS, each, whole, strict=True):
        assert fine.l1.shape == (len(row.output_ids), len(row.input_ids) - row.prefix)
        assert far(fine.gradient_input.sum(dim=0, keepdim=True), coarse.gradient_input) < 1e-5


def sign_vectors(row: TokenRow, passes: int) -> list[GradientOptions]:
    """Options whose sketches of an answer have each vector of signs once."""
    found: dict[tuple[bool, ...], GradientOptions] = {}
    for seed in range(200):
        options = GradientOptions(scalar="sketched", sketch_passes=passes, sketch_seed=seed)
        found.setdefault(tuple((combinations(row, options).sum(dim=0) > 0).tolist()), options)
    assert len(found) == 2 ** len(row.output_ids)
    return list(found.values())


@pytest.mark.parametrize(("passes", "groups"), [(1, [4]), (2, [2, 2]), (3, [2, 1, 1])])
def test_the_mean_of_all_sketches_is_the_mean_square(passes: int, groups: list[int]):
    # In float64 throughout: the norms of the other models are in float32.
    generator = torch.Generator().manual_seed(0)
    model: Any = LinearLM(*torch.randn(2, 9, 5, generator=generator).tolist()).double()
    row = TokenRow(input_ids=(1, 2, 3), prefix=0, output_ids=(5, 6, 7, 8))
    (exact,) = token_scores(model, [row], GradientOptions(scalar="finegrained"))
    sketches = [token_scores(model, [row], options)[0].squared_l2 for options in sign_vectors(row, passes)]
    means = torch.stack([each.mean(dim=0) for each in exact.squared_l2.split(groups)])
    expected = means if len(groups) == 1 else means.repeat_interleave(torch.tensor(groups), dim=0)
    torch.testing.assert_close(torch.stack(sketches).mean(dim=0), expected, rtol=1e-10, atol=0)
    # Together they have the norm of all.
    total = expected.sum(dim=0) * (len(row.output_ids) / len(expected))
    torch.testing.assert_close(total, exact.squared_l2.sum(dim=0), rtol=1e-10, atol=0)
    # One sketch alone is off.
    assert max(far(each, expected) for each in sketches) > 0.01


def test_a_sketch_of_as_many_passes_as_tokens_is_exact():
    model = tiny_language_model(vocabulary=VOCABULARY)
    exact = token_scores(model, ROWS, GradientOptions(scalar="finegrained"))
    for one, other in zip(exact, token_scores(model, ROWS, GradientOptions(scalar="sketched")), strict=True):
        assert torch.equal(one.l1, other.l1)
        assert torch.equal(one.squared_l2, other.squared_l2)
        assert torch.equal(one.gradient_input.abs(), other.gradient_input.abs())


def test_signs_are_a_function_of_seed_and_answer_whatever_the_batch():
    rows = [replace(row, key=f"{number}/a") for number, row in enumerate(ROWS)]
    options = GradientOptions(scalar="sketched", sketch_passes=2)
    model = tiny_language_model(vocabulary=VOCABULARY)
    together = token_scores(model, rows, options)
    for row, scores in zip(rows, together, strict=True):
        (alone,) = token_scores(model, [row], options)
        assert far(alone.l1, scores.l1) < 1e-5
        assert scores.l1.shape[0] == len(row.output_ids)
    signs = [combinations(replace(ROWS[1], key=key), options) for key in ("0/a", "0/a", "1/a")]
    assert torch.equal(signs[0], signs[1])
    assert not torch.equal(signs[0], signs[2])
    assert not torch.equal(signs[0], combinations(replace(ROWS[1], key="0/a"), replace(options, sketch_seed=1)))


def test_tokens_that_are_blamed_are_told_apart():
    model = tiny_language_model(vocabulary=VOCABULARY)
    row = TokenRow(input_ids=tokens(5, 1), prefix=0, output_ids=tokens(20, 2), blamed=(3, 7, 8))
    (exact,) = token_scores(model, [row], GradientOptions(scalar="finegrained"))
    (found,) = token_scores(model, [row], GradientOptions(scalar="sketched", sketch_passes=4))
    for place in row.blamed:
        assert far(found.l1[place], exact.l1[place]) < 1e-6
    # All others together.
    assert len(found.l1.unique(dim=0)) == 4
    # More than there are passes share them; without any for the others, these have the first's.
    assert len(combinations(row, GradientOptions(scalar="sketched", sketch_passes=3))) == 3
    (one,) = token_scores(model, [row], GradientOptions(scalar="sketched", sketch_passes=1))
    assert one.l1.shape[0] == 1


def test_a_sketch_takes_few_passes_however_long_the_answer(monkeypatch: pytest.MonkeyPatch):
    model = tiny_language_model(vocabulary=VOCABULARY)
    row, passed = TokenRow(input_ids=tokens(5, 1), prefix=0, output_ids=tokens(40, 2)), []
    for layer in model.model.layers[:1]:
        layer.register_full_backward_hook(lambda module, read, gave: passed.append(gave[0].shape))
    (scores,) = token_scores(model, [row], GradientOptions(scalar="sketched", sketch_passes=3))
    assert len(passed) == 3
    # Groups of neighbours: 14, 13 and 13 output tokens.
    assert len(scores.l1.unique(dim=0)) == 3
    assert torch.equal(scores.l1[0], scores.l1[13])
    assert not torch.equal(scores.l1[13], scores.l1[14])


def test_a_product_of_many_probabilities_does_not_vanish():
    model = tiny_language_model(vocabulary=VOCABULARY)
    row = TokenRow(input_ids=tokens(6, 0), prefix=0, output_ids=tokens(100, 1))
    (scores,) = token_scores(model, [row], GradientOptions(scalar="product_probs"))
    assert scores.log_scale < -200
    assert scores.l1.min() > 1e-3
    assert scores.absolute("l1").max() == pytest.approx(scores.l1.max().item() * math.exp(scores.log_scale))


def test_the_parameters_get_no_gradients_and_layers_are_as_before():
    model = tiny_language_model(vocabulary=VOCABULARY)
    before = [layer.forward.__func__ for layer in model.model.layers]
    token_scores(model, ROWS, GradientOptions(scalar="sum_squares", checkpointing=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [layer.forward.__func__ for layer in model.model.layers] == before


def test_log_probs_of_outputs_need_no_gradients():
    model = tiny_language_model(vocabulary=VOCABULARY)
    plain = output_log_probs(model, ROWS)
    for values, scores in zip(plain, token_scores(model, ROWS, GradientOptions()), strict=True):
        assert not values.requires_grad
        assert far(values, scores.log_probs) < 1e-6


def test_a_linear_model_by_hand():
    # Embeddings of three tokens, and the rows of W that give their logits.
    model: Any = LinearLM([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]], [[1.0, 1.0], [2.0, -1.0], [0.0, 3.0]])
    row = TokenRow(input_ids=(0, 1), prefix=0, output_ids=(2, 1))
    # Sums: [1, 2], then with the first answer [0, 3]. Logits of the picks: 3 * 2 = 6, and -3.
    # Gradient: 2 * 6 * [0, 3] + 2 * (-3) * [2, -1] = [-12, 42] for every input token.
    (scores,) = token_scores(model, [row], GradientOptions(scalar="sum_squares"))
    assert scores.l1.tolist() == [[54.0, 54.0]]
    assert scores.gradient_input.tolist() == [[-12.0, 84.0]]
    (longer, short) = token_scores(
        model,
        [row, TokenRow(input_ids=(2,), prefix=0, output_ids=(0,))],
        GradientOptions(scalar="sum_squares"),
    )
    # Sum [-1, 1], logit 0: no gradient at all.
    assert longer.gradient_input.tolist() == [[-12.0, 84.0]]
    assert short.l1.tolist() == [[0.0]]


@pytest.mark.parametrize("options", [{"max_tokens": 0}, {"gradients_at_once": 0}, {"sketch_passes": 0}])
def test_options_that_cannot_be_used(options: dict[str, Any]):
    with pytest.raises(ConfigError):
        GradientOptions(**options)


@pytest.mark.slow
@pytest.mark.parametrize("family", get_args(Hybrid))
def test_models_that_keep_other_states_read_the_prefix_again(family: Hybrid):
    model = tiny_hybrid_model(family, vocabulary=VOCABULARY)
    assert not keeps_keys_and_values(model)
    found = token_scores(model, ROWS, GradientOptions(scalar="sequence_log_prob"))
    for row, scores in zip(ROWS, found, strict=True):
        ids = torch.tensor([[*row.input_ids, *row.output_ids[:-1]]])
        read = model.get_input_embeddings()(ids).requires_grad_()
        logits = model(inputs_embeds=read, use_cache=False).logits[0, len(row.input_ids) - 1 :]
        log_probs = logits.log_softmax(dim=-1).gather(1, torch.tensor(row.output_ids)[:, None])[:, 0]
        (gradient,) = torch.autograd.grad(log_probs.sum(), read)
        expected = gradient[0, row.prefix : len(row.input_ids)].abs().sum(dim=-1)[None]
        assert far(scores.l1, expected) < 1e-4
        assert far(scores.log_probs, log_probs.detach()) < 1e-4
