"""Model folders: `pull` one from a hub, `list` what is here, `info` on one, `verify` its files against its own
description and checksums, `quantize` one into a folder that loads faster and takes less memory in int8."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from nllbd.checkpoint import DEMO_FOLDER, Checkpoint, read_checkpoint, resolve_model
from nllbd.commands.options import add_settings, settings_from
from nllbd.commands.output import Progress, human_bytes, print_line, print_table
from nllbd.commands.pulling import add_pull, run_pull
from nllbd.config import Settings
from nllbd.errors import CheckpointError
from nllbd.languages import Languages
from nllbd.pull.pull import read_origin
from nllbd.weight_files import (
    TensorHeader,
    check_archive,
    check_shapes,
    known_checksums,
    read_headers,
    sha256,
    weight_files,
)

_MAX_PADDING = 1024  # ids beyond the last language code: `<mask>`, and what rounds the embedding up
_META_LICENCE = "Meta's NLLB-200 weights are licensed CC-BY-NC 4.0: not for commercial use."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_pull(actions.add_parser("pull", help="bring a model from a hub into model_dir; a pull that was cut continues"))
    add_settings(actions.add_parser("list", help="the bundled model and those in model_dir"), ["model_dir"])
    for name, purpose in (
        ("info", "shapes, size, languages, search defaults"),
        ("verify", "check descriptions, vocabulary and weight files, and print (or compare) sha256 checksums"),
    ):
        action = actions.add_parser(name, help=purpose)
        action.add_argument("name", nargs="?", metavar="MODEL", help="default: the setting `model`")
        add_settings(action, ["model", "model_dir"])
    action = actions.add_parser("quantize", help="write a model's int8 form, which loads faster, into a new folder")
    action.add_argument("source", metavar="SOURCE", help="demo, a model folder, or a hub id pulled before")
    action.add_argument("target", metavar="TARGET", type=Path, help="the new folder")
    add_settings(action, ["model_dir"])


def run(args: argparse.Namespace) -> int:
    settings = settings_from(args)
    if args.action == "pull":
        return run_pull(args, settings)
    if args.action == "list":
        return _list(settings)
    if args.action == "quantize":
        return _quantize(resolve_model(args.source, settings.model_dir), args.target)
    checkpoint = read_checkpoint(resolve_model(args.name or settings.model, settings.model_dir))
    return {"info": _info, "verify": _verify}[args.action](checkpoint)


def _list(settings: Settings) -> int:
    folders = [DEMO_FOLDER]
    if settings.model_dir is not None and settings.model_dir.is_dir():
        folders += sorted(it for it in settings.model_dir.iterdir() if _is_model(it))
    print_table(("NAME", "SIZE", "LANGUAGES", "FOLDER"), map(_summary, folders))
    return 0


def _is_model(folder: Path) -> bool:
    """Not a model on its way, which has a dot before its name."""
    return not folder.name.startswith(".") and (folder / "config.json").is_file()


def _summary(folder: Path) -> tuple[str, str, str, str]:
    try:
        checkpoint = read_checkpoint(folder)
        size = human_bytes(sum(file.stat().st_size for file in weight_files(folder)))
        return checkpoint.name, size, str(len(Languages(checkpoint.languages))), str(folder)
    except CheckpointError as error:
        return folder.name, "-", "-", f"{folder} (unusable: {error.message})"


def _info(checkpoint: Checkpoint) -> int:
    config, defaults = checkpoint.config, checkpoint.generation
    files = weight_files(checkpoint.path)
    languages = Languages(checkpoint.languages)
    facts = [
        ("name", checkpoint.name),
        ("folder", str(checkpoint.path)),
        ("weights", f"{human_bytes(sum(file.stat().st_size for file in files))} in {_counted(len(files), 'file')}"),
        ("tensors", _tensor_summary(files)),
        ("shape", f"d_model {config.d_model}, {config.encoder_layers} + {config.decoder_layers} layers"),
        ("heads, ffn", f"{config.encoder_heads} of {config.d_model // config.encoder_heads}, {config.encoder_ffn}"),
        ("vocabulary", str(config.vocab_size)),
        ("positions", str(config.max_positions)),
        ("languages", f"{len(languages)}: {' '.join(list(languages.codes)[:8])}{' …' if len(languages) > 8 else ''}"),
        ("num_beams", _or(defaults.num_beams, "4")),
        ("length_penalty", _or(defaults.length_penalty, "1.0")),
        ("early_stopping", _or(defaults.early_stopping, "true")),
        ("max_length", _or(defaults.max_length, "512")),
        ("fingerprint", checkpoint.fingerprint),
    ]
    for name, value in facts:
        print_line(f"{name:15} {value}")
    origin = read_origin(checkpoint.path)
    if origin is not None:
        print_line(f"{'pulled':15} {origin.model_id}, commit {origin.commit}")
    if origin is not None and origin.licence:
        print_line(f"{'licence':15} {origin.licence}")
    elif checkpoint.languages is None:
        print_line(f"{'licence':15} {_META_LICENCE}")
    return 0


def _tensor_summary(files: list[Path]) -> str:
    if files[0].suffix != ".safetensors":
        return "not read (.bin: only PyTorch can)"
    headers = _all_headers(files)
    per_dtype = Counter[str]()
    for header in headers.values():
        per_dtype[header.dtype] += header.num_elements
    counts = ", ".join(f"{count / 1e6:.1f} M {dtype}" for dtype, count in per_dtype.most_common())
    return f"{len(headers)} ({counts})"


def _verify(checkpoint: Checkpoint) -> int:
    folder = checkpoint.path
    _verify_vocabulary(checkpoint)
    files = weight_files(folder)
    if files[0].suffix == ".safetensors":
        headers = _all_headers(files)
        check_shapes(headers, checkpoint.config, folder)
        print_line(f"ok: {_counted(len(headers), 'tensor')}, each of the shape that config.json promises")
    else:
        for file in files:
            check_archive(file)
        print_line(f"ok: {_counted(len(files), 'archive')} undamaged (.bin: shapes are checked when it is loaded)")
    return _verify_checksums(folder)


def _verify_vocabulary(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError unless the SentencePiece model opens and is the one that the weights were made for."""
    from nllbd.text.tokenizer import Tokenizer

    size, used = checkpoint.config.vocab_size, Tokenizer(checkpoint).num_ids
    if size > used + _MAX_PADDING:
        raise CheckpointError(
            f"{checkpoint.path / 'config.json'}: vocab_size is {size}, but {checkpoint.sentencepiece_path.name} and "
            f"the language codes take only {used}; do they belong together?"
        )
    print_line(f"ok: the SentencePiece model and the language codes fill {used} of {size} ids")


