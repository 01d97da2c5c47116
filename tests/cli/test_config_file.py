"""What a command line may change in a config file, and what a config file may import."""

import sys

import pytest

from sdelab.cli.base_config import image_config
from sdelab.cli.config_file import apply_overrides, load_config
from sdelab.cli.usage import UsageError


def changed(*overrides, **loss):
    config = image_config("digits", "VP")
    with config.unlocked():
        config.loss.update(loss)
    return apply_overrides(config, [f"--config.{override}" for override in overrides])


def test_what_the_parts_of_the_loss_take_can_be_given():
    base = changed()["loss"]
    assert changed("loss.times=importance")["loss"] == {**base, "times": "importance"}
    settings = changed("loss.gamma=3", "loss.weighting=min_snr", "loss.layout=stratified")["loss"]
    assert settings == {**base, "weighting": "min_snr", "gamma": 3.0, "layout": "stratified"}
    assert changed("loss.count=2", "loss.name=implicit", "loss.divergence=hutchinson")["loss"] == {
        "name": "implicit",
        "divergence": "hutchinson",
        "count": 2,
    }
    assert changed("loss.name=denoising")["loss"] == {**base, "name": "denoising"}


def test_a_new_part_drops_what_only_the_old_one_took():
    edm = {"weighting": "edm", "data_std": 0.5, "times": "log_normal", "mean": -0.4}
    settings = changed("loss.times=uniform", **edm)["loss"]
    assert settings == {"weighting": "edm", "data_std": 0.5, "times": "uniform", "t_min": 1e-5}
    assert changed("loss.weighting=edm", **edm)["loss"]["data_std"] == 0.5
    assert "data_std" not in changed("loss.weighting=min_snr", **edm)["loss"]


def test_keys_that_the_file_leaves_out_have_the_types_of_their_arguments():
    assert changed("run.placement=fsdp", "run.pieces=4")["run"]["pieces"] == 4
    network = changed("model.name=ncsnpp", "model.fir=(1,3,3,1)", "model.groups=8")["model"]
    assert network == {"name": "ncsnpp", "fir": (1, 3, 3, 1), "groups": 8}


def test_a_section_that_may_be_left_out_is_begun_by_its_name():
    config = image_config("digits", "VP")
    with config.unlocked():
        del config["augment"]
    with pytest.raises(UsageError, match=r"no section 'augment'; --config\.augment\.name=NAME gives it one"):
        apply_overrides(config, ["--config.augment.probability=0.1"])
    words = ["--config.augment.probability=0.1", "--config.augment.name=edm"]
    assert apply_overrides(config, words)["augment"] == {"name": "edm", "probability": 0.1}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "loss.timse=uniform",
            r"unknown key of config\.loss 'timse'\. Did you mean 'times'\? Known: error, layout, name",
        ),
        ("loss.times=uniforn", "unknown times 'uniforn'. Did you mean 'uniform'"),
        ("loss.name=denoisng", "unknown loss 'denoisng'. Did you mean 'denoising'"),
        ("loss.gamma=2", r"unknown key of config\.loss 'gamma'"),
        ("loss.sde=VP", r"unknown key of config\.loss 'sde'"),
        ("run.placment=fsdp", r"unknown key of config\.run 'placment'\. Did you mean 'placement'"),
        ("optim.beta=0.1", r"unknown key of config\.optim 'beta'"),
        ("run.pieces=many", "pieces=many"),
    ],
)
def test_what_nothing_reads_is_refused(override, message):
    with pytest.raises(UsageError, match=message):
        changed(override)


def test_a_config_imports_what_lies_beside_it_and_what_it_imported_is_forgotten(tmp_path, monkeypatch):
    source = "from parts_beside import DATA\nfrom sdelab.cli.base_config import toy_config\n"
    source += "def get_config():\n    import parts_late\n    return toy_config(DATA, parts_late.SDE)\n"
    for name, data in (("one", "rings"), ("two", "spiral")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.py").write_text(source)
        (tmp_path / name / "parts_beside.py").write_text(f"DATA = {data!r}\n")
        (tmp_path / name / "parts_late.py").write_text("SDE = 'VP'\n")
    path = list(sys.path)
    monkeypatch.chdir(tmp_path)
    assert load_config(str(tmp_path / "one" / "config.py")).data.name == "rings"
    assert load_config("two/config.py").data.name == "spiral"
    assert sys.path == path
    assert not {"parts_beside", "parts_late"} & set(sys.modules)
