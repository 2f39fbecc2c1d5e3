"""Properties are judged by what they find, not by how long an example takes on a slow machine."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("seawall", deadline=None)
settings.load_profile("seawall")
