"""Clips written anew: small, upright, with a keyframe every half second, so that any frame is had at the same price."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from mmrec.errors import MediaError
from mmrec.media.info import MediaInfo
from mmrec.media.video import Clip, decode_all, open_clip, probe_video, rotation

__all__ = ["MAX_CLIP_S", "normalise_video"]

# What is kept of a clip: its first ten minutes, and no more pixels than ten minutes of full HD have.
MAX_CLIP_S = 600.0
_MAX_CLIP_PIXELS = 40_000_000_000
_KEYFRAME_S = 0.5
# A clip whose frames come at most this long after their keyframe is good as it is.
_DENSE_S = 0.75
# Frames keep their own times, so that a variable rate stays variable, on the clock of MPEG transport streams.
_TICKS_PER_S = 90_000
# Constant quality 23 is x264's own choice. One thread, because with more the bytes would depend on their number. No
# B-frames: they save a few per cent and make every seek decode more. Keyframes stand where the frames ask for them.
_X264 = {
    "preset": "veryfast",
    "crf": "23",
    "threads": "1",
    "bf": "0",
    "g": "1000000",
    "sc_threshold": "0",
    "forced-idr": "1",
    # What x264 computes with approximations of the CPU at hand differed from run to run: of 95 transcodings of one
    # damaged clip 8 had other bytes. Its tree of macroblocks, which does most of that, gains little at half a second.
    "x264-params": "cpu-independent=1:mbtree=0",
}


def normalise_video(info: MediaInfo, data: bytes, side_px: int) -> tuple[MediaInfo, bytes]:
    """H.264 (yuv420p) in MP4, upright, short side ``side_px`` (even) at most, a keyframe every half second, no sound.

    A clip that is as small already and has its keyframes as close is returned byte for byte. Frames keep their times.
    Sound is dropped because audio is a modality of its own. The colours are those that ``decode_video`` gives.

    Raises:
        MediaError: if the clip cannot be opened or not one frame decodes.
    """
    side_px -= side_px % 2
    with open_clip(data) as clip:
        if min(clip.codec.width, clip.codec.height) <= side_px and _is_dense(clip):
            return info, data
        encoded, kept_s = _transcode(clip, side_px)
        whole_s, faults = float(np.ptp(clip.times)), clip.faults
    if kept_s is not None:
        problem = f"the first {kept_s:,.0f} of {whole_s:,.0f} s are kept"
    elif faults and info.status == "ok":  # behind the part that the probe has decoded
        problem = f"{faults} packets do not decode; the rest is used"
    else:
        return replace(probe_video(encoded), status=info.status, note=info.note, source_ext=info.ext), encoded
    note = f"{info.note}; {problem}" if info.note else problem
    return replace(probe_video(encoded), status="partial", note=note, source_ext=info.ext), encoded


def _is_dense(clip: Clip) -> bool:
    group = np.searchsorted(clip.keyframes, np.arange(len(clip.packets)), side="right") - 1
    return bool((clip.times - clip.times[clip.keyframes[group]]).max() <= _DENSE_S)


def _transcode(clip: Clip, side_px: int) -> tuple[bytes, float | None]:
    """The clip as MP4, and the seconds that were kept of it where it was cut."""
    import av
    from av.video.frame import PictureType

    buffer = io.BytesIO()
    rate = Fraction(clip.fps).limit_denominator(1001)
    # Bit-exact: no version of the library and no date in the file.
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as out:
        stream = out.add_stream("libx264", rate=rate, options=_X264)
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS_PER_S)
        start_s, last, next_keyframe = 0.0, -1, 0
        max_frames = max(_MAX_CLIP_PIXELS // (clip.codec.width * clip.codec.height), 1)
        cut = None
        for count, (time_s, frame) in enumerate(decode_all(clip)):
            if not count:
                start_s = time_s
                stream.width, stream.height = _even_size(frame, side_px)
            tick = round((time_s - start_s) * _TICKS_PER_S)
            if tick >= MAX_CLIP_S * _TICKS_PER_S or count >= max_frames:
                cut = last / _TICKS_PER_S
                break
            if tick <= last:  # damaged: a frame that stands before the one that was shown
                continue
            picture = _upright(frame, stream.width, stream.height)
            picture.pts, picture.time_base, last = tick, stream.time_base, tick
            picture.duration = round(_TICKS_PER_S / clip.fps)
            if tick >= next_keyframe:
                picture.pict_type = PictureType.I
                next_keyframe = tick + round(_KEYFRAME_S * _TICKS_PER_S)
            out.mux(stream.encode(picture))
        if last < 0:
            raise MediaError("video holds no frame that decodes")
        out.mux(stream.encode())
    return buffer.getvalue(), cut


def _even_size(frame: Any, side_px: int) -> tuple[int, int]:
    """Width and height after turning and scaling; yuv420p wants even sides."""
    size = (frame.width, frame.height) if rotation(frame) % 180 == 0 else (frame.height, frame.width)
    scale = min(side_px / min(size), 1.0)
    width, height = (max(round(side * scale / 2), side_px // 2 if scale < 1.0 else 1) * 2 for side in size)
    return width, height


def _upright(frame: Any, width: int, height: int) -> Any:
    import av

    turn = rotation(frame)
    size = (width, height) if turn % 180 == 0 else (height, width)
    pixels = frame.to_ndarray(format="rgb24", width=size[0], height=size[1], interpolation="AREA", threads=1)
    upright = np.ascontiguousarray(np.rot90(pixels, turn // 90))
    return av.VideoFrame.from_ndarray(upright, format="rgb24").reformat(format="yuv420p", threads=1)
