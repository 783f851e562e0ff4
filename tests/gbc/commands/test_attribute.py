"""`framework attribute`: as a user calls it, on traces of a tiny random model."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from framework.cli.main import main
from framework.core.errors import ConfigError
from framework.core.serialization import from_json
from framework.gbc.attribution.results import Attribution
from framework.gbc.commands import agents
from framework.gbc.commands import attribute as commands
from framework.gbc.commands.attribute import attribute
from framework.gbc.graph.spec import Graph
from framework.gbc.language_models.interface import LanguageModel
from framework.testing.language_models import save_tiny_model

GRAPH = """
agents:
  - {name: manager, prompt: Route., model: small, reads: [user], max_new_tokens: 4}
  - {name: writer, prompt: Write., model: small, reads: [user, manager], max_new_tokens: 4}
"""
OWN = """
from framework.gbc.graph.verbal_loss import VerbalLoss

def by_id(trace):
    return VerbalLoss(value=float(trace.id), text="of " + trace.id)
"""
TASKS = [{"id": str(number), "user": f"hotel {number}"} for number in range(4)]
OPTIONS = "--graph graph.yaml --models models.yaml --loss own_by_id:by_id --out blame"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a graph, models and traces: the first without a loss, and one more that failed."""
    folder = tmp_path_factory.mktemp("made")
    save_tiny_model(folder / "tiny")
    (folder / "graph.yaml").write_text(GRAPH)
    (folder / "models.yaml").write_text(f"small: {{path: {folder}/tiny}}")
    tasks = [*TASKS, {"id": "long", "user": "x " * 600}]
    (folder / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    agents.run(
        f"{folder}/graph.yaml",
        f"{folder}/tasks.jsonl",
        models=f"{folder}/models.yaml",
        out=f"{folder}/traces.jsonl",
    )
    return folder


@pytest.fixture
def files(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("graph.yaml", "models.yaml", "traces.jsonl"):
        Path(name).write_bytes((made / name).read_bytes())
    Path("own_by_id.py").write_text(OWN)
    return tmp_path


def test_a_local_model_is_loaded_to_read_the_roles_of_agents_on_servers(files, monkeypatch):
    Path("graph.yaml").write_text(GRAPH.replace("prompt:", "role: routes, prompt:"))
    Path("models.yaml").write_text("small: {url: 'http://localhost:1/v1', model: x}\nreader: {path: /near}")
    asked: list[tuple[str, ...]] = []

    def load_models(models: str, graph: Graph, *others: str) -> dict[str, LanguageModel]:
        asked.append(others)
        raise ConfigError("no model", hint="none")

    monkeypatch.setattr(commands, "load_models", load_models)
    with pytest.raises(SystemExit):
        main(["attribute", "--trace", "traces.jsonl", *OPTIONS.split()])
    assert asked == [("reader",)]


@pytest.mark.slow
def test_the_blame_of_recorded_runs(files, capsys):
    main(["attribute", "--trace", "traces.jsonl", *OPTIONS.split(), "--show", "1", "--options.connections.prompts"])
    captured = capsys.readouterr()
    assert "5 traces, 0 malformed lines, 1 failed, 1 without a loss, 3 to attribute" in captured.err
    assert "task 3: loss 3, completeness gap 0" in captured.out
    assert "task 2: " not in captured.out
    assert "mean of 3 tasks: loss 2, completeness gap 0" in captured.out
    lines = Path("blame/attributions.jsonl").read_text().splitlines()
    found = [from_json(Attribution, json.loads(line)) for line in lines]
    assert [(each.id, each.loss, each.loss_text) for each in found] == [(i, float(i), f"of {i}") for i in "123"]
    for each in found:
        assert sum(agent.own for agent in each.agents) == pytest.approx(each.loss)
        assert {message.node for message in each.prompts} == {"manager", "writer"}
    page = Path("blame/blame.html").read_text()
    assert page.index("Mean of 3 tasks") < page.index("Task 3") < page.index("Task 2") < page.index("Task 1")
    assert "Task 0" not in page
    assert "<svg" in Path("blame/blame.svg").read_text()
    with Image.open("blame/blame.png") as image:
        assert image.width > image.height > 100


@pytest.mark.slow
def test_the_size_of_batches_changes_nothing(files):
    blames = []
    for size in (1, 3):
        main(["attribute", "--trace", "traces.jsonl", *OPTIONS.split(), "--batch_size", str(size)])
        blames.append(Path("blame/attributions.jsonl").read_text().splitlines())
    for left, right in zip(*blames, strict=True):
        one, other = (from_json(Attribution, json.loads(line)) for line in (left, right))
        for edge, same in zip(one.edges, other.edges, strict=True):
            assert edge.credit == pytest.approx(same.credit, rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_malformed_lines_are_named_counted_and_skipped_only_on_request(files, capsys):
    lines = Path("traces.jsonl").read_text().splitlines()
    Path("traces.jsonl").write_text("\n".join([lines[0], "{", lines[1], '{"format": 1}', lines[2]]))
    with pytest.raises(SystemExit) as stopped:
        main(["attribute", "--trace", "traces.jsonl", *OPTIONS.split()])
    assert stopped.value.code == 2
    assert "traces.jsonl: 2 malformed lines, the first is line 2 (not JSON" in capsys.readouterr().err
    assert not Path("blame").exists()
    main(["attribute", "--trace", "traces.jsonl", *OPTIONS.split(), "--skip_bad"])
    told = capsys.readouterr().err
    assert "traces.jsonl, line 4 is not a trace: record: no 'failure'" in told
    assert "3 traces, 2 malformed lines" in told


def test_nothing_to_blame(files, capsys):
    Path("traces.jsonl").write_text(Path("traces.jsonl").read_text().splitlines()[0])
    main(["attribute", "--trace", "traces.jsonl", *OPTIONS.split()])
    assert "nothing to blame" in capsys.readouterr().err
    assert not Path("blame").exists()


def test_what_cannot_be_attributed(files):
    options = {"graph": "graph.yaml", "models": "models.yaml", "loss": "own_by_id:by_id", "out": "blame"}
    good = Path("models.yaml").read_text()
    lines = Path("traces.jsonl").read_text().splitlines()
    changed = json.loads(lines[1])
    changed["steps"][1]["input_ids"][0] += 1
    Path("other.jsonl").write_text(json.dumps(changed))
    with pytest.raises(ConfigError, match=r"'manager' read other tokens than model 'small'.*give the models that made"):
        attribute(trace="other.jsonl", **options)
    Path("models.yaml").write_text("small: {url: 'http://localhost:1/v1', model: x}")
    with pytest.raises(ConfigError, match="'manager' declares gradient, its model 'small' gives none"):
        attribute(trace="traces.jsonl", **options)
    Path("models.yaml").write_text(good)
    Path("graph.yaml").write_text(GRAPH.replace("manager", "boss"))
    with pytest.raises(ConfigError, match="the trace has a node 'manager', the graph has none"):
        attribute(trace="traces.jsonl", **options)
    with pytest.raises(ConfigError, match="batch_size 0"):
        attribute(trace="traces.jsonl", batch_size=0, **options)
