"""`sdelab evaluate`."""

import contextlib
from pathlib import Path
from typing import Any

import jax
from absl import flags

from sdelab._checks import check_count
from sdelab.cli.checkpoint import chosen_step
from sdelab.cli.choices import choose
from sdelab.cli.devices import build_devices, define_devices, on_devices
from sdelab.cli.sample import choose_labels, define_options, open_shards, read_options
from sdelab.cli.usage import UsageError, new_flags, parse, print_table
from sdelab.evaluate import (
    AbstractParts,
    InMemory,
    complete,
    held_out_bits,
    held_out_rows,
    label_agreement,
    sample_distances,
    sampling,
)
from sdelab.reverse import ProbabilityFlow
from sdelab.train import TrainedRun, load_run
from sdelab.train.build import build_dataset
from sdelab.train.distributed import is_main
from sdelab.train.record import write_json
from sdelab.train.workdir import make_writable

SUMMARY = "Bits/dim of held-out data, and distances of samples to held-out data beside those of training data."


def run(argv: list[str]) -> int:
    """Evaluates, prints the table and writes `evaluation.json` in workdir; 42 when asked to stop and something is kept."""
    values = new_flags()
    define_options(values)
    define_devices(values)
    flags.DEFINE_integer("count", 256, "number of samples", flag_values=values)
    flags.DEFINE_integer("likelihoods", 256, "number of held-out data for bits/dim", flag_values=values)
    flags.DEFINE_integer("seed", 0, "seed of samples, dequantisation and projections", flag_values=values)
    help = "folder that keeps samples and likelihoods, for the same command to go on from if it was stopped (default: none)"
    flags.DEFINE_string("parts", None, help, flag_values=values)
    given = parse(values, argv, SUMMARY)
    if given is None:
        return 0
    check_count(count=given.count)
    if given.likelihoods < 2:
        raise UsageError(f"--likelihoods={given.likelihoods} is not accepted; accepted: an integer >= 2.")
    return on_devices(given, lambda: write_evaluation(given))


def write_evaluation(given: Any) -> None:
    """All numbers of a run, in its workdir and in a table. Every process has them; the first one writes."""
    numbers = evaluate(given)
    if is_main():
        path = Path(given.workdir) / "evaluation.json"
        write_json(path, numbers)
        print_table(
            [(name, f"{value:.4f}" if isinstance(value, float) else str(value)) for name, value in numbers.items()]
        )
        print(f"written to {path}")


def evaluate(given: Any) -> dict[str, Any]:
    """All numbers of a run, by name: the same on all devices, up to rounding."""
    placement = build_devices(given)
    step = chosen_step(given.workdir, given.checkpoint)
    trained = load_run(given.workdir, given.average, step=step, placement=placement)
    options, count = read_options(given), given.count
    labels = choose_labels(trained, count, None)
    process, arguments = choose(options, trained.sde, trained.score)
    make_writable(Path(given.workdir), "workdir")
    dataset = build_dataset(trained.config)
    key_samples, key_bits, key_slices = jax.random.split(jax.random.key(given.seed), 3)

    theirs = dataset.held_out_labels if trained.conditional else None
    rows = held_out_rows(dataset, given.likelihoods)
    flow = ProbabilityFlow(trained.sde, trained.score, condition=None if theirs is None else theirs[rows])
    work = sampling(key_samples, process, trained.event_shape, placement=placement, condition=labels, **arguments)
    with contextlib.ExitStack() as stack:
        samples = stack.enter_context(_open(given, trained, "samples", count))
        likelihoods = stack.enter_context(_open(given, trained, "likelihoods", len(rows)))
        complete(samples, work, placement, patience=given.patience)
        x = samples.read("x")
        numbers = {"step": trained.step, "solver": options.solver, "samples": count}
        numbers |= held_out_bits(
            key_bits, flow, dataset, given.likelihoods, placement=placement, parts=likelihoods, patience=given.patience
        )
    numbers |= sample_distances(key_slices, x, dataset)
    return numbers | ({} if labels is None else label_agreement(x, labels, dataset))


def _open(given: Any, trained: TrainedRun, name: str, count: int) -> AbstractParts:
    if given.parts is None:
        return InMemory(count, given.batch)
    return open_shards(Path(given.parts) / name, given, trained, "parts", count=count, seed=given.seed, of=name)
