"""A table that fits the terminal: names are shortened, secondary columns dropped, numbers never cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

ELLIPSIS = "…"
GAP = 2
"""Cells between two columns, and of both edges together."""


class Shorten(StrEnum):
    """What a column gives up where there is no room."""

    NEVER = "never"
    """numbers"""
    LEFT = "left"
    """names in a hierarchy: the end says most"""
    RIGHT = "right"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A title and one text per row. `drop` ranks what goes first (the highest); 0 always stays; a
    shortened column keeps `at_least` cells."""

    title: str
    cells: tuple[Text, ...] = ()
    shorten: Shorten = Shorten.NEVER
    left: bool = False
    drop: int = 0
    at_least: int = 12

    @property
    def natural(self) -> int:
        return max((len(self.title), *(cell.cell_len for cell in self.cells)))

    @property
    def least(self) -> int:
        return self.natural if self.shorten is Shorten.NEVER else min(self.natural, self.at_least)


def shortened(text: Text, width: int, how: Shorten) -> Text:
    """At most `width` cells of a text."""
    if text.cell_len <= width:
        return text
    if how is Shorten.LEFT:
        return Text(ELLIPSIS, style=text.style) + text[len(text) - width + 1 :]
    words = text.plain[: width - 1].rstrip()
    if " " in words and text.plain[len(words)] != " ":  # a tile size that lost its last digit would be another size
        words = words.rpartition(" ")[0]
    return Text(words + ELLIPSIS, style=text.style)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedTable:
    """Columns of equal length; `styles` gives a style per row, where there is one."""

    title: str
    columns: tuple[Column, ...]
    styles: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self.table(options.max_width)
        if len(self.title) > console.measure(table).maximum:  # it would be broken at the table's edge
            table.title = None
            yield Text(self.title, style="bold")
        yield table

    def kept(self, width: int) -> list[Column]:
        """The columns that `width` cells hold."""
        kept: list[int] = []
        spare = width
        for i, column in sorted(enumerate(self.columns), key=lambda item: item[1].drop):
            if column.least + GAP <= spare or column.drop == 0:
                kept.append(i)
                spare -= column.least + GAP
        return [self.columns[i] for i in sorted(kept)]

    def widths(self, width: int) -> list[int]:
        """Cells of each kept column; what is left over goes to the shortened ones, the first first."""
        found = self.kept(width)
        spare = max(0, width - sum(c.least + GAP for c in found))
        sizes = []
        for column in found:
            more = min(spare, column.natural - column.least)
            sizes.append(column.least + more)
            spare -= more
        return sizes

    def table(self, width: int) -> Table:
        """As a rich table for a terminal of `width` columns."""
        found, sizes = self.kept(width), self.widths(width)
        left_out = [column.title for column in self.columns if column.title and column not in found]
        table = Table(title=self.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False,
                      padding=(0, 1, 0, 0), caption_justify="left", caption_style="dim",
                      caption=f"In a wider terminal also: {', '.join(left_out)}\n" if left_out else None)  # fmt: skip
        for column, size in zip(found, sizes, strict=True):
            justify = "left" if column.left else "right"
            table.add_column(column.title, justify=justify, width=size, no_wrap=True)  # type: ignore[arg-type]
        for row in range(len(self.columns[0].cells)):
            cells = [shortened(c.cells[row], size, c.shorten) for c, size in zip(found, sizes, strict=True)]
            table.add_row(*cells, style=self.styles[row] if row < len(self.styles) else "")
        return table


def words(title: str, *, shorten: Shorten = Shorten.RIGHT, drop: int = 0, at_least: int = 12) -> Column:
    """The head of a column of texts, which may lose their end."""
    return Column(title=title, shorten=shorten, left=True, drop=drop, at_least=at_least)


def number(title: str, *, drop: int = 0) -> Column:
    """The head of a column of numbers, which are shown whole or not at all."""
    return Column(title=title, drop=drop)


def fitted(
    title: str, heads: Sequence[Column], rows: Iterable[Sequence[str | Text]], *, styles: Sequence[str] = ()
) -> FittedTable:
    """A table from rows of texts, one a head; texts are shown as they are, markup in them is not obeyed."""
    lines = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    columns = [replace(head, cells=tuple(line[i] for line in lines)) for i, head in enumerate(heads)]
    return FittedTable(title=title, columns=tuple(columns), styles=styles)
