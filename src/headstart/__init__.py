"""Give a new task a head start from everything that has already been learned."""

from headstart.adaptation import adapt
from headstart.combination.merging import merge
from headstart.core import Budget, Problem, Result, Source, Target
from headstart.flow import merge_auto, solve
from headstart.inspection import inspect, read_datasets, read_target, read_unlabelled
from headstart.inventory import Inventory
from headstart.outcome import load
from headstart.ranking import rank
from headstart.ranking.datasets import rank_datasets
from headstart.ranking.maps import rank_by_maps

__version__ = "0.1.0"
__all__ = [
    "Budget", "Inventory", "Problem", "Result", "Source", "Target", "adapt", "inspect", "load", "merge",
    "merge_auto", "rank", "rank_by_maps", "rank_datasets", "read_datasets", "read_target", "read_unlabelled", "solve",
]  # fmt: skip
