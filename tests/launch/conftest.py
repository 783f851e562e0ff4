"""Programs that stand for the framework and the launchers: quick, and they tell what they were given."""

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Knows the run's settings, as the real one does; otherwise does what the test says.
FRAMEWORK = """#!/bin/bash
for word; do
  case $word in
    --run.dir=*) dir=${word#*=} ;;
    --wrong=*) echo "error: unknown key wrong" >&2; exit 2 ;;
  esac
done
if [ "$1" = where ]; then
  [ -n "$dir" ] || { echo "error: run.dir is not set" >&2; exit 2; }
  printf 'run.dir: %s\nrun.wandb: offline\n' "$dir"
  exit
fi
"""


@dataclass
class Bench:
    """A folder with a recipe `recipe.yaml` and programs of the test's own, first on the PATH."""

    folder: Path

    def program(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)

    def framework(self, body: str) -> None:
        self.program("framework", FRAMEWORK + body)

    def environment(self, **more: str) -> dict[str, str]:
        others = ("SLURM_", "PET_", "WORLD_", "LOCAL_", "CROSS_", "GROUP_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        return {**kept, "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}", **more}

    def start(
        self, script: str | Path, *arguments: str, folder: Path | None = None, **more: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(ROOT / script), *arguments],
            cwd=folder or self.folder,
            env=self.environment(**more),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(
        self, script: str | Path, *arguments: str, folder: Path | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        return self.finish(self.start(script, *arguments, folder=folder, **more))

    @staticmethod
    def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        try:
            out, error = process.communicate(timeout=180)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, error)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    (tmp_path / "recipe.yaml").write_text("run: {dir: runs/it}\n")
    made.framework("echo not expected >&2; exit 99")
    return made
