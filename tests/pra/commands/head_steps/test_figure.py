from pathlib import Path

import pytest

from framework.pra.commands.head_steps.figure import draw_steps
from tests.pra.commands.head_steps.test_results import RESULTS


@pytest.mark.slow
def test_a_line_for_each_sampler_in_both_formats(tmp_path: Path):
    svg, png = draw_steps(tmp_path, RESULTS)
    assert (svg.name, png.name) == ("steps.svg", "steps.png")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in svg.read_text()
