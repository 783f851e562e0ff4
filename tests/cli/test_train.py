"""Training by the command: mistakes in recipes, and what a start does with the run's checkpoints."""

# Its log keeps the stderr that there is when it is imported: pytest's of one test, if a command does it.
import lightning.pytorch  # noqa: F401
import pytest

from framework.cli.main import main
from framework.testing.command_line import error_of
from framework.testing.faults import flip_bytes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.architecture.widht", "3"], ["widht"]),
        (["--trainer.max_stepz", "3"], ["max_stepz"]),
        (["--model.architecture.width", "wide"], ["architecture.width", "wide"]),
        (["--model.architecture.patch_size", "3"], ["image_size 8", "patch_size 3", "divisors"]),
        (["--model.architecture.channels", "1"], ["channels is 1 in the model and 3 in the data"]),
        (["--model.architecture.num_classes", "3"], ["num_classes is 3 in the model and 2 in the data"]),
        (["--data.train", "/nowhere"], ["/nowhere", "framework shards images"]),
        (["--data.batch_size", "0"], ["batch_size is 0"]),
        (["--model.class_path", "framework.pra.module.Missing"], ["Missing"]),
        (["--trainer.default_root_dir", "x"], ["run.dir"]),
        (["--resume", "must"], ["no checkpoint in", "--resume auto"]),
        (["--resume", "perhaps"], ["perhaps"]),
        (["--model.objective.rollout_passes", "-1"], ["rollout_passes -1"]),
    ],
)
def test_a_users_mistake_is_one_line_and_code_2(capsys, recipe, options, words):
    line = error_of(capsys, "fit", "--config", recipe, *options)
    assert all(word in line for word in words), line


@pytest.mark.slow
def test_runs_go_on_and_refuse_what_would_be_lost(capsys, recipe, tmp_path):
    nothing = error_of(capsys, "fit", "--config", recipe, "--resume", "must")
    assert "no checkpoint in" in nothing
    main(["fit", "--config", str(recipe), "--trainer.max_steps", "2"])
    assert "resuming from" not in capsys.readouterr().err
    options = ["--model.objective.head_repeats", "3", "--model.ema_decay", "0.5"]
    main(["fit", "--config", str(recipe), "--resume", "must", *options])
    told = capsys.readouterr().err
    assert "resuming from" in told
    assert "changed since: model.init_args.ema_decay: 0.9999 -> 0.5" in told
    assert "changed since: model.init_args.objective.head_repeats: 4 -> 3" in told
    assert "changed since: trainer.max_steps: 2 -> 4" in told
    assert told.count("changed since") == 3
    assert "up to step 4" in error_of(capsys, "fit", "--config", recipe, "--resume", "never")
    line = error_of(capsys, "fit", "--config", recipe, "--model.architecture.width", "32")
    assert "width is 16 in the checkpoint and 32 in the recipe" in line
    assert "width: 32" not in (tmp_path / "run/recipe.yaml").read_text()


@pytest.mark.slow
def test_a_run_starts_from_another_runs_checkpoint_and_then_from_its_own(capsys, recipe, tmp_path):
    main(["fit", "--config", str(recipe)])
    first = tmp_path / "run/checkpoints/step=00000002"
    behind = error_of(capsys, "fit", "--config", recipe, "--resume", first, "--trainer.max_steps", "6")
    assert "go on from step 2, and" in behind
    assert "goes up to step=00000004" in behind
    assert "max_steps: 4" in (tmp_path / "run/recipe.yaml").read_text(), "that of the run, not of the refused start"
    branch = ["fit", "--config", str(recipe), "--run.dir", str(tmp_path / "branch"), "--resume", str(first)]
    main([*branch, "--trainer.max_steps", "4"])
    assert f"resuming from {first}" in capsys.readouterr().err
    main([*branch, "--trainer.max_steps", "6"])
    assert f"resuming from {tmp_path}/branch/checkpoints/step=00000004" in capsys.readouterr().err
    assert "give auto, must, never, or the path" in error_of(capsys, *branch[:-1], tmp_path / "nowhere")


@pytest.mark.slow
def test_damaged_checkpoints_are_skipped_by_name(capsys, recipe, tmp_path):
    main(["fit", "--config", str(recipe)])
    newest = tmp_path / "run/checkpoints/step=00000004"
    flip_bytes(newest / "__0_0.distcp")
    main(["fit", "--config", str(recipe), "--trainer.max_steps", "6"])
    printed = capsys.readouterr().err
    assert f"skipped {newest}: __0_0.distcp does not match its checksum" in printed
    assert "step=00000002" in printed.split("resuming from")[1]
    names = sorted(path.name for path in newest.parent.iterdir())
    assert names == ["newest", "step=00000004", "step=00000004.damaged", "step=00000006", "validation.jsonl"]
