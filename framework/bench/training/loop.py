"""`framework bench training`: what the loop, its callbacks and its checkpoints cost beside the training itself.

Within one run, windows of steps of the Lightning loop, with every callback that `framework fit` has, alternate with
windows of a bare loop over the same model, optimizer and data: on a shared machine the ratios are what can be trusted.
Further runs measure each callback, save checkpoints, synchronously and asynchronously, and load one.
"""

import csv
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from framework.bench.image_shards import make_jpeg_shards
from framework.bench.record import check_record, write_record
from framework.bench.training.hook_costs import HOOKS, HookCost, show
from framework.core.console import console, results, tracked
from framework.core.errors import ConfigError, TrainingError
from framework.core.random.seeding import seed_of
from framework.core.serialization import from_json, to_json
from framework.core.settings.fit_command import fit_command
from framework.core.text_files import read_yaml
from framework.data.loading.batch import ImageBatch, PixelBatch
from framework.data.loading.loader import ShardDataset, ShardLoader
from framework.data.sampling.order import Samples
from framework.pra.loss import draw_training_noise, training_losses
from framework.pra.module import PRAModule
from framework.pra.noise import SampleNoise
from framework.tracking import metric_names as metrics
from framework.training.checkpoint.layout import FOLDER, list_checkpoints
from framework.training.ema import update_ema

_RESULT = "bench.json"
_STEPS_OF_EPOCH = 16
_LEAST_IMAGES = 256


@dataclass(frozen=True, kw_only=True)
class LoopSpeed:
    """One micro-batch size.

    Attributes:
        batch_size: images in a step.
        step_seconds: of the Lightning loop, the median over the windows.
        bare_seconds: of the bare loop.
        over_bare: Lightning loop / bare loop, the median of the windows' ratios.
        images_per_second: of the Lightning loop.
        peak_gib: most memory of the device in use (of the process on a CPU).
        flops_utilisation: of the device's peak in bfloat16, by the model's floating-point operations; None where the
            device is not in the table.
    """

    batch_size: int
    step_seconds: float
    bare_seconds: float
    over_bare: float
    images_per_second: float
    peak_gib: float
    flops_utilisation: float | None


@dataclass(frozen=True, kw_only=True)
class CheckpointCost:
    """Checkpoints of the same model.

    Attributes:
        gib: size of one.
        stall_seconds: training waits so long for a synchronous save, the median.
        async_stall_seconds: for an asynchronous one, with time enough between two.
        load_seconds: how much longer a start takes that verifies and loads one.
    """

    gib: float
    stall_seconds: float
    async_stall_seconds: float
    load_seconds: float


def bench_training(
    recipe: str,
    out: Path | None = None,
    *,
    batch_sizes: tuple[int, ...] = (),
    window: int = 50,
    rounds: int = 5,
    save_every: int = 20,
    hooks: bool = False,
    options: list[str] = [],  # noqa: B006 - never changed
) -> dict[str, Any]:
    """Measures the training loop of a PRA recipe on images of noise.

    Args:
        recipe: of a PRA run; its data are replaced.
        out: JSON file for the numbers.
        batch_sizes: micro-batches to measure the loop at; the recipe's own by default. One that does not fit into the
            device's memory is said and left out.
        window: steps of each loop in turn.
        rounds: windows that count; one before them warms up.
        save_every: steps between checkpoints where those are measured; 0 leaves them out.
        hooks: also measure the processor time of each callback and hook, in a run of as many windows.
        options: further options of `framework fit`.

    Returns:
        The numbers, as in the file.

    Raises:
        ConfigError: a number out of range.
        TrainingError: a run failed.
    """
    check_record(out)
    for name, value, least in (("window", window, 1), ("rounds", rounds, 1), ("save_every", save_every, 0)):
        if value < least:
            raise ConfigError(f"{name} is {value}", hint=f"give at least {least}")
    with tempfile.TemporaryDirectory() as folder:
        fits = _Fits(recipe, Path(folder), options, most=max(batch_sizes, default=None))
        speeds = [
            speed
            for size in tracked(batch_sizes or (None,), "batch sizes", bar=False)
            if (speed := fits.loop_speed(size, window=window, rounds=rounds)) is not None
        ]
        costs: list[HookCost] = []
        record: dict[str, Any] = {
            "recipe": recipe,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
            "loop": [to_json(speed) for speed in speeds],
        }
        if hooks:
            costs = fits.hook_costs(window * (rounds + 1))
            record["hooks"] = to_json(costs)
        if save_every:
            record["checkpoint"] = to_json(fits.checkpoint_cost(save_every))
    results().print_json(data={name: value for name, value in record.items() if name != "hooks"})
    if costs:
        show(costs)
    write_record(out, record)
    return record


