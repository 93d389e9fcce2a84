"""The choice between GPU and interpreter must precede the import of Triton's kernels."""

from tests.kernels.interpreter import use_interpreter

use_interpreter()
