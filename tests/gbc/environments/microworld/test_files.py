"""The example's files: what the ordinary commands read."""

import pytest

from framework.core.errors import ConfigError
from framework.gbc.environments.microworld.files import LOSS, PROMPT_FAULTS, write_example
from framework.gbc.environments.microworld.tasks import answer_loss
from framework.gbc.environments.prompt_repair import success_of
from framework.gbc.execution.loading import load_candidates, load_loss, load_models, load_tasks
from framework.gbc.graph.spec import load_graph


@pytest.mark.slow
@pytest.mark.parametrize("kind", PROMPT_FAULTS)
def test_a_fault_that_costs_half_of_what_was_solved(tmp_path, kind):
    fault = write_example(tmp_path, kind=kind, num_tasks=2, num_wrong=1, num_workers=3)
    healthy, faulty = load_graph(tmp_path / "graph.yaml"), load_graph(tmp_path / "faulty.yaml")
    # Found again from the files: nothing else differs.
    changed = [name for name, prompt in healthy.prompts.items() if faulty.prompts[name] != prompt]
    assert changed == [fault.culprit]
    assert faulty == fault.graph == healthy.with_prompts(faulty.prompts)
    models = load_models(tmp_path / "models.yaml", healthy)
    held_out = load_tasks(tmp_path / "held_out.jsonl")
    solved, left = (success_of(graph, models, held_out, answer_loss) for graph in (healthy, faulty))
    assert solved - left >= 0.5
    assert {task["id"] for task in held_out}.isdisjoint(task["id"] for task in load_tasks(tmp_path / "tasks.jsonl"))
    candidates = load_candidates(tmp_path / "candidates.yaml")
    assert all(healthy.prompts[name] in prompts and len(prompts) == 2 for name, prompts in candidates.items())
    load_loss(LOSS)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files(tmp_path):
    for name in ("one", "two"):
        write_example(tmp_path / name, kind="drop", num_tasks=2, seed=4)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "tool"}, "fault 'tool', num_tasks 16: use a fault of drop, swap, format, route"),
        ({"kind": "drop", "num_tasks": 0}, "num_tasks 0"),
        ({"kind": "drop", "num_wrong": 6}, "num_wrong 6: use 0 to 5"),
        ({"kind": "drop", "num_workers": 2}, "2 workers: use 3 to 5"),
    ],
)
def test_what_cannot_be_written(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        write_example(tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()
