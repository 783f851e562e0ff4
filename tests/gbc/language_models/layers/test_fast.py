"""What a language model that is loaded gets."""

import pytest

from framework.gbc.language_models.layers import linear
from framework.gbc.language_models.layers.attention import NAME
from framework.gbc.language_models.transformers_compat import attention_implementation
from framework.testing.language_models import tiny_local_model


def test_a_local_model_attends_without_masks_and_multiplies_by_the_faster_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(linear, "prefers_onednn", lambda: True)
    model = tiny_local_model().model
    assert attention_implementation(model) == NAME
    assert isinstance(model.get_output_embeddings(), linear.Linear)
