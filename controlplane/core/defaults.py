"""What the command line must know of the model: constants alone, so that no command pays for importing the rest."""

from __future__ import annotations

DEFAULT_NAMESPACE = "default"
DEFAULT_WEIGHT = 100
EVERY_SERVICE = "*"  # names the policy that holds for every service of its namespace
CONFIG_FORMATS = ("text", "json", "yaml", "toml", "properties")
