"""The synthetic world keeps its promises: same bytes, real files, new items only last, content that tells."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmrec.data.synthetic import World, draw_world, make_world
from mmrec.data.synthetic_media import TOPICS
from mmrec.errors import ConfigError, DataError, MediaError
from mmrec.media.audio import decode_audio
from mmrec.media.image import decode_image
from mmrec.media.probe import probe
from mmrec.media.video import decode_video

NUM_ITEMS, NUM_USERS = 160, 120


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World]:
    path = tmp_path_factory.mktemp("synthetic") / "world"
    return path, make_world(path, seed=3, num_items=NUM_ITEMS, num_users=NUM_USERS)


@pytest.fixture(scope="module")
def items(made: tuple[Path, World]) -> pl.DataFrame:
    return pl.read_csv(made[0] / "items.csv")


@pytest.fixture(scope="module")
def readable(made: tuple[Path, World], items: pl.DataFrame) -> dict[str, dict[int, bytes]]:
    """Modality -> row of the item -> bytes, for the files that are what they claim to be."""
    found: dict[str, dict[int, bytes]] = {}
    for modality in ("image", "audio", "video"):
        found[modality] = {}
        for row, name in enumerate(items[modality]):
            if name is not None:
                data = (made[0] / name).read_bytes()
                try:
                    probe(modality, data)
                except MediaError:
                    continue
                found[modality][row] = data
    return found


def test_one_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path):
    contents = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        make_world(tmp_path / name, seed=seed, num_items=60, num_users=20)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert contents[0] == contents[1]
    assert contents[0]["interactions.csv"] != contents[2]["interactions.csv"]


def test_all_files_but_the_five_broken_ones_can_be_used(items: pl.DataFrame, readable: dict[str, dict[int, bytes]]):
    broken = {name: items[name].count() - len(readable[name]) for name in readable}
    assert broken == {"image": 2, "audio": 2, "video": 1}


def test_each_modality_lacks_on_some_items_and_a_few_have_nothing(items: pl.DataFrame):
    for name in ("image", "audio", "video", "title"):
        assert 0.08 < items[name].null_count() / NUM_ITEMS < 0.35
    bare = items.filter(pl.all_horizontal(pl.col("image", "audio", "video", "title", "description").is_null()))
    assert 1 <= bare.height <= 6


def test_new_items_come_last_or_not_at_all(made: tuple[Path, World], items: pl.DataFrame):
    path, world = made
    events = pl.read_csv(path / "interactions.csv")
    new = set(items["item_id"].to_numpy()[world.is_new])
    assert len(new) == round(0.12 * NUM_ITEMS)
    last_is_new = 0
    for _, history in events.sort("timestamp").group_by("user_id"):
        *before, last = history["item_id"].to_list()
        assert 5 <= len(before) + 1 <= 25
        assert not new & set(before)
        assert len({*before, last}) == len(before) + 1
        assert history["timestamp"].diff().drop_nulls().min() > 0
        last_is_new += last in new
    assert last_is_new == round(0.2 * NUM_USERS)


def test_ids_and_order_tell_nothing_of_the_traits(made: tuple[Path, World], items: pl.DataFrame):
    rows = np.arange(NUM_ITEMS)
    by_id = np.argsort(np.argsort(items["item_id"].to_numpy()))
    for trait in (*made[1].traits.values(), made[1].is_new):
        for order in (rows, by_id):
            assert abs(np.corrcoef(order, trait)[0, 1]) < 0.25


def test_one_who_knows_the_traits_finds_half_of_the_last_events_in_the_first_ten():
    world = draw_world(0, 400, 1500)
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for utility, history in zip(world.last_utility, world.histories, strict=True):
        scores = utility.copy()
        scores[history[:-1]] = -np.inf
        hits[bool(world.is_new[history[-1]])].append(bool((scores > scores[history[-1]]).sum() < 10))
    assert np.mean(hits[False]) > 0.5
    assert np.mean(hits[True]) > 0.5


def test_pictures_tell_the_theme(made: tuple[Path, World], readable: dict[str, dict[int, bytes]]):
    features = {row: decode_image(data).mean((0, 1)) for row, data in readable["image"].items()}
    assert _nearest_neighbour_accuracy(features, made[1].traits["theme"], normalise=True) > 0.9


def test_words_tell_the_topic(made: tuple[Path, World], items: pl.DataFrame):
    right = []
    for row, (title, description) in enumerate(items.select("title", "description").iter_rows()):
        if title is not None:
            words = f"{title} {description or ''}".lower().replace(".", " ").replace(",", " ").split()
            counts = Counter(
                {topic: sum(word in nouns for word in words) for topic, nouns in enumerate(TOPICS.values())}
            )
            right.append(counts.most_common(1)[0][0] == made[1].traits["topic"][row])
    assert np.mean(right) == 1.0


def test_sounds_tell_the_instrument(made: tuple[Path, World], readable: dict[str, dict[int, bytes]]):
    features = {}
    for row, data in readable["audio"].items():
        power = np.abs(np.fft.rfft(decode_audio(data, 16_000, 1.5))) ** 2
        bands = np.add.reduceat(power, np.geomspace(100, len(power) - 1, 24).astype(int))
        features[row] = np.log(bands)
    assert _nearest_neighbour_accuracy(features, made[1].traits["sound"], normalise=False) > 0.9


def test_clips_tell_the_motion(made: tuple[Path, World], readable: dict[str, dict[int, bytes]]):
    features = {}
    for row, data in readable["video"].items():
        frames, _ = decode_video(data, 4)
        bright = frames.min(-1) > 200  # the ball; (F, H, W)
        y, x = np.mgrid[:64, :64]
        area = np.maximum(bright.sum((1, 2)), 1)
        centres = np.stack([(bright * x).sum((1, 2)) / area, (bright * y).sum((1, 2)) / area, np.sqrt(area)])
        features[row] = centres.ravel()
    assert _nearest_neighbour_accuracy(features, made[1].traits["motion"], normalise=False) > 0.9


def test_a_folder_with_files_in_it_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not an empty folder"):
        make_world(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_world_too_small_for_its_histories_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="num_items is 10; it must be at least 40"):
        make_world(tmp_path / "world", num_items=10)
    assert not (tmp_path / "world").exists()


def _nearest_neighbour_accuracy(features: dict[int, np.ndarray], labels: np.ndarray, *, normalise: bool) -> float:
    """Share of items whose nearest other item has the same label."""
    rows = np.array(list(features))
    matrix = np.stack(list(features.values()))
    if normalise:
        matrix = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    distances = ((matrix[:, None] - matrix[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    return float((labels[rows] == labels[rows[distances.argmin(1)]]).mean())
