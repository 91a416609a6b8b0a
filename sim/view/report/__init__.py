"""The report: one self-contained HTML file from saved results.

Data steps           sources (what was saved), estimates, others (runs, designs, measurements, checks), verdicts (in
                     words)
Drawing step         page
"""

from sim.view.report.page import page, report
from sim.view.report.sources import Content, read_sources

__all__ = ["Content", "page", "read_sources", "report"]
