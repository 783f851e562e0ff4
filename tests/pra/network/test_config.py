"""What an architecture refuses, and what follows from it."""

from dataclasses import FrozenInstanceError

import pytest

from framework.core.errors import ConfigError
from framework.pra.network.config import VARIANTS, PRAConfig
from framework.testing.models import tiny_config

COUNTS = (
    "num_classes",
    "width",
    "depth",
    "num_heads",
    "class_tokens",
    "head_width",
    "head_depth",
    "head_modulation_every",
    "state_size",
    "decoder_width",
    "decoder_depth",
    "encoder_width",
    "encoder_depth",
    "encoder_heads",
)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -4])
def test_counts_are_positive(name: str, value: int):
    with pytest.raises(ConfigError, match=f"^{name} {value}: use a positive number"):
        tiny_config(**{name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 5}, "image_size 5 is not divisible by patch_size 2"),
        ({"patch_size": 3}, "image_size 4 is not divisible by patch_size 3"),
        ({"width": 20}, "width 20 over num_heads 2 is not a multiple of 4"),
        ({"num_heads": 3}, "width 16 over num_heads 3 is not a multiple of 4"),
        ({"encoder_width": 12}, "encoder_width 12 over encoder_heads 2 is not a multiple of 4"),
        ({"head_jumps": True, "variant": "x_prediction"}, "head_jumps with variant x_prediction"),
    ],
)
def test_settings_that_do_not_fit(changes: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        tiny_config(**changes)


def test_sizes():
    config = PRAConfig(image_size=256, patch_size=16, num_classes=1000)
    assert (config.num_tokens, config.pixel_size, config.target_size) == (256, 768, 16)
    gray = PRAConfig(image_size=8, patch_size=2, num_classes=10, channels=1)
    assert (gray.num_tokens, gray.pixel_size) == (16, 4)


@pytest.mark.parametrize(
    ("variant", "target_size"),
    [("teacher_forced", 4), ("x_prediction", 4), ("noisy_inputs", 4), ("low_dim", 3), ("pra", 3)],
)
def test_the_head_generates_pixels_or_states(variant: str, target_size: int):
    assert tiny_config(variant=variant).target_size == target_size


def test_the_rows_differ_as_published():
    rows = {name: (v.target, v.prediction, v.inputs) for name, v in VARIANTS.items()}
    assert rows == {
        "teacher_forced": ("pixels", "velocity", "clean"),
        "x_prediction": ("pixels", "clean", "clean"),
        "noisy_inputs": ("pixels", "velocity", "noisy"),
        "low_dim": ("states", "velocity", "clean"),
        "pra": ("states", "velocity", "decoded"),
        "diffusion": ("pixels", "clean", "diffused"),
    }


def test_frozen():
    with pytest.raises(FrozenInstanceError):
        tiny_config().width = 32
