"""What a vendor's tool said when it failed: the kind of failure, and its own last error lines.

Rule: a kind is recognized by a row of CAUSES, each with whose message it is; what no row knows is shown as the tool said it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from toolchain.errors import ToolchainError
from toolchain.project import Step

LINES = 5
# bitstream: and implement: are what our own scripts say
_ERROR = re.compile(
    r"^\s*(ERROR|FATAL|# Error|bitstream:|implement:)|\berror:|\blicen[cs]e\b.*\b(fail|not found|denied)", re.I
)
_WARNING = re.compile(r"^\s*CRITICAL WARNING\b", re.I)

# what is wrong, what to do: how the tools say it
CAUSES = {
    ("the licence is missing", "get a licence for this part, and name its file or server as the tool asks"): re.compile(
        r"valid licen[cs]e was not found"  # Vivado [Common 17-345]
        r"|licen[cs]e check ?out failed|failed to check ?out|could not check ?out|checkout of .* failed"  # HLS, Catapult
        r"|licen[cs]e file does not|no (valid )?licen[cs]e|licen[cs]e .*(not found|denied|unavailable)"  # Quartus, Libero
        r"|FLEX(lm|net)[^\n]*error",
        re.I,
    ),
    (
        "the design needs more than the part has",
        "raise reuse_factor, narrow the weights, or take a larger board",
    ): re.compile(
        r"over-utilized|UTLZ-1|Place 30-640|requires more .* than are available"  # Vivado
        r"|Can't fit design|can't place|Design contains [\d,]+ blocks .* contains only"  # Quartus 11802, 170011
        r"|estimated (resource|area) .*exceeds|exceeds the (available|device)|does not fit",  # i++, Libero
        re.I,
    ),
    ("timing is not met", "lower core_clock_hz of the board, or raise reuse_factor"): re.compile(
        r"timing is not met|Timing 38-282|(failed|failing) to meet (the )?timing|timing requirements (were |are )?not met",
        re.I,
    ),
}
# Catapult goes on with a part of its own choice where it does not know the one that was asked for.
_OTHER_PART = re.compile(r"Could not find specific Xilinx base library for part '([^']*)'")


def wrong_part(said: str) -> bool:
    return _OTHER_PART.search(said) is not None


def error_lines(said: str) -> tuple[list[str], str]:
    """The tool's own last lines of errors, without one its critical warnings, its last lines; and all that may name a cause."""
    lines = list(dict.fromkeys(line.strip() for line in said.splitlines()[1:] if line.strip()))
    errors = [line for line in lines if _ERROR.search(line)]
    warnings = [line for line in lines if _WARNING.search(line)]
    shown = (errors or warnings or lines)[-LINES:]
    return shown, "\n".join([*warnings, *errors] or shown)


def failure(log: str, step: Step, code: int, missing: Sequence[str], said: str) -> ToolchainError:
    """One error: which step, how it ended, why as far as that is known, and what the tool said."""
    lines, telling = error_lines(said)
    known = next((cause for cause, text in CAUSES.items() if text.search(telling)), None)
    part = _OTHER_PART.search(said)
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    if part:
        known = (f"it does not know the part {part[1]} and took another", "install the library of that part")
    if not code and missing:
        how += f" but made no {', '.join(missing)}"
    what, advice = known or ("", "read the log, which is whole")
    shown = "".join(f"\n  {line}" for line in lines)
    return ToolchainError(log, f"step {step.name}: {step.tool} {how}{f': {what}' if what else ''}", f"{advice}{shown}")
