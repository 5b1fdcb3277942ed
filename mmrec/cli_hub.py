"""The commands that share a model: push, pull."""

from __future__ import annotations

from pathlib import Path

import tyro

from mmrec.hub_card import CardSettings

__all__ = ["pull", "push"]

Positional = tyro.conf.Positional


def push(
    path: Positional[Path],
    destination: Positional[str],
    results: tuple[Path, ...] = (),
    licence: str = "unknown",
    intended_use: str = "",
    public: bool = False,
) -> None:
    """Share a checkpoint or an export: its files, their hashes and a model card.

    Args:
        path: export folder, checkpoint folder, or run folder (its best checkpoint).
        destination: a folder, a URL such as s3://bucket/name, or, after `hf auth login`, hf://USER/NAME for the
            Hugging Face hub.
        results: folders of `mmrec evaluate`, whose metrics and intervals go into the model card.
        licence: of the weights, an identifier of the hub such as apache-2.0.
        intended_use: what the model is meant for, for the model card; else it names the usual uses.
        public: a new repository of the hub is seen by everybody; else by you alone.
    """
    from mmrec.hub import push as push_model

    settings = CardSettings(licence=licence, intended_use=intended_use)
    print(f"pushed: {push_model(path, destination, results=results, settings=settings, public=public)}")


def pull(source: Positional[str], path: Positional[Path]) -> None:
    """Fetch what was pushed, every file compared with its hash; `mmrec.load(PATH)` opens it.

    Args:
        source: a folder, a URL, or hf://USER/NAME.
        path: folder to make; must not exist.
    """
    from mmrec.hub import pull as pull_model

    print(f"pulled: {path} ({pull_model(source, path)})")
