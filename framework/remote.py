"""Running a program on a node elsewhere, by a command prefix of the user's.

``docker exec NODE``, ``kubectl exec POD --`` and the like run a program with the words that they are given;
``ssh NODE`` joins the words and gives them to a shell, which splits them anew. Which of the two a prefix does
is asked of it once, with a word that has two spaces.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from framework.errors import KilonodeError
from framework.process import run

COMMAND_TIMEOUT_S: Final = 60.0
LOOK_INTERVAL_S: Final = 0.05
"""Between two looks; a look at 200 processes takes a few milliseconds of a shell."""
LOOK_END: Final = "."
FIRST_PID_NAMESPACE: Final = "pid:[4026531836]"
"""PROC_PID_INIT_INO of include/linux/proc_ns.h."""
_TWO_WORDS: Final = "a  b"
_SCRIPT: Final = """\
i=0
while [ $i -lt {looks} ]; do
  for p in /proc/[0-9]*; do
    c= m=0 s=
    read -r c <$p/comm || continue
    [ "$c" = nft ] || continue
    while read -r k v u; do [ "$k" = VmHWM: ] && m=$v; done <$p/status
    read -r s <$p/stat || continue
    printf "%s %s|%s\\n" "$m" "$s" "$(tr "\\000" " " <$p/cmdline)"
  done 2>/dev/null
  echo {end}
  i=$((i+1))
  sleep {interval_s} 2>/dev/null || sleep 1
done
"""


@dataclass(frozen=True)
class Remote:
    """How to run something on a node. ``splits_words`` where a shell reads what it is given."""

    command: tuple[str, ...]
    splits_words: bool

    @classmethod
    def ask(cls, command: Sequence[str]) -> Remote:
        """Try a prefix. Raises KilonodeError where it does not run ``echo``."""
        said = run([*command, "echo", _TWO_WORDS], timeout_s=COMMAND_TIMEOUT_S, check=False)
        if said.exit_code or said.text.split() != _TWO_WORDS.split():
            output = (said.stderr or said.stdout).decode(errors="replace").strip()
            raise KilonodeError(
                f"it did not run echo: {output or 'no answer'}",
                where=shlex.join(command),
                remedy="give a --node-command that runs a program on {node} and asks for no password",
            )
        return cls(tuple(command), splits_words=said.text.strip() != _TWO_WORDS)

    def argv(self, *words: str) -> list[str]:
        """The command line, here, of ``words`` there."""
        return [*self.command, shlex.join(words)] if self.splits_words else [*self.command, *words]

    def output_of(self, *words: str) -> str:
        """What a program prints there, whether it fails or not."""
        return run(self.argv(*words), timeout_s=COMMAND_TIMEOUT_S, check=False).text

    def text_of(self, *words: str) -> str | None:
        """What a program prints there; None where it fails."""
        said = run(self.argv(*words), timeout_s=COMMAND_TIMEOUT_S, check=False)
        return said.text if said.exit_code == 0 else None

    def why_no_processes(self) -> str:
        """Why processes can't be polled there; empty where they can."""
        look = self.text_of("sh", "-c", script(1))
        ended = look is not None and look.splitlines()[-1:] == [LOOK_END]
        return "" if ended else f"{shlex.join(self.command)} runs no sh that could look through /proc"

    def why_no_kills(self) -> str:
        """Why the node's OOM kills can't be read there; empty where they can."""
        if (self.text_of("readlink", "/proc/self/ns/pid") or "").strip() != FIRST_PID_NAMESPACE:
            return f"{shlex.join(self.command)} leads into a container, whose kernel log is its machine's"
        if self.text_of("dmesg") is None:
            return f"{shlex.join(self.command)} may not run dmesg"
        return ""


def script(looks: int) -> str:
    """A shell script that looks so many times."""
    return _SCRIPT.format(looks=looks, end=LOOK_END, interval_s=LOOK_INTERVAL_S)
