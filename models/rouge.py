"""ROUGE-1 and ROUGE-L of answers: words in common, and words in common in the same order.

Both are the F-measures of the `rouge_score` package, without stemming, references uncut, as in
PPlug's evaluation; tests hold them against the package's own. The words are those of
`models/words.py`, so that text in other scripts than ASCII counts.

The package fills its table of subsequences in Python. A pack's answers are measured while its
device waits, so here their length is rapidfuzz's.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rapidfuzz.distance import LCSseq

from models.words import words


class Rouge(NamedTuple):
    """F-measures in [0, 1] of single words and of the longest common subsequence."""

    rouge_1: float
    rouge_l: float


def rouge(reference: str, answer: str) -> Rouge:
    """ROUGE-1 and ROUGE-L of an answer."""
    expected, got = words(reference), words(answer)
    common = (Counter(expected) & Counter(got)).total()
    in_order = LCSseq.similarity(expected, got)
    return Rouge(*(_f_measure(n, len(expected), len(got)) for n in (common, in_order)))


def mean_rouge_l(references: Sequence[str], answers: Sequence[str]) -> tuple[float, float]:
    """Mean ROUGE-L of answers, and its standard error over them."""
    found = [rouge(*pair).rouge_l for pair in zip(references, answers, strict=True)]
    return statistics.fmean(found), standard_error(found)


def standard_error(values: Sequence[float]) -> float:
    """Of their mean; 0 for a single one."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _f_measure(common: int, expected: int, got: int) -> float:
    if not common:
        return 0.0
    precision, recall = common / got, common / expected
    return 2 * precision * recall / (precision + recall)
