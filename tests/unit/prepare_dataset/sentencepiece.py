"""Tokenizers whose tokens do not line up with bytes: what Llama 2 and Japanese sentencepiece models bring, made small."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from components.prepare_dataset.samples.tokens import Encoder, load_encoder
from tests.unit.prepare_dataset.conftest import NOW

_INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
_SENTENCES = ("What is 12?", "12 is 12.", "[INST]", "[/INST]", "ハンカクは？", "青です。") * 8
_SPECIAL = ["<unk>", "<s>", "</s>"]


def like_llama_2(folder: Path) -> Encoder:
    """BPE over the whole text with `▁` put before it and for each space; unknown characters fall back to bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(_SENTENCES, trainers.BpeTrainer(vocab_size=320, special_tokens=special, show_progress=False))
    return _saved(tokenizer, folder)


def like_a_japanese_sentencepiece(folder: Path) -> Encoder:
    """Unigram after NFKC, which makes full-width letters of half-width ones, so that lengths change."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=_SPECIAL, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    return _saved(tokenizer, folder)


def _saved(tokenizer: Tokenizer, folder: Path) -> Encoder:
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": _INSTRUCT}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    (folder / "config.json").write_text(json.dumps({"vocab_size": tokenizer.get_vocab_size()}))
    return load_encoder(folder, "model", now=NOW)
