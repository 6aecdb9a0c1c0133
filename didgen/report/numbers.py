"""Numbers in words and digits: means, spreads, and how a page prints them."""

from collections.abc import Sequence

from markupsafe import Markup

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and the sample standard deviation (n - 1); None for the latter with one value.

    Raises: ValueError without values.
    """
    if not values:
        raise ValueError("no values; expected at least one")
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5


def digits(value: float | None, places: int = 3, sign: bool = False) -> str:
    """A number with fixed decimals and a true minus sign; a dash for None."""
    if value is None:
        return DASH
    text = f"{value:+.{places}f}" if sign else f"{value:.{places}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def interval(value: float, low: float, high: float, places: int = 3, sign: bool = False) -> str:
    """A number with its interval: "+0.021 [0.008, 0.034]"."""
    ends = ", ".join(digits(end, places) for end in (low, high))
    return f"{digits(value, places, sign)} [{ends}]"


def p_text(value: float) -> str:
    """A p value as words: "0.042", or "< 0.001" below that."""
    return "< 0.001" if value < 0.001 else digits(value)


def number(value: float | None, places: int = 3, sign: bool = False) -> Markup:
    """A number as `<data>`: rounded for the eye, in full for machines. A dash for None."""
    if value is None:
        return Markup('<span class="none" title="not available">{}</span>').format(DASH)
    return Markup('<data value="{}">{}</data>').format(
        repr(float(value)), digits(value, places, sign)
    )


def p_value(value: float) -> Markup:
    """A p value: "0.042", or "< 0.001" below that."""
    if value < 0.001:
        return Markup('&lt;&nbsp;<data value="{}">0.001</data>').format(repr(float(value)))
    return number(value, 3)


def whole(value: int) -> str:
    """A whole number with narrow spaces between thousands."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def megabytes(count: int) -> str:
    """A number of bytes in words, in units of 1000."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def plural(count: int, noun: str, several: str = "") -> str:
    """A count with its noun: "1 seed", "3 seeds"; `several` where an s does not do."""
    return f"{whole(count)} {noun if count == 1 else several or f'{noun}s'}"


def listed(words: Sequence[str]) -> str:
    """Words as an enumeration: "a", "a and b", "a, b and c"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
