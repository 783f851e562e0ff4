"""Training by the command: mistakes in recipes, and what a start does with the run's checkpoints."""

import math

# Its log keeps the stderr that there is when it is imported: pytest's of one test, if a command does it.
import lightning.pytorch  # noqa: F401
import pytest

from framework.cli.main import main
from framework.testing.command_line import error_of
from framework.testing.faults import flip_bytes
from framework.tracking.metric_files import merged_steps, read_metrics
from framework.tracking.restarts import read_restarts
from framework.training.trainer_options import TRAINER_OPTIONS, described


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.architecture.widht", "3"], ["--model.architecture.widht is not a setting", "architecture.width?"]),
        (["--trainer.max_stepz", "3"], ["did you mean --trainer.max_steps?", "see: framework fit --help"]),
        (["--model.architecture.width", "wide"], ["--model.architecture.width is wide: give a whole number"]),
        (["--trainer.max_step", "3"], ["did you mean --trainer.max_steps?"]),
        (["--trainer.precision", "bf16mixed"], ["use one of 32, 16, ", "did you mean bf16-mixed?"]),
        (["--trainer.precision", "bf16-true"], ["would keep weights", "use bf16-mixed"]),
        (["--trainer.devices", "two"], ["trainer.devices two", "give a number of processes"]),
        (["--model.architecture", "3"], ["--model.architecture is 3: it is a group of settings"]),
        (["--model.class_path", "framework.pra.modul.PRAModule"], ["did you mean framework.pra.module.PRAModule?"]),
        (["--model.optimizer.schedule", "linear"], ["use one of constant, cosine"]),
        (["--model.architecture.patch_size", "3"], ["image_size 8", "patch_size 3", "divisors"]),
        (["--model.architecture.channels", "1"], ["channels is 1 in the model and 3 in the data"]),
        (["--model.architecture.num_classes", "3"], ["num_classes is 3 in the model and 2 in the data"]),
        (["--data.train", "/nowhere"], ["/nowhere", "framework shards images"]),
        (["--data.batch_size", "0"], ["data.batch_size is 0"]),
        (["--seed_everything", "-1"], ["seed_everything is -1", "from 0 to 4294967295"]),
        (["--trainer.devices", "9999"], ["trainer.devices is 9999", "give at most"]),
        (["--run.dir", "a\nb"], ["run.dir 'a\\nb' has signs"]),
        (["--trainer.\x1b[31mx", "3"], ["--trainer.\\x1b[31mx is not a setting"]),
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
@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("max_steps: 4", "max_stepz: 4", ["tiny.yaml, line 12: trainer.max_stepz is not", "trainer.max_steps?"]),
        ("width: 16", "widht: 16", ["tiny.yaml, line 7: model.init_args.architecture.widht", "architecture.width?"]),
        (
            "max_steps: 4",
            "max_steps: 4, max_steps: 5",
            ["tiny.yaml cannot be read (line 12: ", "'max_steps' stands twice"],
        ),
        ("batch_size: 4", "batch_size: four", ["tiny.yaml, line 3: data.batch_size is four: give a whole number"]),
        ("batch_size: 4", "batch_size: 4, images: 3", ["tiny.yaml cannot be read (line 3: ", "'images' stands twice"]),
        ("images: {size: 8, channels: 3}", "images: 3", ["tiny.yaml, line 3: data.images is 3", "a group of settings"]),
        ("optimizer: {warmup_steps: 1}", "optimizer: 3", ["tiny.yaml, line 10: model.init_args.optimizer is 3"]),
        ("warmup_steps: 1", "warmup_steps: ", ["line 10: model.init_args.optimizer.warmup_steps is null"]),
        ("checkpoint: {", "checkpoint: [", ["tiny.yaml cannot be read (line ", "expected"]),
        ("class_path:", "class:", ["tiny.yaml, line 4: model is not a class"]),
    ],
)
def test_a_mistake_in_a_recipe_names_the_file_the_line_and_what_would_do(capsys, recipe, before, after, words):
    text = recipe.read_text()
    assert before in text
    recipe.write_text(text.replace(before, after, 1))
    line = error_of(capsys, "fit", "--config", recipe)
    assert all(word in line for word in words), line
    assert "unicode string" not in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x94\xff\x00", "tiny.yaml is not UTF-8"),
        (b"- 1\n- 2\n", "tiny.yaml holds no sections"),
        (b"", "tiny.yaml holds nothing"),
    ],
)
def test_what_is_not_a_recipe(capsys, recipe, content, words):
    recipe.write_bytes(content)
    assert words in error_of(capsys, "fit", "--config", recipe)


