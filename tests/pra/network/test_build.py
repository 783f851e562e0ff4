import pytest

from framework.pra.network.build import build_generator
from framework.pra.network.config import VARIANTS, VariantName
from framework.pra.network.diffusion import PixelDiffusion
from framework.pra.network.model import PRA
from framework.testing.models import tiny_config


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_model_of_every_variant(variant: VariantName):
    model = build_generator(tiny_config(variant=variant))
    assert type(model) is (PixelDiffusion if variant == "diffusion" else PRA)


def test_the_method_s_class_makes_no_diffusion_model():
    with pytest.raises(AssertionError, match="build_generator"):
        PRA(tiny_config(variant="diffusion"))
