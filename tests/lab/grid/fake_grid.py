"""A stand-in for trainings: many tiny epochs, each written as a real one is, in a grid that can be started and killed.

    python fake_grid.py OUT [setting=value ...]

runs the grid of OUT and prints its records, a line of JSON each.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from unifocal.lab.claims import owner_of
from unifocal.lab.errors import LabError, Terminated
from unifocal.lab.grid import Cell, run_grid, slurm
from unifocal.lab.progress import Watcher, tell_epoch
from unifocal.lab.settings import make_settings
from unifocal.lab.storage import remove_parts, write_json, write_text

HERE = Path(__file__).parent
HEADER = "epoch,train_loss,validation_loss,learning_rate,seconds"


def make_grid(out, runs=4, epochs=20, seconds=0.005, **fake):
    """An output folder with so many planned runs; with `waits_in`, an epoch, they wait there (`held`)."""
    planned = [{"name": f"run{i}", "title": f"loss {i}, fold 0", "epochs": epochs} for i in range(runs)]
    out.mkdir(parents=True, exist_ok=True)
    (out / "experiment.json").write_text(json.dumps({"runs": planned, "fake": {"seconds": seconds, **fake}}))
    if "waits_in" in fake:
        held(out).touch()
    return cells_of(out)


def cells_of(out):
    planned = json.loads((out / "experiment.json").read_text())["runs"]
    return [Cell(str(out), run["name"], run["title"], run["epochs"]) for run in planned]


def run_cell(out, name):
    """Bring a run to its end from its last whole epoch."""
    folder = Path(out) / "runs" / name
    experiment = json.loads((Path(out) / "experiment.json").read_text())
    epochs = next(run["epochs"] for run in experiment["runs"] if run["name"] == name)
    fake = experiment["fake"]
    done = {"name": name, "status": "finished", "reason": None, "seconds": 0.0}
    if (folder / "result.json").exists():
        (folder / "last.ckpt").unlink(missing_ok=True)
        return done
    remove_parts(folder)
    if "deaf" in fake:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    state = read_checkpoint(folder / "last.ckpt") or {"value": name, "rows": []}
    for epoch in range(len(state["rows"]), epochs):
        with (folder / "begun.txt").open("a") as file:
            file.write(f"{epoch}\n")
        time.sleep(fake["seconds"])
        while epoch == fake.get("waits_in") and held(Path(out)).exists():
            time.sleep(0.005)
        if name in fake.get("fails", ()):
            raise ValueError("the gradient went home\nsecond line")
        if name in fake.get("dies", ()):
            os.kill(os.getpid(), signal.SIGKILL)
        state["value"] = next_value(state["value"], epoch)
        state["rows"].append(f"{epoch},1.0,{1 / (epoch + 1)},0.01,{fake['seconds']}")
        write_text(folder / "history.csv", "\n".join([HEADER, *state["rows"], ""]))
        write_json(folder / "last.ckpt", state)
        tell_epoch(epoch, 1 / (epoch + 1))
    write_json(folder / "result.json", {"status": "finished", "value": state["value"]})
    (folder / "last.ckpt").unlink(missing_ok=True)
    return done


def held(out):
    """While this file is there, no run gets through the epoch `waits_in`."""
    return out / "held"


def read_checkpoint(path):
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def next_value(value, epoch):
    """What an epoch makes of the weights, in spirit: it depends on all that was before."""
    return hashlib.sha256(f"{value} {epoch}".encode()).hexdigest()


def expected_value(name, epochs):
    value = name
    for epoch in range(epochs):
        value = next_value(value, epoch)
    return value


def begun_epochs(cells):
    """How many epochs were begun, those that were begun again included."""
    return sum(len(_begun(cell)) for cell in cells)


def repeated_epochs(cell):
    """How often an epoch of a run was begun again."""
    return len(_begun(cell)) - len(set(_begun(cell)))


def _begun(cell):
    try:
        return (cell.folder / "begun.txt").read_text().split()
    except FileNotFoundError:
        return []


def check_finished(cells):
    """Every run is finished, with the value that an undisturbed one has, and nothing lies about."""
    for cell in cells:
        result = json.loads((cell.folder / "result.json").read_text())
        assert result["value"] == expected_value(cell.name, cell.epochs)
        assert (cell.folder / "history.csv").read_text().count("\n") == cell.epochs + 1
        assert sorted(path.name for path in cell.folder.iterdir()) == ["begun.txt", "history.csv", "result.json"]


def check_whole(cells):
    """Whatever can be read at this moment is whole."""
    for cell in cells:
        for name in ("result.json", "last.ckpt"):
            try:
                json.loads((cell.folder / name).read_text())
            except FileNotFoundError:
                continue
        try:
            text = (cell.folder / "history.csv").read_text()
        except FileNotFoundError:
            continue
        assert text.startswith(HEADER) and text.endswith("\n")
        assert all(row.count(",") == 4 for row in text.splitlines())


def start(out, **settings):
    """The grid in a process and a group of its own."""
    words = [f"{name}={value}" for name, value in settings.items()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    return subprocess.Popen(
        [sys.executable, str(HERE / "fake_grid.py"), str(out), *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def records_of(process, timeout=60):
    """(exit code, records, what was said) of a grid, when it ends."""
    output, errors = process.communicate(timeout=timeout)
    return process.returncode, [json.loads(line) for line in output.splitlines()], errors


def workers_of(cells):
    """Processes that hold a claim: run -> pid."""
    owners = {cell.name: owner_of(cell.folder) for cell in cells}
    return {name: owner.pid for name, owner in owners.items() if owner}


def descendants(pid):
    """Processes that a process started, directly or not, from /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: set[int] = set()
    new = [pid]
    while new:
        new = [child for parent in new for child in children.get(parent, [])]
        found |= set(new)
    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, timeout=60.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class Said(Watcher):
    """Prints what is said to the standard error."""

    def stage(self, text):
        print(text, file=sys.stderr, flush=True)


def main(out, *words):
    slurm.POLL = 0.1
    settings = make_settings(device="cpu", **dict(word.split("=", 1) for word in words))
    out = Path(out)
    try:
        with closing(run_grid(cells_of(out), settings, Said(), run_in_module())) as records:
            for record in records:
                print(json.dumps(record), flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
    except Terminated:
        sys.exit(143)
    except LabError as error:
        sys.exit(f"unifocal: {error}")


def run_in_module():
    """`run_cell` under the name by which other processes find it."""
    import fake_grid

    return fake_grid.run_cell


if __name__ == "__main__":
    main(*sys.argv[1:])
