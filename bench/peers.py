"""Each contestant's own form of a benchmark checkpoint: nllbd's pre-quantized one, CTranslate2's conversion, and
transformers with the file's positions.

The other two libraries compute sinusoids of the wide d_model by themselves, and would silently translate nonsense with
a widened checkpoint. Imports each library only when its form is asked for.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sentencepiece
from safetensors import safe_open

from nllbd.checkpoint import SENTENCEPIECE_FILE, read_checkpoint
from nllbd.languages import MODEL_CODES

if TYPE_CHECKING:
    import torch
    from transformers import M2M100ForConditionalGeneration


def load_transformers(folder: Path, dtype: torch.dtype) -> M2M100ForConditionalGeneration:
    """transformers' model in `dtype`, with the position tables of the file where it ships any."""
    from transformers import M2M100ForConditionalGeneration

    return use_own_positions(M2M100ForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval(), folder)


def use_own_positions(model: Any, folder: Path) -> Any:
    """Overwrite the (non-persistent) sinusoid buffers with the tables that the checkpoint ships, if it does."""
    with safe_open(str(folder / "model.safetensors"), framework="pt") as file:
        for side, stack in (("encoder", model.model.encoder), ("decoder", model.model.decoder)):
            name = f"model.{side}.embed_positions.weights"
            if name in file.keys():  # noqa: SIM118 - not a dict
                stack.embed_positions.weights = file.get_tensor(name).to(stack.embed_positions.weights)
    return model


def quantize_for_nllbd(folder: Path, cache_dir: Path) -> Path:
    """nllbd's pre-quantized int8 form of a checkpoint, as `nllbd model quantize` writes it; kept in `cache_dir`."""
    from nllbd.model import quantize, weights

    code = b"".join(Path(module.__file__).read_bytes() for module in (quantize, weights))
    target = _place(folder, cache_dir, f"nllbd-int8-{hashlib.sha256(code).hexdigest()[:8]}")
    if not target.is_dir():
        print(f"quantizing {folder.name} for nllbd (once)", flush=True)
        quantize.quantize_checkpoint(folder, target)
    return target


def convert_for_ctranslate2(folder: Path, compute_type: str, cache_dir: Path) -> Path:
    """CTranslate2's form of a checkpoint, kept in `cache_dir`."""
    target = _place(folder, cache_dir, f"ctranslate2-{compute_type}")
    if not target.is_dir():
        print(f"converting {folder.name} for CTranslate2, {compute_type} (once)", flush=True)
        unfinished = target.with_name(f"{target.name}.{os.getpid()}")
        _converter()(str(folder)).convert(str(unfinished), quantization=compute_type)
        unfinished.rename(target)
    return target


def _place(folder: Path, cache_dir: Path, form: str) -> Path:
    cache_dir = cache_dir.expanduser()
    cache_dir.mkdir(parents=True, exist_ok=True)
    return cache_dir / f"{folder.name}-{read_checkpoint(folder).fingerprint[:8]}-{form}"


def vocabulary(folder: Path) -> list[str]:
    """Token of each id as CTranslate2 names them, without the ids that no tokenizer makes."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / SENTENCEPIECE_FILE))
    pieces = [processor.id_to_piece(i) for i in range(3, len(processor))]
    return ["<s>", "<pad>", "</s>", "<unk>", *pieces, *MODEL_CODES, "<mask>"]


class _Tokens:
    """All that CTranslate2's loader asks of a tokenizer. NLLB's own would need files that the checkpoint lacks."""

    bos_token, eos_token, unk_token = "<s>", "</s>", "<unk>"
    unk_token_id = 3
    special_tokens_map: dict[str, Any] = {}  # noqa: RUF012 - read only

    def __init__(self, folder: str) -> None:
        self._tokens = vocabulary(Path(folder))

    def get_vocab(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self._tokens)}

    def convert_ids_to_tokens(self, token_id: int) -> str:
        return self._tokens[token_id]


def _converter() -> Any:
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):
        """CTranslate2's loader reads the position buffer: put the checkpoint's table there first."""

        def load_model(self, model_class: Any, path: str, **options: Any) -> Any:
            return use_own_positions(super().load_model(model_class, path, **options), Path(path))

        def load_tokenizer(self, tokenizer_class: Any, path: str, **options: Any) -> _Tokens:
            return _Tokens(path)

    return Converter
