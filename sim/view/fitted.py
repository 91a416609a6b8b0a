"""A table that fits the terminal: names are shortened, secondary columns dropped, numbers never cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    cells: tuple[Text, ...]
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
        yield self.table(options.max_width)

    def kept(self, width: int) -> list[Column]:
        """The columns that `width` cells hold."""
        found = list(self.columns)
        while sum(c.least + GAP for c in found) > width and any(c.drop for c in found):
            found.remove(max(found, key=lambda c: c.drop))
        return found

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
        table = Table(title=self.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False,
                      padding=(0, 1, 0, 0))  # fmt: skip
        found, sizes = self.kept(width), self.widths(width)
        for column, size in zip(found, sizes, strict=True):
            justify = "left" if column.left else "right"
            table.add_column(column.title, justify=justify, width=size, no_wrap=True)  # type: ignore[arg-type]
        for row in range(len(self.columns[0].cells)):
            cells = [shortened(c.cells[row], size, c.shorten) for c, size in zip(found, sizes, strict=True)]
            table.add_row(*cells, style=self.styles[row] if row < len(self.styles) else "")
        return table
