"""The site's pages are true: their code runs as it stands, and the site builds without a warning."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser
from typer.testing import CliRunner

from stamina_diffusion.cli import app

ROOT = Path(__file__).parents[1]


def run_commands(example: Example) -> None:
    """Run each line of a bash block, which must be one of ours; a failure shows what the command said."""
    for line in example.parsed.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "stamina", f"only stamina commands can be checked here, not {line!r}"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"


BLOCKS = Sybil(parsers=[PythonCodeBlockParser(), CodeBlockParser("bash", run_commands)])
PAGES = [page for page in sorted((ROOT / "docs").glob("*.md")) if list(BLOCKS.parse(page).examples())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for example in BLOCKS.parse(page).examples():
        example.evaluate()


def test_the_first_page_has_code():
    assert "index" in {page.stem for page in PAGES}


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert built.returncode == 0, built.stderr
    commands = (tmp_path / "site" / "commands" / "index.html").read_text()
    assert "stamina learn" in commands
    assert "fonts.googleapis" not in commands
    assert "W_t = W_{t−1} + (B_t A_t) ⊙ M_t" in (tmp_path / "site" / "methods" / "index.html").read_text()
