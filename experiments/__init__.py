"""Experiments: one module per table or figure of the paper, and what they share.

`results` holds the typed records that every experiment ends in, `tracking` talks to MLflow, `report` draws the page.
Knows: Hydra, MLflow, the paper's numbers. Does not know: how a feature is found or a sample written (`fac` does).
"""
