"""Attention that needs no mask after a prefix, as transformers asks for it."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.backends.cuda import SDPAParams, can_use_flash_attention  # pyright: ignore
from torch.nn.attention.bias import causal_lower_right  # pyright: ignore[reportUnknownVariableType]
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from framework.gbc.language_models.layers.after_prefix import attend_after_prefix, pays
from framework.gbc.language_models.transformers_compat import (
    attention_implementation,
    sdpa_attention,
    sdpa_mask,
    set_attention,
)

NAME = "sdpa_after_prefix"
"""Of the attention that needs no mask after a prefix. Transformers makes one there: torch's `is_causal` counts from
the first key; with a mask no flash kernel is chosen, and keys are repeated for every query head of their group. Torch's
`causal_lower_right` counts from the last key (ours)."""


@dataclass(frozen=True)
class AfterPrefix:
    """Stands for the mask of tokens that see all of a prefix, and of each other those before them."""


def read_prefixes_unmasked(model: PreTrainedModel) -> None:
    """Lets a model whose attention is torch's do without a mask after a cached prefix; others stay as they are."""
    if attention_implementation(model) == "sdpa":
        set_attention(model, NAME)


def make_mask(**options: object) -> object:
    """A layer's mask as `sdpa_mask` makes it, or `AfterPrefix`.

    Args:
        options: what transformers tells of the pass, by name.
    """
    queries, keys, before, window = (options.get(name) for name in ("q_length", "kv_length", "q_offset", "local_size"))
    plain = options.get("attention_mask") is None and options.get("allow_is_causal_skip", True)
    # Of a static cache the offset is a tensor, whose value is not waited for.
    if plain and isinstance(queries, int) and isinstance(keys, int) and isinstance(before, int):
        sees_all = not isinstance(window, int) or keys < window
        if sees_all and queries > 1 and 0 < before == keys - queries and not options.get("kv_offset"):
            return AfterPrefix()
    return sdpa_mask(**options)


def attend(
    module: nn.Module,
    query: Float[Tensor, "batch _ token _"],
    key: Float[Tensor, "batch _ _ _"],
    value: Float[Tensor, "batch _ _ _"],
    attention_mask: object,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: object,
) -> tuple[Float[Tensor, "batch token _ _"], None]:
    """A layer's attention, as transformers asks for it.

    Args:
        module: the layer.
        query: of the tokens.
        key: of the prefix and of the tokens.
        value: of both.
        attention_mask: as `make_mask` makes it.
        dropout: share of the weights that are left out.
        scaling: of the products.
        options: others, for `sdpa_attention`.
    """
    if not isinstance(attention_mask, AfterPrefix):
        return sdpa_attention(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options)
    if pays(query, key, value, dropout=dropout):
        return attend_after_prefix(query, key, value, scale=scaling).transpose(1, 2).contiguous(), None
    groups = query.shape[1] // key.shape[1]
    grouped = groups > 1 and can_use_flash_attention(SDPAParams(query, key, value, None, dropout, False, True))
    if groups > 1 and not grouped:
        # The other kernels take as many keys as queries.
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    bias = causal_lower_right(query.shape[2], key.shape[2])
    mixed = scaled_dot_product_attention(
        query, key, value, attn_mask=bias, dropout_p=dropout, scale=scaling, enable_gqa=grouped
    )
    return mixed.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend)  # pyright: ignore[reportUnknownMemberType]
AttentionMaskInterface.register(NAME, make_mask)  # pyright: ignore[reportUnknownMemberType]
