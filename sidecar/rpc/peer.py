"""Who is calling: the address itself, the client's certificate, or a service account token in the call's metadata."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sidecar.addresses import Address, Tls
from sidecar.caller import Caller, Identified, Plane
from sidecar.errors import UnidentifiedCallerError
from sidecar.identity import Leaf, leaf, name_of
from sidecar.rpc.boundary import Context, Door, Identify

NOBODY = "unidentified"
LEAVES_KEPT = 1024  # of client certificates, so that each is parsed once
_AUTHORIZATION = "authorization"
_SCHEME = "bearer "

Verifier = Callable[[str], "str | Awaitable[str]"]
"""From a service account token to the caller's name; an awaitable where keys must be looked for first. `SidecarError`: it names nobody."""


def door(address: Address, plane: Plane, *, accounts: Verifier | None, now: Callable[[], float]) -> Door:
    """What tells who calls at this address. `accounts`: verifies service account tokens; `now`: the wall clock."""
    if address.identified is Identified.ADDRESS:
        caller = Caller(address.caller, plane)
        found = Door(lambda _context: caller, caller)
    elif address.service_accounts and accounts is not None:
        found = Door(_by_token(accounts, plane), Caller(NOBODY, plane, Identified.SERVICE_ACCOUNT))
    elif address.tls is not None:
        found = Door(_by_certificate(address.tls, plane, now), Caller(NOBODY, plane, Identified.CERTIFICATE))
    else:
        raise AssertionError(address)  # the configuration has an issuer where an address has service accounts
    return Door(_guarded(address.guard, found.identify), found.nobody) if address.guard else found


def _by_certificate(tls: Tls, plane: Plane, now: Callable[[], float]) -> Identify:
    known: dict[bytes, Leaf] = {}

    def identify(context: Context) -> Caller:
        pem = next(iter(context.auth_context().get("x509_pem_cert", ())), None)
        if pem is None:
            raise UnidentifiedCallerError(stage="caller.certificate")
        found = known.get(pem)
        if found is None:
            found = leaf(pem)
            if len(known) >= LEAVES_KEPT:
                del known[next(iter(known))]
            known[pem] = found
        name = name_of(found, trust_domain=tls.trust_domain, dns_names=tls.dns_names, now=now())
        return Caller(name, plane, Identified.CERTIFICATE)

    return identify


def _by_token(verify: Verifier, plane: Plane) -> Identify:
    def caller(name: str) -> Caller:
        return Caller(name, plane, Identified.SERVICE_ACCOUNT)

    async def later(name: Awaitable[str]) -> Caller:
        return caller(await name)

    def identify(context: Context) -> Caller | Awaitable[Caller]:
        found = verify(_bearer(context))
        return caller(found) if isinstance(found, str) else later(found)

    return identify


def _bearer(context: Context) -> str:
    """The token of the one `authorization: Bearer …` (RFC 6750, section 2.1)."""
    shown = [value for key, value in context.invocation_metadata() or () if key == _AUTHORIZATION]
    if len(shown) != 1 or not isinstance(shown[0], str) or shown[0][: len(_SCHEME)].lower() != _SCHEME:
        raise UnidentifiedCallerError(
            "this address wants one service account token, in the metadata authorization: Bearer …",
            stage="caller.token_missing",
        )
    return shown[0][len(_SCHEME) :]


def _guarded(key: str, identify: Identify) -> Identify:
    def guarded(context: Context) -> Caller | Awaitable[Caller]:
        if [value for name, value in context.invocation_metadata() or () if name == key] != ["true"]:
            raise UnidentifiedCallerError(f"this address wants the metadata {key}: true", stage="caller.guard")
        return identify(context)

    return guarded
