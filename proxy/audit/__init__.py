"""Rules of the audit trail: pure functions, no I/O, no await.

    columns   the columns of a row, what each is made from, and their canonical text
    scalars   single values in their canonical form
    chain     hash chains over rows, and their heads
    signing   signatures of heads
    sanitise  what is left out of arguments and results
    risk      how grave an act is
    verify    whether rows are complete and unchanged

Imports the standard library, orjson, `proxy.errors`, `proxy.mcp` and `proxy.identity`; `signing` cryptography.
"""
