"""The results file. The only package that imports duckdb.

Connections are in `file`, what is written in `writes`, what is read in `reads`.
"""

from engine.store.file import COMPLETION_KEY, LOCK_PATIENCE, PUBLISHED, Connection, LockedError, reading, writing
from engine.store.reads import (
    agreement,
    averages,
    bases,
    cells,
    cells_of,
    completions,
    distances,
    finished_units,
    points,
    represented_variants,
    run,
    run_scores,
    samples,
    scorers,
    scores,
    search_points,
    searches,
    settings,
    shapes,
    silhouettes,
    similarities,
    sources,
    statuses,
    training,
    unscored,
)
from engine.store.writes import (
    copy_unit,
    count_unscored,
    finish_search,
    put_agreement,
    put_averages,
    put_cells,
    put_geometry,
    put_plan,
    put_points,
    put_q_values,
    put_scorer,
    put_scores,
    put_search,
    put_unit,
    set_status,
)

# fmt: off
__all__ = [
    "COMPLETION_KEY", "Connection", "LOCK_PATIENCE", "LockedError", "PUBLISHED", "agreement", "averages", "bases",
    "cells", "cells_of", "completions", "copy_unit", "count_unscored", "distances", "finish_search", "finished_units",
    "points", "put_agreement", "put_averages", "put_cells", "put_geometry", "put_plan", "put_points", "put_q_values",
    "put_scorer", "put_scores", "put_search", "put_unit", "reading", "represented_variants", "run", "run_scores",
    "samples", "scorers", "scores", "search_points", "searches", "set_status", "settings", "shapes", "silhouettes",
    "similarities", "sources", "statuses", "training", "unscored", "writing",
]
# fmt: on
