"""Imported before peft, which imports bitsandbytes where it is installed, for every LoRA."""

import torch

from components.shared.model.uncompiled import import_uncompiled

import_uncompiled("bitsandbytes", torch)
