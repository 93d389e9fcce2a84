"""A fastText model that the operator brings: lid.176, NLLB's lid218e, GlotLID or any other whose labels are languages.

Read by the package fasttext-predict (MIT), an extra: `pip install 'nllbd[fasttext]'`. Models are trusted files: the
reader checks nothing, and one that is cut short would have it fill the memory. So head and tail are looked at here.
"""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from nllbd.errors import ConfigError
from nllbd.text.detect.evidence import in_script
from nllbd.text.detect.han import chinese_of
from nllbd.text.detect.labels import FOREIGN, codes_of

_MAGIC = 793_712_314
#: FastText::signModel, Args::save and the head of Dictionary::save, in fastText's sources.
_HEAD = struct.Struct("<ii12id3i2q")
_ROWS_AND_COLUMNS = struct.Struct("<2q")
_PREFIX = "__label__"
_MAX_LABELS = 40
_ANYTHING, _ALL = "a", 10_000  # there is no other way to ask for the labels


def check_model_file(path: Path) -> None:
    """Raise ConfigError unless `path` can be a fastText model and the package that reads it is installed."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD.size)
            if len(head) < _HEAD.size or _HEAD.unpack(head)[0] != _MAGIC:
                raise _refusal(path, "not a fastText model (.bin or .ftz)")
            if not _is_whole(stream, head):
                raise _refusal(path, "cut short, or a model whose labels' vectors are quantized")
    except OSError as error:
        raise _refusal(path, error.strerror or type(error).__name__) from None
    if find_spec("fasttext") is None:
        raise _refusal(path, "the package that reads it is missing: pip install 'nllbd[fasttext]'")


def _is_whole(stream: BinaryIO, head: bytes) -> bool:
    """Whether the file ends with a matrix of the labels' vectors, and so is as long as it was written."""
    fields = _HEAD.unpack(head)
    dimension, num_labels = fields[2], fields[17]
    begin = stream.seek(0, 2) - 4 * dimension * num_labels - _ROWS_AND_COLUMNS.size
    if dimension <= 0 or num_labels <= 0 or begin < _HEAD.size:
        return False
    stream.seek(begin)
    return _ROWS_AND_COLUMNS.unpack(stream.read(_ROWS_AND_COLUMNS.size)) == (num_labels, dimension)


class FastText:
    """A model file's probabilities. Loading takes as much memory as the file is long."""

    def __init__(self, path: Path) -> None:
        check_model_file(path)
        import fasttext

        try:
            self._model: Any = fasttext.load_model(str(path))
            labels = [label.removeprefix(_PREFIX) for label in self._model.predict(_ANYTHING, k=_ALL)[0]]
        except (RuntimeError, ValueError, MemoryError) as error:
            raise _refusal(path, f"cannot be loaded: {error}") from None
        self._code = codes_of(labels)
        if "sq" in self._code:  # Wikipedia's names, among which als is Alemannic
            self._code["als"] = FOREIGN + "gsw"
        self.codes = frozenset(code for code in self._code.values() if not code.startswith(FOREIGN))
        if not self.codes:
            raise _refusal(path, "none of its labels is a language of NLLB-200")

    def weigh(self, sample: str, script: str) -> dict[str, float]:
        labels, probabilities = self._model.predict(sample.replace("\n", " "), k=_MAX_LABELS)
        shares: dict[str, float] = {}
        for label, probability in zip(labels, probabilities, strict=True):
            code = self._code.get(label.removeprefix(_PREFIX), FOREIGN)
            if code == "zho_Hans" and "zho_Hant" not in self.codes:
                code = chinese_of(sample)
            code = in_script(code, script)
            if code:
                shares[code] = shares.get(code, 0.0) + min(1.0, max(0.0, float(probability)))
        total = sum(shares.values())
        return {code: share / total for code, share in shares.items()} if total else {}


def _refusal(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"detect_model {path}: {reason}", field="detect_model")
