"""The image, built for real by buildah on a Debian made by debootstrap, with the packages that pip finds here."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.container
ROOT = Path(__file__).parents[2]
CODENAME = "bookworm"
# Of the pins, these are the build's own.
UNPINNED = {"framework", "pip", "setuptools"}

Buildah = Callable[..., str]


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """Runs buildah with a store of its own, which is removed with all its images."""
    if os.geteuid() != 0:
        pytest.skip("the base is made by debootstrap, which takes root")
    missing = [program for program in ("buildah", "debootstrap") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian's names; `make container` installs them)")
    store = tmp_path_factory.mktemp("store")
    places = ["--root", str(store / "root"), "--runroot", str(store / "run"), "--storage-driver", "vfs"]
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}

    def run(*arguments: str, timeout: float = 1800) -> str:
        done = subprocess.run(
            ["buildah", *places, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout
        )
        assert done.returncode == 0, f"buildah {arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()

    yield run
    run("rm", "--all")
    run("rmi", "--all", "--force")


def pip_settings(folder: Path) -> list[str]:
    """Options that give a build this machine's settings of pip: a configuration file, and the folders that it names."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    )
    settings: dict[str, str] = {}
    for line in listing.stdout.splitlines():
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = value.strip("'").replace("\\n", " ")
    file = folder / "pip.conf"
    lines = (f"{name} = {value}\n" for name, value in settings.items())
    file.write_text("[global]\n" + "".join(lines))
    words = " ".join(settings.values()).split()
    paths = {Path(word) for word in words if word.startswith("/")}
    # An index names files beside itself.
    paths |= {Path(word.removeprefix("file://")).parent for word in words if word.startswith("file://")}
    mounted = sorted(path for path in paths if path.exists())
    return [f"--volume={file}:/etc/pip.conf:ro", *(f"--volume={path}:{path}:ro" for path in mounted)]


@pytest.fixture(scope="module")
def image(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("image")
    base, packed = folder / "base", folder / "base.tar"
    packages = "--include=python3,python3-venv,ca-certificates"
    subprocess.run(
        ["debootstrap", "--variant=minbase", packages, CODENAME, str(base)],
        check=True, stdout=subprocess.DEVNULL, timeout=900,
    )  # fmt: skip
    subprocess.run(["tar", "-C", str(base), "-cf", str(packed), "."], check=True)
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, str(packed), "/")
    buildah("commit", "--quiet", "--rm", container, "base")
    shutil.rmtree(base)
    packed.unlink()
    options = ["--file=docker/Dockerfile", "--build-arg=BASE=localhost/base", "--build-arg=PACKAGES=", "--layers=false"]
    options += ["--build-arg=EXTRAS=s3", "--build-arg=REVISION=abc", "--pull=never"]
    buildah("build", *options, *pip_settings(folder), "--tag=framework", ".")
    return "localhost/framework"


@pytest.fixture
def inside(buildah: Buildah, image: str, tmp_path: Path) -> Callable[..., str]:
    """Runs a command in a container of the image by its entry point, with /mnt as a folder that it may write."""
    container = buildah("from", "--pull=never", image)
    work = tmp_path / "work"
    work.mkdir()
    work.chmod(0o777)

    def run(*command: str) -> str:
        options = [f"--volume={work}:/mnt", "--env=OMP_NUM_THREADS=1"]
        return buildah("run", *options, container, "--", "/opt/framework/entrypoint.sh", *command, timeout=600)

    return run


def test_the_image(buildah: Buildah, image: str, inside: Callable[..., str]):
    assert "fit" in inside("--help")
    assert inside("id", "-u") == "1000"
    assert "abc" in buildah("inspect", "--type=image", "--format={{.OCIv1.Config.Labels}}", image)

    pinned = dict(re.findall(r"^([^#=\s]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    pins = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    frozen = re.findall(r"^([^=@\s]+)(?:==(\S+)| @ .*)$", inside("/opt/venv/bin/pip", "freeze", "--all"), re.MULTILINE)
    installed = {name.lower().replace("_", "-"): version.partition("+")[0] for name, version in frozen}
    assert {name for name, version in installed.items() if pins.get(name) != version} <= UNPINNED

    assert set(inside("ls", "-A", "/opt/framework").split()) == {"launch", "recipes", "entrypoint.sh"}
    kept = "import os, framework, torch; print([os.path.exists(m.__cached__) for m in (framework, torch)])"
    assert inside("python", "-c", kept) == "[True, True]"


def test_two_steps_of_training(inside: Callable[..., str]):
    # The digits need scikit-learn, which the image leaves out: noise does for two steps.
    make = "from pathlib import Path\nfrom framework.testing.images import make_image_shards\n"
    inside("python", "-c", make + "make_image_shards(Path('/mnt/data'), size=16)")
    settings = [
        "--data.train=/mnt/data/shards",
        "--data.validation=null",
        "--data.batch_size=2",
        "--data.images.channels=3",
    ]
    settings += [
        "--model.architecture.num_classes=2",
        "--model.architecture.channels=3",
        "--model.grid.every_n_steps=0",
    ]
    settings += ["--trainer.max_steps=2", "--run.dir=/mnt/run"]
    printed = inside("launch/torchrun/train.sh", "--devices=1", "--", "recipes/pra/digits.yaml", *settings)
    assert "/mnt/run/checkpoints" in printed
    assert "step=00000002" in inside("ls", "/mnt/run/checkpoints")
