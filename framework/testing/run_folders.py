"""Folders that look like those of runs, for tests of what reads them."""

import json
import math
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
from PIL import Image

from framework.core.serialization import to_json
from framework.tracking.restarts import FILE, End, Outcome, Start

RECIPE = """seed_everything: 0
run:
  dir: runs/digits
model:
  class_path: framework.pra.module.PRAModule
trainer:
  max_steps: {max_steps}
"""
_BEGIN = datetime(2026, 3, 4, 9, 15, tzinfo=timezone.utc)


def make_run_folder(
    folder: Path,
    *,
    stretches: tuple[tuple[int, int, Outcome | None, str], ...] = ((0, 12, "finished", ""),),
    max_steps: int = 12,
    seconds_per_step: float = 60.0,
    every: int = 1,
) -> Path:
    """A run of several starts with metrics, images, recipe and checkpoints' folders.

    Args:
        folder: is made.
        stretches: of each start the step it began at and the one it came to, its outcome (None for one that was killed)
            and message.
        max_steps: as the recipe says.
        seconds_per_step: how long the starts seem to have taken.
        every: steps between rows of metrics; images come at eight moments.
    """
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(max_steps=max_steps))
    (folder / "wandb-id").write_text("ab12cd34")
    events, moment = [], _BEGIN
    for number, (begin, end, outcome, message) in enumerate(stretches):
        start = Start(
            restart=number,
            step=begin,
            time=moment.isoformat(),
            command="framework fit --config recipes/pra/digits.yaml",
            host=f"node{number:02}",
            world_size=8,
            device="NVIDIA H100 80GB HBM3",
            git_revision="3b42e91d0c4ab7f5f8b0c9d2e4a6b8c0d2e4f6a8",
            packages={"framework": "0.1.0", "lightning": "2.6.6", "torch": "2.13.0"},
            python="3.11.7",
        )
        events.append({"event": "start", **to_json(start)})
        moment += timedelta(seconds=seconds_per_step * (end - begin))
        if outcome is not None:
            stop = End(restart=number, outcome=outcome, step=end, time=moment.isoformat(), message=message)
            events.append({"event": "end", **to_json(stop)})
        moment += timedelta(seconds=seconds_per_step * max_steps * 0.04)
        _write_metrics(folder / "metrics" / f"version_{number}", begin, end, every)
    (folder / FILE).write_text("".join("\n" + json.dumps(event) for event in events))
    last = max(end for _, end, _, _ in stretches)
    for step in sorted({max(1, last * n // 8) for n in range(1, 9)}):
        _write_image(folder / "samples" / f"step={step:08d}.png", step / max_steps)
    (folder / "checkpoints" / f"step={last:08d}").mkdir(parents=True)
    return folder


def make_run_folders(root: Path) -> Path:
    """Runs in every state that can be told from a folder, and one folder that is not a run's."""
    make_run_folder(root / "a" / "finished")
    make_run_folder(root / "a" / "preempted", stretches=((0, 5, "preempted", "SIGTERM"),))
    (root / "a" / "preempted" / "preempted.json").write_text("{}")
    make_run_folder(root / "failed", stretches=((0, 5, "preempted", ""), (5, 7, "failed", "TrainingError: nan")))
    make_run_folder(root / "interrupted", stretches=((0, 6, "interrupted", "Interrupted: stopped by Ctrl-C"),))
    make_run_folder(root / "killed", stretches=((0, 5, None, ""),))
    (root / "unknown").mkdir()
    (root / "unknown" / "recipe.yaml").write_text("trainer: {max_steps: -1}")
    (root / "no run").mkdir()
    return root


def _write_metrics(folder: Path, begin: int, end: int, every: int) -> None:
    folder.mkdir(parents=True)
    noise = np.random.default_rng(begin + 17)
    lines = [
        "epoch,loss/total,loss/flow_mse,validation/total,throughput/images_per_second,throughput/tokens_per_second,"
        "throughput/model_flops_utilisation,time/batch_seconds,time/data_wait_seconds,memory/peak_gib,"
        "optimizer/gradient_norm,optimizer/learning_rate,checkpoint/stall_seconds,step"
    ]
    for step in range(begin, end, every):
        decay = 0.35 + 3.4 * math.exp(-step / (0.15 * max(end, 12)))
        total, flow = decay * (1 + 0.04 * noise.normal()), 0.8 * decay * (1 + 0.05 * noise.normal())
        validation = f"{decay * 1.06:.5f}" if (step // every) % 10 == 9 else ""
        stall = f"{0.12 + 0.02 * noise.random():.4f}" if (step // every) % 20 == 19 else ""
        speed, wait = 2310 + 25 * noise.normal(), 0.004 + 0.001 * noise.random()
        rate = 1e-3 * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / max(end, 1000)))
        lines.append(
            f"0,{total:.5f},{flow:.5f},{validation},{speed:.2f},{speed * 256:.1f},{0.41 + 0.004 * noise.normal():.4f},"
            f"{256 / speed:.5f},{wait:.5f},61.4,{0.9 + 0.2 * abs(noise.normal()):.4f},{rate:.3e},{stall},{step}"
        )
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def _write_image(path: Path, progress: float) -> None:
    """Disks that come out of noise."""
    path.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(3)
    y, x = np.mgrid[0:32, 0:32]
    rows = []
    for row in range(3):
        cells = []
        for column in range(6):
            disk = (np.hypot(y - 15.5, x - 15.5) < 5 + column + row)[..., None] * np.array([240, 180 - 20 * column, 90])
            image = progress * disk + (1 - progress) * noise.integers(0, 255, (32, 32, 3))
            cells.append(np.pad(image, ((1, 1), (1, 1), (0, 0)), constant_values=255))
        rows.append(np.concatenate(cells, axis=1))
    Image.fromarray(np.concatenate(rows).clip(0, 255).astype(np.uint8)).save(path)
