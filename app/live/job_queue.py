"""Available models, jobs, and the queue that generates and scores live prompts.

A job is one prompt under a base and up to three of its adapters. The local model answers one job at a time, all its
columns in one batch: floating point depends on what shares a batch, so a job's text is the same to the last bit, alone
or in a queue. A server answers all jobs at once, by its own seeds. Knows nothing of Streamlit; what is heavy is
imported by the thread that needs it.
"""

import logging
import threading
import uuid
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from engine.config import EMBEDDED_MODEL, prompt_of
from engine.errors import ModelError, XDetError
from engine.lora import adapters
from engine.vocabulary import Language, Sampling, Score, Split, Stream, slug

if TYPE_CHECKING:
    from engine.generate.server import Server
    from engine.lora.stack import Stack
    from engine.model.loading import LoadedBase
    from engine.score import Scorer

MAX_ADAPTERS = 3
MAX_CHARACTERS = 1_000
"""Of a prompt: so much fits into an address."""
MAX_TOKENS = 200
HALF = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class AvailableModel:
    """A base that can be prompted, and its adapters, by name. `source`: what loads the base (a server needs none)."""

    base: str
    adapters: tuple[str, ...]
    source: str = ""


@dataclass(frozen=True)
class PromptRequest:
    """What a visitor asked for; the same request gives the same text."""

    prompt: str
    lang: Language
    model: AvailableModel
    adapters: tuple[str, ...]
    sampling: Sampling
    seed: int
    scorer: str

    @property
    def stream(self) -> Stream:
        """The key of its random numbers: those of the first toxic-test prompt of a sweep with this seed."""
        return Stream(self.seed, self.lang, Split.TOXIC_TEST, prompt_index=0, sample_index=0)

    @property
    def names(self) -> tuple[str | None, ...]:
        """The base, then its adapters in the model's order, whatever order they were chosen in."""
        return None, *(name for name in self.model.adapters if name in self.adapters)


class State(StrEnum):
    """Where a column stands. The last three are final."""

    WAITING = "waiting"
    WRITING = "generating"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass
class Column:
    """What one variant writes. `score` is None until the text has ended and was scored; `trouble` says what failed."""

    adapter: str | None
    text: str = ""
    state: State = State.WAITING
    trouble: str = ""
    score: Score | None = None

    @property
    def is_final(self) -> bool:
        return self.state in (State.DONE, State.STOPPED, State.FAILED)


class Job:
    """A request and its columns, which only the queue writes to, and anybody reads."""

    def __init__(self, request: PromptRequest) -> None:
        self.request = request
        self.job_id = uuid.uuid4().hex
        self.columns = [Column(name) for name in request.names]
        self.settled = threading.Event()
        """Set when nothing of it will change any more: all is written and scored."""
        self._lock = threading.Lock()
        self._to_settle = len(self.columns) + 1  # the writer, and each column's score
        self._ended: Callable[[Column], None] | None = None

    @property
    def is_over(self) -> bool:
        """Nothing more will be written; scores may still come."""
        return all(column.is_final for column in self.columns)

    def stop(self) -> None:
        """Ends it at once; what is written stays."""
        for column in self.columns:
            self.update(column, column.text, State.STOPPED)

    def fail(self, why: str) -> None:
        """Ends what has not ended, with a reason; what is written stays."""
        for column in self.columns:
            self.update(column, column.text, State.FAILED, why)

    def update(self, column: Column, text: str, state: State, trouble: str = "") -> None:
        """A column's text so far and where it stands now; a column that has ended stays as it is."""
        with self._lock:
            if column.is_final:
                return
            column.text, column.trouble, column.state = text, trouble, state
            if column.is_final and self._ended is not None:
                self._ended(column)

    def at_end(self, ended: Callable[[Column], None]) -> None:
        """Has `ended` called with every column once, as it ends, or now where it has."""
        with self._lock:
            self._ended = ended
            for column in self.columns:
                if column.is_final:
                    ended(column)

    def settle_one(self) -> None:
        """One of what was to come has come: a score, or the writer's end."""
        with self._lock:
            self._to_settle -= 1
            if self._to_settle == 0:
                self.settled.set()


