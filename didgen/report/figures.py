"""Charts as inline SVG: small, without scripts, coloured by the page's own theme.

Every chart is a pure function of its numbers. Colours come from classes (`s0`, `s1`, ...), which
the style sheet maps to light and dark tones; labels are escaped; a title and a description stand
for the drawing where it cannot be seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from didgen.report.numbers import mean_sd, whole
from didgen.report.scales import Scale, linear_ticks, log_ticks, padded, tick_label

WIDTH, HEIGHT = 400, 236
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 10, 44


@dataclass(frozen=True)
class Line:
    """One curve: its name in the legend ("" for none), its points and its colour's index."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    series: int = 0
    faint: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawing with the words around it: legend entries are (name, colour's index)."""

    svg: Markup
    title: str
    legend: tuple[tuple[str, int], ...] = ()
    note: str = ""


def _svg(key: str, title: str, description: str, body: Markup, height: int = HEIGHT) -> Markup:
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" role="img" aria-labelledby="{k}-t {k}-d">'
        '<title id="{k}-t">{title}</title><desc id="{k}-d">{description}</desc>{body}</svg>'
    ).format(w=WIDTH, h=height, k=key, title=title, description=description, body=body)


def _x_axis(scale: Scale, label: str, bottom: float, top: float, ticks: Sequence[float]) -> Markup:
    marks = Markup("").join(
        Markup(
            '<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
            '<text class="mid" x="{x:.1f}" y="{y}">{text}</text>'
        ).format(x=scale(tick), top=top, bottom=bottom, y=bottom + 16, text=tick_label(tick))
        for tick in ticks
    )
    name = Markup('<text class="mid name" x="{x}" y="{y}">{text}</text>').format(
        x=(scale.start + scale.stop) / 2, y=bottom + 36, text=label
    )
    line = Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
        scale.start, scale.stop, bottom, bottom
    )
    return marks + line + name


def _y_axis(scale: Scale, label: str, ticks: Sequence[float]) -> Markup:
    marks = Markup("").join(
        Markup(
            '<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            '<text class="end" x="{x}" y="{ty:.1f}">{text}</text>'
        ).format(
            left=LEFT,
            right=WIDTH - RIGHT,
            y=scale(tick),
            x=LEFT - 7,
            ty=scale(tick) + 4.5,
            text=tick_label(tick),
        )
        for tick in ticks
    )
    middle = (scale.start + scale.stop) / 2
    name = Markup(
        '<text class="mid name" transform="translate(12 {y:.1f}) rotate(-90)">{text}</text>'
    ).format(y=middle, text=label)
    return marks + name


