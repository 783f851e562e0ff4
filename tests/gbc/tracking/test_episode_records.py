"""The blame of a step in a run's folder: both files are replaced together, and what is broken is not read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from framework.gbc.tracking.episode_records import (
    EPISODES,
    FOLDER,
    GRAPH,
    BlameOfStep,
    CreditedText,
    Episode,
    read_blame,
    write_blame,
)

TEXT = CreditedText(name="hotel", text="in the north", credit=0.5, spans=((0, 2), (6, 12)), credits=(0.0, 0.5))
EPISODE = Episode(
    id="7", loss=0.5, loss_text="wrong area", walk=("loss", "hotel"), own={"hotel": 0.5}, texts=(TEXT,), left_out=1
)
BLAME = BlameOfStep(step=4, errors=3, loss=0.25, episodes=(EPISODE,))


def test_it_is_written_and_read(tmp_path: Path):
    assert read_blame(tmp_path) is None
    write_blame(tmp_path, BLAME, "<svg></svg>")
    assert read_blame(tmp_path) == BLAME
    assert (tmp_path / FOLDER / GRAPH).read_text() == "<svg></svg>\n"
    # A graph that is too large for a plot leaves none of an earlier step.
    write_blame(tmp_path, BLAME, None)
    assert not (tmp_path / FOLDER / GRAPH).exists()


@pytest.mark.parametrize("change", [{"format": 2}, {"episodes": [{}]}, {"step": "first"}, {"episodes": 3}])
def test_what_is_broken_is_passed_over(tmp_path: Path, change: dict[str, object]):
    write_blame(tmp_path, BLAME, None)
    file = tmp_path / FOLDER / EPISODES
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert read_blame(tmp_path) is None
    file.write_text(file.read_text()[:20])
    assert read_blame(tmp_path) is None


def test_secrets_are_removed_and_the_text_keeps_its_credit(tmp_path: Path):
    secret = "see https://me:planted-password@host now"
    spans = tuple((start, start + 1) for start in range(len(secret)))
    text = replace(TEXT, text=secret, spans=spans, credits=(0.01,) * len(secret))
    halved = replace(TEXT, text="a\ud83db", spans=((0, 1), (1, 2)), credits=(0.0, 1.0))
    episode = replace(EPISODE, texts=(text, halved), loss_text=secret)
    write_blame(tmp_path, replace(BLAME, episodes=(episode,)), None)
    assert "planted" not in (tmp_path / FOLDER / EPISODES).read_text()
    found = read_blame(tmp_path)
    assert found is not None
    clean, other = found.episodes[0].texts
    assert clean.text == found.episodes[0].loss_text == "see https://<removed>@host now"
    assert clean.spans == ((0, len(clean.text)),)
    assert clean.credits == pytest.approx((0.4,))
    assert other == replace(halved, text="a?b")
