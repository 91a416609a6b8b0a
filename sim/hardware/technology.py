"""Energy, area, leakage, voltage and cost of silicon as pure functions that broadcast.

Tables and sources stand in `technology_data`. All functions take scalars or arrays and return what
NumPy broadcasting makes of them; every node must be one of `NODES_NM`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sim.errors import ConfigError
from sim.hardware import technology_data as t
from sim.workload.precision import BITS

_MIXED = re.compile(r"w(\d+)a(\d+)$")
ArrayLike = float | Sequence[float] | NDArray[np.float64]
"""What every function takes: a number or an array of them."""
YIELD_MODELS = ("poisson", "murphy", "negative_binomial")


def _lookup(table: Mapping[float, float], node_nm: ArrayLike) -> np.ndarray:
    """The table's values at the nodes. Raises ConfigError: a node outside it, with the nearest ones."""
    nodes = np.asarray(node_nm, dtype=float)
    if nodes.size > 1 and not any(nodes.strides):  # one node for thousands of designs, looked up hundreds of times
        return np.broadcast_to(_lookup(table, nodes.flat[0]), nodes.shape)
    result = np.empty(nodes.shape)
    for node in sorted(set(nodes.ravel().tolist())):
        if node not in table:
            raise ConfigError(f"technology.node: {t.nearest_nodes(node)}")
        result[nodes == node] = table[node]
    return result


def nominal_voltage_v(*, node_nm: ArrayLike) -> np.ndarray:
    """Supply at which the node's energies hold [V]."""
    return _lookup(t.NOMINAL_VOLTAGE_V, node_nm)


def _curve() -> tuple[np.ndarray, np.ndarray]:
    """(clock over maximum, supply over nominal) from the alpha-power law, f ~ (V - Vt)^alpha / V."""
    supply = np.linspace(t.FLOOR_SHARE, 1.0, 401)
    speed = np.power(supply - t.VT_SHARE, t.ALPHA) / supply
    return speed / speed[-1], supply


_SPEED, _SUPPLY = _curve()


def voltage_share(*, clock_hz: ArrayLike, max_clock_hz: ArrayLike) -> np.ndarray:
    """Supply over nominal that a clock needs [1]: 1 at the maximum clock, FLOOR_SHARE far below.

    Alpha-power law [sakurai90] with VT_SHARE and ALPHA. Clocks above the maximum give 1; the loader
    refuses them.
    """
    return np.interp(np.asarray(clock_hz, dtype=float) / np.asarray(max_clock_hz, dtype=float), _SPEED, _SUPPLY)


def clock_share(*, voltage_share: ArrayLike) -> np.ndarray:
    """Clock over maximum that a supply over nominal bears [1]: the inverse of `voltage_share`."""
    return np.interp(np.asarray(voltage_share, dtype=float), _SUPPLY, _SPEED)


def op_energy_j(operation: str, *, node_nm: ArrayLike) -> np.ndarray:
    """Energy of one operation ("int8 mult", "fp32 add") at nominal supply [J].

    Between 45 and 7 nm a power law of the node through both tables (it is exact at both); beyond
    them, factors of ENERGY_BEYOND.
    """
    high, low = t.ENERGY_45_PJ[operation], t.ENERGY_7_PJ[operation]
    exponent = float(np.log(high / low) / np.log(45.0 / 7.0))
    table = {node: low * (node / 7.0) ** exponent for node in t.NODES_NM if 7.0 <= node <= 45.0}
    table |= {node: (high if node > 45.0 else low) * factor for node, factor in t.ENERGY_BEYOND.items()}
    return _lookup(table, node_nm) * 1e-12


def mac_parts(dtype: str, *, integer: bool = False) -> dict[str, float]:
    """A multiply-accumulate as operations: {"int8 mult": 1, "int32 add": 1} for int8.

    Integer multipliers go with the product of the widths (int32 measures 15.5 times int8, the rule
    says 16). Activations of 16 bits and more are floating point, so w4a16 costs a bf16 product, but
    for an array without floating types (`integer`). fp8 is 0.35 of an fp16 product, fp64 four fp32
    products (both estimated by significand).
    Raises: ConfigError: a type without a rule.
    """
    table: dict[str, dict[str, float]] = {
        "fp64": {"fp32 mult": 4, "fp32 add": 2}, "fp32": {"fp32 mult": 1, "fp32 add": 1},
        "tf32": {"fp16 mult": 1, "fp32 add": 1}, "bf16": {"bf16 mult": 1, "fp32 add": 1},
        "fp16": {"fp16 mult": 1, "fp32 add": 1}, "fp8_e4m3": {"fp16 mult": 0.35, "fp16 add": 1},
        "fp8_e5m2": {"fp16 mult": 0.35, "fp16 add": 1},
    }  # fmt: skip
    mixed = _MIXED.match(dtype)
    if mixed:
        weight, activation = int(mixed[1]), int(mixed[2])
        if activation >= 16 and not integer:
            return table["bf16" if activation == 16 else "fp32"]
        return {"int8 mult": weight * activation / 64, "int32 add": 1}
    if dtype in table:
        return table[dtype]
    if dtype.removeprefix("u").startswith("int"):
        return {"int8 mult": BITS[dtype] ** 2 / 64, "int32 add": 1}
    raise ConfigError(f'no energy is known for a multiply-accumulate in "{dtype}"')


