"""Texts with tokens coloured by credit: escaped, whole, faint ones without HTML."""

import re
from html import unescape

from framework.gbc.tracking.credit_html import credit_html, episode_html, episodes_page
from framework.gbc.tracking.episode_records import BlameOfStep, CreditedText, Episode


def test_strengths_by_hand():
    found = credit_html("a <b> c", [(0, 1), (1, 5), (5, 5), (5, 7)], [0.01, -1.0, 3.0, 0.5], largest=1.0)
    assert found == ('a<span style="--c:0.75" title="-1"> &lt;b&gt;</span><span style="--c:0.38" title="0.5"> c</span>')
    assert '<span style="--c:0.01" title="0.01">a</span>' in credit_html(
        "a", [(0, 1)], [0.01], largest=1.0, faintest=0.0
    )


def test_an_episode_and_its_page():
    nasty = "<script>alert('&amp;')</script> \0 \ud83d {{ 7 * 7 }}{% raw %}"
    text = CreditedText(name="<b>", text=nasty, credit=0.5, spans=((0, 8), (8, len(nasty))), credits=(0.1, 0.4))
    episode = Episode(
        id="<7>", loss=0.5, loss_text=nasty, walk=("loss", "<b>"), own={"x": 0.0, "<b>": 0.5}, texts=(text,), left_out=2
    )
    piece = episode_html(episode)
    shown = unescape(re.sub(r"<[^>]*>", "", piece))
    assert shown.count("<script>alert('&amp;')</script> \ufffd ? {{ 7 * 7 }}{% raw %}") == 2
    assert "loss ← <b>; the credit ends at <b> 0.5" in shown
    assert "2 texts with less credit are left out" in shown
    page = episodes_page(BlameOfStep(step=1204, errors=1, loss=0.5, episodes=(episode,)))
    assert piece in page
    assert "Step 1,204: 1 task with errors, mean loss 0.5." in page
    assert not re.search(r"<script|src=|href=|url\(", page)
    page.encode()


def test_quotes_do_not_leave_an_attribute():
    found = credit_html('"\'><b onclick="x', [(0, 15)], [1.0], largest=1.0)
    assert re.fullmatch(r'<span style="--c:0\.75" title="1">[^<>"\']*</span>[^<>"\']*', found)
    assert unescape(re.sub(r"<[^>]*>", "", found)) == '"\'><b onclick="x'
