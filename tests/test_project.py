"""The project keeps its own rules: which way imports point, no pickles, a fast command line, papers that agree."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = "stamina_diffusion"
SOURCE = ROOT / "src" / PACKAGE

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Imports point one way: a part may import from its own layer and from those below it.
# Parts that are named nowhere here (seeds, world, metrics, ...) stand outside the layers.
LAYERS = [
    {"concepts", "deltas", "method", "sites"},
    {"methods", "backbones"},
    {"heldout", "learn", "observe", "teaching"},
    {"benchmarks", "exports", "studio"},
    {"cli", "ui"},
]
# The core knows tensors and nothing of the libraries that models come from: backbones adapt those.
CORE = {"concepts", "deltas", "learn", "method", "methods", "metrics", "scores", "seeds", "sites", "teaching", "world"}
MODEL_LIBRARIES = {"diffusers", "peft", "timm", "transformers"}
# What takes seconds to import, and so must wait until a command needs it.
SLOW = {"accelerate", "diffusers", "peft", "torch", "transformers"}


def sources() -> list[Path]:
    """Every module that runs on a user's machine."""
    return sorted(SOURCE.rglob("*.py")) + sorted((ROOT / "benchmarks").rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a file imports, inside functions too.

    `from a import b` gives `a` and `a.b`, since `b` may be a module.
    """
    here = path.relative_to(SOURCE.parent).parent.parts if path.is_relative_to(SOURCE) else ()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else ()
            base = ".".join([*above, *(node.module.split(".") if node.module else [])])
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def part(path: Path) -> str:
    """The first name below the package: `methods` of methods/lora.py, `learn` of learn.py."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def parts_imported(path: Path) -> Iterator[tuple[int, str]]:
    for line, name in imports(path):
        if name.startswith(PACKAGE + "."):
            yield line, name.split(".")[1]


def trespasses(part_of_file: str, forbidden: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted(SOURCE.rglob("*.py"))
        if part(path) == part_of_file
        for line, name in parts_imported(path)
        if name in forbidden
    ]


# ---------------------------------------------------------------------------------------------------------- imports


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import torch.nn as nn", {"torch.nn"}),
        ("from ..backbones import base", {f"{PACKAGE}.backbones", f"{PACKAGE}.backbones.base"}),
        ("from .. import backbones", {PACKAGE, f"{PACKAGE}.backbones"}),
        ("def f():\n    from .lora import LoRA", {f"{PACKAGE}.methods.lora", f"{PACKAGE}.methods.lora.LoRA"}),
    ],
)
def test_imports_are_read_whatever_their_form(monkeypatch, tmp_path, text, names):
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path / PACKAGE)
    path = tmp_path / PACKAGE / "methods" / "a.py"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    assert {name for _, name in imports(path)} == names


def test_the_parts_are_where_the_rules_expect_them():
    for name in ("methods", "backbones"):
        assert list((SOURCE / name).glob("*.py")), f"src/{PACKAGE}/{name}/ holds no module; the import rules look there"
    assert any(SOURCE.glob("cli/*.py")) or (SOURCE / "cli.py").exists(), f"src/{PACKAGE} has no cli"


def test_methods_never_import_backbones():
    assert trespasses("methods", {"backbones"}) == []


def test_backbones_never_import_methods():
    assert trespasses("backbones", {"methods"}) == []


@pytest.mark.parametrize("height", range(len(LAYERS) - 1))
def test_imports_point_down(height):
    above = set().union(*LAYERS[height + 1 :])
    assert [trespass for name in sorted(LAYERS[height]) for trespass in trespasses(name, above)] == []


def test_model_libraries_stay_out_of_the_core():
    assert [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted(SOURCE.rglob("*.py"))
        if part(path) in CORE
        for line, name in imports(path)
        if name.split(".")[0] in MODEL_LIBRARIES
    ] == []


def test_the_command_line_starts_without_slow_imports():
    code = f"import sys, {PACKAGE}.cli; print(*sorted({SLOW!r} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []


# ---------------------------------------------------------------------------------------------------------- pickles

UNSAFE_MODULES = {"cloudpickle", "dill", "joblib", "pickle", "shelve"}
UNSAFE_CALLS = {"torch.load", "torch.save", "torch.jit.load"}


def unsafe(path: Path) -> Iterator[str]:
    """Where a file reads or writes pickles."""
    for line, name in imports(path):
        if name.split(".")[0] in UNSAFE_MODULES or name in UNSAFE_CALLS:
            yield f"{line}: imports {name}"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in UNSAFE_CALLS:
            yield f"{node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            yield f"{node.value.lineno}: allow_pickle={ast.unparse(node.value)}"


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from torch import load",
        "import torch\ntorch.load('a')",
        "import numpy\nnumpy.load('a', allow_pickle=True)",
    ],
)
def test_a_pickle_is_seen(tmp_path, text):
    path = tmp_path / "a.py"
    path.write_text(text, encoding="utf-8")
    assert list(unsafe(path))


def test_no_source_reads_or_writes_pickles():
    assert [f"{path.relative_to(ROOT)}:{found}" for path in sources() for found in unsafe(path)] == []


def test_no_pickled_weights_are_shipped():
    suffixes = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}
    assert [str(path.relative_to(ROOT)) for path in SOURCE.rglob("*") if path.suffix in suffixes] == []


# ----------------------------------------------------------------------------------------------------------- papers


def released() -> str:
    """The newest version that the changelog names."""
    found = re.search(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert found, "CHANGELOG.md has no heading of the form '## [1.2.3] - date'"
    return found[1]


def citation() -> dict:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_versions_agree():
    assert {
        "pyproject": PROJECT["version"],
        "changelog": released(),
        "citation": citation()["version"],
    } == dict.fromkeys(["pyproject", "changelog", "citation"], PROJECT["version"])


def test_the_citation_names_the_software_and_its_papers():
    cited = citation()
    assert cited["cff-version"] == "1.2.0"
    assert cited["title"] == PROJECT["name"]
    assert cited["license"] == PROJECT["license"]
    assert cited["authors"]
    papers = {reference["doi"] for reference in cited["references"]}
    assert {"10.48550/arXiv.2311.18763", "10.48550/arXiv.2304.06027"} <= papers


def test_the_licence_is_apache_2():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def test_the_readme_gives_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert "make demo" in text
    assert "make test" in text


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"])
def test_links_to_files_lead_somewhere(name):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    files = [target.split("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_constraints_pin_everything_and_leave_torch_a_cpu_build():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*==[\w.]+", line)] == []
    names = {line.split("==")[0] for line in lines}
    assert "torch" in names
    # What only the CUDA build brings, and torchvision, which breaks diffusers where its build does not match torch's.
    assert [name for name in sorted(names) if re.match(r"nvidia-|cuda-|triton|torchvision", name)] == []


# ----------------------------------------------------------------------------------------------------- public names


def test_every_public_name_exists_once():
    package = importlib.import_module(PACKAGE)
    names = list(package.__all__)
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(package, name)] == []


def test_public_names_are_sorted():
    """In ruff's order (constants, classes, functions), so that this test and `ruff check` cannot disagree."""
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "RUF022", "--output-format", "concise"]
    ran = subprocess.run([*ruff, str(SOURCE / "__init__.py")], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
