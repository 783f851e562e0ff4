"""What a report shows of agents: one chart a kind, the blame, tried prompts; only where there is something of it."""

import math
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from framework.cli.report import write_report
from framework.gbc.tracking.episode_records import BlameOfStep, CreditedText, Episode, write_blame
from framework.gbc.tracking.prompt_history import TriedPrompt, note_prompts
from framework.gbc.tracking.report_section import _chosen, agent_curves, blame, is_by_agent, prompts
from framework.report.section import Section
from framework.testing.run_folders import make_run_folder

EVIL = "<script>document.title = 'taken over'</script>\"'&{{ 7 * 7 }}{% raw %}{# gone #}"
AGENTS = ("manager", "hotel", "train", "taxi", "police", "hospital", "attraction", "restaurant", "responder", "user")
TRIED = TriedPrompt(
    step=0, trial=0, agent="hotel", kept=True, loss_before=0.5, loss=0.25, before="Find it.", after="Find a hotel."
)


KNOWN_TAGS = {
    *("div", "h3", "span", "i", "b", "svg", "line", "text", "path", "g", "circle", "p", "img", "details", "summary"),
    *("article", "dl", "dt", "dd", "table", "tr", "th", "td", "pre", "del", "ins"),
}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PROBE = """<script>
const card = [...document.querySelectorAll(".card")].find(card => card.querySelector(".key"));
const svg = card.querySelector("svg"), box = svg.getBoundingClientRect();
svg.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + box.width / 2, bubbles: true}));
document.body.dataset.values = [...card.querySelectorAll(".key b")].map(value => value.textContent).join(" ");
card.querySelector(".key").dispatchEvent(new PointerEvent("pointerenter"));
document.body.dataset.faint = [...svg.querySelectorAll(".curve")].filter(g => getComputedStyle(g).opacity < 1).length;
document.body.dataset.graph = document.querySelector("img.graph").naturalWidth;
document.body.dataset.hottest = getComputedStyle(document.querySelector(".said span")).backgroundColor;
document.body.dataset.overflow = document.documentElement.scrollWidth > document.documentElement.clientWidth;
</script>"""


def make_agents_folder(folder: Path, *, steps: int = 150) -> Path:
    """A run's folder with metrics of many agents, blame and tried prompts."""
    run = make_run_folder(folder, max_steps=steps, stretches=((0, steps, "finished", ""),))
    kinds = ("credit_own_by_agent", "credit_walk_by_agent", "budget_calls_by_agent")
    lines = [",".join(["step", *(f"{kind}/{agent}" for kind in kinds for agent in AGENTS)])]
    for step in range(steps):
        credits = [0.1 * (1 + math.sin(number + step / 9)) / (1 + step / 60) for number in range(len(AGENTS))]
        calls = [float(step * number) for number in range(len(AGENTS))]
        values = [f"{value:.4f}" for value in (*credits, *credits, *calls)]
        # The user was not to blame in the last step.
        values[len(AGENTS) - 1] = "" if step == steps - 1 else values[len(AGENTS) - 1]
        lines.append(f"{step},{','.join(values)}")
    (run / "metrics" / "version_1").mkdir()
    (run / "metrics" / "version_1" / "metrics.csv").write_text("\n".join(lines) + "\n")
    words = f"hotel-area north ; hotel-day monday {EVIL}"
    spans = tuple((match.start(), match.end()) for match in re.finditer(r"\S+", words))
    said = CreditedText(
        name="hotel", text=words, credit=0.4, spans=spans, credits=tuple(0.4 / (1 + n) for n in range(len(spans)))
    )
    episodes = [
        Episode(
            id=f"PMUL{number}.json",
            loss=0.5 - 0.1 * number,
            loss_text=f"hotel-area should be 'south', it was 'north' (false positive). {EVIL}",
            walk=("loss", "responder", "hotel", "prompt of hotel"),
            own={"hotel": 0.4, "user": 0.1},
            texts=(replace(said, name="user"), replace(said, name="prompt of hotel"), said),
        )
        for number in range(3)
    ]
    graph = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 50"><rect width="90" height="40" fill="#b22"/></svg>'
    )
    write_blame(run, BlameOfStep(step=steps - 1, errors=7, loss=0.3, episodes=tuple(episodes)), graph)
    long = "".join(
        f"Rule {number}: fill the slot number {number} of the table as the user said.\n" for number in range(60)
    )
    note_prompts(
        run,
        [
            TRIED,
            replace(TRIED, step=1, trial=1, kept=False, loss_before=0.25, loss=0.4, after=f"Find a hotel. {EVIL}"),
            replace(TRIED, step=4, trial=2, agent="train", before=long, after=long.replace("Rule 7", "Rule seven")),
            replace(TRIED, step=5, trial=3, agent="taxi", before="Short.", after=long),
        ],
    )
    return run


