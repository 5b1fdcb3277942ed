"""Clips: bytes in, evenly spaced RGB frames out, decoding only the groups of pictures that hold them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmrec.errors import MediaError
from mmrec.media.container import extension, limit_decoder, open_container, packets_of
from mmrec.media.info import MAX_DURATION_S, MAX_FRAME_PIXELS, MIN_SIDE_PX, MediaInfo

__all__ = ["Clip", "decode_all", "decode_video", "open_clip", "probe_video", "rotation"]

# Probing decodes at most this many frames (100 s at 30 fps) and pixels (32 s of full HD), which bounds its time to some
# ten seconds a clip; what comes after is demultiplexed only.
_PROBE_FRAMES = 3000
_PROBE_PIXELS = 2_000_000_000
_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2": "mp4", "matroska,webm": "mkv", "mpegts": "ts", "mpeg": "mpg"}


@dataclass
class Clip:
    """The packets of one video stream from its first keyframe on, in the order of the file."""

    codec: Any
    ext: str
    time_base: float
    packets: list[Any]
    times: np.ndarray  # presentation time in seconds of each packet
    keyframes: np.ndarray  # positions of keyframes in ``packets``; the first is 0
    faults: int
    lost_packets: int  # before the first keyframe, undecodable by anyone
    fps: float


def decode_video(data: bytes, num_frames: int, *, short_side_px: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Decode up to ``num_frames`` different frames, evenly spaced over the part of the clip that decodes.

    Args:
        short_side_px: scale frames down while decoding so that the shorter side has this size; None keeps the size.

    Returns:
        frames: uint8 RGB (F, H, W, 3), upright, 1 <= F <= num_frames.
        times: float64 seconds of each frame after the first decodable frame, ascending. (F,)

    Raises:
        MediaError: if the bytes are empty, no video, of a size out of bounds, or not one frame decodes.
    """
    with open_clip(data) as stream:
        wanted = _evenly_spaced(stream.times, num_frames)
        # Where the groups of pictures that were chosen are damaged, the nearest frames that decode stand in.
        chosen = _decode_positions(stream, wanted) or _nearest(decode_all(stream), stream.times[wanted])
        if not chosen:
            raise MediaError("video holds no frame that decodes")
        times = np.array(sorted(chosen))
        frames = [_to_rgb(chosen[time], short_side_px) for time in times]
        height, width = frames[0].shape[:2]
        same_size = [n for n, frame in enumerate(frames) if frame.shape[:2] == (height, width)]
        return np.stack([frames[n] for n in same_size]), times[same_size] - float(stream.times.min())


