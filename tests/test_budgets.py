"""Size limits and what the wheel holds."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [path for folder in ("mmrec", "data_pipelines", "train", "eval") for path in (ROOT / folder).rglob("*.py")]


def test_no_file_is_longer_than_400_lines():
    assert {str(path.relative_to(ROOT)) for path in SOURCES if len(path.read_text().splitlines()) > 400} == set()


def test_no_function_is_longer_than_60_lines():
    long = {
        f"{path.relative_to(ROOT)}:{node.name}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - _body_start(node) > 60
    }
    assert long == set()


def _body_start(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """First line after the docstring: what is read as code."""
    first = node.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return (first.end_lineno or first.lineno) if is_docstring else node.lineno


def test_the_wheel_holds_mmrec_alone(tmp_path):
    build = "from hatchling.build import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mmrec"}
    assert "mmrec/py.typed" in names, "whoever imports mmrec has its types"
    assert {"mmrec/report.html.j2", "mmrec/explore/static/index.html", "mmrec/explore/static/main.js"} <= set(names)
