"""Who may import whom: the core is torch and the standard library, and the laboratory stands on its public names."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import unifocal

PACKAGE = Path(unifocal.__file__).parent
FOREIGN = ["unifocal.lab", "monai", "lightning", "pandas", "matplotlib", "scipy", "PIL", "typer", "rich", "pydantic"]

# Who of the core may see whom, by folder or module; everything may see itself, torch and the standard library.
ALLOWED: dict[str, set[str]] = {
    "sums": set(),
    "terms": {"sums"},
    "slopes": {"terms", "sums"},
    "losses": {"terms", "slopes", "sums"},
    "registry": {"losses"},
    "family": {"registry"},
    "__init__": {"losses", "registry", "family", "sums"},
}


def imports(source: str, module: str) -> set[str]:
    """Every module or name that a module imports, absolute; `module` is its own dotted name.

    A module named `x.__init__` is the package x.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = ".".join(module.split(".")[: -node.level]) if node.level else ""
            full = ".".join(part for part in (origin, node.module) if part)
            found |= {f"{full}.{alias.name}" for alias in node.names}
    return found


def unit(name: str) -> str:
    """unifocal.losses.base.loss -> losses; unifocal.UnifiedFocalLoss -> __init__."""
    parts = name.split(".")[1:]
    return parts[0] if parts and parts[0] in {*ALLOWED, "lab"} else "__init__"


def offences(source: str, module: str) -> set[str]:
    """Imports of a module of the core that its place does not allow."""
    own = unit(module)
    bad = set()
    for name in imports(source, module):
        top = name.split(".")[0]
        if top == "unifocal":
            if unit(name) not in ALLOWED[own] | {own}:
                bad.add(name)
        elif top == "triton" and module == "unifocal.sums.triton_kernels":
            continue  # comes with PyTorch for CUDA; this module is imported where it is there
        elif top != "torch" and top not in sys.stdlib_module_names:
            bad.add(name)
    return bad


def lab_offences(source: str, module: str) -> set[str]:
    """Imports of a module of the laboratory that reach past the public names into the core."""
    public = {f"unifocal.{name}" for name in (*unifocal.__all__, "__version__")} | {"unifocal"}
    ours = {name for name in imports(source, module) if name.split(".")[0] == "unifocal"}
    return {n for n in ours if n not in public and n != "unifocal.lab" and not n.startswith("unifocal.lab.")}


def dotted(path: Path) -> str:
    return ".".join(("unifocal", *path.relative_to(PACKAGE).with_suffix("").parts))


CORE = sorted(p for p in PACKAGE.rglob("*.py") if "lab" not in p.relative_to(PACKAGE).parts)
LAB = sorted((PACKAGE / "lab").rglob("*.py"))


@pytest.mark.parametrize("path", CORE, ids=dotted)
def test_core_module_imports_only_what_its_place_allows(path):
    assert not offences(path.read_text(), dotted(path))


@pytest.mark.parametrize("path", LAB, ids=dotted)
def test_lab_uses_the_core_by_its_public_names(path):
    assert not lab_offences(path.read_text(), dotted(path))


def test_every_part_of_the_core_has_its_place():
    assert {unit(dotted(path)) for path in CORE} == set(ALLOWED)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("unifocal.sums.reference", "from ..terms import power"),
        ("unifocal.sums.reference", "from .. import losses"),
        ("unifocal.sums.__init__", "from ..losses.inputs import read_inputs"),
        ("unifocal.terms", "from .losses import DiceLoss"),
        ("unifocal.terms", "import unifocal.losses.base"),
        ("unifocal.losses.base", "def f():\n    import numpy as np"),
        ("unifocal.losses.base", "from ..lab.folds import make_folds"),
        ("unifocal.losses.base", "from unifocal.registry import build"),
        ("unifocal.registry", "import scipy.ndimage"),
        ("unifocal.__init__", "from . import lab"),
    ],
)
def test_this_check_of_the_core_can_fail(module, source):
    assert offences(source, module)


@pytest.mark.parametrize(
    "source",
    [
        "from ..losses.base import SegmentationLoss",
        "from unifocal.sums import voxel_sums",
        "import unifocal.terms",
        "from .. import terms",
        "from unifocal import registry",
    ],
)
def test_this_check_of_the_lab_can_fail(source):
    assert lab_offences(source, "unifocal.lab.cli")


PUBLIC = """\
from unifocal import build, DiceLoss
from .. import available
import unifocal
from .folds import make
from unifocal.lab import cases
from . import folds
""".splitlines()


@pytest.mark.parametrize("source", PUBLIC)
def test_this_check_of_the_lab_lets_the_public_names_pass(source):
    assert not lab_offences(source, "unifocal.lab.cli")


def loaded(code: str, names: list[str]) -> list[str]:
    """Which of the modules a fresh interpreter has loaded after running the code."""
    script = f"{code}\nimport sys\nprint(*[n for n in {names!r} if n in sys.modules])"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_package_loads_nothing_of_the_lab():
    code = "import unifocal; unifocal.build('unified-focal')"
    assert loaded(code, [*FOREIGN, "unifocal"]) == ["unifocal"]


def test_that_check_can_fail():
    assert loaded("import unifocal.lab", FOREIGN) == ["unifocal.lab"]


def test_the_core_works_where_numpy_cannot_be_imported():
    code = (
        "import sys; sys.modules['numpy'] = None; import warnings; warnings.simplefilter('ignore')\n"
        "import torch, unifocal\n"
        "z = torch.randn(1, 2, 4, requires_grad=True)\n"
        "for name in unifocal.available(): unifocal.build(name)(z, torch.tensor([[0, 1, 0, 1]])).backward()\n"
    )
    assert loaded(code, ["unifocal"]) == ["unifocal"]
