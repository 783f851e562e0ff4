"""What makes the host wait for the device, counted."""

import warnings
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from framework.core.compat.torch_compat import TorchDispatchMode

_aten = torch.ops.aten
_READS = (_aten._local_scalar_dense, _aten.equal, _aten.nonzero, _aten.masked_select, _aten._unique2)
"""Their results, or the sizes of them, are needed on the host."""


class DispatchedWaits(TorchDispatchMode):
    """Counts operations that make the host wait, by their names; on any device, pretended ones too.

    Copies between devices that are not `non_blocking`, values that are read, tensors that are made of numbers of the
    host.

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
        if self._waits(func.overloadpacket, args, options):
            self.waits[str(func)] += 1
        return func(*args, **options)

    @staticmethod
    def _waits(operation: object, args: Sequence[Any], options: Mapping[str, Any]) -> bool:
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is None:
            return False
        if operation is _aten._to_copy:
            there = options.get("device")
            moves = there is not None and torch.device(there).type != first.device.type
            return moves and not options.get("non_blocking", False)
        if operation is _aten.copy_:
            moves = isinstance(args[1], Tensor) and args[1].device.type != first.device.type
            return moves and not (args[2] if len(args) > 2 else options.get("non_blocking", False))
        if first.device.type == "cpu":
            return False
        # A tensor that torch.tensor makes of numbers comes to the device by a copy that modes do not see.
        return operation in _READS or operation is _aten.lift_fresh


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
