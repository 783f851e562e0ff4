"""The tools and their corrupted versions."""

from framework.gbc.environments.realworld import tools


def test_each_tool_and_its_corrupted_version():
    assert tools.calculate({"clerk": " 3 * 5"}) == "15"
    assert tools.calculate({"clerk": " 3 + 5"}) == "8"
    assert tools.calculate({"clerk": "three"}) == tools.calculate_one_too_many({"clerk": ""}) == "error"
    assert tools.calculate_one_too_many({"clerk": "7 - 2"}) == "6"
    assert tools.find_place({"hotel": " north"}) == "Acorn House"
    assert tools.find_next_place({"hotel": " north"}) == "Lovell Lodge"
    assert tools.find_place({"hotel": " N"}) == tools.find_next_place({}) == "nothing"
    assert tools.sort_list({"lister": " pears, apples , figs"}) == "apples, figs, pears"
    assert tools.sort_backwards({"lister": "pears, apples, figs"}) == "pears, figs, apples"
