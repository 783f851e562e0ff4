"""`framework agents compare-multiwoz` with a tiny model: its table, equal parameters, and what goes on after a stop."""

import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any, ClassVar

import pytest
import yaml

from framework.cli.main import main
from framework.core.errors import ConfigError, Preempted, TrainingError
from framework.core.io import locked_file
from framework.gbc.environments.multiwoz.state_tracking import comparison
from framework.gbc.environments.multiwoz.state_tracking.comparison import Comparison, System, prepare, train
from framework.gbc.environments.multiwoz.state_tracking.comparison_inputs import Setup, Sizes, load_data
from framework.testing.language_models import save_tiny_model
from tests.gbc.environments.multiwoz.conftest import write_release  # noqa: F401
from tests.gbc.environments.multiwoz.state_tracking.test_example_shards import write_source

RECIPES = Path(__file__).parents[5] / "recipes" / "gbc"


def write_graphs(folder: Path) -> dict[str, str]:
    """The recipes' graphs with prompts and answers that a tiny model reads fast; its manager would name nobody."""
    found: dict[str, str] = {}
    for name, file in (("team", "small"), ("alone", "alone")):
        graph = yaml.safe_load((RECIPES / f"graphs/multiwoz_{file}.yaml").read_text())
        for agent in graph["agents"]:
            agent.pop("when", None)
            agent |= {"max_new_tokens": 2, "prompt": agent["name"]}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(graph))
        found[name] = str(folder / f"{name}.yaml")
    return found


class InThisProcess:
    """Runs the command of a `Popen` by `main`: a process of its own takes its time to start."""

    def __init__(self, command: Sequence[str]) -> None:
        main(command[3:])

    def wait(self, timeout: float | None = None) -> int:
        return 0

    def poll(self) -> int:
        return 0


