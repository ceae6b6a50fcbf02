"""Fine-tune, generate, score and store: `python run_sweep.py [SWEEP] [options]`. See `--help`, then README.md.

Turns the command line into a plan and runs it; the work is done in `engine`. A first word in `COMMANDS` is no sweep.
"""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

# Before torch and transformers are imported, which read these.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # rows and tokens of a pass differ in number

import tyro
from rich.console import Console

from engine import config
from engine.errors import XDetError
from engine.sweep.options import Options, as_toml, languages

if TYPE_CHECKING:
    from engine.score import Scorer
    from engine.sweep.plan import Plan
    from engine.sweep.progress import Reporter

DONE, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def command_line(words: Sequence[str]) -> int:
    """Runs the command that the first word names, or a sweep; returns the exit code."""
    try:
        if words and words[0] in COMMANDS:
            return tyro.cli(COMMANDS[words[0]], prog=f"run_sweep.py {words[0]}", args=words[1:])
        return tyro.cli(main, args=words)
    except KeyboardInterrupt:  # before anything was carried out
        Console().print("\ninterrupted; nothing was stored.")
        return INTERRUPTED


def main(
    sweep: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SWEEP")] = "demo",
    /,
    options: Annotated[Options, tyro.conf.arg(name="")] = Options(),  # noqa: B008
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False,
    print_config: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> int:
    """Fine-tune on neutral text, and measure toxicity and fluency in nine languages.

    Run the same command again to resume: only missing work is done. Exit codes: 0 all done; 1 some variants failed, the
    rest is stored; 2 bad usage or input, nothing was started; 130 interrupted, finished work is stored.

    `run_sweep.py search --help`: the paper's hyperparameter search.
    `run_sweep.py export --help`: export an adapter or a merged model.

    Args:
        sweep: smoke, demo, reference or paper.
        options: Options that override the sweep's defaults.
        dry_run: Print the plan and its estimated cost, and exit.
        print_config: Print all settings as TOML, for --config, and exit.
    """
    console = Console(stderr=False)
    try:
        chosen = options.applied_to(config.find_sweep(sweep))
        if print_config:
            sys.stdout.write(as_toml(chosen) + "\n")
            return DONE
        from engine.sweep import estimate, report

        warnings.showwarning = lambda message, *_: console.print(f"warning: {message}", markup=False)
        if dry_run:  # a plan imports no torch
            report.dry_run(console, *estimate.outline(chosen))
            return DONE
        from engine.sweep.plan import make

        console.print("reading the data set and the base's configuration", style="dim")
        plan = make(chosen)
        from engine.sweep import run  # with torch and transformers: input that is wrong is told before

        scorers = run.scorers_of(plan)
        run.prepare(plan)
        return _run(console, plan, scorers)
    except XDetError as error:
        return _report_error(error)


def search_points(
    models: Annotated[tuple[str, ...], tyro.conf.arg(metavar="WORD ...")] = config.Search.models,
    train_langs: Annotated[tuple[str, ...], tyro.conf.arg(metavar="WORD ...")] = config.Search.train_langs,
    dataset: Annotated[str, tyro.conf.arg(metavar="WORD")] = config.Search.dataset,
    limit_train: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    epochs: Annotated[int, tyro.conf.arg(metavar="N")] = config.Search.epochs,
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = config.Search.seed,
    halving: tyro.conf.FlagCreatePairsOff[bool] = False,
    db: Annotated[Path, tyro.conf.arg(metavar="PATH")] = config.RESULTS,
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> int:
    """Search the paper's hyperparameter grid: batch 4, 6, 8 × learning rate 2e-4, 2e-5 × rank 16, 32 × α 32, 64.

    Trains all 24 points of a base at once on four fifths of the training pairs, and ranks them by likelihood on the
    held-out fifth. A sweep uses the best with --hyperparameters from-search. Run the same command again to resume. Exit
    codes are the same as for a sweep.

    Args:
        models: Base models, as for a sweep.
        train_langs: Training languages, pooled.
        dataset: sample (bundled), paradetox (from the hub), or a folder of sentence pairs.
        limit_train: Maximum training pairs per language.
        epochs: Passes over the training text.
        seed: Seed for training and for the held-out fifth.
        halving: Drop the worse half of the points after a quarter of the steps, and again after half.
        db: Results file (DuckDB).
        dry_run: Print the plan and its estimated cost, and exit.
    """
    console = Console()
    try:
        settings = config.Search(models, languages(train_langs), dataset, limit_train, epochs, seed, halving, db)
        config.check_search(settings)
        from engine.sweep import estimate, report, search

        searches = search.plan(settings, is_outline=dry_run)
        report.search_outline(console, searches, [estimate.search_seconds(base) for base in searches])
        if dry_run:
            return DONE
        from engine.sweep import run, run_search

        run_search.prepare(searches)

        def work(reporter: "Reporter") -> int:
            for base in searches:
                run_search.run(base, reporter)
            return DONE

        with run.exclusive(db):
            code = _run_with_reporter(console, db, work)
    except XDetError as error:
        return _report_error(error)
    if code == DONE:
        for base in searches:
            report.search_summary(console, base)
    return code


def export_adapter(
    variant: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="VARIANT")],
    /,
    to: Annotated[Path, tyro.conf.arg(metavar="FOLDER")],
    merged: tyro.conf.FlagCreatePairsOff[bool] = False,
    db: Annotated[Path, tyro.conf.arg(metavar="PATH")] = config.RESULTS,
    adapters: Annotated[Path, tyro.conf.arg(metavar="PATH")] = config.ADAPTERS,
) -> int:
    """Export an adapter (PEFT format) or a merged model, with a model card (README.md).

    The card states the training text, the results with their intervals, the base's licence, and the limitations.
    Nothing is overwritten. Exit codes: 0 done; 2 bad usage or input, nothing was written.

    Args:
        variant: Variant ID (gemma-3-270m-x-ft-de-…), a unique prefix of it, or an adapter folder.
        to: Output folder; must be new or empty.
        merged: Merge base and adapter into one model, for tools that cannot load adapters.
        db: Results file, for the numbers in the card.
        adapters: Folder of adapters.
    """
    try:
        from engine.export import folders

        exported = folders.export(variant, to, merged, db, adapters)
    except XDetError as error:
        return _report_error(error)
    Console().print(exported.summary, markup=False, highlight=False, soft_wrap=True)
    return DONE


