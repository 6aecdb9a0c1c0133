"""From estimated differences to one of four answers, and to words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from didgen.metrics.contrasts import POWER, Estimate

Answer = Literal["helps", "hurts", "equivalent", "inconclusive"]
MIN_SEEDS = 2


@dataclass(frozen=True)
class Rule:
    """When a difference counts; margin and delta in units of the metric.

    `margin`: a difference must exceed it for `helps` and for `hurts`. `delta`: differences within
    +-delta are not worth having. alpha is 1 minus `confidence`.
    """

    confidence: float
    margin: float
    delta: float
    higher_is_better: bool = True

    @property
    def alpha(self) -> float:
        """The two-sided level of the test."""
        return 1 - self.confidence

    def gain(self, estimate: Estimate) -> float:
        """The difference, positive where the treatment is better."""
        return estimate.value if self.higher_is_better else -estimate.value

    def answer(self, estimate: Estimate, p: float) -> Answer:
        """The answer from a difference and its p, corrected where it needs to be.

        `equivalent` is two one-sided tests at alpha: the interval of confidence 1 - 2 alpha lies
        within +-delta. One seed decides nothing: two trainings on the same data differ, and only
        other seeds show by how much.
        """
        if estimate.n_seeds < MIN_SEEDS:
            return "inconclusive"
        if p < self.alpha:
            return "helps" if self.gain(estimate) > 0 else "hurts"
        return "equivalent" if estimate.p_equivalent(self.delta) < self.alpha else "inconclusive"


@dataclass(frozen=True)
class Hardest:
    """The intersection-union test over all controls: it passes only if the hardest one does.

    p: the largest; low: the least lower bound of the gain. Both uncorrected (Berger 1982).
    """

    control: str
    p: float
    low: float

    @classmethod
    def of(cls, estimates: Mapping[str, Estimate], rule: Rule) -> "Hardest":
        """The test from the difference to each control."""
        p = {
            name: each.p(rule.margin) if rule.gain(each) > 0 else 1.0
            for name, each in estimates.items()
        }
        low = {
            name: rule.gain(each) - (each.interval(rule.confidence)[1] - each.value)
            for name, each in estimates.items()
        }
        control = max(estimates, key=lambda name: (p[name], -low[name]))
        return cls(control, p[control], min(low.values()))


@dataclass(frozen=True)
class Reach:
    """What a comparison could have detected: `effect` with power 80 %, and what half of it needs.

    seeds, lesions: how many would find half the effect, the other left as it is; None: no number.
    """

    effect: float
    power: float
    seeds: int | None
    lesions: int | None

    @classmethod
    def of(cls, estimate: Estimate, margin: float, alpha: float) -> "Reach | None":
        """The reach of a test at `alpha` beyond a margin; None with one seed."""
        if estimate.n_seeds < MIN_SEEDS:
            return None
        effect = estimate.detectable(alpha)
        needed = estimate.seeds_for(effect / 2, alpha), estimate.lesions_for(effect / 2, alpha)
        return cls(margin + effect, POWER, *needed)


def p_text(p: float) -> str:
    """p as text, with its sign."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
