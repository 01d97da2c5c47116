"""`sdelab diff` against records that differ where they were made to."""

import copy
import json

import pytest

from sdelab.cli.main import run
from sdelab.train.log import TIMES

RECORD = {
    "config": {"seed": 0, "sde": {"name": "VP", "beta_max": 20.0}, "model": {"multipliers": [1, 2]}},
    "data": {"sha256": "abc"},
    "versions": {"jax": "0.10.2"},
    "starts": [
        {"time": "2026-01-01", "git": {"sdelab": None}, "devices": {"cpu": 1}},
        {
            "time": "2026-01-02",
            "git": {"sdelab": {"revision": "f00"}},
            "devices": {"cpu": 8},
            "command": ["sdelab", "train"],
        },
    ],
}


def write(folder, record=RECORD, rows=({"step": 10, "loss": 0.5, **dict.fromkeys(TIMES, 0.7)},), evaluation=None):
    folder.mkdir()
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if evaluation is not None:
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return folder


@pytest.fixture
def diff(capsys):
    def command(*words):
        code = run(["sdelab", "diff", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err

    return command


def test_runs_of_one_record_and_one_end_do_not_differ(tmp_path, diff):
    other = copy.deepcopy(RECORD)
    other["starts"][-1]["time"] = "2026-02-02"
    one = write(tmp_path / "one")
    two = write(
        tmp_path / "two", other, ({"step": 5, "loss": 9.0}, {"step": 10, "loss": 0.5, **dict.fromkeys(TIMES, 0.1)})
    )
    assert diff(one, one) == (0, [], "")
    assert diff(one, two) == (0, [], "")


def test_what_differs_is_said_with_both_values(tmp_path, diff):
    other = copy.deepcopy(RECORD)
    other["config"]["sde"] = {"name": "VE", "sigma_max": 50.0}
    other["config"]["model"]["multipliers"] = [1, 2, 2]
    other["data"]["sha256"] = None
    other["starts"] = [{**other["starts"][-1], "git": {"sdelab": {"revision": "bad"}}, "command": ["sdelab"]}]
    one = write(tmp_path / "one")
    two = write(tmp_path / "two", other, ({"step": 10, "loss": 0.25},), {"bits_per_dim": 3.2})
    expected = [
        "config.model.multipliers: [1, 2] -> [1, 2, 2]",
        "config.sde.beta_max: 20.0 -> -",
        "config.sde.name: VP -> VE",
        "config.sde.sigma_max: - -> 50.0",
        "data.sha256: abc -> null",
        "evaluation.bits_per_dim: - -> 3.2",
        "metrics.loss: 0.5 -> 0.25",
        'start.command: ["sdelab", "train"] -> ["sdelab"]',
        "start.git.sdelab.revision: f00 -> bad",
    ]
    assert diff(one, two) == (1, expected, "")
    assert diff(one, two, "--only=data,metrics")[:2] == (1, [expected[4], expected[6]])
    assert diff(one, two, "--only=versions")[:2] == (0, [])


def test_records_of_any_form_are_compared(tmp_path, diff):
    one, two = write(tmp_path / "one", {"starts": 3, "x": {}}, ()), write(tmp_path / "two", [1, 2], ())
    assert diff(one, two)[0] == 1
    assert diff(two, two)[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{0}/one {0}", "no run in {0}: it has no record.json."),
        ("{0}/one", "OTHER is missing"),
        ("{0}/one {0}/torn", "{0}/torn/record.json is damaged"),
        ("{0}/one {0}/one --only=versoins", "unknown section 'versoins'. Did you mean 'versions'"),
    ],
)
def test_what_is_no_run_is_an_error_of_its_own(tmp_path, diff, words, message):
    write(tmp_path / "one")
    (write(tmp_path / "torn") / "record.json").write_text("{")
    code, out, err = diff(*words.format(tmp_path).split())
    assert (code, out) == (2, [])
    assert message.format(tmp_path) in err
