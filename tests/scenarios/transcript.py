"""Reading, playing and writing transcripts.

A transcript is blocks with an empty line between them. A block is commands, one a line, then ``----``, then what they
print together. Lines that begin with ``#`` are for the reader. A command is words; ``key=value`` words are options.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

RULE = "----"


@dataclass(frozen=True)
class Command:
    """``words`` without options, ``options`` by key."""

    words: list[str]
    options: dict[str, str]

    @property
    def verb(self) -> str:
        return self.words[0]

    def number(self, key: str, default: float) -> float:
        return float(self.options.get(key, default))


class Player(Protocol):
    """What a transcript is played on."""

    def play(self, command: Command) -> Iterator[str]:
        """Do it; the lines that it prints."""
        ...


def parse(line: str) -> Command:
    words, options = [], {}
    for word in line.split():
        key, equals, value = word.partition("=")
        if equals:
            options[key] = value
        else:
            words.append(word)
    return Command(words, options)


def played(text: str, player: Player) -> str:
    """The transcript with what its commands print now."""
    blocks = []
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        asked = lines[: lines.index(RULE)] if RULE in lines else lines
        if all(line.startswith("#") for line in asked):
            blocks.append("\n".join(asked))
            continue
        printed = [out for line in asked if not line.startswith("#") for out in player.play(parse(line))]
        blocks.append("\n".join([*asked, RULE, *(printed or ["ok"])]))
    return "\n\n".join(blocks) + "\n"


def check(path: Path, player: Player, *, rewrite: bool) -> None:
    """Play a transcript; it must print what it says, or is written anew."""
    text = path.read_text()
    now = played(text, player)
    if rewrite:
        path.write_text(now)
    else:
        assert now == text, f"{path.name} prints something else; if that is right: pytest tests/scenarios --rewrite"
