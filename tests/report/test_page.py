"""The page about a run: what is in it, that nothing is fetched, and that a browser shows it."""

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from PIL import Image

from framework.cli.report import write_report
from framework.testing.run_folders import make_run_folder
from framework.tracking.data_identity import DataIdentity, SetIdentity, note_data
from framework.tracking.restarts import Start, note_end, note_start

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
EVIL = "<script>document.title = 'taken over'</script>\"'&{{ 7 * 7 }}{% raw %}{# gone #}"
ATTRIBUTES = (
    "lang|charset|name|content|http-equiv|class|viewbox|role|aria-label|data-.*|[xyrd]|[xy][12]|c[xy]|width|height|"
    "text-anchor|src|alt|preserveaspectratio|open"
)
PROBE = """<script>
const svg = document.querySelector("svg.chart"), box = svg.getBoundingClientRect();
svg.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + box.width / 2, bubbles: true}));
document.body.dataset.told = svg.closest(".card").querySelector(".now").textContent;
document.body.dataset.images = [...document.images].filter(image => image.naturalWidth > 0).length;
document.body.dataset.overflow = document.documentElement.scrollWidth > document.documentElement.clientWidth;
</script>"""


class Page(HTMLParser):
    """Tags of a page, all of them closed, and what they refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.attributes: list[str] = []
        """Names of attributes that no page of ours has."""
        self.data: list[list[dict[str, object]]] = []
        """Of each chart."""
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs if not re.fullmatch(ATTRIBUTES, name)]
        self.data += [json.loads(value or "") for name, value in attrs if name == "data-lines"]
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in ("meta", "img", "line", "circle", "rect", "path", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs if not re.fullmatch(ATTRIBUTES, name)]

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    stretches = (
        (0, 40, "preempted", "stopped by SIGUSR1"),
        (40, 70, None, ""),
        (60, 90, "failed", f"{EVIL} at https://me:planted-password@host/set"),
        (80, 160, "finished", ""),
    )
    run = make_run_folder(folder / "digits <&>", stretches=stretches, max_steps=160)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    (run / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "data": {"api_key": "planted-key", "note": EVIL}}))
    return write_report(run, folder / "page.html")


def test_everything_is_in_it(report: Path):
    page = Page(report.read_text())
    assert page.open == []
    for words in ("digits <&>", "finished", "Step 160 of 160", "4 starts", "W&B id ab12cd34", "preempted", "killed"):
        assert words in page.text
    for words in ("total", "flow MSE", "images per second", "gradient norm", "stall seconds", "training", "validation"):
        assert words in page.text
    for words in ("max_steps: 160", "NVIDIA H100", "3b42e91d0c4a", "framework fit --config", "2.13.0"):
        assert words in page.text
    assert page.tags.count("img") == 8
    assert "step 160" in page.text
    assert page.text.count("NaN") == 0


def test_nothing_is_fetched_and_everything_is_escaped(report: Path):
    text = report.read_text()
    page = Page(text)
    assert all(reference.startswith("data:image/png;base64,") for reference in page.references)
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|<link|<iframe", text)
    assert text.count("<script>") == 1
    assert EVIL in page.text
    assert "planted" not in text


def test_data_and_classes(tmp_path: Path):
    run = make_run_folder(tmp_path / "run")
    assert "classes" not in Page(write_report(run, tmp_path / "page.html").read_text()).text
    shards = SetIdentity(path=f"shards/{EVIL}", digest="0123456789abcdef" * 4, num_samples=12345)
    names = tuple(f"<b>{number}</b>" for number in range(120))
    note_data(run, DataIdentity(classes=names, train=(shards,), validation=shards))
    page = Page(write_report(run, tmp_path / "page.html").read_text())
    for words in ("Data", "validation", EVIL, "12,345", "0123456789ab", "120 classes", "<b>99</b>", "and 20 more"):
        assert words in page.text
    assert page.open == []


def test_every_field_of_a_run_is_escaped(tmp_path: Path):
    def evil(field: str) -> str:
        return f"{field}={EVIL}"

    run = make_run_folder(tmp_path / EVIL.replace("/", "|"))
    (run / "wandb-id").write_text(evil("id"))
    start = Start(
        restart=0,
        step=0,
        time="2026-03-04T09:15:00+00:00",
        command=evil("command"),
        host=evil("host"),
        device=evil("device"),
        git_revision=evil("revision"),
        packages={evil("package"): evil("version")},
        python=evil("python"),
        container=evil("container"),
    )
    (run / "attempts.jsonl").unlink()
    note_start(run, start)
    note_end(run, restart=0, outcome="failed", step=12, message=evil("message"))
    with (run / "metrics" / "version_0" / "metrics.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows(
            [["step", evil("loss/metric"), f"validation/metric={EVIL}", evil("group/other")], [0, 1, 2, 3]]
        )
    (run / "recipe.yaml").write_text(yaml.safe_dump({evil("key"): evil("value"), "trainer": {"max_steps": 12}}))
    text = write_report(run, tmp_path / "page.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.tags.count("script") == 1
    assert page.attributes == []
    fields = ["id", "command", "host", "device", "revision", "package", "version", "python", "container", "message"]
    for field in fields:
        assert evil(field) in page.text, field
    assert EVIL.replace("/", "|") in page.text
    for field in ("key", "value"):
        assert f"{field}=<script>document.title" in page.text, field
    assert f"metric={EVIL}" in page.text
    assert f"other={EVIL}" in page.text
    assert any(line["name"] == "training" for data in page.data for line in data)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_shows_it(report: Path, tmp_path: Path):
    probed = tmp_path / "probed.html"
    probed.write_text(report.read_text().replace("</body>", PROBE + "</body>"))
    body = re.search(r"<body[^>]*>", browse(tmp_path, probed, "--dump-dom", "--window-size=400,900"))
    assert body is not None
    assert re.search(r'data-told="[\d.]+ / [\d.]+ at step \d+"', body[0]), body[0]
    assert 'data-images="8"' in body[0]
    assert 'data-overflow="false"' in body[0], "a narrow window scrolls sideways"
    screenshot = tmp_path / "page.png"
    browse(tmp_path, report, f"--screenshot={screenshot}", "--window-size=1240,1500", "--hide-scrollbars")
    with Image.open(screenshot) as image:
        assert image.size == (1240, 1500)
        colors = {color[:3]: count for count, color in image.convert("RGB").getcolors(1 << 24)}
    assert colors[0xF7, 0xF7, 0xF5] > 300_000, "the page"
    assert colors[0x27, 0x67, 0xB8] > 300, "curves"
    assert colors[0xC4, 0x62, 0x2D] > 30, "validation"


def browse(tmp_path: Path, page: Path, *options: str) -> str:
    """What the browser prints."""
    assert CHROMIUM is not None
    quiet = ["background-networking", "component-update", "sync", "gpu", "quic"]
    command = [CHROMIUM, "--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    command += [f"--user-data-dir={tmp_path / options[0][2:8]}", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_run_that_has_only_begun(tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text("a: [half, of")
    page = Page(write_report(tmp_path, tmp_path / "report.html").read_text())
    assert "No metrics yet." in page.text
    assert "a: [half, of" in page.text
    assert page.open == []


def test_an_image_in_pieces_is_left_out(tmp_path: Path):
    run = make_run_folder(tmp_path / "run")
    victim = sorted((run / "samples").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:100])
    whole = len(list((run / "samples").iterdir())) - 1
    assert Page(write_report(run, tmp_path / "report.html").read_text()).tags.count("img") == whole
