"""fac: measure which SAE features a data set activates, and write the data that it misses.

The library. It knows nothing of Hydra, of MLflow or of any experiment; `experiments/` builds on it.
Reading order: `pipeline` (the whole method on one page), then `chat`, `backbone`, `sae`, `features`,
`coverage`, `interpret`, `synthesis`, `train`.
"""

__version__ = "0.1.0"
