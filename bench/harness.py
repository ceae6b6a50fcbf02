"""How we measure: contestants run in turn, several times, in one process; ratios stand only behind passed gates.

A benchmark is a function that returns a `Section`; what it found goes into `results.json`, and the page
`RESULTS.md` is written from all that is in there. Imports nothing of the engine.
"""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
GPU_RESULTS = RESULTS.with_name("results-gpu.jsonl")
PAGE = HERE / "RESULTS.md"
REPEATS = 3


def cpu_seconds() -> float:
    """Seconds of processor time of this process, its threads, and its children that have ended."""
    return sum(os.times()[:4])


@dataclass(frozen=True)
class Contestant:
    """One way to do the job: `run` does `work` units of it once. `cpu` reads its clock of processor seconds."""

    name: str
    about: str
    work: float
    run: Callable[[], object]
    cpu: Callable[[], float] = cpu_seconds


@dataclass(frozen=True)
class Timing:
    """Seconds of every repeat of one contestant; the first `Contestant.run`, a warm-up, is not among them."""

    name: str
    about: str
    work: float
    wall: list[float]
    cpu: list[float]

    @property
    def per_unit(self) -> float:
        """Median wall seconds a unit of work."""
        return statistics.median(self.wall) / self.work


@dataclass(frozen=True)
class Gate:
    """An equality that must hold in this very run, or the ratios behind it are void."""

    what: str
    passed: bool
    found: str


@dataclass(frozen=True)
class Ratio:
    """How many times less time a unit of work takes `ours` than `baseline`, repeat by repeat."""

    ours: str
    baseline: str
    wanted: float | None
    each: list[float]
    void: bool

    @property
    def median(self) -> float:
        return statistics.median(self.each)


@dataclass
class Section:
    """What one benchmark found. `unit` is what work is counted in; `body` is markdown of its own (tables, notes)."""

    name: str
    title: str
    about: str
    unit: str = ""
    measured: list[Timing] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    body: list[str] = field(default_factory=list)

    def gate(self, what: str, passed: bool, found: str) -> None:
        self.gates.append(Gate(what, bool(passed), found))

    def race(self, contestants: Sequence[Contestant], repeats: int = REPEATS, warm: bool = True) -> None:
        """A warm-up of each, where wanted, then all of them in turn, `repeats` times."""
        for contestant in contestants if warm else ():
            contestant.run()
        wall: dict[str, list[float]] = {c.name: [] for c in contestants}
        cpu: dict[str, list[float]] = {c.name: [] for c in contestants}
        for repeat in range(repeats):
            for c in contestants:
                began, began_cpu = time.perf_counter(), c.cpu()
                c.run()
                wall[c.name].append(time.perf_counter() - began)
                cpu[c.name].append(c.cpu() - began_cpu)
                say(
                    f"{self.name}: {c.name}, {repeat + 1} of {repeats}: {wall[c.name][-1] / c.work:.4g} s a {self.unit}"
                )
        self.measured += [Timing(c.name, c.about, c.work, wall[c.name], cpu[c.name]) for c in contestants]

    def ratio(self, ours: str, baseline: str, wanted: float | None = None) -> None:
        """Adds the ratio of two that were measured; call it after the gates, whose failure voids it."""
        by_name = {m.name: m for m in self.measured}
        a, b = by_name[ours], by_name[baseline]
        each = [(y / b.work) / (x / a.work) for x, y in zip(a.wall, b.wall, strict=True)]
        self.ratios.append(Ratio(ours, baseline, wanted, each, not all(gate.passed for gate in self.gates)))


