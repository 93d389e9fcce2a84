"""nllbd: a server for Meta's NLLB-200 translation models, continuously batched.

Importing this package (or anything of it outside `engine`, `model` and `kernels`) never imports torch.
"""

__version__ = "0.1.0"
