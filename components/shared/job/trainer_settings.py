"""Keyword arguments of transformers' TrainingArguments that every training of hagane has, whatever
its spec says."""

from types import MappingProxyType
from typing import Any

TRAINER_SETTINGS: MappingProxyType[str, Any] = MappingProxyType(
    {
        "save_strategy": "epoch",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_num_workers": 0,
    }
)
