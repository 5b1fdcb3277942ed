"""The README's own-data commands run as written."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import polars as pl

from mmrec.cli import main

README = Path(__file__).resolve().parents[1] / "README.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", README.read_text(), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("mmrec ")]


def test_the_commands_run_as_written(tiny_source, tmp_path, monkeypatch):
    shop = tmp_path / "shop"
    shutil.copytree(tiny_source, shop)
    for table in ("items.csv", "interactions.csv"):  # the README's shop calls its items P00, P01, ...
        rows = pl.read_csv(shop / table, infer_schema_length=None)
        order = {name: f"P{n:02d}" for n, name in enumerate(pl.read_csv(tiny_source / "items.csv")["item_id"])}
        rows.with_columns(pl.col("item_id").replace(order)).write_csv(shop / table)
    monkeypatch.chdir(tmp_path)
    assert len(commands()) == 9
    for arguments in commands():
        assert main(arguments) == 0, arguments
    run_python(README.read_text())


def run_python(text: str) -> None:
    """The Python of the README, in the folder where its commands were run."""
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    items, users = names["vectors"]
    assert items.shape == users.shape == (1, names["engine"].export.dim)
    assert len(names["hits"]) == 5
    assert not {"P00", "P01", "P02"} & {hit.item_id for hit in names["hits"]}
