"""The text form: what dump writes parse reads, what is not such a text is refused by its line, and digests stay."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.graphs import graphs, random_graph
from toolchain.errors import GraphError
from toolchain.ir import Graph, digest, dump, ops, parse

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "graph_text.md").read_text()
EXAMPLE = re.search(r"```bitwright\n(.*?)```", PAGE, re.DOTALL)[1]  # type: ignore[index]
ANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("seed", range(80))
def test_round_trip_of_random_graphs(seed: int) -> None:
    graph = random_graph(seed)
    text = dump(graph)
    again = parse(text)
    assert again == graph
    assert dump(again) == text
    assert hash(again) == hash(graph)
    assert again.digest() == digest(graph)
    assert str(graph) == text


@ANY
@given(graphs(size=3), st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=9), max_size=3))
def test_round_trip_with_notes(graph: Graph, notes: list[str]) -> None:
    noted = replace(graph, notes=tuple(notes))
    assert parse(dump(noted)) == noted
    assert digest(noted) == digest(graph)


def test_the_example_of_the_page() -> None:
    graph = parse(EXAMPLE)
    assert parse(dump(graph)) == graph
    assert graph.notes == ("softmax left to the host",)
    assert [s.output.name for s in graph.states] == ["next"]
    assert f"digest is `{digest(graph)}`" in PAGE  # golden: a change of it changes every cache key and golden file


def test_the_page_lists_every_ops_fields() -> None:
    listed = {}
    for line in PAGE.splitlines():
        found = re.fullmatch(r"\| ((?:`\w+`(?:, )?)+) \| ([\w ]+) \|", line)
        for name in re.findall(r"`(\w+)`", found[1]) if found else []:
            listed[name] = found[2].split()  # type: ignore[index]
    assert listed == {
        cls.__name__.lower(): [name for name in cls.__dataclass_fields__ if name != "output"] for cls in ops.OPS
    }


def test_digests_are_the_same_in_another_process() -> None:
    code = "from tests.graphs import random_graph; print(*(random_graph(s).digest() for s in range(5)))"
    for seed in ("0", "1"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        out = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=env, check=True, capture_output=True, text=True
        )
        assert out.stdout.split() == [random_graph(s).digest() for s in range(5)]


def test_digests_differ_where_meaning_does() -> None:
    graph = parse(EXAMPLE)
    seen = {digest(graph)}
    for was, now in [
        ("1 0 -1 2", "1 0 -1 1"),
        ("shift=[7,6]", "shift=[7,7]"),
        ("half_even", "half_up"),
        ("clamp=[0,15]", "clamp=[0,14]"),
        ("scale 1/255 zero_point 3", "scale 1/255 zero_point 4"),
        ("next %next", "next %last"),
        ("%act:", "%act2:"),
        ("  0 0 0\n", "  0 0 1\n"),
    ]:
        assert EXAMPLE.count(was) == 1, was
        changed = EXAMPLE.replace(was, now).replace(
            "input=%act\n", "input=%act2\n" if "act2" in now else "input=%act\n"
        )
        seen.add(digest(parse(changed)))
    assert len(seen) == 9


def test_parse_takes_comments_crlf_and_fields_left_out() -> None:
    graph = parse(EXAMPLE)
    assert parse(EXAMPLE.replace("\n", "\r\n")) == graph
    assert parse(EXAMPLE.replace(" groups=1", "").replace(" dilation=[1,1]", "")) == graph
    assert parse(EXAMPLE.removesuffix("\n")) == graph


LINES = dump(parse(EXAMPLE)).splitlines()


@pytest.mark.parametrize(
    ("was", "now", "line", "error"),
    [
        ("bitwright graph 1", "bitwright graph 2", 1, "is 'bitwright graph 2', must be 'bitwright graph 1'"),
        ("graph example", "grape example", 2,
         "starts with 'grape', must be graph, note, input, const, state, output or %name"),
        ("graph example", "graph example\ngraph other", 3, "names the graph twice"),
        ("input %x: u8", "input %x: q8", 4, "'%x: q8 [4,4,1] scale 1/255 zero_point 3' is not '%name: s8 [shape] scale p/q'"),
        ("input %x: u8", "input x: u8", 4, "'x: u8 [4,4,1] scale 1/255 zero_point 3' is not '%name: s8 [shape] scale p/q'"),
        ("[4,4,1]", "[4,4,]", 4, "'%x: u8 [4,4,] scale 1/255 zero_point 3' is not '%name: s8 [shape] scale p/q'"),
        ("[4,4,1]", "[4,-4,1]", 4, "'%x: u8 [4,-4,1] scale 1/255 zero_point 3' is not '%name: s8 [shape] scale p/q'"),
        ("1/255", "1/0", 4, "'%x: u8 [4,4,1] scale 1/0 zero_point 3' has a scale with denominator 0"),
        ("1/255", "0.5", 4, "'%x: u8 [4,4,1] scale 0.5 zero_point 3' is not '%name: s8 [shape] scale p/q'"),
        ("1/255", "0", 4, "qtype: scale 0, must be positive"),
        ("%x: u8", "%x: u64", 4, "qtype: 64 bits, must be 1 to 64 with a sign, or one less without: int64 holds every value"),
        ("zero_point 3", "zero_point 300", 4, "qtype: zero point 300 is outside 0..255 of u8"),
        ("  0 0 0", "  0 0", 6, "const %zeros has 2 values, must have 3"),
        ("  0 0 0", "  0 0 0 0", 6, "const %zeros has 4 values, must have 3"),
        ("  0 0 0", "  0 0 x", 6, "'  0 0 x' is not a row of integers, with two spaces before and one between"),
        ("  0 0 0", "  0 0 1_0", 6, "'  0 0 1_0' is not a row of integers, with two spaces before and one between"),
        ("  0 0 0", "  0  0 0", 6, "'  0  0 0' is not a row of integers, with two spaces before and one between"),
        ("  0 0 0", "  0 0 128", 6, "const %zeros: values 0..128 do not fit s8 (-128..127)"),
        ("  0 0 0", f"  0 0 {1 << 90}", 6, f"const %zeros: values 0..{1 << 90} do not fit s8 (-128..127)"),
        ("  0 0 0", "0 0 0", 5, "const %zeros has 0 values, must have 3"),
        ("state %last: s8 [3] scale 1/8 next %next initial", "state %last: s8 [3] scale 1/8 initial", 7,
         "'%last: s8 [3] scale 1/8 initial %zeros' is not '%name: type nex' "),
        ("next %next initial", "next %nix initial", 7, "'%nix' is no tensor defined above"),
        ("initial %zeros", "initial %none", 7, "'%none' is no const defined above"),
        ("input=%x weight=%w ", "input=%z weight=%w ", 10, "'%z' is no tensor defined above"),
        ("input=%x weight=%w ", "input=x weight=%w ", 10, "'x' is no tensor defined above"),
        ("input=%x weight=%w ", "input=%w weight=%w ", 10, "'%w' is no tensor defined above"),
        ("weight=%w ", "weight=%x ", 10, "'%x' is no const defined above"),
        ("weight=%w ", "weight=none ", 10, "'none' is no const defined above"),
        ("= conv2d ", "= conv3d ", 10, "'conv3d' is not an op; ops: " + ", ".join(c.__name__.lower() for c in ops.OPS)),
        ("= conv2d ", ": conv2d ", 10, "'' is not an op; ops: " + ", ".join(c.__name__.lower() for c in ops.OPS)),
        ("bias=none ", "", 10,
         "conv2d takes input, weight, bias, strides, dilation, padding, groups, each once; missing ['bias'], unknown []"),
        ("bias=none ", "bias=none fast=1 ", 10,
         "conv2d takes input, weight, bias, strides, dilation, padding, groups, each once; missing [], unknown ['fast']"),
        ("bias=none ", "bias=none bias=none ", 10,
         "conv2d takes input, weight, bias, strides, dilation, padding, groups, each once; missing [], unknown []"),
        ("strides=[2,2]", "strides=2", 10, "strides='2' must be a list in []"),
        ("strides=[2,2]", "strides=[2,x]", 10, "strides='x' must be an integer"),
        ("strides=[2,2]", "strides=[2,]", 10, "strides='' must be an integer"),
        ("strides=[2,2]", "strides=[[2,2]]", 10, "strides='[2,2]' must be an integer"),
        ("strides=[2,2]", "strides", 10, "strides='' must be a list in []"),
        ("padding=[[0,1],[0,1]]", "padding=[0,1]", 10, "padding='0' must be a list in []"),
        ("padding=[[0,1],[0,1]]", "padding=[[0,1,2],[0,1]]", 10, "padding: '[0,1,2]' must be two integers"),
        ("groups=1", "groups=true", 10, "groups='true' must be an integer"),
        ("groups=1", "groups=[1]", 10, "groups='[1]' must be an integer"),
        ("clamp=[0,15]", "clamp=[0]", 11, "clamp: '[0]' must be two integers"),
        ("clamp=[0,15]", "clamp=%x", 11, "clamp='%x' must be a list in []"),
        ("half_even", "bankers", 11, "'bankers' is not a rounding; roundings: half_even, half_up, half_down, half_away, half_toward_zero, floor, "
         "ceil, toward_zero, away_from_zero, tflm"),
        ("%flat:", "%act:", 12, "%act is defined twice"),
        ("%flat:", "%w:", 12, "%w is defined twice"),
        ("const %w2:", "const %w:", 13, "%w is defined twice"),
        ("output %class", "output %nix", 22, "'%nix' is no tensor defined above"),
        ("output %class", "output class", 22, "'class' is no tensor defined above"),
        ("output %class", "output %class ", 22, "'%class ' is no tensor defined above"),
    ],
)  # fmt: skip
def test_malformed_texts(was: str, now: str, line: int, error: str) -> None:
    text = "\n".join(LINES) + "\n"
    assert was in text
    if error.endswith("type nex' "):
        error = "'%last: s8 [3] scale 1/8 initial %zeros' is not '%name: type next %tensor initial %const'"
    with pytest.raises(GraphError, match=f"^{re.escape(f'graph text line {line}: {error}')}$"):
        parse(text.replace(was, now, 1))


def test_an_unused_constant_is_not_dropped() -> None:
    text = "\n".join(LINES).replace("const %w2:", "const %idle: s8 [1] scale 1\n  5\nconst %w2:")
    with pytest.raises(GraphError, match=r"^graph text: const %idle is used by nothing$"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "graph text line 1: is '', must be 'bitwright graph 1'"),
        ("\x89HDF\r\n\x1a\n", "graph text line 1: is '\\x89HDF', must be 'bitwright graph 1'"),
        ("bitwright graph 1\n", "graph: name '' must be letters, digits and _, not starting with a digit"),
        ("bitwright graph 1\ngraph g\n", "graph g: must have at least one input and one output"),
        (
            "bitwright graph 1\ngraph g\nconst %w: s8 [1] scale 1\n  1\ninput %x: s8 [1] scale 1\noutput %x\n",
            "graph text: const %w is used by nothing",
        ),
        (
            "bitwright graph 1\ngraph g\ninput %x: u1 [2] scale 1 zero_point 1\n"
            "%y: u1 [1] scale 1 = pad input=%x padding=[[0,0]]] value=0\noutput %y\n",
            "graph text line 4: padding='0]' must be an integer",
        ),
        (
            "bitwright graph 1\ngraph g\ninput %x: u1 [" + "9" * 5000 + "] scale 1\noutput %x\n",
            "graph text line 3: '%x: u1 [" + "9" * 52 + "' is not '%name: s8 [shape] scale p/q'",
        ),
    ],
)
def test_texts_that_are_no_graph(text: str, error: str) -> None:
    with pytest.raises(GraphError, match=f"^{re.escape(error)}$"):
        parse(text)


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_a_damaged_text_is_a_graph_or_a_graph_error(data: st.DataObject) -> None:
    """Whatever is cut out, doubled or put in, nothing but a GraphError comes out."""
    text = "\n".join(LINES) + "\n"
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        end = min(len(text), at + data.draw(st.integers(0, 12)))
        text = text[:at] + data.draw(st.sampled_from(["", text[at:end] * 2, "[", "]", " ", "\n", "%", "0", "-", "=", "9" * 20]))\
            + text[end:]  # fmt: skip
    try:
        graph = parse(text)
    except GraphError:
        return
    assert parse(dump(graph)) == graph
