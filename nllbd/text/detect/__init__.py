"""Which language is a text in? `Detector` answers, with a confidence; it may answer *unknown*."""

from nllbd.text.detect.detector import MAX_CHARACTERS, Detection, Detector

__all__ = ["MAX_CHARACTERS", "Detection", "Detector"]
