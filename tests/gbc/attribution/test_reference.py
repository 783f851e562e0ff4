"""The slow way to token scores, on a model whose gradients are known by hand."""

import pytest
import torch

from framework.gbc.attribution.reference import kept_graph_scores
from framework.gbc.execution.teacher_forcing import TokenRow
from framework.testing.language_models import tiny_language_model


def test_a_prefix_outside_the_graph_changes_nothing():
    model = tiny_language_model()
    row = TokenRow(input_ids=(5, 6, 7, 8), prefix=2, output_ids=(9, 10))
    whole = kept_graph_scores(model, row, "sum_squares")
    cached = kept_graph_scores(model, row, "sum_squares", cache_prefix=True)
    assert whole.l1.shape == (1, 2)
    torch.testing.assert_close(whole.l1, cached.l1)
    torch.testing.assert_close(whole.gradient_input, cached.gradient_input)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", [0, 1])
def test_scores_against_differences_of_the_log_probability(prefix: int):
    model = tiny_language_model().double()
    row = TokenRow(input_ids=(5, 6, 7), prefix=prefix, output_ids=(9,))
    found = kept_graph_scores(model, row, "finegrained")
    embeddings = model.get_input_embeddings()(torch.tensor([row.input_ids])).detach()

    def log_prob(shift: torch.Tensor) -> torch.Tensor:
        return model(inputs_embeds=embeddings + shift).logits[0, -1].log_softmax(dim=0)[9]

    width, step = embeddings.shape[2], 1e-5
    slopes = torch.zeros(3, width, dtype=torch.float64)
    for token in range(3):
        for value in range(width):
            shift = torch.zeros_like(embeddings)
            shift[0, token, value] = step
            slopes[token, value] = (log_prob(shift) - log_prob(-shift)) / (2 * step)
    expected = slopes.abs().sum(dim=1)[prefix:]
    torch.testing.assert_close(found.l1[0].double(), expected, atol=1e-4, rtol=2e-3)
    product = (slopes * embeddings[0]).sum(dim=1)[prefix:]
    torch.testing.assert_close(found.gradient_input[0].double(), product, atol=5e-3, rtol=2e-3)
