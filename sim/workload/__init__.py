"""Workload graphs: what a model computes, without its weights. Knows no chips; torch is imported in `trace` alone, and
where `load` runs a workload's file.

What a graph is      graph; precision (element types, names such as w4a8); precision_file, knobs
Where it comes from  trace (recorder, export, ONNX), load (name, file, saved graph), builders (one op), cache, raised
What is done to it   passes (precision, fusion, sparsity, sharding: graph to graph)
As a document        serialize, graph_file (what one must say), summary (in words)
"""
