"""A study of `mmrec tune` has one read of the test part."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrec.errors import DataError
from mmrec.test_reads import claim_test_read


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for trial in ("trial-0000", "trial-0001"):
        (tmp_path / "study" / trial / "best").mkdir(parents=True)
    (tmp_path / "study" / "study.json").write_text("{}")
    return tmp_path / "study"


def test_a_second_trial_may_not_read_the_test_part(study: Path) -> None:
    claim_test_read(study / "trial-0001")
    claim_test_read(study / "trial-0001" / "best")  # the same run again
    with pytest.raises(DataError, match=r"read for trial-0001 of the study .* --part valid"):
        claim_test_read(study / "trial-0000")


def test_runs_outside_a_study_may_be_evaluated_as_often_as_one_likes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        claim_test_read(tmp_path / name)
    assert not list(tmp_path.rglob("test_read.json"))
