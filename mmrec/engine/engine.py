"""Answers from an export folder alone.

Legend: I items, U users, Q queries, D vector width.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmrec.engine.audience import MAX_USERS, Audience, audience_of
from mmrec.engine.lists import reranked
from mmrec.engine.questions import History, Query
from mmrec.engine.reasons import Reason, reasons
from mmrec.engine.vectors import Encoders
from mmrec.errors import ConfigError, DataError
from mmrec.export_folder import ExportFolder
from mmrec.index import Hit, Where, search_by_vector, search_by_vectors
from mmrec.reranking import Reranking

__all__ = ["Engine"]


class Engine:
    """Answers from an export folder; of a checkpoint folder, vectors of new items. Safe under threads.

    Args:
        encoders: the models, and the vectors of the items.
    """

    def __init__(self, encoders: Encoders) -> None:
        self.encoders = encoders

    @classmethod
    def open(cls, path: Path | str, *, users_of: Path | str | None = None) -> Engine:
        """Open an export folder or its URL, or a checkpoint or run folder.

        Args:
            users_of: checkpoint or run folder of a newer model, whose user encoder reads histories in place of the
                export's own; it must have been trained to be compatible with the export.

        Raises: DataError if the folder is neither, unfinished or damaged; CheckpointError if a checkpoint is, or is not
            compatible with the export.
        """
        if not _is_checkpoint(path):
            export = ExportFolder.open(path)
            return cls(Encoders(export.path / "model", export, _compatible(users_of, export)))
        if users_of is not None:
            raise ConfigError(f"users_of is for exports, and {path} is a checkpoint; it has users of its own")
        from mmrec.training.checkpoint import find_checkpoint

        return cls(Encoders(find_checkpoint(path), None))

    @property
    def export(self) -> ExportFolder:
        """Raises: ConfigError if a checkpoint was opened, which has no vectors of items."""
        return self.encoders.export

    @property
    def modalities(self) -> tuple[str, ...]:
        """What new items are encoded from."""
        return self.encoders.modalities

    @property
    def reads_times(self) -> bool:
        """Whether histories must carry times."""
        return self.encoders.reads_times

    def encode_items(self, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Unit vectors of new items, float32 (I, D); only the encoders that they need are loaded.

        Args:
            records: raw values by modality, as in :class:`Query`; a missing key is a missing modality.

        Raises: MediaError if a medium cannot be used; ConfigError if the model does not encode a modality.
        """
        return self.encoders.items(records)

    def encode_users(self, histories: Sequence[History]) -> np.ndarray:
        """Unit vectors of users after their last event, float32 (U, D); zero for a user without events.

        Raises: DataError if an item is unknown; ConfigError if the model needs times that are not given.
        """
        return self.encoders.users(histories)

    def encode_queries(self, queries: Sequence[Query]) -> np.ndarray:
        """Vectors of queries, float32 (Q, D); of several parts the direction of the sum of their unit vectors.

        Raises: as :meth:`encode_items` and :meth:`encode_users`; DataError if the parts cancel each other.
        """
        return self.encoders.queries(queries)

    def search(self, query: Query, k: int = 10, *, where: Where | None = None) -> list[Hit]:
        """The ``k`` nearest items, without those that the query names; fewer if fewer are left."""
        return self.search_many([query], k, where=where)[0]

    def search_many(self, queries: Sequence[Query], k: int = 10, *, where: Where | None = None) -> list[list[Hit]]:
        """:meth:`search` of several queries, whose vectors are made in one pass."""
        if not queries:
            return []
        named = [{*query.items, *_named(query.history)} for query in queries]
        return search_by_vectors(self.export, self.encode_queries(queries), k, named, where=where)

    def recommend(
        self,
        history: History,
        k: int = 10,
        *,
        blend: bool = True,
        where: Where | None = None,
        rerank: str | Reranking | None = None,
    ) -> list[Hit]:
        """The ``k`` best items for a user, without those that were taken or are disliked; fewer if fewer are left.

        Args:
            blend: add the exported counts to the scores, where the export has them.
            rerank: another order of the best items, see :class:`mmrec.reranking.Reranking`; scores stay what they are.

        Raises: DataError if nothing was taken; dislikes alone say nothing of what is liked.
        """
        return self.recommend_many([history], k, blend=blend, where=where, rerank=rerank)[0]

    def recommend_many(
        self,
        histories: Sequence[History],
        k: int = 10,
        *,
        blend: bool = True,
        where: Where | None = None,
        rerank: str | Reranking | None = None,
    ) -> list[list[Hit]]:
        """:meth:`recommend` for several users, whose vectors are made in one pass."""
        order = Reranking.parse(rerank) if isinstance(rerank, str) else rerank
        if not histories:
            return []
        users = self.encode_users(histories)
        if not users.any(axis=1).all():
            raise DataError("the user has no events to go on; give a user with events, or a list of items")
        named = [set(_named(history)) for history in histories]
        if order is None and (not blend or self.encoders.blend is None):
            return search_by_vectors(self.export, users, k, named, where=where)
        asks = [
            functools.partial(
                search_by_vector, self.export, user, exclude=those, bonus=self._bonus(history, blend), where=where
            )
            for user, those, history in zip(users, named, histories, strict=True)
        ]
        return [ask(k) if order is None else reranked(self.export, ask, k, order) for ask in asks]

    def explain(
        self, question: History | Query, hits: Sequence[Hit], *, blend: bool = True
    ) -> list[tuple[Reason, ...]]:
        """For each hit of an answer, what its score owes to each part of the question, the most important first."""
        return reasons(self.encoders, question, hits, blend=blend)

    def shares(self, hits: Sequence[Hit]) -> list[dict[str, float]]:
        """What each hit's vector is made of: of fusion's weights those of its modalities, the greatest first; nothing
        where the export does not have them."""
        known = self.export.shares
        if known is None:
            return [{} for _ in hits]
        names, found = self.export.manifest["modalities"], []
        for row, hit in zip(self.export.item_rows([hit.item_id for hit in hits]), hits, strict=True):
            share = {
                name: float(value) for name, value in zip(names, known[row], strict=True) if name in hit.modalities
            }
            found.append(dict(sorted(share.items(), key=lambda one: -one[1])))
        return found

    def audience(self, query: Query, k: int = 10, *, num_nearest: int = 10, max_users: int = MAX_USERS) -> Audience:
        """Whom a new item may please: the share of users in whose first ``k`` it would be, and the nearest users.

        Raises: DataError if the export has no vectors of users.
        """
        vector = self.encode_queries([query])[0]
        return audience_of(self.export, vector, k, num_nearest=num_nearest, max_users=max_users)

    def _bonus(self, history: History, blend: bool) -> tuple[np.ndarray, np.ndarray] | None:
        if not blend or self.encoders.blend is None:
            return None
        return self.encoders.blend.bonus(self.export.item_rows(history.items))


def _compatible(users_of: Path | str | None, export: ExportFolder) -> Path | None:
    if users_of is None:
        return None
    from mmrec.compatibility import check_compatible
    from mmrec.training.checkpoint import find_checkpoint

    folder = find_checkpoint(users_of)
    check_compatible(folder, export)
    return folder


def _is_checkpoint(path: Path | str) -> bool:
    """Or a run; of URLs, only those of exports are known."""
    path = Path(path)
    weights = (path / name / "model.safetensors" for name in (".", "best", "latest"))
    return not (path / "manifest.json").exists() and any(one.is_file() for one in weights)


def _named(history: History | None) -> tuple[str, ...]:
    return () if history is None else (*history.items, *history.disliked)
