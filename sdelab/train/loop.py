"""Training from a configuration to a directory that holds the run. Meant to be read top to bottom, and forked."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from sdelab.data import Batches
from sdelab.train.build import Experiment, build, init_params
from sdelab.train.checkpoint import Checkpoints
from sdelab.train.log import Log, open_writers, summary_writer
from sdelab.train.record import check_same_run, describe, write_json
from sdelab.train.signals import Preempted, StopRequest
from sdelab.train.state import TrainState, init_state
from sdelab.train.step import METRICS, make_train_step
from sdelab.train.window import empty_window, read_window, with_window
from sdelab.train.workdir import RECORD, check_recorded, claim


def fit(config: Mapping[str, Any], workdir: Path | str) -> TrainState:
    """Trains what `config` describes, or goes on where `workdir` was left, and returns the final state.

    `workdir` receives `config.json`, `record.json`, `checkpoints/`, `metrics.jsonl` and, if asked for, `tensorboard/`. A
    resumed run equals an uninterrupted one bit for bit: batch and randomness are functions of the step. A run that has
    its steps, or more, is left as it is.

    Errors: those of `build`; `MissingExtra`; `WorkdirInUse`; `CheckpointMismatch`; `NonFiniteMetric`, with the last good
    checkpoint kept; `Preempted`, on SIGTERM or Ctrl-C once the state is saved.
    """
    experiment, workdir = build(config), Path(workdir)
    run, record = experiment.run, describe(config, experiment.dataset)
    if run.tensorboard:
        summary_writer()  # before there are any files
    step_fn = jax.jit(with_window(_train_step(experiment)), donate_argnums=0)
    batches = Batches(experiment.dataset, experiment.optim.batch_size, seed=config["seed"])
    root_key = jax.random.fold_in(jax.random.key(config["seed"]), 1)  # 0 is the network's

    with contextlib.ExitStack() as stack:
        stack.enter_context(claim(workdir))
        check_recorded(workdir, record)
        checkpoints = stack.enter_context(Checkpoints(workdir / "checkpoints", keep=run.keep))
        start, carry = _restore_or_init(config, experiment, checkpoints, record)
        if start >= run.steps:
            return carry["state"]
        write_json(workdir / RECORD, record)
        write_json(workdir / "config.json", record["config"])
        writers = [stack.enter_context(writer) for writer in open_writers(workdir, start, run.tensorboard)]
        bar = stack.enter_context(tqdm(total=run.steps, initial=start, unit="step", disable=None, dynamic_ncols=True))
        log = Log(writers, bar, examples_per_step=experiment.optim.batch_size)
        stop = stack.enter_context(StopRequest())

        for step in range(start + 1, run.steps + 1):
            carry = step_fn(carry, batches.batch(step - 1), root_key)
            bar.update()
            stopping = bool(stop)
            if step % run.log_every == 0:
                log.write(step, read_window(carry["window"]))
                carry = {"state": carry["state"], "window": empty_window(METRICS)}
            if step % run.checkpoint_every == 0 or step == run.steps or stopping:
                read_window(carry["window"])  # raises: a state that is not finite is never saved
                checkpoints.save(step, carry, {**record, "step": step})
            if stopping:
                raise Preempted(f"{stop.name} after step {step}: the state is saved; the same command resumes the run.")
    return carry["state"]


def _train_step(experiment: Experiment) -> Any:
    return make_train_step(
        experiment.loss_fn, experiment.optimizer, ema=experiment.ema, learning_rate=experiment.learning_rate
    )


def _restore_or_init(
    config: Mapping[str, Any], experiment: Experiment, checkpoints: Checkpoints, record: dict[str, Any]
) -> tuple[int, Any]:
    """The newest sound checkpoint of this run, or step 0."""

    def init(params: Any) -> Any:
        return {"state": init_state(params, experiment.optimizer), "window": empty_window(METRICS)}

    template = jax.eval_shape(init, experiment.score.params)
    restored = checkpoints.restore(template, lambda found: check_same_run(found, record))
    return restored or (0, init(init_params(config, experiment.dataset.event_shape)))
