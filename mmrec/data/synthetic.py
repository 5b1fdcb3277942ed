"""A small world of items that can be seen, read, heard and watched, and of people who have tastes.

``make_world`` writes what a user of mmrec would bring: two tables and a folder of really encoded media. The numbers of
the process (for the defaults: 400 items, 1,500 users, 720 days):

**Items.** Each has four discrete traits, each told by one modality: a theme (8: hue and texture of the image), a topic
(8: words of the text), a sound (6: instrument and pitch of the audio), a motion (6: path of the ball in the video). Two
continuous ones: brightness (image) and energy (tempo of the audio, reach of the motion). The traits hang together: an
item belongs to one of 16 families, and each trait is its family's with probability .35, else uniform. Some files tell
more than one trait: the background of 4 videos in 5 has the theme's colour, half of the descriptions name it, 2 in 5
name the instrument. So one modality tells a part, and some of what is missing can be guessed from what is there.

**Missing.** An item lacks its image with probability .15, audio .17, video .18, all text .15, the description but not
the title .15. One item in 80 has nothing but its id. Five files are damaged: a JPEG cut off, an HTML page named .jpg,
an empty .flac, a text named .mp4, a .wav of silence.

**People.** A user has two favourite topics, a favourite sound and a favourite motion (those of a family with
probability .35 each), leanings in brightness and energy, and a colour that they are at: after each event it moves on to
the next hue with probability .35. The next item is, with probability .06, a companion of the last (each item has three,
at random: no medium tells them); otherwise it is drawn among all items not yet taken from a softmax of

    popularity + 4.8 theme + 4.5 topic + 3.9 sound + 3.3 motion + leanings,

where popularity is normal (standard deviation .8: a long tail), theme is 1 for the colour that the user is at and .4
for the hue after it, topic is 1 for the first favourite, .7 for the second, plus .4 for the topic that follows the last
item's, sound and motion are 1 for the favourite.

**Time.** A history has 5 to 25 events, minutes to weeks apart, no two at one moment. 12 % of the items are *new*: they
appear in the last 4 % of the time, and 20 % of the users, drawn by how much the new items are to their taste, end their
history with one. A new item is only ever somebody's last event, so leave-one-out never trains on it.

Ids are random; file names are the ids; rows are in random order (items) or in time (interactions). Nothing but the
content and the histories tells a trait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from mmrec.data.synthetic_media import (
    COLOURS,
    MOTIONS,
    SOUNDS,
    TOPICS,
    render_audio,
    render_description,
    render_image,
    render_silence,
    render_title,
    render_video,
)
from mmrec.errors import ConfigError, DataError

__all__ = ["World", "draw_world", "make_world"]

DAY_S = 86_400
SPAN_S = 720 * DAY_S
START = 1_600_000_000  # September 2020
NEW_PERIOD = 0.96  # new items appear after this share of the span

NUM_VALUES = {"theme": len(COLOURS), "topic": len(TOPICS), "sound": len(SOUNDS), "motion": len(MOTIONS)}
WEIGHTS = {"theme": 4.8, "topic": 4.5, "sound": 3.9, "motion": 3.3}
NUM_FAMILIES = 16
FROM_FAMILY = 0.35
NUM_COMPANIONS = 3
COMPANION_RATE = 0.06
COLOUR_MOVES = 0.35
NEW_ITEMS = 0.12
NEW_USERS = 0.20
MISSING = {"image": 0.15, "audio": 0.17, "video": 0.18, "text": 0.15, "description": 0.15}
MIN_EVENTS, MAX_EVENTS = 5, 25


@dataclass(frozen=True, kw_only=True)
class World:
    """The hidden truth: what the files are rendered from. V items, U users.

    Attributes:
        traits: value of each discrete trait. name -> (V,)
        brightness, energy: (V,)
        is_new: True for items that appear at the end. (V,)
        histories: rows of the items taken, in time, one array a user.
        timestamps: seconds since 1970, strictly increasing, one array a user.
        last_utility: how much each user wanted each item at the last event: the score that no recommender beats. (U, V)
    """

    traits: dict[str, np.ndarray]
    brightness: np.ndarray
    energy: np.ndarray
    is_new: np.ndarray
    histories: list[np.ndarray]
    timestamps: list[np.ndarray]
    last_utility: np.ndarray


def make_world(
    out: Path,
    *,
    seed: int = 0,
    num_items: int = 400,
    num_users: int = 1500,
    progress: Callable[[int], None] | None = None,
) -> World:
    """Write ``items.csv``, ``interactions.csv`` and ``media/`` under ``out``; the same seed gives the same bytes.

    items.csv: item_id, title, description, image, audio, video (paths from ``out``, empty = missing), category, price.
    interactions.csv: user_id, item_id, timestamp (seconds).

    Args:
        progress: called with 1 after the files of each item.

    Returns: the truth behind the files, in the order of items.csv; nothing of it is written.
    Raises: DataError if ``out`` exists and is not empty; ConfigError if the world would be too small.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists and is not an empty folder; give another")
    world = draw_world(seed, num_items, num_users)
    names, media, people = (np.random.Generator(np.random.Philox([seed, stream])) for stream in (2, 3, 4))
    item_ids = _random_ids(num_items, 6, names)
    user_ids = _random_ids(num_users, 7, people)
    out.mkdir(parents=True, exist_ok=True)
    table = _write_items(out, world, item_ids, media, progress)
    _damage_five(out, table, media)
    table.write_csv(out / "items.csv")
    _interactions(world, item_ids, user_ids).write_csv(out / "interactions.csv")
    return world


