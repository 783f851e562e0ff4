"""`framework agents`: as a user calls it, on a tiny random model and a small server."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from framework.cli.main import main
from framework.core.errors import ConfigError, DataError, TrainingError
from framework.gbc.commands import agents
from framework.gbc.execution.runner import RunOptions
from framework.gbc.graph.trace import read_traces
from framework.gbc.language_models.server import ServerError
from framework.testing.language_models import save_tiny_model
from framework.testing.servers.model_server import serving

GRAPH = """
agents:
  - {name: manager, prompt: Route., model: small, reads: [user], max_new_tokens: 4}
  - {name: writer, prompt: Write., model: small, reads: [user, manager], max_new_tokens: 4}
"""
SERVER_GRAPH = """
agents: [{name: writer, prompt: Write., model: big, reads: [user], estimator: leave_one_out}]
"""
TASKS = [{"id": name, "user": f"hotel {name}", "expected": f"USER: HOTEL {name.upper()}"} for name in "abcd"]


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
    write_tasks(TASKS)
    return tmp_path


def write_tasks(tasks: list[dict[str, Any]]) -> None:
    Path("tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))


def run(**options: Any) -> None:
    settings: dict[str, Any] = {"models": "models.yaml", "out": "traces.jsonl", **options}
    agents.run("graph.yaml", "tasks.jsonl", **settings)


@pytest.mark.slow
def test_a_run_by_the_command(files, capsys):
    command = ["agents", "run", "graph.yaml", "tasks.jsonl", "--models", "models.yaml", "--out", "new/traces.jsonl"]
    main([*command, "--loss", "exact_match", "--options.tasks_at_once", "3"])
    told = capsys.readouterr().err
    assert "new/traces.jsonl: 4 of 4 tasks finished, 0 failed" in told
    assert "mean loss of the finished: 1" in told
    traces, bad = read_traces("new/traces.jsonl")
    assert not bad
    assert [trace.task for trace in traces] == TASKS
    assert [[step.name for step in trace.steps] for trace in traces] == [["user", "manager", "writer"]] * 4
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 2
    assert "new/traces.jsonl exists: give --resume" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on_and_equals_a_whole_one(files, capsys):
    run(options=RunOptions(tasks_at_once=2))
    whole = Path("traces.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    # Killed while it wrote the third trace.
    Path("traces.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:50])
    run(resume=True)
    assert Path("traces.jsonl").read_bytes() == whole
    # Nothing is left to do: no model is loaded.
    Path("models.yaml").write_text("small: {path: /nowhere}")
    run(resume=True)
    assert Path("traces.jsonl").read_bytes() == whole


def test_failures_are_told_by_their_reasons_and_tried_again(files, capsys):
    Path("own_none.py").write_text(
        "from framework.gbc.graph.verbal_loss import *\nnone = lambda trace: VerbalLoss(value=0.0, text='')\n"
    )
    long = {"id": "long", "user": "x " * 600}
    write_tasks([*TASKS[:2], long, {"id": "longer", "user": "x " * 700}, {"id": "empty"}])
    run(loss="own_none:none")
    told = capsys.readouterr().err
    assert "2 of 5 tasks finished, 3 failed" in told
    assert "2 x 'manager': " in told
    assert "the context of the model holds 512" in told
    assert "1 x task 'empty' has no text 'user'" in told
    assert "mean loss of the finished: 0\n" in told
    run(resume=True)
    traces, _ = read_traces("traces.jsonl")
    assert [trace.id for trace in traces] == ["a", "b", "long", "longer", "empty"]


def test_a_run_of_which_nothing_finishes_is_no_success(files, capsys):
    write_tasks([{"id": "empty"}, {"id": "neither"}])
    with pytest.raises(TrainingError, match="every task failed; the first: task 'empty' has no text 'user'"):
        run()
    assert "0 of 2 tasks finished, 2 failed" in capsys.readouterr().err
    assert [trace.id for trace in read_traces("traces.jsonl")[0]] == ["empty", "neither"]


@pytest.mark.slow
def test_what_is_no_run_of_these_tasks_is_not_gone_on_with(files):
    run()
    write_tasks([*TASKS[:3], {**TASKS[3], "user": "another"}])
    with pytest.raises(ConfigError, match=r"is of other tasks \('d'\)"):
        run(resume=True)
    write_tasks(TASKS)
    Path("graph.yaml").write_text(GRAPH.replace("Write.", "Write well."))
    with pytest.raises(ConfigError, match=r"is of another graph \('writer' differs\)"):
        run(resume=True)
    Path("graph.yaml").write_text(GRAPH)
    lines = Path("traces.jsonl").read_text().splitlines(keepends=True)
    Path("traces.jsonl").write_text("".join([*lines[:1], "{\n", *lines[1:]]))
    with pytest.raises(DataError, match=r"line 2 is not a trace \(not JSON"):
        run(resume=True)


@pytest.mark.slow
def test_a_server_that_dies_keeps_what_is_finished(files, capsys):
    Path("graph.yaml").write_text(SERVER_GRAPH)
    settings = "model: big, retries: 0, parallel: 1, timeout_s: 5"
    with serving("well", "well", "well", 500) as server:
        Path("models.yaml").write_text(f"big: {{url: '{server.url}', {settings}}}")
        with pytest.raises(ServerError, match="state 500"):
            run(options=RunOptions(tasks_at_once=2))
    told = capsys.readouterr().err
    assert "3 of 4 tasks finished, 1 failed" in told
    assert "failed 1 times, at last: state 500" in told
    # Down_none: an error by the command, and nothing is lost.
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "agents",
                "run",
                "graph.yaml",
                "tasks.jsonl",
                "--models",
                "models.yaml",
                "--out",
                "traces.jsonl",
                "--resume",
            ]
        )
    assert stopped.value.code == 1
    assert "see whether the server runs" in capsys.readouterr().err
    with serving() as server:
        Path("models.yaml").write_text(f"big: {{url: '{server.url}', {settings}}}")
        run(resume=True, loss="exact_match")
        assert len(server.seen) == 1
    assert "4 of 4 tasks finished, 0 failed\nmean loss of the finished: 0\n" in capsys.readouterr().err


@pytest.mark.slow
def test_a_slow_server_is_waited_for_and_tried_again(files, capsys):
    Path("graph.yaml").write_text(SERVER_GRAPH)
    write_tasks(TASKS[:1])
    with serving("slow") as server:
        Path("models.yaml").write_text(f"big: {{url: '{server.url}', model: big, timeout_s: 0.3, backoff_s: 0.01}}")
        run(loss="exact_match")
    assert "mean loss of the finished: 0\n" in capsys.readouterr().err


def test_a_check_shows_steps_and_connections(files, capsys, monkeypatch):
    # Narrower, words would be broken over lines.
    monkeypatch.setenv("COLUMNS", "160")
    Path("graph.yaml").write_text(
        """
