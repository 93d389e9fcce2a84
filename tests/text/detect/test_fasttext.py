"""An operator's fastText model: one that is written here, byte by byte, and read by the real package."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from nllbd.errors import ConfigError
from nllbd.languages import Languages
from nllbd.text.detect import Detector
from nllbd.text.detect import fasttext as ours

Vectors = dict[str, tuple[float, ...]]
GERMAN, ENGLISH, KLINGON = (9.0, 0.0, 0.0), (0.0, 9.0, 0.0), (0.0, 0.0, 9.0)
WORDS: Vectors = {"hallo": GERMAN, "welt": GERMAN, "hello": ENGLISH, "world": ENGLISH, "nuqneh": KLINGON}


def write_model(path: Path, words: Vectors, labels: Vectors) -> Path:
    """A supervised model of format 12, softmax, without subwords (fastText's Dictionary::save and Args::save)."""
    size = len(next(iter(words.values())))
    content = struct.pack("<ii12id", 793_712_314, 12, size, 5, 1, 1, 5, 1, 3, 3, 0, 0, 0, 100, 1e-4)
    entries = [("</s>", 0), *((word, 0) for word in words), *((label, 1) for label in labels)]
    content += struct.pack("<iiiqq", len(entries), len(words) + 1, len(labels), 100, -1)
    for text, kind in entries:
        content += text.encode() + b"\0" + struct.pack("<qb", 10, kind)
    for matrix in ([(0.0,) * size, *words.values()], list(labels.values())):
        content += struct.pack("<?qq", False, len(matrix), size)
        content += b"".join(struct.pack(f"<{size}f", *row) for row in matrix)
    path.write_bytes(content)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    pytest.importorskip("fasttext", reason="fasttext-predict is not installed")
    labels = {"__label__deu_Latn": (1.0, 0, 0), "__label__eng_Latn": (0, 1.0, 0), "__label__tlh_Latn": (0, 0, 1.0)}
    return write_model(tmp_path / "lid.bin", WORDS, labels)


@pytest.mark.parametrize(
    ("text", "code"),
    [("hallo welt", "deu_Latn"), ("hello\nworld", "eng_Latn"), ("nuqneh nuqneh", None), ("welt world", None)],
)
def test_detection(model: Path, text: str, code: str | None) -> None:
    found = Detector(Languages(), 0.6, model).detect(text)
    assert (found.language.code if found.language else None) == code
    if code:
        assert found.confidence == pytest.approx(0.999, abs=0.01)


def test_only_what_the_model_knows_is_detectable(model: Path) -> None:
    assert {"deu_Latn", "eng_Latn"} <= Detector(Languages(), 0.5, model).detectable()
    assert "fra_Latn" not in Detector(Languages(), 0.5, model).detectable()
    assert Detector(Languages(["eng_Latn"]), 0.5, model).detect("hallo welt").language is None


def test_wikipedia_s_names(tmp_path: Path) -> None:
    """lid.176 says `als` for Alemannic; in FLORES that is Albanian."""
    pytest.importorskip("fasttext", reason="fasttext-predict is not installed")
    labels = {"__label__sq": (1.0, 0, 0), "__label__als": (0, 1.0, 0), "__label__zh": (0, 0, 1.0)}
    model = write_model(tmp_path / "lid.bin", {"po": GERMAN, "nid": ENGLISH, "檔案": KLINGON, "文件": KLINGON}, labels)
    detector = Detector(Languages(), 0.5, model)
    codes = [found.language and found.language.code for found in map(detector.detect, ("po po", "nid nid", "檔案"))]
    assert codes == ["als_Latn", None, "zho_Hant"]


def test_what_is_no_model_is_refused_at_the_start(tmp_path: Path, model: Path) -> None:
    (tmp_path / "text").write_text("no model")
    (tmp_path / "cut").write_bytes(model.read_bytes()[:-1])
    (tmp_path / "shorter").write_bytes(model.read_bytes()[:50])
    for path, says in (
        (tmp_path / "nowhere", "No such file"),
        (tmp_path / "text", "not a fastText model"),
        (tmp_path / "cut", "cut short"),
        (tmp_path / "shorter", "not a fastText model"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(ConfigError, match=says):
            Detector(Languages(), 0.5, path)


def test_without_the_package(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'nllbd\[fasttext\]'"):
        Detector(Languages(), 0.5, model)


def test_a_model_of_something_else(tmp_path: Path) -> None:
    pytest.importorskip("fasttext", reason="fasttext-predict is not installed")
    model = write_model(tmp_path / "m.bin", {"a": (1.0,)}, {"__label__spam": (1.0,), "__label__ham": (2.0,)})
    with pytest.raises(ConfigError, match="none of its labels"):
        Detector(Languages(), 0.5, model).detect("Hello there")
