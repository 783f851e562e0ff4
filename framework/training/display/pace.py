"""How fast training goes, and how long the rest will take."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Pace:
    """Optimizer steps over time since the first one of this start was done.

    The first is left out: it waits for the data, and compiles. Validations and checkpoints in between count: the rest
    of a run has them too.

    Attributes:
        clock: seconds.
    """

    clock: Callable[[], float] = time.perf_counter
    _first: tuple[int, float] | None = field(default=None, init=False)
    _last: tuple[int, float] = field(default=(0, 0.0), init=False)

    def finish(self, step: int) -> None:
        """Tells that so many steps are done, earlier starts' included; called as often as one likes."""
        if self._first is None:
            self._first = self._last = step, self.clock()
        elif step > self._last[0]:
            self._last = step, self.clock()

    @property
    def num_measured(self) -> int:
        """Steps that the measure is made of."""
        return 0 if self._first is None else self._last[0] - self._first[0]

    @property
    def seconds_measured(self) -> float:
        """What they took together."""
        return 0.0 if self._first is None else self._last[1] - self._first[1]

    @property
    def seconds_per_step(self) -> float | None:
        """Mean over the measured steps; None before there is one."""
        return self.seconds_measured / self.num_measured if self.num_measured else None

    def seconds_left(self, total_steps: int) -> float | None:
        """Until the last of `total_steps` is done; None without an end, or before a step was measured."""
        each = self.seconds_per_step
        if each is None or total_steps < 0 or self._first is None:
            return None
        return max(0.0, (total_steps - self._last[0]) * each)


def duration(seconds: float) -> str:
    """A time for reading: `48 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h"
