"""The commands that make shards of dialogues and of training examples; the docstrings are their `--help`."""

import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from framework.core.errors import ConfigError
from framework.data.convert.jsonl import write_jsonl_shards
from framework.data.shards.summary import print_summary
from framework.data.shards.writer import WriteOptions


def multiwoz(
    source: str,
    dest: str,
    *,
    samples_per_shard: int = 4096,
    strict: bool = False,
    workers: int = 0,
    overwrite: bool = False,
) -> None:
    """Make shards of MultiWOZ's dialogues, as its authors publish it (2.1 and 2.4), an episode each.

    DEST gets the sets train, validation and test, of those that have dialogues. A dialogue that is truncated or has a
    label for an unknown slot is skipped.

    Args:
        source: the release's folder or .zip; or a few-shot file of IC-DST (.json), which makes DEST itself the set.
        dest: folder of the new shard sets.
        samples_per_shard: dialogues in a shard.
        strict: refuse a release with bad dialogues, instead of listing and counting them.
        workers: threads; 0 takes one for each core.
        overwrite: replace finished shard sets in DEST.
    """
    from framework.gbc.environments.multiwoz.dataset.shards import write_multiwoz_shards

    options = WriteOptions(samples_per_shard=samples_per_shard, strict=strict, workers=workers, overwrite=overwrite)
    for name, manifest in write_multiwoz_shards(source, dest, options=options).items():
        print_summary(manifest, str(Path(dest) / name))


def microworld(
    dest: str, *, num_examples: int = 65536, num_validation: int = 1024, seed: int = 0, overwrite: bool = False
) -> None:
    """Make the examples of the micro world's language model, and its tokenizer.

    An example is an episode {role, prompt, message, answer}; no two parts share a random number. See
    `recipes/gbc/microworld.yaml`.

    Args:
        dest: folder that gets `train`, `validation` and `tokenizer`.
        num_examples: examples to train on.
        num_validation: examples to validate on.
        seed: of the examples.
        overwrite: replace what is there.
    """
    # Imported here, as below: Hugging Face's libraries take a while.
    from framework.gbc.environments.microworld.tokenizer import make_tokenizer
    from framework.gbc.environments.microworld.training_examples import draw_examples

    for part, count in (("train", num_examples), ("validation", num_validation)):
        if count < 1:
            raise ConfigError(f"{count} examples for {part}", hint="use 1 or more")
        _write_episodes(Path(dest) / part, draw_examples(f"{seed}/{part}", count), WriteOptions(overwrite=overwrite))
    make_tokenizer().save_pretrained(str(Path(dest) / "tokenizer"))  # pyright: ignore[reportUnknownMemberType]


def multiwoz_examples(
    source: str,
    dest: str,
    *,
    num_examples: int = 160000,
    num_practice: int = 16000,
    num_tuning: int = 174,
    num_set_aside: int = 60,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Make examples for a small language model of MultiWOZ's state tracking, and its tokenizer.

    An example is an episode {domain, prompt, message, answer}. Some dialogues give none to train on: they are for
    improving the agents, and for choosing. See `recipes/gbc/multiwoz_model.yaml`.

    Args:
        source: few-shot file of IC-DST (.json), the training part.
        dest: gets `train`, `validation`, `practice`, `tokenizer`, and of the dialogues `known`, `tuning` and
            `set_aside`.
        num_examples: examples for the language model.
        num_practice: turns for the agents to train on.
        num_tuning: dialogues that the agents are improved on.
        num_set_aside: dialogues that choices are made by.
        seed: of the choice of dialogues and of the examples.
        overwrite: replace what is there.
    """
    from framework.gbc.environments.multiwoz.state_tracking.example_shards import write_example_shards

    written = write_example_shards(
        source,
        dest,
        num_examples=num_examples,
        num_practice=num_practice,
        num_tuning=num_tuning,
        num_set_aside=num_set_aside,
        seed=seed,
        options=WriteOptions(overwrite=overwrite),
    )
    for name, manifest in written.items():
        print_summary(manifest, str(Path(dest) / name))


def _write_episodes(dest: Path, episodes: Iterable[object], options: WriteOptions) -> None:
    with TemporaryDirectory() as folder:
        lines = Path(folder) / "episodes.jsonl"
        with lines.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(episode) + "\n" for episode in episodes)
        print_summary(write_jsonl_shards(lines, dest, options=options), str(dest))
