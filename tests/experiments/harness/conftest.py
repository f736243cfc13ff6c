import pytest
from support.declared import OWN_DATA, PROBE, declare


@pytest.fixture(autouse=True)
def probes(tmp_path_factory, monkeypatch):
    """Two experiments: `probe` reads what tables of trained tasks read, `own_data` data sets of one's own."""
    declare(tmp_path_factory.mktemp("experiments"), monkeypatch, probe=PROBE, own_data=OWN_DATA)