def bodies(sections: Iterable[Section]) -> str:
    return "".join(section.body for section in sections)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_agents_folder(tmp_path_factory.mktemp("agents") / "run")


def test_one_chart_a_kind_with_a_line_an_agent():
    names = [f"credit_own_by_agent/{agent}" for agent in AGENTS] + ["credit_walk_by_agent/taxi", "some_by_agent/taxi"]
    series = {name: {0: 0.5, 1: 0.25, 2: 0.125} for name in names}
    series["credit_own_by_agent/user"] = {0: 0.5}
    [section] = agent_curves(series, [])
    page = section.body
    assert (section.title, section.metrics) == ("Agents", series.keys())
    assert page.count('<div class="card">') == page.count("<svg") == 3
    own, walk, some = page.split('<div class="card">')[1:]
    assert own.count('class="curve"') == own.count('class="key"') == len(AGENTS)
    assert "credit that ends at each" in own
    # In the order of their names the eleventh would be the third again, dashed.
    order = sorted(AGENTS)
    style = f"s{order.index('taxi') + 1}"
    assert f'<i class="{style}"></i>taxi <b>0.125</b>' in own
    assert f'<i class="{style}"></i>taxi' in walk
    assert f'<i class="{style}"></i>taxi' in some
    assert '<i class="s2 dashed"></i>user <b>–</b>' in own
    assert "at step 2" in own
    assert [is_by_agent(name) for name in ("credit_own_by_agent/x", "budget/calls")] == [True, False]
    assert list(agent_curves({"loss/verbal": {0: 1.0}}, [])) == []


@pytest.mark.slow
def test_the_page(run: Path, tmp_path: Path):
    text = write_report(run, tmp_path / "page.html").read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert [word for word in headings if word in ("Agents", "Blame", "Worst episodes", "Prompts")] == [
        "Agents",
        "Blame",
        "Worst episodes",
        "Prompts",
    ]
    assert not any("by agent" in word for word in headings)
    assert "Step 149: 7 tasks with errors, mean loss 0.3." in text
    assert text.count('src="data:image/svg+xml;base64,') == 1
    assert all(f"PMUL{number}.json" in text for number in range(3))
    assert text.count("<script>") == 1
    assert not re.search(r"url\(|@import|<link|<iframe|https?://(?!www\.w3\.org)", text)
    # Another run's page has nothing of it.
    other = write_report(make_run_folder(tmp_path / "other"), tmp_path / "other.html").read_text()
    assert not {"Agents", "Blame", "Worst episodes", "Prompts"} & set(re.findall(r"<h2>(.*?)</h2>", other))


def test_tried_prompts_are_shown_as_differences(run: Path):
    page = bodies(prompts(run))
    assert "4 trials, 3 kept." in page
    short, refused, lines, long = page.split("<tr class=")[1:]
    assert "<pre>Find<del> it</del><ins> a hotel</ins>.</pre>" in short
    assert "0.5 → 0.25" in short
    assert refused.startswith('"refused"')
    assert "&lt;script&gt;" in refused
    assert "<del>Rule 7: fill the slot" in lines
    assert "<ins>Rule seven: fill the slot" in lines
    assert lines.count("[...]") == 2
    assert re.search(r"<summary>words removed: 1, added: [\d,]+</summary>", long)
    assert list(prompts(run / "nowhere")) == []


