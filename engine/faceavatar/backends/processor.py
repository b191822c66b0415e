"""Which processor this is: its name and the features that compiled code depends on."""

from __future__ import annotations

import platform
from pathlib import Path

# What ONNX Runtime's and OpenVINO's kernels choose by, as Linux names it on x86-64 and on Arm.
_FEATURES = frozenset(
    {
        *("avx", "avx2", "f16c", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16"),
        *("avx512_vnni", "avx_vnni", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "amx_fp16"),
        *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2"),
    }
)


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name and features in one line, such as "AMD EPYC 25.17.1 (avx avx2)"; else the machine's kind."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(
        reversed([(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines)])
    )
    name = fields.get("model name") or platform.processor() or platform.machine()
    found = sorted(_FEATURES & set((fields.get("flags") or fields.get("Features") or "").split()))
    family = ".".join(fields[key] for key in ("cpu family", "model", "stepping") if key in fields)
    return f"{name} {family} ({' '.join(found)})".replace("  ", " ")
