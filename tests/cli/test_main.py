"""The commands as a user calls them."""

import json
import os
import signal
import subprocess
import sys
import time

# Its log keeps the stderr that there is when it is imported: pytest's of one test, if a command does it.
import lightning.pytorch  # noqa: F401
import numpy as np
import pytest
from PIL import Image

from framework import __version__
from framework.cli.main import main
from framework.cli.registry import RECIPES, commands, methods
from framework.core.method import Command
from framework.testing.command_line import error_of
from framework.testing.images import make_image_folder
from framework.testing.processes.forked import start_command

COMMANDS = (*RECIPES, *commands(methods()))


def test_help_lists_every_command(capsys):
    main(["--help"])
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


def test_a_look_at_runs_imports_nothing_heavy(tmp_path):
    """In a process of its own: this one has imported everything."""
    script = f"""
import sys
from framework import __version__
from framework.cli.main import main
main(["--help"])
main(["runs", "ls", {str(tmp_path)!r}])
print(sorted({{"torch", "lightning", "transformers", "wandb", "matplotlib", "numpy"}} & sys.modules.keys()))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert "usage: framework" in capsys.readouterr().out


def test_mistakes_before_a_recipe(capsys, tmp_path):
    assert "'train'" in error_of(capsys, "train")
    assert "nowhere.yaml" in error_of(capsys, "fit", "--config", "nowhere.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("trainer: [")
    assert "broken.yaml cannot be read (line 1: " in error_of(capsys, "fit", "--config", broken)
    assert "/nowhere" in error_of(capsys, "sample", "/nowhere", tmp_path / "x.npz")
    assert "/nowhere" in error_of(capsys, "shards", "images", "/nowhere", tmp_path / "x")


def interrupt() -> None:
    raise KeyboardInterrupt


def exit_by_interrupt() -> None:
    """As Lightning does where it is interrupted."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


def fail_after_interrupt() -> None:
    """As Lightning's clean-up does where the loader was being started."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        raise RuntimeError("no iterator")  # noqa: B904


def get_sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)


@pytest.mark.parametrize(
    ("function", "code", "said"),
    [
        (get_sigterm, 143, "stopped by SIGTERM"),
        (interrupt, 130, "interrupted"),
        (exit_by_interrupt, 130, "interrupted"),
        (fail_after_interrupt, 130, "interrupted"),
    ],
)
def test_what_ends_a_command_is_one_line_and_a_code(capsys, monkeypatch, function, code, said):
    command = Command(help="is ended", function=f"{__name__}:{function.__name__}")
    monkeypatch.setattr("framework.cli.main.commands", lambda known: {"wait": command})
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as stopped:
            main(["wait"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.value.code == code
    assert capsys.readouterr().err == f"framework wait: {said}\n"


@pytest.mark.slow
def test_ctrl_c_while_training_starts(tmp_path):
    """Its data are a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "recipe.yaml")
    command = start_command("fit", "--config", str(tmp_path / "recipe.yaml"))
    time.sleep(1)
    os.kill(command.pids[0], signal.SIGINT)
    ended = command.finish(timeout=30)
    assert (ended.exitcodes, ended.output) == ([130], "framework fit: interrupted\n")