@pytest.mark.slow
def test_a_trial_leaves_nothing_to_go_on_from(capsys, recipe, tmp_path):
    main(["fit", "--config", str(recipe), "--trainer.fast_dev_run", "2", "--run.wandb", "offline"])
    assert "2 steps were tried; nothing is left of them" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    main(["fit", "--config", str(recipe), "--trainer.max_steps", "2"])
    before = sorted((tmp_path / "run").rglob("*"))
    main(["fit", "--config", str(recipe), "--trainer.fast_dev_run", "true"])
    assert sorted((tmp_path / "run").rglob("*")) == before
    assert "resuming" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_schedule_ends_with_the_epochs(recipe, tmp_path):
    options = ["--trainer.max_steps", "-1", "--trainer.max_epochs", "2", "--model.optimizer.schedule", "cosine"]
    options += ["--model.optimizer.learning_rate", "0.01"]
    main(["fit", "--config", str(recipe), *options])
    # Three steps of 4 of the 12 images in each epoch.
    rates = read_metrics(tmp_path / "run")["optimizer/learning_rate"]
    progress = [0.0, 0.0, *(step / 5 for step in range(1, 5))]
    expected = [0.01, *(0.005 * (1 + math.cos(math.pi * each)) for each in progress[1:])]
    assert [rates[step] for step in range(6)] == pytest.approx(expected)


@pytest.mark.slow
def test_one_batch_is_an_epoch_of_the_trainer_also_for_a_run_that_goes_on(recipe, tmp_path):
    limit = ["--trainer.limit_train_batches", "1", "--trainer.max_epochs", "5", "--trainer.max_steps"]
    main(["fit", "--config", str(recipe), "--run.dir", str(tmp_path / "whole"), *limit, "-1"])
    for steps in ("2", "-1"):
        main(["fit", "--config", str(recipe), *limit, steps])
    whole, resumed = (read_metrics(tmp_path / name)["loss/total"] for name in ("whole", "run"))
    assert list(whole) == [0, 1, 2, 3, 4]
    assert resumed == whole


@pytest.mark.slow
def test_starts_that_never_trained_leave_no_gaps(capsys, recipe, tmp_path):
    main(["fit", "--config", str(recipe), "--trainer.max_steps", "2"])
    error_of(capsys, "fit", "--config", recipe, "--model.architecture.width", "32")
    error_of(capsys, "fit", "--config", recipe, "--resume", "never")
    main(["fit", "--config", str(recipe)])
    assert [each.start.restart for each in read_restarts(tmp_path / "run")] == [0, 1]
    assert {row.restart for row in merged_steps(tmp_path / "run")} == {0, 1}


@pytest.mark.slow
def test_validate_goes_on_from_nothing_else(capsys, recipe):
    main(["fit", "--config", str(recipe)])
    assert "leave it out" in error_of(capsys, "validate", "--config", recipe, "--resume", "must")


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


@pytest.mark.slow
def test_help_says_what_the_trainers_options_do_here(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    text = capsys.readouterr().out
    for name in ("max_time", "overfit_batches", "limit_train_batches"):
        assert described(TRAINER_OPTIONS[name]) in text
