"""The audit for people: one self-contained page with thumbnails, near-duplicates side by side, and drawings."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from mmrec.data.audit.charts import charts
from mmrec.data.audit.facts import coverage, facts, faults, patterns
from mmrec.data.audit.near_duplicates import NearDuplicates
from mmrec.data.audit.thumbnails import thumbnail
from mmrec.data.audit.wording import quantity, shortened
from mmrec.data.dataset import Dataset
from mmrec.data.store import url_of

__all__ = ["render_page"]

_CARDS, _CARDS_A_MODALITY = 12, 2
_GROUPS, _MEMBERS = 6, 6
_EXCERPT = 160


@dataclass(frozen=True)
class Card:
    """An item as it is shown: pictures are (modality, data URI or None where the medium does not decode)."""

    item_id: str
    title: str
    excerpt: str
    pictures: list[tuple[str, str | None]]
    modalities: tuple[str, ...]


def render_page(
    path: Path,
    dataset: Dataset | None,
    problems: list[str],
    suspicions: list[str],
    near_duplicates: list[NearDuplicates],
) -> str:
    """The audit of the folder ``path`` as one HTML page without scripts and without anything to load.

    Args:
        dataset: None where its problems do not allow it to be opened; the page then shows these alone.
    """
    import jinja2

    template = (resources.files("mmrec.data.audit") / "page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"quantity": quantity, "short": shortened}
    shown = {} if dataset is None else _shown(dataset, near_duplicates)
    place = url_of(path) or str(path)
    name = path.resolve().name if dataset is None else dataset.name
    return environment.from_string(template).render(
        name=name, path=place, problems=problems, suspicions=suspicions, opened=dataset is not None, **shown
    )


def _shown(dataset: Dataset, near_duplicates: list[NearDuplicates]) -> dict:
    groups = {
        found.modality: [
            ([_card(dataset, int(item), (found.modality,)) for item in group[:_MEMBERS]], len(group))
            for group in found.groups[:_GROUPS]
        ]
        for found in near_duplicates
    }
    cards = [_card(dataset, item, dataset.modalities) for item in _sample(dataset)]
    return {
        "manifest": dataset.manifest,
        "facts": facts(dataset),
        "coverage": coverage(dataset),
        "patterns": patterns(dataset),
        "num_items": dataset.num_items,
        "charts": charts(dataset),
        "cards": sorted(cards, key=lambda card: -len(card.pictures)),
        "near": [found for found in near_duplicates if found.groups],
        "groups": groups,
        "faults": faults(dataset),
    }


def _sample(dataset: Dataset) -> list[int]:
    """Items drawn by a seed: some of each modality, so that a rare one is seen, the rest from all."""
    generator = np.random.Generator(np.random.Philox(0))
    chosen: dict[int, None] = {}
    for modality in dataset.modalities:
        items = generator.permutation(np.flatnonzero(dataset.present(modality)))
        chosen.update(dict.fromkeys(items[:_CARDS_A_MODALITY].tolist()))
    chosen.update(dict.fromkeys(generator.permutation(dataset.num_items)[:_CARDS].tolist()))
    return list(chosen)[:_CARDS]


def _card(dataset: Dataset, item: int, modalities: tuple[str, ...]) -> Card:
    has = tuple(name for name in dataset.modalities if dataset.present(name)[item])
    text = str(dataset.read("text", item)) if "text" in has and "text" in modalities else ""
    title = dataset.titles[item]
    excerpt = text.removeprefix(title).strip()
    return Card(
        item_id=str(dataset.item_ids[item]),
        title=shortened(title, _EXCERPT),
        excerpt=shortened(excerpt, _EXCERPT),
        pictures=[
            (name, thumbnail(dataset, name, item))
            for name in ("image", "video", "audio")
            if name in has and name in modalities
        ],
        modalities=has,
    )
