"""Results from cells and scores: rankings, comparisons, tests. Pure: takes the frames of the store's read functions,
gives small tables.
"""

from engine.analysis.choice import choose_adapters, strategies, train_means
from engine.analysis.paper import against_published, audit, copied_rows
from engine.analysis.questions import cost, share_of_data, transfer
from engine.analysis.scorer_agreement import agreement
from engine.analysis.seeds import pool_seeds

__all__ = [
    "against_published",
    "agreement",
    "audit",
    "choose_adapters",
    "copied_rows",
    "cost",
    "pool_seeds",
    "share_of_data",
    "strategies",
    "train_means",
    "transfer",
]
