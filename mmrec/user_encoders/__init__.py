"""Encoders of users: item vectors in order -> user vectors. One encoder, one file."""

from mmrec.user_encoders.mean_pool import MeanPool, MeanPoolConfig
from mmrec.user_encoders.sasrec import SASRec, SASRecConfig

__all__ = ["USER_ENCODERS", "MeanPool", "MeanPoolConfig", "SASRec", "SASRecConfig", "UserEncoder", "UserEncoderConfig"]

UserEncoder = SASRec | MeanPool
UserEncoderConfig = SASRecConfig | MeanPoolConfig

USER_ENCODERS = {"sasrec": SASRecConfig, "mean_pool": MeanPoolConfig}
