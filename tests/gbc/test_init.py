"""Ten lines of Python with the short import paths, from functions to a table in a notebook."""

import subprocess
import sys

import pytest

import framework.gbc as gbc
from framework.gbc import Attributions, CallableModel, agent, attribute, exact_match, graph_of, run_graph


def test_ten_lines():
    @agent(model="any", estimator="leave_one_out")
    def writer(user: str, hotels: str):
        """Write the answer."""
        return f"Wanted: {user}\nFound: {hotels}"

    def hotels(user: str) -> str:
        return "Acorn" if "cheap" in user else "Alexander"

    graph = graph_of(writer, hotels)
    models = {"any": CallableModel(lambda prompt, message: message.rpartition(" ")[2])}
    traces = list(run_graph(graph, models, [{"user": "a cheap hotel", "expected": "Alexander"}], progress=True))
    assert traces[0].output == "Acorn"
    blame = attribute(traces, graph, models, [exact_match(trace) for trace in traces], progress=True)
    assert isinstance(blame, Attributions)
    assert repr(blame).startswith("[Attribution(task 0, loss 1, most own credit: ")
    page = blame._repr_html_()
    assert "<b>Task 0</b>: loss 1" in page
    assert "more, with less loss" not in page
    assert blame[0]._repr_html_() == page
    assert "6 more, with less loss" in Attributions(blame * 11)._repr_html_()


@pytest.mark.parametrize("name", gbc._HOME)
def test_every_name_is_found_where_it_is_said_to_be(name):
    found = getattr(gbc, name)
    assert found.__module__ == gbc._HOME[name]
    assert name in dir(gbc)


def test_an_unknown_name():
    with pytest.raises(AttributeError, match=r"'framework\.gbc' has no attribute 'blame'"):
        gbc.blame  # noqa: B018


def test_the_package_loads_no_torch():
    code = "import sys, framework.gbc; from framework.gbc import graph_of; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
