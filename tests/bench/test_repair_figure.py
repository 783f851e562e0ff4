"""The figure of repairs."""

from pathlib import Path

from framework.bench.repair_figure import interval, plot_repairs
from framework.gbc.environments.prompt_repair import Repair


def test_an_interval_holds_the_mean_and_is_a_point_for_equal_values():
    low, high = interval([0.0, 1.0, 1.0, 1.0])
    assert 0 <= low < 0.75 < high <= 1
    assert interval([0.5, 0.5]) == (0.5, 0.5)


def test_every_way_is_in_the_figure(tmp_path: Path):
    repairs = [
        Repair(optimizer=name, kind="drop", culprit="a", won_back=won, evaluations=4, runs=9, named_first=won > 0.5)
        for name in ("by edits", "spread evenly")
        for won in (0.2, 1.0)
    ]
    plot_repairs(repairs, tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert "by edits" in drawn
    assert "spread evenly" in drawn
