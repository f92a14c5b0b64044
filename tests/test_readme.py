"""The README and the documents in .github: their commands parse, their snippets run, and their links have targets."""

import argparse
import ast
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import search.audit
import search.check
import search.export
import search.final
import search.predict
import search.submit
from search.options import run_parser
from search.report.__main__ import parser as report_parser
from voctrain.data.__main__ import _parser as data_parser
from voctrain.data.sample import make_sample

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = (README, *sorted((ROOT / ".github").glob("*.md")))
PARSERS = {
    "search.run": run_parser,
    "search.final": search.final.parser,
    "search.submit": search.submit.parser,
    "search.export": search.export.parser,
    "search.predict": search.predict.parser,
    "search.report": report_parser,
    "search.audit": search.audit.parser,
    "search.check": search.check.parser,
    "voctrain.data": data_parser,
}


def code_blocks(file: Path) -> list[str]:
    """The indented and the fenced code blocks of a Markdown file, dedented."""
    text = file.read_text()
    fenced = re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    indented = re.findall(r"(?:^ {4}.*\n(?:\n(?= {4}))*)+", text, re.M)
    return [textwrap.dedent(block) for block in (*fenced, *indented)]


def is_python(block: str) -> bool:
    return block.startswith(("from ", "import "))


def commands(file: Path) -> Iterator[list[str]]:
    """The words of every `python …` command, as a shell splits them."""
    for block in code_blocks(file):
        for line in () if is_python(block) else block.splitlines():
            for command in line.split("&&"):
                words = shlex.split(command, comments=True)
                if words and words[0] == "python":
                    yield words[1:]


def script_parser(script: Path) -> argparse.ArgumentParser:
    """The parser that a script builds, from its source: importing a benchmark would load torch and Ray."""
    names: dict[str, object] = {"argparse": argparse, "Path": Path}
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Assign | ast.Expr) and re.match(
            r"parser( = argparse\.ArgumentParser|\.add_argument)\(", ast.unparse(node)
        ):
            exec(compile(ast.Module([node], []), str(script), "exec"), names)
    parser = names["parser"]
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_commands_are_parsed(file, capsys):
    modules, scripts = [], []
    for words in commands(file):
        if words[:2] in (["-m", "pip"], ["-m", "pytest"]):
            continue
        if words[0] == "-m" and words[1].startswith("tests."):
            words = [words[1].replace(".", "/") + ".py", *words[2:]]
        try:
            if words[0] == "-m":
                PARSERS[words[1]]().parse_args(words[2:])
                modules.append(words[1])
            else:
                script_parser(ROOT / words[0]).parse_args(words[1:])
                scripts.append(words[0])
        except SystemExit:
            pytest.fail(f"python {shlex.join(words)}: {capsys.readouterr().err}")
    if file == README:
        assert len(modules) >= 15
        assert set(modules) == set(PARSERS)
    if file.name == "CONTRIBUTING.md":
        assert len(scripts) >= 5


def test_a_wrong_command_is_noticed():
    with pytest.raises(SystemExit):
        PARSERS["search.run"]().parse_args(["classify", "--trails", "50"])
    with pytest.raises(SystemExit):
        script_parser(ROOT / "tests" / "benchmarks" / "overhead.py").parse_args(["--trails", "50"])


def snippets() -> list[str]:
    return [block for block in code_blocks(README) if is_python(block)]


def test_snippets_are_found():
    assert any("voctrain" in snippet for snippet in snippets())
    assert any("search import api" in snippet for snippet in snippets())


@pytest.mark.slow
@pytest.mark.timeout(600)  # one of them starts Ray, which is slow on a loaded machine
@pytest.mark.parametrize("snippet", snippets(), ids=lambda snippet: snippet.split()[1])
def test_snippets_run(snippet, tmp_path):
    """Unchanged except for the data and the amount of training."""
    make_sample(tmp_path / "set", num_labeled=40, num_unlabeled=8, max_size=40)
    small = snippet.replace('"DIR"', '"set"').replace('"sample"', '"set"')
    small = re.sub(r"\b(epochs|trials|top)=\d+", r"\1=1", small)
    small = re.sub(r"\bimage_size=\d+", "image_size=32", small)
    small = small.replace("trials=1", 'trials=1, epochs=1, set=("architecture=simple",)')
    small = small.replace("top=1", "top=1, seeds=1")
    paths = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", small], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **paths}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    assert ("api.submit" in small) == (tmp_path / "submission.csv").exists()


def test_readme_is_short():
    assert len(README.read_text().splitlines()) < 200


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_relative_links_have_targets(file):
    links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", file.read_text())
    assert links or file.name != "README.md"
    for link in links:
        if not link.startswith(("http://", "https://")):
            assert (file.parent / link).exists(), link
