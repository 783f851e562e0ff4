"""Episodes that failed, and when there are too many of them."""

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from lightning.pytorch import Callback, Trainer

from framework.core.errors import ConfigError, TrainingError
from framework.core.io import append_lines
from framework.gbc.training.rollouts import EpisodeResult

FAILURES = "failures.jsonl"
"""In the run's folder, the list of what failed."""


@dataclass(frozen=True, kw_only=True)
class FailureConfig:
    """How many episodes may fail.

    Args:
        max_failed_share: of the last `window` tasks, in [0, 1]; training stops where more have failed.
        window: tasks that the share is of, 1 or more; it is looked at from a quarter of them on.
    """

    max_failed_share: float = 0.5
    window: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.max_failed_share <= 1 or self.window < 1:
            problem = f"failures.max_failed_share {self.max_failed_share}, window {self.window}"
            raise ConfigError(problem, hint="use a share from 0 to 1, and 1 task or more")


class FailuresState(TypedDict):
    """`Failures` in a checkpoint."""

    seen: int
    failed: int
    recent: list[bool]
    last: str


class Failures:
    """Counts tasks and those that failed. All processes note the same tasks in the same order."""

    def __init__(self, config: FailureConfig) -> None:
        self.config = config
        self.seen, self.failed = 0, 0
        self._recent: deque[bool] = deque(maxlen=config.window)
        self._last = ""
        self._new: list[EpisodeResult] = []

    @property
    def share(self) -> float:
        """Of the recent tasks, those that failed."""
        return sum(self._recent) / max(1, len(self._recent))

    def note(self, failure: str | None) -> None:
        """A task that has ended, with the reason if it failed."""
        self.seen += 1
        self.failed += failure is not None
        self._recent.append(failure is not None)
        self._last = failure or self._last

    def note_results(self, results: Sequence[EpisodeResult]) -> None:
        """Tasks that have ended."""
        for each in results:
            self.note(each.failure)
        self._new += [each for each in results if each.failure is not None]

    def take_new(self) -> list[EpisodeResult]:
        """The failed ones of `note_results` since the last time."""
        new, self._new = self._new, []
        return new

    def check(self) -> None:
        """Raises TrainingError where too many have failed."""
        if 4 * len(self._recent) < self.config.window or self.share <= self.config.max_failed_share:
            return
        raise TrainingError(
            f"{sum(self._recent)} of the last {len(self._recent)} episodes failed, more than "
            f"failures.max_failed_share {self.config.max_failed_share:g} allows; the last one: {self._last}",
            hint=f"see {FAILURES} in the run's folder, remove the cause and start again: the last checkpoint is kept",
        )

    def state_dict(self) -> FailuresState:
        """Plain types."""
        return {"seen": self.seen, "failed": self.failed, "recent": list(self._recent), "last": self._last}

    def load_state_dict(self, state: FailuresState) -> None:
        """The inverse of `state_dict`."""
        self.seen, self.failed, self._last = state["seen"], state["failed"], state["last"]
        self._recent = deque(state["recent"], maxlen=self.config.window)


class FailureLimit(Callback):
    """Lists failed episodes in the run's folder, and ends training with an error where too many have failed.

    It looks at them before the backward pass: no parameter changes by a batch with which the limit is exceeded.

    Args:
        failures: what the module counts.
    """

    def __init__(self, failures: Failures) -> None:
        self.failures = failures

    def on_before_backward(self, trainer: Trainer, pl_module: object, loss: object) -> None:
        new = self.failures.take_new()
        if new and trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / FAILURES
            path.parent.mkdir(parents=True, exist_ok=True)
            step = trainer.global_step
            entries = [{"step": step, "sample": each.sample, "task": each.id, "reason": each.failure} for each in new]
            append_lines(path, map(json.dumps, entries))
        self.failures.check()
