"""What several test folders ask of an export."""

from __future__ import annotations

from mmrec.engine import Engine, Query
from mmrec.engine.vectors import Encoders
from mmrec.export_folder import ExportFolder
from mmrec.index import Hit, Where


def search_by_item(export: ExportFolder, item_id: str, k: int, *, where: Where | None = None) -> list[Hit]:
    """The items nearest to one of an opened export, as `mmrec search --items` asks; no model is loaded."""
    return Engine(Encoders(export.path / "model", export)).search(Query(items=[item_id]), k, where=where)
