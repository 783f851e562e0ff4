"""What the launch files start, refuse and return; the cluster tests try the same on real machinery."""

import os
import re
import shlex
import shutil
import signal
import stat
import sys
import time
from pathlib import Path

import pytest
import yaml

from .conftest import ROOT, Bench

RUN = ["--", "recipe.yaml", "--run.dir=runs/a b", "--note=it's, [1, 2]"]
SCRIPTS = sorted(
    path
    for folder in ("launch", "docker")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".sh", ".sbatch", ".py")
)


def ranks_of(printed: str) -> dict[str, list[str]]:
    """Words of each rank's command."""
    lines = (line.partition(":") for line in printed.splitlines() if line.startswith("rank "))
    return {rank: shlex.split(command)[1:] for rank, _, command in lines}


def test_scripts_can_be_started():
    assert len(SCRIPTS) > 8
    for path in SCRIPTS:
        # lib.sh is sourced.
        assert bool(path.stat().st_mode & stat.S_IXUSR) == (path.name != "lib.sh"), path


def test_the_documentation_names_files_that_exist():
    named = set(re.findall(r"(?:launch|docker|recipes)/[\w./-]*\w", (ROOT / "launch/README.md").read_text()))
    assert len(named) > 10
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_recipes_name_no_machines():
    recipes = sorted((ROOT / "recipes").rglob("*.yaml"))
    assert recipes
    for path in recipes:
        recipe = yaml.safe_load(path.read_text())
        assert not {"num_nodes", "devices", "strategy"} & recipe.get("trainer", {}).keys(), path
        assert recipe.get("strategy", {}).keys() <= {"compile", "activation_checkpointing"}, path


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("launch/slurm/submit.sh", ["--nodes", "2", "--devices=2", "--time=10", "--exclusive"]),
        ("launch/torchrun/train.sh", ["--nodes=1:2", "--devices", "2", "--master=host"]),
        ("launch/deepspeed/train.sh", ["--hostfile", "hosts"]),
    ],
)
def test_a_dry_run_prints_the_command_of_every_rank(bench: Bench, script: str, options: list[str]):
    (bench.folder / "hosts").write_text("# ours\na slots=2\nb slots=2\n")
    done = bench.run(script, "--dry-run", *options, *RUN)
    assert done.returncode == 0, done.stderr
    found = ranks_of(done.stdout)
    names = [f"rank {2 * node + device} (node {node}, device {device})" for node in (0, 1) for device in (0, 1)]
    assert list(found) == names
    given = ["fit", "--config", *RUN[1:], "--trainer.num_nodes=2", "--trainer.devices=2"]
    assert all(words == given for words in found.values())
    for place in ("runs/a b/checkpoints", "runs/a b/metrics", "offline, in runs/a b/wandb"):
        assert place in done.stdout
    assert not (bench.folder / "runs").exists()


