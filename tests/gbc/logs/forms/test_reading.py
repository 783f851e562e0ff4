"""Any form from a file or a folder: what it is taken for, and what is refused."""

import json
import sys
from contextlib import nullcontext

import pytest

from framework.core.errors import ConfigError, DataError
from framework.gbc.logs.forms.reading import FORMS, read_form
from framework.gbc.logs.schema import Log, Message, ToolCall, write_logs
from tests.gbc.logs.forms import (
    test_anthropic,
    test_autogen,
    test_crewai,
    test_langchain,
    test_openai,
    test_opentelemetry,
    test_responses,
    test_tau_bench,
    test_who_when,
)

SAMPLES = {
    "who_when": test_who_when.CHAT,
    "opentelemetry": test_opentelemetry.otlp(
        test_opentelemetry.span(
            "2", "", 2, test_opentelemetry.chat([test_opentelemetry.ASKED], test_opentelemetry.WRITTEN)
        )
    ),
    "tau2_bench": test_tau_bench.SIMULATION,
    "tau_bench": test_tau_bench.EPISODE,
    "crewai": test_crewai.OUTPUT,
    "autogen": test_autogen.EVENTS,
    "langchain": test_langchain.DUMPED,
    "responses": test_responses.ITEMS,
    "anthropic": test_anthropic.REQUEST,
    "autogen_0.2": test_autogen.GROUP,
    "openai": test_openai.SINGLE,
}


@pytest.mark.parametrize("form", SAMPLES)
def test_every_form_is_seen_and_goes_there_and_back(tmp_path, form):
    path = tmp_path / "logs.json"
    # Over several lines, as a person would save it.
    path.write_text(json.dumps(SAMPLES[form], indent=2))
    found = read_form(path)
    assert found.form == form
    # In our own schema nothing is lost.
    write_logs(tmp_path / "ours.jsonl", found.logs)
    again = read_form(tmp_path / "ours.jsonl")
    assert (again.form, again.logs) == ("log", found.logs)
    # What is seen is what is read when it is named.
    assert read_form(path, form) == found


def test_no_form_takes_the_samples_of_another():
    for form, sample in SAMPLES.items():
        taken = [name for name, other in FORMS.items() if other.matches(sample)]
        assert taken[0] == form
        assert set(taken) - {form} <= {"openai", "autogen_0.2"}, taken


def test_lines_lists_and_folders(tmp_path):
    chat = test_openai.SINGLE
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "2.json").write_text(json.dumps({"messages": chat}))
    (tmp_path / "a" / "10.jsonl").write_text(f"{json.dumps(chat)}\n{json.dumps(chat)}\n")
    assert [log.id for log in read_form(tmp_path / "a").logs] == ["2", "10-1", "10-2"]
    (tmp_path / "list.json").write_text(json.dumps([{"messages": chat}, {"messages": chat, "id": "b"}]))
    assert [log.id for log in read_form(tmp_path / "list.json").logs] == ["1", "b"]
    (tmp_path / "one.json").write_text(json.dumps(chat))
    assert [log.id for log in read_form(tmp_path / "one.json").logs] == ["one"]


def test_what_is_wrong_is_named_with_the_way_out(tmp_path):
    with pytest.raises(ConfigError, match="form 'xml': use one of auto, log, who_when"):
        read_form(tmp_path, "xml")
    path = tmp_path / "runs.jsonl"
    path.write_text('{"spans": 3, "more": 4}')
    with pytest.raises(DataError, match="its first record is of no known form \\(an object with spans, more\\)"):
        read_form(path)
    path.write_text("")
    with pytest.raises(DataError, match="has no record: it is empty"):
        read_form(path)
    path.write_text("{'a': 1}")
    with pytest.raises(DataError, match="has no record: 1 \\(not JSON"):
        read_form(path)
    lines = [json.dumps(test_openai.SINGLE), "{}", "nothing", json.dumps({"messages": test_openai.SINGLE, "id": "1"})]
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"3 malformed records, the first is 2 \(messages is not a list of objects"):
        read_form(path)
    found = read_form(path, skip_bad=True)
    assert [(each.number, each.problem[:18]) for each in found.bad] == [
        (2, "messages is not a "),
        (3, "not JSON (Expectin"),
        (4, "a second log '1': "),
    ]
    assert len(found.logs) == 1


def test_names_of_agents_only_where_they_mean_something(tmp_path):
    messages = (Message(agent="a", content="b", tool_calls=(ToolCall(name="t"),)),)
    write_logs(tmp_path / "ours.jsonl", [Log(id="1", messages=messages)])
    with pytest.raises(DataError, match="leave out --agents"):
        read_form(tmp_path / "ours.jsonl", agents=["a"])


def test_a_name_that_nobody_has_is_an_error(tmp_path):
    speakers = [("user", None), ("user", "planner"), ("user", "coder")]
    messages = [{"role": role, "content": "x", **({"name": name} if name else {})} for role, name in speakers]
    (tmp_path / "log.json").write_text(json.dumps(messages))
    with pytest.raises(ConfigError, match="nobody is called 'codr' in these logs: those who speak are coder, planner"):
        read_form(tmp_path / "log.json", agents=["planner", "codr"])
    (log,) = read_form(tmp_path / "log.json", agents=["planner", "coder"]).logs
    assert [each.role for each in log.messages] == ["user", "agent", "agent"]


@pytest.mark.parametrize(
    "record",
    [
        [{"role": "user", "content": [{"type": ["text"]}]}, {"role": "assistant", "content": "b"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": {}, "thinking": "b"}]}],
        [{"task_name": "a", "task": ["b"], "agent": "c", "status": "completed", "output": "d"}] * 2,
        [{"type": f"function_call{end}", "call_id": ["c"], "name": "transfer_to_b"} for end in ("", "_output")],
        {"object": "response", "id": ["r"], "output": [{"type": "unknown_call_output"}]},
        {"messages": [{"agent": "a", "content": ["b"]}]},
    ],
)
def test_a_list_where_a_name_belongs_is_a_malformed_record(tmp_path, record: object):
    (tmp_path / "a.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match="1 malformed records, the first is 1"):
        read_form(tmp_path / "a.json")


@pytest.mark.parametrize("depth", [900, 100_000])
def test_what_is_nested_deeper_than_anybody_writes_is_a_malformed_record(tmp_path, depth: int):
    call = {"type": "web_search_call", "id": "w", "action": "DEEP"}
    text = json.dumps([{"role": "user", "content": "a"}, call]).replace('"DEEP"', "[" * depth + "]" * depth)
    (tmp_path / "a.json").write_text(text)
    # From Python 3.12 on what is written in C may go deeper than that: it is read.
    is_read = depth == 900 and sys.version_info >= (3, 12)
    with nullcontext() if is_read else pytest.raises(DataError, match="nested too deeply"):
        read_form(tmp_path / "a.json")
