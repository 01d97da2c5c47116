"""Training from a configuration to a directory that holds the run. Meant to be read top to bottom, and forked."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from sdelab.data import Batches
from sdelab.train.build import Experiment, build, init_params
from sdelab.train.checkpoint import Checkpoints
from sdelab.train.dispatch import Dispatcher, plan
from sdelab.train.distributed import barrier, check_shared, is_main
from sdelab.train.ema_snapshots import MAIN, Snapshots
from sdelab.train.log import Log
from sdelab.train.monitor import Monitor, open_monitor
from sdelab.train.placement import AbstractPlacement
from sdelab.train.profile import NoTrace, Trace
from sdelab.train.record import check_same_run, describe, write_json
from sdelab.train.run import Run, build_placement
from sdelab.train.signals import Preempted, SharedStopRequest, StopRequest
from sdelab.train.starts import describe_start, read_starts
from sdelab.train.state import TrainState
from sdelab.train.step import METRICS
from sdelab.train.watchdog import NoWatchdog, Watchdog
from sdelab.train.window import Carry, empty_window, read_window
from sdelab.train.workdir import RECORD, check_recorded, claim
from sdelab.train.writers import check_writers, open_writers

SLOW = 1200.0
"""Seconds that a process of several may take to restore, compile or save, before it is taken for hung."""


def fit(config: Mapping[str, Any], workdir: Path | str, *, profile: tuple[int, int] | None = None) -> TrainState:
    """Trains what `config` describes, or goes on where `workdir` was left, and returns the final state.

    `workdir` receives `config.json`, `record.json`, `checkpoints/`, `metrics.jsonl` and what section `run` asks for: `pictures/`
    and `loss_by_time.jsonl`, `tensorboard/`, `wandb/`. A resumed run equals an uninterrupted one bit for bit: batch and
    randomness are functions of the step. A run that has its steps, or more, is left as it is.

    `profile`, a first and a last step, writes a trace of them to `profile/`.
    In a run of several processes (`sdelab.train.distributed.initialize`) each calls this with the same arguments.

    Errors: those of `build`; `MissingExtra`; `WorkdirInUse`; `NotShared`; `CheckpointMismatch`; `NonFiniteMetric`, with the
    last good checkpoint kept; `Preempted`, on SIGTERM or Ctrl-C once the state is saved.
    """
    experiment, workdir = build(config), Path(workdir)
    run, record = experiment.run, describe(config, experiment.dataset)
    check_writers(run)  # before there are any files
    placement = build_placement(run, experiment.optim.batch_size)
    with contextlib.ExitStack() as stack:
        dog = stack.enter_context(_hold(workdir, record, run.patience))
        checkpoints = stack.enter_context(Checkpoints(workdir / "checkpoints", keep=run.keep, best=run.best))
        start, carry = _restore_or_init(config, experiment, placement, checkpoints, record)
        if start >= run.steps:
            return carry["state"]
        log = stack.enter_context(_open_log(workdir, experiment, record, start))
        dispatch = _dispatcher(config, experiment, placement, stack.enter_context(_trace(workdir, profile)))
        snapshots = _open_snapshots(stack, workdir, experiment)
        monitor = stack.enter_context(open_monitor(config, experiment, placement, log, workdir, start))
        stop = stack.enter_context(SharedStopRequest() if jax.process_count() > 1 else StopRequest())
        calls = functools.partial(plan, start, run.steps, run.periods, run.steps_per_dispatch)  # twice: here, and ahead
        ahead = stack.enter_context(dispatch.prefetch(calls(), depth=run.prefetch, threads=run.prefetch_threads))
        carry = placement.enter(carry)
        for number, (first, count) in enumerate(calls()):
            step, row = first + count, None
            dog.feed(f"at step {step}", None if dispatch.is_compiled(count) else SLOW)
            carry = dispatch(carry, next(ahead), first, count)
            log.advance(count)
            checkpoints.check()
            stopping = stop(number)
            if step % run.log_every == 0:
                log.write(step, row := read_window(placement.leave(carry["window"])), waited=ahead.waited)
                carry["window"] = dispatch.new_window()
            for every, words, keep in _others(run, snapshots, monitor, record):
                if step % every == 0:
                    dog.feed(f"{words} of step {step}", SLOW)
                    keep(step, placement.leave(carry))
            if step % run.checkpoint_every == 0 or step == run.steps or stopping:
                _save(dog, checkpoints, snapshots, placement.leave(carry), {**record, "step": step, "metrics": row})
            if stopping:
                checkpoints.finish()
                raise Preempted(f"{stop.name} after step {step}: the state is saved; the same command resumes the run.")
        checkpoints.finish()
        return placement.leave(carry)["state"]


@contextlib.contextmanager
def _hold(workdir: Path, record: dict[str, Any], patience: float) -> Iterator[Watchdog | NoWatchdog]:
    """The directory is this run's, for all its processes; each is watched, if there are several."""
    with (
        Watchdog(patience, SLOW) if jax.process_count() > 1 else NoWatchdog() as dog,
        claim(workdir) if is_main() else contextlib.nullcontext(),
    ):
        check_shared(workdir)
        check_recorded(workdir, record)
        barrier("sdelab: the record is read")  # and may be written
        yield dog


