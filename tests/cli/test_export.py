"""The command that exports, and a command that takes what it wrote."""

from pathlib import Path

import numpy as np
import pytest

from framework.cli.main import main


@pytest.mark.slow
def test_the_command_exports_and_sample_takes_it(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["fit", "--config", str(recipe), "--trainer.max_steps", "2"])
    out = tmp_path / "out" / "pra.safetensors"
    main(["export", str(tmp_path / "run"), str(out)])
    assert "of step 2" in capsys.readouterr().err
    images = []
    for source in (tmp_path / "run", out, out.parent):
        main(["sample", str(source), str(tmp_path / "x.npz"), "--num", "3", "--sampler.steps", "2"])
        images.append(np.load(tmp_path / "x.npz")["arr_0"])
    assert (images[0] == images[1]).all()
    assert (images[0] == images[2]).all()
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(tmp_path / "run"), str(out)])
    assert stopped.value.code == 2
    assert "exists" in capsys.readouterr().err