def test_sbatch_gets_its_options_and_the_rest_unchanged(bench: Bench):
    bench.program("sbatch", '#!/bin/bash\nprintf "<%s>" "$@"; echo')
    options = ["--nodes=2", "--devices=8", "--time=10", "--exclusive=user"]
    done = bench.run("launch/slurm/submit.sh", *options, *RUN)
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()[0][1:-1].split("><")
    assert words[:2] == ["--time=10", "--exclusive=user"]
    assert words[2:5] == ["--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8"]
    assert words[5:] == ["--output=runs/a b/logs/slurm-%j.out", str(ROOT / "launch/slurm/train.sbatch"), *RUN[1:]]


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("slurm/submit.sh", ["--devices", "2", *RUN], "--nodes ''"),
        ("slurm/submit.sh", ["--nodes", "0", "--devices", "2", *RUN], "--nodes '0'"),
        ("slurm/submit.sh", ["--nodes", "2", "--devices"], "--devices without a value"),
        ("slurm/submit.sh", ["--nodes", "2", "--devices", "2"], "no -- before the recipe"),
        ("slurm/submit.sh", ["--nodes=2", "--devices=2", "--"], "no recipe"),
        ("slurm/submit.sh", ["--nodes=2", "--devices=2", "--", "none.yaml"], "recipe none.yaml is not a file"),
        ("slurm/submit.sh", ["--nodes=2", "--devices=2", "--", "recipe.yaml"], "run.dir is not set"),
        ("slurm/submit.sh", ["--nodes=2", "--devices=2", *RUN, "--wrong=1"], "unknown key wrong"),
        ("slurm/submit.sh", ["--nodes=2", "--devices=2", *RUN, "--trainer.devices=1"], "--trainer.devices among"),
        ("slurm/submit.sh", ["--nodes=1", "--devices=2", "--ntasks=1", *RUN], "--ntasks=1 among the options"),
        ("slurm/submit.sh", ["--nodes=1", "--devices=2", "-n1", *RUN], "-n1 among the options"),
        ("slurm/submit.sh", ["--nodes=1", "--devices=2", "--gpus-per-task=1", *RUN], "--gpus-per-task=1 among"),
        ("torchrun/train.sh", ["--nodes=3:1", "--devices=2", *RUN], "--nodes 3:1"),
        ("torchrun/train.sh", ["--nodes=2", "--devices=2", *RUN], "--master is not set"),
        ("torchrun/train.sh", ["--nodes=two", "--devices=2", *RUN], "--nodes 'two'"),
        ("torchrun/train.sh", RUN, "--devices is not set and there is no GPU"),
        ("torchrun/train.sh", ["--node=2", *RUN], "unknown option --node=2"),
        ("torchrun/train.sh", ["--devices=2", *RUN, "--trainer.num_nodes", "1"], "--trainer.num_nodes among"),
        ("deepspeed/train.sh", RUN, "--hostfile ''"),
        ("deepspeed/train.sh", ["--hostfile=uneven", *RUN], "hosts differ in slots"),
        ("deepspeed/train.sh", ["--hostfile=bad", *RUN], "bad: b slots=x"),
        ("deepspeed/train.sh", ["--hostfile=two", *RUN], "a space in "),
        ("rank.sh", ["recipe.yaml"], "no launcher has started this"),
    ],
)
def test_wrong_settings_are_refused_with_the_mend(bench: Bench, script: str, arguments: list[str], said: str):
    for launcher in ("sbatch", "torchrun", "deepspeed"):
        bench.program(launcher, f"#!/bin/sh\ntouch {bench.folder}/started")
    bench.program("nvidia-smi", "#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9")
    (bench.folder / "uneven").write_text("a slots=2\nb slots=4\n")
    (bench.folder / "bad").write_text("a slots=2\nb slots=x\n")
    (bench.folder / "two").write_text("a slots=2\nb slots=2\n")
    folder = bench.folder / "a b"
    for path in ("uneven", "bad", "two", "recipe.yaml"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes((bench.folder / path).read_bytes())
    done = bench.run(f"launch/{script}", *arguments, folder=folder if "--hostfile=two" in arguments else None)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert not (bench.folder / "started").exists()


# What each launcher tells the processes of 3 nodes with 4 each.
TORCHRUN = {"GROUP_WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "12"}
DEEPSPEED = {"CROSS_SIZE": "3", "LOCAL_SIZE": "4", "CROSS_RANK": "2", "WORLD_SIZE": "12"}
SRUN = {"SLURM_PROCID": "5", "SLURM_NNODES": "3", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NTASKS": "12"}


@pytest.mark.parametrize(
    ("more", "node_rank"),
    [
        ({**TORCHRUN, "SLURM_PROCID": "0", "SLURM_NNODES": "9"}, "none"),
        (DEEPSPEED, "2"),
        (SRUN, "none"),
    ],
    ids=["torchrun in a SLURM job", "deepspeed", "srun"],
)
def test_a_rank_takes_the_numbers_from_its_launcher(bench: Bench, more: dict[str, str], node_rank: str):
    bench.framework('echo "$OURS ${NODE_RANK:-none}"; printf "%s\\n" "$@"; exit 7')
    done = bench.run("launch/rank.sh", *RUN[1:], OURS="a  b", **more)
    assert done.returncode == 7
    assert done.stdout.splitlines() == [
        f"a  b {node_rank}", "fit", "--config", *RUN[1:], "--trainer.num_nodes=3", "--trainer.devices=4",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "asked", "said"),
    [
        # Nodes with other numbers of processes.
        ({**TORCHRUN, "WORLD_SIZE": "11"}, [], "11 process(es) were started on 3 node(s) with 4 here"),
        # Of a hostfile of 3 times 5.
        (DEEPSPEED, ["--processes=15"], "12 process(es) were started and 15 asked for"),
        ({**SRUN, "SLURM_NTASKS": "1"}, [], "1 process(es) were started on 3 node(s) with 4 here"),
    ],
)
def test_a_rank_refuses_to_be_of_fewer_than_were_asked_for(
    bench: Bench, given: dict[str, str], asked: list[str], said: str
):
    done = bench.run("launch/rank.sh", *asked, *RUN[1:], **given)
    assert done.returncode == 2
    assert said in done.stderr


# It does not listen at first, as a process that imports torch.
LISTENER = """
import os, signal, time
from pathlib import Path
Path("starting").touch()
time.sleep(1)
def save(*_):
    # Two signals may be there at once.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    print("saved", flush=True)
    os._exit(75)
signal.signal(signal.SIGUSR1, save)
Path("listening").touch()
while True:
    time.sleep(0.1)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "whole"),
    [(signal.SIGUSR1, False), (signal.SIGTERM, False), (signal.SIGUSR1, True)],
    ids=["USR1", "TERM", "USR1 to its group"],
)
@pytest.mark.parametrize("when", ["starting", "listening"])
def test_a_signal_reaches_a_rank_whenever_it_comes(bench: Bench, number: signal.Signals, when: str, whole: bool):
    bench.framework(f"exec {sys.executable} -S {bench.folder}/listener.py")
    (bench.folder / "listener.py").write_text(LISTENER)
    given = {"SLURM_PROCID": "0", "SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "1"}
    process = bench.start("launch/rank.sh", "recipe.yaml", **given)
    until = time.monotonic() + 60
    while not (bench.folder / when).exists() and time.monotonic() < until:
        time.sleep(0.02)
    # As SLURM does: to all processes, and more than once.
    for _ in range(3 if whole else 1):
        os.killpg(process.pid, number) if whole else process.send_signal(number)
        time.sleep(0.5)
    done = bench.finish(process)
    assert (done.returncode, done.stdout) == (75, "saved\n"), done.stderr


ONE = {"GROUP_WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "1"}
INTERRUPTED = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGUSR2, lambda *_: (print("saved", flush=True), os._exit(130)) if sys.argv[1] == "save" else None)
Path("listening").touch()
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("what", "times"), [("save", 1), ("hang", 2)])
def test_ctrl_c_saves_and_a_second_one_ends_at_once(bench: Bench, what: str, times: int):
    """The terminal sends it to all processes; torchrun's code says nothing."""
    bench.framework(f"exec {sys.executable} -S {bench.folder}/listener.py {what}")
    (bench.folder / "listener.py").write_text(INTERRUPTED)
    # It hears what it is told to hear, and waits for its processes.
    bench.program(
        "torchrun",
        """#!/bin/bash
        trap : USR2
        "${@:$(($# - 4))}" &
        while kill -0 $!; do wait; done 2>/dev/null
        exit 1
        """,
    )
    process = bench.start("launch/torchrun/train.sh", "--devices=1", *RUN, **ONE)
    until = time.monotonic() + 60
    while not (bench.folder / "listening").exists() and time.monotonic() < until:
        time.sleep(0.02)
    began = time.monotonic()
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.5)
    done = bench.finish(process)
    assert done.returncode == 130, done.stderr
    assert ("saved" in done.stdout) == (what == "save")
    assert done.stderr.count("Ctrl-C: the run saves itself") == 1
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 20


def mark_of(bench: Bench) -> Path:
    return bench.folder / "runs/a b/preempted.json"


@pytest.mark.slow
def test_torchrun_hides_the_code_and_the_mark_brings_it_back(bench: Bench):
    bench.program("torchrun", f'#!/bin/bash\n[ -z "$STOP" ] || touch "{mark_of(bench)}"\nexit 1')
    mark_of(bench).parent.mkdir(parents=True)
    assert bench.run("launch/torchrun/train.sh", "--devices=1", *RUN, STOP="1").returncode == 75
    # What an earlier start has left says nothing about this one.
    assert mark_of(bench).exists()
    assert bench.run("launch/torchrun/train.sh", "--devices=1", *RUN, STOP="").returncode == 1


def job(
    bench: Bench,
    *words: str,
    script: str = "launch/slurm/train.sbatch",
    root: Path = ROOT,
    name: str = "17",
    srun: str = 'exit "${CODE:-0}"',
    **more: str,
) -> tuple[int, str, list[str]]:
    """Runs the job file as SLURM would: its code, what it printed, the words that srun got."""
    # Words are not quoted, and the number of an array is that of all its tasks.
    shown = f"  Command={root / script} recipe.yaml --note=/a/b"
    bench.program("scontrol", f"#!/bin/bash\ncase $1$3 in show{name}) echo '{shown}';; *) echo \"$@\";; esac")
    bench.program("squeue", '#!/bin/bash\necho "${STATE:-RUNNING None}"')
    bench.program("srun", f'#!/bin/bash\nprintf "%s\\n" "$@" >{bench.folder}/srun; {srun}')
    given = {"SLURM_JOB_ID": "17", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "n[1-2]"}
    # SLURM runs a copy.
    copied = bench.folder / "spool/slurm_script"
    copied.parent.mkdir(exist_ok=True)
    shutil.copy(root / script, copied)
    done = bench.run(copied, *(words or RUN[1:]), **{**given, "SLURM_NTASKS": "4", **more})
    started = bench.folder / "srun"
    return done.returncode, done.stdout + done.stderr, started.read_text().splitlines() if started.exists() else []


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 1, 2, 75, 124, 137])
def test_a_job_ends_with_the_code_of_srun_and_requeues_itself_once(bench: Bench, code: int):
    ended, printed, words = job(bench, CODE=str(code))
    assert ended == code
    assert printed.count("requeue 17") == (code in (75, 124, 137))
    assert words[-5:] == [str(ROOT / "launch/rank.sh"), "--processes=4", *RUN[1:]]