@contextlib.contextmanager
def _open_log(workdir: Path, experiment: Experiment, record: dict[str, Any], start: int) -> Iterator[Log]:
    """The record of the run and its log; only process 0 writes."""
    run, main = experiment.run, is_main()
    with contextlib.ExitStack() as stack:
        writers = []
        if main:
            write_json(workdir / RECORD, {**record, "starts": [*read_starts(workdir), describe_start(start)]})
            write_json(workdir / "config.json", record["config"])
            writers = [stack.enter_context(writer) for writer in open_writers(workdir, start, run, record["config"])]
        hidden = None if main else True  # None: where there is no terminal
        bar = tqdm(total=run.steps, initial=start, unit="step", disable=hidden, dynamic_ncols=True)
        yield Log(writers, stack.enter_context(bar), examples_per_step=experiment.optim.batch_size)


def _save(
    dog: Watchdog | NoWatchdog,
    checkpoints: Checkpoints,
    snapshots: Snapshots | None,
    carry: Carry,
    record: dict[str, Any],
) -> None:
    """Begins to write the checkpoint of a step, after what it must not be without."""
    dog.feed(f"saving step {record['step']}", SLOW)
    read_window(carry["window"])  # raises: a state that is not finite is never saved
    if snapshots:
        snapshots.finish()
    checkpoints.save(record["step"], carry, record)


def _others(
    run: Run, snapshots: Snapshots | None, monitor: Monitor | None, record: dict[str, Any]
) -> list[tuple[int, str, Callable[[int, Carry], None]]]:
    """What is kept of a run beside metrics and checkpoints: every how many steps, in words, and how."""
    others: list[tuple[int, str, Callable[[int, Carry], None]]] = []
    if snapshots:
        save = snapshots.save
        others.append(
            (run.snapshot_every, "keeping the averages", lambda step, carry: save(step, carry["state"], record))
        )
    if monitor:
        others.append((run.sample_every, "drawing samples", monitor.write))
    return others


def _open_snapshots(stack: contextlib.ExitStack, workdir: Path, experiment: Experiment) -> Snapshots | None:
    if not experiment.run.snapshot_every:
        return None
    return stack.enter_context(Snapshots(workdir, {MAIN: experiment.ema, **experiment.averages}))


def _trace(workdir: Path, profile: tuple[int, int] | None) -> Trace | NoTrace:
    return Trace(workdir / "profile", *profile) if profile and is_main() else NoTrace()


def _dispatcher(
    config: Mapping[str, Any], experiment: Experiment, placement: AbstractPlacement, trace: Trace | NoTrace
) -> Dispatcher:
    batches = Batches(experiment.dataset, experiment.optim.batch_size, seed=config["seed"])
    root_key = placement.maker(lambda: jax.random.fold_in(jax.random.key(config["seed"]), 1))()  # 0 is the network's
    return Dispatcher(placement, experiment.train_step, batches, placement.enter(root_key), trace)


def _restore_or_init(
    config: Mapping[str, Any],
    experiment: Experiment,
    placement: AbstractPlacement,
    checkpoints: Checkpoints,
    record: dict[str, Any],
) -> tuple[int, Any]:
    """The newest sound checkpoint of this run, of whatever placement it is, or step 0; at rest."""

    def init() -> Any:
        params = init_params(config, experiment.dataset.event_shape)
        return {"state": experiment.init_state(params), "window": empty_window(METRICS)}

    template = placement.template(jax.eval_shape(init))
    restored = checkpoints.restore(template, lambda found: check_same_run(found, record))
    return restored or (0, placement.maker(init)())
