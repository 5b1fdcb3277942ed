"""Which modality made an item's vector.

Legend: I items, M modalities, T tokens of all modalities side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mmrec.batch import ItemBatch
from mmrec.inference import CHUNK_ITEMS, vectors_of_view
from mmrec.item_inputs import CatalogInputs
from mmrec.model import Recommender

__all__ = ["Explanation", "explain", "explain_items"]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Two answers: what the fusion looks at, and what would be without.

    Attributes:
        modalities: names of the columns.
        present: what each item has. bool (I, M)
        share: of the fusion's weights (see ``weights``) those of each modality; a row sums to 1, or to 0 for items that
            have nothing. (I, M)
        left_out: 1 - cosine between the item's vector and the one that it would have without the modality, 0 to 2; 0
            for modalities that it lacks. Without the only one it has it would have the vector of an item that has
            nothing. (I, M)
        weights: for each item, of its tokens, such as the frames of a clip: the mean attention of the fusion's queries;
            of fusions without attention the factors of their sum or mean. float (t,)
        token_modality: for each of ``weights``, the column of ``modalities``. int (t,)
    """

    modalities: tuple[str, ...]
    present: np.ndarray
    share: np.ndarray
    left_out: np.ndarray
    weights: list[np.ndarray]
    token_modality: list[np.ndarray]


@torch.inference_mode()
def explain(model: Recommender, items: ItemBatch) -> Explanation:
    """Weights of the fusion, and what leaving out one modality at a time does to each item's vector.

    Args:
        items: of a dataset, or records of new ones: ``model.inputs.from_records([{"text": ...}, ...])``.
    """
    names, encoder = model.inputs.modalities, model.item_encoder
    was_training = model.training
    model.eval()
    batch = items.to(model.log_scale.device)
    tokens = encoder.tokens(batch)
    weights = encoder.fusion.weights(tokens.tokens, tokens.mask, tokens.modality)
    share = encoder.fusion.shares(tokens.tokens, tokens.mask, tokens.modality)
    whole = vectors_of_view(encoder, tokens, names)
    without = (vectors_of_view(encoder, tokens, [other for other in names if other != name]) for name in names)
    left_out = torch.stack([1 - (whole * other).sum(1) for other in without], dim=1).clamp(min=0).cpu().numpy()
    model.train(was_training)
    present, real, columns = batch.present.cpu().numpy(), tokens.mask.cpu().numpy(), tokens.modality.cpu().numpy()
    return Explanation(
        modalities=names,
        present=present,
        share=share.cpu().numpy(),
        left_out=np.where(present, left_out, 0.0),
        weights=[row[mask] for row, mask in zip(weights.cpu().numpy(), real, strict=True)],
        token_modality=[columns[mask] for mask in real],
    )


def explain_items(model: Recommender, catalog: CatalogInputs, item_idx: np.ndarray) -> Explanation:
    """:func:`explain` of items of a dataset, however many."""
    parts = [explain(model, catalog.batch(part)) for part in catalog.chunks(item_idx, CHUNK_ITEMS)]
    return Explanation(
        modalities=model.inputs.modalities,
        present=np.concatenate([part.present for part in parts]),
        share=np.concatenate([part.share for part in parts]),
        left_out=np.concatenate([part.left_out for part in parts]),
        weights=[row for part in parts for row in part.weights],
        token_modality=[row for part in parts for row in part.token_modality],
    )
