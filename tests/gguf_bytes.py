"""Small GGUF files of zeros, as the reference package writes them."""

from __future__ import annotations

from pathlib import Path


def gguf_file(folder: Path, name: str, arch: str = "llama", label: str = "F16", rows: int = 64) -> bytes:
    """Return a small GGUF file, its tensors of zeros, as the reference package writes it."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(folder / "written.gguf", arch)
    writer.add_string("general.name", name)
    heads = "vision.attention.head_count" if arch == "clip" else "attention.head_count"
    for key, value in (("embedding_length", 64), ("block_count", 1), (heads, 4), ("context_length", 128)):
        writer.add_uint32(f"{arch}.{key}", value)
    kind = {"F16": np.float16, "F32": np.float32}[label]
    blocks = "v.blk.0" if arch == "clip" else "blk.0"
    writer.add_tensor("mm.0.weight" if arch == "clip" else "token_embd.weight", np.zeros((101, 64), kind))
    for tensor in ("attn_q", "attn_k", "attn_v", "ffn_up", "ffn_down"):
        writer.add_tensor(f"{blocks}.{tensor}.weight", np.zeros((rows, 64), kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return (folder / "written.gguf").read_bytes()