@pytest.mark.slow
def test_a_home_folder_is_one_place(recipe, tmp_path, monkeypatch):
    """Lightning expands it too: checkpoints and the run's other files stay together."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", str(recipe), "--run.dir", "~/runs/x", "--run.wandb", "offline"])
    run = tmp_path / "home/runs/x"
    assert {"checkpoints", "metrics", "wandb-id", "recipe.yaml", "wandb"} <= {path.name for path in run.iterdir()}
    assert "dir: ~/runs/x" in (run / "recipe.yaml").read_text()
    assert not (tmp_path / "~").exists()


def test_a_command_that_is_misspelt_and_the_version(capsys):
    assert "unknown command 'fitt': did you mean fit?" in error_of(capsys, "fitt")
    assert "use one of fit, validate" in error_of(capsys, "xyz")
    main(["--version"])
    assert capsys.readouterr().out == f"framework {__version__}\n"


def test_where_a_run_will_be(capsys, tmp_path, monkeypatch, recipe):
    monkeypatch.setenv("HOME", "/home/ada")
    # Longer than a line of YAML, which is folded at spaces.
    name = "a long name " * 12 + "it's: [1]"
    main(["where", "--config", str(recipe), "--run.dir", f"~/runs/{name}", "--run.wandb", "online"])
    assert capsys.readouterr().out == f"run.dir: /home/ada/runs/{name}\nrun.wandb: online\n"
    monkeypatch.setenv("WANDB_MODE", "offline")
    main(["where", "--config", str(recipe), "--run.wandb", "online"])
    assert capsys.readouterr().out == f"run.dir: {tmp_path}/run\nrun.wandb: offline\n"
    assert not (tmp_path / "run").exists()
    assert "max_stepz" in error_of(capsys, "where", "--config", recipe, "--trainer.max_stepz", "3")


@pytest.mark.slow
def test_from_shards_to_report(capsys, recipe, tmp_path):
    run = tmp_path / "run"
    main(["fit", "--config", str(recipe), "--run.wandb", "offline"])
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["newest", "step=00000002", "step=00000004", "validation.jsonl"]
    manifest = json.loads((run / "checkpoints/step=00000004/manifest.json").read_text())
    assert (manifest["step"], manifest["samples_consumed"], manifest["world_size"]) == (4, 16, 1)
    assert manifest["recipe"] == (run / "recipe.yaml").read_text()
    assert manifest["wandb_id"] == (run / "wandb-id").read_text()
    assert sorted(p.name for p in (run / "samples").iterdir()) == ["step=00000002.png", "step=00000004.png"]
    assert (run / "curves.png").stat().st_size > 0
    assert "max_steps: 4" in (run / "recipe.yaml").read_text()
    assert list(run.glob("wandb/offline-run-*/*.wandb"))
    header = (run / "metrics/version_0/metrics.csv").read_text().splitlines()[0].split(",")
    assert {
        "loss/total",
        "loss/flow_mse",
        "loss/reconstruction_l1",
        "loss/kl_nats_per_token",
        "validation/flow_mse",
        "optimizer/learning_rate",
        "optimizer/gradient_norm",
        "throughput/images_per_second",
        "time/data_wait_seconds",
        "memory/peak_gib",
        "checkpoint/stall_seconds",
    } <= set(header)

    main(["validate", "--config", str(run / "recipe.yaml")])
    assert "validation/flow_mse" in capsys.readouterr().out

    out = tmp_path / "samples.npz"
    main(["sample", str(run), str(out), "--num", "12", "--batch_size", "5", "--sampler.steps", "2"])
    with np.load(out, allow_pickle=False) as file:
        assert file["arr_0"].shape == (12, 8, 8, 3)
        assert file["arr_0"].dtype == np.uint8
        assert file["arr_1"].tolist() == [0, 1] * 6
    with Image.open(out.with_suffix(".png")) as grid:
        assert grid.size[0] > 0

    report = tmp_path / "report.json"
    shards = str(tmp_path / "data" / "shards")
    measured = ["--training", shards, "--features", "PixelFeatures", "--checkpoint", str(run), "--gap_images", "4"]
    main(["evaluate", str(out), shards, *measured, "--out", str(report)])
    metrics = json.loads(report.read_text())["metrics"]
    assert {"frechet_distance/pixels", "precision/pixels", "recall/pixels", "rollout_gap/ratio"} <= metrics.keys()
    assert metrics["nearest_neighbour/held_out_exact_copy_share"] == 1
    assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.slow
def test_sampling_does_not_depend_on_the_batch_size(recipe, tmp_path):
    main(["fit", "--config", str(recipe)])
    arrays = []
    for size in (1, 4, 9):
        out = tmp_path / f"{size}.npz"
        options = ["--num", "9", "--batch_size", str(size), "--sampler.steps", "3", "--sampler.guidance", "2"]
        main(["sample", str(tmp_path / "run"), str(out), *options])
        arrays.append(np.load(out)["arr_0"])
    assert all((arrays[0] == other).all() for other in arrays[1:])


@pytest.mark.slow
def test_a_class_that_the_model_does_not_know(capsys, recipe, tmp_path):
    main(["fit", "--config", str(recipe), "--trainer.max_steps", "2"])
    line = error_of(capsys, "sample", tmp_path / "run", tmp_path / "x.npz", "--classes", "[7]", "--num", "2")
    assert "class 7 is out of range" in line


def test_unreadable_images_are_listed_and_strict_refuses(capsys, tmp_path):
    source = make_image_folder(tmp_path / "images", size=8)
    victim = sorted((source / "cat").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:40])
    assert victim.name in error_of(capsys, "shards", "images", source, tmp_path / "strict", "--strict")
    main(["shards", "images", str(source), str(tmp_path / "shards")])
    assert victim.name in capsys.readouterr().err
    main(["shards", "check", str(tmp_path / "shards")])
    shard = next((tmp_path / "shards").glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-600])
    assert "problems in" in error_of(capsys, "shards", "check", tmp_path / "shards")


def test_what_is_missing_or_superfluous_is_told_with_the_command(capsys):
    for words, expected in (
        (("shards",), "error: shards is a group of commands: use shards with one of images, imagenet"),
        (("shards", "imges", "a"), "error: shards has no command 'imges': did you mean images?"),
        (("shards", "images", "a"), "error: dest is missing (see: framework shards images --help)"),
        (("fit",), "error: data.train, data.batch_size, run.dir, model are missing: give a recipe with --config (see"),
        (("fit", "--config", ""), "error: --config is '': give the path of a recipe (see"),
        (("runs", "ls", "a", "b"), "error: b stands alone: leave it out (see: framework runs ls --help)"),
        (("evaluate", "a", "b", "--features", "Pixel"), "--features is Pixel, which is not a class: did you mean "
         "PixelFeatures? (see: framework evaluate --help)"),
        (("evaluate", "a", "b", "--features", "resnet"), "use one of ClassifierFeatures, InceptionFeatures, "),
        (("evaluate", "a", "b", "--features", "PixelFeatures", "--features.size", "3"), "--features.size is not a"),
    ):  # fmt: skip
        assert expected in error_of(capsys, *words)
