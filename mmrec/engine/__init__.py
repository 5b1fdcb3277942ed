"""The Python interface of a trained model: vectors of new items and users, and answers from an export folder alone.

    engine = mmrec.load("exports/shop")
    engine.encode_items([{"text": "a red lamp", "image": Path("lamp.jpg")}])       # (1, D)
    engine.encode_users([History(items=("P00", "P01"))])                           # (1, D)
    engine.recommend(History(items=("P00", "P01"), disliked=("P07",)), k=10)       # list[Hit]
    engine.search(Query(record={"text": "a red lamp"}, items=("P00",)), k=10)      # list[Hit]

`mmrec search`, `recommend`, `serve` and `explore` are thin layers over it. What a call does not need is not loaded: a
search by item reads neither torch nor the model.
"""

from mmrec.engine.audience import Audience
from mmrec.engine.engine import Engine
from mmrec.engine.questions import History, Query
from mmrec.engine.reasons import Reason

__all__ = ["Audience", "Engine", "History", "Query", "Reason"]
