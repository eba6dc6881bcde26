"""The grid on Ray: a cluster of two nodes on this machine, one of which is killed."""

import os
import signal

import fake_grid
import pytest
from fake_grid import check_finished, make_grid, run_cell

from unifocal.lab.errors import LabError
from unifocal.lab.grid import run_grid
from unifocal.lab.grid.ray import on_node, resources
from unifocal.lab.progress import Watcher
from unifocal.lab.settings import make_settings

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'unifocal[lab,ray]'")

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own: unclosed files, forks, what is to change some day


class Said(Watcher):
    def __init__(self):
        self.said, self.epochs = [], []

    def stage(self, text):
        self.said.append(text)

    def epoch_ended(self, name, epoch, validation_loss):
        self.epochs.append((name, epoch))


@pytest.fixture(autouse=True)
def handler():
    """Of SIGTERM: Ray leaves its own where it starts a head."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def nodes(monkeypatch):
    """A cluster whose head has no CPUs for runs, and two nodes of two CPUs each."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(fake_grid.HERE), os.environ.get("PYTHONPATH", "")]))
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
        yield cluster, nodes
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_the_runs_of_a_node_that_is_killed_are_finished_on_the_other(out, nodes):
    cluster, (_, victim) = nodes
    cells = make_grid(out, runs=6, epochs=40, seconds=0.05)
    settings = make_settings(engine="ray", address=cluster.address, threads=1, device="cpu")
    killed = False

    class Kill(Said):
        """Kills a node when four runs are under way."""

        def epoch_ended(self, name, epoch, validation_loss):
            nonlocal killed
            super().epoch_ended(name, epoch, validation_loss)
            if not killed and len(fake_grid.workers_of(cells)) == 4:
                killed = True
                cluster.remove_node(victim, allow_graceful=False)

    records = list(run_grid(cells, settings, Kill(), run_cell))
    assert killed and sorted(r["name"] for r in records) == [cell.name for cell in cells]
    assert {r["status"] for r in records} == {"finished"}
    check_finished(cells)
    assert sum(map(fake_grid.repeated_epochs, cells)) <= 2  # two runs were on that node
    assert all(fake_grid.repeated_epochs(cell) <= 1 for cell in cells)


@pytest.mark.slow
def test_a_local_start_gives_the_same_files_and_failures_are_records(out, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")  # nobody asked for a cluster that is elsewhere
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(fake_grid.HERE), os.environ.get("PYTHONPATH", "")]))
    cells, watcher, before = make_grid(out, runs=4, epochs=10, fails=["run1"]), Said(), signal.getsignal(signal.SIGTERM)
    records = {
        r["name"]: r for r in run_grid(cells, make_settings(engine="ray", device="cpu", threads=1), watcher, run_cell)
    }
    assert records["run1"]["status"] == "failed" and "the gradient went home" in records["run1"]["reason"]
    check_finished([cell for cell in cells if cell.name != "run1"])
    for cell in cells:
        told = [epoch for name, epoch in watcher.epochs if name == cell.title]
        assert told == ([] if cell.name == "run1" else list(range(10)))
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_node_that_does_not_see_the_folder_says_so(out):
    [cell] = make_grid(out, runs=1)
    record = on_node(run_cell, cell, threads=1)
    assert record["status"] == "failed" and f"does not see {out}" in record["reason"]
    assert not (out / "runs").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://localhost:1", "nowhere"])
def test_a_cluster_that_is_not_there_is_told(out, address):
    settings = make_settings(engine="ray", address=address, device="cpu")
    with pytest.raises(LabError, match=f"expected the Ray cluster at {address};"):
        list(run_grid(make_grid(out), settings, Watcher(), run_cell))


@pytest.mark.parametrize(
    ("settings", "node", "expected"),
    [
        ({"device": "cpu"}, {"CPU": 16.0, "GPU": 4.0}, (16, 0)),
        ({"device": "cpu", "workers": 5}, {"CPU": 16.0}, (3, 0)),
        ({}, {"CPU": 16.0}, (16, 0)),
        ({}, {"CPU": 16.0, "GPU": 4.0}, (4, 1)),
        ({"gpus": 0.25}, {"CPU": 16.0, "GPU": 1.0}, (4, 0.25)),
        ({"gpus": 0.25, "threads": 2}, {"CPU": 16.0, "GPU": 1.0}, (2, 0.25)),
        ({"devices": 2}, {"CPU": 16.0, "GPU": 4.0}, (8, 2)),
        ({"gpus": 1}, {"CPU": 8.0}, (8, 1)),
    ],
)
def test_what_a_run_takes_of_a_node(settings, node, expected):
    nodes = [{"Alive": True, "Resources": node}, {"Alive": True, "Resources": {"CPU": 1.0}}]
    nodes.append({"Alive": False, "Resources": {"CPU": 99.0, "GPU": 99.0}})
    assert resources(nodes, make_settings(engine="ray", **settings)) == expected