def operand_bits(dtype: str) -> int:
    """Width of the wider operand: 16 for "bf16" and "w4a16"."""
    mixed = _MIXED.match(dtype)
    return max(int(mixed[1]), int(mixed[2])) if mixed else int(BITS[dtype])


def mac_energy_j(
    *, dtype: str, node_nm: ArrayLike, voltage_share: ArrayLike = 1.0, integer: bool = False
) -> np.ndarray:
    """Energy of one multiply-accumulate [J], without the registers' and wires' share.

    Example: int8 at 45 nm is 0.2 + 0.1 = 0.3 pJ.
    """
    parts = mac_parts(dtype, integer=integer).items()
    total = sum(n * op_energy_j(operation, node_nm=node_nm) for operation, n in parts)
    return np.asarray(total * np.square(voltage_share))


def clock_energy_j(*, node_nm: ArrayLike, voltage_share: ArrayLike = 1.0) -> np.ndarray:
    """Energy that one flip-flop and its share of the clock tree take per cycle, whatever they hold [J]."""
    scale = op_energy_j("int8 mult", node_nm=node_nm) / op_energy_j("int8 mult", node_nm=45.0)
    return np.asarray(t.CLOCK_FJ_45 * 1e-15 * scale * np.square(voltage_share))


def primitive_energy_j(*, primitive: str, node_nm: ArrayLike, voltage_share: ArrayLike = 1.0) -> np.ndarray:
    """Energy of one vector primitive in fp32 [J] (estimated composition, PRIMITIVE_PARTS)."""
    parts = t.PRIMITIVE_PARTS[primitive].items()
    return np.asarray(sum(n * op_energy_j(op, node_nm=node_nm) for op, n in parts) * np.square(voltage_share))


def sram_energy_j_per_byte(
    *, capacity_bytes: ArrayLike, node_nm: ArrayLike, voltage_share: ArrayLike = 1.0
) -> np.ndarray:
    """Energy of moving one byte in or out of an SRAM [J/byte], 64-bit accesses.

    base(node) x (C / 8 KiB)^exponent(node): both exact at 45 and 7 nm, straight on log axes between
    and scaled like logic beyond. Example: 8 KiB at 45 nm is 10 pJ / 8 B = 1.25 pJ/B.
    """
    span = np.log(45.0 / 7.0)
    base, exponent = {}, {}
    for node in t.NODES_NM:
        share = min(max(float(np.log(node / 7.0) / span), 0.0), 1.0)
        factor = t.ENERGY_BEYOND.get(node, 1.0)
        base[node] = t.SRAM_7[0] * (t.SRAM_45[0] / t.SRAM_7[0]) ** share * factor
        exponent[node] = t.SRAM_7[1] + (t.SRAM_45[1] - t.SRAM_7[1]) * share
    relative = np.asarray(capacity_bytes, dtype=float) / 8192.0
    picojoule = _lookup(base, node_nm) * np.power(relative, _lookup(exponent, node_nm)) / 8.0
    return np.asarray(picojoule * 1e-12 * np.square(voltage_share))


def dram_energy_j_per_byte(*, kind: str) -> float:
    """Energy of moving one byte to or from DRAM of a kind such as "hbm2e" [J/byte].

    Raises: ConfigError: a kind without an entry.
    """
    if kind not in t.DRAM_PJ_PER_BIT:
        raise ConfigError(
            f'no energy is known for DRAM of kind "{kind}": expected one of {", ".join(t.DRAM_PJ_PER_BIT)}'
        )
    return t.DRAM_PJ_PER_BIT[kind] * 8e-12


def mac_area_mm2(*, dtype: str, node_nm: ArrayLike, integer: bool = False, tree: bool = False) -> np.ndarray:
    """Area of a bare multiplier and adder [mm2].

    Args:
        integer: the array has no floating types (`mac_parts`).
        tree: products are summed in an adder tree, floating ones as aligned integers (ALIGNED_ADD_UM2_45).
    """
    area = dict(t.AREA_45_UM2)
    if tree:
        area |= {name: t.ALIGNED_ADD_UM2_45 for name in area if name.endswith("add") and not name.startswith("int")}
    square_micron = sum(n * area[operation] for operation, n in mac_parts(dtype, integer=integer).items())
    return np.asarray(square_micron * 1e-6 * _lookup(t.LOGIC_AREA, node_nm))


