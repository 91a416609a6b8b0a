"""Costs beside those of mappings, as pure functions that broadcast over designs. Stands on graphs and chips.

Bounds               compulsory (bytes that must move), ceilings (a unit's best rates), roofline
Vector and movement  vector; depthwise (a processor beside the array)
Attention, sparsity  flash (which ops are one kernel), sparsity (what zeros save)
Whole devices        gpu (kernels), cpu (libraries under a framework), waiting (tile loops whose engines queue)
Beyond the chip      links (what must cross them), collectives
How far off          intervals; columns (work of many ops as one table, for fits)
"""
