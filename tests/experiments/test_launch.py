"""The launchers, as far as they go without a cluster: SLURM's on this machine with stand-ins for its commands."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sdelab.cli.main import run
from sdelab.train import PREEMPTED, read_json_lines
from sdelab.train.checkpoint import newest_sound_step
from tests.train.processes import free_port

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "experiments" / "launch"
SCRIPTS = [LAUNCH / "slurm.sbatch", LAUNCH / "tpu_vm.sh"]

CONFIG = """
from sdelab.cli.base_config import toy_config


def get_config():
    config = toy_config("two_moons", "VP")
    config.model.width, config.model.depth, config.optim.batch_size = 8, 1, 16
    config.run.update({"steps": 10**6, "log_every": 20, "checkpoint_every": 10**6, "placement": "data"})
    return config
"""

SRUN = """#!{python}
# Two tasks of what is asked for; with STOP set, one of them is asked to stop once there is a row of metrics.
import os, pathlib, signal, subprocess, sys, time

command = [word for word in sys.argv[1:]]
while command[0].startswith("--"):
    command.pop(0)
step = {{"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}}
tasks = [
    subprocess.Popen(command, env={{**os.environ, **step, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}})
    for i in range(2)
]
rows = pathlib.Path(os.environ["ROWS"])
while "STOP" in os.environ and not (rows.exists() and rows.stat().st_size) and all(t.poll() is None for t in tasks):
    time.sleep(0.02)
if "STOP" in os.environ:
    tasks[1].send_signal(signal.SIGTERM)
sys.exit(max(task.wait() & 0xFF for task in tasks))
"""


def write_command(folder, name, text):
    path = folder / name
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def cluster(tmp_path):
    """A folder with the commands `srun`, `scontrol`, which notes its words, and `sdelab`; and a sweep of two runs."""
    commands = tmp_path / "bin"
    commands.mkdir()
    write_command(commands, "srun", SRUN.format(python=sys.executable))
    write_command(commands, "scontrol", f'#!/bin/bash\necho "$@" >> {tmp_path}/scontrol\n')
    main = "from sdelab.cli import main; main()"
    write_command(commands, "sdelab", f"#!{sys.executable}\n{main}\n")
    (tmp_path / "config.py").write_text(CONFIG)
    sweep = ["--workdir", str(tmp_path / "sweep"), "--grid=optim.learning_rate=1e-3,1e-2"]
    assert run(["sdelab", "sweep", "--config", str(tmp_path / "config.py"), *sweep]) == 0
    return tmp_path


def submit(folder, *words, **variables):
    """The script as SLURM would start it; its output and exit code."""
    environment = {
        **os.environ,
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
        "JAX_COORDINATOR_PORT": str(free_port()),
        "SLURM_JOB_ID": "1234",
        "ROWS": str(folder / "sweep" / "learning_rate=1e-2" / "metrics.jsonl"),
        "http_proxy": "http://nowhere.invalid:1",
        **variables,
    }
    command = ["bash", str(SCRIPTS[0]), *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, cwd=folder)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_two_tasks_of_an_array_stop_are_requeued_and_go_on(cluster):
    """The second time as a run of its own, which the sweep's is too, so that it can be given an end."""
    workdir = cluster / "sweep" / "learning_rate=1e-2"
    code, output = submit(cluster, "sweep", cluster / "sweep", SLURM_ARRAY_TASK_ID="1", STOP="1")
    assert code == PREEMPTED, output
    assert (cluster / "scontrol").read_text() == "requeue 1234\n"
    stopped = int(newest_sound_step(workdir / "checkpoints").name)
    assert stopped >= 20
    words = ["--config.optim.learning_rate=1e-2", f"--config.run.steps={stopped + 20}"]
    code, output = submit(cluster, cluster / "config.py", workdir, *words)
    assert code == 0, output
    assert (cluster / "scontrol").read_text() == "requeue 1234\n"
    assert newest_sound_step(workdir / "checkpoints").name == str(stopped + 20)
    rows = [row["step"] for row in read_json_lines(workdir / "metrics.jsonl")]
    assert rows == list(range(20, stopped + 21, 20))  # one task writes them
    assert json.loads((workdir / "config.json").read_text())["optim"]["learning_rate"] == 1e-2


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (42, True), (137, False)])
def test_only_a_run_that_saved_and_stopped_goes_back_to_the_queue(tmp_path, code, requeued):
    (tmp_path / "bin").mkdir()
    write_command(tmp_path / "bin", "srun", f'#!/bin/bash\nprintf "%s|" "$@" > {tmp_path}/srun\nexit {code}\n')
    write_command(tmp_path / "bin", "scontrol", f'#!/bin/bash\necho "$@" >> {tmp_path}/scontrol\n')
    assert submit(tmp_path, "a b.py", "run s", "--config.seed=3")[0] == code
    assert (tmp_path / "scontrol").exists() == requeued
    words = (tmp_path / "srun").read_text().split("|")[:-1]
    assert words[-6:] == ["train", "--config", "a b.py", "--workdir", "run s", "--config.seed=3"]


