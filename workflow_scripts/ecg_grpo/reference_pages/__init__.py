"""The reference part of the documentation, made from what it describes whenever the site is built (`make docs`).

`PAGES` is all that the site's hook, `docs/hooks.py`, has to know.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ecg_grpo.reference_pages.configuration import configuration_page
from ecg_grpo.reference_pages.formats import formats_page
from ecg_grpo.reference_pages.programs import programs_page
from ecg_grpo.reference_pages.rules import rules_page

PAGES: dict[str, Callable[[Path], str]] = {
    "reference/configuration.md": configuration_page,
    "reference/rules.md": rules_page,
    "reference/programs.md": programs_page,
    "reference/formats.md": formats_page,
}
"""Pages by their path below `docs/`; each function is given the project's folder and returns Markdown."""
