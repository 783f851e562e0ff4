"""The legend of axes: every shape in a signature of `framework.gbc` uses these words.

| axis | meaning |
|---|---|
| batch | rows of a padded batch: answers of agents |
| token | positions of an input, prompt and chat template included; what was cut off before is said |
| output | tokens that an agent generated |
| row | scores of an answer: a row for each output token where `finegrained` or `sketched`, otherwise one |
| hidden | values of an embedding |
| vocab | tokens of the vocabulary |
| inputs, outputs | values of a linear layer's input and output |
| axes | any axes, also none |
| group | of attention heads that share keys and values |
| heads, width | of keys and values: attention heads, and the values of one |
| soft | vectors of a soft prompt |
| round | tries of a choice among tokens that should have been said, one after the other |
| seen | tokens of a prompt and of what follows it, padding included |
| read | what a model reads of an input: its tokens and the soft prompt among them |
| position | chosen positions of a row |
| alternative | tokens that could stand in a place, the likeliest first |
| combination | sums of output tokens' values that are differentiated |
| parameter | values of an adapter or of a set of parameters, flattened |
| unit | what credit is given to in an output: its tokens, or its words where the tokens are unknown |
| span | spans of characters |
| target | output tokens that should have been others |
| edit | exchanges of one input token |
| domain | all turns or dialogues together, then those of each domain |
| tolerance | how far a named step may be off, the exact step first |

Scores and credits are on the CPU; credits are float64, in units of the loss.
"""

from jaxtyping import Float, Int
from torch import Tensor

TokenIds = Int[Tensor, "batch token"]
Mask = Int[Tensor, "batch token"]

# Of lists and mappings: `_` is an axis whose length differs from one of them to the next.
Embeddings = Float[Tensor, "_ hidden"]
"""`token hidden` of an input, or `output hidden`."""
SoftPrompt = Float[Tensor, "_ hidden"]
"""`soft hidden`."""
Gate = Float[Tensor, ""]
AdapterValues = Float[Tensor, "_"]
"""`parameter`."""
OutputValues = Float[Tensor, "_"]
"""`output`."""
TokenLogits = Float[Tensor, "_"]
"""`vocab`, of one token."""
Embedding = Float[Tensor, "_"]
"""`hidden`, of one token."""
EditValues = Float[Tensor, "_"]
"""`edit`."""
Alternatives = Int[Tensor, "_ _"]
"""`output alternative`."""
Credit = Float[Tensor, "_"]
"""`unit`."""


def ints(values: Int[Tensor, "_"]) -> list[int]:
    """The values of a tensor as Python's numbers."""
    return values.tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def floats(values: Float[Tensor, "_"]) -> list[float]:
    """The values of a tensor as Python's numbers."""
    return values.tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def unique_inverse(values: Int[Tensor, "_"]) -> tuple[Int[Tensor, "_"], Int[Tensor, "_"]]:
    """The different values in order, and for each value its number among them."""
    return values.unique(return_inverse=True)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
