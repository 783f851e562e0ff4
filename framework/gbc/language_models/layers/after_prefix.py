"""Attention of tokens to a prefix and to those before them, on a CPU, by products of oneDNN.

torch's fused kernel for a CPU multiplies by MKL, whose float32 products are slow on some processors
(`framework.core.products`). Here a block of queries at a time, all heads of a group together, is multiplied by the keys
that it sees; what the mask would leave out behind a block is not computed. As in FlashAttention (Dao et al. 2022, arXiv
2205.14135) the way back computes the weights once more. Gradients of a prefix that has none are left out (ours).
"""

from collections.abc import Iterator
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from framework.core.compat.torch_compat import onednn_product
from framework.core.products import prefers_onednn

Queries = Float[Tensor, "batch heads token width"]
Keys = Float[Tensor, "batch group seen width"]
Values = Float[Tensor, "batch group seen _"]
Means = Float[Tensor, "batch heads token _"]

LEAST_WEIGHTS = 1 << 17
"""Attention of fewer weights loses more in Python than it gains (ours)."""
_BLOCK = 128
"""Queries of a head that are multiplied together: their weights stay in a processor's cache (ours)."""


def pays(query: Queries, key: Keys, value: Values, *, dropout: float) -> bool:
    """Whether `attend_after_prefix` is the faster way.

    Args:
        query: of the tokens.
        key: of the prefix and of the tokens.
        value: of both.
        dropout: share of the weights that are left out.
    """
    return (
        not torch.compiler.is_compiling()
        and query.device.type == "cpu"
        and query.dtype == key.dtype == value.dtype == torch.float32
        and query.shape[1] * query.shape[2] * key.shape[2] >= LEAST_WEIGHTS
        and not dropout
        # Where it is off, gradients are going to be batched.
        and torch.backends.cuda.flash_sdp_enabled()
        and not torch.is_autocast_enabled("cpu")
        and prefers_onednn()
    )


def attend_after_prefix(query: Queries, key: Keys, value: Values, *, scale: float | None) -> Means:
    """What each of the last places reads of all before it and of itself.

    Args:
        query: of the last places.
        key: of all; each group of heads shares those of one.
        value: of all, as `key`.
        scale: of the products; 1 / √width by default.
    """
    scale = query.shape[3] ** -0.5 if scale is None else scale
    is_frozen = _follows_constants(key) and _follows_constants(value)
    return cast(Tensor, _Attention.apply(query, key, value, scale, is_frozen))  # pyright: ignore[reportUnknownMemberType]


class _Attention(torch.autograd.Function):
    """softmax(q K^T + mask) V of each head, and its gradients."""

    @staticmethod
    def forward(ctx: FunctionCtx, query: Queries, key: Keys, value: Values, scale: float, is_frozen: bool) -> Means:
        """The weighted means; `ctx` keeps what the gradients need.

        Args:
            ctx: of this call.
            query: as in `attend_after_prefix`.
            key: as there.
            value: as there.
            scale: of the products.
            is_frozen: whether nothing asks for gradients of the prefix.
        """
        ctx.scale = scale  # type: ignore[attr-defined]
        ctx.first = key.shape[2] - query.shape[2] if is_frozen else 0  # type: ignore[attr-defined]
        mixed = query.new_empty(*query.shape[:3], value.shape[3])
        for block in _blocks(query, key):
            values = value[block.key][: block.stop]
            block.put(mixed, onednn_product(block.weights(query, key, scale)[1], values.t(), None))
        ctx.save_for_backward(query, key, value, mixed)
        return mixed

    # A second derivative is an error: through these products it would be zero.
    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides the name of ctx
        ctx: FunctionCtx, *gradients: Means
    ) -> tuple[Queries, Keys, Values, None, None]:
        """Gradients of queries, keys and values; zero for a prefix that has none.

        Args:
            ctx: of the call.
            gradients: of the means.
        """
        query, key, value, mixed = cast("tuple[Tensor, Tensor, Tensor, Tensor]", ctx.saved_tensors)  # pyright: ignore
        scale, first = cast(float, ctx.scale), cast(int, ctx.first)  # type: ignore[attr-defined]
        of_query, of_key, of_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for block in _blocks(query, key):
            seen, stop = slice(first, block.stop), block.stop
            scaled, weights = block.weights(query, key, scale)
            above = block.take(gradients[0])
            at_weights = onednn_product(above, value[block.key][:stop], None)
            # The mean of a query's gradients by its weights, which softmax's gradient takes off.
            mean = (above * block.take(mixed)).sum(dim=1, keepdim=True)
            at_scores = at_weights.sub_(mean).mul_(weights)
            block.put(of_query, onednn_product(at_scores, key[block.key][:stop].t(), None).mul_(scale))
            of_key[block.key][seen] += onednn_product(at_scores[:, first:].t(), scaled.t(), None)
            of_value[block.key][seen] += onednn_product(weights[:, first:].t(), above.t(), None)
        return of_query, of_key, of_value, None, None


class _Block:
    """Some consecutive queries of the heads that share their keys.

    Args:
        row: of the batch.
        group: of the heads, by its number.
        heads: of the group.
        tokens: the queries.
        before: places before the first query of all.
    """

    def __init__(self, row: int, group: int, heads: int, tokens: range, before: int) -> None:
        self.key = row, group
        self._at = row, slice(group * heads, (group + 1) * heads), slice(tokens.start, tokens.stop)
        self._heads, self._before, self.stop = heads, before + tokens.start, before + tokens.stop

    def take(self, values: Queries) -> Float[Tensor, "row width"]:
        """The rows of this block, head by head."""
        return values[self._at].reshape(-1, values.shape[3])

    def put(self, values: Queries, rows: Float[Tensor, "row width"]) -> None:
        """Puts the rows of this block where `take` has them from."""
        values[self._at] = rows.view(self._heads, -1, rows.shape[1])

    def weights(
        self, query: Queries, key: Keys, scale: float
    ) -> tuple[Float[Tensor, "row width"], Float[Tensor, "row _"]]:
        """The scaled queries, and their weights of all places up to the last of them.

        Args:
            query: all queries.
            key: all keys.
            scale: of the products.
        """
        scaled = self.take(query) * scale
        scores = onednn_product(scaled, key[self.key][: self.stop], None)
        own = scores.view(self._heads, -1, self.stop)[:, :, self._before :]
        own.masked_fill_(torch.ones(own.shape[1:], dtype=torch.bool).triu_(1), -torch.inf)
        return scaled, torch.softmax(scores, -1)


def _blocks(query: Queries, key: Keys) -> Iterator[_Block]:
    rows, heads, count, _ = query.shape
    groups, before = key.shape[1], key.shape[2] - count
    for row in range(rows):
        for group in range(groups):
            for start in range(0, count, _BLOCK):
                tokens = range(start, min(start + _BLOCK, count))
                yield _Block(row, group, heads // groups, tokens, before)


def _follows_constants(states: Keys) -> bool:
    """Whether a cache has put states that need gradients behind those of a prefix that need none."""
    made_by = states.grad_fn
    if made_by is None or made_by.name() != "CatBackward0":
        return False
    sources = [source for source, _ in made_by.next_functions]
    return len(sources) == 2 and sources[0] is None
