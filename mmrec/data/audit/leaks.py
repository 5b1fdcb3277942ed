"""The future in what training reads: attributes that count test events, texts that name users, dates or new items.

The split is the one that training takes by default: the dataset's own, else leave-one-out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import polars as pl
from scipy.stats import rankdata

from mmrec.data.audit.near_duplicates import normalised
from mmrec.data.audit.wording import first_of, named
from mmrec.data.dataset import Dataset
from mmrec.data.manifest import MEDIA_MODALITIES
from mmrec.data.splits import Split, make_split
from mmrec.errors import DataError

__all__ = ["leaks", "partial_rank_correlation"]

# On 13,049 films the number of all ratings reaches .33, the year -.01, any other column at most .02.
FUTURE_CORRELATION = 0.2
# Fewer items say nothing; of few, only a correlation of four standard errors counts.
_LEAST_ITEMS = 100
_LEAST_DATED = 3
_DAY_S = 86_400
# Texts of so many items, drawn by a seed, are read for names and dates.
_MOST_TEXTS = 200_000
# A word is an id only if it can hardly be anything else; a title only if it is a phrase.
_ID = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[\w-]{5,}|[0-9]{8,}")
_WORD = re.compile(r"[\w-]+")
_TITLE_WORDS, _TITLE_LETTERS = 3, 12
_DATE = re.compile(r"\b(?:19|20)\d\d([-/.])(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])\b")


def leaks(dataset: Dataset) -> Iterator[str]:
    """One line for each column or kind of text that knows what training must not, with what to do."""
    try:
        split = make_split(dataset.sequences, dataset.num_items)
    except DataError as error:
        yield f"{error}: nothing can be asked for, and nothing was searched for the future"
        return
    texts = _texts(dataset)
    yield from _future_popularity(dataset, split)
    yield from _users_in_texts(dataset, texts)
    yield from _new_items_in_texts(dataset, texts, split)
    if dataset.sequences.timestamps is not None:
        yield from _late_dates(dataset, texts, dataset.sequences.timestamps)


def partial_rank_correlation(values: np.ndarray, targets: np.ndarray, given: np.ndarray) -> float:
    """Rank correlation of ``values`` with ``targets`` where ``given`` is held fixed; 0 where one is constant."""
    ranks = np.stack([rankdata(column) for column in (values, targets, given)])
    if (ranks.std(axis=1) == 0).any():
        return 0.0
    (_, with_targets, with_given), (_, _, between), _ = np.corrcoef(ranks)
    rest = (1 - with_given**2) * (1 - between**2)
    return float((with_targets - with_given * between) / np.sqrt(rest)) if rest > 1e-9 else 0.0


def _texts(dataset: Dataset) -> dict[int, str]:
    """Texts of items, at most ``_MOST_TEXTS``."""
    items = np.flatnonzero(dataset.present("text"))
    if len(items) > _MOST_TEXTS:
        items = np.sort(np.random.Generator(np.random.Philox(0)).choice(items, size=_MOST_TEXTS, replace=False))
    return {item: str(dataset.read("text", item)) for item in items.tolist()}


def _columns(dataset: Dataset) -> list[str]:
    """The user's own columns of the item table."""
    ours = ("item_idx", "item_id", "media_key", *(f"{modality}." for modality in MEDIA_MODALITIES))
    return [name for name in dataset.attributes.columns if not name.startswith(ours)]