class JobQueue:
    """Takes jobs and has them written and scored. One a process: it owns the model in memory.

    One thread writes job after job, or one a job where the writer `takes_many`; another one scores each column as it
    ends. They are daemons: a server that says nothing does not keep the app from ending.
    """

    def __init__(self, writer: "LocalWriter | ServerWriter") -> None:
        self.writer = writer
        self._waiting: list[Job] = []
        self._orders: SimpleQueue[Job] = SimpleQueue()
        self._ended: SimpleQueue[tuple[Job, Column]] = SimpleQueue()
        self._scorers: dict[str, Scorer] = {}
        _start(self._score_all)
        if not writer.takes_many:
            _start(self._write_all)

    def _write_all(self) -> None:
        while True:
            self._write(self._orders.get())

    def _score_all(self) -> None:
        while True:
            job, column = self._ended.get()
            if column.state is not State.FAILED:
                column.score = self._score(column.text, job.request)
            job.settle_one()

    def submit(self, job: Job) -> Job:
        """Queues a job, and returns it."""
        self._waiting.append(job)
        job.at_end(lambda column: self._ended.put((job, column)))
        if self.writer.takes_many:
            _start(self._write, job)
        else:
            self._orders.put(job)
        return job

    def ahead(self, job: Job) -> int:
        """How many jobs are written before this one."""
        waiting = list(self._waiting)
        if self.writer.takes_many or job not in waiting:
            return 0
        return sum(not earlier.is_over for earlier in waiting[: waiting.index(job)])

    def _write(self, job: Job) -> None:
        """One job, to its end. Whatever happens is said in the job: the next one must find the queue at work."""
        try:
            if not job.is_over:
                self.writer.write(job)
        except XDetError as error:
            job.fail(str(error))
        except Exception as error:  # noqa: BLE001  memory, a driver: the visitor is told, the thread lives on
            logging.getLogger(__name__).exception("a live prompt failed")
            job.fail(f"{type(error).__name__}: {error}")
        finally:
            job.fail("Stopped before the end.")  # what a thread of the writer's own died of is in the log
            self._waiting.remove(job)
            job.settle_one()

    def _score(self, text: str, request: PromptRequest) -> Score:
        try:
            from engine.score import open_scorers

            if request.scorer not in self._scorers:
                opens = available_scorers([request.scorer]).get(request.scorer)
                if opens is None:
                    return Score(None, "the scorer is not available on this machine")
                self._scorers[request.scorer] = open_scorers([opens], {})[0]
            return self._scorers[request.scorer].score([text], request.lang)[0]
        except XDetError as error:
            return Score(None, str(error))
        except Exception as error:  # noqa: BLE001  as above: a score that fails is none, with a reason
            return Score(None, f"{type(error).__name__}: {error}")


def _start(work: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, name="live", daemon=True)
    thread.start()
    return thread


class LocalWriter:
    """The base in this process's memory, with the adapters of a folder. Holds one base, the last that was asked for."""

    takes_many = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self._held: tuple[str, LoadedBase, Stack] | None = None

    def available_models(self) -> list[AvailableModel]:
        """The embedded base and every base that has adapters, where its weights are on this machine."""
        from engine.model import registry

        names: dict[str, list[str]] = {EMBEDDED_MODEL: []}
        sources = {EMBEDDED_MODEL: registry.at_hand(EMBEDDED_MODEL, "")}
        for adapter in adapters.finished_adapters(self.root):
            names.setdefault(adapter.model, []).append(adapter.name)
            sources[adapter.model] = sources.get(adapter.model) or registry.at_hand(adapter.model, adapter.base_folder)
        return [AvailableModel(base, tuple(names[base]), source) for base, source in sources.items() if source]

    def write(self, job: Job) -> None:
        from engine.generate.transformers import TransformersGenerator

        loaded, stack = self._load(job.request.model)
        names = [self._adapter(stack, job.request.model.base, column.adapter) for column in job.columns]
        prompts = [prompt_of(job.request.prompt)] * len(names)
        writing = TransformersGenerator(loaded, stack).stream(prompts, names, job.request.stream, job.request.sampling)
        with closing(writing):
            for drafts in writing:
                for column, draft in zip(job.columns, drafts, strict=True):
                    if draft.is_finished:
                        job.update(column, draft.text, State.DONE)
                    else:
                        job.update(column, draft.text.rstrip(HALF), State.WRITING)
                if job.is_over:  # or stopped
                    return

    def _load(self, model: AvailableModel) -> "tuple[LoadedBase, Stack]":
        from engine.lora.stack import Stack
        from engine.model import loading, registry
        from engine.model.machine import at_hand

        source = model.source
        if self._held is None or self._held[0] != source:
            self._held = None  # before the next one is loaded: memory holds one
            base = registry.resolve(source)
            loaded = loading.load(base, at_hand().dtype)
            # Adapters from elsewhere may adapt more layers than ours do.
            others = {t for a in adapters.finished_adapters(self.root) if a.model == model.base for t in a.targets}
            more = sorted((others - set(base.targets)) & registry.linear_names(loaded.model))
            self._held = source, loaded, Stack(loaded.model, [*base.targets, *more])
        return self._held[1:]

    def _adapter(self, stack: "Stack", base: str, name: str | None) -> str | None:
        """The stack's name of an adapter, which is loaded when it is new or has changed on disk."""
        if name is None:
            return None
        folder = next((a for a in adapters.finished_adapters(self.root) if a.model == base and a.name == name), None)
        if folder is None:
            raise ModelError(f"{self.root / slug(base) / name}: the adapter no longer exists. Choose another one.")
        key = f"{name} {(folder.folder / adapters.WEIGHTS).stat().st_mtime_ns}"
        if key not in stack.adapters:
            folder.check_whole()
            stack.load(key, folder.folder)
        return key


