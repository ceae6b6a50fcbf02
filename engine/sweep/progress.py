"""Progress of a sweep: bars on the terminal, and a small file next to the results file.

The file lets others watch without touching the results file, which only one process may hold.
"""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import psutil
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def progress_file(db: Path) -> Path:
    """Where the progress of a sweep on this results file stands."""
    return db.with_name(db.name + ".progress.json")


@dataclass(frozen=True)
class SweepStatus:
    """What a sweep last told of itself. `state`: running, finished, failed or interrupted; times are ISO 8601, UTC."""

    state: str
    stage: str
    done: int
    total: int
    pid: int
    started_at: str
    updated_at: str
    unit: str = ""
    host: str = ""

    @property
    def is_gone(self) -> bool:
        """It said that it runs, here, and its process is no more: killed, or the machine was started anew."""
        if self.state != "running" or self.host != platform.node():
            return False
        try:
            process = psutil.Process(self.pid)
            began_later = process.create_time() > datetime.fromisoformat(self.started_at).timestamp() + CLOCK_SLACK
            return bool(began_later or process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:  # another user's: it is there
            return False


CLOCK_SLACK = 60.0
"""Seconds by which a clock may have been set; a process that began later than that has only been given the number."""


def read(db: Path) -> SweepStatus | None:
    """What the last sweep on a results file told. None: there was none, or what it wrote cannot be read."""
    try:
        status = SweepStatus(**json.loads(progress_file(db).read_text(encoding="utf-8")))
        datetime.fromisoformat(status.started_at), datetime.fromisoformat(status.updated_at)
    except (OSError, ValueError, TypeError):
        return None
    return status


class Reporter:
    """Bars with rates and time left, one a stage; lines for what is worth keeping."""

    def __init__(self, db: Path, console: Console) -> None:
        self.file, self.console = progress_file(db), console
        self.bars = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.stage, self.unit = "", ""
        self.done, self.total = 0, 0
        self.started = time.time()

    def __enter__(self) -> "Reporter":
        self.bars.start()
        self._write("running", 0, 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()
        state = "finished" if error is None else "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        self._write(state, self.done, self.total)

    def say(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def counting(self, stage: str, total: int, unit: str) -> Iterator["Counter"]:
        """A bar for a stage of `total` units of work."""
        self.stage, self.unit = stage, unit
        counter = Counter(self, self.bars.add_task(stage, total=total, unit=unit, rate=""), stage, total, unit)
        self._write("running", 0, total)
        yield counter

    def _write(self, state: str, done: int, total: int) -> None:
        self.done, self.total = done, total
        status = SweepStatus(
            state=state,
            stage=self.stage,
            done=done,
            total=total,
            unit=self.unit,
            pid=os.getpid(),
            host=platform.node(),
            started_at=datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds"),
            updated_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        scratch = self.file.with_name(self.file.name + ".new")
        with suppress(OSError):  # a full disk: who watches may miss a step, the sweep may not
            scratch.write_text(json.dumps(asdict(status)), encoding="utf-8")
            scratch.replace(self.file)


class Counter:
    """Counts one stage forward."""

    def __init__(self, reporter: Reporter, task: TaskID, stage: str, total: int, unit: str) -> None:
        self.reporter, self.task, self.stage, self.total, self.unit = reporter, task, stage, total, unit
        self.done, self.skipped, self.started = 0, 0, time.monotonic()

    def advance(self, amount: int) -> None:
        """`amount` more units of work were done."""
        self.done += amount
        rate = (self.done - self.skipped) / max(time.monotonic() - self.started, 1e-6)
        self._show(f"{rate:,.1f}/s")
        if (
            not self.reporter.console.is_terminal
            and self.done * 10 // self.total > (self.done - amount) * 10 // self.total
        ):
            left = (self.total - self.done) / rate
            self.reporter.say(
                f"{self.stage}: {self.done:,} of {self.total:,} {self.unit}, {rate:,.1f}/s, {left:.0f} s left"
            )

    def skip(self, amount: int) -> None:
        """`amount` units of work were there already; they do not count as speed."""
        self.done += amount
        self.skipped += amount
        self._show("")

    def _show(self, rate: str) -> None:
        self.reporter.bars.update(self.task, completed=self.done, rate=rate)
        self.reporter._write("running", self.done, self.total)