@pytest.mark.slow
def test_a_team_and_one_agent_before_and_after(
    tmp_path: Path,
    write_release: Callable[..., Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    save_tiny_model(tmp_path / "model", num_hidden_layers=1, max_position_embeddings=2048)
    models = tmp_path / "models.yaml"
    models.write_text(f"main: {{path: {tmp_path / 'model'}}}\n")
    graphs, source, folder = write_graphs(tmp_path), str(write_source(tmp_path)), tmp_path / "compared"
    monkeypatch.setattr(comparison, "Popen", InThisProcess)
    command = ["agents", "compare-multiwoz", str(folder), "--models", str(models), "--release", str(write_release())]
    command += ["--train", source, "--dev", source, "--setup.recipe", str(RECIPES / "multiwoz_small_train.yaml")]
    command += ["--setup.team", graphs["team"], "--setup.alone", graphs["alone"]]
    command += ["--sizes.num_turns", "4", "--sizes.num_dev", "1"]
    command += ["--fit", json.dumps(["--trainer.max_steps=1", "--data.batch_size=2"])]
    main(command)
    shown = capsys.readouterr().out
    rows = json.loads((folder / "table.json").read_text())
    assert [(row["system"], row["when"]) for row in rows] == [
        ("team", "before"),
        ("team", "after"),
        ("alone", "before"),
        ("alone", "after"),
    ]
    before, after, _, alone = rows
    assert (before["parameters"], before["steps"], after["steps"]) == (0, 0, 1)
    # Seven adapters and soft prompts of one, or one that is seven times as large.
    assert after["parameters"] == alone["parameters"] > 0
    assert {"joint_goal_accuracy", "dev_joint_goal_accuracy", "inform", "success", "slot_f1", "seconds"} <= alone.keys()
    assert str(after["parameters"]) in shown
    # All is done: nothing is trained or asked again, and the table is the same.
    monkeypatch.setattr(comparison, "Popen", None)
    monkeypatch.setattr(comparison, "load_models", None)
    main(command)
    assert json.loads((folder / "table.json").read_text()) == rows
    for words, problem in (
        (["--sizes.num_turns", "5"], "begun with other settings (num_turns)"),
        (["--systems", "['x']"], "--systems is x"),
    ):
        with pytest.raises(SystemExit):
            main([*command, *words])
        assert problem in capsys.readouterr().err
    with locked_file(folder / "team" / "lock"), pytest.raises(SystemExit):
        main(command)
    assert "another process is writing" in capsys.readouterr().err
    trained = folder / "alone" / "trained.json"
    trained.write_text(json.dumps({"parameters": 1, "steps": 1}))
    with pytest.raises(SystemExit):
        main(command)
    assert "not trained alike (team: " in capsys.readouterr().err


def make_comparison(folder: Path, release: Path, source: str, **changes: Any) -> Comparison:
    models, sizes = folder / "models.yaml", Sizes(num_turns=3, at_once=1)
    models.write_text("main: {path: model}\n")
    settings: dict[str, Any] = {
        "folder": folder / "compared",
        "models": str(models),
        "release": str(release),
        "setup": Setup(recipe=str(RECIPES / "multiwoz_small_train.yaml"), **write_graphs(folder)),
        "sizes": sizes,
        "data": load_data(str(release), source, None, sizes=sizes),
        "seed": 4,
        "fit": ("--trainer.max_steps=1",),
        "deadline": None,
    }
    return Comparison(**{**settings, **changes})


class Slow:
    """Processes: two end only by our signal, while starting and in training; another's stops the third, one fails."""

    codes: ClassVar[list[int]] = [-signal.SIGTERM, Preempted.exit_code, Preempted.exit_code, 1]
    signals: ClassVar[list[int]] = []
    commands: ClassVar[list[list[str]]] = []

    def __init__(self, command: list[str]) -> None:
        self.commands.append(command)

    def wait(self, timeout: float | None = None) -> int:
        number = len(self.commands)
        if timeout is not None and len(self.signals) < number <= 2:
            raise TimeoutExpired("fit", timeout)
        return self.codes[number - 1]

    def send_signal(self, number: int) -> None:
        self.signals.append(number)

    def poll(self) -> int:
        return 0


def test_a_training_that_is_stopped_is_called_again(
    tmp_path: Path,
    write_release: Callable[..., Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    release, source = write_release(), str(write_source(tmp_path))
    compared = make_comparison(tmp_path, release, source, deadline=float("inf"))
    assert [each.id for each in compared.data.held_out] == ["SNG0002.json"]
    assert compared.data.dev == []
    system = System(name="alone", comparison=compared)
    for each in (system, System(name="team", comparison=compared)):
        each.folder.mkdir(parents=True)
        prepare(each)
    declared = yaml.safe_load((tmp_path / "compared" / "team" / "graph.yaml").read_text())
    assert declared["tools"][0]["function"]["init_args"]["release"] == str(release)
    monkeypatch.setattr(comparison, "Popen", Slow)
    for _ in range(3):
        with pytest.raises(Preempted, match=r"what it has saved stays.*call it again"):
            train(system)
    assert Slow.signals == [signal.SIGTERM] * 2
    with pytest.raises(TrainingError, match="training of alone failed"):
        train(system)
    words, *again = Slow.commands
    assert again == [words] * 3
    value = dict(pairwise(words))
    # As many values as seven agents of the recipe have.
    assert value["--model.init_args.soft.adapters.rank"] == "28"
    assert value["--model.init_args.soft.adapters.alpha"] == "56"
    assert value["--model.init_args.soft.num_tokens"] == "28"
    assert value["--model.init_args.soft.target"].endswith("answers:alone_targets")
    assert words[-1] == "--trainer.max_steps=1"
    over = make_comparison(tmp_path, release, source, deadline=0.0)
    with pytest.raises(Preempted, match="its minutes are over"):
        train(System(name="alone", comparison=over))


def test_a_folder_is_of_one_set_of_dialogues_and_one_recipe(
    tmp_path: Path,
    write_release: Callable[..., Path],  # noqa: F811
):
    compared = make_comparison(tmp_path, write_release(), str(write_source(tmp_path)))
    system = System(name="team", comparison=compared)
    system.folder.mkdir(parents=True)
    prepare(system)
    prepare(system)
    (dialogue,) = compared.data.held_out
    # Of the same id, as those of another release are.
    other = replace(compared.data, held_out=[replace(dialogue, goal={})])
    with pytest.raises(ConfigError, match=r"begun with other settings \(dialogues\)"):
        prepare(System(name="team", comparison=replace(compared, data=other)))
    # A folder of before that was noted goes on.
    settings = json.loads((system.folder / "settings.json").read_text())
    del settings["dialogues"]
    (system.folder / "settings.json").write_text(json.dumps(settings))
    prepare(system)
    recipe = tmp_path / "recipe.yaml"
    for text in ("", "model: {init_args: {soft: {num_tokens: 4}}}"):
        recipe.write_text(text)
        with pytest.raises(ConfigError, match=r"no adapters in model\.init_args\.soft"):
            prepare(System(name="alone", comparison=replace(compared, setup=Setup(recipe=str(recipe)))))
    recipe.write_text("model: {init_args: {soft: {adapters: {rank: 2}}}}")
    assert comparison.soft_sizes(str(recipe)) == (8, 2, 16)
