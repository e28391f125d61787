"""LoadOptions: the command line's strings, the values themselves, and what is neither."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from toolchain.errors import ToolchainError
from toolchain.options import LoadOptions


def test_strings_are_read_as_on_the_command_line() -> None:
    given: Any = {"input_type": "s12", "input_scale": "1/255", "input_mean": "0.5,1/4", "input_std": "2"}
    wanted = LoadOptions((12, True), Fraction(1, 255), 0, (Fraction(1, 2), Fraction(1, 4)), (Fraction(2),))
    assert LoadOptions(**given) == wanted


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"input_type": "float"}, "--input-type: is 'float', must be u or s and 1 to 32 bits, as u8"),
        ({"input_scale": "one"}, "--input-scale: is 'one', must be a number, as 1/255 or 0.5"),
        ({"batch": 2}, "--batch: is 2, must be 1: a graph is one inference of one sample"),
        (
            {"input_shape": ((1, 8, 8), (4,))},
            "input_shape: is ((1, 8, 8), (4,)), must be the numbers of one input without the batch, as (1, 28, 28); "
            "export a module of several inputs to a file",
        ),
    ],
)
def test_what_is_neither_is_one_line(given: Any, text: str) -> None:
    with pytest.raises(ToolchainError) as raised:
        LoadOptions(**given)
    assert str(raised.value) == text
