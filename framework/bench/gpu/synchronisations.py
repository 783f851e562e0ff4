"""What makes the host wait for the device, counted."""

import warnings
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from framework.core.compat.torch_compat import TorchDispatchMode, is_waited_for


class DispatchedWaits(TorchDispatchMode):
    """Counts operations that make the host wait, by their names; on any device, pretended ones too.

    Attributes:
        waits: how often, by operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        options = kwargs or {}
        if is_waited_for(func, args, options):
            self.waits[str(func)] += 1
        return func(*args, **options)


@contextmanager
def counted_waits() -> Generator[Callable[[], Counter[str]], None, None]:
    """Counts while the block runs; the result is asked for the counts so far.

    On a GPU torch itself warns of each (`torch.cuda.set_sync_debug_mode`); elsewhere `DispatchedWaits` counts.
    """
    if not torch.cuda.is_available() or _is_pretended():
        with DispatchedWaits() as mode:
            yield lambda: mode.waits.copy()
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield lambda: Counter(
                f"{warning.filename}:{warning.lineno}" for warning in caught if "synchroniz" in str(warning.message)
            )
        finally:
            torch.cuda.set_sync_debug_mode("default")


def _is_pretended() -> bool:
    """Whether the GPU is not one of a torch that was built for GPUs."""
    return "+cpu" in torch.__version__
