"""The audit of a dataset folder: what is wrong with it, what would make its numbers lie, what is in it."""

from mmrec.data.audit.facts import coverage, facts, faults, patterns
from mmrec.data.audit.near_duplicates import NearDuplicates, near_duplicates
from mmrec.data.audit.page import render_page
from mmrec.data.audit.problems import problems
from mmrec.data.audit.suspicions import near_duplicate_lines, suspicions

__all__ = [
    "NearDuplicates",
    "coverage",
    "facts",
    "faults",
    "near_duplicate_lines",
    "near_duplicates",
    "patterns",
    "problems",
    "render_page",
    "suspicions",
]
