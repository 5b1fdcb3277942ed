"""The dataset folder as it is read."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xxhash

from mmrec.errors import DataError


def test_modalities_are_those_that_at_least_one_item_has(tiny_dataset):
    assert tiny_dataset.modalities == ("image", "text", "audio", "video", "vec")


def test_presence_follows_the_tables_and_excludes_the_broken_picture(tiny_dataset):
    numbers = np.array([int(item_id[1:]) for item_id in tiny_dataset.item_ids])
    exists = numbers != 23
    expected = {
        "image": (numbers % 5 != 4) & (numbers != 2) & exists,
        "text": exists,
        "audio": (numbers % 3 == 0) & exists,
        "video": (numbers % 6 == 1) & exists,
        "vec": (numbers % 7 != 6) & exists,
    }
    for modality, present in expected.items():
        np.testing.assert_array_equal(tiny_dataset.present(modality), present, err_msg=modality)


def test_media_come_back_byte_for_byte(tiny_dataset, tiny_source):
    for modality, ext in (("image", "jpg"), ("audio", "wav"), ("video", "mp4")):
        for idx in np.flatnonzero(tiny_dataset.present(modality)):
            original = tiny_source / "media" / f"{tiny_dataset.item_ids[idx][1:]}.{ext}"
            assert tiny_dataset.read(modality, idx) == original.read_bytes()


def test_text_joins_the_text_columns_line_by_line(tiny_dataset):
    assert tiny_dataset.read("text", tiny_dataset.item_index("i04")) == "red thing 4"
    both = "green thing 5\nA green thing that hums at 320 hertz."
    assert tiny_dataset.read("text", tiny_dataset.item_index("i05")) == both


def test_vectors_belong_to_their_items_after_the_permutation(tiny_dataset, tiny_source):
    original = np.load(tiny_source / "vec.npy")
    assert tiny_dataset.feature_dim("vec") == 8
    for idx in np.flatnonzero(tiny_dataset.present("vec")):
        np.testing.assert_array_equal(tiny_dataset.read("vec", idx), original[int(tiny_dataset.item_ids[idx][1:])])


def test_item_numbers_are_not_the_order_of_the_file(tiny_dataset):
    assert sorted(tiny_dataset.item_ids) != list(tiny_dataset.item_ids)


def test_reading_what_an_item_lacks_is_an_error(tiny_dataset):
    lonely = tiny_dataset.item_index("i23")
    for modality in tiny_dataset.modalities:
        with pytest.raises(DataError, match=f"'i23' has no {modality}"):
            tiny_dataset.read(modality, lonely)


def test_an_unknown_item_or_modality_names_the_nearest(tiny_dataset):
    with pytest.raises(DataError, match="unknown item_id 'i230'; perhaps you meant 'i23'"):
        tiny_dataset.item_index("i230")
    with pytest.raises(DataError, match="unknown modality 'vecs'; perhaps you meant 'vec'"):
        tiny_dataset.present("vecs")


def test_histories_are_in_order_of_time(tiny_dataset):
    sequences = tiny_dataset.sequences
    assert (len(sequences), sequences.order) == (30, "timestamp")
    assert list(sequences.user_ids) == [f"u{n:02d}" for n in range(30)]
    assert sequences.lengths[29] == 1
    for user in range(30):
        times = sequences.timestamps[sequences.offsets[user] : sequences.offsets[user + 1]]
        assert (np.diff(times) > 0).all()


def test_a_dataset_pickles_and_is_read_from_many_threads(tiny_dataset):
    copy = pickle.loads(pickle.dumps(tiny_dataset))
    assert copy.fingerprint == tiny_dataset.fingerprint
    wanted = [(m, i) for m in ("image", "audio", "video") for i in np.flatnonzero(copy.present(m))] * 20
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda pair: copy.read(*pair), wanted))
    assert read == [tiny_dataset.read(*pair) for pair in wanted]


def test_titles_fall_back_to_the_id(tiny_dataset):
    assert tiny_dataset.titles[tiny_dataset.item_index("i00")] == "red thing 0"
    assert tiny_dataset.titles[tiny_dataset.item_index("i23")] == "i23"


def test_the_source_hash_tells_items_apart(tiny_dataset):
    assert len({tiny_dataset.source_hash(idx) for idx in range(24)}) == 24


def test_source_hashes_are_of_all_that_an_item_consists_of(tiny_dataset):
    items = np.array([23, 0, 7, 7, 2])
    expected = []
    for item in items:
        digest = xxhash.xxh3_128()
        for name in ("image", "text", "audio", "video"):
            if tiny_dataset.present(name)[item]:
                digest.update(f"{name}:{tiny_dataset.media_hashes(name)[item]:016x};".encode())
        if tiny_dataset.present("vec")[item]:
            digest.update(b"vec:" + tiny_dataset.features("vec")[item].tobytes())
        expected.append(digest.hexdigest())
    assert tiny_dataset.source_hashes(items) == expected


def test_vectors_are_there_again_after_their_memory_was_given_back(tiny_dataset):
    before = np.array(tiny_dataset.features("vec"))
    tiny_dataset.let_go()
    assert np.array_equal(tiny_dataset.features("vec"), before)
