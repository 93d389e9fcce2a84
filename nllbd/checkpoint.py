"""An NLLB-200 checkpoint folder, read without torch or transformers: shapes, defaults, languages, files.

The daemon (which never imports torch) and the engine both start from here. Weights are `model/weights.py`'s business.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nllbd.errors import CheckpointError
from nllbd.languages import BY_CODE
from nllbd.sched.sequence import EarlyStopping

DEMO_FOLDER = Path(__file__).parent / "demo"
SENTENCEPIECE_FILE = "sentencepiece.bpe.model"
# What of a file counts for the fingerprint: all of a small one, samples of a large one.
_WHOLE_BYTES = 32 << 20
_NUM_SAMPLES, _SAMPLE_BYTES = 512, 4096
# Far beyond any NLLB-200 model, and still no danger: what exceeds them is a damaged file.
_MAX_VOCABULARY, _MAX_WIDTH, _MAX_LAYERS, _MAX_POSITIONS = 1 << 24, 1 << 20, 1 << 10, 1 << 20


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
        f"give the folder of an NLLB-200 checkpoint, or 'demo' for the bundled one{_hint(model)}",
        field="model",
    )


def _hint(model: str) -> str:
    is_hub_id = model.count("/") == 1 and not model.startswith((".", "/", "~"))
    return f"; `nllbd model pull {model}` fetches it from a hub" if is_hub_id else ""


def read_checkpoint(path: Path, name: str | None = None) -> Checkpoint:
    """Read and check a checkpoint folder's small files.

    Raises CheckpointError naming the file and what is wrong with it.
    """
    config = _read_object(path / "config.json")
    if config.get("model_type") != "m2m_100":
        raise CheckpointError(
            f"{path / 'config.json'}: model_type is {_shown(config.get('model_type'))}; nllbd serves m2m_100 (NLLB-200)"
        )
    if not (path / SENTENCEPIECE_FILE).is_file():
        raise CheckpointError(f"{path}: {SENTENCEPIECE_FILE} is missing")
    tokenizer = _Fields(path / "tokenizer_config.json", required=False)
    return Checkpoint(
        path=path,
        name=name or ("demo" if path == DEMO_FOLDER else path.name.replace("--", "/")),
        config=_model_config(_Fields(path / "config.json")),
        generation=_generation_defaults(_Fields(path / "generation_config.json", required=False)),
        languages=_languages(path / "languages.json"),
        legacy_code_position=tokenizer.flag("legacy_behaviour", False),
        fingerprint=_fingerprint(path),
    )


class _Fields:
    """The fields of one JSON file. Whatever is missing or wrong is a CheckpointError that names file and field."""

    def __init__(self, path: Path, *, required: bool = True) -> None:
        self._path = path
        self._raw = _read_object(path, required=required)

    def count(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number from `low` to `high`."""
        found = self.optional_count(name, low, high)
        found = default if found is None else found
        if found is None:
            raise CheckpointError(f"{self._path}: {name} is missing")
        return found

    def optional_count(self, name: str, low: int, high: int) -> int | None:
        value = self._raw.get(name)
        if value is not None and (type(value) is not int or not low <= value <= high):
            raise self.refusal(name, f"a whole number from {low} to {high}")
        return value

    def optional_number(self, name: str, low: float, high: float) -> float | None:
        value = self._raw.get(name)
        if value is not None and (type(value) not in (int, float) or not low <= value <= high):
            raise self.refusal(name, f"a number from {low:g} to {high:g}")
        return None if value is None else float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._raw.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.refusal(name, "true or false")
        return default if value is None else value

    def choice(self, name: str, *values: object) -> Any:
        """One of `values`, or None. True is not 1 here."""
        value = self._raw.get(name)
        if value is not None and not any(type(value) is type(it) and value == it for it in values):
            raise self.refusal(name, " or ".join(json.dumps(it) for it in values))
        return value

    def refusal(self, name: str, expected: str) -> CheckpointError:
        return CheckpointError(f"{self._path}: {name} is {_shown(self._raw.get(name))}; expected {expected}")


