"""Folders that look like those of runs."""

import csv
import json
from pathlib import Path

from PIL import Image

from framework.testing.run_folders import make_run_folder


def test_a_run_of_two_starts(tmp_path: Path):
    run = make_run_folder(
        tmp_path / "run", stretches=((0, 8, None, ""), (8, 16, "finished", "well")), max_steps=16, every=2
    )
    events = [json.loads(line) for line in (run / "attempts.jsonl").read_text().split("\n") if line]
    # The first was killed: it could not tell its end.
    assert [event["event"] for event in events] == ["start", "start", "end"]
    assert (events[-1]["outcome"], events[-1]["message"], events[-1]["step"]) == ("finished", "well", 16)
    for number, steps in ((0, range(0, 8, 2)), (1, range(8, 16, 2))):
        with (run / f"metrics/version_{number}/metrics.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert [int(row["step"]) for row in rows] == list(steps)
        assert all(float(row["loss/total"]) > 0 for row in rows)
    pictures = sorted((run / "samples").iterdir())
    assert [path.name for path in pictures] == [f"step={step:08d}.png" for step in range(2, 17, 2)]
    with Image.open(pictures[0]) as image:
        assert image.size == (6 * 34, 3 * 34)
    assert (run / "checkpoints/step=00000016").is_dir()
