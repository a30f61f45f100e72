"""How much anyone may use: pure functions and immutable values, no I/O, no await.

    rules     what is limited: rules, and which of them concern a request
    costs     what a message costs
    bucket    token buckets and sliding windows of this process, and what the script in Redis does
    verdict   what became of a request, out of what its buckets say
    fairness  what each tenant gets of what all share
    scores    addresses that misbehave, and for how long they are blocked

Imports the standard library, `proxy.errors`, `proxy.mcp` and `proxy.identity`.
"""
