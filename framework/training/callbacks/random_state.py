"""Random number generators' states in the checkpoint: Lightning saves none."""

import hashlib
import random
from typing import TypedDict

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from framework.core.collectives import all_gather_object, rank_and_size
from framework.training.shapes import RandomWords


class GeneratorStates(TypedDict):
    """States of a process's generators, as plain types and tensors; `cuda` is None in a process that uses no GPU."""

    python: tuple[int, tuple[int, ...], float | None]
    numpy: tuple[str, RandomWords, int, int, float]
    torch: RandomWords
    cuda: RandomWords | None


def random_state() -> GeneratorStates:
    """States of Python's, NumPy's and torch's generators as plain types and tensors; on GPUs, of this process's own."""
    legacy = np.random.get_state()  # noqa: NPY002 - the global generator's state
    assert isinstance(legacy, tuple)
    name, keys, position, has_gauss, gauss = legacy
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        # Not wherever there is a GPU: a run on the CPU would start one for it.
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def set_random_state(state: GeneratorStates) -> None:
    """Inverse of `random_state`."""
    version, words, spare = state["python"]
    random.setstate((version, tuple(words), spare))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(state["cuda"])


def derived_seed(states: list[GeneratorStates], rank: int, world_size: int) -> int:
    """A seed for a rank of another number of processes than those whose states are given, which all have a part in it.

    SHA-256 of torch's and NumPy's states, of the rank and of the number of processes; ours.

    Args:
        states: of `random_state`, of all ranks that saved.
        rank: from 0.
        world_size: processes there are now.

    Returns:
        A number in [0, 2^32).
    """
    digest = hashlib.sha256(f"{rank} of {world_size}".encode())
    for state in states:
        digest.update(state["torch"].numpy().tobytes())
        digest.update(state["numpy"][1].numpy().tobytes())
    return int.from_bytes(digest.digest()[:4], "big")


class RandomState(Callback):
    """Saves every rank's generators with a checkpoint and restores them right before the first resumed batch.

    On as many processes as before each rank goes on bit by bit; on another number each is seeded anew, by a function of
    all the saved states and its rank.
    """

    def __init__(self) -> None:
        self._restored: list[GeneratorStates] | None = None

    def state_dict(self) -> dict[str, list[GeneratorStates]]:
        return {"ranks": all_gather_object(random_state())}

    def load_state_dict(self, state_dict: dict[str, list[GeneratorStates]]) -> None:
        self._restored = state_dict["ranks"]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        # Not earlier: building loaders draws numbers too.
        self._restore()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Before the first batch: that of the checkpoint's step, which was cut off.
        if not trainer.sanity_checking:
            self._restore()

    def _restore(self) -> None:
        if self._restored is None:
            return
        rank, size = rank_and_size()
        if len(self._restored) == size:
            set_random_state(self._restored[rank])
        else:
            seed = derived_seed(self._restored, rank, size)
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002 - the global generator's
            torch.manual_seed(seed)
        self._restored = None
