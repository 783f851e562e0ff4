"""The state of an optimization: its file, and which trials need not be repeated."""

import pytest

from framework.core.errors import CheckpointError
from framework.gbc.prompt_search.state import OptimizerState, Trial, load_state, save_state


def test_trials_since_prompts_last_changed():
    trials = tuple(Trial(step=i, changes={"a": str(i)}, loss=0.5, kept=i == 1) for i in range(4))
    state = OptimizerState(seed=0, step=4, prompts={}, loss=0.5, evaluations=5, runs=8, trials=trials)
    assert state.since_kept() == trials[2:]
    never = OptimizerState(seed=0, step=1, prompts={}, loss=0.5, evaluations=2, runs=4, trials=trials[:1])
    assert never.since_kept() == trials[:1]


def test_states_that_cannot_be_used(tmp_path):
    path = tmp_path / "state.json"
    with pytest.raises(CheckpointError, match="no state"):
        load_state(path)
    state = OptimizerState(
        seed=1,
        step=1,
        prompts={"a": "é"},
        loss=0.5,
        evaluations=2,
        runs=4,
        trials=(Trial(step=0, changes={"a": "b"}, loss=0.5, kept=False),),
    )
    save_state(path, state)
    assert load_state(path) == state
    path.write_text('{"format": 1, "seed": "x"}')
    with pytest.raises(CheckpointError, match="no state"):
        load_state(path)


def test_a_state_that_an_older_version_wrote(tmp_path):
    path = tmp_path / "state.json"
    state = OptimizerState(
        seed=1,
        step=1,
        prompts={"a": "b"},
        loss=0.5,
        evaluations=2,
        runs=4,
        trials=(Trial(step=0, changes={"a": "c"}, loss=0.6, kept=False),),
    )
    save_state(path, state)
    assert "loss_before" not in path.read_text()
    assert load_state(path) == state