def draw_world(seed: int, num_items: int, num_users: int) -> World:
    """The hidden truth alone, without files.

    Raises: ConfigError if there are fewer than 40 items (histories have up to 25 different ones) or 10 users.
    """
    for what, given, least in (("num_items", num_items, 40), ("num_users", num_users, 10), ("seed", seed, 0)):
        if given < least:
            raise ConfigError(f"{what} is {given}; it must be at least {least}")
    generator = np.random.Generator(np.random.Philox([seed, 0]))
    families = {name: generator.integers(0, n, NUM_FAMILIES) for name, n in NUM_VALUES.items()}
    traits = _traits(families, num_items, generator)
    is_new = np.zeros(num_items, dtype=bool)
    is_new[generator.permutation(num_items)[: round(NEW_ITEMS * num_items)]] = True
    world = World(
        traits=traits,
        brightness=generator.uniform(-1, 1, num_items),
        energy=generator.uniform(-1, 1, num_items),
        is_new=is_new,
        histories=[],
        timestamps=[],
        last_utility=np.empty((num_users, num_items)),
    )
    generator = np.random.Generator(np.random.Philox([seed, 1]))
    _live(world, _Tastes.draw(families, traits, num_users, generator), generator)
    return world


def _traits(families: dict[str, np.ndarray], number: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Values for ``number`` items or users: their family's with probability ``FROM_FAMILY``, else uniform."""
    family = generator.integers(0, NUM_FAMILIES, number)
    return {
        name: np.where(
            generator.random(number) < FROM_FAMILY, values[family], generator.integers(0, NUM_VALUES[name], number)
        )
        for name, values in families.items()
    }


@dataclass(frozen=True, kw_only=True)
class _Tastes:
    """What users like, and what leads from item to item. F companions of an item.

    Attributes:
        likes: favourite value of each trait (of the theme: where the user starts). name -> (U,)
        second_topic: (U,)
        leanings: towards brightness and energy. (U, 2)
        popularity: (V,)
        companions: (V, F)
        next_topic: which topic follows which. (8,)
    """

    likes: dict[str, np.ndarray]
    second_topic: np.ndarray
    leanings: np.ndarray
    popularity: np.ndarray
    companions: np.ndarray
    next_topic: np.ndarray

    @classmethod
    def draw(
        cls,
        families: dict[str, np.ndarray],
        traits: dict[str, np.ndarray],
        num_users: int,
        generator: np.random.Generator,
    ) -> _Tastes:
        num_items = len(traits["theme"])
        return cls(
            likes=_traits(families, num_users, generator),
            second_topic=generator.integers(0, NUM_VALUES["topic"], num_users),
            leanings=generator.normal(0, 0.4, (num_users, 2)),
            popularity=generator.normal(0, 0.8, num_items),
            companions=generator.integers(0, num_items, (num_items, NUM_COMPANIONS)),
            next_topic=np.roll(generator.permutation(NUM_VALUES["topic"]), 1),
        )

    def utility(self, world: World, user: int, colour: int, last: int | None) -> np.ndarray:
        """How much ``user``, at ``colour``, after the item ``last``, wants each item. (V,)"""
        traits = world.traits
        hues = NUM_VALUES["theme"]
        theme = (traits["theme"] == colour) + 0.4 * (traits["theme"] == (colour + 1) % hues)
        topic = (traits["topic"] == self.likes["topic"][user]) + 0.7 * (traits["topic"] == self.second_topic[user])
        if last is not None:
            topic = topic + 0.4 * (traits["topic"] == self.next_topic[traits["topic"][last]])
        return (
            self.popularity
            + WEIGHTS["theme"] * theme
            + WEIGHTS["topic"] * topic
            + WEIGHTS["sound"] * (traits["sound"] == self.likes["sound"][user])
            + WEIGHTS["motion"] * (traits["motion"] == self.likes["motion"][user])
            + self.leanings[user, 0] * world.brightness
            + self.leanings[user, 1] * world.energy
        )


def _live(world: World, tastes: _Tastes, generator: np.random.Generator) -> None:
    """Append every user's history and times to ``world``."""
    num_users = len(tastes.second_topic)
    lengths = np.clip(MIN_EVENTS + generator.geometric(0.14, num_users) - 1, MIN_EVENTS, MAX_EVENTS)
    for user in range(num_users):
        taken: list[int] = []
        colour = int(tastes.likes["theme"][user])
        for _ in range(lengths[user]):
            utility = tastes.utility(world, user, colour, taken[-1] if taken else None)
            closed = world.is_new.copy()
            closed[taken] = True
            taken.append(_choose(utility, closed, tastes.companions[taken[-1]] if taken else None, generator))
            colour = (colour + (generator.random() < COLOUR_MOVES)) % NUM_VALUES["theme"]
        world.histories.append(np.array(taken))
        world.last_utility[user] = utility
    tries_new = _add_new_items(world, generator)
    for user in range(num_users):
        world.timestamps.append(_times(lengths[user], bool(tries_new[user]), generator))


def _choose(
    utility: np.ndarray, closed: np.ndarray, companions: np.ndarray | None, generator: np.random.Generator
) -> int:
    """Row of an item that is not ``closed``: a companion of the last one, or by utility."""
    if companions is not None and generator.random() < COMPANION_RATE:
        open_companions = companions[~closed[companions]]
        if len(open_companions):
            return int(generator.choice(open_companions))
    return int(generator.choice(len(utility), p=_softmax(np.where(closed, -np.inf, utility))))


def _softmax(utility: np.ndarray) -> np.ndarray:
    weights = np.exp(utility - utility.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _add_new_items(world: World, generator: np.random.Generator) -> np.ndarray:
    """Put a new item in the place of some users' last event; True for those users. (U,)"""
    ends = world.last_utility
    new = np.flatnonzero(world.is_new)
    share = _softmax(ends)[:, new].sum(axis=1)
    number = round(NEW_USERS * len(ends))
    chosen = generator.choice(len(ends), size=number, replace=False, p=share / share.sum())
    for user in chosen:
        world.histories[user][-1] = generator.choice(new, p=_softmax(ends[user, new]))
    tries_new = np.zeros(len(ends), dtype=bool)
    tries_new[chosen] = True
    return tries_new


def _times(length: int, tries_new: bool, generator: np.random.Generator) -> np.ndarray:
    """Strictly increasing seconds: visits weeks apart, events of a visit minutes apart. (length,)"""
    end = START + SPAN_S * generator.uniform(NEW_PERIOD if tries_new else 0.4, 1.0)
    same_visit = generator.random(length - 1) < 0.5
    gaps = np.where(same_visit, generator.exponential(600, length - 1), generator.exponential(9 * DAY_S, length - 1))
    gaps = 20 + gaps.astype(np.int64)
    return int(end) - np.concatenate([np.cumsum(gaps[::-1])[::-1], [0]])


def _random_ids(number: int, length: int, generator: np.random.Generator) -> list[str]:
    """Different random ids of capital letters and digits."""
    letters = np.array(list("ABCDEFGHJKLMNPQRSTUVWXYZ23456789"))
    ids: dict[str, None] = {}
    while len(ids) < number:
        ids["".join(generator.choice(letters, length))] = None
    return list(ids)


def _write_items(
    out: Path,
    world: World,
    item_ids: list[str],
    generator: np.random.Generator,
    progress: Callable[[int], None] | None,
) -> pl.DataFrame:
    """Render and write the media; the item table. What an item lacks is an empty cell."""
    for name in ("images", "audio", "video"):
        (out / "media" / name).mkdir(parents=True, exist_ok=True)
    number = len(item_ids)
    lacks = {name: generator.random(number) < rate for name, rate in MISSING.items()}
    bare = generator.permutation(number)[: number // 80]
    for name in ("image", "audio", "video", "text"):
        lacks[name][bare] = True
    rows = []
    for n, item_id in enumerate(item_ids):
        theme, topic, sound, motion = (int(world.traits[name][n]) for name in NUM_VALUES)
        brightness, energy = float(world.brightness[n]), float(world.energy[n])
        row: dict[str, str | float | None] = {"item_id": item_id}
        title, description = render_title(topic, generator), render_description(topic, theme, sound, generator)
        row["title"] = None if lacks["text"][n] else title
        row["description"] = None if lacks["text"][n] or lacks["description"][n] else description
        kind = "FLAC" if generator.random() < 0.6 else "WAV"
        background = theme if generator.random() < 0.8 else None
        paths = {
            "image": f"media/images/{item_id}.jpg",
            "audio": f"media/audio/{item_id}.{kind.lower()}",
            "video": f"media/video/{item_id}.mp4",
        }
        for modality, path in paths.items():
            row[modality] = None if lacks[modality][n] else path
        if row["image"]:
            (out / paths["image"]).write_bytes(render_image(theme, brightness, generator))
        if row["audio"]:
            (out / paths["audio"]).write_bytes(render_audio(sound, energy, kind, generator))
        if row["video"]:
            (out / paths["video"]).write_bytes(render_video(motion, energy, background, generator))
        row["category"] = str(generator.choice(["home", "outdoors", "culture"]))
        row["price"] = round(float(generator.lognormal(3, 0.6)), 2)
        rows.append(row)
        if progress:
            progress(1)
    return pl.DataFrame(rows, infer_schema_length=None)


def _damage_five(out: Path, table: pl.DataFrame, generator: np.random.Generator) -> None:
    """Damage five files of five different items in five ways."""
    silence = render_silence()
    damage = (
        ("image", ".jpg", lambda data: data[: len(data) // 2]),
        ("image", ".jpg", lambda _: b"<!DOCTYPE html><html><body><h1>404 Not Found</h1></body></html>\n"),
        ("audio", ".flac", lambda _: b""),
        ("video", ".mp4", lambda _: b"The clip will follow by post.\n"),
        ("audio", ".wav", lambda _: silence),
    )
    damaged: set[str] = set()
    for modality, ext, change in damage:
        have = table.filter(pl.col(modality).str.ends_with(ext).fill_null(False) & ~pl.col("item_id").is_in(damaged))
        row = have.row(int(generator.integers(have.height)), named=True)
        damaged.add(row["item_id"])
        path = out / row[modality]
        path.write_bytes(change(path.read_bytes()))


def _interactions(world: World, item_ids: list[str], user_ids: list[str]) -> pl.DataFrame:
    """All events in time, as a log has them."""
    lengths = [len(history) for history in world.histories]
    return pl.DataFrame(
        {
            "user_id": np.repeat(np.array(user_ids), lengths),
            "item_id": np.array(item_ids)[np.concatenate(world.histories)],
            "timestamp": np.concatenate(world.timestamps),
        }
    ).sort("timestamp", "user_id")