def register_area_mm2(*, bits: ArrayLike, node_nm: ArrayLike) -> np.ndarray:
    """Area of flip-flops [mm2]."""
    return np.asarray(np.asarray(bits, dtype=float) * t.FLIP_FLOP_UM2_45 * 1e-6 * _lookup(t.LOGIC_AREA, node_nm))


def control_area_mm2(*, node_nm: ArrayLike) -> np.ndarray:
    """Area of what a unit has beside its datapath and memories [mm2]: sequencer, DMA engines, registers."""
    return np.asarray(t.CONTROL_MM2_45 * _lookup(t.LOGIC_AREA, node_nm))


def primitive_area_mm2(*, primitive: str, node_nm: ArrayLike) -> np.ndarray:
    """Area that gives one vector primitive a cycle [mm2] (estimated composition, PRIMITIVE_PARTS)."""
    square_micron = sum(n * t.AREA_45_UM2[op] for op, n in t.PRIMITIVE_PARTS[primitive].items())
    return np.asarray(square_micron * 1e-6 * _lookup(t.LOGIC_AREA, node_nm))


def sram_area_mm2(*, capacity_bytes: ArrayLike, bytes_per_cycle: ArrayLike, node_nm: ArrayLike) -> np.ndarray:
    """Area of an SRAM [mm2]: bitcells over SRAM_ARRAY_EFFICIENCY, plus ports by their width."""
    bits = 8.0 * np.asarray(capacity_bytes, dtype=float)
    cells = bits * _lookup(t.BITCELL_UM2, node_nm) / t.SRAM_ARRAY_EFFICIENCY
    ports = 8.0 * np.asarray(bytes_per_cycle, dtype=float) * t.PORT_UM2_PER_BIT_45 * _lookup(t.LOGIC_AREA, node_nm)
    return np.asarray((cells + ports) * 1e-6)


def leakage_w(*, area_mm2: ArrayLike, node_nm: ArrayLike, voltage_share: ArrayLike = 1.0) -> np.ndarray:
    """Static power of powered silicon [W], in proportion to area and supply."""
    return np.asarray(
        np.asarray(area_mm2, dtype=float) * _lookup(t.LEAKAGE_W_PER_MM2, node_nm) * np.asarray(voltage_share)
    )


def die_yield(
    *, area_mm2: ArrayLike, model: str = "negative_binomial", defects_per_cm2: ArrayLike = t.DEFECTS_PER_CM2,
    alpha: ArrayLike = t.CLUSTER_ALPHA,
) -> np.ndarray:  # fmt: skip
    """Share of good dies, with x = A D0: Poisson e^-x, Murphy ((1 - e^-x)/x)^2, negative binomial
    (1 + x/alpha)^-alpha.

    Raises: ConfigError: another model's name.
    """
    x = np.asarray(area_mm2, dtype=float) / 100.0 * np.asarray(defects_per_cm2, dtype=float)
    if model == "poisson":
        return np.exp(-x)
    if model == "murphy":
        return np.square(-np.expm1(-x) / x)
    if model == "negative_binomial":
        clusters = np.asarray(alpha, dtype=float)
        return np.power(1.0 + x / clusters, -clusters)
    raise ConfigError(f'yield model "{model}" is unknown: expected one of {", ".join(YIELD_MODELS)}')


def dies_per_wafer(*, area_mm2: ArrayLike) -> np.ndarray:
    """Dies on a 300 mm wafer: pi d^2 / 4A - pi d / sqrt(2A), edge losses in the second term."""
    area = np.asarray(area_mm2, dtype=float)
    return np.pi * t.WAFER_MM**2 / (4.0 * area) - np.pi * t.WAFER_MM / np.sqrt(2.0 * area)


def die_cost_usd(
    *, area_mm2: ArrayLike, node_nm: ArrayLike, model: str = "negative_binomial",
    defects_per_cm2: ArrayLike = t.DEFECTS_PER_CM2, alpha: ArrayLike = t.CLUSTER_ALPHA,
) -> np.ndarray:  # fmt: skip
    """Cost of one good die [USD]: wafer price / (dies x yield); infinite above the reticle.

    Leaves out masks, test, package and memory. A die above RETICLE_MM2 cannot be made in one piece.
    """
    area = np.asarray(area_mm2, dtype=float)
    good = die_yield(area_mm2=area, model=model, defects_per_cm2=defects_per_cm2, alpha=alpha)
    cost = _lookup(t.WAFER_USD, node_nm) / (dies_per_wafer(area_mm2=np.minimum(area, t.RETICLE_MM2)) * good)
    return np.where(area > t.RETICLE_MM2, np.inf, cost)