def _future_popularity(dataset: Dataset, split: Split) -> Iterator[str]:
    """Columns whose numbers follow the test events of an item more than its training events explain."""
    test = np.bincount(split.test.targets, minlength=dataset.num_items)
    train = np.bincount(split.train.item_idx, minlength=dataset.num_items)
    for name in _columns(dataset):
        column = dataset.attributes[name]
        if column.dtype == pl.String:  # "4.5 stars, 1,234 reviews": the first and the last number
            digits = column.str.replace_all(r"(\d),(\d{3})", "${1}${2}").str.extract_all(r"\d+(?:\.\d+)?")
            readings = [digits.list.first().cast(pl.Float64), digits.list.last().cast(pl.Float64)]
        elif column.dtype.is_numeric():
            readings = [column.cast(pl.Float64)]
        else:
            continue
        found = 0.0
        for reading in readings:
            values = reading.fill_null(float("nan")).to_numpy()
            known = np.isfinite(values)
            if known.sum() >= max(_LEAST_ITEMS, dataset.num_items // 20):
                correlation = partial_rank_correlation(values[known], test[known], train[known])
                bound = max(FUTURE_CORRELATION, 4 / np.sqrt(known.sum()))
                found = correlation if abs(correlation) > max(bound, abs(found)) else found
        if found:
            trained_on = ", and its text is trained on" if name in dataset.manifest["text_columns"] else ""
            yield (
                f"column {name!r} follows the number of an item's test events (rank correlation {found:.2f} where "
                f"training events are equal{trained_on}): it was counted after the split; leave it out, or count it "
                "from training events alone"
            )


def _users_in_texts(dataset: Dataset, texts: dict[int, str]) -> Iterator[str]:
    users = {user for user in dataset.sequences.user_ids.tolist() if _ID.fullmatch(user)} - set(
        dataset.item_ids.tolist()
    )
    found = {item: word for item, text in texts.items() for word in _WORD.findall(text) if word in users}
    if found:
        item, user = next(iter(found.items()))
        yield (
            f"texts of {len(found):,} items hold a user_id (that of item {str(dataset.item_ids[item])!r}: {user!r}): "
            "who took an item can be read from it; take user ids out of the texts"
        )


def _new_items_in_texts(dataset: Dataset, texts: dict[int, str], split: Split) -> Iterator[str]:
    """Items of the test alone that a trained item's text names, by id or by a title of three words or more."""
    asked = np.zeros(dataset.num_items, dtype=bool)
    asked[split.test.targets] = True
    new = np.flatnonzero(asked & ~split.train_items)
    ids = {str(dataset.item_ids[item]): int(item) for item in new if _ID.fullmatch(str(dataset.item_ids[item]))}
    titles: dict[tuple[str, ...], int] = {}
    has_text = dataset.present("text")
    for item in new[has_text[new]].tolist():
        words = tuple(normalised(dataset.titles[item]).split())
        if len(words) >= _TITLE_WORDS and sum(map(len, words)) >= _TITLE_LETTERS:
            titles[words] = item
    starts: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for words in titles:
        starts.setdefault(words[:_TITLE_WORDS], []).append(words)
    found: dict[int, int] = {}
    for item, text in texts.items():
        if not split.train_items[item]:
            continue
        named_items = [ids[word] for word in _WORD.findall(text) if word in ids]
        words = tuple(normalised(text).split())
        for at in range(len(words) - _TITLE_WORDS + 1):
            for title in starts.get(words[at : at + _TITLE_WORDS], ()):
                if words[at : at + len(title)] == title and normalised(dataset.titles[item]) != " ".join(title):
                    named_items.append(titles[title])
        if named_items:
            found[item] = named_items[0]
    if found:
        pairs = [f"{dataset.item_ids[item]} names {dataset.item_ids[other]}" for item, other in found.items()]
        yield (
            f"texts of {len(found):,} training items name an item that comes up in the test alone ({first_of(pairs)}): "
            "they were written later, and tie an item to one that nobody knew; take the texts as they were at the time"
        )


def _late_dates(dataset: Dataset, texts: dict[int, str], times: np.ndarray) -> Iterator[str]:
    """Dates, in texts and in columns, that lie after an item's first event: what holds them was written later."""
    never = np.iinfo(np.int64).max
    first_event = np.full(dataset.num_items, never)
    np.minimum.at(first_event, dataset.sequences.item_idx, times)
    taken = first_event < never
    sources = {
        "the text": pl.DataFrame(
            {"item": list(texts), "value": list(texts.values())}, schema_overrides={"item": pl.Int64}
        )
    }
    for name in _columns(dataset):
        column = dataset.attributes[name]
        if name not in dataset.manifest["text_columns"] and (
            column.dtype in (pl.String, pl.Date) or isinstance(column.dtype, pl.Datetime)
        ):
            value = column.cast(pl.String).alias("value")
            sources[f"column {name!r}"] = pl.DataFrame(
                [pl.Series("item", range(dataset.num_items)), value]
            ).drop_nulls()
    for what, table in sources.items():
        late: list[str] = []
        example, dated = "", 0
        for item, value in table.iter_rows():
            dates = [match.group().replace("/", "-").replace(".", "-") for match in _DATE.finditer(value)]
            if not dates or not taken[item]:
                continue
            dated += 1
            latest = max(dates)
            if _seconds(latest) > first_event[item] + _DAY_S:
                late.append(str(dataset.item_ids[item]))
                example = (
                    example or f"{latest}, first event {np.datetime64(int(first_event[item]), 's').item():%Y-%m-%d}"
                )
        if len(late) >= _LEAST_DATED:
            yield (
                f"{what} of {named('item', late)} holds a date after the item's first event ({example}; {dated:,} "
                "items have dates): it was written later; take it as it was at the time, or leave it out"
            )


def _seconds(date: str) -> int:
    """Seconds since 1970 of a date of ten letters; a day that no month has counts from the month's first."""
    month = np.datetime64(date[:7], "D")
    return int((month + np.timedelta64(int(date[8:]) - 1, "D")).astype("datetime64[s]").astype(np.int64))
