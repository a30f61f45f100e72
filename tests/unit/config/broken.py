"""Configurations that must be refused: what each is about, its text, the line complained about, part of the sentence.

`KEY` in the text stands for a blank-free secret that no message may repeat.
"""

from __future__ import annotations

from typing import Final

GOOD: Final = "servers:\n  a:\n    url: http://127.0.0.1:9000/mcp\n"

#: What stands for a secret in the texts.
KEY: Final = "hunter2hunter2"


def server(*lines: str) -> str:
    """A file whose one server has these further lines, the first on line 4."""
    return GOOD + "".join(f"    {line}\n" for line in lines)


def route(*lines: str) -> str:
    """A file whose one route begins on line 5 and has these further lines, the first on line 8."""
    given = "".join(f"    {line}\n" for line in lines)
    return f"{GOOD}routes:\n  - name: r\n    path: /r\n    servers: a\n{given}"


def when(condition: str) -> str:
    """A file whose one route has this condition, on line 9."""
    return route("when:", f"  {condition}")


def top(*lines: str) -> str:
    """A file with these further lines at the top, the first on line 4."""
    return GOOD + "".join(f"{line}\n" for line in lines)


BROKEN: Final[list[tuple[str, str, int, str]]] = [
    # --- YAML (K1) ---
    ("empty file", "", 1, "the file is empty"),
    ("comments only", "# nothing\n\n", 1, "the file is empty"),
    ("a document of nothing", "---\n", 1, "expected keys and values at the top"),
    ("a scalar", "hello", 1, "expected keys and values at the top"),
    ("a list", "- servers\n", 1, "expected keys and values at the top"),
    ("tab as indentation", "servers:\n\ta: 1\n", 2, "does not allow tabs"),
    ("tab before a key", "servers:\n  a:\n  \turl: http://x\n", 3, "does not allow tabs"),
    ("unclosed bracket", "servers: [\n", 2, "not valid YAML"),
    ("unclosed quote", f'servers:\n  a: "{KEY}\n', 3, "not valid YAML"),
    ("colon missing", "servers\n  a: 1\n", 2, "not valid YAML"),
    ("wrong indentation", "servers:\n  a:\n    url: x\n   b: 1\n", 4, "not valid YAML"),
    ("control character", "servers:\n  a: \x01\n", 2, "cannot hold this character"),
    ("NUL", "servers:\n  a:\n    url: \x00\n", 3, "cannot hold this character"),
    ("lone surrogate", "servers:\n  a: \ud800\n", 2, "cannot hold this character"),
    ("second document", f"{GOOD}---\n{GOOD}", 4, "only one YAML document"),
    ("duplicate server", "servers:\n  a: {url: http://x/}\n  a: {url: http://y/}\n", 3, "was set on line 2 already"),
    ("duplicate key at the top", top("log: {}", "admin: {}", "log: {}"), 6, "was set on line 4 already"),
    ("duplicate key in braces", server("pool: {keepalive: 1s, keepalive: 2s}"), 4, "was set on line 4 already"),
    ("alias", "servers:\n  a: &x {url: http://x/}\n  b: *x\n", 3, "anchors and aliases"),
    ("anchor", "servers: &x\n  a: {url: http://x/}\n", 1, "anchors and aliases"),
    ("alias of nothing", f"{GOOD}log: *x\n", 4, "anchors and aliases"),
    ("alias as a key", "*x : 1\n", 1, "anchors and aliases"),
    ("alias of itself", "servers: &x [*x]\n", 1, "anchors and aliases"),
    ("merge key", "servers:\n  a: &x {url: http://x/}\n  b:\n    <<: *x\n", 4, "anchors and aliases"),
    ("Python object", "servers: !!python/object/apply:os.system [id]\n", 1, "tags"),
    ("private tag", "servers:\n  a: !x {url: http://x/}\n", 2, "tags"),
    ("standard tag", top("admin: {port: !!int '1'}"), 4, "tags"),
    ("mapping as a key", "? {a: 1}\n: 2\n", 1, "a key is plain text"),
    ("list as a key", "? [a]\n: 2\n", 1, "a key is plain text"),
    ("deep nesting", "servers: " + "[" * 40 + "]" * 40, 1, "nested deeper"),
    ("bottomless nesting", "[" * 100_000, 1, "nested deeper"),
    # --- keys ---
    ("misspelt section", top("listn: {}"), 4, "unknown key; did you mean 'listen'?"),
    ("misspelt key", top("listen:", "  prt: 80"), 5, "unknown key; did you mean 'port'?"),
    ("key of a server", server("ur: http://x/"), 4, "unknown key; did you mean 'url'?"),
    ("key of a nested section", server("timeouts:", "  conect: 5s"), 5, "unknown key; did you mean 'connect'?"),
    ("key of a route", route("strategie: random"), 8, "unknown key; did you mean 'strategy'?"),
    ("key of a condition", when("tols: x"), 9, "unknown key; did you mean 'tool'?"),
    ("key of an optional section", route("mirror:", "  server: a", "  percnt: 5"), 10, "did you mean 'percent'?"),
    ("key from nowhere", top("log: {xyz: 1}"), 4, "unknown key; known here: level, format, access"),
    ("no servers", "log: {}\n", 1, "this key is required"),
    ("servers without a value", "servers:\n", 1, "has no value"),
    ("servers empty", "servers: {}\n", 1, "must not be empty"),
    ("servers as a list", "servers:\n  - url: http://x/\n", 1, "expected keys and values"),
    ("server without URL", "servers:\n  a: {}\n", 2, "this key is required"),
    ("section without a value", top("listen:", "admin: {}"), 4, "has no value"),
    ("section as a word", top("listen: 8080"), 4, "expected keys and values"),
    ("key without a value", top("listen:", "  port:"), 5, "has no value"),
    # --- values ---
    ("port too large", top("listen: {port: 65536}"), 4, "must be 65535 or less"),
    ("port negative", top("admin: {port: -1}"), 4, "must be 0 or more"),
    ("port as a word", top("listen: {port: http}"), 4, "expected a whole number"),
    ("port with a fraction", top("listen: {port: 80.5}"), 4, "expected a whole number"),
    ("port without bounds", top(f"listen: {{port: {'9' * 5000}}}"), 4, "whole number"),
    ("port as infinity", top("listen: {port: 1e999}"), 4, "expected"),
    ("duration without a unit", server("timeouts: {connect: 5}"), 4, "a duration is a number and a unit"),
    ("duration with a wrong unit", server("timeouts: {connect: 5sec}"), 4, "a duration is a number and a unit"),
    ("duration negative", server("timeouts: {connect: -1s}"), 4, "a duration is a number and a unit"),
    ("duration as infinity", server("timeouts: {connect: 1e999}"), 4, "a duration is a number and a unit"),
    ("duration of zero", server("timeouts: {connect: 0}"), 4, "must be longer than 0"),
    ("duration of ages", server("timeouts: {connect: 999999999d}"), 4, "at most ten years"),
    ("duration in other digits", server("timeouts: {connect: \u0665s}"), 4, "a duration is a number and a unit"),
    ("size with a wrong unit", top("listen: {limits: {body: 4MB}}"), 4, "a size is a whole number"),
    ("size negative", top("listen: {limits: {body: -1}}"), 4, "a size is a whole number"),
    ("size too small", top("listen: {limits: {body: 1B}}"), 4, "must be 1KiB or more"),
    ("size too large", top("listen: {limits: {body: 2GiB}}"), 4, "must be 1GiB or less"),
    ("count too small", top("listen: {limits: {header_count: 1}}"), 4, "must be 8 or more"),
    ("unknown word", top("log: {level: loud}"), 4, "expected 'debug', 'info', 'warning' or 'error'"),
    ("not a boolean", top("log: {access: maybe}"), 4, "expected true or false"),
    ("number for text", top("listen: {host: 127}"), 4, "put the value into quotes"),
    ("empty host", top("listen: {host: ''}"), 4, "must not be empty"),
    ("long host", top(f"listen: {{host: {'x' * 300}}}"), 4, "must not be longer than 256"),
    ("public URL without scheme", top("listen: {public_url: mcp.example.com}"), 4, "public_url looks like"),
    ("public URL with a query", top("listen: {public_url: 'https://x/?a'}"), 4, "public_url looks like"),
    ("public URL of WebSocket", top("listen: {public_url: 'wss://x/'}"), 4, "public_url looks like"),
    ("short session key", top(f"sessions: {{keys: [{KEY}]}}"), 4, "16 or more characters"),
    ("second session key", top("sessions:", "  keys:", f"    - {KEY * 2}", "    - short"), 7, "16 or more"),
    ("session keys as a word", top(f"sessions: {{keys: {KEY}}}"), 4, "expected a list"),
    # --- servers ---
    ("upper-case name", "servers:\n  GitHub: {url: http://x/}\n", 2, "a name has 1 to 63 lower-case letters"),
    ("name with a slash", "servers:\n  a/b: {url: http://x/}\n", 2, "a name has"),
    ("name of dots", "servers:\n  ..: {url: http://x/}\n", 2, "a name has"),
    ("empty name", "servers:\n  '': {url: http://x/}\n", 2, "a name has"),
    ("long name", f"servers:\n  {'a' * 64}: {{url: http://x/}}\n", 2, "a name has"),
    ("URL without scheme", "servers:\n  a:\n    url: example.com/mcp\n", 3, "a server URL looks like"),
    ("URL of a file", "servers:\n  a:\n    url: file:///etc/passwd\n", 3, "a server URL looks like"),
    ("URL without host", "servers:\n  a:\n    url: http:///mcp\n", 3, "a server URL looks like"),
    ("URL with a bad port", "servers:\n  a:\n    url: http://x:99999/\n", 3, "a server URL looks like"),
    ("URL with port 0", "servers:\n  a:\n    url: http://x:0/\n", 3, "a server URL looks like"),
    ("URL with a bracket", "servers:\n  a:\n    url: 'http://[::1/'\n", 3, "a server URL looks like"),
    ("URL with a blank", "servers:\n  a:\n    url: http://x/a b\n", 3, "a server URL looks like"),
    ("URL with a line break", 'servers:\n  a:\n    url: "http://x/\\r\\nHost: y"\n', 3, "a server URL looks like"),
    ("URL with a DEL", 'servers:\n  a:\n    url: "http://x/\\x7f"\n', 3, "a server URL looks like"),
    ("URL in other letters", "servers:\n  a:\n    url: http://b\u00fccher.example/\n", 3, "a server URL looks like"),
    ("URL with a password", f"servers:\n  a:\n    url: http://u:{KEY}@x/\n", 3, "no user, password or fragment"),
    ("URL with a fragment", "servers:\n  a:\n    url: http://x/#y\n", 3, "no user, password or fragment"),
    ("WebSocket URL", "servers:\n  a:\n    url: ws://x/\n", 2, "needs 'transport: websocket'"),
    ("unknown transport", server("transport: stdio"), 4, "expected 'streamable_http', 'sse' or 'websocket'"),
    ("framing header", server("headers:", "  Content-Length: '5'"), 5, "the proxy's to set"),
    ("session header", server("headers: {mcp-session-id: x}"), 4, "the proxy's to set"),
    ("header name with a blank", server("headers: {'a b': x}"), 4, "a header name has"),
    ("header twice", server("headers: {Authorization: x, authorization: y}"), 2, "a header is set twice"),
    ("header as a number", server("headers: {X-Id: 5}"), 4, "put the value into quotes"),
    ("header with a line break", server(f'headers: {{A: "{KEY}\\r\\nB: c"}}'), 4, "printable ASCII"),
    ("header with a blank at its end", server("headers: {Authorization: 'Bearer '}"), 4, "printable ASCII"),
    ("TLS without https", server("tls: {ca: ca.pem}"), 2, "needs an https:// or wss:// URL"),
    ("key without certificate", "servers:\n  a:\n    url: https://x/\n    tls: {key: k}\n", 4, "needs a 'certificate'"),
    ("pool without room", server("pool: {max_connections: 0}"), 4, "must be 1 or more"),
    # --- routes (K2) ---
    ("network too wide", when("client_ip: 10.0.0.0/33"), 9, "an address or network looks like"),
    ("network with host bits", when("client_ip: 10.0.0.1/8"), 9, "an address or network looks like"),
    ("network in a list", route("when:", "  client_ip:", "    - 10.0.0.0/8", "    - x"), 11, "an address or network"),
    ("network as a number", when("client_ip: 5"), 9, "an address or network looks like"),
    ("percent over 100", when("percent: 101"), 9, "must be 100 or less"),
    ("percent under 0", when("percent: -1"), 9, "must be 0 or more"),
    ("percent not a number", when("percent: .nan"), 9, "expected a number"),
    ("percent as infinity", when("percent: 1e999"), 9, "expected a number"),
    ("mirror percent", route("mirror: {server: a, percent: 1000}"), 8, "must be 100 or less"),
    ("window without an end", when("between: 22:00"), 9, "a time window looks like"),
    ("window at hour 24", when("between: 22:00-24:00"), 9, "hours 00:00 to 23:59"),
    ("window of no time", when("between: 22:00-22:00"), 9, "two different times"),
    ("window in no zone", when("between: 22:00-06:00 Europe/Atlantis"), 9, "known IANA time zone"),
    ("window in a directory", when("between: 22:00-06:00 Europe"), 9, "known IANA time zone"),
    ("window outside the zones", when("between: 22:00-06:00 ../../etc/passwd"), 9, "a time window looks like"),
    ("revision of a word", when("protocol: latest"), 9, "a protocol revision looks like"),
    ("header condition", when("header: {'a b': x}"), 9, "a header name has"),
    ("header condition twice", when("header: {A: x, a: y}"), 8, "a header is named twice"),
    ("empty tool", when("tool: ''"), 9, "must not be empty"),
    ("route without a name", f"{GOOD}routes:\n  - path: /r\n    servers: a\n", 5, "this key is required"),
    ("routes as a mapping", top("routes: {r: {path: /r}}"), 4, "expected a list"),
    ("route as a word", top("routes: [r]"), 4, "expected keys and values"),
    ("path without a slash", f"{GOOD}routes: [{{name: r, path: r, servers: a}}]\n", 4, "a path starts with '/'"),
    ("path with dots", f"{GOOD}routes: [{{name: r, path: /a/../b, servers: a}}]\n", 4, "a path starts with '/'"),
    ("path with a code", f"{GOOD}routes: [{{name: r, path: /a%2fb, servers: a}}]\n", 4, "a path starts with '/'"),
    ("path with two stars", f"{GOOD}routes: [{{name: r, path: /*/*, servers: a}}]\n", 4, "a path starts with '/'"),
    ("no server in a route", f"{GOOD}routes: [{{name: r, path: /r, servers: []}}]\n", 4, "must not be empty"),
    ("server twice", f"{GOOD}routes: [{{name: r, path: /r, servers: [a, a]}}]\n", 4, "a server is listed twice"),
    ("weight under 0", f"{GOOD}routes: [{{name: r, path: /r, servers: [{{name: a, weight: -1}}]}}]\n", 4, "must be 0"),
    ("weight over 1000", f"{GOOD}routes: [{{name: r, path: /r, servers: [{{name: a, weight: 2000}}]}}]\n", 4, "1000"),
    ("weight of a half", f"{GOOD}routes: [{{name: r, path: /r, servers: [{{name: a, weight: 0.5}}]}}]\n", 4, "whole"),
    ("priority", route("priority: 2000"), 8, "must be 1000 or less"),
    ("unknown strategy", route("strategy: best"), 8, "expected 'round_robin'"),
    ("affinity by a header", route("affinity: {by: header}"), 8, "'header' is needed"),
    ("affinity with a header", route("affinity: {by: task, header: X}"), 8, "'header' is needed"),
    ("inspection", route("inspect: none", "when: {tool: x}"), 5, "'inspect: none' cannot be combined"),
    # --- names that lead nowhere, contradictions ---
    ("unknown server", f"{GOOD}routes: [{{name: r, path: /r, servers: b}}]\n", 4, "no server of this name"),
    ("unknown server, misspelt",
     "servers: {github: {url: http://x/}}\nroutes:\n  - {name: r, path: /r, servers: gitub}\n",
     3, "did you mean 'github'?"),
    ("unknown server of a mirror", route("mirror: {server: b}"), 8, "no server of this name"),
    ("two routes of one name", route("when: {tool: x}") + "  - {name: r, path: /s, servers: a}\n", 9, "on line 5 has"),
    ("a route never reached", route() + "  - {name: s, path: /r, servers: a}\n", 8, "never reached: the route on line"),
    ("inspect disagrees", route("when: {host: x}") + "  - {name: s, path: /r, servers: a, inspect: none}\n",
     9, "all routes of one path must agree; the one on line 5"),
    ("one port for both", top("listen: {port: 9090}"), 4, "cannot share a port"),
    # --- from outside (K3) ---
    ("variable missing", server(f"headers: {{Authorization: 'Bearer ${{NO_SUCH}}', X-Key: {KEY}}}"), 4,
     "the environment variable NO_SUCH is not set"),
    ("variable unclosed", server("headers: {A: '${NO'}"), 4, "a variable looks like"),
    ("variable of a strange name", server("headers: {A: '${NO-SUCH}'}"), 4, "a variable looks like"),
    ("secret file missing", server("headers: {A: 'file:no/such/file'}"), 4, "secret file cannot be read: No such file"),
    ("secret file a directory", server("headers: {A: 'file:/'}"), 4, "not a regular file"),
    ("secret file unnamed", server("headers: {A: 'file:'}"), 4, "no file is named"),
    ("certificate missing", top("listen:", "  tls:", "    certificate: no.pem", "    key: no.key"), 6, "No such file"),
    ("key missing", top("listen:", "  tls:", "    certificate: no.pem", "    key: no.key"), 7, "No such file"),
    ("authorities missing", "servers:\n  a:\n    url: https://x/\n    tls: {ca: no.pem}\n", 4, "No such file"),
]  # fmt: skip
