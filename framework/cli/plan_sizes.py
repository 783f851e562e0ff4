"""What `framework plan --within_hours` finds: the largest model of a recipe's kind that a device trains in a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from framework.core.errors import ConfigError
from framework.core.imports import import_object
from framework.core.method import Method
from framework.tracking.devices import GIB, Device
from framework.training.planning import Plan, PlannedRun
from framework.training.scale import ClusterConfig, expect


@dataclass(frozen=True, kw_only=True)
class SizedPlan:
    """A size, and what its training comes to.

    Attributes:
        options: of `framework fit`, in a line.
        plan: what it needs.
        hours: that its steps take.
    """

    options: str
    plan: Plan
    hours: float


def largest_within(
    hours: float,
    *,
    method: Method,
    model: Mapping[str, Any],
    run: PlannedRun,
    max_steps: int,
    device: Device,
    cluster: ClusterConfig,
) -> SizedPlan:
    """The largest size that fits the device's memory and ends in time.

    Args:
        hours: for all steps, validations and samples not counted.
        method: knows the sizes.
        model: the recipe's `model.init_args`.
        run: the rest of the recipe.
        max_steps: optimizer steps of the run.
        device: that trains.
        cluster: what it stands in.

    Raises:
        ConfigError: a method without sizes, or none that fits.
    """
    if method.sizes is None or method.plan is None:
        raise ConfigError(f"within_hours for {method.name}", hint="it has models of one size; leave the option out")
    planner = import_object(method.plan)
    found: SizedPlan | None = None
    for settings in import_object(method.sizes)(model):
        sized = {**model, "architecture": {**model["architecture"], **settings}}
        plan: Plan = partial(planner, sized)(run)
        seconds = max_steps * expect(plan, device, cluster).step_seconds
        found = SizedPlan(options=as_options(settings), plan=plan, hours=seconds / 3600)
        if found.hours <= hours and plan.fits(device.memory_bytes):
            return found
    least = "" if found is None else f"; the smallest takes {found.hours:.1f} h and "
    if found is not None:
        least += f"{found.plan.memory.peak / GIB:.1f} of {device.memory_bytes / GIB:.1f} GiB"
    raise ConfigError(
        f"no size fits and ends {max_steps:,} steps within {hours:g} h{least}",
        hint="give more hours, a smaller --trainer.max_steps or --data.batch_size, or a faster device",
    )


def as_options(settings: Mapping[str, int]) -> str:
    """Settings of an architecture as options of `framework fit`."""
    return " ".join(f"--model.architecture.{name} {value}" for name, value in settings.items())


def shown(found: SizedPlan, hours: float) -> Sequence[str]:
    """What is printed of it.

    Args:
        found: the largest size.
        hours: that were given.
    """
    parameters = f"{found.plan.num_parameters / 1e6:.1f}M parameters in training"
    return (f"the largest model within {hours:g} h has {parameters} and takes {found.hours:.2f} h:", found.options)
