"""accelerate's configuration file: which one a launch reads, what it says, one of its values."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from ddp_assist.probes.launch.plan import Option

LARGEST = 1 << 16
YAML = re.compile(
    r"^(?:[ \t]+(?=deepspeed_))?([a-z_]+):"
    r"[ \t]*((['\"]?)[^'\"#\n\r]*?\3)(?=[ \t]*(?:#[^\n\r]*)?\r?$)", re.M
)  # fmt: skip
JSON = re.compile(r"\"([a-z_]+)\"[ \t]*:[ \t]*((\"?)[^\"\n,{}\[\]]*?\3)(?=\s*[,}])")
"""Name and value of the plain settings, and of those of `deepspeed_config` that are nested and say
which hosts there are; what else is nested says nothing of where ranks meet."""
BARE = re.compile(
    r"(?!(?:y|n|yes|no|on|off|true|false|null)\Z)[a-z][\w.-]*\Z|\d+(?:\.\d+){3}\Z", re.A | re.I
)


def config_path(option: Option | None, env: Mapping[str, str], cwd: Path) -> Path:
    """The file that `--config_file` names, else the user's default one."""
    if option is not None:
        return cwd / (option.value or "")
    home = env.get("HF_HOME") or os.path.join(
        env.get("XDG_CACHE_HOME") or os.path.join(env.get("HOME", "/"), ".cache"), "huggingface"
    )
    return Path(home, "accelerate", "default_config.yaml")


def config_text(path: Path, largest: int = LARGEST) -> str:
    """The file as it is, its line ends too; empty where there is none."""
    try:
        if not path.is_file() or path.stat().st_size > largest:
            return ""
        return path.read_bytes().decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def configured(path: Path) -> dict[str, str]:
    """The plain `key: value` settings of the file."""
    pairs = {m[1]: m[2].strip("'\"") for m in _pattern(path).finditer(config_text(path))}
    return {key: value for key, value in pairs.items() if value not in ("", "null", "~")}


def with_settings(path: Path, text: str, wanted: Mapping[str, str]) -> str:
    """The text with these settings, all else byte for byte."""
    for name, value in wanted.items():
        found = [m for m in _pattern(path).finditer(text) if m[1] == name]
        if found:
            start, end = found[-1].span(2)
            blank = "" if text[start - 1 : start] in (" ", "\t") else " "
            text = f"{text[:start]}{blank}{_written(path, value)}{text[end:]}"
        elif _is_json(path):
            text = re.sub(r"\{", f'{{"{name}": {_written(path, value)}, ', text, count=1)
        else:
            line_end = "\r\n" if "\r\n" in text else "\n"
            text += "" if not text or text.endswith("\n") else line_end
            text += f"{name}: {_written(path, value)}{line_end}"
    return text


def _is_json(path: Path) -> bool:
    return path.suffix == ".json"


def _pattern(path: Path) -> re.Pattern[str]:
    return JSON if _is_json(path) else YAML


def _written(path: Path, value: str) -> str:
    """Numbers bare; a name that YAML might take for something else in quotes."""
    if value.isdecimal() or (BARE.match(value) and not _is_json(path)):
        return value
    return f'"{value}"'
