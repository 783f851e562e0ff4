"""Charts: where points, gaps, ticks and restarts are drawn."""

import json
import re
from html.parser import HTMLParser

import pytest

from framework.report.charts import Line, chart, line_style, log_ticks, thinned_points, ticks


def path_of(svg: str) -> list[tuple[str, float, float]]:
    [path] = re.findall(r'class="line s1" d="([^"]+)"', svg)
    return [(word[0], *map(float, word[1:].split(","))) for word in path.split()]  # type: ignore[misc]


def test_a_curve_by_hand():
    # 440 by 210 pixels with margins left 52, right 10, top 10, bottom 26; from zero to 1.12 times the highest.
    points = path_of(chart([Line(name="a", points=[(0, 0.0), (5, 50.0), (10, 100.0)])], from_zero=True))
    assert points == [("M", 52.0, 184.0), ("L", 241.0, pytest.approx(184 - 174 / 2.24, abs=0.05)), points[2]]
    assert points[2] == ("L", 430.0, pytest.approx(184 - 174 / 1.12, abs=0.05))


def test_what_is_not_finite_makes_a_gap():
    values = [(0, 1.0), (1, 2.0), (2, float("nan")), (3, 2.0), (4, float("inf")), (5, 1.0)]
    assert [word for word, *_ in path_of(chart([Line(name="a", points=values)]))] == ["M", "L", "M", "M"]
    assert "no finite values" in chart([Line(name="a", points=[(0, float("nan"))])])


def test_constant_curves_and_single_points_have_a_place():
    for points in ([(3, 2.5)], [(0, 0.0), (1, 0.0)], [(0, -1.0), (7, -1.0)]):
        assert all(10 <= y <= 184 for _, _, y in path_of(chart([Line(name="a", points=points)])))


def test_round_ticks():
    assert ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    assert ticks(-0.3, 0.31, 4) == [-0.2, 0, 0.2]
    assert ticks(990, 2010, 4) == [1000, 1500, 2000]
    assert log_ticks(0.9, 120) == pytest.approx([1, 2, 5, 10, 20, 50, 100])
    assert log_ticks(1e-7, 2) == pytest.approx([1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1])


def test_few_points_keep_what_stands_out():
    points = [(step, 0.0) for step in range(10_000)]
    points[4321], points[777] = (4321, 9.0), (777, -9.0)
    kept = thinned_points(points)
    assert len(kept) <= 400
    assert {(4321, 9.0), (777, -9.0), points[0], points[-1]} <= set(kept)
    assert kept == sorted(kept)


def test_ticks_of_steps_are_whole():
    assert ticks(0, 1, 5, whole=True) == [0, 1]
    assert ticks(0, 160, 5, whole=True) == [0, 50, 100, 150]
    assert str(ticks(-1, 1, 4)[2]) == "0.0", "a zero without a sign"


def test_lines_beyond_the_colours_are_dashed():
    assert [line_style(number) for number in (0, 7, 8, 16)] == ["s1", "s8", "s1 dashed", "s1"]


def test_restarts_within_the_steps_are_marked():
    svg = chart([Line(name="a", points=[(10, 1.0), (20, 2.0)])], restarts=[5, 15, 20])
    assert re.findall(r'class="restart" x1="([\d.]+)"', svg) == ["241.0", "430.0"]


def test_long_curves_are_drawn_with_their_mean_and_few_points_with_dots():
    long = [(step, float(step % 2)) for step in range(200)]
    svg = chart([Line(name="a", points=long)])
    assert svg.count("faint") == 1
    # Every second value is 0, every other one 1: means of five are 0.4 and 0.6 on an axis from 0 to 1.06.
    assert all(85 < y < 119 for _, _, y in path_of(svg)[5:-5])
    assert "<circle" not in svg
    assert chart([Line(name=str(n), points=long) for n in range(5)]).count("faint") == 0
    assert chart([Line(name="a", points=[(0, 1.0), (1, 2.0)])]).count("<circle") == 2


class Values(HTMLParser):
    """What the page's script reads."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "svg":
            self.found = {name: value or "" for name, value in attrs}


def test_values_and_names_are_there_for_the_script():
    values = Values()
    name = "<script>'\"&{{ 7 * 7 }}"
    values.feed(chart([Line(name=name, points=[(1, 2.5), (3, float("inf"))])], label=name))
    assert json.loads(values.found["data-lines"]) == [{"name": name, "points": [[1, 2.5]]}]
    assert json.loads(values.found["data-frame"]) == {"low": 1, "high": 2, "left": 52, "right": 430, "width": 440}
    assert values.found["aria-label"] == name
