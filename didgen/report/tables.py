"""Tables of a report, as plain data: a caption, headings and cells; templates draw them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from didgen.report.numbers import mean_sd


@dataclass(frozen=True)
class Cell:
    """A cell: words or a number, with an optional spread and an optional share for shading.

    `places` is the number of decimals, `share` is in [0, 1].
    """

    text: str = ""
    value: float | None = None
    spread: float | None = None
    share: float | None = None
    places: int = 3
    sign: bool = False


@dataclass(frozen=True)
class Row:
    """A row: its heading, its cells, and whether it is the one that matters or a total."""

    heading: str
    cells: tuple[Cell, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table: caption, the heading over the row headings, the column headings, rows, a note."""

    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Bar:
    """One bar of a distribution: a word, how often it was found, its share of the largest."""

    name: str
    count: int
    share: float
    length: float


def bars(counts: Mapping[str, int]) -> tuple[Bar, ...]:
    """Counts as bars, in the order given; `share` of the total, `length` of the largest."""
    total, largest = sum(counts.values()), max(counts.values(), default=0)
    if total == 0:
        return ()
    return tuple(Bar(name, count, count / total, count / largest) for name, count in counts.items())


def count_table(
    caption: str, corner: str, counts: Mapping[str, Mapping[str, int]], total_row: bool = True
) -> Table:
    """Counts as rows of columns, with a total for every row and, by choice, every column."""
    columns = tuple(dict.fromkeys(name for row in counts.values() for name in row))
    rows, totals = [], Counter()
    for heading, row in counts.items():
        totals.update(row)
        cells = [Cell(value=row.get(name, 0), places=0) for name in columns]
        rows.append(Row(heading, (*cells, Cell(value=sum(row.values()), places=0))))
    if total_row:
        last = [Cell(value=totals[name], places=0) for name in columns]
        rows.append(Row("all", (*last, Cell(value=totals.total(), places=0)), "total"))
    return Table(caption, corner, (*columns, "all"), tuple(rows))


def spread_cell(values: Sequence[float], places: int = 3) -> Cell:
    """Mean and standard deviation over seeds as one cell; an empty cell without values."""
    if not values:
        return Cell()
    mean, spread = mean_sd(values)
    return Cell(value=mean, spread=spread, places=places)


def arms_table(
    caption: str,
    corner: str,
    measures: Mapping[str, Mapping[str, Sequence[float]]],
    arms: Sequence[str],
    leading: str = "",
    note: str = "",
) -> Table:
    """One row a measure, one column an arm; of two arms, the difference too.

    `measures`: measure -> arm -> one value a seed. The row named `leading` is marked.
    """
    # With more arms the differences stand beside their intervals, in the verdict.
    first, others = arms[0], arms[1:] if len(arms) == 2 else ()
    rows = []
    for name, by_arm in measures.items():
        cells = [spread_cell(by_arm.get(arm, ())) for arm in arms]
        for arm in others:
            both = by_arm.get(first) and by_arm.get(arm)
            difference = mean_sd(by_arm[arm])[0] - mean_sd(by_arm[first])[0] if both else None
            cells.append(Cell(value=difference, sign=True))
        rows.append(Row(name, tuple(cells), "leading" if name == leading else ""))
    columns = (*arms, *(f"{arm} \N{MINUS SIGN} {first}" for arm in others))
    return Table(caption, corner, columns, tuple(rows), note)


def measures_table(
    caption: str,
    measures: Mapping[str, Mapping[str, Sequence[float]]],
    arms: Sequence[str],
    marked: Sequence[str] = (),
    note: str = "",
    compared: Mapping[str, Mapping[str, Cell]] | None = None,
) -> Table:
    """One row an arm, one column a measure: the same numbers for more arms than fit side by side.

    `measures`: measure -> arm -> one value a seed; `compared`: further columns, each arm -> cell,
    which come first. The rows named in `marked` stand out.
    """
    compared = compared or {}
    rows = [
        Row(
            arm,
            (
                *(by_arm.get(arm, Cell()) for by_arm in compared.values()),
                *(spread_cell(by_arm.get(arm, ())) for by_arm in measures.values()),
            ),
            "leading" if arm in marked else "",
        )
        for arm in arms
    ]
    return Table(caption, "trained on", (*compared, *measures), tuple(rows), note)


def confusion_table(
    caption: str, names: Sequence[str], matrices: Sequence[Sequence[Sequence[float]]]
) -> Table:
    """The sum of confusion matrices (rows: true class, columns: predicted), shaded by row share.

    Raises: ValueError if a matrix is not square with one row a name.
    """
    size = len(names)
    for matrix in matrices:
        if len(matrix) != size or any(len(row) != size for row in matrix):
            raise ValueError(
                f"found a confusion matrix of {len(matrix)} rows of {[len(r) for r in matrix]} "
                f"cells; expected {size} x {size}, one a class ({', '.join(names)})"
            )
    rows = []
    for i, name in enumerate(names):
        counts = [sum(matrix[i][j] for matrix in matrices) for j in range(size)]
        total = sum(counts)
        cells = [
            Cell(value=count, places=0, share=count / total if total else 0.0) for count in counts
        ]
        rows.append(Row(name, tuple(cells)))
    return Table(caption, "true class", tuple(names), tuple(rows), "", "confusion")
