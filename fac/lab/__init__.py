"""The lab: a small written world, tiny real models, and its ground truth, so that the whole method runs on two cores.

`world` writes the corpora, `pretraining` and `build` made the shipped models, `skills` measures them. `truth` knows the
answers and is for tests and diagnostics only: no method may import it (tests/test_imports.py enforces that).
"""

from pathlib import Path

from fac.errors import FacError

MODELS = Path(__file__).parent / "models"


def shipped(name: str) -> Path:
    """Folder of a model (or of its SAE) that the package ships, such as "llama" or "llama/sae"."""
    folder = MODELS / name
    if not folder.is_dir():
        known = ", ".join(sorted(p.name for p in MODELS.iterdir() if p.is_dir())) if MODELS.is_dir() else "none"
        raise FacError(
            f"The package ships no lab model {name}: choose from {known}, or set model=local model.path=DIR."
        )
    return folder
