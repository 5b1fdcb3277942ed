"""The stack of blocks inside any network: which they are, and how to run only the upper part of it.

Legend: P items, T positions of the network's hidden state, W its width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = [
    "checkpoint_blocks",
    "compile_blocks",
    "find_blocks",
    "modules_behind",
    "run_above",
    "run_below",
    "stack_is_split_at",
]

R = TypeVar("R")


def find_blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks of a network, lowest first: members of the outermost list that holds the most parameters.

    Transformers have one list of layers, convolutional and hierarchical networks one of stages; so it is in timm,
    open_clip, transformers and torchvision alike.
    """
    best: list[nn.Module] = [network]
    most = 0
    for module in network.modules():  # outer modules come before what is in them
        if isinstance(module, nn.ModuleList | nn.Sequential) and module is not network and len(module):
            held = sum(parameter.numel() for parameter in module.parameters())
            if held > most:
                best, most = list(module), held
    return best


def modules_behind(network: nn.Module, blocks: list[nn.Module], forward: Callable[[], object]) -> list[str]:
    """Names of the modules that a forward pass enters for the first time after the last block: final norms, poolers."""
    entered: set[nn.Module] = set()
    behind: list[str] = []
    over = False

    def leave(module: nn.Module, args: object, output: object) -> None:
        nonlocal over
        over = True

    def enter(name: str) -> Callable[[nn.Module, object], None]:
        def note(module: nn.Module, args: object) -> None:
            if over and module not in entered:
                behind.append(name)
            entered.add(module)

        return note

    handles = [blocks[-1].register_forward_hook(leave)]
    handles += [module.register_forward_pre_hook(enter(name)) for name, module in network.named_modules()]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return behind


class _Reached(Exception):  # noqa: N818 (no error: the way out of a forward pass)
    """The lower part of the network is done."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


def run_below(blocks: list[nn.Module], first: int, forward: Callable[[], object]) -> Tensor:
    """The hidden state that block ``first`` receives in a forward pass, which ends there. ("P", "T", "W")"""

    def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Reached(args[0] if args else kwargs[next(iter(kwargs))])

    handle = blocks[first].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        forward()
    except _Reached as reached:
        return reached.hidden
    finally:
        handle.remove()
    raise AssertionError("the forward pass did not come by the block")


def run_above(blocks: list[nn.Module], first: int, hidden: Tensor, forward: Callable[[], R]) -> R:
    """A forward pass whose blocks below ``first`` do nothing, and where ``first`` receives ``hidden``."""

    def replace(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, next(iter(kwargs)): hidden}

    handle = blocks[first].register_forward_pre_hook(replace, with_kwargs=True)
    try:
        with _skipped(blocks[:first]):
            return forward()
    finally:
        handle.remove()


@contextmanager
def _skipped(blocks: list[nn.Module]) -> Iterator[None]:
    """Blocks return what they are given, and cost nothing."""
    own = [block.__dict__.get("forward") for block in blocks]  # of compiled blocks; others have their class's
    for block in blocks:
        block.forward = lambda *args, **kwargs: args[0] if args else next(iter(kwargs.values()))
    try:
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            del block.forward  # the class's shows again
            if forward is not None:
                block.forward = forward


@torch.no_grad()
def stack_is_split_at(
    blocks: list[nn.Module], first: int, forward: Callable[[], Tensor], blank: Callable[[], Tensor]
) -> bool:
    """Whether the upper part, with the hidden state of some inputs but fed blank ones, gives what the whole gives.

    Not so where blocks change the shape of the hidden state in ways that the network looks at from outside, return
    more than it, or read the inputs again.
    """
    whole = forward()
    try:
        hidden = run_below(blocks, first, forward)
        upper = run_above(blocks, first, hidden, blank)
    except Exception:
        return False
    return isinstance(hidden, Tensor) and hidden.ndim == 3 and torch.allclose(whole, upper, atol=1e-5)


def checkpoint_blocks(blocks: list[nn.Module]) -> None:
    """Let blocks keep nothing for the backward pass but their inputs, and compute the rest again there."""
    for block in blocks:
        block.forward = _checkpointed(block.forward)


def compile_blocks(blocks: list[nn.Module]) -> None:
    """Compile what blocks compute, one by one: hooks stay outside, by which only a part of the network is run."""
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=True)


def _checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run
