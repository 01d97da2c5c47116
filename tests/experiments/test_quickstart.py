"""The quickstart runs from end to end and leaves what it says. Thirty steps say nothing about quality."""

import math

import pytest

from experiments import quickstart


@pytest.mark.slow
def test_it_leaves_pictures_and_finite_numbers(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(quickstart, "SAMPLES", 40)
    monkeypatch.setattr(quickstart, "LIKELIHOODS", 8)
    numbers = quickstart.run(tmp_path, 30)
    pictures = ["euler_maruyama", "filmstrip", "loss", "predictor_corrector", "probability_flow"]
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == pictures
    assert list(numbers["samplers"]) == ["euler_maruyama", "predictor_corrector", "probability_flow"]
    for row in numbers["samplers"].values():
        assert all(math.isfinite(value) for value in row.values())
        assert 0.0 <= row["classifier_agreement"] <= 1.0
    assert [row["evaluations"] for row in numbers["samplers"].values()][:2] == [201.0, 201.0]  # the last is Tweedie's
    assert numbers["bits_per_dim"] > 0.0
    assert math.isfinite(numbers["bits_per_dim"] + numbers["bits_per_dim_error"])
    quickstart.print_table({**numbers, "seconds": 1.0}, tmp_path)
    assert f"{numbers['bits_per_dim']:.3f}" in capsys.readouterr().out
