"""First-order effects: exact where the model is linear, the same one by one and in a batch."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from framework.core.errors import DataError
from framework.gbc.attribution.first_order_edits import RUNNER_UP, EditCandidates, first_order_edits
from framework.gbc.execution.teacher_forcing import TokenRow
from framework.gbc.language_models import logits
from framework.testing.language_models import LinearLM, tiny_language_model

ROW = TokenRow(input_ids=(0, 1), prefix=0, output_ids=(2, 1))
EDITS = ((0, 1), (0, 2), (1, 0))


def test_a_linear_model_by_hand():
    linear: Any = LinearLM([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]], [[1.0, 1.0], [2.0, -1.0], [0.0, 3.0]])
    row = EditCandidates(row=ROW, targets=((0, 2, 0), (1, 1, RUNNER_UP)), kept=(0,), edits=EDITS)
    (found,) = first_order_edits(linear, [row])
    # Sums of what is read: [1, 2], logits 3, 0, 6; then [0, 3], logits 3, -3, 9: there 2 is the likeliest.
    assert found.margins.tolist() == [3.0, -12.0]
    # Margin (W2 - W0) · x = -x0 + 2 x1; the edits change x by [-1, 2], [-2, 1] and [1, -2].
    assert found.drops[0].tolist() == [-5.0, -4.0, 5.0]
    # (W1 - W2) · x = 2 x0 - 4 x1.
    assert found.drops[1].tolist() == [10.0, 8.0, -10.0]
    # Kept: the first token, its margin of 3 over its runner-up 0.
    assert found.harms.tolist() == pytest.approx([-5 / 3, -4 / 3, 5 / 3])
    (both,) = first_order_edits(linear, [replace(row, kept=(0, 1))])
    # The second is said with a margin of -12: half a unit is its scale.
    assert both.harms.tolist() == pytest.approx([20 - 5 / 3, 16 - 4 / 3, 5 / 3 - 20])


def test_a_batch_gives_what_each_row_gives():
    model = tiny_language_model(vocabulary=50)
    rows = [
        EditCandidates(
            row=TokenRow(input_ids=(5, 6, 7, 8), prefix=1, output_ids=(9, 10, 11)),
            targets=((0, 9, 12), (2, 11, RUNNER_UP)),
            kept=(1,),
            edits=((1, 20), (3, 21)),
        ),
        EditCandidates(
            row=TokenRow(input_ids=(7, 9), prefix=0, output_ids=(9,)), targets=((0, 9, 3),), kept=(), edits=((1, 4),)
        ),
    ]
    for row, together in zip(rows, first_order_edits(model, rows), strict=True):
        (alone,) = first_order_edits(model, [row], max_tokens=1)
        for name in ("margins", "drops", "harms"):
            torch.testing.assert_close(getattr(together, name), getattr(alone, name), rtol=1e-4, atol=1e-6)
        assert together.drops.shape == (len(row.targets), len(row.edits))
        assert together.harms.shape == (len(row.edits),)


def test_logits_in_chunks_give_what_all_give(monkeypatch: pytest.MonkeyPatch):
    model = tiny_language_model(vocabulary=50)
    # The first token should be one of two, and is kept besides.
    row = EditCandidates(
        row=TokenRow(input_ids=(5, 6, 7, 8), prefix=1, output_ids=(9, 10, 11)),
        targets=((0, 9, 12), (0, 9, 13), (2, 11, RUNNER_UP)),
        kept=(0, 1),
        edits=((1, 20), (3, 21)),
    )
    (whole,) = first_order_edits(model, [row])
    monkeypatch.setattr(logits, "CHUNK_BYTES", 1)
    (chunked,) = first_order_edits(model, [row])
    assert whole.margins.unique().numel() == 3
    for name in ("margins", "drops", "harms"):
        torch.testing.assert_close(getattr(chunked, name), getattr(whole, name), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"edits": ()}, "without edits"),
        ({"targets": ()}, "without edits"),
        ({"kept": (2,)}, "beyond the 2 output tokens"),
        ({"edits": ((2, 0),)}, "outside tokens 0 to 2"),
    ],
)
def test_rows_that_make_no_sense(changes: dict[str, Any], problem: str):
    with pytest.raises(DataError, match=problem):
        EditCandidates(**{"row": ROW, "targets": ((0, 2, 0),), "kept": (), "edits": EDITS, **changes})
