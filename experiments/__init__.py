"""Experiments: one module per table or figure of the paper, and what they share.

An experiment is a module here that defines EXPERIMENT (`experiments.harness.experiment`); `fac experiments` lists them.
`tasks` are what is trained and tested, `harness` is what runs.
"""
