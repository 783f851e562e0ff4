"""The command `plan`: what a recipe needs of its devices, whether it fits, and what would."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, cast, get_args

from rich.table import Table
from rich.text import Text

from framework.cli.plan_sizes import SizedPlan, largest_within, shown
from framework.core.console import results
from framework.core.errors import ConfigError
from framework.core.imports import import_object
from framework.core.method import Method, method_of
from framework.core.serialization import JsonDict, to_json
from framework.data.sampling.batching import needed_accumulation
from framework.tracking.devices import GIB, HERE, Device, named_device, this_machine
from framework.training.display.pace import duration
from framework.training.planning import Plan, PlannedRun, Precision
from framework.training.scale import ClusterConfig, Expectation, expect
from framework.training.strategies.backend import named_backend
from framework.training.strategies.config import StrategyConfig

Planner = Callable[[PlannedRun], Plan]
"""What a run of one model needs."""


def what_would_fit(run: PlannedRun, planner: Planner, memory_bytes: int) -> list[tuple[str, Plan]]:
    """Options that let a run fit, the mildest first, and its plan with them.

    The global batch stays. None are found where only a smaller model or more devices would do.

    Args:
        run: what does not fit.
        planner: what a run needs.
        memory_bytes: of a device.
    """
    batches = [run.micro_batch // 2**n for n in range(run.micro_batch.bit_length())]
    for offloaded in (False, True):
        strategies = list(_lighter_strategies(run, offloaded=offloaded))
        for batch in batches:
            factor = run.micro_batch // batch
            if batch * factor != run.micro_batch:
                continue
            found: list[tuple[str, Plan]] = []
            for strategy in strategies:
                changed = replace(run, strategy=strategy, micro_batch=batch, accumulation=run.accumulation * factor)
                plan = planner(changed)
                if plan.fits(memory_bytes):
                    found.append((_difference(run, changed), plan))
            if found:
                return found
    return []


def _lighter_strategies(run: PlannedRun, *, offloaded: bool) -> Iterator[StrategyConfig]:
    """A run's strategy and others that hold less, the mildest first.

    Args:
        run: what does not fit.
        offloaded: those that keep in the host's memory what can be there.
    """
    checkpointing = [run.strategy.activation_checkpointing]
    checkpointing += [n for n in (2, 1) if not checkpointing[0] or n < checkpointing[0]]
    lighter = named_backend(run.strategy.name).lighter
    # On one device another strategy holds as much; but it may be one that can offload.
    others = [lighter] if lighter is not None and (offloaded or run.num_devices > 1) else []
    for name in [run.strategy.name, *others]:
        for every in checkpointing:
            strategy = replace(run.strategy, name=name, activation_checkpointing=every)
            changed = named_backend(name).offloaded(strategy) if offloaded else strategy
            if changed is not None:
                yield changed


def _difference(run: PlannedRun, changed: PlannedRun) -> str:
    options = list(_changed_options("--strategy", to_json(run.strategy), to_json(changed.strategy)))
    if changed.micro_batch != run.micro_batch:
        options.append(f"--data.batch_size {changed.micro_batch}")
        options.append(f"--trainer.accumulate_grad_batches {changed.accumulation}")
    return " ".join(options)


def _changed_options(name: str, before: JsonDict, after: JsonDict) -> Iterator[str]:
    """Options of the command that make one group of settings the other.

    Args:
        name: of the group.
        before: its settings.
        after: the others.
    """
    for key, value in after.items():
        if isinstance(value, dict):
            yield from _changed_options(f"{name}.{key}", before[key], value)
        elif value != before[key]:
            yield f"{name}.{key} {value if isinstance(value, str) else json.dumps(value)}"


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What is planned for, besides the recipe.

    Args:
        nodes: how many nodes.
        devices: devices on each node.
        device: their name (such as H100), or `here` for what this machine has, or their memory (such as 48GiB), to
            compare with.
        json: print JSON instead of a table.
        within_hours: also find the largest model of the recipe's kind that the device trains to `trainer.max_steps` in
            so many hours, and say its options.
        cluster: what they stand in, for the times that are expected of a known device.
    """

    nodes: int = 1
    devices: int = 1
    device: str | None = None
    json: bool = False
    within_hours: float | None = None
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.devices < 1:
            raise ConfigError(f"nodes {self.nodes}, devices {self.devices}", hint="use 1 or more")
        if self.within_hours is not None and self.within_hours <= 0:
            raise ConfigError(f"within_hours {self.within_hours}", hint="use a number above 0")

    @classmethod
    def of_recipe(cls, recipe: Mapping[str, Any]) -> "PlanOptions":
        """The options among the settings of a parsed recipe."""
        given = {each.name: recipe[each.name] for each in fields(cls)}
        return cls(**{**given, "cluster": ClusterConfig(**given["cluster"])})

    def found_device(self) -> tuple[Device | None, int | None]:
        """The device of the table, if it is one, and its bytes of memory.

        Raises:
            ConfigError: neither a known device nor a size.
        """
        if self.device is None:
            return None, None
        if size := re.fullmatch(r"(\d+(?:\.\d+)?) ?(B|GB|GiB)?", self.device):
            return None, round(float(size[1]) * {"GB": 10**9, "GiB": GIB}.get(size[2], 1))
        device = this_machine() if self.device == HERE else named_device(self.device)
        return device, device.memory_bytes


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What `framework plan` is asked about.

    Attributes:
        run: strategy, devices and batch.
        planner: what a run of the recipe's model needs.
        sample_unit: what a sample is.
        method: of the recipe's model.
        model: the recipe's `model.init_args`.
        max_steps: where the recipe ends, if it says so.
    """

    run: PlannedRun
    planner: Planner
    sample_unit: str
    method: Method
    model: Mapping[str, Any]
    max_steps: int | None = None


def read_recipe(recipe: Mapping[str, Any], options: PlanOptions, methods: Sequence[Method]) -> Subject:
    """What a parsed recipe asks for on so many devices; no data are opened.

    Args:
        recipe: with every setting.
        options: the devices.
        methods: whoever of them knows the model plans it.

    Raises:
        ConfigError: a model that nobody plans; a precision or a number of processes that cannot be.
    """
    path = recipe["model"]["class_path"]
    method = method_of(path, methods)
    if method is None or method.plan is None:
        known = ", ".join(path for each in methods if each.plan is not None for path in each.class_paths)
        raise ConfigError(f"model {path} cannot be planned", hint=f"plan knows {known}")
    planner = partial(import_object(method.plan), recipe["model"]["init_args"])
    steps = recipe["trainer"]["max_steps"]
    run = _run_of(recipe, options)
    return Subject(
        run=run,
        planner=planner,
        sample_unit=method.sample_unit,
        method=method,
        model=recipe["model"]["init_args"],
        max_steps=steps if steps > 0 else None,
    )


def _run_of(recipe: Mapping[str, Any], options: PlanOptions) -> PlannedRun:
    precision = str(recipe["trainer"]["precision"] or "32-true")
    known = {"32": "32-true", "32-true": "32-true", "bf16": "bf16-mixed", "bf16-mixed": "bf16-mixed"}
    if precision not in known:
        raise ConfigError(f"trainer.precision {precision}", hint=f"plan knows {' and '.join(get_args(Precision))}")
    chosen = StrategyConfig.of_recipe(recipe["strategy"])
    num = options.nodes * options.devices
    named_backend(chosen.name).check_processes(chosen, num)
    data, accumulation = recipe["data"], recipe["trainer"]["accumulate_grad_batches"]
    if data["global_batch"] is not None:
        accumulation = needed_accumulation(
            data["global_batch"], micro_batch=data["batch_size"], num_ranks=num, given=accumulation
        )
    return PlannedRun(
        strategy=chosen,
        num_devices=num,
        num_nodes=options.nodes,
        micro_batch=data["batch_size"],
        accumulation=accumulation,
        precision=cast(Precision, known[precision]),
    )


def show_plan(subject: Subject, options: PlanOptions) -> None:
    """Print what a run needs, whether a device holds it, and if not, what would make it fit."""
    device, memory_bytes = options.found_device()
    sized = None if options.within_hours is None else _sized(subject, options, options.within_hours, device)
    plan = subject.planner(subject.run)
    expected = None if device is None else expect(plan, device, options.cluster)
    if options.json:
        content = as_json(plan, subject.sample_unit, device, memory_bytes)
        whole = {"max_steps": subject.max_steps, "expected": None if expected is None else to_json(expected)}
        if sized is not None:
            whole |= {"within_hours": {"options": sized.options, "hours": sized.hours}}
        print(json.dumps({**content, **whole}, indent=2))
        return
    table = as_table(plan, subject.sample_unit, device, memory_bytes)
    if expected is not None:
        add_expected(table, plan, expected, subject)
    results().print(table)
    if memory_bytes is not None and not plan.fits(memory_bytes):
        changes = what_would_fit(subject.run, subject.planner, memory_bytes)
        screen = results(soft_wrap=True)
        if not changes:
            nothing = "no strategy, recomputation or micro-batch makes it fit: more devices or a smaller model would"
            screen.print(nothing)
        for change, changed in changes:
            screen.print(f"fits with {change}: {gib(changed.memory.peak)}")
    if sized is not None and options.within_hours is not None:
        screen = results(soft_wrap=True)
        for line in shown(sized, options.within_hours):
            screen.print(line)


def _sized(subject: Subject, options: PlanOptions, hours: float, device: Device | None) -> SizedPlan:
    """The largest model within some hours.

    Args:
        subject: what was asked about.
        options: the devices.
        hours: to train.
        device: a known one.
    """
    if device is None or subject.max_steps is None:
        raise ConfigError(
            f"within_hours {hours:g} without a known device or trainer.max_steps",
            hint="give --device here, or a name such as H100, and --trainer.max_steps",
        )
    return largest_within(
        hours,
        method=subject.method,
        model=subject.model,
        run=subject.run,
        max_steps=subject.max_steps,
        device=device,
        cluster=options.cluster,
    )


def as_json(plan: Plan, sample_unit: str, device: Device | None, memory_bytes: int | None) -> dict[str, object]:
    """A plan in JSON's types; bytes and operations as whole numbers.

    Args:
        plan: what a run needs.
        sample_unit: what a sample is; stands in the name of its operations.
        device: to compare with.
        memory_bytes: what that device holds.
    """
    run = plan.run
    return {
        "strategy": to_json(run.strategy),
        "num_devices": run.num_devices,
        "micro_batch": run.micro_batch,
        "accumulation": run.accumulation,
        "global_batch": run.global_batch,
        "precision": run.precision,
        "num_parameters": plan.num_parameters,
        "num_trained_parameters": plan.num_trained,
        "memory_bytes": to_json(plan.memory),
        f"flops_per_{sample_unit}": plan.flops_per_sample,
        "flops_per_step": plan.flops_per_step,
        "bytes_sent_per_step": plan.bytes_sent,
        "bytes_between_nodes_per_step": plan.bytes_between_nodes,
        "checkpoint_bytes": plan.checkpoint_bytes,
        "device": device.name if device else None,
        "device_memory_bytes": memory_bytes,
        "fits": None if memory_bytes is None else plan.fits(memory_bytes),
    }


def as_table(plan: Plan, sample_unit: str, device: Device | None, memory_bytes: int | None) -> Table:
    """A plan for reading.

    Args:
        plan: what a run needs.
        sample_unit: what a sample is; stands in the name of its operations.
        device: to compare with.
        memory_bytes: what that device holds.
    """
    run, memory = plan.run, plan.memory
    table = Table("each device", "", title=f"{plan.num_parameters / 1e6:.1f}M parameters in training{_trained(plan)}")
    table.columns[1].justify = "right"
    rows = to_json(memory)
    peak, host = rows.pop("peak"), rows.pop("host")
    for name, value in rows.items():
        table.add_row(name, gib(value))
    if host:
        table.add_row("of these on the host", gib(host))
    table.add_section()
    table.add_row("expected peak", gib(peak))
    if memory_bytes is not None:
        table.add_row(f"memory of {device.name if device else 'the device'}", gib(memory_bytes))
        table.add_row("fits", Text("yes", style="green") if plan.fits(memory_bytes) else Text("no", style="red"))
    table.add_section()
    batch = f"{run.num_devices} x {run.micro_batch} x {run.accumulation} = {run.global_batch}"
    table.add_row("devices x micro-batch x accumulation", batch)
    table.add_row(f"operations per {sample_unit}", f"{plan.flops_per_sample / 1e9:.1f} GFLOP")
    table.add_row("operations per step", f"{plan.flops_per_step / 1e12:.1f} TFLOP")
    table.add_row("sent per step", gib(plan.bytes_sent))
    if run.num_nodes > 1:
        table.add_row("of these to other nodes", gib(plan.bytes_between_nodes))
    return table


def _trained(plan: Plan) -> str:
    """How many of the parameters learn, where not all do."""
    return "" if plan.num_trained == plan.num_parameters else f", of which {plan.num_trained / 1e6:.1f}M learn"


def add_expected(table: Table, plan: Plan, expected: Expectation, subject: Subject) -> None:
    """Adds the times that are expected.

    Args:
        table: of the plan.
        plan: what a run needs.
        expected: what it comes to.
        subject: what was asked about.
    """
    table.add_section()
    parts = {
        "arithmetic": expected.arithmetic_seconds,
        "memory": expected.memory_seconds,
        "links within nodes": expected.link_seconds,
        "network": expected.network_seconds,
    }
    for name, seconds in parts.items():
        if seconds:
            table.add_row(f"{name} per step", _time(seconds))
    table.add_row("seconds per step, the longest of these", f"{expected.step_seconds:.3f}")
    if subject.max_steps is not None:
        table.add_row(f"for {subject.max_steps:,} steps", _time(subject.max_steps * expected.step_seconds))
    table.add_row(f"{subject.sample_unit}s per second", f"{expected.samples_per_second:,.0f}")
    table.add_row("read from the data's storage", f"{expected.read_bytes_per_second / 1e9:.3f} GB/s")
    if not plan.checkpoint_bytes:
        return
    table.add_section()
    table.add_row("checkpoint", gib(plan.checkpoint_bytes))
    table.add_row("taken in, written in", f"{_time(expected.snapshot_seconds)}, {_time(expected.write_seconds)}")
    table.add_row("a failure every", _time(3600 * expected.hours_between_failures))
    steps = max(1, round(expected.interval_seconds / expected.step_seconds))
    table.add_row("best interval of checkpoints", f"{_time(expected.interval_seconds)} = {steps:,} steps")
    table.add_row("time lost to failures and checkpoints", f"{expected.lost_share:.2%}")


def _time(seconds: float) -> str:
    return duration(seconds) if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def gib(value: int) -> str:
    """Bytes for reading."""
    return f"{value / GIB:.2f} GiB" if value >= 0.01 * GIB else f"{value / 2**20:.2f} MiB"
