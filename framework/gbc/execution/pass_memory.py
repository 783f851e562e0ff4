"""How many answers are passed together, and how many gradients taken: what fits into the memory that is free (ours).

The memory of a pass is counted from the model's shape: what the layers keep for the way back, the logits, and what the
largest step of the way back takes besides. The counts are above what is taken and, but for passes without gradients,
below twice that (`tests/gbc/execution/test_pass_memory.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from transformers import PreTrainedModel

from framework.gbc.language_models.logits import positions_at_once
from framework.gbc.language_models.transformers_compat import attention_implementation

_FLOAT = 4
_SHARE = 0.9
"""Of the free memory, what is planned with: allocators leave gaps."""
_MOST_AT_ONCE = 16
"""Gradients of output tokens that are taken together: more are no faster."""


@dataclass(frozen=True, kw_only=True)
class PassSize:
    """Rows of one pass, as they are padded.

    Attributes:
        rows: answers.
        tokens: of the inputs after the prefix and of the outputs that are read.
        prefix: tokens of the cached prefixes.
        outputs: output tokens.
    """

    rows: int = 0
    tokens: int = 0
    prefix: int = 0
    outputs: int = 0

    def with_row(self, *, tokens: int, prefix: int, outputs: int) -> "PassSize":
        """With one more row.

        Args:
            tokens: of it, as in the attributes.
            prefix: of it.
            outputs: of it.
        """
        return PassSize(
            rows=self.rows + 1,
            tokens=max(self.tokens, tokens),
            prefix=max(self.prefix, prefix),
            outputs=max(self.outputs, outputs),
        )

    @property
    def padded_tokens(self) -> int:
        """All tokens of the pass, prefixes and padding included."""
        return self.rows * (self.tokens + self.prefix)


@dataclass(frozen=True, kw_only=True)
class PassMemory:
    """The memory of passes of a model whose parameters are frozen, in bytes, beside that of the model.

    Attributes:
        hidden: values of an embedding.
        layers: decoder layers.
        query: values of a token's queries, all heads together.
        key_value: values of a token's keys, all heads together.
        heads: of the queries.
        intermediate: values of the inner layer of a token's MLP.
        vocabulary: tokens.
        width: bytes of a value.
        math: attention that keeps a weight for every pair of tokens, whatever kernel is chosen.
        free: bytes that there are; None where nobody knows.
    """

    hidden: int
    layers: int
    query: int
    key_value: int
    heads: int
    intermediate: int
    vocabulary: int
    width: int
    math: bool = False
    free: int | None = None

    @classmethod
    def of(cls, model: PreTrainedModel, *, free: int | None = None) -> "PassMemory":
        """That of a model, by its configuration.

        Args:
            model: the language model.
            free: bytes that there are; None where nobody knows.
        """
        config = cast(Any, model.config).get_text_config()
        hidden = _of(config, "hidden_size", 0)
        heads = _of(config, "num_attention_heads", 1)
        width = _of(config, "head_dim", hidden // heads)
        return cls(
            hidden=hidden,
            layers=_of(config, "num_hidden_layers", 1),
            query=heads * width,
            key_value=_of(config, "num_key_value_heads", heads) * width,
            heads=heads,
            intermediate=_of(config, "intermediate_size", 4 * hidden),
            vocabulary=_of(config, "vocab_size", 0),
            width=model.dtype.itemsize,
            math=attention_implementation(model) == "eager",
            free=free,
        )

    def forward(self, size: PassSize) -> int:
        """Of a pass without gradients."""
        layer = size.rows * size.tokens * self._layer_step(size, math=self.math)
        # Logits, in float32, and their exponentials.
        logits = size.rows * self._outputs_at_once(size) * self.vocabulary * (self.width + 2 * _FLOAT)
        return self._prefix(size) + max(layer, logits)

    def backward(self, size: PassSize, *, at_once: int = 1, checkpointing: bool = False) -> int:
        """Of a pass with gradients.

        Args:
            size: of the pass.
            at_once: output tokens whose gradients are taken together; more than one need the mathematical attention.
            checkpointing: keep only the layers' inputs.
        """
        math = self.math or at_once > 1
        tokens = size.rows * size.tokens
        layer = tokens * self._layer_kept(size, math=math)
        inputs = tokens * self.layers * self.hidden * self.width
        kept = layer + inputs if checkpointing else layer * self.layers
        step = at_once * tokens * self._layer_step(size, math=math)
        ends = at_once * size.rows * (size.outputs + 4 * size.tokens) * self.hidden * _FLOAT
        return self._prefix(size) + kept + max(self._logits(size), step + ends)

    def _prefix(self, size: PassSize) -> int:
        # The cache of the rows, and the distinct prefixes that it is put together from.
        return 2 * size.rows * size.prefix * self.layers * 2 * self.key_value * self.width

    def _logits(self, size: PassSize) -> int:
        # Of the model, in float32, their exponentials, and the gradients of all three.
        return size.rows * self._outputs_at_once(size) * self.vocabulary * (2 * self.width + 4 * _FLOAT)

    def _outputs_at_once(self, size: PassSize) -> int:
        return min(size.outputs, positions_at_once(size.rows, self.vocabulary))

    def _pairs(self, size: PassSize) -> int:
        """Bytes of the attention weights of a token, in float32."""
        return self.heads * (size.tokens + size.prefix) * _FLOAT

    def _layer_kept(self, size: PassSize, *, math: bool) -> int:
        """Of a token in a layer: the residual stream in float32 twice, normed queries and keys, attention and MLP."""
        read = 1 + size.prefix / max(1, size.tokens)
        kept = 2 * self.hidden * _FLOAT + (self.query + self.key_value) * _FLOAT
        kept += self.width * (2 * self.query + 3 * self.intermediate) + round(2 * read * self.query * self.width)
        if math:
            kept += round(2 * read * self.query * _FLOAT) + self.query * _FLOAT + 2 * self._pairs(size)
        return kept

    def _layer_step(self, size: PassSize, *, math: bool) -> int:
        """Of a token, what the largest step of a layer takes besides, on the way there or back."""
        read = 1 + size.prefix / max(1, size.tokens)
        feed_forward = 4 * self.intermediate * self.width + 6 * self.hidden * _FLOAT
        attention = round((3 + 4 * read) * self.query * _FLOAT) + (3 * self._pairs(size) if math else 0)
        return max(feed_forward, attention)

    def fits(self, needed: int) -> bool:
        """Whether there is so much, as far as anybody knows."""
        return self.free is None or needed <= _SHARE * self.free

    def gradients_together(self, size: PassSize, *, asked: int | None, max_tokens: int, on_cpu: bool) -> int:
        """Output tokens whose gradients are taken by one batched backward pass, at least 1.

        Args:
            size: of the pass.
            asked: most of them; by default 1 on a CPU, where more are slower, and elsewhere as many as keep the pass
                within `max_tokens`.
            max_tokens: most tokens of a pass, those of every gradient counted.
            on_cpu: whether the model runs on a CPU.
        """
        if asked is None:
            room = max_tokens // max(1, size.padded_tokens)
            asked = 1 if on_cpu else min(_MOST_AT_ONCE, room)
        most = max(1, min(asked, size.outputs))
        return next((count for count in range(most, 1, -1) if self.fits(self.backward(size, at_once=count))), 1)


def _of(config: object, name: str, otherwise: int) -> int:
    value = getattr(config, name, None)
    if isinstance(value, Sequence):
        # Of models whose layers differ.
        return max(cast(Sequence[int], value), default=otherwise)
    return value if isinstance(value, int) else otherwise
