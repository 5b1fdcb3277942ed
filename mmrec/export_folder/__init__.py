"""An export folder, opened for reading: manifest, number formats, file formats. Nothing here needs torch or a dataset.

The format of the folder stands in ``mmrec/exporter``.
"""

from mmrec.export_folder.encodings import ENCODINGS, Encoding, encoding_of
from mmrec.export_folder.folder import ExportFolder, UserVectors, remote_export
from mmrec.export_folder.formats import FORMATS, Format, format_of
from mmrec.export_folder.manifest import (
    MANIFEST,
    SCHEMA,
    SCHEMA_VERSION,
    UNFINISHED,
    check_file,
    files_of,
    listed_files,
    parse_manifest,
    read_manifest,
)

__all__ = [
    "ENCODINGS",
    "FORMATS",
    "MANIFEST",
    "SCHEMA",
    "SCHEMA_VERSION",
    "UNFINISHED",
    "Encoding",
    "ExportFolder",
    "Format",
    "UserVectors",
    "check_file",
    "encoding_of",
    "files_of",
    "format_of",
    "listed_files",
    "parse_manifest",
    "read_manifest",
    "remote_export",
]
