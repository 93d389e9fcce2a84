"""An NLLB-200 checkpoint folder, read without torch or transformers: shapes, defaults, languages, files.

The daemon (which never imports torch) and the engine both start from here. Weights are `model/weights.py`'s business.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nllbd.errors import CheckpointError
from nllbd.sched.sequence import EarlyStopping

DEMO_FOLDER = Path(__file__).parent / "demo"
SENTENCEPIECE_FILE = "sentencepiece.bpe.model"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shapes of an M2M100 network, from `config.json`. All counts; `head_dim` is d_model / heads."""

    vocab_size: int
    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_heads: int
    decoder_heads: int
    encoder_ffn: int
    decoder_ffn: int
    max_positions: int
    scale_embedding: bool
    pad_id: int = 1
    bos_id: int = 0
    eos_id: int = 2
    decoder_start_id: int = 2


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """The search settings that `generation_config.json` names; None where it is silent."""

    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: EarlyStopping | None = None
    max_length: int | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One model folder. `languages` are the FLORES codes it was trained on, or None for all 202."""

    path: Path
    name: str
    config: ModelConfig
    generation: GenerationDefaults
    languages: tuple[str, ...] | None
    legacy_code_position: bool
    fingerprint: str

    @property
    def sentencepiece_path(self) -> Path:
        return self.path / SENTENCEPIECE_FILE


def resolve_model(model: str, model_dir: Path | None = None) -> Path:
    """Folder of a model: `demo`, a path, or a hub id that was pulled into `model_dir`.

    Raises CheckpointError that says where it looked.
    """
    if model == "demo":
        return DEMO_FOLDER
    direct = Path(model).expanduser()
    if direct.is_dir():
        return direct
    looked = [str(direct)]
    if model_dir is not None:
        pulled = model_dir / model.replace("/", "--")
        if pulled.is_dir():
            return pulled
        looked.append(str(pulled))
    raise CheckpointError(
        f"no model {model!r}: looked for the folder {' and '.join(looked)}; "
        "give the folder of an NLLB-200 checkpoint, or 'demo' for the bundled one",
        field="model",
    )


def read_checkpoint(path: Path, name: str | None = None) -> Checkpoint:
    """Read and check a checkpoint folder's small files.

    Raises CheckpointError naming the file and what is wrong with it.
    """
    config = _read_json(path / "config.json")
    if config.get("model_type") != "m2m_100":
        raise CheckpointError(
            f"{path / 'config.json'}: model_type is {config.get('model_type')!r}; nllbd serves m2m_100 (NLLB-200)"
        )
    if not (path / SENTENCEPIECE_FILE).is_file():
        raise CheckpointError(f"{path}: {SENTENCEPIECE_FILE} is missing")
    generation = _read_json(path / "generation_config.json", required=False)
    tokenizer = _read_json(path / "tokenizer_config.json", required=False)
    languages_file = path / "languages.json"
    languages = tuple(_read_json(languages_file)) if languages_file.is_file() else None
    return Checkpoint(
        path=path,
        name=name or ("demo" if path == DEMO_FOLDER else path.name.replace("--", "/")),
        config=_model_config(config, path),
        generation=_generation_defaults(generation, path),
        languages=languages,
        legacy_code_position=bool(tokenizer.get("legacy_behaviour", False)),
        fingerprint=_fingerprint(path),
    )


def _model_config(raw: dict[str, Any], path: Path) -> ModelConfig:
    try:
        config = ModelConfig(
            vocab_size=raw["vocab_size"],
            d_model=raw["d_model"],
            encoder_layers=raw["encoder_layers"],
            decoder_layers=raw["decoder_layers"],
            encoder_heads=raw["encoder_attention_heads"],
            decoder_heads=raw["decoder_attention_heads"],
            encoder_ffn=raw["encoder_ffn_dim"],
            decoder_ffn=raw["decoder_ffn_dim"],
            max_positions=raw.get("max_position_embeddings", 1024),
            scale_embedding=bool(raw.get("scale_embedding", True)),
            pad_id=raw.get("pad_token_id", 1),
            bos_id=raw.get("bos_token_id", 0),
            eos_id=raw.get("eos_token_id", 2),
            decoder_start_id=raw.get("decoder_start_token_id", 2),
        )
    except KeyError as missing:
        raise CheckpointError(f"{path / 'config.json'}: {missing} is missing") from None
    if raw.get("activation_function", "relu") != "relu":
        raise CheckpointError(f"{path / 'config.json'}: activation {raw['activation_function']!r}, expected 'relu'")
    return config


def _generation_defaults(raw: dict[str, Any], path: Path) -> GenerationDefaults:
    early = raw.get("early_stopping")
    if early not in (None, True, False, "never"):
        raise CheckpointError(f"{path / 'generation_config.json'}: early_stopping is {early!r}")
    return GenerationDefaults(
        num_beams=raw.get("num_beams"),
        length_penalty=raw.get("length_penalty"),
        early_stopping=early,
        max_length=raw.get("max_length"),
    )


def _read_json(path: Path, *, required: bool = True) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise CheckpointError(f"{path.parent}: {path.name} is missing; is this an NLLB checkpoint?") from None
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from None


def _fingerprint(path: Path) -> str:
    """Identity of the checkpoint for caches: small files by content, weights by name, size and head and tail bytes."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.suffix not in {".json", ".model", ".safetensors", ".bin"} or file.name == "held_out.json":
            continue
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(1 << 16))
            if size > 1 << 17:
                stream.seek(-(1 << 16), 2)
                digest.update(stream.read())
    return digest.hexdigest()[:16]
