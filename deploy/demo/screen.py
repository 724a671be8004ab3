"""What the audience sees: titles, one live line, verdicts, and the table at the end."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from deploy.demo.findings import Finding
from deploy.demo.stage import Stage
from deploy.demo.traffic import failed, refused, shares, stood_in

BAR = 6
BLOCKS = " ▏▎▍▌▋▊▉█"
# Without a terminal the live line is printed anew, at this interval in seconds.
PLAIN_INTERVAL = 2.0
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """Writes to a terminal with colours and a line that changes in place, else plain lines."""

    def __init__(self, output: TextIO = sys.stdout, *, plain: bool = False) -> None:
        self._output = output
        self._moving = output.isatty() and not plain
        self._coloured = self._moving and not os.environ.get("NO_COLOR")
        self._shown = ""
        self._said_at = 0.0

    def say(self, text: str = "") -> None:
        """Print lines."""
        self._output.write(f"{text if self._coloured else _ESCAPE.sub('', text)}\n")
        self._output.flush()

    def title(self, number: int, title: str, what: str) -> None:
        """Open a scene."""
        self.say(f"\n {cyan(bold(f'{number}  {title}'))}")
        self.say(f"    {what}")
        self._shown, self._said_at = "", time.monotonic()

    def command(self, line: str, file: str = "") -> None:
        """Show a command as it is entered, and the file that it is given."""
        self._erase()
        self.say(f"    {bold(f'$ {line}')}")
        for text in file.splitlines():
            self.say(dim(f"      {text}"))

    def printed(self, lines: Sequence[str]) -> None:
        """Show what a command answered."""
        self._erase()
        for line in lines:
            self.say(f"    {line}")

    def live(self, stage: Stage, mark: int) -> None:
        """Show how the shop is doing; counts are since the mark, shares of the last second."""
        self._shown = self._line(stage, mark)
        if self._moving:
            # Autowrap off: a line that wraps could not be replaced.
            self._write(f"\x1b[?25l\x1b[?7l\r\x1b[2K{self._shown}\x1b[?7h")
        elif time.monotonic() - self._said_at >= PLAIN_INTERVAL:
            self._said_at = time.monotonic()
            self.say(self._shown)

    def rest(self) -> None:
        """Leave the live line as it is and go on below it."""
        if self._moving:
            self._write("\n\x1b[?25h" if self._shown else "\x1b[?25h")
        elif self._shown:
            self.say(self._shown)
        self._shown = ""

    def verdict(self, finding: Finding) -> None:
        """Say how a promise fared."""
        self.say(f"    {_tick(finding)} {finding.promise}: {bold(finding.measured)}")
        if not finding.kept and finding.why:
            self.say(dim(f"      {finding.why}"))

    def table(self, acts: Sequence[tuple[str, Sequence[Finding]]]) -> None:
        """Say how all promises fared."""
        findings = [finding for _, act in acts for finding in act]
        promise = max(len(finding.promise) for finding in findings)
        measured = max(len(finding.measured) for finding in findings)
        if self._output.isatty() and promise + measured + 15 > shutil.get_terminal_size().columns:
            self._list(acts)
            return
        self.say(f"\n    {bold('promise'.ljust(promise))}   {bold('measured'.ljust(measured))}   {bold('kept')}")
        for title, act in acts:
            self.say(f" {dim(title)}")
            for finding in act:
                row = f"{finding.promise.ljust(promise)}   {finding.measured.ljust(measured)}"
                self.say(f"    {row}   {_tick(finding)} {'' if finding.kept else red('broken')}".rstrip())

    def _list(self, acts: Sequence[tuple[str, Sequence[Finding]]]) -> None:
        """The table where it does not fit."""
        self.say()
        for title, act in acts:
            self.say(f" {dim(title)}")
            for finding in act:
                self.verdict(finding)

    def _erase(self) -> None:
        """Take the live line away; it comes again below what is said now."""
        if self._moving and self._shown:
            self._write("\r\x1b[2K")
        self._shown = ""

    def _line(self, stage: Stage, mark: int) -> str:
        now = time.monotonic()
        lately, scene = stage.traffic.lately(now, 1.0), stage.traffic.since(mark)
        turned_away, cached = len(refused(scene)), len(stood_in(scene))
        bad = len(failed(scene)) - turned_away
        share = shares(lately)
        seats = "  ".join(_seat(name, stage.instances[name], share.get(name, 0.0)) for name in stage.instances)
        failures = f"{bad:>2} failed"
        return (
            f"    {cyan('▸')} {len(lately):>3}/s {green(f'{len(scene) - bad - turned_away - cached:>4} ok')}  "
            f"{red(failures) if bad else dim(failures)}{_some(turned_away, 'refused')}{_some(cached, 'from a cache')}   {seats}"
        ).rstrip()

    def _write(self, text: str) -> None:
        self._output.write(text if self._coloured else _without_colours(text))
        self._output.flush()


def _some(count: int, what: str) -> str:
    return yellow(f"  {count:>2} {what}") if count else ""


def _seat(name: str, condition: str, share: float) -> str:
    label = f"#{name.rpartition('-')[2]}"
    colour = {"up": green, "starting": yellow, "draining": yellow}.get(condition, red)
    if condition != "up" and share < 0.005:
        return f"{dim(label)} {colour(condition.ljust(BAR + 5))}"
    eighths = round(share * BAR * 8)
    bar = "█" * (eighths // 8) + BLOCKS[eighths % 8].strip()
    return f"{dim(label)} {colour(bar.ljust(BAR, '·'))} {share:>4.0%}"


def _tick(finding: Finding) -> str:
    return green("✓") if finding.kept else red("✗")


def _without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _styled(code: int, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"


def bold(text: str) -> str:
    """Text that stands out."""
    return _styled(1, text)


def dim(text: str) -> str:
    """Text that steps back."""
    return _styled(2, text)


def red(text: str) -> str:
    """What is wrong."""
    return _styled(31, text)


def green(text: str) -> str:
    """What is well."""
    return _styled(32, text)


def yellow(text: str) -> str:
    """What is on its way."""
    return _styled(33, text)


def cyan(text: str) -> str:
    """Where one is."""
    return _styled(36, text)
