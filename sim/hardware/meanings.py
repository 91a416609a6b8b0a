"""What each key of a chip file means: descriptions and examples for its JSON Schema (`sim.hardware.load.json_schema`).

They stand apart from the schema because checking a file needs none of them. A key of the schema that is missing here is
missing in the reference, and a test says so.
"""

from __future__ import annotations

from typing import Any

from sim.hardware.chip import Costing
from sim.hardware.options import KNOWN_OPTIONS
from sim.hardware.technology_data import DRAM_PJ_PER_BIT, LINK_PJ_PER_BIT, NODES_NM, OVERDRIVE_SHARE
from sim.workload.graph import Primitive


def _key(meaning: str, *examples: object, default: str | None = None) -> dict[str, Any]:
    """What a key adds to JSON Schema; `default` as a file would state it, where that is not the value inside."""
    found: dict[str, Any] = {"description": meaning}
    if examples:
        found["examples"] = list(examples)
    if default is not None:
        found["default"] = default
    return found


def _options(costing: Costing) -> str:
    known = KNOWN_OPTIONS[costing].items()
    return f"`{costing.value}`: " + "; ".join(f"`{name}` ({meaning})" for name, meaning in known)


_NAME = "unique in the chip: `--set NAME.key=value` and results call it so"
_SOURCE = (
    "where the numbers come from: a key of `sources` (`key: table 2`), `estimated: why`, `derived: how`, "
    "`unverified: what`, or a map from key to one of these with `default` for the rest"
)
_AS_IT_STANDS = "holds for the file as it stands; after `--set` the model takes over, scaled to meet it here"
_FIT = "over modelled, at the file's own design; `--set` writes it in place of the stated value"

