"""What `framework export` asks of the function that writes a method's weights."""

from dataclasses import dataclass
from typing import Literal

from framework.core.errors import ConfigError

Weights = Literal["ema", "raw"]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How weights are written.

    Args:
        weights: the averaged weights (ema) or the raw ones.
        max_shard_gib: split the weights into files of at most so much.
        overwrite: replace an earlier export of this name.
    """

    weights: Weights = "ema"
    max_shard_gib: float | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.max_shard_gib is not None and self.max_shard_gib <= 0:
            raise ConfigError(f"max_shard_gib {self.max_shard_gib}", hint="use a positive number")

    @property
    def max_shard_bytes(self) -> int | None:
        """The limit in bytes."""
        return None if self.max_shard_gib is None else int(self.max_shard_gib * 2**30)
