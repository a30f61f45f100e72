"""Strict JSON: one reading or none, bounded depth and cost."""

import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import BodyTooLarge, InvalidRequest, ParseError
from proxy.mcp.strict_json import MAX_DEPTH, Names, Repeating, load

NAMES = Names(("jsonrpc", "id", "method", "params", "name", "uri", "taskId", "_meta"), known=("cursor",))


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16-le"),
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-32"),
        b'{"a":"\xff"}',
        b'{"a":"\xe9"}',
        b'{"a":"\xc0\x80"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xf8\x88\x80\x80\x80"}',
        b'{"a":"\xf4\xbf\xbf\xbf"}',
        b'{"a":"\xe2\x82"}',
        b'{"a":"\\ud800"}',
        b'{"\\udfaa":0}',
        b'{"a":"\\udd1e\\ud834"}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e400}',
        b'{"a":' + b"1" * 5000 + b"}",
        b'{"a":1}x',
        b'{"a":1}{"a":1}',
        b'{"a":1}\x00',
        b'{"a":1} // comment',
        b'{"a":/**/1}',
        b"{'a':1}",
        b"{a:1}",
        b'{"a":1,}',
        b"[1,]",
        b"[,1]",
        b'{"a" 1}',
        b'{"a":1',
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":.5}',
        b'{"a":1.}',
        b'{"a":0x1}',
        b'{"a":1_0}',
        b'{"a":"\t"}',
        b'{"a":"\n"}',
        b'{"a":"\\x41"}',
        b'{"a":"\\u00e"}',
        b'{"a":tRue}',
        b"\x0c{}",
        b"\xc2\xa0{}",
        b"",
        b" ",
        b"[" * 100_000 + b"]" * 100_000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=lambda body: repr(body[:24]),
)
def test_anything_but_strict_json_is_a_parse_error(body: bytes) -> None:
    """No parser may be the only one to accept what we forward: RFC 8259 to the letter, UTF-8, no byte order mark."""
    with pytest.raises(ParseError):
        load(body)


@pytest.mark.parametrize(
    "body",
    [
        b" \t\r\n{} \t\r\n",
        b'{"a":-0}',
        b'{"a":1e308}',
        b'{"a":1180591620717411303424}',
        b'{"a":0.1e-999}',
        b'{"a":"\\u0000\\u2028\\ud834\\udd1e\x7f"}',
        b'{"__proto__":{"constructor":null}}',
        b'"text"',
        b"null",
    ],
)
def test_what_every_parser_accepts_passes(body: bytes) -> None:
    """Odd but unambiguous documents read as the standard library reads them."""
    assert load(body) == json.loads(body)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_depth_is_limited_exactly(opening: str, closing: str) -> None:
    """64 levels of arrays and objects pass, one more does not, and what stands in strings does not count."""
    times = MAX_DEPTH // (opening.count("[") + opening.count("{"))
    deepest = opening * times + '"' + "[{" * 500 + '"' + closing * times
    load(deepest.encode())
    with pytest.raises(InvalidRequest):
        load(f"[{deepest}]".encode())


def test_width_is_no_depth() -> None:
    """Thousands of arrays beside each other are two levels."""
    document = [[index, {}] for index in range(5000)]
    assert load(orjson.dumps(document)) == document


def test_the_writer_stops_at_the_depth_that_the_measurement_counts_on() -> None:
    """orjson writes 254 levels and no more; a release that changes this would change our limit."""
    value: object = 1
    for _ in range(254):
        value = [value]
    orjson.dumps(value)
    with pytest.raises(orjson.JSONEncodeError):
        orjson.dumps([value])


@pytest.mark.parametrize(
    ("body", "repeating"),
    [
        (b'{"method":1,"method":2}', {""}),
        (b'{"method":1,"\\u006dethod":1}', {""}),
        (b'{"a":1,"a":2,"x":"\\u0022\\u0022"}', {""}),
        (b'{"a":1,"a":2,"x":"\\u005c\\u005c\\u005c\\u0022"}', {""}),
        (b'{"a":1, "b":{"c":[], "c":[]}}', {"b"}),
        (b'{"a":{"a":{"a":1}}}', set()),
        (b'{"a":"\\"a\\":1","b":"\\\\","c":"\\\\\\""}', set()),
        (b'{"a":{"x":"\\\\","x":"\\\\"}, "b":{}}', {"a"}),
        (b'{"a":{"":0,"":0},"b":{"q\\"":0,"q\\u0022":0}}', {"a", "b"}),
    ],
)
def test_repeated_keys_mark_the_object_that_holds_them(body: bytes, repeating: set[str]) -> None:
    """However a key is escaped; objects around and inside stay ordinary."""
    document = load(body)
    found = {"" for _ in [0] if type(document) is Repeating}
    found |= {key for key, value in document.items() if type(value) is Repeating}
    assert found == repeating
    assert document == json.loads(body)


def test_a_repeated_key_in_a_large_body_is_refused_wherever_it_is() -> None:
    """Looking for the object would cost more than a body of this size may."""
    padding = b'"z":"' + b"x" * (256 << 10) + b'"'
    with pytest.raises(InvalidRequest):
        load(b'{"a":{"b":1,"b":2},' + padding + b"}")
    load(b'{"a":{"b":1,"c":2},' + padding + b"}")


Pairs = list[tuple[str, Any]]
KEYS = st.sampled_from(["a", "b", "\\", '"', "é", "\n", "", "\u2028"])
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=3),
        KEYS,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(st.tuples(KEYS, inner), max_size=4).map(lambda pairs: {"pairs": pairs}),
    ),
    max_leaves=12,
)


