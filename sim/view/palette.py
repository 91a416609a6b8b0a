"""The one place of colours: Okabe and Ito's eight, told apart by colour-blind readers.

Source: Okabe, Ito, "Color Universal Design" (2008), jfly.uni-koeln.de/color.
"""

from __future__ import annotations

from types import MappingProxyType

from sim.results import Term


def literal(text: object) -> str:
    """A user's text for Matplotlib, which would take what stands between two dollar signs for a formula."""
    return str(text).replace("$", r"\$")


BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
WINE = "#882255"
"""Of Paul Tol's "muted" scheme (personal.sron.nl/~pault), darker than all of the eight but black."""
GREY, LIGHT_GREY = "#6B6B6B", "#D0D0D0"

CYCLE = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, "#8C6D31", GREY)
"""For what has no colour of its own: streams, memories, components."""

KINDS = MappingProxyType(
    {
        "convolution": BLUE,
        "matrix product": VERMILION,
        "attention": PURPLE,
        "vector": GREEN,
        "data movement": ORANGE,
    }
)
"""Kind of op -> colour; the kinds are those of `sim.view.rows.kind_of`."""

TERMS = MappingProxyType(
    {
        Term.COMPUTE: BLUE,
        Term.EXPOSED_MEMORY: VERMILION,
        Term.FILL_DRAIN: SKY,
        Term.PRELOAD: WINE,
        Term.DMA_SETUP: ORANGE,
        Term.VECTOR: GREEN,
        Term.LAUNCH: PURPLE,
        Term.COMMUNICATION: YELLOW,
        Term.DEQUANTISE: "#8C6D31",
        Term.QUEUEING: GREY,
    }
)
"""Latency term -> colour."""
