"""What can be measured: the documents' cells as data, and their small versions."""

from __future__ import annotations

from perfsuite.workloads.catalogue import CatalogueError, load_catalogue, load_models
from perfsuite.workloads.merging import (
    MergeError,
    catalogue_with_checkpoint,
    with_checkpoint,
)
from perfsuite.workloads.published import Published, PublishedError, load_published
from perfsuite.workloads.smoke import shrink, smoke_catalogue
from perfsuite.workloads.sweep import SweepError, parse_sweep
from perfsuite.workloads.workload import Model, RopeScaling, Workload

__all__ = [
    "CatalogueError",
    "MergeError",
    "Model",
    "Published",
    "PublishedError",
    "RopeScaling",
    "SweepError",
    "Workload",
    "catalogue_with_checkpoint",
    "load_catalogue",
    "load_models",
    "load_published",
    "parse_sweep",
    "shrink",
    "smoke_catalogue",
    "with_checkpoint",
]
