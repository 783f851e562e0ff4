"""Blame for foreign logs as a user asks for it, with a tiny random surrogate from a folder."""

import json
from pathlib import Path

import pytest

from framework.cli.main import main
from framework.core.errors import ConfigError, DataError
from framework.core.serialization import from_json
from framework.gbc.attribution import html_report
from framework.gbc.attribution.results import Attribution
from framework.gbc.commands import attribute_logs as commands
from framework.gbc.commands.attribute_logs import attribute_logs
from framework.gbc.logs.baselines import BASELINES
from framework.gbc.logs.schema import Log, Message, Mistake, write_logs
from framework.gbc.logs.surrogate import SurrogateOptions
from framework.testing.language_models import tiny_language_model, tiny_tokenizer


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = tiny_tokenizer()
    tiny_language_model(vocabulary=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def log_of(id: str, **options) -> Log:
    messages = (
        Message(agent="planner", content="Look in the [north]."),
        Message(agent="web surfer", content="The old mill <b>is</b> there."),
        Message(agent="planner", content="FINAL: the old mill"),
    )
    return Log(id=id, task="Find a hotel", messages=messages, **options)


@pytest.mark.slow
def test_tables_page_and_numbers(tmp_path, surrogate, capsys):
    label = Mistake(agent="Web_Surfer", step=1, reason="a wrong page")
    logs = [
        log_of("1", mistake=label, answer="the old mill", expected="a tent"),
        log_of("2"),
        log_of("3", correct=True),
    ]
    write_logs(tmp_path / "logs.jsonl", logs)
    out = tmp_path / "blame"
    attribute_logs(trace=str(tmp_path / "logs.jsonl"), model=surrogate, out=str(out), show=1)
    captured = capsys.readouterr()
    assert "3 logs, 0 malformed, 2 of failed runs" in captured.err
    assert "2 logs, read by the surrogate tiny, not by the models that wrote them" in captured.err
    for table in ("task 1: loss 1", "most blamed", "accuracy over the logs with labels"):
        assert table in captured.out
    assert "task 2" not in captured.out
    page = (out / "blame.html").read_text()
    assert "Blame of 2 logs, read by the surrogate tiny" in page
    assert "A surrogate read this log" in page
    assert "<b>is</b>" not in page
    found = [from_json(Attribution, json.loads(line)) for line in (out / "attributions.jsonl").read_text().splitlines()]
    for each in found:
        assert sum(agent.own for agent in each.agents) == pytest.approx(1.0)
    summary = json.loads((out / "summary.json").read_text())
    assert [each["label"] is None for each in summary["logs"]] == [False, True]
    assert set(summary["accuracy"]) == {"own", "through", "walk", "untrained", *BASELINES}
    # The tolerant name is right where "web surfer" is blamed, the exact one never.
    blamed = summary["logs"][0]["blamed"]
    for method in ("own", "through", "walk"):
        row = summary["accuracy"][method]
        assert row["agent_accuracy"] == 0
        assert row["agent_accuracy_tolerant"] == (blamed[method]["agent"] == "web surfer")
        assert row["step_accuracy"] == (blamed[method]["step"] == 1)
        assert row["step_accuracy_within_1"] == 1


def test_bad_lines_and_contexts_that_are_too_short(tmp_path, surrogate, capsys):
    path = tmp_path / "logs.jsonl"
    write_logs(path, [log_of("1"), Log(id="long", task="the " * 600, messages=(Message(agent="a", content="b"),))])
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(DataError, match="1 malformed records"):
        attribute_logs(trace=str(path), model=surrogate, out=str(tmp_path / "blame"))
    attribute_logs(
        trace=str(path),
        model=surrogate,
        out=str(tmp_path / "blame"),
        skip_bad=True,
        surrogate=SurrogateOptions(max_tokens=170),
    )
    captured = capsys.readouterr()
    assert "3 is not a log" in captured.err
    assert "log 'long' is left out" in captured.err
    assert "accuracy" not in captured.out
    assert "in 1 of them its context was too short" in captured.err
    assert "Its context was too short: planner@2" in (tmp_path / "blame" / "blame.html").read_text()


@pytest.mark.slow
def test_the_other_forms_and_what_cannot_be_read(tmp_path, surrogate, capsys):
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    Path(tmp_path / "runs.jsonl").write_text(json.dumps(messages))
    options = ["--trace", str(tmp_path / "runs.jsonl"), "--model", surrogate, "--out", str(tmp_path / "a")]
    main(["attribute-logs", *options, "--form", "openai"])
    assert (tmp_path / "a" / "blame.html").is_file()
    cases = tmp_path / "cases"
    cases.mkdir()
    case = {"question": "q", "history": [{"role": "a", "content": "b"}], "mistake_agent": "a", "mistake_step": 0}
    (cases / "1.json").write_text(json.dumps(case))
    attribute_logs(trace=str(cases), model=surrogate, out=str(tmp_path / "b"), form="who_when")
    accuracy = json.loads((tmp_path / "b" / "summary.json").read_text())["accuracy"]
    assert accuracy["own"]["agent_accuracy"] == accuracy["chance"]["step_accuracy"] == 1
    write_logs(tmp_path / "right.jsonl", [log_of("1", correct=True)])
    attribute_logs(trace=str(tmp_path / "right.jsonl"), model="nowhere", out=str(tmp_path / "c"))
    assert "nothing to blame" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="is not a folder"):
        attribute_logs(trace=str(cases), model="nowhere", out=str(tmp_path / "c"), form="who_when")


