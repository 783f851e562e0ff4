"""The command `probe`: from a run and two sets of shards to a report and a picture."""

import json
from pathlib import Path

import pytest

from framework.cli.main import main
from framework.core.errors import ConfigError, DataError
from framework.pra.commands.probe import probe
from framework.testing.images import make_image_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data")
    make_image_shards(folder, classes=("a", "b", "c"), per_class=6, size=4, mode="L")
    return str(folder / "shards")


@pytest.mark.slow
def test_a_report_and_a_picture(trained: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "probe.json"
    options = ["--options.neighbours", "3", "--batch_size", "5", "--device", "cpu", "--out", str(out)]
    main(["probe", str(trained), shards, shards, *options])
    report = json.loads(out.read_text())
    assert (report["num_training"], report["num_test"]) == (18, 18)
    assert set(report["depths"]) == {"trained", "untrained"}
    assert set(report["depths"]["trained"]) == {"0", "1"}
    # A set that is measured on itself: 16 pixels tell 18 images apart.
    assert report["pixels"]["linear"]["value"] == 1
    assert (tmp_path / "probe.png").stat().st_size > 1000
    assert "raw pixels" in capsys.readouterr().out


def test_chosen_depths_by_the_decoded_inputs_without_baselines(trained: Path, shards: str, tmp_path: Path):
    out = str(tmp_path / "probe.json")
    probe(str(trained), shards, shards, depths=[1], inputs="decoded", baselines=False, limit=9, device="cpu", out=out)
    report = json.loads(Path(out).read_text())
    assert (report["num_training"], report["pixels"], report["inputs"]) == (9, None, "decoded")
    assert list(report["depths"]["trained"]) == ["1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": [2]}, r"depths \[2\] of a model of 1 layers"),
        ({"depths": []}, r"depths \[\]"),
        ({"out": "probe.txt"}, "out probe.txt"),
    ],
)
def test_questions_that_cannot_be_answered(trained: Path, shards: str, options: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        probe(str(trained), shards, shards, device="cpu", **options)  # pyright: ignore[reportArgumentType]


def test_two_sets_of_other_classes(trained: Path, shards: str, tmp_path: Path):
    make_image_shards(tmp_path, classes=("a", "b", "d"), per_class=2, size=4, mode="L")
    with pytest.raises(DataError, match="has other classes"):
        probe(str(trained), shards, str(tmp_path / "shards"), device="cpu", out=str(tmp_path / "probe.json"))
