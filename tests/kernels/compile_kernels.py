"""Compiles every Triton kernel for NVIDIA's sm_90, which needs no GPU: the interpreter alone accepts too much.

    python -m tests.kernels.compile_kernels [float32 float16 bfloat16]

Calls the kernels' own wrappers with small tensors on the CPU; each launch becomes a compilation with the types,
constants and options it would have had. Prints a line a kernel: its name, constants and shared memory.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

TARGET = GPUTarget("cuda", 90, 32)
POINTERS = {
    torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float64: "*fp64",
    torch.int64: "*i64", torch.int32: "*i32", torch.uint8: "*u8", torch.bool: "*i1",
}  # fmt: skip
OPTIONS = {"num_warps", "num_stages"}
compiled: dict[str, int] = {}


def _compile(function: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
    """Stands in for JITFunction.run."""
    options = {name: kwargs.pop(name) for name in OPTIONS & kwargs.keys()}
    values = dict(zip(function.arg_names, args, strict=False)) | kwargs
    constants: dict[tuple[int, ...], Any] = {}
    signature: dict[str, str] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for place, parameter in enumerate(function.params):
        value = values[parameter.name]
        if isinstance(value, torch.Tensor):
            signature[parameter.name] = POINTERS[value.dtype]
            attributes[(place,)] = [["tt.divisibility", 16]]
        elif parameter.is_constexpr or (isinstance(value, int) and value == 1):
            signature[parameter.name] = "constexpr"
            constants[(place,)] = value
        elif isinstance(value, int):
            signature[parameter.name] = "i32" if abs(value) < 1 << 31 else "i64"
            if value % 16 == 0:
                attributes[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "fp32"
    key = f"{function.__name__} {signature} {constants} {options}"
    if key in compiled:
        return
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=attributes)
    binary = triton.compile(source, target=TARGET, options=options)
    compiled[key] = binary.metadata.shared
    shapes = [value for (place,), value in constants.items() if function.params[place].is_constexpr]
    sys.stdout.write(
        f"{function.__name__} {shapes} warps {options.get('num_warps', 4)}: shared {binary.metadata.shared}\n"
    )


def _attention(dtype: torch.dtype, beams: tuple[int, ...], splits: int) -> None:
    from nllbd.kernels.decode_attention_triton import decode_attention
    from nllbd.kernels.grouped_attention_triton import grouped_attention
    from tests.kernels.paged_case import make_case

    case = make_case(dtype, beams=beams, heads=16, dim=64, block_size=16, max_length=6, max_source=4, splits=splits)
    query = torch.zeros(case.rows.sequence.shape[0], 3 * 1024, dtype=dtype)[:, :1024].view(-1, 16, 64)
    decode_attention(query, case.keys, case.values, case.rows)
    grouped_attention(query, case.keys, case.values, case.rows)


def _rows(dtype: torch.dtype) -> None:
    from nllbd.kernels.add_norm_triton import add_norm
    from nllbd.kernels.embed_rows_ref import Embedding
    from nllbd.kernels.embed_rows_triton import embed_rows
    from nllbd.kernels.packed_attention_triton import packed_attention
    from nllbd.kernels.paged import PackedSources
    from nllbd.kernels.row_linear_triton import row_linear
    from nllbd.kernels.write_kv_triton import write_kv
    from tests.kernels.paged_case import make_case

    case = make_case(dtype, heads=16, dim=64)
    embed_rows(case.rows, Embedding(torch.zeros(60, 1024, dtype=dtype), torch.zeros(60, 1024), 32.0, 1, 2))
    hidden, norm = torch.zeros(4, 1024), (torch.ones(1024), torch.zeros(1024))
    for added in (None, torch.zeros(4, 1024, dtype=dtype)):
        add_norm(hidden, added, *norm, dtype)
    write_kv(torch.zeros(4, 3072, dtype=dtype)[:, 1024:], torch.zeros(4, dtype=torch.int64), case.keys, case.values)
    none = torch.zeros(2, dtype=torch.int64)
    packed_attention(torch.zeros(64, 3072, dtype=dtype), PackedSources(*[none] * 6, tile_rows=32), 16)
    weight, bias = torch.zeros(64, 1024, dtype=dtype), torch.zeros(64, dtype=dtype)
    for rows in (1, 32, 64):
        row_linear(torch.zeros(rows, 1024), weight, bias, norm=norm)
        row_linear(torch.zeros(rows, 1024), weight, bias, norm=norm, relu=True)
        row_linear(torch.zeros(rows, 1024, dtype=dtype), weight, bias, residual=torch.zeros(rows, 64))


def _search(dtype: torch.dtype) -> None:
    from nllbd.kernels.project_topk_triton import project_topk

    weight = torch.empty(256_206, 1024, dtype=dtype)  # never touched, so it takes no memory
    for rows, k in ((1, 2), (64, 8), (256, 8), (256, 16)):
        project_topk(weight, torch.zeros(rows, 1024, dtype=dtype), k)


def _beam() -> None:
    from nllbd.engine.batch import COLUMNS
    from nllbd.kernels.beam_step_triton import beam_step

    sizes = {"rows": 2, "lanes": 8, "positions": 4, "blocks": 1, "source": 1}
    columns = {
        name: torch.zeros([sizes[dimension] for dimension in column.dimensions], dtype=column.dtype)
        for name, column in COLUMNS.items()
    } | {"over": torch.zeros(2, dtype=torch.bool)}
    source = torch.zeros(2, 8, dtype=torch.int64)
    for lanes in (1, 4, 8):
        beam_step(columns, torch.zeros(2, 2 * lanes), torch.zeros(2, 2 * lanes, dtype=torch.int64), source, lanes, 2)


def main() -> int:
    JITFunction.run = _compile
    names = sys.argv[1:] or ["float32", "float16", "bfloat16"]
    for dtype in (getattr(torch, name) for name in names):
        _attention(dtype, (4, 2), 1)
        _attention(dtype, (1,) * 70, 1)
        _attention(dtype, (4, 2), 8)
        _rows(dtype)
        _search(dtype)
    _beam()
    sys.stdout.write(f"{len(compiled)} kernels compiled for {TARGET}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
