"""What an item of the synthetic world looks, reads, sounds and moves like: traits in, encoded bytes out.

Every function draws its nuisances (noise, place, words without meaning) from the generator that it is given, and
encodes with the library that users' files come from: Pillow, libsndfile, FFmpeg's H.264. One thread each, no times in
the headers: equal input gives equal bytes.
"""

from __future__ import annotations

import colorsys
import io
from fractions import Fraction

import numpy as np

__all__ = [
    "COLOURS",
    "MOTIONS",
    "SOUNDS",
    "TOPICS",
    "render_audio",
    "render_description",
    "render_image",
    "render_silence",
    "render_title",
    "render_video",
]

# x264's assembly gives other bytes on another processor, and now and then in the same process, with mbtree on.
_H264 = {"g": "6", "crf": "23", "threads": "1", "x264-params": "no-asm=1:mbtree=0"}

SIZE_PX = 64
SAMPLE_RATE = 16_000
DURATION_S = 1.5
FPS = 8

# Themes in order of hue, 45 degrees apart: the neighbours of a theme are the neighbours of its colour.
COLOURS = ("red", "amber", "lime", "green", "cyan", "azure", "violet", "magenta")

# Name of an instrument, its lowest note in Hz (a fourth apart), the strength of its overtones.
SOUNDS = (
    ("contrabass", 110.0, (1.0, 0.6, 0.4, 0.3)),
    ("cello", 165.0, (1.0, 0.1, 0.5, 0.1, 0.3)),
    ("horn", 247.0, (1.0, 0.5, 0.2)),
    ("clarinet", 370.0, (1.0, 0.0, 0.6, 0.0, 0.3)),
    ("flute", 555.0, (1.0, 0.1)),
    ("whistle", 832.0, (1.0,)),
)

MOTIONS = ("right", "left", "down", "up", "circle", "pulse")

TOPICS: dict[str, tuple[str, ...]] = {
    "kitchen": ("kettle", "saucepan", "ladle", "spice", "oven", "whisk", "teapot", "plate", "recipe", "flour"),
    "garden": ("trowel", "seed", "tulip", "hedge", "compost", "flowerpot", "rake", "orchard", "herb", "lawn"),
    "sea": ("anchor", "sail", "harbour", "gull", "tide", "lighthouse", "oar", "reef", "compass", "deck"),
    "workshop": ("hammer", "chisel", "plank", "screw", "lathe", "bench", "pliers", "varnish", "drill", "joint"),
    "mountain": ("rope", "summit", "glacier", "tent", "ridge", "boot", "cairn", "valley", "lantern", "snow"),
    "library": ("novel", "shelf", "chapter", "poem", "ink", "binding", "atlas", "margin", "reader", "letter"),
    "sport": ("racket", "goal", "sprint", "jersey", "referee", "net", "stadium", "whirl", "medal", "coach"),
    "travel": ("ticket", "suitcase", "train", "passport", "hotel", "platform", "map", "tram", "bridge", "station"),
}

_QUALITIES = ("little", "old", "plain", "fine", "sturdy", "quiet", "favourite", "simple", "honest", "daily")
_OPENINGS = ("Made for the {0} and the {1}.", "All about the {0}, and a {1} too.", "Think of a {0} beside a {1}.")
_ENDINGS = ("It keeps well.", "A present for anybody.", "Liked by many.", "Nothing else is needed.", "Made with care.")


def render_title(topic: int, generator: np.random.Generator) -> str:
    """A quality that means nothing and a noun of the topic."""
    nouns = _nouns(topic)
    return f"The {generator.choice(_QUALITIES)} {generator.choice(nouns)}".title()


def render_description(topic: int, theme: int, sound: int, generator: np.random.Generator) -> str:
    """Four nouns of the topic in neutral sentences; often the colour (1 in 2) or the instrument (2 in 5)."""
    first, second, third, fourth = generator.choice(_nouns(topic), size=4, replace=False)
    sentences = [
        str(generator.choice(_OPENINGS)).format(first, second),
        f"Comes with {third} and {fourth}.",
    ]
    if generator.random() < 0.5:
        sentences.append(f"The colour is {COLOURS[theme]}.")
    if generator.random() < 0.4:
        sentences.append(f"Sounds like a {SOUNDS[sound][0]}.")
    sentences.append(str(generator.choice(_ENDINGS)))
    return " ".join(sentences)


def _nouns(topic: int) -> tuple[str, ...]:
    return list(TOPICS.values())[topic]


