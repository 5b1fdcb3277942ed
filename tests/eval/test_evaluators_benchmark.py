"""The case on which evaluators are compared, and mmrec's side of it against a full sort."""

from __future__ import annotations

import numpy as np
import pytest

from eval.benchmarks.evaluators import read_case, run_mmrec, write_case


def test_the_metrics_are_those_of_a_full_sort_of_a_case_in_which_no_target_was_seen(tmp_path) -> None:
    write_case(tmp_path, 300, 70)
    users, items, targets, seen = read_case(tmp_path)
    np.testing.assert_allclose(np.linalg.norm(users, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(items, axis=1), 1, rtol=1e-5)
    assert not (seen == targets[:, None]).any()
    assert all(len(set(row)) == len(row) for row in seen.tolist())
    assert len(np.unique(seen)) == 70, "RecBole knows no item without an event"

    scores = users.astype(np.float64) @ items.T
    scores[np.arange(300)[:, None], seen] = -np.inf
    places = np.argsort(np.argsort(-scores, axis=1), axis=1)[np.arange(300), targets]
    hits = places < 10
    found = run_mmrec(tmp_path)["mmrec"]
    assert found["metrics"]["hr@10"] == pytest.approx(hits.mean())
    assert found["metrics"]["ndcg@10"] == pytest.approx((hits / np.log2(places + 2)).mean())
    assert found["metrics"]["mrr@10"] == pytest.approx((hits / (places + 1)).mean())
    assert 0 < found["metrics"]["ndcg@10"] < 1, "neither blind nor perfect"
    assert found["processor_s"] > 0
