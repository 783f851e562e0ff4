"""A checkout that stands for other public code."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

OTHER = """
import torch
from flash_attn import flash_attn_func

class SphereAR(torch.nn.Module):
    def __init__(self, **sizes):
        super().__init__()
        self.sizes = sizes
        self.layer = torch.nn.Linear(4, 4)

    def sample(self, labels, sample_steps, cfg_scale):
        assert sample_steps == 2 and cfg_scale == 2.0
        q = torch.randn(len(labels), 5, 2, 4)
        return flash_attn_func(self.layer(q), q, q, causal=True)

    def forward(self, images, labels):
        return self.layer(images.mean((2, 3)).repeat(1, 2)[:, :4].repeat(3, 1)).sum(), 0, None
"""


@pytest.fixture
def other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    package = tmp_path / "checkout" / "SphereAR"
    package.mkdir(parents=True)
    (package / "model.py").write_text(OTHER)
    before = {*sys.modules}
    yield package.parent
    for name in {*sys.modules} - before:
        if name.startswith(("SphereAR", "flash_attn")):
            del sys.modules[name]