def _quantize(source: Path, target: Path) -> int:
    from nllbd.model.quantize import quantize_checkpoint

    target = target.expanduser()
    with Progress("quantizing:") as progress:
        try:
            quantize_checkpoint(source, target, lambda done, total: progress.update(f"{done} of {total} tensors "))
        except OSError as error:
            raise CheckpointError(f"{error.filename or target}: {error.strerror or error}") from None
    before, after = (sum(file.stat().st_size for file in weight_files(folder)) for folder in (source, target))
    print_line(f"ok: {target}, {human_bytes(before)} of weights became {human_bytes(after)}")
    return 0


def _verify_checksums(folder: Path) -> int:
    """Print every file's checksum; with SHA256SUMS in the folder compare, without it leave that to the reader."""
    known = known_checksums(folder)
    missing = [name for name in known if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder}: SHA256SUMS lists {', '.join(missing)}, which {_is_or_are(missing)} missing")
    files = [folder / name for name in known] or [file for file in sorted(folder.iterdir()) if file.is_file()]
    total = sum(file.stat().st_size for file in files)
    done = 0
    wrong = []
    with Progress("reading") as progress:

        def advance(num_bytes: int) -> None:
            nonlocal done
            done += num_bytes
            progress.update(f"{human_bytes(done)} of {human_bytes(total)} ")

        for file in files:
            checksum = sha256(file, advance)
            progress.clear()
            print_line(f"{checksum}  {file.name}")
            if known and known[file.name] != checksum:
                wrong.append(file.name)
    if wrong:
        raise CheckpointError(f"{folder}: changed since SHA256SUMS was written: {', '.join(wrong)}")
    print_line("ok: as SHA256SUMS says" if known else "note: no SHA256SUMS in the folder to compare with")
    return 0


def _all_headers(files: list[Path]) -> dict[str, TensorHeader]:
    return {name: header for file in files for name, header in read_headers(file).items()}


def _or(value: object, built_in: str) -> str:
    return f"{built_in} (nllbd's; the model does not say)" if value is None else str(value).lower()


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _is_or_are(items: list[str]) -> str:
    return "is" if len(items) == 1 else "are"
