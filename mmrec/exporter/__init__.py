"""Item embeddings as a product: a folder with ids, masks, hashes and an index that stands on its own.

Format of the export folder, version 2::

    manifest.json        schema "mmrec.export", schema_version; model_hash; dataset {name, fingerprint}; num_items,
                         shard_items, dim, normalised, metric "inner_product"; dtype "float32" and decode: how the
                         numbers of ``vector`` become the vector; user_side {encoder, max_history, reads_times,
                         query_time}, or null; modalities: names of the bits of the bitmask, lowest first;
                         parts: [{file, rows, bytes, sha256, normalised}]; files: {name: {bytes, sha256}}. Written last.
    embeddings/part-00000.parquet ...   item_id string, vector fixed-size list of float32, modalities int32 bitmask,
                         source_hash string; no nulls; items in order of the dataset's item_idx, shard_items a part
    items.parquet        item_id, title, modalities (bitmask): what search shows; the attributes of the dataset:
                         strings, numbers, truth values, dates as ISO strings; same order
    README.md            model card: what this is, how to load it, what it is for, its limits
    index.faiss, index_ids.parquet, ...   with --index: ``mmrec/index/__init__.py``
    model/               the checkpoint without training_state/: encodes queries and users;
                         graphs/<modality>.pt: encoders of raw media, with their weights, for quick queries;
                         blend.json, blend.npz: what a counting baseline adds to the scores, with --blend

Vectors are stored exactly as the model scores them; ``normalised`` is measured: every vector has length 1 within 1e-4.
``source_hash`` changes when the content of the item does. Each part is written under a temporary name, flushed and
renamed, then entered into ``manifest.partial.json``; an interrupted export goes on after the last part entered there,
and its bytes are those of an uninterrupted one. The folder names no time and no machine: same input, same bytes.
"""

from mmrec.exporter.export import ExportReport, export
from mmrec.exporter.use import UserSide

__all__ = ["ExportReport", "UserSide", "export"]
