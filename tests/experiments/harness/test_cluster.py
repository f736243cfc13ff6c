"""experiments.harness.cluster: a Ray cluster builds what workers of this machine would, whoever dies."""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from experiments.harness.backends import advance
from experiments.harness.cluster import Cluster
from experiments.harness.config import read_config
from experiments.harness.doctor.presence import backend
from fac.errors import FacError
from fac.store import StageEvent, Step, Store

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e .[ray]")
pytestmark = pytest.mark.slow


def write(text: str, folder: Path, *inputs: Path) -> None:
    (folder / "text").write_text("".join((path / "text").read_text() for path in inputs) + text)
    (folder / "node").write_text(ray.get_runtime_context().get_node_id())
    time.sleep(1)  # so that one node cannot do it all


def die_at_first(died: str, folder: Path, *inputs: Path) -> None:
    try:
        Path(died).touch(exist_ok=False)
    except FileExistsError:
        write("again", folder, *inputs)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def refuse(folder: Path, *inputs: Path) -> None:
    raise FacError("This cannot be trained: give it rows.")


def step(name: str, text: str, *inputs: Step) -> Step:
    return Step(name, partial(write, text), {"text": text}, inputs, parallel=True)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two nodes of one CPU each, on this machine."""
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes()
    for _ in range(2):
        nodes.add_node(num_cpus=1, object_store_memory=80 << 20, include_dashboard=False)
    yield str(nodes.address)
    nodes.shutdown()


def built(store: Store, address: str, *targets: Step) -> list[StageEvent]:
    events: list[StageEvent] = []
    with Cluster(store.root, None, address) as cluster:
        advance(targets, store, cluster.submit)
        events += cluster.results()
    return events


def test_two_nodes_build_each_step_once(tmp_path: Path, address: str):
    store = Store(tmp_path / "store")
    shared = step("train", "t")
    targets = [step("scores", text, shared) for text in "abcd"]
    events = built(store, address, *targets)
    places = [(event.name, event.key) for event in events if event.kind == "built"]
    assert sorted(places) == sorted((one.name, one.key) for one in [shared, *targets])
    assert [(store.get(target) / "text").read_text() for target in targets] == ["ta", "tb", "tc", "td"]
    assert len({(store.get(target) / "node").read_text() for target in targets}) == 2


def test_a_step_whose_worker_is_killed_is_run_again(tmp_path: Path, address: str):
    store = Store(tmp_path / "store")
    fatal = Step("train", partial(die_at_first, str(tmp_path / "died")), parallel=True)
    built(store, address, step("scores", "a", fatal))
    assert (tmp_path / "died").exists()
    assert (store.get(step("scores", "a", fatal)) / "text").read_text() == "againa"


def test_the_error_of_a_step_is_said_and_nothing_runs_on(tmp_path: Path, address: str):
    with pytest.raises(FacError, match="^This cannot be trained: give it rows.$"):
        built(Store(tmp_path / "store"), address, Step("train", refuse, parallel=True))


@pytest.mark.parametrize("nobody", ["127.0.0.1:1", "nowhere", "ray://127.0.0.1:1"])
def test_an_address_without_a_cluster_is_said(tmp_path: Path, nobody: str):
    with pytest.raises(FacError, match=f"No Ray cluster answers at {nobody} .*ray start --head"):
        Cluster(tmp_path, None, nobody)


def test_workers_of_a_cluster_are_its_own(tmp_path: Path, address: str):
    with pytest.raises(FacError, match=f"workers=3 says nothing about the cluster at {address}"):
        Cluster(tmp_path, 3, address)


def test_the_doctor_says_whether_the_cluster_is_there(address: str):
    told = ["experiment=lab", "backend=ray"]
    assert found(*told, f"ray.address={address}") == ("ok", f"Ray, {address}")
    status, said = found(*told, "ray.address=127.0.0.1:1")
    assert status == "missing"
    assert "No Ray cluster answers at 127.0.0.1:1" in said


def found(*settings: str) -> tuple[str, str]:
    finding = next(iter(backend(read_config(settings))))
    return finding.status, finding.said


def touch(path: Path) -> None:
    path.write_text(ray.get_runtime_context().get_node_id())
    time.sleep(1)


def test_parts_are_measured_on_all_nodes_at_once(tmp_path: Path, address: str):
    files = [tmp_path / name for name in "abcd"]
    with Cluster(tmp_path, None, address) as cluster:
        assert cluster.size() == 2
        cluster.each(touch, files)
    assert len({file.read_text() for file in files}) == 2
