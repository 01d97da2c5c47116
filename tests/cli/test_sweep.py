"""A sweep is its grid: every combination once, each a run that `sdelab train` of the same words would be."""

import itertools
import json

import pytest

from sdelab.cli.grid import combinations, parse_axes
from sdelab.cli.main import run
from sdelab.cli.usage import UsageError

CONFIG = """
from sdelab.cli.base_config import toy_config


def get_config():
    config = toy_config("rings", "VP")
    config.model.width, config.model.depth = 8, 1
    config.optim.batch_size = 16
    config.run.steps, config.run.log_every, config.run.checkpoint_every = 4, 2, 4
    return config
"""


@pytest.fixture
def command(tmp_path, capsys):
    (tmp_path / "config.py").write_text(CONFIG)

    def sdelab(*words):
        code = run(["sdelab", *(str(word).format(tmp_path) for word in words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return sdelab


def listed(tmp_path):
    return [json.loads(line) for line in (tmp_path / "sweep" / "runs.jsonl").read_text().splitlines()]


PLAN = ("sweep", "--config={0}/config.py", "--workdir={0}/sweep")
GRID = ("--grid=optim.learning_rate=1e-3,0.01", "--grid", "sde=VP,SubVP", "--grid=model.width=16")


def test_a_sweep_lists_every_combination_with_its_config(command, tmp_path):
    code, out, _ = command(*PLAN, *GRID, "--config.seed=5")
    assert code == 0
    runs = listed(tmp_path)
    assert [one["index"] for one in runs] == list(range(4))
    found = [
        (r["config"]["optim"]["learning_rate"], r["config"]["sde"]["name"], r["config"]["model"]["width"]) for r in runs
    ]
    assert found == list(itertools.product((1e-3, 0.01), ("VP", "SubVP"), (16,)))
    assert {one["config"]["seed"] for one in runs} == {5}
    assert runs[0]["name"] == "learning_rate=1e-3,sde=VP,width=16"
    assert len({one["name"] for one in runs}) == 4
    assert all(f"{tmp_path}/sweep/{one['name']}" in out for one in runs)
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["runs.jsonl"]
    before = (tmp_path / "sweep" / "runs.jsonl").read_bytes()
    assert command(*PLAN, *GRID, "--config.seed=5")[0] == 0  # the same again
    code, _, err = command(*PLAN, *GRID)
    assert (code, (tmp_path / "sweep" / "runs.jsonl").read_bytes()) == (2, before)
    assert "runs.jsonl lists another sweep" in err


@pytest.mark.slow
def test_a_run_of_a_sweep_trains_in_its_own_workdir(command, tmp_path):
    assert command(*PLAN, "--grid=sde.beta_max=5,10")[0] == 0
    (tmp_path / "config.py").unlink()  # the list has all that a run needs
    code, out, err = command("sweep", "run", "--workdir={0}/sweep", "--index=1")
    assert (code, err) == (0, "")
    workdir = tmp_path / "sweep" / "beta_max=10"
    assert str(workdir) in out
    assert json.loads((workdir / "config.json").read_text()) == listed(tmp_path)[1]["config"]
    assert not (tmp_path / "sweep" / "beta_max=5").exists()
    code, _, err = command("sweep", "run", "--workdir={0}/sweep", "--index=2")
    assert (code, err) == (
        2,
        f"sdelab: --index=2 is not accepted; the sweep in {tmp_path}/sweep has the runs 0 to 1.\n",
    )
    code, _, err = command("sweep", "run", "--workdir={0}/nothing", "--index=0")
    assert code == 2
    assert "no sweep in" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--grid is missing"),
        (["--grid=sde"], "--grid=sde is not accepted; accepted: KEY=VALUE"),
        (["--grid=seed=1,,2"], "--grid=seed=1,,2 is not accepted"),
        (["--grid=seed=1,2,1"], "the value 1 comes twice"),
        (["--grid=seed=1", "--grid=seed=2"], "seed comes twice"),
        (["--grid=seed=1,2", "--config.seed=3"], "seed is fixed by --config.seed and an axis of the grid"),
        (
            ["--grid=optim.learning_rate=1e-3,0.001"],
            "learning_rate=1e-3 and learning_rate=0.001 of the grid are one run",
        ),
        (["--grid=optim.b1=0.5,1.5"], "the run b1=1.5: config.optim: b1 = 1.5 is not accepted"),
        (["--grid=optim.beta=0.5"], "the run beta=0.5: unknown key of config.optim 'beta'"),
        (["--grid=model.classes=0,7"], "the run classes=7: config.model: classes = 7 is not accepted"),
        (["--grid=data=arrays", "--grid=data.path=a.npy,b.npy"], "the run data=arrays,path=a.npy: path = 'a.npy'"),
    ],
)
def test_nothing_is_written_of_a_sweep_with_something_wrong(command, tmp_path, words, message):
    code, _, err = command(*PLAN, *words)
    assert code == 2
    assert message in err
    assert not (tmp_path / "sweep").exists()


def test_names_are_short_where_they_tell_and_are_letters_that_a_shell_leaves_alone():
    axes = parse_axes(["sde.t_min=1e-3", "loss.t_min=1e-5", "model.multipliers=(1,2),(1, 2, 2)", "model=unet"])
    assert [one.name for one in combinations(axes)] == [
        "sde.t_min=1e-3,loss.t_min=1e-5,multipliers=1-2,model=unet",
        "sde.t_min=1e-3,loss.t_min=1e-5,multipliers=1-2-2,model=unet",
    ]
    assert combinations(axes)[1].overrides[2:] == ("--config.model.multipliers=(1, 2, 2)", "--config.model.name=unet")
    with pytest.raises(UsageError, match="2 runs of the grid have the name fit=a-b"):
        combinations(parse_axes(["data.fit=a/b,a:b"]))
    with pytest.raises(UsageError, match="has a name of 256 characters; accepted: 200"):
        combinations({"data.path": ["x" * 251]})
