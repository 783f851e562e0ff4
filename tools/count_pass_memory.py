"""What attribution's passes take on a GPU, counted by shapes: the table of docs/benchmarks.md.

    python tools/count_pass_memory.py [--free GIB]

Batches of answers that read 256 tokens after a prompt of 512 and have 512, on random models of the shapes of Qwen3 in
bfloat16; nothing is computed. `--free` is what the device has beside the model.
"""

import argparse
from collections.abc import Callable
from contextlib import suppress
from unittest.mock import patch

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from framework.bench.language_models import SETTINGS, Case, Shape
from framework.gbc.attribution import token_gradients
from framework.gbc.attribution.options import GradientOptions, Scalar
from framework.gbc.execution import teacher_forcing
from framework.testing.fake_memory import fake_peak

GIB = 2**30
CASES: list[tuple[Shape, Scalar, int, int | None]] = [
    ("qwen3-0.6b", "finegrained", 21, 16),
    ("qwen3-0.6b", "finegrained", 21, None),
    ("qwen3-4b", "finegrained", 21, 16),
    ("qwen3-4b", "finegrained", 4, 16),
    ("qwen3-4b", "finegrained", 4, 1),
    ("qwen3-4b", "finegrained", 21, None),
    ("qwen3-4b", "sum_squares", 128, None),
]
"""Shape, scalar, answers, gradients at once; None for the default of a GPU."""


class _Enough(Exception):
    """Ends the counting."""


def _few(grad: Callable[..., object]) -> Callable[..., object]:
    left = iter(range(4))

    def counted(*args: object, **kwargs: object) -> object:
        if next(left, None) is None:
            raise _Enough
        return grad(*args, **kwargs)

    return counted


def peak(shape: Shape, scalar: Scalar, answers: int, at_once: int | None) -> int:
    """Bytes of the largest pass.

    Args:
        shape: of the model.
        scalar: what is differentiated.
        answers: that are attributed.
        at_once: gradients that are taken together.
    """

    def prepare() -> Callable[[], object]:
        torch.set_default_dtype(torch.bfloat16)
        model = Qwen3ForCausalLM(Qwen3Config(**SETTINGS[shape], tie_word_embeddings=True)).eval().requires_grad_(False)
        torch.set_default_dtype(torch.float32)
        read, new = (64, 64) if scalar == "sum_squares" else (256, 512)
        case = Case(shape=shape, device="cpu", prompt=512, read=read, new=new, scalar=scalar)
        rows = [case.row(number) for number in range(answers)]
        options = GradientOptions(scalar=scalar, gradients_at_once=at_once)

        def compute() -> None:
            # The first passes are as large as the last.
            with suppress(_Enough), patch.object(torch.autograd, "grad", _few(torch.autograd.grad)):
                token_gradients.token_scores(model, rows, options)

        return compute

    return fake_peak(prepare)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--free", type=float, default=130.0)
    free = round(parser.parse_args().free * GIB)
    for module in (token_gradients, teacher_forcing):
        setattr(module, "free_bytes", lambda device: free)  # noqa: B010 - measured as if so much were free
    print("| shape | scalar | answers | gradients at once | peak beside the model, GiB |")
    print("|---|---|---|---|---|")
    for shape, scalar, answers, at_once in CASES:
        found = peak(shape, scalar, answers, at_once) / GIB
        print(f"| {shape} | {scalar} | {answers} | {at_once or 'default'} | {found:.0f} |", flush=True)


if __name__ == "__main__":
    main()
