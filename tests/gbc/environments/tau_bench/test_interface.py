"""What both benchmarks share: a task's own actions, done again."""

from framework.gbc.environments.tau_bench.interface import TauReward, User, UserWithTools, replay
from framework.gbc.environments.tau_bench.simulators import ModelUser, ScriptedUser


def test_a_tasks_own_actions_give_the_whole_reward(house):
    assert replay(house, 0, ScriptedUser()) == TauReward(
        value=1.0, database=True, outputs={"42": True}, actions=True, basis=("database", "outputs")
    )
    assert replay(house, 1, ScriptedUser()) == TauReward(
        value=1.0,
        database=True,
        assertions={"look({}) is the light is green": True},
        actions=True,
        basis=("assertions", "actions"),
    )


def test_both_simulators_can_call_tools(lines):
    for user in (ScriptedUser(), ModelUser(lines())):
        assert isinstance(user, User)
        assert isinstance(user, UserWithTools)
