"""Settings of a build: what may be asked for, and what it comes to, beside a former version or without one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from mmrec.data.interactions import EventFilters
from mmrec.errors import ConfigError
from mmrec.media.normalise import Normalisation

__all__ = ["BuildConfig", "BuildSettings"]


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What every build can be asked for, whatever its tables. None is the default, or what a former version has."""

    out: Path
    """The dataset folder to make, or a URL (s3://bucket/name): built in the cache folder of this machine, then written
    there."""
    min_rating: float | None = None
    """Leave out events with a lower rating."""
    since: str | None = None
    """Leave out events before this moment: a date (UTC) or seconds since 1970."""
    until: str | None = None
    """Leave out events from this moment on."""
    min_user_events: int = 0
    """Leave out users with fewer events, and again until no user and item has fewer (k-core); items stay in the
    catalogue."""
    min_item_events: int = 0
    """Leave out the events of items with fewer, in the same way."""
    seed: int | None = None
    """Seed of the permutation that numbers the items; 0 if not given."""
    image_side_px: int | None = None
    """Pictures with a longer short side are scaled down to it and stored as JPEG; 0 stores all as they are; 512 if not
    given."""
    video_side_px: int | None = None
    """Clips with a longer short side, or with keyframes far apart, are coded anew at it; 0 stores all as they are; 256
    if not given."""
    audio_rate_hz: int | None = None
    """Sound is stored as mono FLAC at this rate; 0, also if not given, stores it as it is."""
    shard_size_mb: int | None = None
    """Largest media shard, in megabytes; files of about so much are one unit of work; 128 if not given."""
    medium_timeout_s: float = 300.0
    """A medium that takes longer to check and to normalise is given up, and stands in errors.parquet."""
    executor: Literal["local", "ray"] = "local"
    """Who does the units: processes of this machine, or the Ray cluster of RAY_ADDRESS (extra `scale`)."""
    num_workers: int | None = None
    """Processes that read, check and normalise media files; all CPUs, of the machine or the cluster, if not given."""
    overwrite: bool = False
    """Replace the dataset folder that exists."""

    def __post_init__(self) -> None:
        for name, least in (("num_workers", 1), ("medium_timeout_s", 1)):
            given = getattr(self, name)
            if given is not None and not given >= least:
                raise ConfigError(f"{name} is {given}; it must be at least {least}")
        BuildSettings(**self.content())  # which judges the rest

    def content(self) -> dict[str, Any]:
        """The settings that were given of those that decide what a dataset holds."""
        given = {known.name: getattr(self, known.name, None) for known in fields(BuildSettings)}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """What decides the content of a dataset, for the manifest; where it says no more, as in :class:`BuildConfig`.

    Attributes:
        text_columns: columns that make up an item's text.
        image_column, audio_column, video_column: columns with paths.
        unknown_items: what becomes of events whose item the item table lacks.
        pipeline: what the pipeline of a public source was told, by name.
    """

    text_columns: tuple[str, ...] = ("text",)
    image_column: str = "image"
    audio_column: str = "audio"
    video_column: str = "video"
    min_rating: float | None = None
    since: str | None = None
    until: str | None = None
    min_user_events: int = 0
    min_item_events: int = 0
    unknown_items: Literal["error", "drop"] = "error"
    seed: int = 0
    image_side_px: int = 512
    video_side_px: int = 256
    audio_rate_hz: int = 0
    shard_size_mb: int = 128
    pipeline: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (
            ("shard_size_mb", 1), ("seed", 0), ("image_side_px", 0), ("video_side_px", 0), ("audio_rate_hz", 0)
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        assert self.filters
        assert self.rules  # either judges its own settings
        used: dict[str, str] = {"item_id": "the id"}
        named = [*((name, "text") for name in self.text_columns), *((c, m) for m, c in self.media_columns.items())]
        for column, what in named:
            if column in used:
                raise ConfigError(
                    f"column {column!r} is to be both {used[column]} and {what}; name another one "
                    "(--text-columns, --image-column, --audio-column, --video-column)"
                )
            used[column] = what

    @classmethod
    def after(cls, given: Mapping[str, Any], former: Mapping[str, Any], path: str) -> BuildSettings:
        """Those of a new version of the dataset in ``path``: what is not given is as it was.

        The columns may have other names and the shards another size, the items are numbered anew, and ``until`` may
        move on. All else has to agree, or the manifest would say of old events what holds for new ones alone. Events
        that a k-core left out are gone, and with them the numbers that the core of all events rests on.

        Args:
            given: as ``BuildConfig.content`` tells it.
            former: ``build`` in the former manifest.

        Raises: ConfigError if what was given differs, or either version is a k-core.
        """
        for name in ("min_user_events", "min_item_events"):
            if max(given.get(name, 0), former[name]) > 1:
                raise ConfigError(
                    f"--{name.replace('_', '-')} counts all events, of which {path} keeps those that were left, and "
                    "appended ones alone would be judged; ingest everything again"
                )
        for name in ("text_columns", "min_rating", "since", "image_side_px", "video_side_px", "audio_rate_hz"):
            if name in given and _plain(given[name]) != former[name]:
                value, was = (" ".join(v) if isinstance(v, list) else v for v in (_plain(given[name]), former[name]))
                raise ConfigError(
                    f"--{name.replace('_', '-')} is {value}, but {path} was made with {was}; leave it out, or ingest "
                    "everything again"
                )
        known = {known.name for known in fields(cls)} - {"pipeline"}
        settings = {name: value for name, value in former.items() if name in known}
        settings["text_columns"] = tuple(settings["text_columns"])
        after = cls(**{**settings, **given})
        last, was = (EventFilters(until=until).moment("until") for until in (given.get("until"), former["until"]))
        if last is not None and (was is None or last < was):
            raise ConfigError(
                f"--until is {after.until}, but {path} was made with {former['until']}; give a later moment, or "
                "ingest everything again"
            )
        return after

    @property
    def media_columns(self) -> dict[str, str]:
        """Modality -> column with paths."""
        return {"image": self.image_column, "audio": self.audio_column, "video": self.video_column}

    @property
    def filters(self) -> EventFilters:
        """Which events count."""
        return EventFilters(
            min_rating=self.min_rating,
            since=self.since,
            until=self.until,
            min_user_events=self.min_user_events,
            min_item_events=self.min_item_events,
        )

    @property
    def rules(self) -> Normalisation:
        """What is done to media."""
        return Normalisation(
            image_side_px=self.image_side_px, video_side_px=self.video_side_px, audio_rate_hz=self.audio_rate_hz
        )

    def told(self) -> dict[str, Any]:
        """For the manifest."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
