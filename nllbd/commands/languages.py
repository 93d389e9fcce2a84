"""List the languages of a model: FLORES code, BCP-47 tag, English name, name of its own, whether it is detectable."""

from __future__ import annotations

import argparse

from nllbd.commands.options import add_settings, settings_from
from nllbd.commands.output import print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, ["model", "model_dir", "detect_threshold", "detect_model"])
    parser.add_argument("--all", action="store_true", help="all 202 languages of NLLB-200, whatever the model knows")


def run(args: argparse.Namespace) -> int:
    from nllbd.checkpoint import read_checkpoint, resolve_model
    from nllbd.languages import Languages
    from nllbd.text.detect import Detector

    settings = settings_from(args)
    codes = None if args.all else read_checkpoint(resolve_model(settings.model, settings.model_dir)).languages
    languages = Languages(codes)
    detectable = Detector(languages, settings.detect_threshold, settings.detect_model).detectable()
    rows = [
        (it.code, it.bcp47, it.name, it.native_name or "", "yes" if it.code in detectable else "no") for it in languages
    ]
    print_table(("CODE", "BCP-47", "NAME", "OWN NAME", "DETECTABLE"), rows)
    return 0