def render(value: Any, draw: Any) -> str:
    """JSON text of a value whose objects are `{"pairs": [...]}`, with random blanks and escapes."""
    blank = draw(st.sampled_from(["", " ", "\r\n\t"]))
    if isinstance(value, list):
        return "[" + blank + ",".join(render(item, draw) for item in value) + "]"
    if isinstance(value, dict):
        members = (render(key, draw) + blank + ":" + render(item, draw) for key, item in value["pairs"])
        return "{" + ("," + blank).join(members) + "}" + blank
    if isinstance(value, str) and draw(st.booleans()):
        return '"' + "".join(f"\\u{unit:04x}" for unit in utf16(value)) + '"'
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


def utf16(text: str) -> list[int]:
    """Code units of a text."""
    raw = text.encode("utf-16-be")
    return [int.from_bytes(raw[index : index + 2], "big") for index in range(0, len(raw), 2)]


def mark(pairs: Pairs) -> dict[str, Any]:
    """The plain way to find repeats: count the keys of every object."""
    return dict(pairs) if len({key for key, _ in pairs}) == len(pairs) else Repeating(pairs)


def shape(value: Any) -> Any:
    """The value with the type of each object."""
    if isinstance(value, list):
        return [shape(item) for item in value]
    if isinstance(value, dict):
        return type(value), {key: shape(item) for key, item in value.items()}
    return value


@given(VALUES, st.data())
@settings(deadline=None)
def test_repeats_are_found_where_counting_keys_finds_them(value: Any, data: st.DataObject) -> None:
    """Comparing what was read with what can be written loses no repeat and invents none."""
    text = render(value, data.draw)
    expected = json.loads(text, object_pairs_hook=mark)
    assert shape(load(text.encode())) == shape(expected)


@pytest.mark.parametrize(
    "key",
    [
        "Method", "METHOD", "mEtHoD", "name ", " name", "na me", "name\t", "name\n", "name\u0000", "\u0000id",
        "id\u007f", "param\u017f", "task\u0130d", "task\u0131d", "TASKID", "taskid", "na\u200dme", "na\u200bme",
        "\ufeffname", "name\u00a0", "name\u00ad", "\uff4eame", "\u2170d", "name\ufe0f", "u\u034fri", "name\u3164",
        "name\U000e0041", "_Meta", "\uff3fmeta", "json\u2062rpc", "name" + "\u200b" * 100,
    ],
)  # fmt: skip
def test_look_alikes_are_refused(key: str) -> None:
    """Case, compatibility forms, blanks, NUL and invisible characters: some parser takes each for the real name."""
    assert not NAMES.hold_in({key: 1})
    assert not NAMES.hold_in({key: 1, "name": 1})


def test_the_kelvin_sign_is_a_k() -> None:
    """Go folds U+212A to k; so does this."""
    assert not Names(("token",)).hold_in({"to\u212aen": 1})


@pytest.mark.parametrize(
    "key", ["name", "cursor", "names", "nam", "com.example/name", "x-name", "naḿe", "\u043dame", "", "id2", "__proto__"]
)
def test_other_keys_pass(key: str) -> None:
    """Names themselves, and keys that no parser folds into one."""
    assert NAMES.hold_in({key: 1, "id": 1})


def test_only_plain_objects_hold_names() -> None:
    """Arrays, texts, null and objects with repeated keys do not."""
    assert NAMES.hold_in({})
    assert not any(NAMES.hold_in(value) for value in ([], "name", None, 1, Repeating(id=1)))


def test_a_flood_of_unexpected_keys_is_refused() -> None:
    """Nobody sends thousands of unknown members where names are read; comparing them all would cost milliseconds."""
    assert NAMES.hold_in({f"key{index}": 1 for index in range(500)})
    assert not NAMES.hold_in({f"key{index}": 1 for index in range(5000)})


FOUR_MIB = (4 << 20) - 64


def repeated(item: bytes) -> bytes:
    """An array of as many items as fit into 4 MiB."""
    return b'{"a":[' + b",".join([item] * (FOUR_MIB // (len(item) + 1))) + b"]}"


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"' + b"x" * FOUR_MIB + b'"}',
        b'{"a":"' + b"\\\\" * (FOUR_MIB // 2) + b'"}',
        b'{"a":"' + b'{\\"a\\":[1]},' * (FOUR_MIB // 12) + b'"}',
        b'{"a":' + b" " * (1 << 20) + b"1}",
        b'{"a":{' + b",".join(b'"%d":1' % index for index in range(80_000)) + b"}}",
        repeated(b"1"),
        repeated(b'"text"'),
        repeated(b"1.25e-3"),
        repeated(b'{"id":12345678,"text":"' + b"words " * 20 + b'"}'),
    ],
    ids=["text", "backslashes", "json in text", "blanks", "keys", "integers", "texts", "floats", "rows"],
)
def test_large_bodies_pass_in_linear_time(body: bytes) -> None:
    """Up to 4 MiB of ordinary content take some 50 ms; the bound leaves room for a busy machine, not for a square."""
    started = time.process_time()
    load(body)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    "body",
    [
        repeated(b"[]"),
        repeated(b"{}"),
        repeated(b'{"a":1}'),
        repeated(b'{"":""}'),
        b'{"a":{' + b",".join(b'"%d":1' % index for index in range(300_000)) + b"}}",
        b"[" * (FOUR_MIB // 2) + b"]" * (FOUR_MIB // 2),
    ],
    ids=["arrays", "objects", "members", "texts", "keys", "depth"],
)
def test_large_bodies_of_nothing_but_structure_are_too_large(body: bytes) -> None:
    """Their bytes are few, their cost is not. Counting takes about 10 ms, a tenth of what leaving strings out would."""
    started = time.process_time()
    with pytest.raises(BodyTooLarge):
        load(body)
    assert time.process_time() - started < 0.08
