"""The rules of the house: who may import what, and what a file may look like.

Rules are read from source with `ast`, by functions from (path, source) to complaints. So each is
tried on a made-up file that breaks it, then on every file there is.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cluster", "examples", "models", "search", "serve")
MOST_LINES = 300

# Ours: what each may import of the others. `milpa.py` sees all.
DIRECTIONS = {
    "cluster": ("cluster", "models", "search"),
    "examples": ("examples",),
    "models": ("models", "search.space"),
    "search": ("search",),
    "serve": ("models", "serve"),
}
# Others': the files and packages that may import them.
RAY = ("cluster/", "serve/app.py", "milpa.py")
SURROGATES = ("search/",)
STUDIES = ("search/",)
MODELS = ("models/",)
HOMES = {
    "ray": RAY,
    "botorch": SURROGATES,
    "gpytorch": SURROGATES,
    "linear_operator": SURROGATES,
    "jax": SURROGATES,
    "numpyro": SURROGATES,
    "optuna": STUDIES,
    "transformers": MODELS,
    "tokenizers": MODELS,
    "peft": MODELS,
    "datasets": MODELS,
    "pickle": (),
    "dill": (),
    "cloudpickle": (),
    "joblib": (),
}
CATCHERS = ("cluster/packer.py", "serve/engine.py", "serve/guard.py")


def _imported(tree: ast.Module) -> Iterator[str]:
    """Every module that is imported anywhere in a file, in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = str(node.module)
            plain = module.partition(".")[0] not in PACKAGES or "." in module
            yield from {module} if plain else {f"{module}.{alias.name}" for alias in node.names}


def _within(module: str, allowed: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


def wrong_directions(path: str, source: str) -> list[str]:
    """Imports between our own packages that the design forbids."""
    package = path.partition("/")[0]
    return [
        f"{path} imports {module}"
        for module in _imported(ast.parse(source))
        if package in DIRECTIONS
        and _within(module, (*PACKAGES, "milpa", "tests", "benchmarks"))
        and not _within(module, DIRECTIONS[package])
    ]


def strangers(path: str, source: str) -> list[str]:
    """Libraries imported outside of the packages they are kept in."""
    return [
        f"{path} imports {module}"
        for module in _imported(ast.parse(source))
        if (homes := HOMES.get(module.partition(".")[0])) is not None and not path.startswith(homes)
    ]


def swallowed_errors(path: str, source: str) -> list[str]:
    """Handlers of every exception that don't raise it again."""
    return [
        f"{path}:{node.lineno} catches everything"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and not isinstance(node.body[-1], ast.Raise)
        and path not in CATCHERS
    ]


def bad_form(path: str, source: str) -> list[str]:
    """Length, docstring, and the names and marks that no file has."""
    tree, name = ast.parse(source), path.rpartition("/")[2]
    code = [node for node in tree.body if not isinstance(node, ast.Expr)]
    found = {
        f"has {len(source.splitlines())} lines": len(source.splitlines()) > MOST_LINES,
        "has no docstring": not ast.get_docstring(tree),
        "holds more than its docstring": name == "__init__.py" and bool(code),
        "has a name that says nothing": name in ("utils.py", "util.py", "helpers.py", "common.py"),
        "has a mark to do": any(mark in source for mark in ("TO" + "DO", "FIX" + "ME", "X" * 3)),
    }
    return [f"{path} {what}" for what, is_so in found.items() if is_so]


RULES = (wrong_directions, strangers, swallowed_errors, bad_form)
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*(file for p in PACKAGES for file in (ROOT / p).rglob("*.py")), ROOT / "milpa.py"]
)


def unnamed(folder: Path) -> list[str]:
    """Modules that their package's reading order leaves out."""
    order = str(ast.get_docstring(ast.parse((folder / "__init__.py").read_text())))
    names = [file.stem for file in sorted(folder.glob("*.py")) if file.stem != "__init__"]
    return [name for name in names if not re.search(rf"\b{name}\b", order)]


@pytest.mark.parametrize("package", [*PACKAGES, "benchmarks"])
def test_a_packages_reading_order_names_every_file(package: str) -> None:
    assert unnamed(ROOT / package) == []


