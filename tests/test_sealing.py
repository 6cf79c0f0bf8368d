"""A sealed ring comes back as it was, or is refused."""

from __future__ import annotations

import copy
import json
import os
import pickle
from base64 import b64encode
from dataclasses import replace
from typing import Any

import pytest

from sidecar.data_keys import DamagedRingError, DataKeys, fresh_data_keys
from sidecar.errors import UnavailableKmsError
from sidecar.jose import keys as jose_keys
from sidecar.jose.keys import Material
from sidecar.keyring import Answered, Key, KeyUse, Ring, Role, Settings
from sidecar.kms.file import FileKms, make
from sidecar.profile import DEFAULT, refreshing
from sidecar.sealing import Opened, open_ring, seal_ring

STORE = "0123456789abcdef" * 2
NOW = 1_800_000_000.25


class CountingKms(FileKms):
    """A real one that counts."""

    unwraps = 0

    async def unwrap(self, wrapped: bytes, context: dict[str, str]) -> bytes:
        self.unwraps += 1
        return await super().unwrap(wrapped, context)


@pytest.fixture
def kms(tmp_path_factory: pytest.TempPathFactory) -> CountingKms:
    path = tmp_path_factory.mktemp("kms") / "kek"
    make(path)
    return CountingKms(path)


def _key(material: Material, use: KeyUse) -> Key:
    return Key(material.key_id, use, material.algorithm, Settings.of(DEFAULT, use), NOW, NOW)


class Sealed:
    """A ring of two live keys and a compromised one, its material and its document."""

    def __init__(self, content: bytes, ring: Ring, material: dict[str, Material], data_keys: DataKeys) -> None:
        self.content = content
        self.ring = ring
        self.material = material
        self.data_keys = data_keys
        self.signature, self.encryption, self.compromised = (key.key_id for key in ring.keys)


async def _sealed(kms: FileKms, profile: str = "default", revision: int = 3) -> Sealed:
    made = [jose_keys.generate(algorithm) for algorithm in ("ES256", "A256KW", "ES256")]
    keys = [_key(m, KeyUse.ENCRYPTION if m.algorithm == "A256KW" else KeyUse.SIGNATURE) for m in made]
    keys[0] = keys[0].retired(NOW + 40)
    keys[2] = replace(keys[2], compromise_time=NOW + 1)
    ring = Ring(profile, revision, tuple(keys), (Answered("a request", 2, NOW), Answered("ünother", 3, NOW + 40)))
    material = {m.key_id: m for m in made}
    data_keys = await fresh_data_keys(dict.fromkeys(Role, kms), profile, STORE, NOW)
    return Sealed(seal_ring(ring, material, data_keys), ring, material, data_keys)


async def _open(content: bytes, kms: FileKms, known: DataKeys | None = None, **other: Any) -> Opened:
    where = {"profile": "default", "revision": 3, "store_id": STORE, **other}
    roles = where.get("roles", tuple(Role))
    return await open_ring(
        content,
        where["profile"],
        where["revision"],
        store_id=where["store_id"],
        kms=dict.fromkeys(roles, kms),
        known=known,
    )


async def test_ring_comes_back_as_it_was(kms: CountingKms) -> None:
    sealed = await _sealed(kms)
    opened = await _open(sealed.content, kms)
    assert opened.ring == sealed.ring
    assert opened.content == sealed.content


async def test_each_role_gets_its_part_and_no_more(kms: CountingKms) -> None:
    sealed = await _sealed(kms)
    opened = await _open(sealed.content, kms)
    assert opened.issue[sealed.signature].private_bytes() == sealed.material[sealed.signature].private_bytes()
    assert not opened.open[sealed.signature].private
    assert opened.open[sealed.signature].public_bytes() == sealed.material[sealed.signature].public_bytes()
    for part in (opened.issue, opened.open):
        assert part[sealed.encryption].private_bytes() == sealed.material[sealed.encryption].private_bytes()


