"""torchrun on several hosts by the shipped script: nodes that leave and come back, signals, DeepSpeed's launcher."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from framework.report.run_summary import read_run
from framework.training.checkpoint.read import find_checkpoint, read_tensors

from .conftest import ROOT, TRAINING, Hosts, losses, wait_for_step, wait_until

pytestmark = pytest.mark.cluster
RECIPE = ROOT / "recipes/pra/digits.yaml"
TRAIN = str(ROOT / "launch/torchrun/train.sh")
Overrides = Callable[..., list[str]]


def worlds(log: Path) -> list[int]:
    """Numbers of processes of each start."""
    return [int(number) for number in re.findall(r"Starting with (\d+) processes", log.read_text(errors="replace"))]


def sizes(log: Path) -> list[int]:
    """The same, as any rank tells it."""
    return [
        int(number) for number in re.findall(r"GLOBAL_RANK: \d+, MEMBER: \d+/(\d+)", log.read_text(errors="replace"))
    ]


def end(process: "subprocess.Popen[bytes]", log: Path, timeout: float = 300) -> int:
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"not ended after {timeout} s:\n{log.read_text(errors='replace')[-5000:]}") from None


def test_nodes_leave_and_come_back(hosts: Hosts, overrides: Overrides, tmp_path: Path):
    """2 -> 1 -> 2 nodes, to the end: the same samples, whatever the number of nodes."""
    steps, run_dir = 600, tmp_path / "run"
    # They meet at the host that stays; b is the one that crashes.
    command = [TRAIN, "--nodes=1:2", "--devices=1", "--master=a", "--max-restarts=10", "--", str(RECIPE)]
    # One process takes all of a global batch, by accumulation.
    command += [*overrides(trainer__max_steps=str(steps)), f"--run.dir={run_dir}"]
    log_a, log_b = tmp_path / "a.log", tmp_path / "b.log"
    a = hosts.start("a", *command, log=log_a)
    b = hosts.start("b", *command, log=log_b)
    wait_for_step(run_dir, 45)
    assert sizes(log_a) == [2], log_a.read_text()
    hosts.kill("b")
    b.wait(10)
    # One process is no group, and has no size to tell.
    wait_until(lambda: "resuming from" in log_a.read_text(), 200, "the run to go on alone")
    seen = max(losses(run_dir))
    wait_for_step(run_dir, seen + 20)
    hosts.script("start", "b")
    b = hosts.start("b", *command, log=log_b)
    wait_until(lambda: sizes(log_a) == [2, 2], 200, "the run to go on with the host that came back")
    assert end(a, log_a) == 0, log_a.read_text(errors="replace")[-5000:]
    assert end(b, log_b) == 0, log_b.read_text(errors="replace")[-5000:]
    assert sorted(losses(run_dir)) == list(range(steps))

    alone = tmp_path / "alone"
    single = [TRAIN, "--devices=1", *command[command.index("--") : -1], f"--run.dir={alone}"]
    assert end(hosts.start("c", *single, log=tmp_path / "c.log"), tmp_path / "c.log") == 0
    ours, theirs = (read_tensors(find_checkpoint(folder), "") for folder in (run_dir, alone))
    assert ours.keys() == theirs.keys()
    # Other samples, or another order of them, would be far from it.
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_any_node_may_be_lost_when_they_meet_outside(hosts: Hosts, overrides: Overrides, tmp_path: Path):
    run_dir = tmp_path / "run"
    store = hosts.start("c", str(ROOT / "launch/torchrun/store.sh"), log=tmp_path / "c.log")
    wait_until(lambda: "serving" in (tmp_path / "c.log").read_text(), 60, "the store")
    command = [
        TRAIN,
        "--nodes=1:2",
        "--devices=1",
        "--master=c",
        "--outside",
        "--",
        str(RECIPE),
        f"--run.dir={run_dir}",
    ]
    command += overrides(trainer__max_steps="100")
    logs = {host: tmp_path / f"{host}.log" for host in ("a", "b")}
    started = {host: hosts.start(host, *command, log=log) for host, log in logs.items()}
    wait_for_step(run_dir, 25)
    # The first to go is that of rank 0, where the processes meet.
    first = next(host for host, log in logs.items() if "MEMBER: 1/2" in log.read_text())
    hosts.kill(first)
    started.pop(first).wait(10)
    [(host, process)] = started.items()
    assert end(process, logs[host]) == 0, logs[host].read_text(errors="replace")[-5000:]
    assert sorted(losses(run_dir)) == list(range(100))
    store.kill()
    store.wait()


def test_a_killed_process_is_started_again(hosts: Hosts, overrides: Overrides, tmp_path: Path):
    run_dir, log = tmp_path / "run", tmp_path / "log"
    command = [TRAIN, "--devices=2", "--", str(RECIPE), *overrides(trainer__max_steps="150"), f"--run.dir={run_dir}"]
    process = hosts.start("a", *command, log=log)
    wait_for_step(run_dir, 25)
    hosts.run("a", "pkill", "-9", "--oldest", "-f", TRAINING)
    assert end(process, log) == 0, log.read_text(errors="replace")[-5000:]
    assert worlds(log) == [2, 2]
    assert sorted(losses(run_dir)) == list(range(150))


@pytest.mark.parametrize("name", ["TERM", "USR1"])
def test_a_signal_to_every_node_ends_with_75_and_the_next_start_goes_on(
    hosts: Hosts, overrides: Overrides, tmp_path: Path, name: str
):
    run_dir, logs = tmp_path / "run", {host: tmp_path / f"{host}.log" for host in ("a", "b")}
    options = ["--nodes=2", "--devices=1", "--master=a", "--", str(RECIPE), f"--run.dir={run_dir}"]
    started = {
        host: hosts.start(host, TRAIN, *options, *overrides(trainer__max_steps="1000000"), log=log)
        for host, log in logs.items()
    }
    wait_for_step(run_dir, 5)
    for host in started:
        hosts.run(host, "pkill", f"-{name}", "--oldest", "-f", "torchrun/train.sh")
    assert {host: end(process, logs[host]) for host, process in started.items()} == {"a": 75, "b": 75}
    assert "with everything saved" in logs["a"].read_text() + logs["b"].read_text()
    assert (run_dir / "preempted.json").exists()
    last = max(losses(run_dir))
    for host, log in logs.items():
        started[host] = hosts.start(host, TRAIN, *options, *overrides(trainer__max_steps=str(last + 10)), log=log)
    assert {host: end(process, logs[host]) for host, process in started.items()} == {"a": 0, "b": 0}
    assert sorted(losses(run_dir)) == list(range(last + 10))
    assert not (run_dir / "preempted.json").exists()


def test_ctrl_c_at_a_terminal_saves_and_ends_with_130(hosts: Hosts, overrides: Overrides, tmp_path: Path):
    run_dir, log = tmp_path / "run", tmp_path / "log"
    command = [
        TRAIN,
        "--devices=2",
        "--",
        str(RECIPE),
        *overrides(trainer__max_steps="1000000"),
        f"--run.dir={run_dir}",
    ]
    # A terminal's Ctrl-C reaches the whole group.
    process = hosts.start("a", "setsid", "--wait", *command, log=log)
    wait_for_step(run_dir, 5)
    leader = hosts.run("a", "pgrep", "--oldest", "-f", "bash .*torchrun/train.sh").strip()
    hosts.run("a", "kill", "-INT", "--", f"-{leader}")
    assert end(process, log) == 130, log.read_text(errors="replace")[-5000:]
    assert "with everything saved" in log.read_text(errors="replace")
    assert read_run(run_dir).state == "interrupted"
    assert not (run_dir / "preempted.json").exists()


def test_nodes_with_other_numbers_of_processes_are_refused(hosts: Hosts, overrides: Overrides, tmp_path: Path):
    logs = {host: tmp_path / f"{host}.log" for host in ("a", "b")}
    started = {
        host: hosts.start(
            host, TRAIN, "--nodes=2", f"--devices={devices}", "--master=a", "--max-restarts=0", "--", str(RECIPE),
            *overrides(trainer__max_steps="3"), f"--run.dir={tmp_path / 'run'}", log=logs[host],
        )
        for host, devices in (("a", 1), ("b", 2))
    }  # fmt: skip
    assert {host: end(process, logs[host]) for host, process in started.items()} == {"a": 1, "b": 1}
    assert "3 process(es) were started and 2 asked for" in logs["a"].read_text(errors="replace")
    assert "3 process(es) were started and 4 asked for" in logs["b"].read_text(errors="replace")


def test_deepspeed_s_launcher_with_a_hostfile(hosts: Hosts, overrides: Overrides, tmp_path: Path):
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    (tmp_path / "hostfile").write_text("a slots=1\nb slots=1\n")
    run_dir = tmp_path / "run"
    master = re.findall(r"^(\S+) a$", (hosts.folder / "hosts").read_text(), re.MULTILINE)[0]
    # Without ssh, which the hosts do not have: the same command on each.
    command = [str(ROOT / "launch/deepspeed/train.sh"), f"--hostfile={tmp_path}/hostfile", "--no_ssh"]
    command += [f"--master_addr={master}"]
    run = ["--", str(RECIPE), *overrides(trainer__max_steps="5"), f"--run.dir={run_dir}"]
    logs = {host: tmp_path / f"{host}.log" for host in ("a", "b")}
    started = [
        hosts.start(host, *command, f"--node_rank={rank}", *run, log=log, DS_ACCELERATOR="cpu")
        for rank, (host, log) in enumerate(logs.items())
    ]
    ended = [end(process, log) for process, log in zip(started, logs.values(), strict=True)]
    assert ended == [0, 0], logs["a"].read_text()[-3000:] + logs["b"].read_text()[-3000:]
    assert "Starting with 2 processes" in logs["a"].read_text()
    assert sorted(losses(run_dir)) == list(range(5))