class ServerWriter:
    """A server's models, spoken to in a thread a column. Where the server takes adapters at run time, those of a folder
    are offered too, and loaded at their first prompt: the folder is one that the server can read."""

    takes_many = True

    def __init__(self, server: "Server", root: Path) -> None:
        self.server, self.root = server, root
        self.loads_adapters = False
        """Whether the server takes adapters at run time, as it was when its models were last listed."""
        self._loading = threading.Lock()

    def available_models(self) -> list[AvailableModel]:
        """The server's bases, each with the adapters that it has, then those of the folder. Errors: ServerError."""
        served = self.server.models()
        self.loads_adapters = self.server.loads_adapters()
        adapter = []
        for base in (model.name for model in served if model.base is None):
            names = [model.name for model in served if model.base == base]
            adapter.append(AvailableModel(base, tuple(dict.fromkeys([*names, *self._of_folder(base)]))))
        return adapter

    def _of_folder(self, base: str) -> dict[str, adapters.AdapterFolder]:
        """The adapters that the server may be given, by name: a base is the same by whatever path it is served."""
        if not self.loads_adapters:
            return {}
        return {
            folder.name: folder for folder in adapters.finished_adapters(self.root) if slug(folder.model) == slug(base)
        }

    def _load(self, name: str, base: str) -> None:
        """Has the server load an adapter of the folder that it does not have. Errors: ServerError, ModelError."""
        folder = self._of_folder(base).get(name)
        if folder is None:
            return  # it has the adapter, or is going to say that it has none
        with self._loading:
            if name not in [model.name for model in self.server.models()]:
                folder.check_whole()
                self.server.load(name, folder.folder.resolve())

    def write(self, job: Job) -> None:
        for thread in [_start(self._column, job, column) for column in job.columns]:
            thread.join()

    def _column(self, job: Job, column: Column) -> None:
        request, text = job.request, ""
        prompt, model = prompt_of(request.prompt), column.adapter or request.model.base
        try:
            if column.adapter is not None:
                self._load(column.adapter, request.model.base)
            with closing(self.server.stream(prompt, model, request.seed, request.sampling)) as pieces:
                for piece in pieces:
                    text += piece
                    job.update(column, text, State.WRITING)
                    if column.is_final:
                        return
            job.update(column, text, State.DONE)
        except (XDetError, OSError) as error:
            job.update(column, text, State.FAILED, str(error))


def open_queue(root: Path, server: str) -> JobQueue:
    """A queue in front of the vLLM server of this address where there is one, else of the local model."""
    if not server:
        return JobQueue(LocalWriter(root))
    from engine.generate.server import Server

    return JobQueue(ServerWriter(Server(server), root))


def available_scorers(used: Iterable[str] = ()) -> dict[str, str]:
    """See `score.available`."""
    from engine.score import available

    return available(used)
