"""Names of tensors as C fields and macros: the graph's own, unless C keeps the word for itself."""

from __future__ import annotations

from collections.abc import Sequence

from toolchain.errors import UnsupportedError
from toolchain.ir import Tensor

WORDS = """
    auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while asm typeof
    alignas alignof bool constexpr false nullptr static_assert thread_local true catch class delete explicit export friend
    mutable namespace new operator private protected public template this throw try typename using virtual
    linux unix i386 NULL
"""  # of C, of C++ (model.h is for both), and what compilers define unasked
KEPT = frozenset(WORDS.split())
MACROS = (
    "INT",
    "UINT",
    "SIZE_",
    "PTRDIFF_",
    "SIG_",
    "WCHAR_",
    "WINT_",
    "NN_",
    "MODEL_",
)  # of stdint.h, kernels, model.h


def field_name(name: str) -> str:
    """The field of model_inputs, model_outputs or the states that holds a tensor."""
    return f"{name}_" if name in KEPT or name.startswith(("_", *MACROS)) else name


def macro_name(name: str) -> str:
    return name.upper()


def check_names(role: str, tensors: Sequence[Tensor], macros: bool = True) -> None:
    """Refuse two names that would be one in C."""
    for key in (field_name, macro_name) if macros else (field_name,):
        seen: dict[str, str] = {}
        for tensor in tensors:
            other = seen.setdefault(key(tensor.name), tensor.name)
            if other != tensor.name:
                raise UnsupportedError(
                    f"{role} %{tensor.name}", f"is the same name in C as %{other}", "rename one of them in the model"
                )
