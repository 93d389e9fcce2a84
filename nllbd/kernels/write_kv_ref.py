"""Keys and values of some token positions into the KV pool: plain PyTorch reference."""

from __future__ import annotations

from torch import Tensor


def write_kv(key_value: Tensor, slots: Tensor, keys: Tensor, values: Tensor) -> None:
    """key_value [N, 2*H*D], keys first (a view with any row stride), into keys and values [num_slots, H, D].

    slots: [N]; -1 writes nothing.
    """
    live = slots >= 0
    shape = (-1, *keys.shape[1:])
    key, value = key_value[live].chunk(2, dim=1)
    keys.index_copy_(0, slots[live], key.reshape(shape).to(keys.dtype))
    values.index_copy_(0, slots[live], value.reshape(shape).to(values.dtype))