def test_slurm_s_script_says_what_it_lacks(tmp_path):
    assert submit(tmp_path, "config.py")[0] == 2
    code, output = submit(tmp_path, "sweep", tmp_path)
    assert code != 0
    assert "a sweep is an array" in output


GCLOUD = """#!/bin/bash
# A slice that is taken away during the first training, and trains to its end the second time.
echo "$4" >> {folder}/calls
case "$4" in
  describe) cat {folder}/state 2>/dev/null || exit 1 ;;
  create) echo READY > {folder}/state ;;
  delete) rm -f {folder}/state ;;
  ssh)
    [[ "$*" == *"sdelab train"* ]] || exit 0
    echo "$*" >> {folder}/trainings
    [[ -e {folder}/taken ]] || {{ touch {folder}/taken; echo PREEMPTED > {folder}/state; exit 255; }} ;;
esac
"""


def test_a_slice_that_was_taken_away_is_made_anew_and_the_training_goes_on(tmp_path):
    (tmp_path / "bin").mkdir()
    write_command(tmp_path / "bin", "gcloud", GCLOUD.format(folder=tmp_path))
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PROJECT_FILES": "10.0.0.2:/share", "ZONE": "z"}
    words = ["v5litepod-16", "config.py", "runs/vp", "--config.sde.beta_max=12", "--config.model.multipliers=(1, 2)"]
    subprocess.run(["bash", str(SCRIPTS[1]), *words], env=environment, check=True, timeout=60)
    calls = (tmp_path / "calls").read_text().split()
    once = ["describe", "delete", "create", "ssh", "ssh", "describe"]
    assert calls == [*once, *once[:-1], "delete"]
    first, second = (tmp_path / "trainings").read_text().splitlines()
    assert first == second
    assert "--worker=all" in first
    assert "--cluster=cloud_tpu" in first
    assert "'--config.sde.beta_max=12' '--config.model.multipliers=(1, 2)'" in first


def test_the_jobset_asks_for_as_many_hosts_as_the_slice_has():
    jobset = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    assert (jobset["kind"], jobset["apiVersion"]) == ("JobSet", "jobset.x-k8s.io/v1alpha2")
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    container = pod["containers"][0]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert (
        job["parallelism"] == job["completions"] == rows * columns // container["resources"]["limits"]["google.com/tpu"]
    )
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [PREEMPTED]
    assert pod["restartPolicy"] == "Never"
    config = next(word for word in container["command"] if word.startswith("--config=")).removeprefix("--config=")
    assert (ROOT / config).is_file()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_the_scripts_are_sound(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(path)], check=True)
    assert f"PREEMPTED={PREEMPTED} " in path.read_text()
