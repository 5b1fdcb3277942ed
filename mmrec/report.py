"""The evaluation record for people: a self-contained `report.html`, and a small table for the terminal."""

from __future__ import annotations

import io
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["baselines_table", "render_report", "summary_rows", "summary_table", "verdict"]

# Blues and greys that are readable on white and on black alike.
_OURS, _THEIRS, _TEXT, _INTERVAL = "#2f81f7", "#a9b4bf", "#7d8590", "#c2571a"


def summary_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The headline: mmrec first, then the baselines from best to worst, then chance.

    Returns:
        rows of "name", "kind" (mmrec, baseline, random), and per metric of hr@10 and ndcg@10: "overall", "cold" and
        "warm" as {"value", "low", "high"} or None where there is nothing to measure.
    """
    model = str(record["model"].get("name") or "mmrec")
    rows = [_summary_row(model, "mmrec", record)]
    baselines = [
        _summary_row(name, "random" if name == "random" else "baseline", measured)
        for name, measured in record["baselines"].items()
    ]
    rows += sorted(baselines, key=lambda row: (row["kind"] == "random", -row["ndcg@10"]["overall"]["value"]))
    return rows


def _summary_row(name: str, kind: str, measured: dict[str, Any]) -> dict[str, Any]:
    parts = {
        "overall": measured,
        "cold": measured["slices"].get("cold_items"),
        "warm": measured["slices"].get("warm_items"),
    }
    row: dict[str, Any] = {"name": name, "kind": kind}
    for metric in ("hr@10", "ndcg@10"):
        row[metric] = {part: _with_interval(values, metric) for part, values in parts.items()}
    return row


def _with_interval(measured: dict[str, Any] | None, metric: str) -> dict[str, Any] | None:
    if measured is None:
        return None
    low, high = measured.get("confidence_interval", {}).get(metric, (None, None))
    return {"value": measured["metrics"][metric], "low": low, "high": high}


def summary_table(record: dict[str, Any]) -> Table:
    """mmrec against the baselines, overall and on new items, for the terminal."""
    from rich import box
    from rich.table import Table

    cold = record["slices"].get("cold_items", {}).get("num_targets", 0)
    title = f"{record['protocol']['dataset_name']}: {record['num_queries']:,} queries, {cold:,} targets are new items"
    caption = "± half the width of the 95 % interval; new items have no training event"
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left", box=box.SIMPLE, padding=0)
    table.add_column("", no_wrap=True)
    for heading in ("   HR@10      ", "   NDCG@10      ", "   new items\nHR@10      ", "   new items\nNDCG@10      "):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in summary_rows(record):
        cells = [_cell(row[metric][part]) for part in ("overall", "cold") for metric in ("hr@10", "ndcg@10")]
        table.add_row(row["name"], *cells, style={"mmrec": "bold", "random": "dim"}.get(row["kind"]))
    return table


def baselines_table(baselines: dict[str, Any]) -> Table:
    """What :func:`mmrec.evaluator.run_baselines` returned, best first, for the terminal."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    table.add_column("")
    for heading in ("HR@10", "NDCG@10", "MRR"):
        table.add_column(heading, justify="right")
    for name, measured in sorted(baselines.items(), key=lambda entry: -entry[1]["metrics"]["ndcg@10"]):
        table.add_row(name, *(f"{measured['metrics'][metric]:.4f}" for metric in ("hr@10", "ndcg@10", "mrr")))
    return table


def _cell(measured: dict[str, Any] | None) -> str:
    if measured is None:
        return "no targets"
    if measured["low"] is None:
        return f"{measured['value']:.4f}" + 6 * " "
    half = (measured["high"] - measured["low"]) / 2
    return f"{measured['value']:.4f} ±{f'{half:.3f}'.removeprefix('0')}"


def render_report(record: dict[str, Any]) -> str:
    """The record as one HTML page without scripts and without anything to load."""
    import jinja2

    template = (resources.files("mmrec") / "report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    rows = summary_rows(record)
    slices = record["slices"]
    return environment.from_string(template).render(
        record=record,
        rows=rows,
        single={name: values for name, values in slices.items() if "metrics" in values},
        grouped={name: values for name, values in slices.items() if "metrics" not in values},
        overall_chart=_bars(rows, "overall"),
        cold_chart=_bars(rows, "cold") if rows[0]["hr@10"]["cold"] else "",
        cutoffs=[1, 5, 10, 20, 50],
        verdict=verdict(record),
        settings={
            name: ", ".join(f"{key} {value:g}" for key, value in measured["settings"].items())
            for name, measured in record["baselines"].items()
            if measured.get("settings")
        },
    )


def verdict(record: dict[str, Any]) -> str:
    """One sentence on the comparison; it begins with a defeat, if there is one."""
    rows = summary_rows(record)
    ours = rows[0]["ndcg@10"]["overall"]
    baselines = [row for row in rows if row["kind"] == "baseline"]
    if not baselines:
        return "No baselines were run."
    best = baselines[0]
    theirs = best["ndcg@10"]["overall"]
    apart = ours["low"] > theirs["high"] or ours["high"] < theirs["low"]
    relation = (
        "above" if ours["value"] > theirs["value"] else "below" if ours["value"] < theirs["value"] else "equal to"
    )
    better = sum(row["ndcg@10"]["overall"]["value"] > ours["value"] for row in baselines)
    defeat = f"Loses to {better} of {len(baselines)} baselines. " if better else ""
    certainty = "the intervals do not overlap" if apart else "the intervals overlap"
    return (
        f"{defeat}NDCG@10 is {ours['value']:.4f}, {relation} the best baseline, {best['name']}, "
        f"at {theirs['value']:.4f}; {certainty}."
    )


def _bars(rows: list[dict[str, Any]], part: str) -> str:
    """NDCG@10 with intervals as inline SVG on a transparent ground."""
    from matplotlib.figure import Figure

    shown = [row for row in reversed(rows) if row["ndcg@10"][part] is not None]
    values = [row["ndcg@10"][part] for row in shown]
    figure = Figure(figsize=(6.2, 0.6 + 0.34 * len(shown)), layout="constrained")
    axes = figure.subplots()
    colours = [_OURS if row["kind"] == "mmrec" else _THEIRS for row in shown]
    axes.barh([row["name"] for row in shown], [value["value"] for value in values], color=colours, height=0.62)
    for place, value in enumerate(values):
        if value["low"] is not None:
            axes.plot([value["low"], value["high"]], [place, place], color=_INTERVAL, linewidth=1.8)
    axes.set_xlabel("NDCG@10", color=_TEXT)
    axes.tick_params(colors=_TEXT, length=0)
    axes.set_xlim(left=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_TEXT)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]
