"""Encoders of users: item vectors in order -> user vectors. One encoder, one file."""

from mmrec.user_encoders.base import UserEncoder, UserState
from mmrec.user_encoders.bert4rec import BERT4Rec, BERT4RecConfig
from mmrec.user_encoders.gru4rec import GRU4Rec, GRU4RecConfig
from mmrec.user_encoders.hstu import HSTU, HSTUConfig
from mmrec.user_encoders.ligr import LiGR, LiGRConfig
from mmrec.user_encoders.mean_pool import MeanPool, MeanPoolConfig
from mmrec.user_encoders.sasrec import SASRec, SASRecConfig

__all__ = [
    "HSTU",
    "USER_ENCODERS",
    "BERT4Rec",
    "BERT4RecConfig",
    "GRU4Rec",
    "GRU4RecConfig",
    "HSTUConfig",
    "LiGR",
    "LiGRConfig",
    "MeanPool",
    "MeanPoolConfig",
    "SASRec",
    "SASRecConfig",
    "UserEncoder",
    "UserEncoderConfig",
    "UserState",
]

UserEncoderConfig = SASRecConfig | LiGRConfig | HSTUConfig | GRU4RecConfig | BERT4RecConfig | MeanPoolConfig

USER_ENCODERS = {
    "sasrec": SASRecConfig,
    "ligr": LiGRConfig,
    "hstu": HSTUConfig,
    "gru4rec": GRU4RecConfig,
    "bert4rec": BERT4RecConfig,
    "mean_pool": MeanPoolConfig,
}
