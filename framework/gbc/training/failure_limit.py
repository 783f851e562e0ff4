"""Episodes that failed, and when there are too many of them."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from framework.core.errors import ConfigError, TrainingError


@dataclass(frozen=True, kw_only=True)
class FailureConfig:
    """How many episodes may fail.

    Args:
        max_failed_share: of the last `window` tasks; training stops where more have failed.
        window: tasks that are judged together; the first judgement comes when a quarter of it is there.
    """

    max_failed_share: float = 0.5
    window: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.max_failed_share <= 1 or self.window < 1:
            problem = f"failures.max_failed_share {self.max_failed_share}, window {self.window}"
            raise ConfigError(problem, hint="use a share from 0 to 1, and 1 task or more")


class Failures:
    """Counts tasks and those that failed. All processes note the same tasks in the same order."""

    def __init__(self, config: FailureConfig) -> None:
        self.config = config
        self.seen, self.failed = 0, 0
        self._recent: deque[bool] = deque(maxlen=config.window)
        self._last = ""

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

    def check(self) -> None:
        """Raises TrainingError where too many have failed."""
        if 4 * len(self._recent) < self.config.window or self.share <= self.config.max_failed_share:
            return
        raise TrainingError(
            f"{sum(self._recent)} of the last {len(self._recent)} episodes failed, more than "
            f"failures.max_failed_share {self.config.max_failed_share:g} allows; the last one: {self._last}",
            hint="see failures.jsonl in the run's folder, hint the cause and start again: the last checkpoint is kept",
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {"seen": self.seen, "failed": self.failed, "recent": list(self._recent), "last": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.seen, self.failed, self._last = state["seen"], state["failed"], state["last"]
        self._recent = deque(state["recent"], maxlen=self.config.window)
