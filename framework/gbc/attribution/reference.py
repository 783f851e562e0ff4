"""The slow way to token scores: the graph is kept through token-by-token generation, as published.

What `token_gradients.token_scores` is tested and timed against (Yang et al. 2026, arXiv 2606.28187, and its
prefix-based gradient). Attribution does not use it.
"""

import torch
from transformers import DynamicCache, PreTrainedModel

from framework.gbc.attribution.options import GradientOptions, Scalar
from framework.gbc.attribution.token_gradients import TokenScores, combinations, per_output
from framework.gbc.execution.teacher_forcing import TokenRow
from framework.gbc.language_models.transformers_compat import embeddings_of
from framework.gbc.shapes import TokenLogits


def kept_graph_scores(
    model: PreTrainedModel, row: TokenRow, scalar: Scalar, *, cache_prefix: bool = False
) -> TokenScores:
    """The scores of one answer whose tokens are fed one by one, without any of the tricks of `token_scores`.

    Args:
        model: in evaluation mode.
        row: the answer.
        scalar: what is differentiated; `product_probs` as the product itself, `sketched` with the default passes.
        cache_prefix: compute the prefix without a graph first, as the published prefix-based gradient does; otherwise
            it is part of the graph.
    """
    every = embeddings_of(model, torch.tensor([row.input_ids], device=model.device)).detach()
    runtime = every[:, row.prefix :].clone().requires_grad_()
    cache = DynamicCache(config=model.config)
    step = torch.cat([every[:, : row.prefix], runtime], dim=1)
    if cache_prefix and row.prefix:
        with torch.no_grad():
            model(inputs_embeds=every[:, : row.prefix], past_key_values=cache, use_cache=True, logits_to_keep=1)
        step = runtime
    rows: list[TokenLogits] = []
    for token in row.output_ids:
        result = model(inputs_embeds=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
        rows.append(result.logits[0, -1].float())
        step = embeddings_of(model, torch.tensor([[token]], device=model.device)).detach()
    logits, picks = torch.stack(rows), torch.tensor(row.output_ids, device=model.device)[:, None]
    picked, log_probs = logits.gather(1, picks)[:, 0], logits.log_softmax(dim=1).gather(1, picks)[:, 0]
    weights = combinations(row, GradientOptions(scalar=scalar))
    values = {
        "sum_squares": lambda: picked.square().sum()[None],
        "sequence_log_prob": lambda: log_probs.sum()[None],
        "product_probs": lambda: log_probs.exp().prod()[None],
        "finegrained": lambda: log_probs,
        "sketched": lambda: weights.to(log_probs) @ log_probs,
    }[scalar]()
    last = len(values) - 1
    gradients = torch.stack(
        [torch.autograd.grad(value, runtime, retain_graph=i < last)[0][0].float() for i, value in enumerate(values)]
    )
    return TokenScores(
        l1=per_output(gradients.abs().sum(dim=-1).cpu(), weights),
        squared_l2=per_output(gradients.square().sum(dim=-1).cpu(), weights),
        gradient_input=per_output((gradients * runtime.detach()[0].float()).sum(dim=-1).cpu(), weights),
        log_probs=log_probs.detach().cpu(),
        log_scale=0.0,
    )
