"""Experiments: one module per table or figure of the paper, and what they share.

An experiment is a module here that defines EXPERIMENT (`experiments.harness.experiment`); `fac experiments` lists them.
`pages` are how they show what they found, `steps` what only one of them builds, `tasks` what is trained and tested,
`harness` is what runs.
"""