def line_chart(
    key: str,
    title: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    log: bool = False,
    note: str = "",
) -> Chart:
    """Curves over a common axis; `key` makes the identifiers of the drawing unique in the page.

    Raises: ValueError if there is no point at all, or a value <= 0 on a logarithmic axis.
    """
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for y in line.y]
    if not xs:
        raise ValueError(f"the chart '{title}' has no points; expected at least one curve")
    if log and min(ys) <= 0:
        raise ValueError(f"the chart '{title}' has the value {min(ys)} on a logarithmic axis")
    x_low, x_high = min(xs), max(xs)
    if x_low == x_high:
        x_low, x_high = padded(xs)
    y_low, y_high = (min(ys) / 1.15, max(ys) * 1.15) if log else padded(ys)
    across = Scale(x_low, x_high, LEFT, WIDTH - RIGHT)
    up = Scale(y_low, y_high, HEIGHT - BOTTOM, TOP, log)
    body = _y_axis(up, y_label, log_ticks(y_low, y_high) if log else linear_ticks(y_low, y_high))
    body += _x_axis(
        across, x_label, HEIGHT - BOTTOM, HEIGHT - BOTTOM - 4, linear_ticks(x_low, x_high)
    )
    for line in lines:
        points = " ".join(
            f"{across(x):.1f},{up(y):.1f}" for x, y in zip(line.x, line.y, strict=True)
        )
        body += Markup('<polyline class="line s{s}{faint}" points="{points}"/>').format(
            s=line.series, faint=" faint" if line.faint else "", points=points
        )
        if len(line.x) == 1:
            body += Markup('<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="4"/>').format(
                line.series, across(line.x[0]), up(line.y[0])
            )
    named = [line for line in lines if line.name]
    ends = "; ".join(f"{line.name} from {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in named)
    description = f"{y_label} against {x_label}. {ends}"
    legend = tuple(dict.fromkeys((line.name, line.series) for line in named))
    return Chart(_svg(key, title, description, body), title, legend, note)


def histogram(
    key: str,
    title: str,
    values: Sequence[float],
    x_label: str,
    bins: int = 20,
    note: str = "",
) -> Chart:
    """How values in [0, 1] are spread: bars of counts, and a mark at the mean.

    Raises: ValueError without values or with a value outside [0, 1].
    """
    if not values or min(values) < 0 or max(values) > 1:
        raise ValueError(f"the chart '{title}' needs values in [0, 1], found {list(values)[:5]}")
    counts = _counts(values, bins)
    across = Scale(0.0, 1.0, LEFT, WIDTH - RIGHT)
    up = Scale(0.0, max(counts) * 1.08, HEIGHT - BOTTOM, TOP)
    ticks = [tick for tick in linear_ticks(0, max(counts) * 1.08, 4) if tick == int(tick)]
    body = _y_axis(up, "count", ticks)
    for index, count in enumerate(counts):
        if count:
            left, right = across(index / bins) + 0.75, across((index + 1) / bins) - 0.75
            body += Markup(
                '<rect class="bar s0" x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"/>'
            ).format(x=left, y=up(count), w=right - left, h=up(0) - up(count))
    mean = sum(values) / len(values)
    body += Markup(
        '<line class="mean" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
    ).format(x=across(mean), top=TOP, bottom=HEIGHT - BOTTOM)
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    body += _x_axis(across, x_label, HEIGHT - BOTTOM, HEIGHT - BOTTOM - 4, ticks)
    description = (
        f"Histogram of {len(values)} values of {x_label}: lowest {min(values):.3f}, "
        f"mean {mean:.3f} (the dashed line), highest {max(values):.3f}"
    )
    return Chart(_svg(key, title, description, body), title, (), note)


def split_histograms(
    key: str,
    title: str,
    groups: Mapping[str, Sequence[float]],
    x_label: str,
    bins: int = 25,
    note: str = "",
) -> Chart:
    """One row of bars a group of values in [0, 1], as shares of the group, with its median marked.

    Raises: ValueError for no group, a group without values, or a value outside [0, 1].
    """
    if not groups or not all(groups.values()):
        raise ValueError(f"the chart '{title}' needs at least one value in each of {list(groups)}")
    every = [value for row in groups.values() for value in row]
    if not (min(every) >= 0 and max(every) <= 1):
        raise ValueError(f"the chart '{title}' needs values in [0, 1], found {max(every, key=abs)}")
    shares = {n: [c / len(row) for c in _counts(row, bins)] for n, row in groups.items()}
    left, row_height, high = 76, 62, max(max(row) for row in shares.values())
    bottom = TOP + row_height * len(groups)
    across, width = Scale(0.0, 1.0, left, WIDTH - RIGHT), (WIDTH - RIGHT - left) / bins - 1
    body = _x_axis(across, x_label, bottom, TOP, [0, 0.2, 0.4, 0.6, 0.8, 1])
    parts = []
    for index, (name, row) in enumerate(groups.items()):
        base = TOP + row_height * (index + 1)
        up = Scale(0.0, high, base, base - row_height + 12)
        middle = median(row)
        bars = Markup("").join(
            Markup(
                '<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"/>'
            ).format(x=across(place / bins) + 0.5, y=up(share), w=width, h=base - up(share))
            for place, share in enumerate(shares[name])
            if share
        )
        body += Markup(
            '<text class="end label" x="{x}" y="{y}">{name}</text>'
            '<text class="end" x="{x}" y="{z}">{n}</text>'
            '<g class="s{s}">{bars}</g><line class="axis" x1="{l}" x2="{r}" y1="{b}" y2="{b}"/>'
            '<line class="mean" x1="{m:.1f}" x2="{m:.1f}" y1="{t}" y2="{b}"/>'
        ).format(
            x=left - 10, y=base - 24, z=base - 7, name=name, n=whole(len(row)), s=index % 6,
            bars=bars, l=left, r=WIDTH - RIGHT, b=base, m=across(middle), t=base - row_height + 6,
        )  # fmt: skip
        parts.append(
            f"{name}: {len(row)} values, {min(row):.3f} to {max(row):.3f}, median {middle:.3f}"
        )
    description = f"Histograms of {x_label} (dashed: the median). {'; '.join(parts)}"
    return Chart(_svg(key, title, description, body, bottom + BOTTOM), title, (), note)


def _counts(values: Sequence[float], bins: int) -> list[int]:
    """How many values lie in each of `bins` equal parts of [0, 1]."""
    counts = [0] * bins
    for value in values:
        counts[min(int(value * bins), bins - 1)] += 1
    return counts


def arms_chart(key: str, title: str, arms: Mapping[str, Sequence[float]], x_label: str) -> Chart:
    """One row an arm: a dot for each seed, a tick at the mean, a bar of one standard deviation.

    Raises: ValueError without any value.
    """
    values = [value for row in arms.values() for value in row]
    if not values:
        raise ValueError(f"the chart '{title}' has no values; expected at least one")
    left, row_height = 96, 40
    bottom = TOP + row_height * len(arms)
    low, high = padded(values, 0.12)
    across = Scale(low, high, left, WIDTH - RIGHT)
    body = _x_axis(across, x_label, bottom, TOP, linear_ticks(low, high, 4))
    for index, (arm, row) in enumerate(arms.items()):
        y = TOP + row_height * (index + 0.5)
        body += Markup('<text class="end label" x="{}" y="{}">{}</text>').format(
            left - 12, y + 4.5, arm
        )
        mean, spread = mean_sd(row)
        if spread is not None:
            body += Markup(
                '<rect class="band s{s}" x="{x:.1f}" y="{y}" width="{w:.1f}" height="18"/>'
            ).format(
                s=index % 6,
                x=across(max(low, mean - spread)),
                y=y - 9,
                w=across(min(high, mean + spread)) - across(max(low, mean - spread)),
            )
        body += Markup(
            '<line class="line s{s}" x1="{x:.1f}" x2="{x:.1f}" y1="{a}" y2="{b}"/>'
        ).format(s=index % 6, x=across(mean), a=y - 12, b=y + 12)
        body += Markup("").join(
            Markup('<circle class="dot s{}" cx="{:.1f}" cy="{}" r="4"/>').format(
                index % 6, across(value), y
            )
            for value in row
        )
    by_arm = "; ".join(f"{arm}: {', '.join(f'{v:.3f}' for v in row)}" for arm, row in arms.items())
    svg = _svg(key, title, f"{x_label} of each seed. {by_arm}", body, bottom + BOTTOM)
    return Chart(svg, title)


def interval_chart(
    key: str, title: str, middle: float, low: float, high: float, x_label: str, against: str,
    arm: str = "synthetic", delta: float = 0.0,
) -> Chart:  # fmt: skip
    """A difference with its confidence interval, against the line of no difference.

    `delta`: differences within +-delta, not worth having, are shaded.
    """
    reach = max(abs(low), abs(high), abs(middle), 1.2 * delta, 1e-6) * 1.25
    bottom = TOP + 58
    across = Scale(-reach, reach, 28, WIDTH - 28)
    body = Markup("")
    if delta:
        body += Markup('<rect class="even" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
            across(-delta), TOP + 22, across(delta) - across(-delta), bottom - TOP - 22
        )
    body += _x_axis(across, x_label, bottom, TOP + 22, linear_ticks(-reach, reach, 5))
    body += Markup(
        '<line class="zero" x1="{x}" x2="{x}" y1="{a}" y2="{b}"/>'
        '<text class="end side" x="{l}" y="{t}">\N{LEFTWARDS ARROW} {against} better</text>'
        '<text class="side" x="{r}" y="{t}">{arm} better \N{RIGHTWARDS ARROW}</text>'
    ).format(
        x=across(0), a=TOP, b=bottom, l=across(0) - 10, r=across(0) + 10, t=TOP + 9,
        against=against, arm=arm,
    )  # fmt: skip
    y = TOP + 40
    body += Markup(
        '<path class="whisker" d="M{l:.1f} {a}V{b}M{l:.1f} {y}H{h:.1f}M{h:.1f} {a}V{b}"/>'
        '<circle class="point" cx="{m:.1f}" cy="{y}" r="5.5"/>'
    ).format(l=across(low), h=across(high), m=across(middle), y=y, a=y - 6, b=y + 6)
    description = (
        f"Difference {middle:+.4f}, interval from {low:+.4f} to {high:+.4f}. "
        f"The interval {'contains' if low <= 0 <= high else 'does not contain'} zero"
    )
    note = f"Shaded: differences up to {delta:g}, which are not worth having." if delta else ""
    return Chart(_svg(key, title, description, body, bottom + BOTTOM), title, (), note)
