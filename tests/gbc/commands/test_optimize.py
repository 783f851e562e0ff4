"""`framework optimize`: as a user calls it; what is cut off goes on as if it had not been."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from framework.cli.main import main
from framework.gbc.execution.loading import load_models
from framework.gbc.graph.spec import load_graph
from framework.gbc.language_models.local import LocalModel
from framework.gbc.prompt_search.state import load_state
from framework.testing.language_models import save_tiny_model
from framework.testing.processes.forked import start_command
from framework.testing.servers.model_server import serving

GRAPH = """
agents:
  - {name: manager, prompt: Route., model: small, reads: [user], max_new_tokens: 3}
  - {name: writer, prompt: "Write.\\nBriefly.", model: small, reads: [user, manager], max_new_tokens: 3}
"""
OWN = """
import os, time
from framework.gbc.graph.verbal_loss import VerbalLoss

def length(trace):
    while os.path.exists(os.environ.get("WAIT_FOR", "")) and trace.id == "held2":
        time.sleep(0.05)
    # Some loss that prompts change.
    return VerbalLoss(value=1 + sum(map(ord, trace.output)) % 97 / 97, text="Wrong.")
"""
CANDIDATES = {"manager": ["A.", "B."], "writer": ["C.", "D.\nE.", "F."]}
FILES = ["graph.yaml", "tasks.jsonl", "--held_out", "held.jsonl", "--models", "models.yaml"]
OPTIONS = ["optimize", *FILES, "--loss", "own_length:length"]
CHOOSE = [*OPTIONS, "--candidates", "candidates.yaml", "--options.batch_size", "2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny_model(folder)
    return folder


@pytest.fixture
def files(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("graph.yaml").write_text(GRAPH)
    Path("models.yaml").write_text(f"small: {{path: {model}}}")
    Path("candidates.yaml").write_text(json.dumps(CANDIDATES))
    Path("own_length.py").write_text(OWN)
    for name in ("tasks", "held"):
        tasks = [{"id": f"{name}{i}", "user": f"hotel {name} {i}", "expected": "north"} for i in range(3)]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    return tmp_path


def error_of(capsys, *argv: str, code: int = 2) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([*argv])
    assert stopped.value.code == code
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.slow
def test_candidates_are_tried_and_the_best_are_written(files, capsys):
    main([*CHOOSE, "--out", "whole"])
    captured = capsys.readouterr()
    state = load_state("whole/state.json")
    assert state.finished
    assert any(trial.kept for trial in state.trials)
    graph = load_graph("whole/graph.yaml")
    assert graph == load_graph("graph.yaml").with_prompts(state.prompts)
    assert captured.err.count("step ") == len(state.trials)
    assert f"held-out loss {state.loss:.4g}" in captured.out
    for trial in state.trials:
        assert f"{trial.loss:.4g}" in captured.out
    changed = [name for name, prompt in state.prompts.items() if prompt != load_graph("graph.yaml").prompts[name]]
    for name in changed:
        assert f"prompt of {name}\n" in captured.out
        assert f"+{state.prompts[name].splitlines()[0]}" in captured.out
    # Step by step, each by a command of its own, and once more than there is to do.
    for step in range(1, state.step + 2):
        main([*CHOOSE, "--out", "parts", "--options.steps", str(step)])
    assert load_state("parts/state.json") == state
    assert Path("parts/graph.yaml").read_text() == Path("whole/graph.yaml").read_text()
    assert "goes on at step 1, held-out loss" in capsys.readouterr().err


@pytest.mark.slow
def test_a_process_killed_in_mid_step_goes_on_as_if_it_had_not_been(files):
    main([*CHOOSE, "--out", "whole"])
    # Once a state is saved, it waits in the middle of trying a change, at the last of the held-out tasks.
    command = start_command(*CHOOSE, "--out", "killed", environment={"WAIT_FOR": "killed/state.json"})
    deadline = time.monotonic() + 120
    while not Path("killed/state.json").exists():
        assert command.exitcodes() == [None], command.finish().output
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(1.0)
    os.kill(command.pids[0], signal.SIGKILL)
    assert command.finish().exitcodes == [-signal.SIGKILL]
    assert load_state("killed/state.json").step == 1
    main([*CHOOSE, "--out", "killed"])
    assert Path("killed/state.json").read_bytes() == Path("whole/state.json").read_bytes()


@pytest.mark.slow
def test_a_model_on_a_server_writes_prompts(files, capsys):
    with serving() as server:
        config = f"writer: {{url: '{server.url}', model: x, retries: 0}}"
        Path("models.yaml").write_text(Path("models.yaml").read_text() + "\n" + config)
        assert "names 2 models: give --model" in error_of(capsys, *OPTIONS, "--optimizer", "opro", "--out", "opro")
        main([*OPTIONS, "--optimizer", "opro", "--model", "writer", "--out", "opro", "--options.steps", "1"])
        asked = server.seen[0][2]["messages"][1]["content"]
    assert "Current prompts:" in asked
    # The server answers in capitals, without the marks: nothing is proposed.
    assert load_state("opro/state.json").trials == ()
    # Down_length: the state of the first step is kept.
    command = [*OPTIONS, "--optimizer", "opro", "--model", "writer", "--out", "opro"]
    assert "see whether the server runs" in error_of(capsys, *command, code=1)
    assert load_state("opro/state.json").step == 1


@pytest.mark.slow
def test_soft_prompts_are_trained_and_used(files, capsys):
    command = [*OPTIONS, "--optimizer", "soft_prompt", "--soft.evaluate_every", "2", "--soft.learning_rate", "0.1"]
    main([*command, "--out", "soft", "--soft.steps", "8"])
    captured = capsys.readouterr()
    assert "training loss " in captured.out
    trained = Path("soft/soft_prompts.safetensors")
    assert trained.exists()
    assert f"put `soft_prompts: {trained}` beside 'small'" in captured.err
    for steps in ("4", "8"):
        main([*command, "--out", "parts", "--soft.steps", steps])
    assert Path("parts/soft_prompts.safetensors").read_bytes() == trained.read_bytes()
    assert "goes on at step 4" in capsys.readouterr().err
    Path("models.yaml").write_text(Path("models.yaml").read_text().replace("}", f", soft_prompts: {trained}}}"))
    model = load_models("models.yaml", load_graph("graph.yaml"))["small"]
    assert isinstance(model, LocalModel)
    assert set(model.soft) == {"manager", "writer"}
    words = "task 'tasks0' has no text 'right' to train for: give --target"
    assert words in error_of(capsys, *command, "--out", "third", "--target", "right")


@pytest.mark.slow
def test_what_cannot_be_optimized(files, capsys):
    assert "no candidates: give --candidates" in error_of(capsys, *OPTIONS, "--out", "a")
    assert "opros" in error_of(capsys, *OPTIONS, "--out", "a", "--optimizer", "opros")
    Path("candidates.yaml").write_text("nobody: [x]")
    assert "candidates for nobody, which the graph does not have" in error_of(capsys, *CHOOSE, "--out", "a")
    Path("candidates.yaml").write_text("manager: [x]")
    main([*CHOOSE, "--out", "b"])
    Path("held.jsonl").write_text('{"user": "x"}')
    assert "b is an optimization with another held_out: use another --out" in error_of(capsys, *CHOOSE, "--out", "b")


def test_what_fails_and_what_is_dropped_is_told(files, capsys):
    tasks = [{"id": f"t{i}", "user": "hotel"} for i in range(2)] + [{"id": "bad"}]
    Path("held.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    Path("candidates.yaml").write_text(json.dumps({"manager": ["A."], "writer": ["C."]}))
    main([*CHOOSE, "--out", "some"])
    told = capsys.readouterr().err
    assert told.count("1 of 3 held-out tasks failed:") == 1
    assert "1 x task 'bad' has no text 'user'" in told
    state = load_state("some/state.json")
    for trial in state.trials:
        assert ("kept" if trial.kept else f"dropped: not below {trial.loss_before:.4g}") in told
    for name in ("tasks", "held"):
        Path(f"{name}.jsonl").write_text(json.dumps({"id": "bad"}))
    line = error_of(capsys, *CHOOSE, "--out", "none", code=1)
    assert "every task failed, with every prompt that was tried; the first: task 'bad' has no text 'user'" in line
