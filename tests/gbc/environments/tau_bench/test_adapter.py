"""The adapter: both parts of the reward, what changed, what raised; on the real package where it is installed."""

import sys

import pytest

from framework.core.errors import ConfigError
from framework.gbc.environments.tau_bench.adapter import load_tau_bench
from framework.gbc.environments.tau_bench.interface import RESPOND, Action, Heard, TauReward, replay
from framework.gbc.environments.tau_bench.simulators import ScriptedUser


def say(text: str) -> Action:
    return Action(name=RESPOND, arguments={"content": text})


def call(name: str, **arguments: str) -> Action:
    return Action(name=name, arguments=arguments)


def test_a_tasks_own_actions_give_the_whole_reward(shop):
    assert len(shop) == 2
    assert replay(shop, 0, ScriptedUser()) == TauReward(value=1.0, database=True, outputs={})
    assert replay(shop, 1, ScriptedUser()) == TauReward(value=1.0, database=True, outputs={"1200": True, "two": True})


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ([call("cancel_order", order_id="2"), say("1,200 for two")], (1.0, True, [True, True])),
        ([call("cancel_order", order_id="2"), say("1200")], (0.0, True, [True, False])),
        # The package tells of outputs alone, and not that the database was wrong too.
        ([call("cancel_order", order_id="1"), say("1200")], (0.0, False, [True, False])),
        ([call("cancel_order", order_id="1"), say("1200 two")], (0.0, False, [True, True])),
        ([call("cancel_order", order_id="2"), call("hand_over")], (0.0, True, [False, False])),
    ],
)
def test_both_parts_of_the_reward(shop, actions, expected):
    reward = replay(shop, 1, ScriptedUser(), actions)
    assert (reward.value, reward.database, list(reward.outputs.values())) == expected


def test_what_changed_and_what_raised(shop):
    assert shop.start(0, ScriptedUser(["Hi.", "Bye."])) == Heard(text="Hi.")
    seen = [shop.act(call(name, order_id=order)) for name, order in (("get_order", "1"), ("cancel_order", "1"))]
    assert [(each.text, each.changed, each.raised) for each in seen] == [
        ("pending", False, None),
        ("cancelled", True, None),
    ]
    refused, raised = shop.act(call("cancel_order", order_id="3")), shop.act(call("get_order", order_id="9"))
    assert (refused.text, refused.raised) == ("Error: not pending", None)
    assert (raised.text, raised.raised) == ("Error: '9'", "KeyError ('9')")
    assert shop.act(say("Done.")).text == "Bye."
    assert shop.act(say("Bye.")).done
    assert shop.reward() == TauReward(value=1.0, database=True, outputs={})


def test_an_episode_that_is_not_done_gets_nothing(shop):
    shop.start(0, ScriptedUser())
    shop.act(call("cancel_order", order_id="1"))
    assert shop.reward() == TauReward(value=0.0, database=True, outputs={})


def test_no_such_task_or_split(shop):
    with pytest.raises(ConfigError, match="task 2 of shop/test: use 0 to 1"):
        shop.start(2, ScriptedUser())
    with pytest.raises(ConfigError, match="airline has no split 'train'"):
        load_tau_bench("airline", "train")


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tau_bench", None)
    with pytest.raises(ConfigError, match=r"tau-bench cannot be imported .*pip install git\+https"):
        load_tau_bench("retail")


@pytest.mark.parametrize("domain", ["retail", "airline"])
def test_the_real_package(domain):
    pytest.importorskip("tau_bench.envs")
    bench = load_tau_bench(domain)
    # In both domains task 2 has outputs; the database is read anew for every replay, which takes seconds.
    right = replay(bench, 2, ScriptedUser())
    assert (right.value, right.database) == (1.0, True)
    assert right.outputs
    assert all(right.outputs.values())
    wrong = replay(bench, 2, ScriptedUser(), [Action(name=RESPOND, arguments={"content": "no"})])
    assert (wrong.value, any(wrong.outputs.values())) == (0.0, False)
