"""The command that writes the page of a run."""

from pathlib import Path

import pytest

from framework.cli.main import main
from framework.cli.report import write_report
from framework.core.errors import ConfigError
from framework.testing.run_folders import make_run_folder


def test_the_command_writes_into_the_runs_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = make_run_folder(tmp_path / "run")
    main(["report", str(run)])
    assert "<h1>run</h1>" in (run / "report.html").read_text()
    assert "report in " in capsys.readouterr().err
    with pytest.raises(ConfigError, match="is not the folder of a run"):
        write_report(tmp_path / "nowhere", tmp_path / "x.html")
