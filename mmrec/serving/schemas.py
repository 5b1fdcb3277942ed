"""Shapes of requests and answers; what is described here stands in the documentation of the server."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "EmbedRequest",
    "ErrorBody",
    "Health",
    "HistoryBody",
    "HitBody",
    "ItemBody",
    "QueryBody",
    "ReasonBody",
    "RecommendRequest",
    "RecordBody",
    "ReloadBody",
    "Results",
    "SearchRequest",
    "SimilarRequest",
    "Vectors",
]

ItemId = Annotated[str, Field(min_length=1, max_length=1024)]
Text = Annotated[str, Field(min_length=1, max_length=100_000)]
Seconds = Annotated[int, Field(ge=-(1 << 40), le=1 << 40)]
K = Annotated[int, Field(ge=1, description="Answers to each question; fewer come if fewer are left.", examples=[10])]
Where = Annotated[
    dict[str, Annotated[list[Annotated[str, Field(max_length=1024)]], Field(max_length=1000)]] | None,
    Field(
        description="Attribute of the items -> values allowed. An item has to fit all.",
        examples=[{"category": ["lamp", "chair"]}],
    ),
]


class _Body(BaseModel):
    # Ids and values of attributes are strings to mmrec; many are numbers to those who write them.
    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


class HistoryBody(_Body):
    """What a user took, oldest first."""

    items: list[ItemId] = Field(examples=[["P00", "P01"]])
    times: list[Seconds] | None = Field(
        None, description="When each was taken, seconds since 1970; for models that read times."
    )
    at: Seconds | None = Field(None, description="When the next item is asked for, seconds since 1970; null: now.")
    disliked: list[ItemId] = Field([], description="Items that the answers shall keep away from.")


class RecommendRequest(_Body):
    """Items for users, one list for each history. What was taken is left out."""

    histories: list[HistoryBody] = Field(min_length=1)
    k: K = 10
    where: Where = None
    rerank: Annotated[str, Field(max_length=1024)] | None = Field(
        None,
        description="Another order: mmr:LAMBDA for variety, cap:COLUMN=N for N of a kind at most, fair:COLUMN.",
        examples=["mmr:0.7"],
    )
    explain: bool = Field(False, description='With "why" for each answer: what its score owes to which item.')


class SimilarRequest(_Body):
    """Items like others, one list for each."""

    items: list[ItemId] = Field(min_length=1, examples=[["P00", "P01"]])
    k: K = 10
    where: Where = None


class QueryBody(_Body):
    """What to search near: a text, items and a history, taken together."""

    text: Text | None = Field(None, examples=["a red lamp"])
    items: list[ItemId] = []
    history: HistoryBody | None = None


class SearchRequest(_Body):
    """Items near to questions, one list for each."""

    queries: list[QueryBody] = Field(min_length=1, examples=[[{"text": "a red lamp"}]])
    k: K = 10
    where: Where = None


class RecordBody(_Body):
    """A new item. Pictures, sounds and clips come as a form."""

    text: Text = Field(examples=["a red lamp"])


class EmbedRequest(_Body):
    """New items, of which the vectors are wanted."""

    records: list[RecordBody] = Field(min_length=1)


class ReasonBody(BaseModel):
    """One part of a question, beside an answer to it."""

    part: str = Field(description="history, item, or the modality of a new item.", examples=["history"])
    item_id: str = Field(examples=["P00"])
    title: str = Field(examples=["a green lamp"])
    drop: float = Field(description="What the score would lose without this part.", examples=[0.2])
    cosine: float = Field(description="Of the two vectors.", examples=[0.7])


class HitBody(BaseModel):
    """One answer."""

    rank: int = Field(examples=[1])
    item_id: str = Field(examples=["P07"])
    title: str = Field(examples=["a red lamp"])
    score: float = Field(description="The inner product; of unit vectors the cosine.", examples=[0.83])
    modalities: list[str] = Field([], examples=[["image", "text"]])
    why: list[ReasonBody] | None = Field(None, description="With explain; the most important reasons first.")
    made_of: dict[str, float] | None = Field(
        None, description="With explain: of fusion's weights those of each modality.", examples=[{"image": 0.6}]
    )


class Results(BaseModel):
    """One list of answers for each question, best first."""

    results: list[list[HitBody]]


class Vectors(BaseModel):
    """One unit vector for each record."""

    vectors: list[list[float]] = Field(examples=[[[0.6, 0.8]]])


class ItemBody(BaseModel):
    """What the export knows of an item."""

    item_id: str
    title: str
    modalities: list[str]
    attributes: dict[str, str | int | float | bool | None]


class Health(BaseModel):
    """What is served, and whether the last reload went well."""

    status: Literal["ok", "reload failed"]
    reload_error: str | None
    export: str = Field(description="Changes with any file of the export; every answer names it in X-Export.")
    model_hash: str
    num_items: int
    dim: int
    modalities: list[str]


class ReloadBody(BaseModel):
    """Whether another export is served now."""

    reloaded: bool
    export: str


class ErrorBody(BaseModel):
    """Why a request was refused."""

    error: str = Field(examples=["unknown item 'P99'"])