@pytest.mark.slow
def test_what_is_cut_off_goes_on_and_equals_a_whole_run(tmp_path, surrogate, capsys, monkeypatch):
    path = tmp_path / "logs.jsonl"
    write_logs(path, [log_of("a"), log_of("b"), log_of("c")])

    def call(out: str, **options) -> None:
        attribute_logs(trace=str(path), model=surrogate, out=str(tmp_path / out), show=0, **options)

    call("whole")
    capsys.readouterr()
    asked: list[str] = []
    real = commands.attribute

    def counted(traces, *others):
        asked.append(traces[0].id)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(traces, *others)

    monkeypatch.setattr(commands, "attribute", counted)
    with pytest.raises(KeyboardInterrupt):
        call("parts")
    # What is done is there, and half a line of what a killed process was writing.
    lines = tmp_path / "parts" / "attributions.jsonl"
    assert [json.loads(line)["id"] for line in lines.read_text().splitlines()] == ["a"]
    with lines.open("a") as stream:
        stream.write('{"id": "b", "lo')
    call("parts", resume=True)
    assert asked == ["a", "b", "b", "c"]
    told = capsys.readouterr().err
    assert "1 of 3: log 'a', most blamed " in told
    for name in ("attributions.jsonl", "summary.json", "settings.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    # A log that has changed is attributed again, whatever its id.
    write_logs(path, [log_of("a"), log_of("b", correct=None), Log(id="c", messages=(Message(agent="x", content="y"),))])
    call("parts", resume=True, limit=3)
    assert asked[4:] == ["c"]
    with pytest.raises(ConfigError, match=r"parts was begun with another surrogate: leave out --resume"):
        call("parts", resume=True, surrogate=SurrogateOptions(max_tokens=170))
    call("few", limit=1)
    assert asked[5:] == ["a"]
    assert "1 of 1: log 'a'" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="limit 0"):
        call("few", limit=0)


def test_a_page_shows_as_many_logs_as_it_has_room_for(tmp_path, surrogate, monkeypatch):
    monkeypatch.setattr(html_report, "MOST_BYTES", 1)
    write_logs(tmp_path / "logs.jsonl", [log_of("a"), log_of("b")])
    attribute_logs(trace=str(tmp_path / "logs.jsonl"), model=surrogate, out=str(tmp_path / "blame"), show=0)
    page = (tmp_path / "blame" / "blame.html").read_text()
    assert "Blame of 2 logs, " in page
    assert "Shown are the first 1 of 2." in page
    assert page.count("A surrogate read this log") == 1
