"""The command: parts are trained and measured once, shared out among processes, and refused where they are unlike."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from framework.cli.main import main
from framework.core.errors import ConfigError
from framework.core.io import locked_file
from framework.core.text_files import read_yaml
from framework.evaluation.features import PixelFeatures
from framework.pra.commands.compare import compare
from framework.testing.processes.forked import run_warm

CLASSIFIER = """
run: {{dir: elsewhere, wandb: disabled}}
data: {{train: {shards}, validation: {shards}, images: {{size: 32, channels: 3}}, batch_size: 4}}
model: {{class_path: framework.evaluation.classifier.ClassifierModule, init_args: {{num_classes: 2, width: 8}}}}
trainer: {{max_steps: 2, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}}
"""


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch) -> None:
    run = "framework.pra.commands.comparison.training.run_to_end"
    monkeypatch.setattr(run, lambda command: run_warm(command).returncode)


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_parts_are_trained_and_measured_and_kept(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "compare"
    options = ["--features", "PixelFeatures", "--num", "6", "--steps", "2", "--device", "cpu"]
    options += ["--options", "[--trainer.max_steps, '2']"]
    rows = ["--variants", "[pra,diffusion]", "--guidance", "[2]", "--svm_accuracy", "true"]
    main(["compare", str(recipe), str(out), *options, *rows, "--seeds", "[3]"])
    table = (out / "table.md").read_text().splitlines()
    assert "SVM accuracy, guidance 1 | SVM accuracy, guidance 2 | rollout gap | reconstruction L1 |" in table[0]
    assert [line.split("`")[1] for line in table[2:4]] == ["pra", "diffusion"]
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [(line["variant"], line["seed"], line["token_size"]) for line in lines] == [
        ("pra", 3, 48),
        ("diffusion", 3, 48),
    ]
    assert lines[0]["reconstruction_l1"] > 0
    assert lines[1]["reconstruction_l1"] is None
    assert all(line["metrics"]["2"]["frechet_distance/pixels"] > 0 for line in lines)
    assert (out / "comparison.svg").is_file()
    assert (out / "pra-8px-seed3/guidance-2.png").is_file()
    # A part that is measured is left as it is.
    before = (out / "pra-8px-seed3/result.json").stat().st_mtime_ns
    main(["compare", str(recipe), str(out), *options, *rows, "--seeds", "[3]", "--parts", "[pra-*]"])
    assert (out / "pra-8px-seed3/result.json").stat().st_mtime_ns == before
    assert "training, then" not in capsys.readouterr().err.split("figure in", 1)[1]
    # Of other options it would be another comparison.
    other = ["--options", "[--trainer.max_steps, '3']"]
    with pytest.raises(SystemExit):
        main(["compare", str(recipe), str(out), *options, *rows, *other, "--seeds", "[3]", "--parts", "[pra-*]"])
    assert "was trained with another recipe or other options" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_parts_are_measured_on_their_way_and_go_on(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "compare"
    part = out / "pra-8px-seed0"
    options = ["--features", "PixelFeatures", "--num", "6", "--steps", "2", "--device", "cpu", "--variants", "[pra]"]
    options += ["--guidance", "[1]", "--training_steps"]
    main(["compare", str(recipe), str(out), *options, "[1,2]"])
    first = (part / "measured-2/result.json").read_bytes()
    assert (out / "curves.svg").is_file()
    main(["compare", str(recipe), str(out), *options, "[1,2,3]"])
    assert (part / "measured-2/result.json").read_bytes() == first
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [line["training_steps"] for line in lines] == [1, 2, 3]
    assert len({line["rollout_gap"] for line in lines}) == 3
    assert (part / "measured-3/guidance-1.png").is_file()
    # What was not kept on the way cannot be measured any more.
    main(["compare", str(recipe), str(tmp_path / "end"), *options, "[2]"])
    with pytest.raises(SystemExit):
        main(["compare", str(recipe), str(tmp_path / "end"), *options, "[1,2]"])
    assert "pra-8px-seed0 has kept no checkpoint after 1 steps: leave that number out" in capsys.readouterr().err
    # Of another recipe it does not go on, also where nothing was measured yet.
    recipe.write_text(recipe.read_text().replace("warmup_steps: 1", "warmup_steps: 2"))
    with pytest.raises(SystemExit):
        main(["compare", str(recipe), str(out), *options, "[4]"])
    assert "was trained with another recipe or other options (recipe_sha256)" in capsys.readouterr().err
    # A run of its own, trained to the second step alone, is at the same place there.
    alone = tmp_path / "end"
    (line,) = [json.loads(line) for line in (alone / "results.jsonl").read_text().splitlines()]
    assert line == lines[1]
    assert not (alone / "curves.svg").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_a_classifier_is_trained_at_each_size(recipe: Path, tmp_path: Path):
    (tmp_path / "classifier.yaml").write_text(CLASSIFIER.format(shards=tmp_path / "data" / "shards"))
    out = tmp_path / "compare"
    options = ["--classifier", str(tmp_path / "classifier.yaml"), "--variants", "[teacher_forced]", "--sizes", "[8,16]"]
    options += ["--num", "6", "--steps", "1", "--guidance", "[1]", "--device", "cpu"]
    main(["compare", str(recipe), str(out), *options, "--options", "[--trainer.max_steps, '1']"])
    assert {path.name for path in out.iterdir() if path.is_dir()} == {
        "classifier-8px",
        "classifier-16px",
        "teacher_forced-8px-seed0",
        "teacher_forced-16px-seed0",
    }
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [line["token_size"] for line in lines] == [48, 192]
    assert "class_accuracy_samples/classifier" in lines[0]["metrics"]["1"]


def test_parts_that_others_work_on_are_left_to_them(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    out.mkdir()
    with locked_file(out / "pra-8px-seed0.lock"):
        compare(str(recipe), str(out), features=PixelFeatures(), variants=["pra"], device="cpu")
    assert "worked on by other processes: pra-8px-seed0" in capsys.readouterr().err
    assert not (out / "pra-8px-seed0").exists()


def test_the_table_waits_for_the_process_that_writes_it(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    out.mkdir()
    with ExitStack() as other:
        other.enter_context(locked_file(out / "pra-8px-seed0.lock"))
        other.enter_context(locked_file(out / "table.lock"))
        monkeypatch.setattr("framework.pra.commands.compare.time.sleep", lambda _: other.close())
        compare(str(recipe), str(out), features=PixelFeatures(), variants=["pra"], device="cpu")
    assert "waiting for another process, which holds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": ["gbc-*"]}, r"no part is named gbc-\*: there are pra-8px-seed0, diffusion-8px-seed0"),
        ({"seeds": []}, r"seeds \[\]"),
        ({"num": 0}, "num 0"),
        ({"sizes": [9]}, "images of 9 pixels"),
        ({"guidance": [0.5]}, "guidance 0.5"),
        ({"steps": 0}, "sampler steps 0"),
        ({"training_steps": [2, 1]}, r"training_steps \[2, 1\]"),
        ({"features": None}, "give one of them"),
        ({"features": None, "classifier": "missing.yaml"}, r"missing\.yaml cannot be read"),
        ({"classifier": "classifier.yaml"}, "give one of them"),
    ],
)
def test_what_cannot_be_compared_is_refused(recipe: Path, tmp_path: Path, options: dict, message: str):
    given = {"features": PixelFeatures(), "variants": ["pra", "diffusion"], "device": "cpu", **options}
    with pytest.raises(ConfigError, match=message):
        compare(str(recipe), str(tmp_path / "out"), **given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("old", "new"), [("image_size: 8", "image_sise: 8"), ("num_classes: 2", "num_classes: 1")])
def test_an_architecture_that_is_none_or_unguided_is_refused_at_once(recipe: Path, tmp_path: Path, old: str, new: str):
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=r"tiny.yaml is none|guidance 1\.5 for an unconditional model"):
        compare(str(recipe), str(tmp_path / "out"), features=PixelFeatures())


def test_a_schedule_with_an_end_has_no_moments_on_its_way(recipe: Path, tmp_path: Path):
    settings = read_yaml(recipe)
    settings["model"]["init_args"]["optimizer"] = {"schedule": "cosine"}
    recipe.write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigError, match=r"with the schedule cosine of .*tiny.yaml: set .*schedule to constant"):
        compare(str(recipe), str(tmp_path / "out"), features=PixelFeatures(), training_steps=[1, 2])


def test_options_are_read_with_the_recipe(recipe: Path, tmp_path: Path):
    def refused(message: str, *options: str, **given: list[int]) -> None:
        with pytest.raises(ConfigError, match=message):
            compare(str(recipe), str(tmp_path / "out"), features=PixelFeatures(), options=list(options), **given)

    refused("with the schedule cosine", "--model.optimizer.schedule", "cosine", training_steps=[1, 2])
    refused(r"tiny.yaml is none", "--model.architecture.widht", "32")
    refused("images of 9 pixels", "--model.architecture.patch_size", "2", sizes=[9])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text", ["trainer: {max_steps: 1}", "", "[]", "model: framework.pra.module.PRAModule", "data:"]
)
def test_a_recipe_of_something_else_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "other.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"other\.yaml is not the recipe"):
        compare(str(path), str(tmp_path / "out"), features=PixelFeatures())