def probe_video(data: bytes) -> MediaInfo:
    """Decode (the first minute or so) to know that there are frames and how many are lost.

    Raises:
        MediaError: as :func:`decode_video`.
    """
    with open_clip(data) as stream:
        decoded, size = 0, (0, 0)
        limit = min(_PROBE_FRAMES, _PROBE_PIXELS // (stream.codec.width * stream.codec.height))
        for _, frame in itertools.islice(decode_all(stream), limit):
            if not decoded:
                size = (frame.height, frame.width) if abs(rotation(frame)) == 90 else (frame.width, frame.height)
            decoded += 1
        if not decoded:
            raise MediaError("video holds no frame that decodes")
        problems = []
        if stream.faults:
            problems.append(f"{stream.faults} packets do not decode")
        if stream.lost_packets:
            problems.append(f"{stream.lost_packets} packets come before the first keyframe")
        span = float(stream.times.max() - stream.times.min()) + 1.0 / stream.fps
        return MediaInfo(
            ext=stream.ext,
            width=size[0],
            height=size[1],
            duration_s=round(span, 3),
            fps=round(stream.fps, 3),
            num_frames=decoded if decoded < limit else len(stream.packets),
            status="partial" if problems else "ok",
            note="; ".join(problems) + "; the rest is used" if problems else "",
        )


@contextlib.contextmanager
def open_clip(data: bytes) -> Iterator[Clip]:
    """The clip's packets; whatever FFmpeg refuses until the clip is closed is a MediaError.

    Raises:
        MediaError: if the bytes are empty, no video, or of a size or length out of bounds.
    """
    from av.error import FFmpegError

    if not data:
        raise MediaError("video is empty (0 bytes)")
    try:
        with open_container(data) as container:
            yield _read_packets(container, len(data))
    except FFmpegError as error:
        raise MediaError(f"not readable as video: {error.strerror or type(error).__name__}") from error


def _read_packets(container: Any, num_bytes: int) -> Clip:
    from av.stream import Disposition

    clips = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not clips:  # the cover of a song is a still picture
        raise MediaError(f"no video stream in this {container.format.name} file")
    stream = clips[0]
    codec = stream.codec_context
    if codec is None:
        raise MediaError(f"a video stream of unknown coding in this {container.format.name} file")
    limit_decoder(codec)
    size = f"{codec.width}x{codec.height}"
    if not codec.width * codec.height:  # FFmpeg drops a size that is out of bounds while it opens the file
        raise MediaError(f"video of no size, or of more than {MAX_FRAME_PIXELS:,} pixels a frame")
    if codec.width * codec.height > MAX_FRAME_PIXELS:
        raise MediaError(f"video of {size} is too large, at most {MAX_FRAME_PIXELS:,} pixels a frame")
    if min(codec.width, codec.height) < MIN_SIDE_PX:
        raise MediaError(f"video of {size} is too small, at least {MIN_SIDE_PX} pixels a side")
    packets, faults = _demux(container, stream, num_bytes)
    first = next((n for n, packet in enumerate(packets) if packet.is_keyframe), None)
    if first is None:
        raise MediaError("video holds no frame that decodes" if packets else "video stream without frames")
    packets, lost = packets[first:], first
    rate = stream.average_rate or stream.guessed_rate
    fps = float(rate) if rate else 25.0
    time_base = float(stream.time_base or 1.0 / fps)
    clock = [packet.pts if packet.pts is not None else packet.dts for packet in packets]
    known = all(value is not None for value in clock)
    times = np.array([value * time_base for value in clock] if known else np.arange(len(packets)) / fps)
    if not np.ptp(times) <= MAX_DURATION_S:
        raise MediaError(f"video of {np.ptp(times):,.0f} s is too long, at most {MAX_DURATION_S:,.0f} s")
    return Clip(
        codec=codec,
        ext=extension(container, _CONTAINERS),
        time_base=time_base if known else 0.0,
        packets=packets,
        times=times,
        keyframes=np.flatnonzero([packet.is_keyframe for packet in packets]),
        faults=faults,
        lost_packets=lost,
        fps=fps,
    )


def _demux(container: Any, stream: Any, num_bytes: int) -> tuple[list[Any], int]:
    from av.error import FFmpegError

    packets, iterator = [], packets_of(container, stream, num_bytes)
    while True:
        try:
            packet = next(iterator)
        except StopIteration:
            return packets, 0
        except FFmpegError:  # the container ends in the middle of a packet
            return packets, 1
        if packet.size:
            packets.append(packet)


def _evenly_spaced(times: np.ndarray, num_frames: int) -> np.ndarray:
    """Positions of the packets nearest to the middles of ``num_frames`` equal parts of the clip, distinct."""
    order = np.argsort(times, kind="stable")
    sorted_times = times[order]
    low, high = sorted_times[0], sorted_times[-1]
    middles = low + (high - low) * (np.arange(num_frames) + 0.5) / num_frames
    after = np.clip(np.searchsorted(sorted_times, middles), 1, max(len(order) - 1, 1)) if len(order) > 1 else None
    if after is None:
        return order[:1]
    nearest = np.where(middles - sorted_times[after - 1] <= sorted_times[after] - middles, after - 1, after)
    return order[np.unique(nearest)]


def _decode_positions(stream: Clip, wanted: np.ndarray) -> dict[float, Any]:
    """Decode the groups of pictures that hold the wanted packets; others are never given to the decoder."""
    bounds = [*stream.keyframes.tolist(), len(stream.packets)]
    runs: list[list[int]] = []  # first group, last group, in order; neighbours are decoded in one go
    chosen: dict[float, Any] = {}
    for position in np.sort(wanted).tolist():
        group = int(np.searchsorted(stream.keyframes, position, side="right")) - 1
        # A picture shown before its group's keyframe (an open group) also needs the group before.
        first = max(group - 1, 0) if stream.times[position] < stream.times[bounds[group]] else group
        if runs and first <= runs[-1][1] + 1:
            runs[-1][1] = group
        else:
            runs.append([first, group])
    for first, last in runs:
        start, end = bounds[first], bounds[last + 1]
        targets = np.sort(stream.times[wanted[(wanted >= start) & (wanted < end)]])
        chosen.update(_nearest(_decode_run(stream, start, end, float(targets[-1])), targets))
    return chosen


def _nearest(run: Iterable[tuple[float, Any]], targets: np.ndarray) -> dict[float, Any]:
    """Of the frames that ``run`` yields, the one nearest to each target, by time; memory holds one a target."""
    best: dict[float, tuple[float, Any]] = {}
    for time, frame in run:
        target = float(targets[np.abs(targets - time).argmin()])
        if target not in best or abs(time - target) < abs(best[target][0] - target):
            best[target] = (time, frame)
    return dict(best.values())


def decode_all(stream: Clip) -> Iterator[tuple[float, Any]]:
    """Every frame that decodes, with its time in seconds on the clip's own clock."""
    return _decode_run(stream, 0, len(stream.packets), float("inf"))


def _decode_run(stream: Clip, start: int, end: int, until: float) -> Iterator[tuple[float, Any]]:
    """Frames of packets ``start:end`` with their times, up to the first at or after ``until``, past bad packets."""
    from av.error import FFmpegError

    stream.codec.flush_buffers()
    count = 0
    for position in [*range(start, end), None]:  # None drains what the decoder still holds
        try:
            frames = stream.codec.decode(None if position is None else stream.packets[position])
        except FFmpegError:
            stream.faults += 1
            continue
        for frame in frames:
            known = frame.pts is not None and stream.time_base > 0.0
            time = float((frame.pts or 0) * stream.time_base if known else stream.times[start + count])
            count = min(count + 1, end - start - 1)
            yield time, frame
            if time >= until - 1e-6:
                return


def rotation(frame: Any) -> int:
    """Degrees, a multiple of 90, by which the frame has to be turned against the clock to stand upright."""
    return round(frame.rotation / 90) * 90 if frame.rotation else 0


def _to_rgb(frame: Any, short_side_px: int | None) -> np.ndarray:
    width, height = frame.width, frame.height
    if short_side_px is not None and short_side_px < min(width, height):
        scale = short_side_px / min(width, height)
        width, height = max(round(width * scale), short_side_px), max(round(height * scale), short_side_px)
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA", threads=1)
    return np.ascontiguousarray(np.rot90(pixels, rotation(frame) // 90))