def render_image(theme: int, brightness: float, generator: np.random.Generator) -> bytes:
    """JPEG, 64 x 64: the theme's hue in the theme's texture, a grey disc anywhere, noise.

    Args:
        theme: hue (45 degrees a step) and texture (stripes, rings, checks, dots).
        brightness: about -1 to 1.
    """
    from PIL import Image

    light = 0.75 + 0.2 * float(np.clip(brightness, -1, 1))
    texture = _texture(theme, generator)[..., None]
    pixels = _colour(theme, light, generator) * (0.55 + 0.45 * texture)
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX]
    centre = generator.uniform(12, SIZE_PX - 12, size=2)
    disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < generator.uniform(4, 9) ** 2
    pixels = np.where(disc[..., None], generator.uniform(60, 200), pixels)
    pixels = pixels + generator.normal(0, 12, pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _colour(theme: int, light: float, generator: np.random.Generator) -> np.ndarray:
    """RGB of the theme, hue within 8 degrees of its own. (3,)"""
    hue = (theme / len(COLOURS) + generator.uniform(-8, 8) / 360) % 1.0
    return 255 * np.array(colorsys.hsv_to_rgb(hue, generator.uniform(0.75, 1.0), light))


def _texture(theme: int, generator: np.random.Generator) -> np.ndarray:
    """0 or 1 at each pixel, a pattern of the theme at a random phase. (64, 64)"""
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX] + generator.uniform(0, 16, size=(2, 1, 1))
    radius = np.hypot(y - 40, x - 40)
    wave = (
        np.sin(x * 0.8),
        np.sin(y * 0.8),
        np.sin((x + y) * 0.5),
        np.sin(radius * 0.8),
        np.sin(x * 0.4) * np.sin(y * 0.4),
        np.sin(x * 0.8) + np.sin(y * 0.8) - 0.8,
        np.sin(x * 0.25),
        np.ones_like(x),
    )[theme]
    return (wave > 0).astype(np.float64)


def render_audio(sound: int, energy: float, lossless_format: str, generator: np.random.Generator) -> bytes:
    """FLAC or WAV, mono, 16 kHz, 1.5 s: notes of the instrument's fifth, in its timbre, at the item's tempo.

    Args:
        sound: which instrument.
        energy: about -1 to 1: 3 to 7 notes a second.
        lossless_format: "FLAC" or "WAV", 16 bit.
    """
    _, lowest, overtones = SOUNDS[sound]
    time = np.arange(int(DURATION_S * SAMPLE_RATE)) / SAMPLE_RATE
    note_s = 1 / (5 + 2 * float(np.clip(energy, -1, 1)))
    note = (time / note_s).astype(int)
    pitch = (lowest * generator.choice([1.0, 1.0, 1.25], size=note.max() + 1))[note]
    pitch *= generator.uniform(0.98, 1.02)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    wave = sum(strength * np.sin(n * phase) for n, strength in enumerate(overtones, start=1))
    envelope = np.exp(-3 * (time / note_s - note))
    wave = wave * envelope / sum(overtones)
    samples = generator.uniform(0.4, 0.8) * wave + generator.normal(0, 0.01, len(time))
    return _encode_audio(np.clip(samples, -1, 1), lossless_format)


def render_silence() -> bytes:
    """WAV in which every sample is zero."""
    return _encode_audio(np.zeros(int(DURATION_S * SAMPLE_RATE)), "WAV")


def _encode_audio(samples: np.ndarray, lossless_format: str) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format=lossless_format, subtype="PCM_16")
    return buffer.getvalue()


def render_video(motion: int, energy: float, theme: int | None, generator: np.random.Generator) -> bytes:
    """MP4 (H.264), 64 x 64, 12 frames at 8 fps: a bright ball that moves over a background.

    Args:
        motion: right, left, down, up, in a circle, or growing and shrinking in its place.
        energy: about -1 to 1: how far it gets.
        theme: colour of the background; None = grey.
    """
    import av

    light = generator.uniform(0.35, 0.5)
    background = np.full(3, 255 * light) if theme is None else _colour(theme, light + 0.15, generator)
    num_frames = round(DURATION_S * FPS)
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX]
    lane = generator.uniform(-10, 10)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options=_H264)
        stream.width = stream.height = SIZE_PX
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for n in range(num_frames):
            across, down, radius = _ball(motion, energy, lane, n / (num_frames - 1))
            ball = (x - across) ** 2 + (y - down) ** 2 < radius**2
            pixels = np.where(ball[..., None], 250.0, background) + generator.normal(0, 4, (SIZE_PX, SIZE_PX, 1))
            frame = av.VideoFrame.from_ndarray(np.clip(pixels, 0, 255).astype(np.uint8), format="rgb24")
            frame.pts = n
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def _ball(motion: int, energy: float, lane: float, progress: float) -> tuple[float, float, float]:
    """Centre (x, y) and radius in pixels at ``progress`` from 0 to 1 of the clip."""
    reach = 22 + 4 * float(np.clip(energy, -1, 1))
    middle = SIZE_PX / 2
    along = middle + reach * (2 * progress - 1)
    back = SIZE_PX - along
    angle = 2 * np.pi * progress
    return {
        "right": (along, middle + lane, 9.0),
        "left": (back, middle + lane, 9.0),
        "down": (middle + lane, along, 9.0),
        "up": (middle + lane, back, 9.0),
        "circle": (middle + reach * np.cos(angle), middle + reach * np.sin(angle), 9.0),
        "pulse": (middle + lane / 2, middle + lane / 2, 5.0 + reach * np.sin(np.pi * progress) ** 2),
    }[MOTIONS[motion]]
