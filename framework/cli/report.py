"""The command `framework report`."""

from pathlib import Path

from framework.cli.registry import methods
from framework.core.console import console
from framework.core.io import atomic_write, check_outputs
from framework.report.page import page
from framework.report.run_summary import read_run


def report(run: str, *, out: str | None = None) -> None:
    """Write one HTML page about a run: curves, samples over time, speed, starts, environment, recipe.

    Methods add their own sections: of a training of agents a curve for each of them, who was to blame for the newest
    errors, and every prompt that was tried. The page needs nothing but itself: no network, no other file.

    Args:
        run: folder of the run.
        out: file to write; by default `report.html` in the run's folder.
    """
    path = write_report(run, Path(out) if out else Path(run) / "report.html")
    console.print(f"report in {path} ({path.stat().st_size:,} bytes)")


def write_report(run: str | Path, path: Path) -> Path:
    """Writes the page of the run in a folder.

    Raises:
        ConfigError: not the folder of a run, or a file that cannot be written.
    """
    found = read_run(run)
    check_outputs(path)
    text = page(found, methods())
    with atomic_write(path) as file:
        file.write(text.encode())
    return path
