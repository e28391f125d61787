"""hls4ml's test bench with integers where it has floats: it would round inputs of more than 24 bits, and print six digits.

One rule: what the vendor's simulation is fed and what it writes are the stored integers, every digit of them.
"""

from __future__ import annotations

import re

# for nnet::print_result, which prints fixed point as a double and an element of VivadoAccelerator's wrapper as a struct
PRINT = """
/* A value as the stored integer that it is: of the network's types, or of the element that a wrapper puts around one. */
template <class T> auto stored_integer(const T &value, int) -> decltype(static_cast<long long>(value.to_int64())) {
    return value.to_int64();
}
template <class T> auto stored_integer(const T &value, long) -> decltype(static_cast<long long>(value.data)) {
    return static_cast<long long>(value.data);
}

template <class T, size_t SIZE> void print_integers(T (&result)[SIZE], std::ostream &out, bool keep = false) {
    for (size_t i = 0; i < SIZE; i++) {
        out << stored_integer(result[i], 0) << " ";
    }
    out << std::endl;
}

template <class T, size_t SIZE, class STREAM> void print_integers(STREAM &result, std::ostream &out, bool keep = false) {
    for (size_t i = 0; i < SIZE / T::size; i++) {
        T token = result.read();
        for (size_t j = 0; j < T::size; j++) {
            out << stored_integer(token[j], 0) << " ";
        }
        if (keep) {
            result.write(token);
        }
    }
    out << std::endl;
}

"""
MAIN = re.compile(r"^(?:int main|CCS_MAIN)\(", re.MULTILINE)


def exact(text: str) -> str:
    """The test bench of any back end of hls4ml, made so."""
    text = re.sub(r"\bfloat\b", "long long", text).replace("atof(", "atoll(").replace("std::stof(", "std::stoll(")
    if "nnet::print_result<" in text:
        text, mains = MAIN.subn(lambda found: PRINT.lstrip("\n") + found[0], text)
        assert mains == 1, "hls4ml's test bench has another main"
        text = text.replace("nnet::print_result<", "print_integers<")
    return text
