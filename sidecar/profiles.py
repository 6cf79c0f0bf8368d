"""Reads the [profiles.NAME] tables of the config file into the profiles of `sidecar.profile`, with the keys of other systems that they import."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sidecar.duties import DOCUMENT as DUTIES
from sidecar.fields import spell
from sidecar.gate import foreign
from sidecar.jose import imported as imported_keys
from sidecar.jose.imported import Imported
from sidecar.jose.suites import KEY_MANAGEMENT, SIGNATURES
from sidecar.keyring import KEYS_AT_ONCE
from sidecar.kinds import PROFILE_NAME
from sidecar.ports import REVOCATIONS
from sidecar.profile import DEFAULT, ClaimRules, Format, Profile, refreshing
from sidecar.sections_keys import LEDGERS
from sidecar.sections_profiles import CLAIMS, IMPORT, PRESETS, PROFILE, PUBLISH_AHEAD, Preset

Table = Callable[..., dict[str, Any]]
Problem = Callable[[str, str], None]

REFRESH_MAX_TTL = 30 * 86400  # seconds
_KEY_FILE_BYTES = 1 << 20


def read(
    found: object,
    keys: dict[str, Any],
    store: str,
    *,
    table: Table,
    problem: Problem,
    note: Callable[[str], None],
) -> dict[str, Profile]:
    """The profiles by name, those of imported keys among them.

    Args:
        found: what stands under `profiles`.
        keys: the values of [keys], whose times are every profile's.
        store: keys.store.
        table: reads one table by its section; what is no good becomes a problem.
        problem: takes a key and a sentence.
        note: takes a sentence that serve says at its start.
    """
    return _Reader(table, problem, note).profiles(found, keys, store)


class _Reader:
    """One reading of the tables."""

    def __init__(self, table: Table, problem: Problem, note: Callable[[str], None]) -> None:
        self._table = table
        self._tell = problem
        self._note = note
        self._told = 0  # problems

    def _problem(self, key: str, sentence: str) -> None:
        self._told += 1
        self._tell(key, sentence)

    def profiles(self, found: object, keys: dict[str, Any], store: str) -> dict[str, Profile]:
        timing: dict[str, Any] = {
            name: keys[name]
            for name in ("rotate_every", "propagation", "max_staleness", "max_skew", "settings_revision")
            if name in keys
        }
        if not isinstance(found, dict):
            self._problem("profiles", "must be a table of profiles: [profiles.default]")
            return {}
        if not found:
            self._note(
                f"no profile is configured: {DEFAULT.name!r} is in force, with issuer {DEFAULT.issuer} and any audience that a caller names"
            )
            profile = replace(DEFAULT, **timing)
            self._check_timing("keys", profile)
            return {profile.name: profile}
        profiles = {}
        for name, table in found.items():
            key = f"profiles.{name}"
            try:
                PROFILE_NAME.read(name)
            except ValueError as error:
                self._problem(key, f"the name of a profile {error}")
                continue
            if name in (DUTIES, REVOCATIONS):
                self._problem(key, "is the name of a document of the store's own; take another one")
                continue
            profiles[name] = self._profile(name, key, table, timing, store)
        return profiles

    def _profile(self, name: str, key: str, table: object, timing: dict[str, Any], store: str) -> Profile:
        values = self._table(key, table, PROFILE, further=("claims", "import"))
        further = table if isinstance(table, dict) else {}
        preset = PRESETS[values.pop("preset", "")]
        given = values.keys()
        values = {**preset.values, **values}
        rules = self._claim_rules(key, self._table(f"{key}.claims", further.get("claims", {}), CLAIMS), preset)
        if ":" in values.get("issuer", "") and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:\S+$", values["issuer"]):
            self._problem(f"{key}.issuer", "has a colon and is not a URI (RFC 7519, section 4.1.1)")
        if "import" in further:
            values["imported"] = self._imported(f"{key}.import", further["import"], values, given)
        else:
            self._check_makes(key, values)
        if values.get("format") == "signed":
            self._check_signed(key, values, imported="import" in further)
        elif values.get("format") == "encrypted":
            for unused in ("sign", "published", "accept_signed_until", "report_only"):
                if values.get(unused):
                    self._problem(f"{key}.{unused}", "is not for format encrypted, which has symmetric keys alone")
            if (encrypt := values.get("encrypt")) and not KEY_MANAGEMENT[encrypt].symmetric:
                self._problem(
                    f"{key}.encrypt",
                    f"{encrypt} has a public key, and whoever has that could make tokens of format encrypted; take A256KW, or format nested",
                )
            self._note(
                f"{key}: format encrypted is symmetric and not signed: whoever holds the keys to validate can also issue"
            )
            values["sign"] = ""
        values["format"] = Format(values.get("format", "nested"))
        values["claims"] = rules
        profile = Profile(
            **{"name": name, "issuer": "", "audiences": (), **timing, **values}
        )  # the whole is refused if these lack
        if profile.refresh_ttl and not profile.refresh_max_ttl:
            profile = replace(profile, refresh_max_ttl=max(REFRESH_MAX_TTL, profile.refresh_ttl))
        self._check_remembered(key, profile, store)
        self._check_timing(key, profile, ceiling=timing.get("max_staleness", DEFAULT.max_staleness))
        return profile

    def _claim_rules(self, key: str, found: dict[str, Any], preset: Preset) -> ClaimRules:
        allow, forbid = found.get("allow"), frozenset(found.get("forbid", ()))
        require = frozenset(found.get("require", ())) | preset.require
        if allow is not None and (extra := sorted(require - set(allow))):
            self._problem(f"{key}.claims.require", f"names {extra[0]!r}, which claims.allow does not")
        if both := sorted(forbid & (require | set(allow or ()))):
            self._problem(f"{key}.claims.forbid", f"names {both[0]!r}, which claims.allow or claims.require names too")
        return ClaimRules(
            allow=None if allow is None else frozenset(allow),
            require=require,
            forbid=forbid,
            types={**preset.types, **found.get("types", {})},
            max_claims=found.get("max_claims"),
        )

    def _check_remembered(self, key: str, profile: Profile, store: str) -> None:
        """What must be remembered needs a store that every sidecar writes."""
        if profile.one_time and profile.imported is not None:
            self._problem(
                f"{key}.one_time", "is not for imported keys: their tokens may lack the id that is remembered"
            )
        scheme = store.partition(":")[0]
        if profile.proof_replay == "fleet" and scheme not in LEDGERS:
            self._problem(
                f"{key}.proof_replay",
                f'"fleet" needs a store that remembers which proofs were used: {" or ".join(LEDGERS)}; {scheme} (keys.store) keeps keys alone',
            )
        if profile.refresh_ttl:
            for problem, found in (
                (
                    f"needs a store that remembers which were used: {' or '.join(LEDGERS)}; {scheme} (keys.store) keeps keys alone",
                    scheme not in LEDGERS,
                ),
                ("is not for imported keys: such a profile only validates", profile.imported is not None),
                ("is not for a one-time profile: a refresh token makes many tokens", profile.one_time),
                (
                    f"must be at most refresh_max_ttl ({spell(profile.refresh_max_ttl)})",
                    profile.refresh_ttl > profile.refresh_max_ttl,
                ),
            ):
                if found:
                    self._problem(f"{key}.refresh_ttl", problem)
            self._check_timing(f"{key} (refresh tokens)", refreshing(profile))
        elif profile.refresh_max_ttl:
            self._problem(f"{key}.refresh_max_ttl", "says nothing without refresh_ttl")
        if profile.one_time and scheme not in LEDGERS:
            self._problem(
                f"{key}.one_time",
                f"needs a store that remembers which tokens were used: {' or '.join(LEDGERS)}; {scheme} (keys.store) keeps keys alone",
            )

    def _check_makes(self, key: str, values: dict[str, Any]) -> None:
        for name, table in (("sign", SIGNATURES), ("encrypt", KEY_MANAGEMENT)):
            if (algorithm := values.get(name)) and not table[algorithm].makes:
                self._problem(
                    f"{key}.{name}",
                    f"{algorithm} is for imported keys alone (profiles.NAME.import): no tokens are made under it",
                )
        if values.get("published") and values.get("sign") == "HS256":
            self._problem(f"{key}.published", "HS256 has no public key that could be published")

    def _check_signed(self, key: str, values: dict[str, Any], *, imported: bool) -> None:
        for unused in ("encrypt", "curve", "content", "accept_signed_until", "report_only"):
            if unused in values:
                self._problem(f"{key}.{unused}", "is not for format signed, which encrypts nothing")
        if imported:
            return
        if not values.get("published"):
            self._problem(
                f"{key}.published", "must be true for format signed: others verify its tokens, and cache its keys"
            )
        self._note(f"{key}: format signed encrypts nothing: whoever sees a token can read its claims")

    def _imported(self, key: str, found: object, values: dict[str, Any], given: Collection[str]) -> Imported | None:
        """The keys in the files that the table names, and the form of what they open."""
        table, problems, digest = self._table(key, found, IMPORT), self._told, hashlib.sha256()
        layers = {"signed": ("signature",), "encrypted": ("encryption",)}.get(
            values.get("format", "nested"), ("signature", "encryption")
        )
        keys: dict[str, Mapping[str, Any]] = {"signature": {}, "encryption": {}}
        for layer, name, default in (("signature", "sign", DEFAULT.sign), ("encryption", "encrypt", DEFAULT.encrypt)):
            if layer not in layers:
                if layer in table:
                    self._problem(f"{key}.{layer}", f"is not for format {values.get('format', 'nested')}")
            elif layer not in table:
                if isinstance(found, dict) and layer not in found:
                    self._problem(f"{key}.{layer}", "is required for this format: the file of its keys")
            else:
                keys[layer] = self._key_file(
                    f"{key}.{layer}", table[layer], values.get(name, default), table.get(f"{layer}_key_id", ""), digest
                )
                if layer == "encryption" and not all(material.private for material in keys[layer].values()):
                    self._problem(f"{key}.{layer}", "holds a public key, which opens nothing: give the private one")
        for unused in ("published", "accept_signed_until", "report_only", "ttl"):
            if unused in given:
                self._problem(
                    f"{key.removesuffix('.import')}.{unused}", "is not for imported keys: such a profile only validates"
                )
        if self._told > problems:
            return None
        typs = table.get("typ") or (values.get("typ", DEFAULT.typ),)
        return Imported(
            signature=keys["signature"],
            encryption=keys["encryption"],
            form=foreign(frozenset(table.get("tolerate", ()))),
            typs=frozenset(typs),
            files={name: value for name, value in table.items() if name not in ("typ", "tolerate")},
            digest=digest.hexdigest(),
        )

    def _key_file(self, key: str, path: str, algorithm: str, key_id: str, digest: Any) -> Mapping[str, Any]:
        try:
            with Path(path).open("rb") as file:
                data = file.read(_KEY_FILE_BYTES)
                open_to_all = os.fstat(file.fileno()).st_mode & 0o007
            digest.update(hashlib.sha256(data).digest())
            found = imported_keys.read(data, algorithm, key_id=key_id)
        except OSError as error:
            self._problem(key, f"{path} cannot be read: {error.strerror}")
        except ValueError as error:
            self._problem(key, f"{path}: {error}")
        else:
            if open_to_all and any(material.private for material in found.values()):
                self._problem(
                    key, f"{path} holds a secret, and every user of this machine may open it: chmod o= {path}"
                )
            return found
        return {}

    def _check_timing(self, key: str, profile: Profile, *, ceiling: int | None = None) -> None:
        if profile.ttl > profile.max_ttl:
            self._problem(f"{key}.ttl", f"must be at most max_ttl ({spell(profile.max_ttl)})")
        if ceiling is not None and profile.max_staleness > ceiling:
            self._problem(f"{key}.max_staleness", f"must be at most keys.max_staleness ({spell(ceiling)})")
        if profile.max_staleness < profile.propagation:
            self._problem(f"{key}.max_staleness", f"must be at least keys.propagation ({spell(profile.propagation)})")
        ahead = (
            max(profile.propagation, PUBLISH_AHEAD) if profile.published else profile.propagation
        ) + 2 * profile.max_skew
        if profile.rotate_every < ahead:
            self._problem(
                "keys.rotate_every", f"must be at least {spell(ahead)}: {key} has its keys prepared that long ahead"
            )
        tail = profile.max_staleness + profile.max_ttl + profile.leeway + 2 * profile.max_skew
        if tail // profile.rotate_every >= KEYS_AT_ONCE:
            least = spell(-(-tail // KEYS_AT_ONCE))
            self._problem(
                "keys.rotate_every",
                f"must be at least {least}: a retired key of {key} is kept for {spell(tail)}, and a ring holds {KEYS_AT_ONCE} of a use",
            )
