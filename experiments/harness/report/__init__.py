"""The page of an experiment: one self-contained HTML file with its tables, figures, features, samples and provenance.

`page` says what can stand on a page, `chart` works out where the marks of a figure go, `render` and `page.html.jinja`
write the file, `kept` keeps what is no table for `fac report`.
"""

from experiments.harness.report.page import Feature, Figure, Page, Sample, Series, Span
from experiments.harness.report.render import Site, filled, render

__all__ = ["Feature", "Figure", "Page", "Sample", "Series", "Site", "Span", "filled", "render"]
