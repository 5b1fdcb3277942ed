"""Item embeddings as a product: a folder with ids, masks, hashes and an index that stands on its own.

Format of the export folder, version 2::

    manifest.json        schema "mmrec.export", schema_version; model_hash; dataset {name, fingerprint}; num_items,
                         shard_items, dim, cut (dim if the model's vectors are cut to it, else null), normalised,
                         metric "inner_product"; format of the parts; dtype, and decode: how the numbers of ``vector``
                         become the vector; recall_at_10 {value, queries, among} of what is stored against float32, null
                         for float32; user_side {encoder, max_history, reads_times, query_time}, or null; modalities:
                         names of the bits of the bitmask, lowest first;
                         parts: [{file, rows, bytes, sha256, normalised}]; files: {name: {bytes, sha256}}. Written last.
    embeddings/part-00000.parquet ...   item_id string, vector fixed-size list of numbers, scale float32 (of int8 only),
                         modalities int32 bitmask, shares fixed-size list of float16 (of fusion's weights those of each
                         modality), source_hash string; no nulls; items in order of the dataset's item_idx, shard_items
                         a part. Formats npy and safetensors have the vectors in a file beside it,
                         part-00000.npy or part-00000.safetensors (tensor "vectors"), named in the part's ``vectors``;
                         lance has all columns in data/part-00000.lance, and embeddings/ is a Lance dataset
    users/part-00000.parquet ...   with --users, and in the manifest ``users`` {num_users, parts}, else null: user_id
                         string, vector and scale as of items, events int32, last_time int64 seconds, null where events
                         have no times; vectors after the last event, by the user encoder from the vectors above
    items.parquet        item_id, title, modalities, shares: what search shows; the attributes of the dataset:
                         strings, numbers, truth values, dates as ISO strings; same order
    README.md            model card: what this is, how to load it, what it is for, its limits
    index.faiss, index_ids.parquet, ...   with --index: ``mmrec/index/__init__.py``
    model/               the checkpoint without training_state/: encodes queries and users;
                         graphs/<modality>.pt: encoders of raw media, with their weights, for quick queries;
                         blend.json, blend.npz: what a counting baseline adds to the scores, with --blend

In float32 vectors are stored exactly as the model scores them; the other number formats are described in
``mmrec/export_folder/encodings.py``. ``normalised`` is measured: every vector, decoded, has length 1 within 1e-4.
``source_hash`` changes when the content of the item does. While it is written the folder holds ``unfinished/``
(workplace.py): each part is written under another name, flushed and renamed, then noted there; any number of processes
share the parts by leases, and an interrupted export goes on with the parts that are missing. Its bytes are those of an
uninterrupted one: the folder names no time and no machine, but in what Lance keeps of its versions.
"""

from mmrec.exporter.export import ExportReport, Making, begin_export, export
from mmrec.exporter.use import UserSide

__all__ = ["ExportReport", "Making", "UserSide", "begin_export", "export"]
