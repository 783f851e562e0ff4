"""What each callback, and each hook of the module, takes of a training step: processor time of the main thread.

Lightning tells a profiler of every hook that it calls. Time within another hook counts for the inner one.
"""

import json
import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler
from rich.table import Table

from framework.core.console import results
from framework.core.serialization import to_json

HOOKS = "hooks.json"
BETWEEN = "between hooks"
"""The owner of what no hook took: Lightning's loop itself."""
_HOOK = re.compile(r"\[(?P<kind>\w+)\](?P<owner>.*)\.(?P<hook>\w+)")
_LOADER = ".train_dataloader_next"
_TIMING_CALLS = 2000


@dataclass(frozen=True, kw_only=True)
class HookCost:
    """One callback with all its hooks together, or one hook of what is not a callback.

    Attributes:
        owner: the callback's class; or module, strategy or data module with the hook; or `BETWEEN`.
        is_callback: whether it is a callback.
        calls: of its hooks in a step.
        microseconds: of the main thread in a step.
    """

    owner: str
    is_callback: bool
    calls: float
    microseconds: float


class HookTimer(Profiler):
    """Processor time of the main thread by hook, without that of the hooks called within it."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._open: list[tuple[str, float, float]] = []

    def start(self, action_name: str) -> None:
        self._open.append((action_name, time.thread_time(), 0.0))

    def stop(self, action_name: str) -> None:
        # One may have been open when this timer took over, and one that an error has ended is not closed.
        while self._open:
            name, started, within = self._open.pop()
            spent = time.thread_time() - started
            if self._open:
                outer, since, others = self._open[-1]
                self._open[-1] = outer, since, others + spent
            self.seconds[name] += spent - within
            self.calls[name] += 1
            if name == action_name:
                return


class TimeHooks(Callback):
    """Measures the hooks of a run from a step on, and writes `hooks.json` at its end.

    Args:
        first: optimizer steps that are left out.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self._timer: HookTimer | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        if self._timer is None and trainer.global_step == self.first:
            trainer.profiler = self._timer = HookTimer()  # type: ignore[attr-defined]
            self._started = time.thread_time()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._timer is not None, "the run is longer than what is left out"
        total = time.thread_time() - self._started
        timer, steps = self._timer, trainer.global_step - self.first
        costs = costs_of(timer.seconds, timer.calls, steps=steps, total=total, timing=_seconds_of_timing())
        (Path(trainer.default_root_dir) / HOOKS).write_text(json.dumps(to_json(costs)))


def costs_of(
    seconds: Mapping[str, float], calls: Mapping[str, int], *, steps: int, total: float, timing: float
) -> list[HookCost]:
    """The costs, the largest first; calls that Lightning's loops make of themselves count as between the hooks.

    Args:
        seconds: of each action, as Lightning names it.
        calls: of each action.
        steps: that were measured.
        total: seconds of all of them.
        timing: seconds that the measure of one call takes; half of it falls into what is measured.
    """
    spent: dict[tuple[str, bool], float] = defaultdict(float)
    counts: dict[tuple[str, bool], int] = defaultdict(int)
    for name, each in seconds.items():
        if (key := _owner_of(name)) is not None:
            spent[key] += max(0.0, each - calls[name] * timing / 2)
            counts[key] += calls[name]
    rest = max(0.0, total - sum(spent.values()) - timing * sum(calls.values()))
    owners = [
        HookCost(owner=owner, is_callback=is_callback, calls=counts[key] / steps, microseconds=1e6 * each / steps)
        for key, each in spent.items()
        for owner, is_callback in [key]
    ]
    owners.append(HookCost(owner=BETWEEN, is_callback=False, calls=0.0, microseconds=1e6 * rest / steps))
    return sorted(owners, key=lambda cost: -cost.microseconds)


def _owner_of(action: str) -> tuple[str, bool] | None:
    """The owner of an action and whether it is a callback; None for what Lightning's loops do themselves."""
    if action.endswith(_LOADER):
        return "next batch of the loader", False
    found = _HOOK.fullmatch(action)
    if found is None or found["kind"].startswith("_"):
        return None
    if found["kind"] == "Callback":
        return found["owner"], True
    return f"{found['owner']}.{found['hook']}", False


def _seconds_of_timing() -> float:
    """What the measure of one call takes."""
    timer = HookTimer()
    started = time.thread_time()
    for _ in range(_TIMING_CALLS):
        with timer.profile("[Callback]Nothing.on_train_start"):
            pass
    return (time.thread_time() - started) / _TIMING_CALLS


def show(costs: Sequence[HookCost]) -> None:
    """A table of what the callbacks take, and one of all else."""
    for title, wanted in (("callbacks", True), ("all else", False)):
        chosen = [cost for cost in costs if cost.is_callback is wanted]
        table = Table(title, "calls a step", "us a step")
        for cost in chosen:
            table.add_row(cost.owner, f"{cost.calls:.1f}", f"{cost.microseconds:,.0f}")
        table.add_row("together", "", f"{sum(cost.microseconds for cost in chosen):,.0f}")
        results().print(table)
