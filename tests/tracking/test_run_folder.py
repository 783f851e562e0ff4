"""A run's W&B id is chosen once."""

from pathlib import Path

import pytest

from framework.tracking.run_folder import keep_wandb_id, saved_wandb_id


def test_the_first_id_is_kept(tmp_path: Path):
    run = tmp_path / "runs" / "a"
    assert saved_wandb_id(run) is None
    keep_wandb_id(run, "ab12cd34")
    keep_wandb_id(run, "another1")
    assert saved_wandb_id(run) == saved_wandb_id(str(run)) == "ab12cd34"


@pytest.mark.parametrize("data", [b"", b"\xff\xfea\0", b" \n"])
def test_an_id_that_cannot_be_read_is_none(tmp_path: Path, data: bytes):
    (tmp_path / "wandb-id").write_bytes(data)
    assert saved_wandb_id(tmp_path) is None
    keep_wandb_id(tmp_path, "ab12cd34")
    assert saved_wandb_id(tmp_path) == "ab12cd34"