COMMANDS: dict[str, Callable[..., int]] = {"search": search_points, "export": export_adapter}
"""What is no sweep, by its first word."""


def _report_error(error: XDetError) -> int:
    Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
    return BAD_INPUT


def _run(console: Console, plan: "Plan", scorers: "Sequence[Scorer]") -> int:
    """A plan from its start to its summary. Errors: StoreError before anything is started."""
    from engine.sweep import report, run

    outcomes = []

    def work(reporter: "Reporter") -> int:
        report.plan_line(console, plan)
        outcomes.append(run.run(plan, scorers, reporter))
        return SOME_FAILED if outcomes[0].failures else DONE

    with run.exclusive(plan.sweep.db):
        run.put_plan(plan)
        code = _run_with_reporter(console, plan.sweep.db, work)
    for outcome in outcomes:
        report.summary(console, plan, outcome)
    return code


def _run_with_reporter(console: Console, db: Path, work: "Callable[[Reporter], int]") -> int:
    """Does the work, and says how it ended early."""
    from engine.sweep.progress import Reporter

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Reporter(db, console) as reporter:
            return work(reporter)
    except XDetError as error:
        console.print(f"stopped: {error} Everything finished so far is stored.", style="red", markup=False)
        return SOME_FAILED
    except KeyboardInterrupt:
        console.print("\ninterrupted; everything finished so far is stored. Run the same command to resume.")
        return INTERRUPTED


def entry() -> int:
    """`xdet`, which is this program by another name."""
    return command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(entry())