def _model_config(fields: _Fields) -> ModelConfig:
    vocab_size = fields.count("vocab_size", 1, _MAX_VOCABULARY)
    fields.choice("activation_function", "relu")
    config = ModelConfig(
        vocab_size=vocab_size,
        d_model=fields.count("d_model", 1, _MAX_WIDTH),
        encoder_layers=fields.count("encoder_layers", 1, _MAX_LAYERS),
        decoder_layers=fields.count("decoder_layers", 1, _MAX_LAYERS),
        encoder_heads=fields.count("encoder_attention_heads", 1, _MAX_WIDTH),
        decoder_heads=fields.count("decoder_attention_heads", 1, _MAX_WIDTH),
        encoder_ffn=fields.count("encoder_ffn_dim", 1, _MAX_WIDTH),
        decoder_ffn=fields.count("decoder_ffn_dim", 1, _MAX_WIDTH),
        max_positions=fields.count("max_position_embeddings", 8, _MAX_POSITIONS, 1024),
        scale_embedding=fields.flag("scale_embedding", True),
        pad_id=fields.count("pad_token_id", 0, vocab_size - 1, 1),
        bos_id=fields.count("bos_token_id", 0, vocab_size - 1, 0),
        eos_id=fields.count("eos_token_id", 0, vocab_size - 1, 2),
        decoder_start_id=fields.count("decoder_start_token_id", 0, vocab_size - 1, 2),
    )
    for name, heads in (
        ("encoder_attention_heads", config.encoder_heads),
        ("decoder_attention_heads", config.decoder_heads),
    ):
        if config.d_model % heads:
            raise fields.refusal(name, f"a divisor of d_model, {config.d_model}")
    return config


def _generation_defaults(fields: _Fields) -> GenerationDefaults:
    """What is out of any reason is damage; what is merely more than a server allows yields to its caps later."""
    return GenerationDefaults(
        num_beams=fields.optional_count("num_beams", 1, 1024),
        length_penalty=fields.optional_number("length_penalty", -10, 10),
        early_stopping=fields.choice("early_stopping", True, False, "never"),
        max_length=fields.optional_count("max_length", 3, _MAX_POSITIONS),
    )


def _languages(path: Path) -> tuple[str, ...] | None:
    """The codes in `languages.json`, or None where there is no such file."""
    if not path.is_file():
        return None
    codes = _read_json(path)
    if not isinstance(codes, list) or not codes or not all(isinstance(code, str) for code in codes):
        raise CheckpointError(f'{path}: expected a list of FLORES-200 codes such as ["eng_Latn"], got {_shown(codes)}')
    strange = [code for code in codes if code not in BY_CODE]
    if strange:
        raise CheckpointError(f"{path}: not language codes of NLLB-200: {_shown(strange)}")
    return tuple(codes)


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:60] + "…"


def _read_object(path: Path, *, required: bool = True) -> dict[str, Any]:
    found = _read_json(path, required=required)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {_shown(found)}")
    return found


def _read_json(path: Path, *, required: bool = True) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise CheckpointError(f"{path.parent}: {path.name} is missing; is this an NLLB checkpoint?") from None
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from None
    except RecursionError:
        raise CheckpointError(f"{path}: cannot be read as JSON: nested too deeply") from None


def _fingerprint(path: Path) -> str:
    """Identity of the checkpoint for caches: small files by content, weights by name, size and many samples."""
    try:
        return _digest(file for file in sorted(path.iterdir()) if file.is_file())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        if file.suffix not in {".json", ".model", ".safetensors", ".bin"} or file.name == "held_out.json":
            continue
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as stream:
            for start, length in _looked_at(size):
                stream.seek(start)
                digest.update(stream.read(length))
    return digest.hexdigest()[:16]


def _looked_at(size: int) -> Iterator[tuple[int, int]]:
    """Where a file is read, as (start, length): whole, or in samples so close that a layer trained anew is met."""
    if size <= _WHOLE_BYTES:
        yield 0, size
        return
    for number in range(_NUM_SAMPLES):
        yield number * (size - _SAMPLE_BYTES) // (_NUM_SAMPLES - 1), _SAMPLE_BYTES