async def test_key_of_refresh_tokens_is_the_issuers_alone(kms: CountingKms) -> None:
    profile = refreshing(replace(DEFAULT, refresh_ttl=3600))
    made = jose_keys.generate("A256KW")
    settings = Settings.of(profile, KeyUse.REFRESH)
    key = Key(made.key_id, KeyUse.REFRESH, made.algorithm, settings, NOW, NOW)
    data_keys = await fresh_data_keys(dict.fromkeys(Role, kms), profile.name, STORE, NOW)
    content = seal_ring(Ring(profile.name, 3, (key,)), {made.key_id: made}, data_keys)
    for roles in ((Role.ISSUE,), tuple(Role)):
        opened = await _open(content, kms, profile=profile.name, roles=roles)
        assert opened.issue[made.key_id].private_bytes() == made.private_bytes()
        assert not opened.open
    validator = await _open(content, kms, profile=profile.name, roles=(Role.OPEN,))
    assert (validator.ring.keys, dict(validator.open), dict(validator.issue)) == ((key,), {}, {})
    assert json.loads(content)["parts"][made.key_id].keys() == {"issue"}


async def test_compromised_key_has_no_parts(kms: CountingKms) -> None:
    sealed = await _sealed(kms)
    opened = await _open(sealed.content, kms)
    assert sealed.compromised not in {**opened.issue, **opened.open}
    assert json.loads(sealed.content)["parts"].keys() == {sealed.signature, sealed.encryption}


async def test_document_holds_no_secret(kms: CountingKms) -> None:
    sealed = await _sealed(kms)
    for material in sealed.material.values():
        members = json.loads(material.private_bytes())
        for name in {"d", "k"} & members.keys():
            assert members[name].encode() not in sealed.content


async def test_sealing_twice_differs(kms: CountingKms) -> None:
    sealed = await _sealed(kms)
    again = seal_ring(sealed.ring, sealed.material, sealed.data_keys)
    parts, others = json.loads(sealed.content)["parts"], json.loads(again)["parts"]
    assert all(parts[key][role] != others[key][role] for key in parts for role in ("issue", "open"))


async def test_data_keys_are_unwrapped_once_and_kept(kms: CountingKms) -> None:
    sealed = await _sealed(kms)
    first = await _open(sealed.content, kms)
    assert kms.unwraps == 2
    later = seal_ring(replace(sealed.ring, revision=4), sealed.material, first.data_keys, first)
    await _open(later, kms, known=first.data_keys, revision=4)
    assert kms.unwraps == 2


async def test_no_flipped_bit_opens(kms: CountingKms) -> None:
    content = (await _sealed(kms)).content
    for position in range(len(content)):
        with pytest.raises((DamagedRingError, UnavailableKmsError)):
            await _open(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :], kms)


async def test_no_cut_document_opens(kms: CountingKms) -> None:
    content = (await _sealed(kms)).content
    for length in (0, 1, 100, len(content) - 1):
        with pytest.raises(DamagedRingError):
            await _open(content[:length], kms)
    for more in (b" ", b"\n", b"\x00", b"{}"):
        with pytest.raises(DamagedRingError):
            await _open(content + more, kms)


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"null",
        b"3",
        b'"text"',
        b"\xff",
        b"{}",
        b'{"version":1}',
        b"[" * 100_000,
        b'{"version":NaN}',
        b" " * 5_000_000,
    ],
    ids=range(10),
)
async def test_nonsense_is_damage(kms: CountingKms, content: bytes) -> None:
    with pytest.raises(DamagedRingError, match="never replaced by a fresh one"):
        await _open(content, kms)


async def test_newer_format_says_so(kms: CountingKms) -> None:
    document = json.loads((await _sealed(kms)).content)
    with pytest.raises(DamagedRingError, match="its format has version 2, and this version knows 1"):
        await _open(json.dumps({**document, "version": 2}).encode(), kms)


async def test_ring_of_another_profile_is_refused(kms: CountingKms) -> None:
    other = await _sealed(kms, profile="other")
    with pytest.raises(UnavailableKmsError):
        await _open(other.content, kms)
    # Even by who could get at the data keys.
    with pytest.raises(DamagedRingError, match="belongs to another profile"):
        await _open(other.content, kms, known=other.data_keys)


async def test_ring_of_another_revision_is_refused(kms: CountingKms) -> None:
    content = (await _sealed(kms)).content
    for revision in (1, 2, 4):
        with pytest.raises(DamagedRingError, match=f"stored as revision {revision}"):
            await _open(content, kms, revision=revision)