MEANINGS: dict[str, dict[str, dict[str, Any]]] = {
    "ChipSpec": {
        "schema": _key("what kind of file this is"),
        "name": _key("what results call the chip; the file's name without `.yaml`", "edge-npu"),
        "title": _key("one line for lists and reports"),
        "sources": _key(
            "key -> document, page and date, for the `source` of each part",
            {"isca17": "Jouppi et al., ISCA 2017, arXiv 1704.04760"},
        ),
        "notes": _key("sentences that `dovetail show` prints: what was assumed"),
        "clock": _key("clock of every unit that has none of its own", "1 GHz"),
        "source": _key("of the clock; " + _SOURCE),
        "default_precision": _key(
            "precision where none is asked for: one that the first unit's array has a rate for", "int8", "w4a16"
        ),
        "memories": _key("what the units share: each the home of some unit, or an end of a link"),
        "units": _key("what computes; one model runs on the first"),
        "links": _key(
            "paths to the host and between chips; of one between components area and power count, and no time: nothing "
            "crosses it"
        ),
        "dma_engines": _key("engines that units share; without them each instance of a unit has its own"),
        "technology": _key("without it no energy, area or power is derived"),
        "overheads": _key("of units without their own; without any, none is paid"),
        "system": _key("several of these chips together; without it one"),
        "algorithms": _key(
            "how the kernels of a GPU (`gpu_kernels`) may compute a convolution; the fastest is taken, and `direct` is "
            "always among them"
        ),
        "host_link": _key(
            "the one of `links` that inputs cross before the first op; without it they lie in the home memory", "PCIe"
        ),
        "calibration": _key(
            "device whose measured constants `--calibration auto` takes; without it those of the chip's name; units "
            "that are `mapped` or of `roofline` take none",
            "h100-sxm",
        ),
        "overrides": _key("what `--set` changed, path -> quantity; written into the chips that a search leaves"),
    },
    "MemorySpec": {
        "name": _key(_NAME, "SRAM"),
        "kind": _key(
            "`sram`, `cache` or `register` on chip, else the kind of DRAM: "
            + ", ".join(sorted(DRAM_PJ_PER_BIT))
            + ". Energy, standby power and the area of the interface follow from it; must be stated of the chip's own "
            "`memories` beside a node"
        ),
        "capacity": _key("what it holds; below a fan-out, each copy", "4 MiB", "8 GiB"),
        "bandwidth": _key(
            "rate of the one port that reads and writes share, per second or per cycle of the unit",
            "34 GB/s",
            "256 B/cycle",
        ),
        "read_bandwidth": _key(
            "rate of a port for reads alone; stated with write_bandwidth, in place of bandwidth", "384 B/cycle"
        ),
        "write_bandwidth": _key("rate of a port for writes alone", "128 B/cycle"),
        "latency": _key(
            "time from a request to its first byte: the first load of an op of a `mapped` unit waits for that of the "
            "home memory; of others it counts with `outstanding` and `request` alone",
            "100 ns",
            default="0 s",
        ),
        "efficiency": _key(
            "share of the bandwidth that long transfers reach, in (0, 1]; of `mapped` units (GPUs: `dram_efficiency`), "
            "and of inputs and collectives, which are written into the home memory"
        ),
        "burst": _key("bytes of one burst: a fact of the file that no cost uses yet", "64 B"),
        "outstanding": _key(
            "most requests in flight: with `request` and `latency` the rate is at most outstanding x request / "
            "latency, on `mapped` units; without it there is no such bound"
        ),
        "request": _key("bytes of one request, for the bound that `outstanding` gives", "64 B"),
        "holds": _key("operands that it keeps; the others pass it by on their way"),
        "double_buffered": _key(
            "each tile has a second buffer, so that the next one loads while this one is worked on; `false`: one "
            "copy, and loads wait"
        ),
        "residency": _key(
            "tensors may stay in it from one op to the next, and ops be fused through it; `false`: it serves within an "
            "op, and what passes between ops goes home"
        ),
        "read_energy": _key("energy of reading; without it derived from kind, capacity and technology", "4 pJ/bit"),
        "write_energy": _key("energy of writing, likewise", "4 pJ/bit"),
        "source": _key(_SOURCE),
    },
    "UnitSpec": {
        "name": _key(_NAME, "npu"),
        "count": _key(
            "equal copies, each with the whole hierarchy; one model runs on one of them, a stream of inferences "
            "and a scenario on all"
        ),
        "home": _key("the one of `memories` in which its weights, inputs and outputs lie", "DRAM"),
        "clock": _key("its own clock; without it the chip's", "2.2 GHz"),
        "costing": _key("how its ops are costed"),
        "buffering": _key("what results say of it; all costs so far are those of `atomic`"),
        "hierarchy": _key("levels from the outside in: memories and fan-outs, then one array"),
        "vector": _key("its vector lanes"),
        "overheads": _key("its own, in place of the chip's"),
        "options": _key(
            "what its costing takes besides. " + ". ".join(_options(costing) for costing in KNOWN_OPTIONS),
            {"generation": "hopper"},
        ),
        "source": _key("of count, clock and options; needed where one is stated"),
    },
    "LevelSpec": {
        "memory": _key("a memory between the one above and what follows"),
        "fanout": _key("copies of all that follows"),
        "array": _key("what multiplies; the last level, and only there"),
    },
    "FanoutSpec": {
        "name": _key(_NAME, "core"),
        "count": _key("how many copies"),
        "multicast": _key(
            "one read of the memory above serves all copies that need the data; `false`: each reads anew; on "
            "`mapped` units"
        ),
        "source": _key(_SOURCE),
    },
    "ArraySpec": {
        "name": _key(_NAME, "array"),
        "rows": _key(
            "rows of cells: along them lies M (output stationary), K (weight or input stationary), or filter rows"
            " (row stationary)"
        ),
        "cols": _key(
            "columns of cells: along them lies N (output or weight stationary), M (input stationary), or rows of "
            "the result (row stationary)"
        ),
        "dataflow": _key("which operand rests in the cells; for short os, ws, is, rs"),
        "skew": _key("how operands reach the cells"),
        "folds": _key("whether one patch of the product drains while the next one runs"),
        "preload": _key("whether loading what rests in the cells takes time of its own"),
        "macs_per_cycle": _key(
            "MACs of one cell in one cycle, by element type or `wXaY`; what is not named is not computed",
            {"int8": 1, "bf16": 0.5, "w4a8": 1},
        ),
        "accumulate": _key(
            "width of partial sums, no narrower than a cell's factors", "int32", "24 bit", default="int32"
        ),
        "weight_sparsity": _key(
            "N:M pattern of the weights -> factor by which it shortens the reduction, 1 to M / N (of a GPU "
            "not in fp32 and fp64, which run beside the matrix units); without one, patterns save no time in the array",
            {"2:4": 2},
        ),
        "sparse_min_channels": _key("channels that a layer must sum over for a pattern to shorten it; 1: any layer"),
        "sparse_pass": _key(
            "sparse weights, as stored, that one pass takes; a larger layer runs in several, each of which reads "
            "the input anew; takes the area of a buffer of this size; without it one pass takes any",
            "256 KiB",
        ),
        "skips_zeros": _key("zeros that follow no pattern take no cycle"),
        "depthwise_macs_per_cycle": _key(
            "MACs a cycle, by element type, of a processor beside each array that takes depthwise convolutions, a "
            "stream of its own; without one the array takes them",
            {"int8": 64},
        ),
        "drain_bandwidth": _key(
            "rate of a port by which results leave an output-stationary array; without it they shift out, a cycle"
            " for each row (serial folds: none)",
            "128 B/cycle",
        ),
        "mac_energy": _key(
            "energy of one MAC by element type; of the others derived from technology", {"int8": "0.3 pJ"}
        ),
        "source": _key(_SOURCE),
    },
    "VectorSpec": {
        "name": _key(_NAME, "simd"),
        "lanes": _key("lanes of the whole unit, those of all cores together; another count of cores leaves them"),
        "rates": _key(
            "operations of one lane in one cycle, by primitive: "
            + ", ".join(p.value for p in Primitive)
            + "; each needs a rate or a fallback",
            {"add": 1, "exp": 0.25},
        ),
        "fallback": _key(
            "of what a primitive without a rate is made: how many of which others", {"exp": {"add": 8, "mul": 8}}
        ),
        "energy": _key("energy of one operation by primitive; of the others derived from technology", {"exp": "4 pJ"}),
        "source": _key(_SOURCE),
    },
    "OverheadsSpec": {
        "launch": _key(
            "of each group of ops: a kernel launch, a job descriptor; measured constants have their own",
            "1 us",
            default="0 s",
        ),
        "dma_setup": _key("of each transfer that is not empty, on `mapped` units", "100 ns", default="0 s"),
        "source": _key(_SOURCE),
    },
    "LinkSpec": {
        "name": _key(_NAME, "PCIe"),
        "ends": _key(
            "what it joins: `host` or `chip` and the home memory of the first unit, or names of components",
            ["host", "DRAM"],
        ),
        "bandwidth": _key(
            "rate in one direction; of a system's link, what one chip sends over all its links together", "14 GB/s"
        ),
        "latency": _key("time before the first byte; of a system's link, of one hop", "1 us", default="0 s"),
        "energy": _key(
            f"energy of what crosses it; without it {LINK_PJ_PER_BIT:g} pJ/bit; of what chips send each other, and in "
            "the power at full rate: what inputs take on their way is the host's",
            "4 pJ/bit",
        ),
        "source": _key(_SOURCE),
    },
    "DmaEnginesSpec": {
        "name": _key(_NAME, "dma"),
        "count": _key("how many engines"),
        "units": _key("the units that they serve", ["npu", "gpu"]),
        "source": _key(_SOURCE),
    },
    "TechnologySpec": {
        "node": _key(
            "process, by its marketing length: " + ", ".join(f"{node:g}" for node in NODES_NM) + " nm", "14 nm"
        ),
        "max_clock": _key(
            "highest clock, at the nominal supply; a lower one needs less voltage, a higher one is refused", "2 GHz"
        ),
        "area": _key(f"area of the die; {_AS_IT_STANDS}", "260 mm2"),
        "power": _key(f"power with everything busy; {_AS_IT_STANDS}", "75 W"),
        "idle_power": _key(f"power that flows whatever runs (leakage, clocks, DRAM standby); {_AS_IT_STANDS}", "28 W"),
        "voltage": _key(
            "supply; without it the node's nominal one, lowered with the clock where max_clock is stated; one that "
            f"does not bear the clock, or is above {OVERDRIVE_SHARE:g} times the nominal, is refused",
            "0.8 V",
        ),
        "dies": _key(
            "how many make up the chip; of more than one the cost is unknown: how they are divided is not modelled"
        ),
        "area_fit": _key(f"stated area {_FIT}"),
        "power_fit": _key(f"stated power {_FIT}"),
        "idle_power_fit": _key(f"stated idle power {_FIT}"),
        "source": _key(_SOURCE),
    },
    "SystemSpec": {
        "chips": _key("how many"),
        "topology": _key("`ring`: each chip has two neighbours; `switch`: any pair talks at the full rate"),
        "link": _key("the one of `links` between them", "NVLink"),
        "ports": _key("ports of the switch: no more chips than these; without it, and on a ring, not checked"),
        "pipeline": _key(
            "stages: layers are cut into so many parts, and each layer is split over the chips of its stage; 1: "
            "over all chips"
        ),
        "source": _key(_SOURCE),
    },
}
"""Part of the schema -> key -> what JSON Schema says of it."""
