"""Training examples of MultiWOZ's state tracking as shards, with their dialogues and a tokenizer."""

from collections.abc import Iterable
from pathlib import Path

from framework.core.errors import ConfigError
from framework.core.serialization import to_json
from framework.data.shards.manifest import Manifest
from framework.data.shards.writer import WriteOptions
from framework.gbc.environments.multiwoz.dataset.shards import write_samples
from framework.gbc.environments.multiwoz.state_tracking.tokenizer import learn_tokenizer
from framework.gbc.environments.multiwoz.state_tracking.training_examples import draw_examples, draw_tasks, read_parts

_MOST_VALIDATION = 1024


def write_example_shards(
    source: str | Path,
    dest: str | Path,
    *,
    num_examples: int,
    num_practice: int,
    num_tuning: int,
    num_set_aside: int,
    vocabulary_size: int = 1536,
    seed: int = 0,
    options: WriteOptions = WriteOptions(),
) -> dict[str, Manifest]:
    """Parts the dialogues of a few-shot file at random, and writes them, training examples and a tokenizer.

    Args:
        source: few-shot file (.json).
        dest: gets the sets `known`, `tuning` and `set_aside` of dialogues, `train` of augmented examples of the known
            ones, `validation` of examples of those set aside, as they are, and the folder `tokenizer`. `practice` are
            turns of the tuning ones as tasks for agents.
        num_examples: training examples.
        num_practice: turns that the agents practise on.
        num_tuning: dialogues that no training example is made of, for practice.
        num_set_aside: dialogues that no training example is made of, for validation.
        vocabulary_size: most tokens.
        seed: of all that is drawn.
        options: how each set is written.

    Returns:
        What was written, by the folder inside `dest`.

    Raises:
        ConfigError: no examples, or none of the dialogues left for a part.
        DataError: what `read_turns`, `read_fewshot_dialogue` or `write_listing` raise.
    """
    if min(num_examples, num_practice) < 1:
        raise ConfigError(f"{num_examples} examples, {num_practice} for practice", hint="use 1 or more of each")
    dest = Path(dest)
    tuning, aside, known = read_parts(source, (num_tuning, num_set_aside), seed=seed)
    tokenizer = learn_tokenizer(known, vocabulary_size=vocabulary_size)
    parts: dict[str, Iterable[object]] = {
        "known": map(to_json, known),
        "tuning": map(to_json, tuning),
        "set_aside": map(to_json, aside),
        "train": draw_examples(known, f"{seed}/train", num_examples),
        "practice": draw_tasks(tuning, f"{seed}/practice", num_practice),
        "validation": draw_examples(aside, f"{seed}/validation", min(num_examples, _MOST_VALIDATION), augmented=False),
    }
    written: dict[str, Manifest] = {}
    for name, episodes in parts.items():
        samples = {str(number): episode for number, episode in enumerate(episodes)}
        written[name] = write_samples(dest / name, samples, options)
    tokenizer.save_pretrained(str(dest / "tokenizer"))  # pyright: ignore[reportUnknownMemberType]
    return written
