"""What happens to a request. One file per phase, and beside them what the phases ask.

    the connection   listener, connection, gate, head, request_line, framing
    the lane         lane_aiohttp, answer; `exchange` is what a lane offers
    the phases       handler: origin, identity, inspect, match, forward, relay, recorder; reject says no
    the choice       router, route_tree, conditions, globs, networks; balancer, rendezvous; affinity
    the upstream     upstream, client, connector, tcp, rewrite, deadlines; tunnel, handshake, websocket
    by name          legacy_sse, wellknown, mirror, streams
    the state        snapshot, context, parts

Phases know an `Exchange` and an `UpstreamResponse`, never a library. Only lane_aiohttp, client and connector know
aiohttp. Nothing here starts a task or imports background, admin or app.
"""
