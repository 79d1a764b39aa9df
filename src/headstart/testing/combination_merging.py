"""What a method of the kind `merging` must do, and what it may claim."""

from __future__ import annotations

from . import merges

any_context = merges.any_context
ALWAYS, CLAIMS = merges.of_kind("merging")
