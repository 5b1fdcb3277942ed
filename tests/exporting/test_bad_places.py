"""Disks that are full and folders that cannot be written: one line, and the export goes on when there is room."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmrec.errors import DataError
from tests.exporting.test_exporter import contents

ROOT = Path(__file__).resolve().parents[2]
# Files may have so many bytes; longer ones fail as they do on a full disk, with another number of the error.
SMALL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
from mmrec.errors import DataError
from tests.exporting.exporting_process import main
try:
    main(*sys.argv[1:])
except DataError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


@pytest.mark.parametrize("max_bytes", [10, 600, 2500])
def test_an_export_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    tiny_dataset_path, checkpoint, run_export, tmp_path, max_bytes
):
    """The bound stops it at its plan, at a part, or at what comes after the parts."""
    arguments = [str(tiny_dataset_path), str(checkpoint), str(tmp_path / "out"), "0"]
    full = subprocess.run(
        [sys.executable, "-c", SMALL, str(max_bytes), *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert full.returncode == 2, full.stderr
    assert "cannot be written: " in full.stderr
    assert full.stderr.strip().endswith("run the same command again: it goes on")
    assert len(full.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "manifest.json").exists()
    for out in ("out", "whole"):
        arguments[2] = str(tmp_path / out)
        command = [sys.executable, "-m", "tests.exporting.exporting_process", *arguments]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(run_export, encoder, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="cannot be written: Permission denied"):
        run_export(encoder(), tmp_path / "out")
    tmp_path.chmod(0o700)


def test_a_file_in_the_place_of_the_folder_is_left_alone(run_export, encoder, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(DataError, match="exists and is no export; choose another --out"):
        run_export(encoder(), tmp_path / "out", overwrite=True)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_folder_with_one_named_unfinished_in_it_is_left_alone(run_export, encoder, tmp_path):
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "symphony.txt").write_text("mine")
    with pytest.raises(DataError, match="exists and is no export"):
        run_export(encoder(), tmp_path, overwrite=True)
    assert contents(tmp_path) == {"unfinished/symphony.txt": b"mine"}


def test_a_plan_that_is_damaged_is_named(run_export, encoder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_export(encoder(fail_at=1), tmp_path / "out")
    (tmp_path / "out" / "unfinished" / "plan.json").write_text("{")
    with pytest.raises(DataError, match=r"plan\.json is damaged .* remove .* or choose another --out"):
        run_export(encoder(), tmp_path / "out")


def test_the_note_of_a_part_that_was_not_written_out_costs_that_part(run_export, encoder, tmp_path):
    """As after a power cut: the name is there, the content is not."""
    with pytest.raises(KeyboardInterrupt):
        run_export(encoder(fail_at=2), tmp_path / "out")
    (tmp_path / "out" / "unfinished" / "done" / "part-00001.json").write_bytes(b"")
    second = encoder()
    run_export(second, tmp_path / "out")
    assert sorted(call[0] for call in second.calls) == [7, 14, 21]
    run_export(encoder(), tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