def test_a_job_of_fewer_tasks_than_nodes_times_devices_is_refused(bench: Bench):
    code, printed, words = job(bench, SLURM_NTASKS="1")
    assert (code, words) == (2, [])
    assert "--ntasks 1, and 2 node(s) x 2 tasks are 4" in printed


@pytest.mark.slow
def test_a_task_of_an_array_is_named_by_its_place(bench: Bench):
    """The job's own number is, for the last task, that of the whole array."""
    (bench.folder / "grid.txt").write_text("--x=1\n--rate=2 '--note=a  b'\r\n")
    code, printed, words = job(
        bench, "grid.txt", *RUN[1:3],
        script="launch/sweep/array.sbatch", name="17_2", CODE="75", SLURM_ARRAY_JOB_ID="17", SLURM_ARRAY_TASK_ID="2",
    )  # fmt: skip
    assert code == 75
    assert "requeue 17_2" in printed
    assert words[-4:] == ["--run.dir=runs/a b", "--rate=2", "--note=a  b", "--run.dir=runs/a b/2"]


@pytest.mark.slow
def test_a_checkout_whose_path_has_spaces(bench: Bench):
    root = bench.folder / "my  checkout of it"
    shutil.copytree(ROOT / "launch", root / "launch")
    code, printed, words = job(bench, root=root)
    assert code == 0, printed
    assert words[-5:] == [str(root / "launch/rank.sh"), "--processes=4", *RUN[1:]]
    bench.program("torchrun", '#!/bin/bash\nprintf "%s\\n" "$@"')
    done = bench.run(root / "launch/torchrun/train.sh", "--devices=2", *RUN)
    assert done.stdout.splitlines()[-5:] == [str(root / "launch/rank.sh"), "--processes=2", *RUN[1:]], done.stderr


