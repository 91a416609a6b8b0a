"""Time of collectives between equal chips, by the alpha-beta model and the standard algorithms.

A message of m bytes takes alpha + m / B: alpha is the latency of one hop, B what one chip sends per second over all
its links together, while it receives as much. `message_bytes` is n, the whole tensor: what every chip holds before an
all-reduce or reduce-scatter and an all-to-all, and after an all-gather.

    ring                 reduce-scatter = all-gather = (p - 1) (alpha + n / (p B))                    [1, section 4.1]
    halving, doubling    reduce-scatter = all-gather = log2(p) alpha + (p - 1)/p n / B                [1, section 4.2]
    recursive doubling   all-reduce = log2(p) (alpha + n / B), best for short messages                [1, section 4.5]
    pairwise exchange    all-to-all = (p - 1) (alpha + n / (p B))                                     [1, section 4.3]

An all-reduce is a reduce-scatter and an all-gather. A switch lets any pair talk at full rate, so all of these are
open and the fastest is taken; a ring has two neighbours: bytes of a collective go around both ways (half each, which
is n / B again), and what is not for a neighbour is passed on.
Adding up the received parts is not counted: it runs at the memory's rate beside the link.

References: [1] Thakur, Rabenseifner, Gropp, "Optimization of collective communication operations in MPICH",
Int. J. High Performance Computing Applications 19(1), 2005, doi:10.1177/1094342005051521 (section numbers not checked).
"""

from __future__ import annotations

import numpy as np


def ring_half_s(*, message_bytes, chips, bandwidth_bytes_per_s, latency_s):
    """Reduce-scatter or all-gather around a ring [s]; broadcasts.

    Example: 8 chips, 8 MB, 1 GB/s, 1 us: 7 x (1 us + 1 ms) = 7.007 ms.
    """
    return (chips - 1) * (latency_s + np.divide(message_bytes, chips) / bandwidth_bytes_per_s)


def halving_half_s(*, message_bytes, chips, bandwidth_bytes_per_s, latency_s):
    """Reduce-scatter by recursive halving, or all-gather by recursive doubling [s]; broadcasts.

    Infinite where the number of chips is no power of two. Example: 8 chips, 8 MB, 1 GB/s, 1 us: 3 us + 7 ms.
    """
    steps = np.log2(chips)
    time = steps * latency_s + np.divide(chips - 1, chips) * message_bytes / bandwidth_bytes_per_s
    return np.where(steps == np.round(steps), time, np.inf)


def doubling_all_reduce_s(*, message_bytes, chips, bandwidth_bytes_per_s, latency_s):
    """All-reduce of whole messages by recursive doubling [s]; infinite where p is no power of two; broadcasts.

    Example: 8 chips, 16 KB, 400 GB/s, 1 us: 3 x (1 us + 40.96 ns) = 3.12288 us.
    """
    steps = np.log2(chips)
    time = steps * (latency_s + np.divide(message_bytes, bandwidth_bytes_per_s))
    return np.where(steps == np.round(steps), time, np.inf)


def reduce_scatter_s(*, message_bytes, chips, topology, bandwidth_bytes_per_s, latency_s):
    """Every chip ends with its share of the sum [s]; broadcasts over all but `topology`; 0 for one chip."""
    link = {"bandwidth_bytes_per_s": bandwidth_bytes_per_s, "latency_s": latency_s}
    time = ring_half_s(message_bytes=message_bytes, chips=chips, **link)
    if topology == "switch":
        time = np.minimum(time, halving_half_s(message_bytes=message_bytes, chips=chips, **link))
    return time


all_gather_s = reduce_scatter_s
"""Every chip ends with all shares [s]: the reduce-scatter run backwards, with the same time."""


def all_reduce_s(*, message_bytes, chips, topology, bandwidth_bytes_per_s, latency_s):
    """Every chip ends with the whole sum [s]; broadcasts over all but `topology`; 0 for one chip.

    Never above a reduce-scatter and an all-gather, never below 2 (p - 1)/p n / B (`all_reduce_bound_s`).
    """
    link = {"bandwidth_bytes_per_s": bandwidth_bytes_per_s, "latency_s": latency_s}
    time = 2 * reduce_scatter_s(message_bytes=message_bytes, chips=chips, topology=topology, **link)
    if topology == "switch":
        time = np.minimum(time, doubling_all_reduce_s(message_bytes=message_bytes, chips=chips, **link))
    return time


def all_to_all_s(*, message_bytes, chips, topology, bandwidth_bytes_per_s, latency_s):
    """Every chip has n / p bytes for every other [s]; broadcasts over all but `topology`; 0 for one chip.

    On a ring a part travels up to p/2 hops on the shorter way: all parts of all chips take p (p^2 // 4) hops of
    n / p bytes, spread over 2 p directed links of B / 2 each. Example: 4 chips, 4 MB, 1 GB/s, no latency: 3 ms
    through a switch, 4 ms around a ring.
    """
    chips = np.asarray(chips)
    part_s = np.divide(message_bytes, chips) / bandwidth_bytes_per_s
    if topology == "switch":
        return (chips - 1) * (latency_s + part_s)
    return (chips // 2) * latency_s + (chips * chips // 4) * part_s


def send_s(*, message_bytes, topology, bandwidth_bytes_per_s, latency_s):
    """One chip to the next [s]; broadcasts. A neighbour on a ring is reached by half of a chip's links.

    Example: 1 MB at 1 GB/s and 1 us: 1.001 ms through a switch, 2.001 ms on a ring.
    """
    share = 2 if topology == "ring" else 1
    return latency_s + share * np.divide(message_bytes, bandwidth_bytes_per_s)


def sent_bytes(*, collective, message_bytes, chips):
    """Bytes that one chip must send at least, and receives [byte]; broadcasts.

    all-reduce 2 (p - 1)/p n; all-gather, reduce-scatter, all-to-all (p - 1)/p n; send n. Over B this is the bound
    that no algorithm beats (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
    workstations", JPDC 69(2), 2009, doi:10.1016/j.jpdc.2008.09.002); a reduction inside the switch would.
    """
    if collective == "send":
        return message_bytes * 1.0
    return (2 if collective == "all_reduce" else 1) * np.divide(chips - 1, chips) * message_bytes


COLLECTIVES = {
    "all_reduce": all_reduce_s,
    "all_gather": all_gather_s,
    "reduce_scatter": reduce_scatter_s,
    "all_to_all": all_to_all_s,
}


def collective_s(*, collective, message_bytes, chips, topology, bandwidth_bytes_per_s, latency_s):
    """The time of a collective by name, "send" included [s]; see the functions of this module."""
    link = {"topology": topology, "bandwidth_bytes_per_s": bandwidth_bytes_per_s, "latency_s": latency_s}
    if collective == "send":
        return send_s(message_bytes=message_bytes, **link)
    return COLLECTIVES[collective](message_bytes=message_bytes, chips=chips, **link)