tools: [{name: lookup, reads: [draft], function: json.dumps, estimator: leave_one_out}]
agents:
  - {name: draft, prompt: Draft., model: small, reads: [user, review]}
  - {name: review, prompt: Review., model: small, reads: [draft], max_new_tokens: 7}
  - {name: end, prompt: End., model: small, reads: [lookup], when: {source: review, pattern: good}}
loops: [{body: [draft, review], times: 2, until: {source: review, pattern: good}}]
"""
    )
    main(["agents", "check", "graph.yaml"])
    text = " ".join(capsys.readouterr().out.split())
    for words in ("draft@2", "review@1 has no /good/", "review@2 or review@1 has /good/", "leave_one_out"):
        assert words in text
    assert "7 steps in 6 levels" in text
    assert "output: end" in text


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        ("agents: [{name: a, prompt: '', model: m, reads: [a]}]\noutputs: [a]", "a cycle without a bound: a"),
        ("agents: [{name: a, prompt: '', model: m, reads: [nobody]}]", "'a' reads 'nobody', which is missing"),
        ("agents: [{name: a, promt: '', model: m, reads: [user]}]", "promt"),
        ("agents: [", "graph.yaml cannot be read"),
    ],
)
def test_a_graph_that_cannot_run_is_one_line(files, capsys, graph, words):
    Path("graph.yaml").write_text(graph)
    for command in ("agents check graph.yaml", "agents run graph.yaml tasks.jsonl --models models.yaml --out t.jsonl"):
        with pytest.raises(SystemExit) as stopped:
            main(command.split())
        assert stopped.value.code == 2
        told = capsys.readouterr().err
        assert words in told
        assert len(told.strip().splitlines()) == 1
    assert not Path("t.jsonl").exists()


def test_a_model_without_a_chat_template(files, tmp_path):
    save_tiny_model(tmp_path / "plain", template=None)
    Path("models.yaml").write_text(f"small: {{path: {tmp_path}/plain}}")
    with pytest.raises(ConfigError, match=r"has no chat template.*set plain_format"):
        run()
    Path("models.yaml").write_text(f'small: {{path: {tmp_path}/plain, plain_format: "{{prompt}}\\n{{message}}\\n"}}')
    run()
    traces, _ = read_traces("traces.jsonl")
    assert traces[0].step("manager").input_text == "Route.\nuser: hotel a\n"