def test_a_file_that_no_reading_order_names_is_found(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text('"""Read bank.py first."""')
    for name in ("bank", "base"):
        (tmp_path / f"{name}.py").touch()
    assert unnamed(tmp_path) == ["base"]


def test_there_are_files() -> None:
    assert {file.partition("/")[0] for file in FILES} == {*PACKAGES, "milpa.py"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_file_keeps_the_rule(rule) -> None:
    assert [line for file in FILES for line in rule(file, (ROOT / file).read_text())] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("search/space.py", "import models.base"),
        ("search/space.py", "from models import base"),
        ("models/milp.py", "from search.study import Study"),
        ("models/milp.py", "from search import study"),
        ("models/milp.py", "def late():\n    import cluster.run"),
        ("serve/app.py", "from search.space import MemoryConfig"),
        ("serve/app.py", "import cluster.run"),
        ("cluster/run.py", "from serve import app"),
        ("cluster/run.py", "import milpa"),
        ("examples/demo.py", "from cluster.run import run"),
        ("models/bank.py", "from tests.tiny import base"),
    ],
)
def test_a_wrong_direction_is_found(path: str, source: str) -> None:
    assert len(wrong_directions(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("models/milp.py", "from search.space import MemoryConfig"),
        ("models/milp.py", "from search import space"),
        ("cluster/run.py", "import models.base, search.study, cluster.trial"),
        ("serve/app.py", "from models.registry import Registry"),
        ("milpa.py", "import cluster.run, serve.app, models.base, search.study"),
        ("models/milp.py", "import searching, modelsmith"),
    ],
)
def test_a_right_direction_is_not(path: str, source: str) -> None:
    assert wrong_directions(path, source) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("models/bank.py", "import ray"),
        ("search/study.py", "def late():\n    from ray import tune"),
        ("serve/engine.py", "import ray.serve"),
        ("models/bank.py", "from botorch.models import SingleTaskGP"),
        ("cluster/searcher.py", "import gpytorch"),
        ("cluster/searcher.py", "import optuna"),
        ("cluster/packer.py", "import transformers"),
        ("serve/engine.py", "from peft import PeftModel"),
        ("examples/demo.py", "import datasets"),
        ("models/registry.py", "import pickle"),
        ("cluster/asker.py", "import jax.numpy"),
        ("milpa.py", "import torch, peft"),
    ],
)
def test_a_library_out_of_its_place_is_found(path: str, source: str) -> None:
    assert len(strangers(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("cluster/run.py", "import ray"),
        ("serve/app.py", "from ray import serve"),
        ("milpa.py", "import ray"),
        ("search/study.py", "import optuna, botorch"),
        ("models/base.py", "import transformers, peft, datasets"),
        ("search/study.py", "import rayleigh"),
    ],
)
def test_a_library_in_its_place_is_not(path: str, source: str) -> None:
    assert strangers(path, source) == []


def test_swallowed_errors_are_found() -> None:
    catch = "try:\n    f()\nexcept {}:\n    {}\n"
    everything = [catch.format(kind, "pass") for kind in ("Exception", "BaseException", "")]
    assert all(swallowed_errors("models/bank.py", source) for source in everything)
    assert swallowed_errors("models/bank.py", catch.format("BaseException", "raise")) == []
    assert swallowed_errors("models/bank.py", catch.format("ValueError", "pass")) == []
    assert swallowed_errors("cluster/packer.py", catch.format("Exception", "log()")) == []


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("models/bank.py", '"""Bank."""\n' + "x = 1\n" * MOST_LINES, "lines"),
        ("models/bank.py", "x = 1\n", "docstring"),
        ("models/utils.py", '"""Things."""\n', "name"),
        ("models/__init__.py", '"""Models."""\nfrom models.bank import Bank\n', "more than"),
        ("models/bank.py", '"""Bank."""\n# TO' + "DO: later\n", "mark"),
    ],
)
def test_bad_form_is_found(path: str, source: str, complaint: str) -> None:
    assert [complaint in line for line in bad_form(path, source)] == [True]
    assert bad_form("models/bank.py", '"""Bank."""\nx = 1\n') == []


# Imports every module of some packages where importing the named libraries fails.
IMPORT_WITHOUT = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED, packages = sys.argv[1].split(","), sys.argv[2].split(",")
sys.meta_path.insert(0, Absent())
try:
    importlib.import_module(BLOCKED[0])
except ModuleNotFoundError:
    pass
else:
    sys.exit(f"{BLOCKED[0]} is not blocked")
count = 0
for package in packages:
    folder = importlib.import_module(package)
    names = [found.name for found in pkgutil.iter_modules(getattr(folder, "__path__", []))]
    for name in names:
        importlib.import_module(f"{package}.{name}")
    count += len(names) + 1
print(count)
"""


def _imports_without(blocked: str, packages: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", IMPORT_WITHOUT, blocked, packages]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_models_and_search_import_where_ray_is_not_installed() -> None:
    done = _imports_without("ray", "models,search")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == sum(file.startswith(("models/", "search/")) for file in FILES)


def test_what_tune_starts_for_every_trial_needs_no_torch() -> None:
    done = _imports_without("torch,transformers,peft,botorch", "cluster.trial,cluster.searcher")
    assert done.returncode == 0, done.stderr


def test_a_missing_library_is_noticed() -> None:
    done = _imports_without("ray", "cluster.submit")
    assert done.returncode == 1
    assert "No module named 'ray'" in done.stderr
