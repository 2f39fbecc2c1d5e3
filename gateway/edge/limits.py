"""What a caller may send at most, and how slowly.  The defaults bound one caller's memory and time."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.bounds import require_bounds, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLimits:
    body: int = setting(2_000_000, "largest request body", unit="bytes", low=1024, high=256_000_000)
    batch_items: int = setting(100, "most items in a batch", low=1, high=10_000)
    depth: int = setting(64, "deepest nesting of a request's JSON", low=4, high=512)
    head_bytes: int = setting(
        32_000, "largest request head, all header fields together", unit="bytes", low=1024, high=1_000_000
    )
    head_fields: int = setting(100, "most header fields", low=8, high=1000)
    target_bytes: int = setting(8_000, "longest request target (path and query)", unit="bytes", low=256, high=64_000)
    head_timeout: float = setting(
        5.0, "time from a request's first byte to the end of its head", unit="s", low=0.1, high=120
    )
    body_timeout: float = setting(
        10.0, "time for the body, beside what 64 KB/s would need", unit="s", low=0.1, high=600
    )
    keep_alive: float = setting(75.0, "idle connections of callers are closed after this", unit="s", low=1, high=3600)
    write_timeout: float = setting(
        30.0, "a caller that does not read its answer for so long is cut off", unit="s", low=1, high=600
    )
    connections: int = setting(
        4096, "most connections at once; lowered to half of the descriptors allowed", low=1, high=1_000_000
    )

    def __post_init__(self) -> None:
        require_bounds(self)


BODY_RATE = 64_000  # bytes a second that a body must reach beyond body_timeout


def body_deadline_for(limits: EdgeLimits, size: int) -> float:
    """Seconds a body of `size` bytes may take."""
    return limits.body_timeout + size / BODY_RATE
