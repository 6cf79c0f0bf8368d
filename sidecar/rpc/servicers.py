"""The two services: unpack, call the verb, pack. What a caller may do is the policy's matter."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import grpc
from tokensidecar.v1 import admin_service_pb2 as admin, token_service_pb2 as pb

from sidecar.claims import MAX_TEXT
from sidecar.errors import InvalidRequestError, SidecarError, UnimplementedError, Violation
from sidecar.issue import Draft, Issue
from sidecar.keyring import KeyUse
from sidecar.keys import Keys
from sidecar.policy import Verb
from sidecar.refresh import Refresh
from sidecar.revoke import Revoke
from sidecar.revoke_keys import RevokeKeys
from sidecar.rotate import Rotate
from sidecar.rpc import messages
from sidecar.rpc.boundary import BATCH_BYTES, Boundary, Call, Door, RequestT
from sidecar.rpc.turns import Turns
from sidecar.validate import Demand, Judged, Validate

ITEMS = 1000
PAGE, PAGE_MOST = 100, 1000
SLICE = 0.0003  # seconds of a batch's work before the loop may turn to others

_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
VerbT = TypeVar("VerbT")

TOKEN_SERVICE = pb.DESCRIPTOR.services_by_name["TokenService"].full_name
ADMIN_SERVICE = admin.DESCRIPTOR.services_by_name["AdminService"].full_name


@dataclass(frozen=True, slots=True)
class Verbs:
    """Everything that the services can ask for. `refresh` and `revoke` None: the store has no ledger, and policy has said so before."""

    issue: Issue
    validate: Validate
    rotate: Rotate
    refresh: Refresh | None
    revoke: Revoke | None
    revoke_keys: RevokeKeys
    keys: Keys
    fresh_id: Callable[[], str]
    """A random token id, at least 128 bits."""
    turns: Turns = field(default_factory=Turns)
    """Of the batches of every address: they share one event loop."""


def token_service(verbs: Verbs, boundary: Boundary, door: Door) -> grpc.GenericRpcHandler:
    """TokenService, as the server of one address registers it."""
    service = _TokenServicer(verbs)
    wrap = partial(boundary.wrap, TOKEN_SERVICE, door=door)
    batch = partial(wrap, limit=BATCH_BYTES, items=lambda request: _count(len(request.requests)))
    return grpc.method_handlers_generic_handler(
        TOKEN_SERVICE,
        {
            "Issue": wrap("Issue", Verb.ISSUE, pb.IssueRequest, service.issue),
            "Validate": wrap("Validate", Verb.VALIDATE, pb.ValidateRequest, service.validate),
            "BatchIssue": batch("BatchIssue", Verb.ISSUE, pb.BatchIssueRequest, service.batch_issue),
            "BatchValidate": batch("BatchValidate", Verb.VALIDATE, pb.BatchValidateRequest, service.batch_validate),
            "Refresh": wrap("Refresh", Verb.REFRESH, pb.RefreshRequest, service.refresh),
            "Revoke": wrap("Revoke", Verb.REVOKE, pb.RevokeRequest, service.revoke),
            "Rotate": wrap("Rotate", Verb.ROTATE, pb.RotateRequest, service.rotate),
            "GetJwks": wrap("GetJwks", Verb.GET_JWKS, pb.GetJwksRequest, service.get_jwks),
        },
    )


def admin_service(verbs: Verbs, boundary: Boundary, door: Door) -> grpc.GenericRpcHandler:
    """AdminService, for the sockets of the admin plane alone."""
    service = _AdminServicer(verbs)
    wrap = partial(boundary.wrap, ADMIN_SERVICE, door=door)
    return grpc.method_handlers_generic_handler(
        ADMIN_SERVICE,
        {
            "ListKeys": wrap("ListKeys", Verb.LIST_KEYS, admin.ListKeysRequest, service.list_keys),
            "RevokeKeys": wrap("RevokeKeys", Verb.REVOKE_KEYS, admin.RevokeKeysRequest, service.revoke_keys),
            "RevokeSubject": wrap(
                "RevokeSubject", Verb.REVOKE_SUBJECT, admin.RevokeSubjectRequest, service.revoke_subject
            ),
            "RevokeTokenId": wrap(
                "RevokeTokenId", Verb.REVOKE_TOKEN_ID, admin.RevokeTokenIdRequest, service.revoke_token_id
            ),
        },
    )


class _TokenServicer:
    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs

    async def issue(self, call: Call[pb.IssueRequest]) -> pb.IssueResponse:
        grant = messages.grant(call.request)
        issued = self._verbs.issue(call.caller, grant, call.request_id, self._verbs.fresh_id())
        return messages.issued(issued, pb.IssueResponse())

    async def validate(self, call: Call[pb.ValidateRequest]) -> pb.ValidateResponse:
        accepted = await self._verbs.validate(call.caller, messages.demand(call.request), call.request_id)
        return messages.accepted(accepted, pb.ValidateResponse(), with_claims=call.request.with_claims)

    async def batch_issue(self, call: Call[pb.BatchIssueRequest]) -> pb.BatchIssueResponse:
        issue, fresh_id = self._verbs.issue, self._verbs.fresh_id
        response = pb.BatchIssueResponse()

        async def draft(request: pb.IssueRequest) -> Draft | pb.ItemError:
            try:
                return issue.draft(call.caller, messages.grant(request), call.request_id, fresh_id())
            except SidecarError as error:
                call.refused(error, request.profile)
                return messages.item_error(error)

        async def make(drafted: Draft | pb.ItemError) -> None:
            result = response.results.add()
            if isinstance(drafted, pb.ItemError):
                result.error.CopyFrom(drafted)
                return
            try:
                messages.issued(issue.make(call.caller, drafted, call.request_id), result.response)
            except SidecarError as error:
                result.error.CopyFrom(messages.item_error(error))

        # All drafts first: the answer's size is judged before the first token exists.
        drafts = await _each(call, self._verbs.turns, call.request.requests, draft)
        size = sum(messages.issued_size(d) if isinstance(d, Draft) else d.ByteSize() + 8 for d in drafts)
        if size > BATCH_BYTES:
            raise InvalidRequestError(
                Violation(
                    "requests",
                    f"the answer would have about {size} bytes; at most {BATCH_BYTES} are allowed, so send fewer",
                )
            )
        await _each(call, self._verbs.turns, drafts, make)
        return response

    async def batch_validate(self, call: Call[pb.BatchValidateRequest]) -> pb.BatchValidateResponse:
        validate = self._verbs.validate
        response = pb.BatchValidateResponse()
        unsettled: list[tuple[pb.ValidateResult, Judged, Demand]] = []

        async def judge(request: pb.ValidateRequest) -> None:
            result = response.results.add()
            try:
                demand = messages.demand(request)
                judged = await validate.judge(call.caller, demand, call.request_id)
            except SidecarError as error:
                call.refused(error, request.profiles[0] if len(request.profiles) == 1 else "")
                result.error.CopyFrom(messages.item_error(error))
                return
            messages.accepted(judged.accepted, result.response, with_claims=request.with_claims)
            if judged.unsettled:
                unsettled.append((result, judged, demand))

        async def settle(item: tuple[pb.ValidateResult, Judged, Demand]) -> None:
            result, judged, demand = item
            try:
                await validate.settle(call.caller, judged, demand, call.request_id)
            except SidecarError as error:
                result.error.CopyFrom(messages.item_error(error))  # instead of the response: a oneof

        # All are judged first: the answer's size is known before the first token is consumed. An error is no larger than what it replaces.
        await _each(call, self._verbs.turns, call.request.requests, judge)
        if response.ByteSize() > BATCH_BYTES:
            raise InvalidRequestError(
                Violation("requests", f"the answer has more than {BATCH_BYTES} bytes; send fewer tokens at once")
            )
        if unsettled:
            await _each(call, self._verbs.turns, unsettled, settle)
        return response

    async def refresh(self, call: Call[pb.RefreshRequest]) -> pb.RefreshResponse:
        issued = await _served(self._verbs.refresh)(
            call.caller, messages.wish(call.request), call.request_id, self._verbs.fresh_id(), call.alive
        )
        response = pb.RefreshResponse()
        messages.issued(issued, response.tokens)
        return response

    async def revoke(self, call: Call[pb.RevokeRequest]) -> pb.RevokeResponse:
        if not call.request.token:
            raise InvalidRequestError(Violation("token", "required: the token to revoke"))
        held = await _served(self._verbs.revoke).presented(
            call.caller,
            call.request.token,
            why=messages.words("reason", call.request.reason),
            request_id=call.request_id,
            alive=call.alive,
        )
        return pb.RevokeResponse(**messages.held(held))

    async def rotate(self, call: Call[pb.RotateRequest]) -> pb.RotateResponse:
        request = call.request
        profile = request.profile or "default"
        changed = await self._verbs.rotate(
            call.caller,
            profile,
            messages.uses(request.key_use),
            expected=request.expected_ring_revision,
            rotation_id=messages.words("request_id", request.request_id, 128),
            why=messages.words("reason", request.reason),
            request_id=call.request_id,
            alive=call.alive,
        )
        return messages.rotated(changed, self._verbs.keys.of(profile))

    async def get_jwks(self, call: Call[pb.GetJwksRequest]) -> pb.GetJwksResponse:
        uses = messages.uses(call.request.key_use) or tuple(KeyUse)
        text, revision = self._verbs.keys.jwks(call.caller, call.request.profile or "default", uses, call.request_id)
        return pb.GetJwksResponse(jwks_json=text, ring_revision=revision)


class _AdminServicer:
    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs

    async def list_keys(self, call: Call[admin.ListKeysRequest]) -> admin.ListKeysResponse:
        request = call.request
        if request.page_size < 0:
            raise InvalidRequestError(Violation("page_size", "0 for the default, or how many keys at most"))
        size = min(request.page_size or PAGE, PAGE_MOST)
        start = _page_start(request.page_token)
        listed = self._verbs.keys.listed(call.caller, request.profile, call.request_id)
        after = [one for one in listed if (one.profile, one.key.use.value, one.key.create_time, one.key.key_id) > start]
        page = after[:size]
        more = ""
        if len(after) > size:
            last = page[-1]
            more = _page_token(last.profile, last.key.use.value, last.key.create_time, last.key.key_id)
        return admin.ListKeysResponse(keys=messages.keys(page), next_page_token=more)

    async def revoke_keys(self, call: Call[admin.RevokeKeysRequest]) -> admin.RevokeKeysResponse:
        request = call.request
        bad = []
        if not request.profile:
            bad.append(Violation("profile", "required: an incident never falls upon a default by omission"))
        if not request.key_ids or len(request.key_ids) > ITEMS:
            bad.append(Violation("key_ids", f"required: the ids of the compromised keys, 1 to {ITEMS}"))
        elif not all(map(_KEY_ID, request.key_ids)):
            bad.append(Violation("key_ids", "each is 1 to 64 characters of A-Z a-z 0-9 - _, as ListKeys tells them"))
        if bad:
            raise InvalidRequestError(*bad)
        revoked = await self._verbs.revoke_keys(
            call.caller,
            request.profile,
            frozenset(request.key_ids),
            why=messages.words("reason", request.reason),
            request_id=call.request_id,
            alive=call.alive,
        )
        return admin.RevokeKeysResponse(
            keys=messages.keys(self._verbs.keys.of(request.profile)),
            ring_revision=revoked.changed.revision,
            effective_time=messages.timestamp(revoked.effective_time),
        )

    async def revoke_subject(self, call: Call[admin.RevokeSubjectRequest]) -> admin.RevokeSubjectResponse:
        request = call.request
        _require(profile=request.profile, subject=request.subject)
        held = await _served(self._verbs.revoke).subject(
            call.caller,
            request.profile,
            request.subject,
            messages.moment("issued_before", request),
            why=messages.words("reason", request.reason),
            request_id=call.request_id,
            alive=call.alive,
        )
        return admin.RevokeSubjectResponse(**messages.held(held))

    async def revoke_token_id(self, call: Call[admin.RevokeTokenIdRequest]) -> admin.RevokeTokenIdResponse:
        request = call.request
        _require(profile=request.profile, token_id=request.token_id)
        held = await _served(self._verbs.revoke).token_id(
            call.caller,
            request.profile,
            request.token_id,
            messages.moment("expire_time", request),
            why=messages.words("reason", request.reason),
            request_id=call.request_id,
            alive=call.alive,
        )
        return admin.RevokeTokenIdResponse(**messages.held(held))


def _served(verb: VerbT | None) -> VerbT:
    if verb is None:
        raise UnimplementedError
    return verb


def _require(**fields: str) -> None:
    """Of an operator: nothing falls upon a default by omission, and no name is longer than one can be."""
    bad = [
        Violation(name, f"required: 1 to {MAX_TEXT} characters")
        for name, value in fields.items()
        if not 1 <= len(value) <= MAX_TEXT
    ]
    if bad:
        raise InvalidRequestError(*bad)


def _count(items: int) -> int:
    if not 1 <= items <= ITEMS:
        raise InvalidRequestError(Violation("requests", f"1 to {ITEMS} items, not {items}"))
    return items


async def _each(
    call: Call[RequestT], turns: Turns, items: Iterable[ItemT], work: Callable[[ItemT], Awaitable[ResultT]]
) -> list[ResultT]:
    """The results in order. After each slice of work others get their turn, and a caller that has gone is noticed."""
    results = []
    await turns.next()
    until = time.perf_counter() + SLICE
    for item in items:
        results.append(await work(item))
        if time.perf_counter() > until:
            await turns.next()
            call.alive()
            until = time.perf_counter() + SLICE
    return results


def _page_token(profile: str, use: str, created: float, key_id: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([profile, use, created, key_id]).encode()).decode()


def _page_start(token: str) -> tuple[str, str, float, str]:
    if not token:
        return ("", "", 0.0, "")
    try:
        profile, use, created, key_id = json.loads(base64.urlsafe_b64decode(token))
        return (str(profile), str(use), float(created), str(key_id))
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise InvalidRequestError(Violation("page_token", "not a next_page_token of this call")) from None