@pytest.mark.slow
def test_a_job_that_slurm_ends_is_not_requeued(bench: Bench):
    assert "requeue" not in job(bench, CODE="75", STATE="COMPLETING None")[1]
    assert "requeue" not in job(bench, CODE="143", STATE="COMPLETING TimeLimit")[1]
    assert "requeue 17" in job(bench, CODE="75", STATE="COMPLETING TimeLimit")[1]


@pytest.mark.slow
@pytest.mark.parametrize("state", ["COMPLETING TimeLimit", "COMPLETING None"])
def test_a_job_that_is_not_done_with_saving_at_its_limit_is_requeued_in_time(bench: Bench, state: str):
    """SLURM ends the script with SIGKILL soon after; of processes that are still starting there is nothing to hear."""
    at_limit = "kill -TERM $(ps -o ppid= -p $PPID); sleep 1; exit 75"
    printed = job(bench, srun=at_limit, STATE=state)[1]
    assert printed.count("requeue 17") == (state == "COMPLETING TimeLimit"), printed
    assert ("the time limit has come" in printed) == (state == "COMPLETING TimeLimit")
    if state == "COMPLETING TimeLimit":
        # Not for ever where no start reaches a checkpoint.
        assert "requeue" not in job(bench, srun=at_limit, STATE=state, MAX_CRASHES="1")[1]
        # Nor what its user has stopped, however long it takes to save itself.
        stopped = "trap '' USR2; " + at_limit.replace(
            "kill -TERM", "kill -INT $(ps -o ppid= -p $PPID); sleep 1; kill -TERM"
        ).replace("75", "130")
        code, printed, _ = job(bench, srun=stopped, STATE=state)
        assert (code, "requeue" in printed) == (130, False), printed


