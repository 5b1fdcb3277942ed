"""Builds that are killed, crash, or meet the same medium twice: what comes out is what an undisturbed build makes."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmrec.data.build_dataset import unit_ground
from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.data.units import UnitSettings
from mmrec.errors import DataError
from mmrec.media.normalise import Normalisation
from tests.conftest import jpeg_bytes

ROOT = Path(__file__).resolve().parents[2]


def folder_bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def write_source(root: Path, num_items: int, size_px: int) -> IngestConfig:
    """Noisy pictures, so that a megabyte holds few of them; one in seven is that of the item before; one is damaged."""
    (root / "media").mkdir(parents=True)
    noise = np.random.default_rng(0)
    rows = []
    for n in range(num_items):
        path = root / "media" / f"{n}.png"
        if n % 7 == 6:
            path.write_bytes((root / "media" / f"{n - 1}.png").read_bytes())
        else:
            write_png(path, noise.integers(0, 256, (size_px, size_px, 3), dtype=np.uint8))
        rows.append({"item_id": f"i{n}", "text": f"thing {n}", "image": f"media/{n}.png"})
    (root / "media" / "3.png").write_bytes(b"no picture")
    pl.DataFrame(rows).write_csv(root / "items.csv")
    events = [(f"u{n % 5}", f"i{n}", n) for n in range(num_items)]
    pl.DataFrame(events, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(root / "events.csv")
    return IngestConfig(
        items=root / "items.csv", interactions=root / "events.csv", out=root / "out", name="n", shard_size_mb=1
    )


def write_png(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> IngestConfig:
    return write_source(tmp_path_factory.mktemp("source"), 40, 200)  # 120 kB each: eight units


@pytest.fixture(scope="module")
def undisturbed(source: IngestConfig) -> dict[str, bytes]:
    return folder_bytes(ingest(source))


def start(config: IngestConfig, out: Path) -> subprocess.Popen[bytes]:
    tables = ["--items", str(config.items), "--interactions", str(config.interactions), "--name", "n"]
    command = [sys.executable, "-m", "mmrec", "ingest", *tables, "--out", str(out), "--shard-size-mb", "1"]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True)


def units_done(out: Path) -> int:
    ledger = out.with_name(f"{out.name}.build") / "ledger.jsonl"
    return ledger.read_text().count("\n") if ledger.exists() else 0


def test_a_script_without_a_guard_of_its_main_part_can_build(source, undisturbed, tmp_path):
    (tmp_path / "script.py").write_text(
        "from pathlib import Path\n"
        "from mmrec.data.ingest import IngestConfig, ingest\n"
        f"ingest(IngestConfig(items=Path({str(source.items)!r}), interactions=Path({str(source.interactions)!r}), "
        f"out=Path({str(tmp_path / 'out')!r}), name='n', shard_size_mb=1))\n"
    )
    subprocess.run([sys.executable, str(tmp_path / "script.py")], cwd=tmp_path, check=True)
    assert folder_bytes(tmp_path / "out") == undisturbed


def test_the_number_of_workers_changes_no_byte(source, undisturbed, tmp_path):
    assert folder_bytes(ingest(replace(source, out=tmp_path / "out", num_workers=1))) == undisturbed
    assert len([name for name in undisturbed if name.startswith("media/")]) > 3


def test_a_killed_build_goes_on_after_its_last_unit_and_makes_the_same_bytes(source, undisturbed, tmp_path):
    out = tmp_path / "out"
    process = start(source, out)
    while process.poll() is None and units_done(out) < 2:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    ledger = (tmp_path / "out.build" / "ledger.jsonl").read_text().splitlines()
    kept = {shard["name"] for record in map(json.loads, ledger) for shard in record["shards"]}
    ages = {name: (tmp_path / "out.build" / "units" / name).stat().st_mtime_ns for name in kept}
    process = start(source, out)
    while process.poll() is None and units_done(out) <= len(ledger):
        time.sleep(0.002)
    for name, age in ages.items():
        path = tmp_path / "out.build" / "units" / name
        assert not path.exists() or path.stat().st_mtime_ns == age, "a finished unit is not done again"
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    assert folder_bytes(out) == undisturbed
    assert names_in(tmp_path) == ["out"]


class InterruptionError(BaseException):
    """The end of a process, as far as files can tell."""


class Interrupter:
    """Counts the times that files below a folder are touched, from the first one in ``part`` on, and ends one of them.

    Python tells its audit hooks of each before it happens; they cannot be taken out again, so there is one for all.
    """

    def __init__(self) -> None:
        self.folder = self.part = ""
        self.count, self.last, self.counts = 0, -1, False
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple) -> None:
        if not self.folder or event not in ("open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir"):
            return
        if not str(arguments[0]).startswith(self.folder):
            return
        self.counts |= self.part in str(arguments[0])
        self.count += self.counts
        if self.count - 1 == self.last:
            self.folder = ""
            raise InterruptionError(event, *arguments[:2])

    def run(self, config: IngestConfig, part: str, last: int) -> bool:
        """Whether the build ends by itself before the ``last`` touch after the first one in ``part``."""
        self.folder, self.part = str(config.out), part
        self.count, self.last, self.counts = 0, last, False
        try:
            ingest(config)
        except InterruptionError:
            return False
        finally:
            self.folder = ""
        return True


interrupter = Interrupter()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def all_units_done(source, undisturbed, tmp_path_factory) -> Path:
    """The folder of a build that ended when its dataset was about to be put together."""
    out = tmp_path_factory.mktemp("units") / "out"
    assert not interrupter.run(replace(source, out=out), ".build/dataset", 0)
    return out.with_name("out.build")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_build_interrupted_at_any_step_of_its_end_goes_on_and_leaves_nothing_behind(
    source, undisturbed, all_units_done, tmp_path, overwrite
):
    config = replace(source, out=tmp_path / "there" / "out", overwrite=overwrite)
    former = ingest(replace(source, out=tmp_path / "former", seed=1))
    for step in itertools.count():
        shutil.copytree(all_units_done, config.out.with_name("out.build"))
        if overwrite:
            shutil.copytree(former, config.out)
        is_done = interrupter.run(config, ".build/dataset", step)
        if config.out.exists():
            assert folder_bytes(config.out) in (undisturbed, folder_bytes(former))
        if not is_done:
            ingest(config)
        assert folder_bytes(config.out) == undisturbed, step
        assert names_in(config.out.parent) == ["out"], step
        shutil.rmtree(config.out)
        if is_done:
            break
    assert step > 35  # files, folders, renames, removals


def test_a_replacement_that_was_cut_short_gives_the_former_dataset_back_to_another_command(
    source, undisturbed, tmp_path
):
    former = folder_bytes(ingest(replace(source, out=tmp_path / "out", seed=1)))
    config = replace(source, out=tmp_path / "out", overwrite=True)
    for step in itertools.count():
        assert not interrupter.run(config, ".build/dataset", step)
        if not config.out.exists():
            break
    with pytest.raises(DataError, match=r"out exists; give another --out, or --overwrite"):
        ingest(replace(config, overwrite=False))
    assert folder_bytes(config.out) == former
    assert folder_bytes(ingest(config)) == undisturbed
    assert names_in(tmp_path) == ["out"]


@pytest.mark.slow
def test_a_build_killed_at_random_moments_makes_the_same_bytes_and_leaves_nothing_behind(source, undisturbed, tmp_path):
    out, draw, kills = tmp_path / "there" / "out", random.Random(0), {"units": 0, "dataset": 0}
    while min(kills.values()) < 10:
        part = min(kills, key=lambda name: kills[name])
        process = start(source, out)
        while process.poll() is None and not (out.with_name("out.build") / part).exists():
            time.sleep(0.001)
        try:
            process.wait(draw.uniform(0, 1.0 if part == "units" else 0.03))
        except subprocess.TimeoutExpired:
            process.kill()
            kills[part] += 1
        process.wait()
        assert set(names_in(out.parent)) <= {"out", "out.build"}
        if out.exists():
            assert folder_bytes(out) == undisturbed
            if out.with_name("out.build").exists():  # killed in removing it
                ingest(replace(source, out=out))
            assert names_in(out.parent) == ["out"]
            shutil.rmtree(out)
    process = start(source, out)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    assert folder_bytes(out) == undisturbed
    assert names_in(out.parent) == ["out"]


def test_a_folder_of_ones_own_where_the_build_would_go_is_left_alone(source, tmp_path):
    (tmp_path / "out.build").mkdir()
    (tmp_path / "out.build" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"out\.build, where the build would go, holds something else; move it away"):
        ingest(replace(source, out=tmp_path / "out"))
    assert (tmp_path / "out.build" / "notes.txt").read_text() == "mine"
    assert names_in(tmp_path) == ["out.build"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "another"}'])
def test_a_damaged_build_folder_is_one_line(source, tmp_path, content):
    (tmp_path / "out.build").mkdir()
    (tmp_path / "out.build" / "build.json").write_text(content)
    with pytest.raises(DataError, match=r"build\.json is damaged; remove the folder .*out\.build") as caught:
        ingest(replace(source, out=tmp_path / "out"))
    assert "\n" not in str(caught.value)


def test_a_damaged_ledger_is_one_line_and_a_line_that_was_cut_off_is_none(
    source, undisturbed, all_units_done, tmp_path
):
    shutil.copytree(all_units_done, tmp_path / "out.build")
    ledger = tmp_path / "out.build" / "ledger.jsonl"
    lines = ledger.read_text()
    ledger.write_text(f"nonsense\n{lines}")
    with pytest.raises(DataError, match=r"ledger\.jsonl is damaged; remove the folder"):
        ingest(replace(source, out=tmp_path / "out"))
    ledger.write_text(lines[:-10])
    assert folder_bytes(ingest(replace(source, out=tmp_path / "out"))) == undisturbed


def test_a_build_folder_that_is_empty_is_taken(source, undisturbed, tmp_path):
    (tmp_path / "out.build").mkdir()
    assert folder_bytes(ingest(replace(source, out=tmp_path / "out"))) == undisturbed


def ages_of_tars(build: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (build / "units").glob("*.tar")}


def test_units_are_kept_for_whatever_does_not_decide_their_bytes(source, all_units_done, tmp_path):
    shutil.copytree(all_units_done, tmp_path / "out.build", copy_function=shutil.copy2)
    done = ages_of_tars(tmp_path / "out.build")
    assert len(done) == 5
    other = replace(source, out=tmp_path / "out", since="10", name="other")
    assert not interrupter.run(other, ".build/dataset", 0)
    assert ages_of_tars(tmp_path / "out.build") == done
    assert Dataset.open(ingest(other)).manifest["interactions"]["left_out"] == {"before_since": 10}


def test_a_file_that_changes_is_read_again_with_its_unit_alone(tmp_path):
    config = write_source(tmp_path / "source", 40, 200)
    config = replace(config, out=tmp_path / "out")
    assert not interrupter.run(config, ".build/dataset", 0)
    done = ages_of_tars(tmp_path / "out.build")
    (tmp_path / "source" / "media" / "3.png").write_bytes(b"NO PICTURE")
    assert not interrupter.run(config, ".build/dataset", 0)
    now = ages_of_tars(tmp_path / "out.build")
    assert len(done.items() & now.items()) == len(done) - 1 == len(now) - 1


def test_other_rules_timeouts_or_versions_make_other_units():
    settings = UnitSettings(
        root="/", folder=Path("/"), rules=Normalisation(image_side_px=64, video_side_px=64, audio_rate_hz=0),
        shard_bytes=10**6, timeout_s=5.0, versions={"pillow": "13.0"},
    )  # fmt: skip
    others = [
        replace(settings, rules=replace(settings.rules, image_side_px=65)),
        replace(settings, shard_bytes=10**7),
        replace(settings, timeout_s=6.0),
        replace(settings, versions={"pillow": "13.1"}),
    ]
    assert len({unit_ground(each) for each in (settings, *others)}) == 5
    assert unit_ground(replace(settings, folder=Path("/tmp"), num_threads=2, isolated=True)) == unit_ground(settings)


def test_a_build_whose_worker_dies_ends_with_the_same_bytes(source, undisturbed, tmp_path):
    out = tmp_path / "out"
    process = start(source, out)
    killed = False
    while process.poll() is None:
        for pid in descendants(process.pid):
            if not killed and units_done(out) and "forkserver" in command_line(pid) and not descendants(pid):
                os.kill(pid, signal.SIGKILL)
                killed = True
        time.sleep(0.002)
    assert process.returncode == 0, process.communicate()[1].decode()
    assert killed
    assert folder_bytes(out) == undisturbed


def test_a_killed_build_leaves_no_process_behind(source, tmp_path):
    process = start(source, tmp_path / "out")
    while process.poll() is None and not units_done(tmp_path / "out"):
        time.sleep(0.002)
    family = descendants(process.pid)
    assert family
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in family):
        time.sleep(0.05)
    assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]


def test_another_setting_starts_the_build_anew(source, undisturbed, tmp_path):
    out = tmp_path / "out"
    process = start(source, out)
    while process.poll() is None and not units_done(out):
        time.sleep(0.002)
    process.kill()
    process.wait()
    other = ingest(replace(source, out=out, seed=1))
    assert folder_bytes(other) == folder_bytes(ingest(replace(source, out=tmp_path / "plain", seed=1)))


def test_two_builds_of_one_folder_at_once_are_refused(source, tmp_path):
    process = start(source, tmp_path / "out")
    try:
        while process.poll() is None and not units_done(tmp_path / "out"):
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGSTOP)
        with pytest.raises(DataError, match=r"another process is building in .*out\.build; wait for it"):
            ingest(replace(source, out=tmp_path / "out"))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_equal_media_are_stored_once_and_read_by_each_item(source, undisturbed):
    dataset = Dataset.open(source.out)
    first, second = dataset.item_index("i5"), dataset.item_index("i6")
    assert dataset.read("image", first) == dataset.read("image", second)
    places = dataset.attributes.select("image.shard", "image.offset").rows()
    assert places[first] == places[second]
    stored = [place for place in places if place[0] is not None]
    assert len(stored) == 39
    assert len(set(stored)) == 39 - 5


def test_what_is_damaged_is_told_of_each_item_that_has_it(tmp_path):
    (tmp_path / "media").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "media" / f"{name}.jpg").write_bytes(jpeg_bytes(0)[:-300] if name != "c" else jpeg_bytes(1))
    rows = [{"item_id": name, "image": f"media/{name}.jpg"} for name in ("a", "b", "c")]
    pl.DataFrame(rows).write_csv(tmp_path / "items.csv")
    pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1]}).write_csv(tmp_path / "events.csv")
    out = ingest(IngestConfig(items=tmp_path / "items.csv", interactions=tmp_path / "events.csv", out=tmp_path / "out"))
    errors = pl.read_parquet(out / "errors.parquet").filter(pl.col("modality") == "image")
    assert sorted(errors["item_id"]) == ["a", "b"]
    assert sorted(message.split(":")[0] for message in errors["message"]) == ["media/a.jpg", "media/b.jpg"]


def descendants(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            found += [int(path.name), *descendants(int(path.name))]
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
