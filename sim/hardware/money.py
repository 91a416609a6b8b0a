"""What a die costs: the numbers, and what they assume in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite, isnan

from sim.hardware import technology as tech
from sim.hardware import technology_data as data
from sim.hardware.chip import Chip
from sim.hardware.designs import Designs
from sim.hardware.physical import chip_area_mm2

DieCost = dict[str, float | str | None]
STATED, MODELLED = "stated area", "modelled parts alone"
"""What the area of a die is of."""


def die_cost(subject: Chip | Designs) -> DieCost:
    """The cost of one good die of a chip: `usd` and what it comes from, or why there is none.

    Args: subject: a chip, or it as the first row of designs that were read before.
    Returns: usd, area_mm2, node_nm, wafer_usd, dies_per_wafer, yield_share (numbers, None where unknown), `covers`
        (STATED or MODELLED: what the area is of), `assumes` (`die_cost_assumes`; both None without a cost) and `reason`
        (None with one).
    """
    designs = subject if isinstance(subject, Designs) else Designs(subject)
    chip = designs.chip
    area, node = float(chip_area_mm2(designs)[0]), float(designs.column("technology.node")[0])
    reason = None
    if isnan(node):
        reason = "the chip file states no technology.node, and with it no price of a wafer"
    elif not isfinite(area):
        reason = "the area of a memory without end is unknown"
    elif (dies := chip.technology.dies) > 1:
        reason = f"{chip.name} is made of {dies} dies, and how it is divided is not modelled"
    elif area > data.RETICLE_MM2:
        reason = (
            f"{area:,.0f} mm2 are above the reticle of {data.RETICLE_MM2:g} mm2: not one die, and how the chip is "
            "divided is not modelled"
        )
    if reason is not None:
        return dict.fromkeys(_NUMBERS) | {"covers": None, "assumes": None, "reason": reason}
    return {
        "usd": float(tech.die_cost_usd(area_mm2=area, node_nm=node)),
        "area_mm2": area,
        "node_nm": node,
        "wafer_usd": data.WAFER_USD[node],
        "dies_per_wafer": float(tech.dies_per_wafer(area_mm2=area)),
        "yield_share": float(tech.die_yield(area_mm2=area)),
        "covers": MODELLED if modelled_alone(chip) else STATED,
        "assumes": die_cost_assumes([node], modelled=modelled_alone(chip)),
        "reason": None,
    }


def modelled_alone(chip: Chip) -> bool:
    """Whether the area is the sum of the parts that the file lists: it states none, to which they would be scaled."""
    return chip.technology.area_mm2 is None and chip.technology.area_fit is None


_NUMBERS = ("usd", "area_mm2", "node_nm", "wafer_usd", "dies_per_wafer", "yield_share")


def die_cost_words(cost: Mapping[str, object]) -> str:
    """A sentence: "A die costs 3.66 USD (1,152 dies a wafer, 95 % of them good)", or why that is unknown."""
    usd, dies, good = (cost.get(name) for name in ("usd", "dies_per_wafer", "yield_share"))
    if not (isinstance(usd, float) and isinstance(dies, float) and isinstance(good, float)):
        return f"What a die costs is unknown: {cost.get('reason')}"
    price = f"{usd:,.2f}" if usd < 10 else f"{usd:,.0f}"
    die = "A die of the modelled parts alone" if cost.get("covers") == MODELLED else "A die"
    return f"{die} costs {price} USD ({dies:,.0f} dies a wafer, {100 * good:.0f} % of them good)"


def die_cost_assumes(nodes_nm: Iterable[float], *, modelled: bool = False) -> str:
    """What every cost of a die at these nodes rests on, in one sentence; `modelled`: of an area that no file states."""
    nodes = sorted(set(nodes_nm), reverse=True)
    prices = f"a {data.WAFER_MM:g} mm wafer for " + ", ".join(
        f"{data.WAFER_USD[node]:,.0f} USD at {node:g} nm" for node in nodes
    )
    sources = " and ".join(dict.fromkeys(data.WAFER_SOURCE.get(node, data.WAFER_SOURCES) for node in nodes))
    area = "the area of the parts in the chip file alone, nothing else on its die; " if modelled else ""
    return (
        f"{area}{prices} ({sources}), dies by area less the wafer's edge, negative binomial yield "
        f"with {data.DEFECTS_PER_CM2:g} defects/cm2 and clustering {data.CLUSTER_ALPHA:g} (unverified), every good die "
        "usable; no masks, test, package or memory"
    )


__all__ = ["DieCost", "die_cost", "die_cost_assumes", "die_cost_words"]
