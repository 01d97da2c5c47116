"""`sdelab doctor`."""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from absl import flags

from sdelab._checks import check_count
from sdelab.cli.config_file import apply_overrides, load_config, split_overrides
from sdelab.cli.usage import parse
from sdelab.evaluate.doctor import BAD, WARN, Examination, Finding, Moments, bounded, examine, measured
from sdelab.losses import UniformTime
from sdelab.train.build import PRECONDITIONERS, build_dataset, build_sde, check_sections, declare_dataset, named
from sdelab.train.objective import named_parts

SUMMARY = """Says whether the process, the data and the arithmetic of a config belong together, before anything is trained.

Measures the training data where they are there, and bounds them by their scaling where not. Exits with 1 if something is bad."""
UNWELL = 1


def run(argv: list[str]) -> int:
    """Examines and prints; 0, or 1 if something is bad."""
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "path of a config file", flag_values=values)
    flags.DEFINE_integer("samples", 2000, "number of training samples that are measured", flag_values=values)
    flags.DEFINE_integer("steps", 1000, "steps of sampling, and of a discretisation", flag_values=values)
    rest, overrides = split_overrides(argv)
    given = parse(values, rest, SUMMARY, required=("config",))
    if given is None:
        return 0
    check_count(samples=given.samples, steps=given.steps)
    config = apply_overrides(load_config(given.config), overrides)
    check_sections(config)
    moments = find_moments(config, given.samples)
    findings = examine(examination(config, moments, given.steps))
    for finding in findings:
        _print(finding)
    counts = {verdict: sum(finding.verdict == verdict for finding in findings) for verdict in (WARN, BAD)}
    print(f"{len(findings)} looked at, {counts[WARN]} doubtful, {counts[BAD]} bad.")
    return UNWELL if counts[BAD] else 0


def find_moments(config: Mapping[str, Any], samples: int) -> Moments:
    """Of the training data, or bounds if they are not there, which is said."""
    try:
        dataset = build_dataset(config)
    except FileNotFoundError as error:
        moments = bounded(declare_dataset(config))
        print(f"sdelab: warning: {error} What is known without it are bounds.", file=sys.stderr)
        return moments
    moments = measured(dataset, samples)
    print(
        f"{moments.samples} of {len(dataset.train)} training samples of {dataset.name} measured, {moments.dims} values each."
    )
    return moments


def examination(config: Mapping[str, Any], moments: Moments, steps: int) -> Examination:
    """What a config says of the things that are examined."""
    sde, model, loss = build_sde(config), config["model"], config["loss"]
    preconditioner = named("preconditioner", PRECONDITIONERS, config["preconditioner"])
    fields = {field.name: getattr(preconditioner, field.name) for field in dataclasses.fields(preconditioner)}
    uniform = named_parts(loss).get("times") in ("uniform", "importance")
    return Examination(
        sde=sde,
        moments=moments,
        t_min=loss.get("t_min", UniformTime().t_min) if uniform else None,
        steps=fields.get("n", steps),  # that of a discrete model's table
        data_std=float(fields["data_std"]) if "data_std" in fields else None,
        centred=model.get("centered"),
        dtype=str(model.get("dtype", "float32")),
    )


def _print(finding: Finding) -> None:
    print(f"{finding.verdict:4}  {finding.name}: {finding.value}")
    print(f"      usual: {finding.usual}")
    if finding.advice:
        print(f"      change: {finding.advice}")
