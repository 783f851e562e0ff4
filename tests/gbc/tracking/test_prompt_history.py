"""The list of tried prompts: appended to, cut back where steps are made again, without secrets."""

from dataclasses import replace
from pathlib import Path

from framework.gbc.tracking.prompt_history import FILE, TriedPrompt, forget_prompts, note_prompts, read_prompts

TRIED = TriedPrompt(
    step=0, trial=0, agent="hotel", kept=True, loss_before=0.5, loss=0.25, before="Find it.", after="Find a hotel."
)


def test_it_is_written_and_read(tmp_path: Path):
    run = tmp_path / "run"
    assert read_prompts(run) == []
    tried = [replace(TRIED, step=step, trial=step, kept=step % 2 == 0, loss=0.1 * step) for step in range(4)]
    note_prompts(run, tried[:1])
    note_prompts(run, tried[1:])
    assert read_prompts(run) == tried


def test_steps_that_are_made_again_are_there_once(tmp_path: Path):
    forget_prompts(tmp_path, from_step=0)
    assert not (tmp_path / FILE).exists()
    tried = [replace(TRIED, step=step) for step in (0, 2, 3)]
    note_prompts(tmp_path, tried)
    with (tmp_path / FILE).open("a") as stream:
        stream.write('{"step": 4, "trial": 1, "agent": "ho')
    forget_prompts(tmp_path, from_step=3)
    note_prompts(tmp_path, [replace(TRIED, step=3, after="Another.")])
    assert read_prompts(tmp_path) == [*tried[:2], replace(TRIED, step=3, after="Another.")]


def test_secrets_and_halves_of_characters_are_removed(tmp_path: Path):
    note_prompts(tmp_path, [replace(TRIED, after="ask https://me:planted-password@host \ud83d now")])
    assert "planted" not in (tmp_path / FILE).read_text()
    assert read_prompts(tmp_path)[0].after == "ask https://<removed>@host ? now"
