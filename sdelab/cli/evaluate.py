"""`sdelab evaluate`."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from sdelab._checks import check_count
from sdelab.cli.checkpoint import chosen_step
from sdelab.cli.choices import choose
from sdelab.cli.sample import choose_labels, define_options, read_options
from sdelab.cli.usage import UsageError, new_flags, parse, print_table
from sdelab.evaluate import draw, held_out_bits, held_out_rows, label_agreement, sample_distances
from sdelab.reverse import ProbabilityFlow
from sdelab.train import load_run
from sdelab.train.build import build_dataset
from sdelab.train.record import write_json
from sdelab.train.workdir import make_writable

SUMMARY = "Bits/dim of held-out data, and distances of samples to held-out data beside those of training data."


def run(argv: list[str]) -> int:
    """Evaluates, prints the table and writes `evaluation.json` in workdir."""
    values = new_flags()
    define_options(values)
    flags.DEFINE_integer("count", 256, "number of samples", flag_values=values)
    flags.DEFINE_integer("likelihoods", 256, "number of held-out data for bits/dim", flag_values=values)
    flags.DEFINE_integer("seed", 0, "seed of samples, dequantisation and projections", flag_values=values)
    given = parse(values, argv, SUMMARY)
    if given is None:
        return 0
    check_count(count=given.count)
    if given.likelihoods < 2:
        raise UsageError(f"--likelihoods={given.likelihoods} is not accepted; accepted: an integer >= 2.")
    numbers = evaluate(given)
    path = Path(given.workdir) / "evaluation.json"
    write_json(path, numbers)
    print_table([(name, f"{value:.4f}" if isinstance(value, float) else str(value)) for name, value in numbers.items()])
    print(f"written to {path}")
    return 0


def evaluate(given: Any) -> dict[str, Any]:
    """All numbers of a run, by name."""
    trained = load_run(given.workdir, given.average, step=chosen_step(given.workdir, given.checkpoint))
    options, count = read_options(given), given.count
    labels = choose_labels(trained, count, None)
    process, arguments = choose(options, trained.sde, trained.score)
    make_writable(Path(given.workdir), "workdir")
    dataset = build_dataset(trained.config)
    key_samples, key_bits, key_slices = jax.random.split(jax.random.key(given.seed), 3)

    theirs = dataset.held_out_labels if trained.conditional else None
    rows = held_out_rows(dataset, given.likelihoods)
    flow = ProbabilityFlow(trained.sde, trained.score, condition=None if theirs is None else theirs[rows])
    x, _ = draw(key_samples, process, (count, *trained.event_shape), condition=labels, **arguments)
    numbers = {"step": trained.step, "solver": options.solver, "samples": count}
    numbers |= held_out_bits(key_bits, flow, dataset, given.likelihoods)
    numbers |= sample_distances(key_slices, np.asarray(x), dataset)
    return numbers | ({} if labels is None else label_agreement(np.asarray(x), labels, dataset))
