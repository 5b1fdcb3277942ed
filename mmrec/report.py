"""The evaluation record for people: a self-contained `report.html`, and a small table for the terminal."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from mmrec.data.audit.wording import quantity
from mmrec.report_charts import bars, learning_curves, slice_chart

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["baselines_table", "render_report", "summary_rows", "summary_table", "verdict"]

# Groups of slices and what their values are.
_GROUPS = {
    "history_length": "events in the history",
    "popularity": "training events of the target",
    "popularity_decile": "popularity of the target, in tenths",
    "modalities": "what the target has",
    "time": "when it was asked",
    "category": "category of the target",
}

# Of the bars of modality shares, readable on white and on black.
_MODALITIES = ("#2f81f7", "#c2571a", "#2da44e", "#8250df", "#d4a72c", "#8c959f")

# What the entries of a cost ledger are; those of "training" are its own.
_COSTS = {
    "training_s": "training",
    "encode_items_s": "encoding the catalogue",
    "encode_users_s": "encoding the histories",
    "rank_s": "ranking and lists",
    "baselines_s": "tuning, fitting and ranking the baselines",
    "peak_memory_mb": "greatest memory of this evaluation",
    "peak_device_memory_mb": "greatest memory of its device",
    "device": "this evaluation ran on",
    "threads": "its threads",
    "training.steps_s": "training: its steps",
    "training.data_wait_s": "training: waiting for data",
    "training.validation_s": "training: validation",
    "training.checkpoint_s": "training: writing checkpoints",
    "training.events": "training: events learned from",
    "training.items": "training: items encoded",
    "training.flops": "training: arithmetic of matrix products",
    "training.processes": "training: processes",
    "training.threads": "training: threads of each",
    "training.device": "training ran on",
    "training.peak_memory_mb": "training: greatest memory",
    "training.peak_device_memory_mb": "training: greatest memory of the device",
}


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
    for heading in ("HR@10", "NDCG@10", "MRR", "validation\nNDCG@10", "seconds"):
        table.add_column(heading, justify="right")
    for name, measured in sorted(baselines.items(), key=lambda entry: -entry[1]["metrics"]["ndcg@10"]):
        chosen, cost = measured.get("validation_ndcg@10"), measured.get("cost")
        table.add_row(
            name,
            *(f"{measured['metrics'][metric]:.4f}" for metric in ("hr@10", "ndcg@10", "mrr")),
            "" if chosen is None else f"{chosen:.4f}",
            f"{sum(cost.values()):.1f}" if cost else "",
        )
    return table


def _cell(measured: dict[str, Any] | None) -> str:
    if measured is None:
        return "no targets"
    if measured["low"] is None:
        return f"{measured['value']:.4f}" + 6 * " "
    half = (measured["high"] - measured["low"]) / 2
    return f"{measured['value']:.4f} ±{f'{half:.3f}'.removeprefix('0')}"


def render_report(record: dict[str, Any], examples: dict[str, Any] | None = None) -> str:
    """The record as one HTML page without scripts and without anything to load.

    Args:
        examples: from :func:`mmrec.report_examples.make_examples`, and "curves", lines of the run's metrics.jsonl.
    """
    import jinja2

    template = (resources.files("mmrec") / "report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    rows = summary_rows(record)
    slices = record["slices"]
    examples = examples or {}
    grouped = {name: values for name, values in slices.items() if "metrics" not in values and values}
    return environment.from_string(template).render(
        record=record,
        rows=rows,
        single={name: values for name, values in slices.items() if "metrics" in values},
        grouped=grouped,
        group_labels=_GROUPS,
        slice_charts={name: slice_chart(values, _GROUPS[name]) for name, values in grouped.items() if len(values) > 1},
        overall_chart=bars(rows, "overall"),
        cold_chart=bars(rows, "cold") if rows[0]["hr@10"]["cold"] else "",
        curves=learning_curves(examples.get("curves", [])),
        examples=examples,
        words=protocol_words(record),
        costs=dict(cost_rows(record["cost"])),
        colours=_MODALITIES,
        quantity=quantity,
        cutoffs=[1, 5, 10, 20, 50],
        verdict=verdict(record),
        settings={
            name: ", ".join(
                f"{key} {value:g}" if isinstance(value, int | float) else f"{key} {value}"
                for key, value in measured["settings"].items()
            )
            for name, measured in record["baselines"].items()
            if measured.get("settings")
        },
    )


def cost_rows(cost: dict[str, Any]) -> list[tuple[str, str]]:
    """What the cost ledger says: words, and a value with its unit."""
    flat = {name: cost[name] for name in ("training_s",) if name in cost}  # the sum of the ledger that follows
    flat |= {f"training.{name}": value for name, value in cost.get("training", {}).items() if name != "seconds"}
    flat |= {name: value for name, value in cost.items() if name not in ("training", "training_s")}
    return [(_COSTS.get(name, name.replace("_", " ")), _amount(name, value)) for name, value in flat.items()]


def _amount(name: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return str(value)
    if name.endswith("_s"):
        return f"{quantity(value)} s" if value < 600 else f"{quantity(value / 60)} min"
    if name.endswith("_mb"):
        return f"{quantity(value)} MiB"
    return f"{quantity(value / 1e12)} TFLOP" if name.endswith("flops") else quantity(value)


def protocol_words(record: dict[str, Any]) -> list[str]:
    """The protocol of a record in sentences."""
    protocol = record["protocol"]
    split, later = protocol["split"], record["data"]["training_after_the_question"]
    names = {
        "leave_one_out": "Of each user with three or more events the last one is asked for and the one before it is "
        "for validation.",
        "global_time": "Time is cut at two moments, the same for all users: nothing after the first is learned from, "
        "what lies between them is for validation, what comes after is asked for.",
        "user_folds": "Users are dealt into folds: those of one are asked for their last event, those of the next are "
        "for validation, and nothing of either is learned from.",
        "sessions": "The last session of each user is asked for, event by event, and the one before is for validation.",
        "provided": "The interactions bring their own parts.",
    }
    targets = {
        "successive": "Every such event is asked for with all earlier ones known.",
        "next": "Each user is asked for the first such event alone.",
        "last": "Each user is asked for the last event alone.",
    }
    seen = "Items of the history are" + (" no" if split.get("seen", "filtered") == "filtered" else "") + " candidates"
    among = "the whole catalogue" if split.get("candidates", "all") == "all" else "what anybody had taken by then"
    time = "knows" if protocol["query_time"] == "known" else "does not know"
    return [
        names[split["split"]],
        *([targets[split["targets"]]] if "targets" in split else []),
        f"Ranked is {among}, {protocol['num_candidates']:,} items at most, new ones too. {seen}, but for the target.",
        f"The model was trained on {split['trained_on']} events; it {time} when the next item is asked for.",
        *([] if later is None else [_time_words(later)]),
        "A tie counts half. Settings were chosen on the validation part alone.",
    ]


def _time_words(later: float) -> str:
    if not later:
        return "No training event is later than any question."
    return (
        f"When a question is asked, {100 * later:.2g} % of the training events have yet to come, in the mean: "
        "events of other users, from a time that a live system would not know."
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
        f"{defeat}NDCG@10 is {ours['value']:.4f}, {relation} the best baseline, {best['name'].replace('_', ' ')}, "
        f"at {theirs['value']:.4f}; {certainty}."
    )
