"""Items like those in the history by what they are: given feature vectors, else words of their texts.

Nothing is learnt from interactions, so items that nobody has seen yet are ranked like all others.

Legend: Q histories, V items of the catalogue, D width of the content vectors.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from mmrec.baselines.histories import SparseMatrix, history_matrix
from mmrec.data.dataset import Dataset
from mmrec.data.sequences import Sequences

__all__ = ["ContentKNN", "centred_features", "content_vectors", "tf_idf"]


@dataclass(frozen=True)
class ContentKNN:
    """Args: content: unit vectors, dense or sparse (V, D), zero where an item has none; decay: weight kept with each
    event of age."""

    content: np.ndarray | SparseMatrix
    decay: float

    def score(self, history: Sequences) -> np.ndarray:
        """Scores of all items for each history, float32. (Q, V)"""
        weights = history_matrix(history, self.content.shape[0], decay=self.decay)
        scores = (weights @ self.content) @ self.content.T
        return scores.toarray() if sp.issparse(scores) else np.asarray(scores)


def content_vectors(dataset: Dataset) -> np.ndarray | SparseMatrix | None:
    """Unit content vectors of all items, (V, D), or None where the items have neither vectors nor texts."""
    sets = [name for name in dataset.modalities if name in dataset.manifest["features"]]
    if sets:
        values = [np.asarray(dataset.features(name), dtype=np.float32) for name in sets]
        return centred_features(values, [dataset.present(name) for name in sets])
    if "text" not in dataset.modalities:
        return None
    texts = dict(dataset.texts(range(dataset.num_items)))  # without damaged ones
    return tf_idf([texts.get(idx) for idx in range(dataset.num_items)])


def centred_features(features: Sequence[np.ndarray], present: Sequence[np.ndarray]) -> np.ndarray:
    """Feature sets side by side, each minus its mean and at unit length, the whole at unit length. float32 (V, D)

    Without the centring all items look alike: most of a CLIP vector is common to all.
    """
    parts = []
    for values, there in zip(features, present, strict=True):
        part = np.zeros(values.shape, dtype=np.float32)
        part[there] = values[there]
        part[there] -= part[there].mean(axis=0)
        parts.append(_unit(part))
    return _unit(np.concatenate(parts, axis=1))


def tf_idf(texts: Sequence[str | None]) -> SparseMatrix:
    """Words (and numbers) of each text, ``(1 + log tf) * log(V / df)``, at unit length. float32 (V, words)

    Words of a single item join nothing and words of more than a fifth of the items say nothing: both are left out.
    """
    counts = [Counter(re.findall(r"\w+", (text or "").lower())) for text in texts]
    documents = Counter(word for words in counts for word in words)
    most = max(2.0, len(texts) / 5)
    columns = {word: n for n, word in enumerate(sorted(w for w, df in documents.items() if 2 <= df <= most))}
    row, col, values = [], [], []
    for item, words in enumerate(counts):
        for word, tf in words.items():
            if word in columns:
                row.append(item)
                col.append(columns[word])
                values.append((1 + np.log(tf)) * np.log(len(texts) / documents[word]))
    matrix: SparseMatrix = sp.csr_matrix(
        (np.array(values, dtype=np.float32), (row, col)), (len(texts), max(len(columns), 1))
    )
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return (sp.diags(scale.astype(np.float32)) @ matrix).tocsr()


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
