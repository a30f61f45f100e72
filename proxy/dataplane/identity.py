"""The phase that says who asks, before anything of the body is read.

Everything it needs is in memory: it asks nobody and waits for nothing. What of the head was the credential is noted, so
that it goes no further. Without a database nobody has credentials, and the fields that hold them elsewhere pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.dataplane.context import PREFLIGHT
from proxy.errors import RegistryUnavailable, retry_after
from proxy.identity.credentials import unauthorized
from proxy.identity.directory import UnknownCredential

if TYPE_CHECKING:
    from proxy.dataplane.admission import Admission
    from proxy.dataplane.context import RequestContext
    from proxy.identity.principal import Principal

#: How soon to come back when nobody can say whether a credential is good, seconds.
_RETRY: Final = retry_after(2)


def _without_credential(ctx: RequestContext, admission: Admission) -> Principal:
    if admission.anonymous is not None:
        return admission.anonymous
    if ctx.head.method == "OPTIONS" and "access-control-request-method" in ctx.fields and "origin" in ctx.fields:
        return PREFLIGHT
    raise unauthorized("no credential")


def authenticate(ctx: RequestContext, admission: Admission, now: float) -> None:
    """Fill `ctx.secure`, `ctx.principal` and what of the head must not reach a server. `now`: wall clock, seconds.

    Raises BadRequest for two credentials or a forwarding field that cannot be read, Unauthorized, Forbidden for a
    credential that is used from the wrong place, and RegistryUnavailable for one that is not known while the database
    cannot be asked whether it is.
    """
    fields = ctx.fields
    if not ctx.secure:
        ctx.secure = admission.addresses.secure(ctx.exchange.peer, fields)
    reader, directory = admission.reader, admission.directory
    if reader is None or directory is None:
        credential = None
    else:
        ctx.reader = reader
        credential = reader.read(fields, ctx.head.query)
    if credential is None:
        ctx.principal = _without_credential(ctx, admission)
        return
    assert directory is not None  # noqa: S101 - a credential was read, so there is where to look it up
    try:
        ctx.principal = directory.authenticate(credential, ctx.client_ip, fields.get("origin", ""), now)
    except UnknownCredential:
        if admission.freshness.current:
            raise
        raise RegistryUnavailable("an unknown credential", headers=_RETRY) from None
    ctx.consumed = credential.carriers
