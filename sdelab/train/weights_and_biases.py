import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdelab._extras import import_extra
from sdelab.train.log import AbstractWriter, Pixels


class WeightsAndBiases(AbstractWriter):
    """Scalars and pictures as a run of Weights & Biases, files in `workdir/wandb`; needs the extra `sdelab[wandb]`.

    A resumed run goes on in the run whose id is in `workdir/wandb_id`. The steps that it writes again W&B leaves as they were:
    they have the same metrics. The last row is sent with the next one, or at the end: a kill loses it. Project, entity and
    mode (`WANDB_MODE=offline` where there is no network) are W&B's own variables.
    Errors: `MissingExtra`; `ConnectionError` where W&B does not start, with what it says.
    """

    def __init__(self, workdir: Path, config: Mapping[str, Any]):
        self._wandb = wandb_module()
        settings = self._wandb.Settings(console="off")  # the progress bar is not its matter
        try:
            self._run = self._wandb.init(
                dir=str(workdir), id=_run_id(workdir), resume="allow", config=dict(config), settings=settings
            )
        except self._wandb.Error as error:
            raise ConnectionError(
                f"Weights & Biases does not start: {error} Accepted: `wandb login` before, WANDB_MODE=offline, or "
                "config.run.wandb = False."
            ) from error

    def write(self, step: int, row: dict[str, float]) -> None:
        self._run.log(row, step=step)

    def show(self, step: int, name: str, pixels: Pixels) -> None:
        self._run.log({name: self._wandb.Image(pixels)}, step=step)

    def __exit__(self, *error: Any) -> None:
        self._run.finish(exit_code=0 if error[0] is None else 1)


def wandb_module() -> Any:
    """The client. Errors: `MissingExtra`."""
    return import_extra("wandb", "wandb", "a Weights & Biases log")


def _run_id(workdir: Path) -> str:
    path = workdir / "wandb_id"
    if not path.exists():
        part = path.with_suffix(".part")
        part.write_text(secrets.token_hex(8))
        os.replace(part, path)
    return path.read_text().strip()
