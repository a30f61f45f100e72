"""How much anyone may use: pure functions and immutable values, no I/O, no await.

    rules     what is limited: rules, their costs, and which of them concern a request
    bucket    token buckets and sliding windows of this process, and what the script in Redis does
    fairness  what each tenant gets of what all share
    scores    addresses that misbehave, and for how long they are blocked

Imports the standard library, `proxy.errors`, `proxy.mcp` and `proxy.identity`.
"""
