"""What passes take: against fake tensors' count, and what is made of it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from framework.bench.language_models import SETTINGS
from framework.gbc.attribution.options import GradientOptions, Scalar
from framework.gbc.attribution.token_gradients import output_log_probs, token_scores
from framework.gbc.execution.pass_memory import PassMemory, PassSize
from framework.gbc.execution.teacher_forcing import TokenRow, chunk_rows
from framework.testing.fake_memory import fake_peak
from framework.testing.language_models import Family, tiny_language_model

WIDE = {
    "vocabulary": 5000,
    "num_hidden_layers": 2,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": 2048,
    "sliding_window": 1024,
}
"""Wide enough for what grows with tokens to be more than what does not."""


def rows_of(size: PassSize) -> list[TokenRow]:
    read = size.prefix + size.tokens - size.outputs
    # Each with a prompt of its own.
    return [
        TokenRow(input_ids=(5 + number,) * read, prefix=size.prefix, output_ids=(6,) * size.outputs)
        for number in range(size.rows)
    ]


SIZES = [
    PassSize(rows=2, tokens=90, prefix=0, outputs=5),
    PassSize(rows=2, tokens=50, prefix=160, outputs=4),
    PassSize(rows=1, tokens=14, prefix=12, outputs=8),
]


def peak(family: Family, compute: Callable[..., object]) -> tuple[int, PassMemory]:
    found: list[PassMemory] = []

    def prepare() -> Callable[[], object]:
        model = tiny_language_model(family, **WIDE)
        found.append(PassMemory.of(model))
        return lambda: compute(model)

    return fake_peak(prepare), found[0]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
@pytest.mark.parametrize("size", SIZES, ids=["no prefix", "long prefix", "long answer"])
def test_counts_are_above_what_is_taken_and_below_twice_that(family: Family, size: PassSize):
    cases: list[tuple[Scalar, int, bool]] = [
        ("sum_squares", 1, False),
        ("finegrained", 1, False),
        ("finegrained", 4, False),
        ("sketched", 1, False),
        ("sequence_log_prob", 1, True),
    ]
    for scalar, at_once, checkpointing in cases:
        options = GradientOptions(
            scalar=scalar, gradients_at_once=at_once, checkpointing=checkpointing, max_tokens=10**6
        )
        taken, memory = peak(family, lambda model, options=options: token_scores(model, rows_of(size), options))
        counted = memory.backward(size, at_once=at_once, checkpointing=checkpointing)
        assert taken < counted < 2 * taken, (scalar, at_once, checkpointing, counted / taken)
    taken, memory = peak(family, lambda model: output_log_probs(model, rows_of(size), max_tokens=10**6))
    # The exponentials are inside of one operation, which fake tensors do not see.
    assert taken < memory.forward(size) < 3 * taken, ("forward", memory.forward(size) / taken)


QWEN = SETTINGS["qwen3-4b"]
MEMORY = PassMemory(
    hidden=QWEN["hidden_size"],
    layers=QWEN["num_hidden_layers"],
    query=QWEN["num_attention_heads"] * QWEN["head_dim"],
    key_value=QWEN["num_key_value_heads"] * QWEN["head_dim"],
    heads=QWEN["num_attention_heads"],
    intermediate=QWEN["intermediate_size"],
    vocabulary=QWEN["vocab_size"],
    width=2,
)
GIB = 2**30


def test_gradients_together_are_as_many_as_fit():
    size = PassSize(rows=1, tokens=512, prefix=512, outputs=256)

    def together(free: int | None, asked: int | None = None, on_cpu: bool = False) -> int:
        memory = replace(MEMORY, free=free)
        return memory.gradients_together(size, asked=asked, max_tokens=16384, on_cpu=on_cpu)

    assert together(None) == 16
    assert together(None, on_cpu=True) == 1
    assert together(None, asked=64) == 64
    free = round(MEMORY.backward(size, at_once=5) / 0.9) + 1
    assert together(free) == together(free, asked=64) == 5
    assert together(1 * GIB) == 1
    many = replace(size, rows=16)
    assert MEMORY.gradients_together(many, asked=None, max_tokens=16384, on_cpu=False) == 1
    short = replace(size, outputs=3)
    assert MEMORY.gradients_together(short, asked=None, max_tokens=16384, on_cpu=False) == 3


def test_more_of_anything_takes_more():
    size = PassSize(rows=2, tokens=100, prefix=100, outputs=50)
    for larger in (
        replace(size, rows=3),
        replace(size, tokens=200),
        replace(size, prefix=300),
        replace(size, outputs=100_000),
    ):
        assert MEMORY.backward(larger) > MEMORY.backward(size)
        assert MEMORY.forward(larger) >= MEMORY.forward(size)
    assert MEMORY.backward(size, at_once=2) > MEMORY.backward(size)
    assert MEMORY.backward(size, checkpointing=True) < MEMORY.backward(size)


def widths(free: int | None, monkeypatch: pytest.MonkeyPatch, max_tokens: int = 10**6) -> list[int]:
    monkeypatch.setattr("framework.gbc.execution.teacher_forcing.free_bytes", lambda device: free)
    rows = rows_of(PassSize(rows=12, tokens=20, prefix=80, outputs=10))
    return [len(chunk) for chunk in chunk_rows(tiny_language_model(), rows, max_tokens)]


def test_passes_are_bounded_by_tokens_and_by_memory(monkeypatch: pytest.MonkeyPatch):
    assert widths(None, monkeypatch) == [12]
    # Cached prompts count: each row has them in its keys and values.
    assert widths(None, monkeypatch, max_tokens=500) == [5, 5, 2]
    memory = PassMemory.of(tiny_language_model())
    four = memory.backward(PassSize(rows=4, tokens=20, prefix=80, outputs=10))
    assert widths(round(four / 0.9) + 1, monkeypatch) == [4, 4, 4]
    # A row that does not fit is tried all the same.
    assert widths(1, monkeypatch) == [1] * 12
    with torch.no_grad():
        assert max(widths(round(four / 0.9) + 1, monkeypatch)) > 4
