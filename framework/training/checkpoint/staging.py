"""Copies of a state on the CPU, written while training goes on.

Not by the stagers of torch.distributed.checkpoint: the newer one fails at the second save on torch 2.11 and 2.12
(pytorch #183413) and is missing before 2.9; the older one keeps no memory without a GPU, and with one fails where the
tensors are others than the last time.
"""

import torch

from framework.training.shapes import AnyTensor, NamedTensors


class Staging:
    """Copies tensors, whole or sharded; the memory is kept for the next time, page-locked where they are on a GPU."""

    def __init__(self) -> None:
        self._copies: NamedTensors = {}

    @torch.no_grad()
    def copy(self, tensors: NamedTensors) -> NamedTensors:
        """Copies of tensors, on the CPU; the next call overwrites them."""
        self._copies = {name: self._place(name, tensor) for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            self._copies[name].copy_(tensor.detach(), non_blocking=True)
        devices = {tensor.device for tensor in tensors.values() if tensor.is_cuda}
        for device in devices:
            torch.cuda.current_stream(device).synchronize()
        return dict(self._copies)

    def _place(self, name: str, tensor: AnyTensor) -> AnyTensor:
        kept = self._copies.get(name)
        if kept is not None and _layout(kept) == _layout(tensor):
            return kept
        return torch.empty_like(tensor.detach(), device="cpu", pin_memory=tensor.is_cuda)


def _layout(tensor: AnyTensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype
