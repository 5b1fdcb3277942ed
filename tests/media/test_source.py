"""Of a media root, regular files below it are read; whatever else a table names is refused."""

from __future__ import annotations

import os
import pickle

import pytest

from mmrec.errors import ConfigError, MediaError
from mmrec.media import source
from mmrec.media.source import MediaSource


@pytest.fixture
def root(tmp_path):
    (tmp_path / "secret.txt").write_bytes(b"secret")
    folder = tmp_path / "media"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"abc")
    (folder / "sub" / "b.jpg").write_bytes(b"bcde")
    return folder


@pytest.fixture
def bucket(tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    folder = f"/{tmp_path.name}/media"
    memory.pipe(f"{folder}/a.jpg", b"abc")
    memory.pipe(f"{folder}/sub/b.jpg", b"bcde")
    memory.pipe(f"/{tmp_path.name}/secret.txt", b"secret")
    yield f"memory:/{folder}"
    memory.rm(f"/{tmp_path.name}", recursive=True)


@pytest.mark.parametrize("kind", ["root", "bucket"])
@pytest.mark.parametrize("path", ["sub/b.jpg", "./sub/b.jpg", "sub/../sub/b.jpg", "sub//b.jpg"])
def test_a_file_below_the_root_is_read(kind, path, request):
    media = MediaSource(request.getfixturevalue(kind))
    assert (media.read(path), media.size(path)) == (b"bcde", 4)
    assert pickle.loads(pickle.dumps(media)).read(path) == b"bcde"


@pytest.mark.parametrize("name", ["a picture.jpg", "lampe-grün-灯.jpg", "100%.jpg", "what?#[1].jpg", "..jpg", "..a"])
def test_names_with_spaces_and_other_scripts_are_names(root, name):
    (root / name).write_bytes(b"x")
    assert MediaSource(root).read(name) == b"x"


@pytest.mark.parametrize("kind", ["root", "bucket"])
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("../secret.txt", r"leaves the media root by '\.\.'"),
        ("sub/../../secret.txt", r"by '\.\.'"),
        ("%2e%2e/secret.txt", r"by '\.\.'"),
        ("..", r"by '\.\.'"),
        ("a\0.jpg", "zero byte"),
        ("x" * 5_000, "5,000 characters"),
        ("file:///etc/passwd", "an address"),
        ("https://example.org/a.jpg", "an address"),
        ("simplecache::a.jpg", "no such file"),
        ("sub", "not a regular file"),
        (".", "not a regular file"),
        ("c.jpg", "no such file"),
    ],
)
def test_what_is_no_file_below_the_root_is_refused(kind, path, words, request):
    media = MediaSource(request.getfixturevalue(kind))
    for use in (media.read, media.size):
        with pytest.raises(MediaError, match=words):
            use(path)


def test_a_file_taken_for_a_folder_and_a_name_that_is_too_long_are_refused(root):
    with pytest.raises(MediaError, match="no such file"):
        MediaSource(root).read("a.jpg/b.jpg")
    with pytest.raises(MediaError, match="File name too long"):
        MediaSource(root).read("x" * 300)


def test_an_absolute_path_within_the_root_is_refused_too(root):
    with pytest.raises(MediaError, match="absolute"):
        MediaSource(root).read(str(root / "a.jpg"))


def test_links_are_followed_within_the_root_and_nowhere_else(root):
    (root / "in.jpg").symlink_to("sub/b.jpg")
    (root / "out.jpg").symlink_to("../secret.txt")
    (root / "far").symlink_to(root.parent)
    (root / "loop.jpg").symlink_to("loop.jpg")
    media = MediaSource(root)
    assert media.read("in.jpg") == b"bcde"
    for path in ("out.jpg", "far/secret.txt"):
        with pytest.raises(MediaError, match="leads out of the media root"):
            media.read(path)
    with pytest.raises(MediaError, match="cannot be read"):
        media.read("loop.jpg")


def test_a_root_that_is_a_link_itself_is_a_root(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    assert MediaSource(tmp_path / "link").read("a.jpg") == b"abc"
    assert MediaSource(f"file://{root}").read("a.jpg") == b"abc"


def test_a_folder_whose_name_begins_like_the_root_is_not_the_root(root, tmp_path):
    (tmp_path / "media2").mkdir()
    (tmp_path / "media2" / "x").write_bytes(b"x")
    (root / "x").symlink_to(tmp_path / "media2" / "x")
    with pytest.raises(MediaError, match="leads out"):
        MediaSource(root).read("x")


def test_pipes_and_devices_are_refused_without_blocking(root):
    os.mkfifo(root / "pipe.jpg")
    (root / "zero.jpg").symlink_to("/dev/zero")
    with pytest.raises(MediaError, match="not a regular file"):
        MediaSource(root).read("pipe.jpg")
    with pytest.raises(MediaError, match="leads out"):
        MediaSource(root).read("zero.jpg")
    with pytest.raises(MediaError, match="not a regular file"):
        MediaSource("/dev").read("null")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(root):
    (root / "a.jpg").chmod(0)
    with pytest.raises(MediaError, match="Permission denied"):
        MediaSource(root).read("a.jpg")


@pytest.mark.parametrize("kind", ["root", "bucket"])
def test_a_file_that_is_too_large_is_refused_before_it_is_read(kind, request, monkeypatch):
    monkeypatch.setattr(source, "MAX_FILE_BYTES", 3)
    media = MediaSource(request.getfixturevalue(kind))
    assert media.read("a.jpg") == b"abc"
    for use in (media.read, media.size):
        with pytest.raises(MediaError, match="4 bytes is too large, at most 3"):
            use("sub/b.jpg")


def test_a_root_that_cannot_be_opened_is_an_error_of_the_command(tmp_path):
    with pytest.raises(ConfigError, match="is not a folder"):
        MediaSource(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="nosuch://"):
        MediaSource("nosuch://bucket")
