"""Equal parameters whatever the row and the size, and which parts there are."""

from dataclasses import replace

import pytest

from framework.core.errors import ConfigError
from framework.pra.commands.comparison.parts import at_size, match_parameters, num_parameters, plan_parts
from framework.pra.network.config import VARIANTS, PRAConfig, VariantName

BASE = PRAConfig(image_size=16, patch_size=4, num_classes=10, width=64, depth=2, num_heads=4, head_width=64)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_gets_the_methods_parameters_within_two_percent(variant: VariantName):
    goal = num_parameters(BASE)
    matched = match_parameters(replace(BASE, variant=variant), goal)
    assert num_parameters(matched) == pytest.approx(goal, rel=0.02)
    # `diffusion` gets layers for the head and the decoder that it has not.
    depth = matched.depth if variant == "diffusion" else BASE.depth
    assert replace(matched, head_width=BASE.head_width) == replace(BASE, variant=variant, depth=depth)
    assert (matched.depth > BASE.depth) == (variant == "diffusion")


def test_patches_grow_with_the_images():
    larger = at_size(BASE, 32)
    assert (larger.image_size, larger.patch_size, larger.num_tokens) == (32, 8, 16)
    assert at_size(BASE, 16) == BASE
    with pytest.raises(ConfigError, match=r"images of 10 pixels in 16 tokens: .* multiple of the 4 patches"):
        at_size(BASE, 10)


def test_parts_are_seed_by_seed_with_the_parameters_of_the_recipe():
    parts = plan_parts(BASE, variants=["pra", "diffusion"], sizes=[8, 16], seeds=[0, 1])
    assert [part.name for part in parts] == [
        f"{variant}-{size}px-seed{seed}" for seed in (0, 1) for size in (8, 16) for variant in ("pra", "diffusion")
    ]
    counts = [num_parameters(part.architecture) for part in parts]
    assert counts == pytest.approx([num_parameters(BASE)] * 8, rel=0.02)