@pytest.mark.slow
def test_a_run_that_crashes_at_the_same_place_is_given_up(bench: Bench):
    newest = bench.folder / "runs/a b/checkpoints/newest"
    newest.parent.mkdir(parents=True)
    newest.write_text("step=00000010")
    for _ in range(2):
        assert "requeue 17" in job(bench, CODE="137", MAX_CRASHES="2")[1]
    newest.write_text("step=00000020")
    for _ in range(2):
        assert "requeue 17" in job(bench, CODE="124", MAX_CRASHES="2")[1]
    code, printed, _ = job(bench, CODE="137", MAX_CRASHES="2")
    assert code == 137
    assert "3 starts have ended without a checkpoint after step=00000020" in printed
    assert "requeue 17" not in printed


@pytest.mark.slow
def test_what_the_agent_of_a_sweep_starts(bench: Bench):
    sweep = yaml.safe_load((ROOT / "launch/sweep/sweep.yaml").read_text())
    chosen = [f"--{name}=1.0e-3" for name in sweep["parameters"]]
    shell, program, *rest = sweep["command"]
    assert (shell, program, rest.pop()) == ("bash", "${program}", "${args}")
    (bench.folder / "recipes").symlink_to(ROOT / "recipes")
    bench.program("torchrun", '#!/bin/bash\nprintf "%s\\n" "$@"')
    done = bench.run(sweep["program"], *rest, *chosen, WANDB_RUN_ID="abc")
    assert done.returncode == 0, done.stderr
    given = [str(ROOT / "launch/rank.sh"), "--processes=1", *rest, *chosen, "--run.dir=runs/sweep/abc"]
    assert done.stdout.splitlines()[-len(given) :] == given


@pytest.mark.slow
def test_containers(bench: Bench):
    _, _, words = job(bench, CONTAINER="registry/image:1", CONTAINER_MOUNTS="/data:/data")
    assert {"--container-image=registry/image:1", "--container-mounts=/data:/data"} <= set(words)
    assert words[-5:] == ["/opt/framework/launch/rank.sh", "--processes=4", *RUN[1:]]
    _, _, words = job(bench, CONTAINER="/images/framework.sif", CONTAINER_MOUNTS="/data:/data")
    enter = ["apptainer", "exec", "--nv", "--bind", "/data:/data", "/images/framework.sif"]
    assert words[-11:] == [*enter, "/opt/framework/launch/rank.sh", "--processes=4", *RUN[1:]]


def test_the_entry_point_runs_the_framework_or_a_program(bench: Bench):
    bench.framework('echo "framework $*, home $([ -w "$HOME" ] && echo writable)"')
    assert (
        bench.run("docker/entrypoint.sh", "fit", "--x=1", HOME="/proc").stdout == "framework fit --x=1, home writable\n"
    )
    assert bench.run("docker/entrypoint.sh", "bash", "-c", "echo $((1 + 1))").stdout == "2\n"


@pytest.mark.slow
@pytest.mark.usefixtures("warm_interpreter")
def test_the_real_command_line_refuses_an_unknown_setting(bench: Bench):
    python = f'#!/bin/sh\nexec {sys.executable} -m framework.cli.main "$@"\n'
    bench.program("framework", python)
    recipe = str(ROOT / "recipes/pra/digits.yaml")
    options = ["--dry-run", "--nodes=2", "--devices=1", "--", recipe, "--model.architecture.widht=3"]
    done = bench.run("launch/slurm/submit.sh", *options, PYTHONPATH=str(ROOT))
    assert done.returncode == 2
    assert "widht" in done.stderr
