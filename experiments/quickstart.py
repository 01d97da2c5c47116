"""A trained score model in three minutes on two cores: VP on 8 x 8 digits, three kinds of solver, the numbers, the pictures.

python -m experiments.quickstart --workdir quickstart
"""

import argparse
import time
from pathlib import Path
from typing import Any

import diffrax
import jax
import numpy as np
from absl import logging

from configs.digits.vp import get_config
from sdelab import ProbabilityFlow, ReverseSDE, grids, load, plot, solvers, trajectory
from sdelab.cli.xla_flags import choose_fusions
from sdelab.data import Dataset, load_dataset
from sdelab.evaluate import draw, held_out_bits, held_out_rows, label_agreement, sample_distances
from sdelab.train import fit, read_json_lines
from sdelab.train.record import write_json

STEPS, SAMPLES, LIKELIHOODS = 800, 200, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("quickstart"))
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps")
    arguments = parser.parse_args()
    logging.set_verbosity(logging.ERROR)  # Orbax reports every save
    started = time.perf_counter()
    numbers = run(arguments.workdir, arguments.steps)
    numbers["seconds"] = time.perf_counter() - started
    write_json(arguments.workdir / "numbers.json", numbers)
    print_table(numbers, arguments.workdir)


def run(workdir: Path, steps: int) -> dict[str, Any]:
    """Trains, samples, evaluates; writes the pictures and returns the numbers."""
    print(f"Training VP on digits, {steps} steps ...")
    config = get_config()
    config.run.steps, config.run.checkpoint_every, config.run.log_every = steps, steps, min(steps, 50)
    fit(config.to_dict(), workdir)
    plot.save(plot.loss_curve(read_json_lines(workdir / "metrics.jsonl")), workdir / "loss.png")

    sde, score = load(workdir)
    dataset = load_dataset("digits")
    labels = np.arange(SAMPLES, dtype=np.int32) % 10
    numbers: dict[str, Any] = {"training_steps": steps, "samplers": {}}
    for name, process, settings in samplers(sde, score):
        numbers["samplers"][name] = sample_and_draw(name, process, settings, labels, dataset, workdir)
    draw_filmstrip(ReverseSDE(sde, score, condition=np.arange(5, dtype=np.int32)), workdir)

    print("Bits/dim of held-out digits ...")
    assert dataset.held_out_labels is not None
    flow = ProbabilityFlow(sde, score, condition=dataset.held_out_labels[held_out_rows(dataset, LIKELIHOODS)])
    return numbers | held_out_bits(jax.random.key(2), flow, dataset, LIKELIHOODS, rtol=1e-4, atol=1e-4)


def samplers(sde: Any, score: Any) -> list[tuple[str, Any, dict[str, Any]]]:
    """Name, process and settings of the three kinds of solver."""
    grid = grids.uniform(sde, 200)
    corrected = solvers.PredictorCorrector(predictor=solvers.ReverseDiffusion(), corrector=solvers.Langevin(snr=0.16))
    return [
        ("euler_maruyama", ReverseSDE(sde, score), {"solver": solvers.EulerMaruyama(), "grid": grid}),
        ("predictor_corrector", ReverseSDE(sde, score), {"solver": corrected, "grid": grids.uniform(sde, 100)}),
        ("probability_flow", ProbabilityFlow(sde, score), {"solver": diffrax.Tsit5(), "rtol": 1e-3, "atol": 1e-3}),
    ]


def sample_and_draw(
    name: str, process: Any, settings: dict[str, Any], labels: np.ndarray, dataset: Dataset, workdir: Path
) -> dict[str, float]:
    """Samples, saves their picture, and judges them."""
    print(f"Sampling by {name.replace('_', ' ')} ...")
    started = time.perf_counter()
    shape = (len(labels), *dataset.event_shape)
    x, info = draw(jax.random.key(1), process, shape, condition=labels, finish=solvers.Tweedie(), **settings)
    x = np.asarray(x)
    seconds = time.perf_counter() - started
    title = f"{name.replace('_', ' ')}: one column a digit"
    plot.save(plot.image_grid(x[:100], columns=10, title=title), workdir / f"{name}.png")
    return {
        "seconds": seconds,
        "evaluations": float(np.mean(np.asarray(info.evaluations))),
        **label_agreement(x, labels, dataset),
        **sample_distances(jax.random.key(3), x, dataset),
    }


def draw_filmstrip(process: Any, workdir: Path) -> None:
    """Five digits on their way from noise."""
    grid = grids.uniform(process.sde, 200)
    times, states = trajectory(jax.random.key(4), process, (5, 8, 8, 1), solver=solvers.EulerMaruyama(), grid=grid)
    figure = plot.filmstrip(times, states, frames=11, title="from noise to digits 0 to 4")
    plot.save(figure, workdir / "filmstrip.png")


def print_table(numbers: dict[str, Any], workdir: Path) -> None:
    """The short table."""
    print(f"\n{'sampler':22}{'evaluations':>12}{'seconds':>9}{'recognised':>12}{'sliced W2':>11}")
    for name, row in numbers["samplers"].items():
        cells = f"{row['evaluations']:12.0f}{row['seconds']:9.1f}{row['classifier_agreement']:12.3f}"
        print(f"{name:22}{cells}{row['sliced_wasserstein']:11.3f}")
    real = next(iter(numbers["samplers"].values()))
    print(f"{'real training digits':55}{real['sliced_wasserstein_train']:11.3f}")
    print(f"{'real held-out digits':43}{real['classifier_accuracy']:12.3f}")
    print(f"\nheld-out bits/dim   {numbers['bits_per_dim']:.3f} ± {numbers['bits_per_dim_error']:.3f}")
    print(f"all of it           {numbers['seconds']:.0f} s; pictures and numbers.json are in {workdir}/")


if __name__ == "__main__":
    choose_fusions()
    main()
