"""Puts the pages of `ecg_grpo.reference_pages` into the site; they are made anew whenever it is built and never stored."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parent.parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs with what it found in `docs/`."""
    if (scripts := str(ROOT / "workflow_scripts")) not in sys.path:
        sys.path.insert(0, scripts)
    from ecg_grpo.reference_pages.configuration import configuration_page
    from ecg_grpo.reference_pages.formats import formats_page
    from ecg_grpo.reference_pages.programs import programs_page
    from ecg_grpo.reference_pages.rules import rules_page

    pages = {"configuration": configuration_page, "formats": formats_page, "programs": programs_page, "rules": rules_page}
    for name, make in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=make(ROOT)))
    return files