class _Fits:
    """Runs of `framework fit`, each a process of its own, on made images of the recipe's size.

    Args:
        recipe: of a PRA run.
        folder: for the images and the runs.
        options: further options of every run.
        most: images in a step; the recipe's own by default.
    """

    def __init__(self, recipe: str, folder: Path, options: list[str], *, most: int | None = None) -> None:
        self.recipe, self.folder, self.options = recipe, folder, options
        content = read_yaml(recipe)
        size = content["model"]["init_args"]["architecture"]["image_size"]
        # Epochs of a few steps would measure what comes between epochs.
        count = max(_LEAST_IMAGES, _STEPS_OF_EPOCH * (most or content["data"]["batch_size"]))
        self.shards = make_jpeg_shards(folder / "images", size=size, num_images=count)
        self.runs = 0

    def fit(
        self, callback: str, arguments: dict[str, object], options: list[str], run: Path | None = None
    ) -> Path | None:
        """Trains once.

        Args:
            callback: class that measures.
            arguments: its arguments.
            options: further options of this run.
            run: folder of a run that goes on; a new one by default.

        Returns:
            The run's folder, or None when the device's memory was not enough.

        Raises:
            TrainingError: the run failed.
        """
        self.runs += 1
        run = run or self.folder / f"run{self.runs}"
        settings = {
            **{"run.dir": run, "run.wandb": "disabled"},
            **{"data.train": self.shards, "data.validation": "null", "data.global_batch": "null"},
            **{"model.init_args.architecture.num_classes": 2, "model.init_args.grid.every_n_steps": 0},
            "trainer.accumulate_grad_batches": 1,
        }
        measuring = [f"--trainer.callbacks+={callback}"]
        measuring += [f"--trainer.callbacks.{name}={value}" for name, value in arguments.items()]
        done = subprocess.run(
            fit_command(self.recipe, settings, [*measuring, *self.options, *options]),
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if "OutOfMemoryError" in done.stderr:
            return None
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:]
            raise TrainingError(f"a run of the benchmark failed ({' '.join(last)})", hint="see the options given to it")
        return run

    def loop_speed(self, batch_size: int | None, *, window: int, rounds: int) -> LoopSpeed | None:
        """Measures the loop at a micro-batch size; None when the device's memory is not enough.

        Args:
            batch_size: images in a step; the recipe's own by default.
            window: steps of each loop in turn.
            rounds: windows that count.
        """
        options = ["--trainer.max_steps", str(window * (rounds + 1)), "--checkpoint.every_n_steps", "1000000"]
        options += ["--trainer.log_every_n_steps", str(min(50, window))]
        if batch_size is not None:
            options += ["--data.batch_size", str(batch_size)]
        run = self.fit(f"{__name__}.AgainstBareLoop", {"window": window}, options)
        if run is None:
            console.print(f"batch_size {batch_size}: the device's memory is not enough")
            return None
        # One is saved at the end, and nobody reads it.
        shutil.rmtree(run / FOLDER)
        return from_json(LoopSpeed, json.loads((run / _RESULT).read_text()))

    def hook_costs(self, steps: int) -> list[HookCost]:
        """Measures the hooks of a run of so many steps, without the first sixth.

        Raises:
            TrainingError: the device's memory is not enough.
        """
        options = ["--trainer.max_steps", str(steps), "--checkpoint.every_n_steps", "1000000"]
        run = self.fit("framework.bench.training.hook_costs.TimeHooks", {"first": steps // 6}, options)
        if run is None:
            raise TrainingError("the device's memory is not enough", hint="give a smaller data.batch_size")
        return [from_json(HookCost, each) for each in json.loads((run / HOOKS).read_text())]

    def checkpoint_cost(self, every: int) -> CheckpointCost:
        """Measures checkpoints that are so many steps apart."""
        stalls, starts, gib = {}, [], 0.0
        for asynchronous in (False, True):
            options = ["--checkpoint.every_n_steps", str(every), "--trainer.max_steps", str(4 * every)]
            # Those of large models fill disks.
            options += ["--checkpoint.keep_last", "1", "--checkpoint.keep_every_n_steps", "null"]
            options += ["--checkpoint.asynchronous", str(asynchronous).lower()]
            run = self.fit(f"{__name__}.StartClock", {}, options)
            options += ["--resume", "must", "--trainer.max_steps", str(4 * every + 1)]
            again = self.fit(f"{__name__}.StartClock", {}, options, run)
            if run is None or again is None:
                raise TrainingError("the device's memory is not enough", hint="give a smaller data.batch_size")
            stalls[asynchronous] = float(np.median(_logged(run, metrics.CHECKPOINT_STALL_SECONDS)[:-1]))
            starts.append(json.loads((run / _RESULT).read_text()))
            newest = list_checkpoints(run / FOLDER)[-1]
            gib = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file()) / 2**30
            shutil.rmtree(run / FOLDER)
        return CheckpointCost(
            gib=gib,
            stall_seconds=stalls[False],
            async_stall_seconds=stalls[True],
            load_seconds=float(np.mean([again - first for first, again in starts])),
        )


def _logged(run: Path, name: str) -> list[float]:
    """Values of a metric in all of a run's files."""
    values = []
    for path in sorted(run.glob("metrics/version_*/metrics.csv")):
        with path.open() as file:
            values += [float(row[name]) for row in csv.DictReader(file) if row.get(name)]
    return values


class AgainstBareLoop(Callback):
    """Lets the Lightning loop and a bare loop make `window` steps in turns; writes `bench.json` at the end."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.seconds: dict[str, list[float]] = {"lightning": [], "bare": []}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bare: Iterator[PixelBatch] | None = None
        self._started = _now(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: ImageBatch, batch_idx: int
    ) -> None:
        if trainer.global_step % self.window:
            return
        assert isinstance(pl_module, PRAModule)
        self.seconds["lightning"].append(_now(pl_module) - self._started)
        if self._bare is None:
            self._bare = self._batches(trainer, len(batch))
        started = _now(pl_module)
        self._bare_steps(trainer, pl_module, self._bare)
        self.seconds["bare"].append(_now(pl_module) - started)
        self._batch_size = len(batch)
        self._started = _now(pl_module)

    def _batches(self, trainer: Trainer, size: int) -> Iterator[PixelBatch]:
        """The trainer's images once more, without end, decoded by as many processes as it has.

        Args:
            trainer: in mid-training.
            size: images of a batch.
        """
        loader: Any = trainer.train_dataloader
        dataset: ShardDataset[PixelBatch] = loader.dataset
        count = len(dataset) // size
        pieces = np.array_split(np.arange(count * size) if count else np.arange(size) % len(dataset), count or 1)
        again = ShardLoader(
            dataset,
            [Samples(epoch=0, numbers=numbers) for numbers in pieces],
            num_workers=loader.num_workers,
            most_samples=size,
        )
        while True:
            yield from again

    def _bare_steps(self, trainer: Trainer, module: PRAModule, batches: Iterator[PixelBatch]) -> None:
        """A window of steps without Lightning, on the trainer's data and with its optimizer.

        Args:
            trainer: in mid-training.
            module: its module.
            batches: pixels on the host.
        """
        optimizer: Any = trainer.optimizers[0]
        for pixels in islice(batches, self.window):
            batch = pixels.to(module.device).images()
            seeds = [seed_of("train", module.seed, 0, number) for number in batch.indices.tolist()]
            noise = draw_training_noise(SampleNoise(seeds, module.device), module.architecture, module.objective)
            with trainer.precision_plugin.forward_context():
                losses = training_losses(module.model, batch.images, batch.labels, module.objective, noise)
            losses.total.backward()
            if trainer.gradient_clip_val:
                torch.nn.utils.clip_grad_norm_(module.model.parameters(), trainer.gradient_clip_val)
            optimizer.optimizer.step() if hasattr(optimizer, "optimizer") else optimizer.step()
            optimizer.zero_grad()
            update_ema(module.ema, module.model, module.ema_decay)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ours, bare = (np.array(self.seconds[name][1:]) / self.window for name in ("lightning", "bare"))
        logged = trainer.callback_metrics
        utilisation = logged.get(metrics.MODEL_FLOPS_UTILISATION)
        record = LoopSpeed(
            batch_size=self._batch_size,
            step_seconds=float(np.median(ours)),
            bare_seconds=float(np.median(bare)),
            over_bare=float(np.median(ours / bare)),
            images_per_second=self._batch_size / float(np.median(ours)),
            peak_gib=float(logged[metrics.MEMORY_PEAK_GIB]),
            flops_utilisation=None if utilisation is None else float(utilisation),
        )
        (Path(trainer.default_root_dir) / _RESULT).write_text(json.dumps(to_json(record)))


class StartClock(Callback):
    """Adds to `bench.json` the time from the end of the set-up to the first step, a loaded checkpoint included."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._started = time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        path = Path(trainer.default_root_dir) / _RESULT
        before = json.loads(path.read_text()) if path.is_file() else []
        path.write_text(json.dumps([*before, time.perf_counter() - self._started]))


def _now(module: LightningModule) -> float:
    """Seconds, when the device has done what it was told."""
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    return time.perf_counter()
