"""What a file is by its first bytes: a decoder is shown none that is not of the modality asked for."""

from __future__ import annotations

from mmrec.serving.refusals import RefusedError

__all__ = ["check_type", "modalities_of"]

_IMAGE, _AUDIO, _VIDEO = frozenset({"image"}), frozenset({"audio"}), frozenset({"video"})
_CLIP = _AUDIO | _VIDEO

# Where the marks begin, the marks, and what such a file can be. Pictures that move may be asked for as clips.
_MARKS: tuple[tuple[int, tuple[bytes, ...], frozenset[str]], ...] = (
    (0, (b"\xff\xd8\xff",), _IMAGE),
    (0, (b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a"), _IMAGE | _VIDEO),
    (8, (b"WEBP",), _IMAGE | _VIDEO),
    (0, (b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\1\0", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), _IMAGE),
    (0, (b"\n\x05\1", b"\n\x03\1", b"\n\x02\1", b"\n\0\1"), _IMAGE),  # PCX
    (4, (b"jP  \r\n\x87\n",), _IMAGE),
    (0, (b"\xff\x4f\xff\x51",), _IMAGE),
    (4, (b"ftypavi", b"ftypmif1", b"ftypmsf1", b"ftyphei"), _IMAGE | _VIDEO),
    (4, (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"), _CLIP),
    (8, (b"WAVE",), _AUDIO),
    (8, (b"AVI ",), _CLIP),
    (0, (b"fLaC", b"FORM", b".snd", b"caff", b"ID3", b"#!AMR", b"wvpk", b"MAC ", b"TTA1", b"RF64"), _AUDIO),
    (0, (b"OggS", b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"FLV\1", b".RMF"), _CLIP),
    (0, (b"\0\0\1\xba", b"\0\0\1\xb3", b"\0\0\0\1", b"\0\0\1"), _CLIP),
    (0, (b"G",), _CLIP),  # MPEG transport stream, of which more is looked at below
    (4, (b"G",), _CLIP),
)


def modalities_of(data: bytes) -> frozenset[str]:
    """What the first bytes allow a file to be; empty for none that mmrec decodes."""
    for offset, marks, kinds in _MARKS:
        if data.startswith(marks, offset) and (marks != (b"G",) or data[offset + 188 : offset + 189] in (b"G", b"")):
            return kinds
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:  # a frame of MPEG audio, or AAC in ADTS
        return _AUDIO
    return frozenset()


def check_type(modality: str, data: bytes) -> None:
    """Raises: RefusedError (415) if the file is empty, or its first bytes are not those of the modality."""
    if not data:
        raise RefusedError(415, f"the file given for {modality!r} is empty")
    kinds = modalities_of(data)
    if modality not in kinds:
        looks = f"looks like {' or '.join(sorted(kinds))}" if kinds else "is of no kind that mmrec decodes"
        raise RefusedError(415, f"the file given for {modality!r} {looks}")
