"""Writes config/config.schema.json, from which editors complete and check configuration files.

It comes from the Pydantic models of `ecg_grpo.settings`; run it after changing one (`make schema`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ecg_grpo.settings.run import Settings

SCHEMA = Path(__file__).resolve().parent.parent / "config" / "config.schema.json"


def config_schema() -> str:
    """The JSON schema of a configuration file.

    No key is required in it: a file given with `--configfile` changes only what it names.
    """
    schema = Settings.model_json_schema()
    _require_nothing(schema)
    return json.dumps(schema | {"$schema": "https://json-schema.org/draft/2020-12/schema"}, indent=2) + "\n"


def _require_nothing(schema: Any) -> None:
    if isinstance(schema, dict):
        if isinstance(schema.get("required"), list):
            del schema["required"]
        for value in schema.values():
            _require_nothing(value)
    elif isinstance(schema, list):
        for value in schema:
            _require_nothing(value)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    SCHEMA.write_text(config_schema(), encoding="utf-8")
