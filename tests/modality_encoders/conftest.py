"""Tiny networks on disk, one of each family, for all tests of encoders."""

from __future__ import annotations

import pytest

from tests.modality_encoders.tiny_networks import WRITERS


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Folders of tiny networks, written when they are asked for."""
    root = tmp_path_factory.mktemp("networks")

    def folder(name: str):
        path = root / name
        if not path.exists():
            path.mkdir()
            WRITERS[name](path)
        return path

    return folder
