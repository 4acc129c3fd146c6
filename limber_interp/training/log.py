"""What a run writes while it runs: a JSON line per step, and TensorBoard's events where they are asked for."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from limber_interp.errors import InputError, reading
from limber_interp.extras import how_to_install
from limber_interp.records import write_atomically


class Log:
    """The log of one run, open for its later steps. On ranks but the first it writes nothing.

    A line holds what the next run of the same seed would write again: step, loss, learning rate, tokens with a label,
    and the held-out losses where there are some. Times go to TensorBoard alone.
    """

    def __init__(self, path: Path, steps: int, tensorboard: Path | None, writes: bool) -> None:
        """Open the log of a run that has taken so many steps: none of a new one, whose log replaces what is there."""
        self._writes = writes
        self._file = (path if writes else Path(os.devnull)).open("a" if steps else "w", encoding="utf-8")
        self._events: Any = None
        if tensorboard is not None and writes:
            self._events = _event_writer(tensorboard, steps)

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()

    def write(self, line: dict[str, Any], measured: dict[str, float]) -> None:
        """Add a step: `line` to the file, and it and what was `measured` on the clock to TensorBoard."""
        print(json.dumps(line), file=self._file, flush=True)
        if self._events is None:
            return
        losses = {f"held_out/{kind}": loss for kind, loss in line.get("held_out", {}).items()}
        shown = {"loss": line["loss"], "lr": line["lr"], **measured, **losses}
        for name, value in shown.items():
            self._events.add_scalar(name, value, line["step"])

    def sync(self) -> None:
        """Reach the disk, or a crash could leave a checkpoint of more steps than the log has lines."""
        if self._writes:
            os.fsync(self._file.fileno())


def kept_lines(path: Path, steps: int) -> list[dict[str, Any]]:
    """The first so many steps of a log, which is cut after them.

    Raises:
        InputError: it cannot be read, or holds fewer.
    """
    with reading(path, "cannot be read as the log of the run to resume"):
        written = path.read_text(encoding="utf-8").splitlines(keepends=True)
        lines = [json.loads(line) for line in written[:steps]]
        if not all(isinstance(line["loss"], int | float) for line in lines):
            raise ValueError("a loss is no number")
    if len(lines) < steps:
        raise InputError(f"{path}: holds {len(lines)} steps, the checkpoint {steps}; put the run's own log there")
    if len(written) > steps:
        write_atomically(path, lambda temporary: temporary.write_text("".join(written[:steps]), encoding="utf-8"))
    return lines


def _event_writer(folder: Path, steps: int) -> Any:
    """TensorBoard is told to forget what an earlier process wrote of later steps, which are taken again."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(f"TensorBoard's writer cannot be imported ({error}): {how_to_install('train')}") from error
    return SummaryWriter(folder, purge_step=steps)
