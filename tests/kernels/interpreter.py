"""Lets Triton's kernels run on the CPU, by its interpreter (tests/conftest.py asks for it).

Two shortcomings of Triton 3.6's interpreter are mended here, not in the kernels, which compiled are right as they are.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any


def use_interpreter() -> None:
    """Without effect where kernels are compiled, or there is no Triton."""
    if os.environ.get("TRITON_INTERPRET") != "1" or find_spec("triton") is None:
        return
    from triton.runtime import interpreter

    if getattr(interpreter, "mended", False):
        return
    interpreter.mended = True  # type: ignore[attr-defined]
    _mend_loop_bounds(interpreter)
    _mend_bfloat16_products(interpreter)


def _mend_loop_bounds(interpreter: Any) -> None:
    """It makes integers of arrays with one element, which NumPy ≥ 2.4 no longer allows."""
    original = interpreter._patch_lang_tensor

    def patch(tensor: Any, scope: Any) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch


def _mend_bfloat16_products(interpreter: Any) -> None:
    """It keeps bfloat16 as uint16, and multiplies matrices of those."""
    import triton.language as tl

    original = interpreter.InterpreterBuilder.create_dot

    def widen(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        wide = handle.data.astype("uint32") << 16
        return interpreter.TensorHandle(wide.view("float32"), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any) -> Any:
        return original(self, widen(a), widen(b), d, input_precision, max_num_imprecise_acc)

    interpreter.InterpreterBuilder.create_dot = create_dot
