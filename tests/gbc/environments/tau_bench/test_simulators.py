"""Users: a script, and a model that plays the instruction."""

import pytest

from framework.core.errors import DataError
from framework.gbc.environments.tau_bench.interface import STOP
from framework.gbc.environments.tau_bench.simulators import ModelUser, ScriptedUser


def test_a_script_and_its_end():
    user = ScriptedUser(["a", "b"])
    assert [user.reset("any"), user.step("x"), user.step("x"), user.step("x")] == ["a", "b", STOP, STOP]
    assert user.reset() == "a"
    assert ScriptedUser().reset() == "Hello."


def test_a_model_reads_its_instruction_and_all_that_was_said(lines):
    model = lines("I want a {refund}. ", f"{STOP}", "Again.")
    user = ModelUser(model, max_new_tokens=9)
    assert user.reset("You want {money}.") == "I want a {refund}."
    assert user.step("Which order?") == STOP
    first, second = model.asked
    assert "You want {money}." in first.prompt
    assert STOP in first.prompt
    assert second.message == ("agent: Hello. How can I help you?\nyou: I want a {refund}.\nagent: Which order?\nyou:")
    assert (second.max_new_tokens, first.seed == second.seed) == (9, False)
    # Another conversation begins anew.
    user.reset("You want {money}.")
    assert model.asked[2] == first


def test_a_user_that_says_nothing(lines):
    with pytest.raises(DataError, match="user says nothing"):
        ModelUser(lines(" \n")).reset("x")
