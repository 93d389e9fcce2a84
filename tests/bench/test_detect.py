"""The bench of detection: catalogues are read as they should be, and figures add up."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from bench.detect import pick, read_sample, score, table, write_sample
from bench.detect_texts import Texts, code_of, read_texts

LONG = "Diese Datei kann nicht gelesen werden, denn sie gehört jemand anderem und ist nur für diesen zu lesen bestimmt"


def write_catalogue(folder: Path, locale: str, messages: dict[str, str]) -> None:
    """A .mo file as GNU gettext writes it."""
    pairs = sorted({"": "Content-Type: text/plain; charset=UTF-8\n", **messages}.items())
    columns = [[pair[column].encode() + b"\0" for pair in pairs] for column in (0, 1)]
    count = len(pairs)
    begin = 28 + 16 * count
    tables, data = b"", b""
    for column in columns:
        for item in column:
            tables += struct.pack("<II", len(item) - 1, begin + len(data))
            data += item
    path = folder / "usr" / "share" / "locale" / locale / "LC_MESSAGES" / "x.mo"
    path.parent.mkdir(parents=True)
    path.write_bytes(struct.pack("<7I", 0x950412DE, 0, count, 28, 28 + 8 * count, 0, 0) + tables + data)


def test_texts(tmp_path: Path) -> None:
    write_catalogue(
        tmp_path,
        "de",
        {
            "_File not found": "_Datei nicht gefunden",
            "Where?\x04Open": "Öffnen …",
            "%s files": "%s Dateien",
            "Print <b>now</b>": "<b>Jetzt</b> drucken",
            "Same": "Same",
            "Page": "Página",
            "Long": LONG,
        },
    )
    write_catalogue(tmp_path, "es", {"Page": "Página", "Printer": "Impresora"})
    write_catalogue(tmp_path, "sr@latin", {"Printer": "Stampac"})
    texts = read_texts([tmp_path])
    assert texts["deu_Latn"] == Texts(["Datei nicht gefunden", "Öffnen"], [LONG])
    assert texts["spa_Latn"] == Texts(["Impresora"])
    assert texts["eng_Latn"].short == ["File not found", "Long", "Open", "Page", "Printer"]
    assert set(texts) == {"deu_Latn", "spa_Latn", "eng_Latn"}


@pytest.mark.parametrize(
    ("locale", "code"),
    [("pt_BR", "por_Latn"), ("zh_TW", "zho_Hant"), ("zh_CN", "zho_Hans"), ("nb", "nob_Latn"), ("sr@latin", None)],
)
def test_locales(locale: str, code: str | None) -> None:
    assert code_of(locale) == code


def test_score_and_table(tmp_path: Path) -> None:
    sample = {"deu_Latn": Texts(["a", "b"], ["c"]), "fra_Latn": Texts(["d", "e"], ["f"])}
    write_sample(tmp_path / "sample.json", sample)
    assert read_sample(tmp_path / "sample.json") == sample

    def detect(text: str) -> tuple[str | None, float | None]:
        return (None, 0.2) if text == "e" else ("deu_Latn", 0.8)

    short, long = score(detect, sample, "short"), score(detect, sample, "long")
    assert (short.right, short.answered, long.right, long.right_of_answered) == (0.5, 0.75, 0.5, 0.5)
    assert short.right_of_answered == pytest.approx(2 / 3)
    assert short.calibration == [(3, pytest.approx(0.8), pytest.approx(2 / 3))]
    result = {"short": vars(short), "long": vars(long), "load_s": 0.1, "memory_mb": 5.0, "text_us": 9.0}
    assert "| x | 50.0% | 75.0% | 66.7% | 50.0% |" in table({"x": result})


def test_only_one_half_is_measured() -> None:
    texts = Texts([f"text {number}" for number in range(100)], [f"long {number}" for number in range(100)])
    picked = pick({"deu_Latn": texts, "fra_Latn": Texts(["x"], [])}, 20, min_short=50, min_long=10)
    assert list(picked) == ["deu_Latn"]
    assert len(picked["deu_Latn"].short) == 20
    assert picked == pick({"deu_Latn": Texts(texts.short[::-1], texts.long[::-1])}, 20, min_short=50, min_long=10)