async def test_ring_of_another_store_is_refused(kms: CountingKms) -> None:
    with pytest.raises(UnavailableKmsError):
        await _open((await _sealed(kms)).content, kms, store_id="f" * 32)


async def test_another_kek_is_refused(kms: CountingKms, tmp_path: Any) -> None:
    make(tmp_path / "other")
    with pytest.raises(UnavailableKmsError, match="does not open the keys of profile 'default'"):
        await _open((await _sealed(kms)).content, FileKms(tmp_path / "other"))


def _resealed(sealed: Sealed, change: Any) -> bytes:
    """What somebody with the data keys of both roles could write: the outer seals are right again."""
    document = json.loads(sealed.content)
    change(document)
    del document["seals"], document["signature"]
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    document["signature"] = b64encode(sealed.data_keys.sign(b"tokensidecar ring 1 document\n" + text)).decode()
    document["seals"] = {role.value: b64encode(sealed.data_keys.derived(role).seal(text)).decode() for role in Role}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


async def test_part_opens_only_where_it_belongs(kms: CountingKms) -> None:
    sealed = await _sealed(kms)

    def swap_roles(document: Any) -> None:
        parts = document["parts"][sealed.encryption]
        parts["issue"], parts["open"] = parts["open"], parts["issue"]

    def swap_keys(document: Any) -> None:
        parts = document["parts"]
        parts[sealed.signature], parts[sealed.encryption] = parts[sealed.encryption], parts[sealed.signature]

    def other_algorithm(document: Any) -> None:
        document["keys"][1]["algorithm"] = "A128KW"

    def other_use(document: Any) -> None:
        document["keys"][1]["use"] = "signature"

    def short(document: Any) -> None:
        document["parts"][sealed.signature]["issue"] = "AAAA"

    assert (await _open(_resealed(sealed, lambda _document: None), kms)).ring == sealed.ring
    for change in (swap_roles, swap_keys, other_algorithm, other_use, short):
        with pytest.raises(DamagedRingError, match="does not open"):
            await _open(_resealed(sealed, change), kms)


async def test_facts_of_another_version_are_refused(kms: CountingKms) -> None:
    sealed = await _sealed(kms)

    def more(document: Any) -> None:
        document["keys"][0]["colour"] = "red"

    def fewer(document: Any) -> None:
        del document["keys"][0]["settings"]["leeway"]

    def unknown_use(document: Any) -> None:
        document["keys"][0]["use"] = "refresh"

    def no_part(document: Any) -> None:
        del document["parts"][sealed.signature]

    def part_of_a_compromised_key(document: Any) -> None:
        document["parts"][sealed.compromised] = document["parts"][sealed.signature]

    for change in (more, fewer, unknown_use, no_part, part_of_a_compromised_key):
        with pytest.raises(DamagedRingError):
            await _open(_resealed(sealed, change), kms)


async def test_one_role_cannot_seal_for_the_other(kms: CountingKms) -> None:
    """Whoever holds the data key of one role alone cannot change the document unnoticed by the other."""
    sealed = await _sealed(kms)
    forged = json.loads(_resealed(sealed, lambda document: document.update(revision=9)))
    whole = json.loads(sealed.content)
    for role in ("issue", "open"):
        content = {**forged, "seals": {**forged["seals"], role: whole["seals"][role]}}
        with pytest.raises(DamagedRingError, match=f"seal of role '{role}' is broken"):
            await _open(json.dumps(content, sort_keys=True, separators=(",", ":")).encode(), kms, revision=9)


async def test_data_keys_show_nothing_and_travel_nowhere(kms: CountingKms) -> None:
    secret = os.urandom(32)
    data_keys = DataKeys(dict.fromkeys(Role, secret), dict.fromkeys(Role, b"wrapped"), NOW)
    assert secret.hex() not in repr(data_keys)
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            copied(data_keys)
    opened = await _open((await _sealed(kms)).content, kms)
    for material in opened.issue.values():
        members = json.loads(material.private_bytes())
        assert members.get("d", members.get("k")) not in repr(opened)
