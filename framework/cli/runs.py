"""The commands around the runs in a folder; the docstrings are their `--help`."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from rich.table import Table
from rich.text import Text

from framework.cli.registry import methods
from framework.core.console import LiteralConsole, console, results, tracked
from framework.core.errors import TrainingError
from framework.core.method import Method
from framework.core.serialization import to_json
from framework.report.run_summary import Run, find_runs, headline, read_run
from framework.tracking import metric_names as metrics
from framework.tracking.data_identity import read_data
from framework.tracking.metric_files import merged_steps
from framework.tracking.restarts import Restart
from framework.tracking.run_folder import UNSENT, saved_wandb_id
from framework.tracking.wandb_compat import INCLUDE_ONLINE_OPTION, is_synced, server_url

_STYLES = {
    "running": "cyan",
    "finished": "green",
    "preempted": "yellow",
    "interrupted": "yellow",
    "failed": "red",
    "unknown": "dim",
}
_REACH_SECONDS = 10.0
_NUM_CLASSES = 20


def ls(root: str, *, json_lines: bool = False) -> None:
    """List the runs in a folder: state, step, loss, speed, newest checkpoint, starts, W&B id.

    Args:
        root: folder that holds the runs, at any depth up to four.
        json_lines: print a JSON object for each run instead of a table.
    """
    found = [read_run(folder) for folder in tracked(find_runs(Path(root)), "runs")]
    if json_lines:
        for run in found:
            print(json.dumps(to_json(run)))
        return
    if not found:
        console.print(f"no runs in {root}")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    # Of all columns the one that may go on in another line: a long name must not hide what the others say.
    table.add_column("run", overflow="fold")
    table.add_column("state", no_wrap=True)
    for name in ("step", "loss", "per second", "checkpoint", "starts"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("W&B", no_wrap=True)
    known = methods()
    for run in found:
        table.add_row(*_cells(run, Path(root), known))
    results(soft_wrap=True).print(table)


def _cells(run: Run, root: Path, known: Sequence[Method]) -> list[str | Text]:
    name = run.folder.name if run.folder == root else str(run.folder.relative_to(root))
    method = headline(run, known)
    rate = None if method is None else run.last.get(metrics.samples_per_second(method.sample_unit))
    loss = None if method is None else run.last.get(method.loss)
    unsent = f" ({len(run.unsent)} to send)" if run.unsent else ""
    return [
        name,
        Text(run.state, style=_STYLES[run.state]),
        str(run.step) + (f"/{run.max_steps}" if run.max_steps else ""),
        "" if loss is None else f"{loss:.4g}",
        "" if rate is None else f"{rate:.4g}",
        str(run.checkpoints[-1]) if run.checkpoints else "",
        str(len(run.restarts)),
        (run.wandb_id or "") + unsent,
    ]


def show(run: str) -> None:
    """Show a run: its state, checkpoints, data and classes, every start and its end, the last value of every metric.

    Args:
        run: folder of the run.
    """
    found = read_run(run)
    out = results(soft_wrap=True)
    state = Text(found.state, style=_STYLES[found.state])
    steps = f"step {found.step}" + (f" of {found.max_steps}" if found.max_steps else "")
    out.print(f"{found.folder}: ", state, f", {steps}" + (f" ({found.reason})" if found.reason else ""), sep="")
    out.print(f"W&B id {found.wandb_id or 'none'}, {len(found.unsent)} files to send")
    out.print(f"checkpoints {', '.join(map(str, found.checkpoints)) or 'none'}")
    _show_data(found.folder, out)
    starts = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("start", "UTC", "from step", "to step", "end", "processes", "host", "git"):
        starts.add_column(name)
    for number, restart in enumerate(found.restarts):
        start, end = restart.start, restart.end
        cells = [str(number), start.time[:19].replace("T", " "), str(start.step)]
        cells += [str(end.step), end.outcome] if end else ["", "running" if _runs(found, restart) else "killed"]
        starts.add_row(*cells, str(start.world_size), start.host, (start.git_revision or "")[:10])
    out.print(starts)
    values = Table(box=None, pad_edge=False, header_style="dim")
    values.add_column("metric")
    values.add_column("last", justify="right")
    values.add_column("at step", justify="right")
    rows = merged_steps(found.folder)
    for name in sorted({name for row in rows for name in row.values}):
        row = next(row for row in reversed(rows) if name in row.values)
        values.add_row(name, f"{row.values[name]:.6g}", str(row.step))
    out.print(values)


def _show_data(folder: Path, out: LiteralConsole) -> None:
    data = read_data(folder)
    if data is None:
        return
    for purpose, shards in [("training", each) for each in data.train] + [("validation", data.validation)]:
        if shards is not None:
            told = f"{purpose} data {shards.path}: {shards.num_samples:,} samples, digest {shards.digest[:12]}"
            out.print(told)
    if data.classes:
        more = f" and {len(data.classes) - _NUM_CLASSES:,} more" if len(data.classes) > _NUM_CLASSES else ""
        out.print(f"{len(data.classes):,} classes: {', '.join(data.classes[:_NUM_CLASSES])}{more}")


def _runs(run: Run, restart: Restart) -> bool:
    return run.state == "running" and restart is run.restarts[-1]


def sync(root: str, *, dry_run: bool = False) -> None:
    """Send W&B's offline files of all runs in a folder, by `wandb sync`; what was sent before is left alone.

    It needs an account: WANDB_API_KEY or `wandb login`, and WANDB_BASE_URL for a server of your own. The starts of a
    run go out in their order and continue one another. A run in progress keeps its newest file until it has ended.

    Args:
        root: folder that holds the runs, or a run.
        dry_run: list what would be sent.
    """
    waiting = {folder: read_run(folder).unsent for folder in find_runs(Path(root))}
    waiting = {folder: files for folder, files in waiting.items() if files}
    if not waiting:
        console.print(f"nothing to send in {root}")
        return
    if dry_run:
        for files in waiting.values():
            for file in files:
                console.print(f"would send {file}")
        return
    _reach_server()
    failed = []
    for folder, files in waiting.items():
        failed += _send(folder, files)
    if failed:
        raise TrainingError(
            f"{len(failed)} W&B files were not sent, the first of them {failed[0]}",
            hint="see W&B's messages above, and call it again: nothing is sent twice",
        )


def _send(folder: Path, files: list[Path]) -> list[Path]:
    """Sends files of a run; returns those that were not sent."""
    # Each start goes on where the one before it ended in W&B, whose own numbers begin anew in every file.
    environment = {**os.environ, "WANDB_RESUME": "allow", "WANDB_MODE": "online"}
    command = [sys.executable, "-m", "wandb", "sync", INCLUDE_ONLINE_OPTION, *(str(file.resolve()) for file in files)]
    # W&B leaves a log of its own where it is called.
    subprocess.run(command, env=environment, cwd=folder, check=False)
    sent = [file for file in files if is_synced(file)]
    for file in sent:
        file.with_name(file.name + UNSENT).unlink(missing_ok=True)
        console.print(f"sent {file} ({file.stat().st_size:,} bytes) as run {saved_wandb_id(folder)}")
    return [file for file in files if file not in sent]


def _reach_server() -> None:
    """Fails soon where W&B would try for many minutes."""
    url = urlsplit(os.environ.get("WANDB_BASE_URL") or server_url())
    if os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY"):
        return
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname or "", port), timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise TrainingError(
            f"W&B's server {url.hostname}:{port} cannot be reached ({error.strerror or error})",
            hint="nothing was sent; call it again when it can",
        ) from None
