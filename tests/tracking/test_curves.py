"""Metrics read back over all starts of a run, and drawn."""

from pathlib import Path

import pytest
from PIL import Image

from framework.tracking.curves import draw_curves
from framework.tracking.metric_files import read_metrics


def write(run_dir: Path, version: int, *lines: str, end: str = "\n") -> None:
    folder = run_dir / "metrics" / f"version_{version}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("\n".join(lines) + end)


def test_restarts_are_merged_and_the_later_value_of_a_step_counts(tmp_path: Path):
    write(tmp_path, 0, "epoch,loss/total,step", "0,3.0,0", "0,2.0,1", "0,1.5,2")
    write(tmp_path, 1, "epoch,loss/total,step,validation/total", "0,1.25,2,", "1,1.0,3,", "1,,3,4.0")
    # In the order of their numbers, not of their names.
    write(tmp_path, 10, "loss/total,step", "0.5,3")
    write(tmp_path, 9, "loss/total,step", "9.0,3")
    assert read_metrics(tmp_path) == {
        "loss/total": {0: 3.0, 1: 2.0, 2: 1.25, 3: 0.5},
        "validation/total": {3: 4.0},
    }


def test_no_metrics(tmp_path: Path):
    assert read_metrics(tmp_path) == {}
    assert draw_curves(tmp_path) is None
    write(tmp_path, 0, "", end="")
    assert read_metrics(tmp_path) == {}
    assert list(tmp_path.glob("*.png")) == []


def test_a_row_that_a_killed_process_left_in_pieces_is_left_out(tmp_path: Path):
    header, rows = "epoch,loss/total,step,validation/total", ["0,3.0,0,5.0", "0,2.0,10,4.0"]
    for version, last in enumerate(["0,1", "0,1.0", "0,1.0,2", "0,1.0,20,", "0,1.0,20,3"]):
        write(tmp_path / str(version), 0, header, *rows, last, end="")
        assert read_metrics(tmp_path / str(version)) == {
            "loss/total": {0: 3.0, 10: 2.0},
            "validation/total": {0: 5.0, 10: 4.0},
        }


@pytest.mark.slow
def test_an_image_of_every_metric(tmp_path: Path):
    write(
        tmp_path,
        0,
        "a,loss/total,optimizer/learning_rate,step,validation/total",
        *(f"{step},{1 / (step + 1)},{-step},{step},nan" for step in range(12)),
    )
    path = draw_curves(tmp_path)
    assert path == tmp_path / "curves.png"
    with Image.open(path) as image:
        # Four curves: two rows of three places.
        assert image.size == (1500, 600)
        assert len(image.convert("RGB").getcolors(100_000)) > 20


def test_one_value_is_seen(tmp_path: Path):
    write(tmp_path, 0, "loss/total,step", "1.0,0")
    path = draw_curves(tmp_path)
    with Image.open(path) as image:
        colors = {color: count for count, color in image.convert("RGB").getcolors(100_000)}
    assert any(blue > 150 > red for red, _, blue in colors), "the mark of a single point"


def test_agents_share_a_panel(tmp_path: Path):
    write(tmp_path, 0, "credit_by_agent/a,credit_by_agent/b,credit_by_agent/c,credit_by_agent/d,step", "1,2,3,4,0")
    path = draw_curves(tmp_path)
    assert path is not None
    with Image.open(path) as image:
        assert image.size == (1500, 300)