def test_of_many_prompts_those_that_were_kept_are_shown(tmp_path: Path):
    tried = [replace(TRIED, step=step, trial=step, kept=step == 3) for step in range(120)]
    assert [each.step for each in _chosen(tried)] == [3, *range(21, 120)]
    note_prompts(tmp_path, tried)
    assert "120 trials, 1 kept. Shown are those that were kept and the newest others" in bodies(prompts(tmp_path))


def test_every_field_is_escaped(tmp_path: Path):
    def evil(field: str) -> str:
        return f"{field}={EVIL}"

    text = CreditedText(name=evil("name"), text=evil("text"), credit=1.0, spans=((0, 9),), credits=(1.0,))
    episode = Episode(
        id=evil("id"),
        loss=1.0,
        loss_text=evil("loss"),
        walk=("loss", evil("walk")),
        own={evil("own"): 1.0},
        texts=(text,),
    )
    write_blame(tmp_path, BlameOfStep(step=0, errors=1, loss=1.0, episodes=(episode,)), f"<svg>{EVIL}</svg>")
    tried = replace(TRIED, agent=evil("agent"), before=evil("before"), after=evil("after"))
    note_prompts(tmp_path, [tried])
    series = {f"{evil('kind').replace('/', '|')}_by_agent/{evil('agent curve')}": {0: 1.0}}
    html = bodies([*agent_curves(series, []), *blame(tmp_path), *prompts(tmp_path)])
    assert html.count("<script") == 0
    assert all(tag in KNOWN_TAGS for tag in re.findall(r"<(\w+)", html))
    # Without the tags that mark tokens and differences.
    shown = unescape(re.sub(r"<[^>]*>", "", html))
    for field in ("name", "text", "id", "loss", "walk", "own", "agent", "agent curve"):
        assert evil(field) in shown, field
    assert evil("kind").replace("/", "|").replace("_", " ") in shown
    assert evil("beforeafter") in shown


def test_secrets_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Not yet known as one when it was written.
    note_prompts(tmp_path, [replace(TRIED, after="say planted-secret-word")])
    text = CreditedText(name="a", text="the planted-secret-word", credit=1.0, spans=((0, 23),), credits=(1.0,))
    episode = Episode(id="1", loss=1.0, loss_text="planted-secret-word", walk=("loss",), own={}, texts=(text,))
    write_blame(tmp_path, BlameOfStep(step=0, errors=1, loss=1.0, episodes=(episode,)), None)
    monkeypatch.setenv("SERVICE_TOKEN", "planted-secret-word")
    assert "planted" not in bodies(prompts(tmp_path))
    assert "planted" not in bodies(blame(tmp_path))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_shows_it(run: Path, tmp_path: Path):
    probed = tmp_path / "probed.html"
    probed.write_text(write_report(run, tmp_path / "page.html").read_text().replace("</body>", PROBE + "</body>"))
    assert CHROMIUM is not None
    quiet = ["background-networking", "component-update", "sync", "gpu", "quic"]
    command = [CHROMIUM, "--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    command += [f"--user-data-dir={tmp_path / 'user'}", "--dump-dom", "--window-size=400,900", probed.as_uri()]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    body = re.search(r"<body[^>]*>", page)
    assert body is not None
    assert re.search(r'data-values="[\d.]+( [\d.]+){9}"', body[0]), body[0]
    assert f'data-faint="{len(AGENTS) - 1}"' in body[0]
    assert re.search(r'data-graph="[1-9]\d*"', body[0])
    assert 'data-hottest="rgba(211, 47, 47, 0.75)"' in body[0]
    assert 'data-overflow="false"' in body[0], "a narrow window scrolls sideways"
