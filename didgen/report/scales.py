"""Axes of charts: round tick values, and the mapping of values to positions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps values in [low, high] to positions in [start, stop], linearly or by logarithm."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The position of a value."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return self.start + (value - low) / (high - low) * (self.stop - self.start)


def linear_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) within [low, high]."""
    if not high > low:
        raise ValueError(f"expected low < high, found low = {low} and high = {high}")
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    # Rounding makes 0.30000000000000004 0.3; the digits of the step decide how far.
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(index * step, digits) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Values 1, 2 and 5 (only 1 over more than two decades) times powers of ten in [low, high]."""
    if not 0 < low < high:
        raise ValueError(f"expected 0 < low < high, found low = {low} and high = {high}")
    factors = (1, 2, 5) if math.log10(high / low) <= 2 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [
        float(f"{factor}e{power}")
        for power in powers
        for factor in factors
        if low * 0.999 <= factor * 10.0**power <= high * 1.001
    ]


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """The range of the values with a margin on both sides; never of width zero."""
    low, high = min(values), max(values)
    margin = (high - low) * share or max(abs(high) * 0.1, 0.01)
    return low - margin, high + margin


def tick_label(value: float) -> str:
    """A short label: no trailing zeros, a true minus sign, thousands as k."""
    if value and abs(value) >= 10000 and value % 1000 == 0:
        return f"{value / 1000:g}k".replace("-", "\N{MINUS SIGN}")
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")
