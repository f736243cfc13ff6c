"""Metrics and evaluators, one module per task of the paper (App. J); they score models that `fac.train` made.

Knows: labels, scores and the metrics between them. Does not know: how data were synthesised, or which experiment asks.
"""
