"""Metrics and evaluators, one module per task of the paper (App. J); they score models that `fac.train` made.

They import nothing of the experiments, nor of the truth of the lab (tests/test_imports.py).
"""