def peak_gb() -> float:
    """The most memory that this process has held, in GB. Linux only; `getrusage` would count its parent's, too."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  a benchmark speaks to a terminal


def save(section: Section, device: str) -> None:
    """Puts a section into `results.json`, in place of what the same benchmark found on such a device before."""
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    found[f"{section.name} on {device}"] = {"section": asdict(section), "circumstances": circumstances(device)}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _git(*arguments: str) -> str:
    """What git says of this checkout; nothing outside of one."""
    return subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True).stdout.strip()


def circumstances(device: str) -> dict[str, str]:
    """When and on what it was measured."""
    packages = ("torch", "transformers", "peft", "duckdb")
    written = [f":!{path.name}" for path in (RESULTS, PAGE)]  # by the benchmarks before this one
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", *written)
    return {
        "device": device,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": (_git("rev-parse", "--short", "HEAD") or "unknown") + ("-dirty" if changed else ""),
        "versions": ", ".join(f"{p} {v}" for p in ("python", *packages) if (v := _version(p))),
    }


def _version(package: str) -> str:
    try:
        return platform.python_version() if package == "python" else version(package)
    except PackageNotFoundError:
        return ""


def cpu_name() -> str:
    """The processor and the cores we may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        name = next(
            (x.split(":")[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")), name
        )
    return f"{len(os.sched_getaffinity(0))} cores of {name}"


def load(stored: dict[str, Any]) -> Section:
    """A section as `save` stored it."""
    s = dict(stored)
    for key, kind in (("measured", Timing), ("gates", Gate), ("ratios", Ratio)):
        s[key] = [kind(**item) for item in s[key]]
    return Section(**s)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table; numbers are to be formatted by the caller."""
    lines = [list(header), ["---"] * len(header), *[[str(cell) for cell in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def median_range(values: Sequence[float], digits: int = 3) -> str:
    """'median (lowest to highest)'."""
    form = f"#.{digits}g"
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def write_page(order: Sequence[str]) -> None:
    """`RESULTS.md` from all that `results.json` holds, in this order of benchmarks."""
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    ranked = sorted(found.values(), key=lambda item: order.index(item["section"]["name"]))
    lines = [
        "# How fast, against what",
        "Written by `make bench`; do not edit. Contestants run in turn, in one process, after a warm-up; a time is the "
        "median of its repeats, with the lowest and the highest. A ratio is void unless every check of its section "
        "passed in the same run. Raw numbers: `results.json`.",
        _summary(ranked),
        *(_markdown(load(item["section"]), item["circumstances"]) for item in ranked),
    ]
    lines += _on_gpu([json.loads(line) for line in GPU_RESULTS.read_text(encoding="utf-8").splitlines()])
    PAGE.write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def _on_gpu(records: Sequence[dict[str, Any]]) -> list[str]:
    """What `bench.gpu` measured, a column for each visit to a GPU (`results-gpu.jsonl` holds its output, the commit and
    the date of each)."""
    visits: dict[tuple[str, str], dict[str, Any]] = {}
    for record in (record for record in records if record["state"] == "done"):
        numbers = {f"{record['step']}: {name}": v for name, v in record.items() if isinstance(v, int | float)}
        visits.setdefault((record["date"], record["commit"]), {}).update(numbers)
    (device,) = {record["device"] for record in records if "device" in record}
    names = dict.fromkeys(name for numbers in visits.values() for name in numbers)
    rows = [(name, *(f"{n[name]:.4g}" if name in n else "" for n in visits.values())) for name in names]
    return [
        "## On a GPU",
        f"{device}, the shape of Aya 8B with random weights, `python -m bench.gpu --out FOLDER`: whether the engine is "
        "right there (float32 against PEFT, bfloat16 against float32, dropout against a CPU's), how fast it is, and "
        "what others do. Tokens are counted without padding; shares are of the rate of a large product on that card; "
        "operators include views up to 09141e4, where training steps are replayed CUDA graphs for the first time "
        "(their recording is not in the step). An empty place was not run.",
        table(("", *(f"{date}, {commit}" for date, commit in visits)), rows),
    ]


def _summary(items: Sequence[dict[str, Any]]) -> str:
    rows = []
    for item in items:
        section = load(item["section"])
        for r in section.ratios:
            if r.wanted is not None:
                reached = "void" if r.void else "yes" if r.median >= r.wanted else "**no**"
                times = f"{r.median:.3g} ×"
                rows.append((section.name, f"{r.ours} against {r.baseline}", times, f"{r.wanted:.3g} ×", reached))
    return table(("benchmark", "", "times as fast", "wanted", "reached"), rows)


def _markdown(section: Section, circumstances: dict[str, str]) -> str:
    parts = [f"## {section.title}", section.about]
    if section.measured:
        rows = [(m.name, m.about, *(_per_unit(m, v) for v in (m.wall, m.cpu)), len(m.wall)) for m in section.measured]
        header = ("", "", f"seconds a {section.unit}", "processor seconds", "repeats")
        parts.append(table(header, rows))
    if section.ratios:
        rows = [
            (f"{r.ours} against {r.baseline}", "void" if r.void else f"{median_range(r.each)} × as fast")
            for r in section.ratios
        ]
        parts.append(table(("ratio", ""), rows))
    parts += section.body
    parts += ["\n".join(f"* {'passed' if g.passed else '**FAILED**'}: {g.what} ({g.found})" for g in section.gates)]
    c = circumstances
    parts.append(f"{c['device']}; {c['versions']}; {c['date']}, commit {c['commit']}.")
    return "\n\n".join(part for part in parts if part)


def _per_unit(measured: Timing, seconds: Sequence[float]) -> str:
    return median_range([s / measured.work for s in seconds])
