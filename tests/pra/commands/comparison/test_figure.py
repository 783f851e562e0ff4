from dataclasses import replace
from pathlib import Path

import pytest

from framework.pra.commands.comparison.figure import draw_comparison, draw_curves
from tests.pra.commands.comparison.test_results import result


@pytest.mark.slow
def test_a_line_for_each_row_in_both_formats(tmp_path: Path):
    rows = [
        result(variant=variant, image_size=size, token_size=3 * size**2 // 16, seed=seed)
        for variant in ("pra", "diffusion")
        for size in (8, 32)
        for seed in (0, 1)
    ]
    svg, png = draw_comparison(tmp_path, rows, {8: 0.5, 32: 0.25})
    assert (svg.name, png.name) == ("comparison.svg", "comparison.png")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in svg.read_text()


@pytest.mark.slow
def test_a_curve_for_each_row_over_training_steps(tmp_path: Path):
    rows = [
        result(variant=variant, image_size=size, token_size=3 * size**2 // 16, seed=seed, training_steps=steps)
        for variant in ("pra", "diffusion")
        for size in (8, 32)
        for seed in (0, 1)
        for steps in (1000, 2000)
    ]
    # One that has come less far than the others.
    rows.pop()
    svg, png = draw_curves(tmp_path, rows)
    assert (svg.name, png.name) == ("curves.svg", "curves.png")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in svg.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_no_number_is_left_out(tmp_path: Path, value: float):
    metrics = {"1": {"frechet_distance/net": value}}
    rows = [result(), result(seed=1, metrics=metrics, rollout_gap=value), result(variant="diffusion", metrics=metrics)]
    assert draw_comparison(tmp_path, rows, {8: 0.5})[0].is_file()
    rows = [replace(each, training_steps=steps) for each in rows for steps in (1, 2)]
    assert draw_curves(tmp_path, rows)[0].is_file()
