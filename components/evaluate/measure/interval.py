"""Sums over conversations -> a mean with its 95 % confidence interval.

A conversation's tokens depend on each other, so the sample is of conversations. The mean of all tokens is then a ratio of two sums;
its variance is that of Cochran, Sampling Techniques (1977), section 6.4, and with few conversations Student's t takes the place of
the normal distribution.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

from components.shared.documents.results import Score

_Z = NormalDist().inv_cdf(0.975)
# Student's t at 0.975 for 1 to 10 degrees of freedom; from there on the expansion of Abramowitz and Stegun, 26.7.5, has its first
# four digits.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def mean_score(sums: Sequence[float], weights: Sequence[float]) -> Score:
    """The sum of all `sums` by the sum of all `weights`, one of each a conversation. At least one weight is positive.

    `sums` [2, 4] with `weights` [1, 2], as of two conversations of one and two tokens, are a mean of 2 with an interval of no width.
    """
    total = sum(weights)
    mean = sum(sums) / total
    number = len(sums)
    if number < 2:
        return Score(value=mean)
    squares = sum((each - mean * weight) ** 2 for each, weight in zip(sums, weights, strict=True))
    half = student_t(number - 1) * math.sqrt(number / (number - 1) * squares) / total
    return Score(value=mean, low=mean - half, high=mean + half)


def student_t(freedom: int) -> float:
    """The value below which 97.5 % of Student's t distribution lie."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    first = (_Z**3 + _Z) / 4
    second = (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96
    third = (3 * _Z**7 + 19 * _Z**5 + 17 * _Z**3 - 15 * _Z) / 384
    return _Z + first / freedom + second / freedom**2 + third / freedom**3
