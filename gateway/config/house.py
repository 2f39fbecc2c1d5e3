"""Settings of the house itself: who may ask, the second listener, what is told of it, what it finds out by itself.

Always true: each model is frozen, has no unknown setting and each value in its bounds.
Does not belong here: routes and who serves them (settings), rules between settings (crosscheck).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.scalars import Address, CallerKey, Flag, Name, Origin, OwnToken, ReadableFile
from gateway.config.sections import Measured, Section, Tree
from gateway.telemetry.traces import TraceSettings


class BudgetSettings(Tree):
    """An allowance of calls: `rate` a second in the long run, `burst` at once."""

    rate: Annotated[float, Measured("per_second", 0.001, 1_000_000)] = Field(description="calls a second (100/s, 50/m)")
    burst: Annotated[float, Measured(low=1, high=10_000_000)] = Field(
        default=100.0, description="calls that can be saved up; a batch of more never fits"
    )


class KeySettings(Tree):
    """One caller: how it is known, and what it may use."""

    key: CallerKey = Field(description="the caller's key, at least 16 characters; write ${NAME}")
    routes: tuple[Name, ...] | None = Field(default=None, description="the only routes it may use; default: all")
    budget: BudgetSettings | None = Field(
        default=None, description="its allowance of calls; default: as much as it likes"
    )


class CorsSettings(Tree):
    """What browsers are told."""

    origins: tuple[Origin, ...] = Field(default=(), description="origins whose pages may read answers; '*': all")
    credentials: Flag = Field(default=False, description="allow pages to send credentials along")


class OperationsSettings(Tree):
    """Metrics, explanations and drains; not for the public."""

    listen: Address = Field(default="127.0.0.1:4001", description="address; other than loopback only with a token")
    token: OwnToken | None = Field(
        default=None, description="token that every request must carry, at least 16 characters; write ${NAME}"
    )


class LogSettings(Tree):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error", "critical"] = Field(
        default="info", description="least severity logged"
    )
    format: Literal["json", "console"] = Field(default="json", description="json for machines, console for people")


class TelemetrySettings(Tree):
    """What the process tells of itself, besides its pages."""

    log: LogSettings = Field(default=LogSettings(), description="what is logged, and how")
    traces: Annotated[TraceSettings, Section()] = Field(default=TraceSettings(), description="OpenTelemetry spans")


class DomainInferenceSettings(Tree):
    """How failure domains are found out that the file does not name.  Nothing is fetched for it."""

    infer: Flag = Field(
        default=True, description="from host names, what they are aliases of, addresses, and the nodes' software"
    )
    ranges: tuple[ReadableFile, ...] = Field(
        default=(), description="files in which clouds publish their address ranges, as downloaded"
    )
