"""The README.md of a model that is shared: front matter of the Hugging Face hub, metrics with intervals, use, limits.

It begins with the card that the checkpoint or the export has already, which tells model, data and licence of the data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrec.errors import DataError

__all__ = ["CardSettings", "Evaluation", "read_results", "shared_card"]

# What follows was written by `mmrec push`, and is written anew by the next one.
_ADDED = "<!-- added by mmrec push -->"
_METRICS = ("hr@10", "ndcg@10", "mrr", "recall@50")
_SLICES = {"warm_items": "known items", "cold_items": "new items"}

INTENDED_USE = (
    "Recommending items of this catalogue, or items that are described by the same kinds of media, to people whose "
    "histories look like those of the training data; search by example among them; research."
)
LIMITS = """\
Metrics are of past events in one dataset: what people took then, of what was shown to them then. They do not tell
how people would take to these recommendations. Items and users unlike those of the training data are served worse, and
what was popular then is favoured. Item and user vectors tell preferences, which may be personal data; they are no basis
for decisions about people. Vectors of another training do not compare with these."""


@dataclass(frozen=True, kw_only=True)
class CardSettings:
    """What the author says.

    Attributes:
        licence: of the weights, an identifier of the hub such as "apache-2.0".
        intended_use: what the model is for; empty: what the card says already, or INTENDED_USE.
    """

    licence: str = "unknown"
    intended_use: str = ""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Args: name: of the results folder; record: its metrics.json."""

    name: str
    record: dict[str, Any]


def read_results(folder: Path, model_hash: str) -> Evaluation:
    """The record of `mmrec evaluate` in a results folder.

    Raises: DataError if there is none, or it is of another model.
    """
    try:
        record = json.loads((folder / "metrics.json").read_text())
    except FileNotFoundError as error:
        raise DataError(f"{folder} has no metrics.json; give a results folder of `mmrec evaluate`") from error
    except ValueError as error:
        raise DataError(f"{folder / 'metrics.json'} is damaged ({error}); evaluate again") from error
    of = record.get("model", {}).get("hash")
    if of != model_hash:
        raise DataError(
            f"{folder} is of model {str(of)[:12]}, what is pushed is model {model_hash[:12]}; evaluate this one"
        )
    return Evaluation(name=folder.name, record=record)


def shared_card(
    own_card: str, kind: str, modalities: Sequence[str], results: Sequence[Evaluation], settings: CardSettings
) -> str:
    """Markdown with the front matter of the hub.

    Args:
        own_card: README.md of the checkpoint or export; what an earlier push added to it goes.
        kind: "checkpoint" or "export".
        modalities: that the model encodes.
    """
    body = _without_additions(own_card).rstrip()
    load = "" if "## Load" in body else _load_section(kind)
    return (
        "\n\n".join(
            part
            for part in (
                f"{_front_matter(body, modalities, results, settings)}\n{body}",
                _ADDED,
                load,
                *(_metrics_section(one) for one in results),
                ""
                if results
                else "## Metrics\n\nNone were given; `mmrec push --results` adds those of `mmrec evaluate`.",
                _use_section(body, settings),
                f"## Known limits\n\n{LIMITS}",
            )
            if part
        )
        + "\n"
    )


def _without_additions(card: str) -> str:
    body = card.partition(_ADDED)[0]
    if body.startswith("---\n"):
        body = body[4:].partition("\n---\n")[2].lstrip("\n")
    return body


def _front_matter(body: str, modalities: Sequence[str], results: Sequence[Evaluation], settings: CardSettings) -> str:
    """YAML, of which JSON values are a part."""
    title = next((line.lstrip("# ") for line in body.splitlines() if line.startswith("# ")), "mmrec")
    tags = ["recommendation", "multimodal", "item-embeddings", *(name for name in modalities if name != "item_id")]
    lines = ["---", "library_name: mmrec", f"license: {json.dumps(settings.licence)}", f"tags: {json.dumps(tags)}"]
    if results:
        index = [{"name": title, "results": [_hub_result(one.record) for one in results]}]
        lines.append(f"model-index: {json.dumps(index, ensure_ascii=False)}")
    return "\n".join([*lines, "---", ""])


def _hub_result(record: dict[str, Any]) -> dict[str, Any]:
    name = record["protocol"]["dataset_name"]
    return {
        "task": {"type": "recommendation", "name": "next-item recommendation, full ranking"},
        "dataset": {"type": name, "name": name, "split": record["protocol"]["part"]},
        "metrics": [
            {"type": metric, "name": metric.upper(), "value": round(record["metrics"][metric], 6)}
            for metric in _METRICS
            if metric in record["metrics"]
        ],
    }


def _use_section(body: str, settings: CardSettings) -> str:
    if settings.intended_use:
        return f"## What it is meant for\n\n{settings.intended_use}"
    return "" if "## Intended use" in body else f"## Intended use\n\n{INTENDED_USE}"


def _load_section(kind: str) -> str:
    last = (
        'engine.recommend(mmrec.engine.History(items=["ID", "ID"]), k=10)'
        if kind == "export"
        else "# for users and recommendations: mmrec export FOLDER --data DATASET --out EXPORT"
    )
    return f"""## Load

`mmrec pull SOURCE FOLDER` fetches it and compares every file with its hash; then

```python
import mmrec
engine = mmrec.load("FOLDER")
vectors = engine.encode_items([{{"text": "a red lamp"}}])
{last}
```"""


def _metrics_section(one: Evaluation) -> str:
    record, protocol = one.record, one.record["protocol"]
    level = record["confidence_interval"]["level"]
    named = record["model"].get("name", "")
    split = ", ".join(f"{key} {value}" for key, value in protocol["split"].items() if key != "hash")
    rows = [
        f"| {metric} | {value:.4f} | {_interval(record, metric)} | {_best_baseline(record, metric)} |"
        for metric in _METRICS
        if (value := record["metrics"].get(metric)) is not None
    ]
    return "\n".join(
        [
            f"## Metrics: {named} on the {protocol['part']} part of {protocol['dataset_name']}",
            "",
            f"Full ranking among {protocol['num_candidates']:,} items, {record['num_queries']:,} queries; {split}; "
            f"time of the query {protocol['query_time']}; protocol `{protocol['hash']}`.",
            "",
            f"| metric | value | {level:.0%} interval | best baseline |",
            "|---|---|---|---|",
            *rows,
            *_slice_lines(record),
        ]
    )


def _interval(record: dict[str, Any], metric: str) -> str:
    low, high = record["confidence_interval"][metric]
    return f"{low:.4f} to {high:.4f}"


def _best_baseline(record: dict[str, Any], metric: str) -> str:
    values = {name: found["metrics"].get(metric) for name, found in record["baselines"].items()}
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return ""
    best = max(known, key=lambda name: known[name])
    return f"{known[best]:.4f} ({best})"


def _slice_lines(record: dict[str, Any]) -> list[str]:
    lines = []
    for name, title in _SLICES.items():
        part = record["slices"].get(name)
        if part:
            low, high = part["confidence_interval"]["hr@10"]
            lines.append(
                f"- {title} ({part['num_targets']:,} targets): hr@10 {part['metrics']['hr@10']:.4f} "
                f"({low:.4f} to {high:.4f})"
            )
    return ["", *lines] if lines else []
