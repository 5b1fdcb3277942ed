"""Damaged real files of every kind are decoded or refused: no crash, no hang, no other exception, bounded memory.

Each file goes through probe, decode and normalise in a process of its own that may take a minute and allocate 2 GB
for it. The thousand of the slow test took 227 s on one thread of a 2-core CPU that other work shared (2026-11-23): 219
pictures, 141 sounds and 107 clips decoded, 381, 59 and 93 refused; peak 822 MiB, 750 of them after the imports.
"""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import pytest

from mmrec.errors import MediaError
from mmrec.media.audio import decode_audio
from mmrec.media.image import decode_image
from mmrec.media.isolated import IsolatedDecoder, IsolationError
from mmrec.media.normalise import Normalisation, normalise, probe_and_normalise
from mmrec.media.probe import probe
from mmrec.media.video import decode_video

RULES = Normalisation(image_side_px=64, video_side_px=96, audio_rate_hz=16_000)
TIMEOUT_S, MEMORY_BYTES = 60.0, 2 << 30
# Of twenty files: pictures are most of what a catalogue has, and each of their formats has a decoder of its own.
SHARES = {"image": 12, "audio": 4, "video": 4}


def real_files(shared_data: Path, modality: str) -> list[Path]:
    """Odd files and a sample of ordinary ones, small enough that a mutation is done in a second or so."""
    odd = sorted((shared_data / "odd_media" / modality).iterdir())
    ordinary = sorted((shared_data / "movielens_mm" / "media" / modality).iterdir())
    return [path for path in [*odd, *ordinary[:: max(len(ordinary) // 40, 1)]] if 0 < path.stat().st_size < 700_000]


def mutate(data: bytes, other: bytes, generator: np.random.Generator) -> tuple[str, bytes]:
    """One kind of damage, at random places. ``other`` is another file, of any modality."""
    kind = str(generator.choice(["bits", "head bits", "truncate", "swap header", "splice", "zeros", "repeat"]))
    damaged = bytearray(data)
    at = int(generator.integers(0, len(data)))
    if kind in ("bits", "head bits"):
        reach = len(data) if kind == "bits" else min(len(data), 256)
        for position in generator.integers(0, reach, int(generator.integers(1, 24))):
            damaged[position] ^= 1 << int(generator.integers(0, 8))
    elif kind == "truncate":
        del damaged[at:]
    elif kind == "swap header":
        length = int(generator.integers(4, 128))
        damaged[:length] = other[:length]
    elif kind == "splice":
        damaged[at:] = other[len(other) // 2 :]
    elif kind == "zeros":
        length = int(generator.integers(1, max(len(data) // 4, 2)))
        damaged[at : at + length] = bytes(len(damaged[at : at + length]))
    else:
        damaged[at:at] = damaged[at : at + int(generator.integers(1, 4096))]
    return kind, bytes(damaged)


def use(modality: str, data: bytes) -> int:
    """All that mmrec does with a file; returns the peak memory of the process so far, in KiB."""
    info = probe(modality, data)
    if modality == "image":
        assert decode_image(data).shape == (info.height, info.width, 3)
    elif modality == "audio":
        assert decode_audio(data, 16_000, 10.0).ndim == 1
    else:
        assert decode_video(data, 4, short_side_px=64)[0].shape[-1] == 3
    facts, normal = normalise(modality, info, data, RULES)
    assert (facts, normal) == probe_and_normalise(modality, data, RULES)
    again = probe(modality, normal)
    assert (again.width, again.height, again.sample_rate) == (facts.width, facts.height, facts.sample_rate)
    # Not getrusage, whose peak begins with that of the process that started this one.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0])


def outcomes(shared_data: Path, num_files: int, seed: int) -> tuple[collections.Counter[str], list[str], int]:
    """Counts of (modality, outcome); what must not happen; peak KiB of a child."""
    generator = np.random.default_rng(seed)
    files = {modality: real_files(shared_data, modality) for modality in SHARES}
    everything = [path for paths in files.values() for path in paths]
    plan = [modality for modality, share in SHARES.items() for _ in range(share)]
    counts: collections.Counter[str] = collections.Counter()
    failures, peak = [], 0
    imports = ("av", "scipy.signal", "soundfile", "torchvision.io")
    with IsolatedDecoder(TIMEOUT_S, MEMORY_BYTES, imports=imports) as isolated:
        for n in range(num_files):
            modality = plan[n % len(plan)]
            source = files[modality][int(generator.integers(len(files[modality])))]
            other = everything[int(generator.integers(len(everything)))]
            kind, data = mutate(source.read_bytes(), other.read_bytes(), generator)
            try:
                peak = max(peak, isolated(use, modality, data))
                counts[f"{modality} decoded"] += 1
            except IsolationError as error:
                failures.append(f"{n} {source.name} + {other.name}, {kind}: {error}")
            except MediaError:
                counts[f"{modality} refused"] += 1
            except Exception as error:  # all others are defects, told with the traceback that the child sends
                notes = getattr(error, "__notes__", "")
                failures.append(f"{n} {source.name} + {other.name}, {kind}: {type(error).__name__}: {error} {notes}")
    return counts, failures, peak


def test_sixty_damaged_files_are_decoded_or_refused(shared_data):
    counts, failures, peak = outcomes(shared_data, 60, seed=1)
    assert failures == []
    assert sum(counts.values()) == 60
    assert all(counts[f"{modality} {end}"] for modality in SHARES for end in ("decoded", "refused"))
    assert peak < 1 << 20  # KiB


@pytest.mark.slow
def test_a_thousand_damaged_files_are_decoded_or_refused(shared_data):
    counts, failures, peak = outcomes(shared_data, 1_000, seed=0)
    print(dict(counts), f"peak {peak / 1024:.0f} MiB")
    assert failures == []
    assert sum(counts.values()) == 1_000
    assert peak < 1 << 20  # KiB
