"""A long sampling as parts: files that a second start finds, and that several processes make side by side."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from framework.core.console import console
from framework.core.errors import ConfigError
from framework.core.io import atomic_write
from framework.core.text_files import parse_json, read_text

SETTINGS = "settings.json"
_POLL_SECONDS = 0.5
_SHOWN = 3
Pixels = UInt8[np.ndarray, "sample height width channel"]


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which of several processes this one is, and so which parts it makes.

    Attributes:
        rank: its number.
        num_processes: all of them.
        local_rank: its number among those of its machine.
    """

    rank: int = 0
    num_processes: int = 1
    local_rank: int = 0

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> "Share":
        """By what torchrun or srun set; alone where neither started the process.

        Args:
            environment: variables of this process.
        """
        if "RANK" in environment and "WORLD_SIZE" in environment:
            names = "RANK", "WORLD_SIZE", "LOCAL_RANK"
        elif "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment:
            names = "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"
        else:
            return cls()
        rank, size, local_rank = (int(environment.get(name, "0")) for name in names)
        return cls(rank=rank, num_processes=size, local_rank=local_rank)

    def device(self, asked: torch.device) -> torch.device:
        """The device of this process: of a machine's GPUs one for each process, where no number was asked for."""
        if str(asked) != "cuda" or self.num_processes == 1:
            return asked
        return torch.device("cuda", self.local_rank % torch.cuda.device_count())


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of all weights by their names: which model made the parts."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(cast(Tensor, tensor).detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class SampleParts:
    """The folder of parts beside a file of samples.

    Images are a function of (seed, number) alone, so it does not matter which process makes a part, or when.

    Args:
        out: the file of samples; its parts are in the folder of that name with `.parts` behind it.
        settings: all that decides what the images are, as plain values: parts of other settings are not mixed in.
        num_images: images of all parts.
        batch_size: images of a part; the last may have fewer.

    Raises:
        ConfigError: the folder has parts of other settings.
    """

    def __init__(self, out: str, settings: Mapping[str, object], *, num_images: int, batch_size: int) -> None:
        self.folder, self.num = Path(f"{out}.parts"), -(-num_images // batch_size)
        self._num_images, self._batch_size = num_images, batch_size
        self.folder.mkdir(parents=True, exist_ok=True)
        path, wanted = self.folder / SETTINGS, json.loads(json.dumps(settings))
        if not path.exists():
            with atomic_write(path.with_name(f"{SETTINGS}.{os.getpid()}")) as file:
                file.write(json.dumps(wanted, indent=2).encode())
            path.with_name(f"{SETTINGS}.{os.getpid()}").replace(path)
        found = cast("dict[str, object]", parse_json(read_text(path)))
        unlike = [name for name in wanted if found.get(name) != wanted[name]]
        if unlike:
            shown = ", ".join(f"{name} {found.get(name)}, not {wanted[name]}" for name in unlike[:_SHOWN])
            raise ConfigError(
                f"{self.folder} has parts of other samples ({shown})", hint="remove the folder, or give another file"
            )

    def missing(self, share: Share) -> list[int]:
        """The parts of a process that are still to be made."""
        return [part for part in range(share.rank, self.num, share.num_processes) if not self._path(part).exists()]

    def numbers(self, part: int) -> range:
        """The numbers of a part's images."""
        return range(part * self._batch_size, min((part + 1) * self._batch_size, self._num_images))

    def size(self, part: int) -> int:
        """How many images a part has."""
        return len(self.numbers(part))

    def write(self, part: int, images: Pixels) -> None:
        """Keep a part; it appears whole. Raises OSError."""
        with atomic_write(self._path(part)) as file:
            np.save(file, images, allow_pickle=False)

    def wait(self) -> None:
        """Until all parts are there, which other processes make; whoever started them ends this one if they fail."""
        left = self._left()
        while left:
            console.print(f"{left} of {self.num} parts are still made by other processes")
            before = left
            while left == before:
                time.sleep(_POLL_SECONDS)
                left = self._left()

    def read(self) -> Pixels:
        """All images, in order."""
        parts = [np.load(self._path(part), mmap_mode="r", allow_pickle=False) for part in range(self.num)]
        return np.concatenate(parts)

    def remove(self) -> None:
        """Delete the folder, once its images are elsewhere."""
        shutil.rmtree(self.folder)

    def _left(self) -> int:
        return sum(not self._path(part).exists() for part in range(self.num))

    def _path(self, part: int) -> Path:
        return self.folder / f"{part:06d}.npy"
