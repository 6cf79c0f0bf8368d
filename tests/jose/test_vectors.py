"""Published examples: those of algorithms that exist here must open or verify, all others must be refused.

Each example is held by cryptography: a wrong digit in a key, a token or a text fails. They come as other systems' tokens do: keys through
`imported`, tokens through the gate in the form for foreign tokens where they have a `kid` (RFC 7520). Those of RFC 7515, 7516 and 8037
have none, which the gate rightly refuses: they go to the engine beneath it, under the name of their key.

Of RFC 7518 C and RFC 8037 A.6 the agreement is the known answer, and the token around it is made here: the first has `apu` and `apv`, which
the gate refuses, the second wraps by A128KW.

Not here, since nothing here opens them: RFC 7515 A.4 and RFC 7520 4.2, 4.3 (ES512, PS384), RFC 7516 A.1, A.2 and RFC 7520 5.1 to 5.4
(RSA1_5, RSA-OAEP with SHA-1, PBES2, P-384), RFC 7520 5.9 (compression), RFC 7517 C (PBES2), all JSON serializations and detached contents.
RFC 7518 B.1 has associated data that is no header. There is no published token of Ed25519 under that name, PS256 and RSA-OAEP-256 but for
the nested one of RFC 7520 section 6, whose outer layer is RSA-OAEP: `tests/interop` holds those against other libraries.
"""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from sidecar import claims
from sidecar.errors import InvalidTokenError
from sidecar.gate import JWE, JWS, Gated, foreign, gate
from sidecar.jose import imported, keys
from sidecar.jose.encrypt import decrypt
from sidecar.jose.sign import verify
from tests.forgeries import decode, encode, header_of

Jwk = dict[str, str]

# RFC 7515 appendix A.3: ES256.
ES256_JWK = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
}
ES256_KID = "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"  # by RFC 7638
JOE = b'{"iss":"joe",\r\n "exp":1300819380,\r\n "http://example.com/is_root":true}'
JOE_SEGMENT = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
ES256_TOKEN = (
    f"eyJhbGciOiJFUzI1NiJ9.{JOE_SEGMENT}."
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
)

# RFC 7515 appendices A.1 and A.2: HS256 and RS256.
HS256_JWK = {
    "kty": "oct",
    "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
}
HS256_TOKEN = f"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE_SEGMENT}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
RS256_JWK = {
    "kty": "RSA",
    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SF"
    "d2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo"
    "7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkM"
    "Ls91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    "e": "AQAB",
    "d": "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395"
    "IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV"
    "_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQ"
    "yGWSeWjnczT0QU91p1DhOVRuOopznQ",
    "p": "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7"
    "ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc",
    "q": "uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wD"
    "mpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc",
    "dp": "BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12S"
    "k3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0",
    "dq": "h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd"
    "2w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU",
    "qi": "IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93IKLE"
    "dfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U",
}
RS256_SIGNATURE = (
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdb"
    "F9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383"
    "LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWy"
    "wlVmtVrBp0igcN_IoypGlUPQGe77Rw"
)
RS256_TOKEN = f"eyJhbGciOiJSUzI1NiJ9.{JOE_SEGMENT}.{RS256_SIGNATURE}"

# RFC 7516 appendix A.3: A128KW and A128CBC-HS256.
A128KW_JWK = {"kty": "oct", "k": "GawgguFyGrWKav7AX4VKUg"}
A128KW_TOKEN = (
    "eyJhbGciOiJBMTI4S1ciLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0.6KB707dM9YTIgHtLvtgWQ8mKwboJW3of9locizkDTHzBC2IlrT1oOQ."
    "AxY8DCtDaGlsbGljb3RoZQ.KDlTtXchhZTGufMYmOYGS4HffxPSUrfmqCHXaI9wOGY.U0m_YmjN04DJvceFICbCVQ"
)

# RFC 7517 appendices A.1 and A.2; the thumbprint of the RSA key is that of RFC 7638 section 3.1.
KEY_SET = [
    {
        "kty": "EC",
        "crv": "P-256",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        "d": "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE",
        "use": "enc",
        "kid": "1",
    },
    {"alg": "RS256", "kid": "2011-04-29"},
]
KEY_SET[1] |= {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiF"
    "V4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9"
    "c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1"
    "jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
    "d": "X4cTteJY_gn4FYPsXB8rdXix5vwsg1FLN5E3EaG6RJoVH-HLLKD9M7dx5oo7GURknchnrRweUkC7hT5fJLM0WbFAKNLWY2vv7B6NqXSz"
    "UvxT0_YSfqijwp3RTzlBaCxWp4doFk5N2o8Gy_nHNKroADIkJ46pRUohsXywbReAdYaMwFs9tv8d_cPVY3i07a3t8MN6TNwm0dSawm9v"
    "47UiCl3Sk5ZiG7xojPLu4sbg1U2jx4IBTNBznbJSzFHK66jT8bgkuqsk0GjskDJk19Z4qwjwbsnn4j2WBii3RL-Us2lGVkY8fkFzme1z"
    "0HbIkfz0Y6mqnOYtqc0X4jfcKoAC8Q",
    "p": "83i-7IvMGXoMXCskv73TKr8637FiO7Z27zv8oj6pbWUQyLPQBQxtPVnwD20R-60eTDmD2ujnMt5PoqMrm8RfmNhVWDtjjMmCMjOpSXic"
    "FHj7XOuVIYQyqVWlWEh6dN36GVZYk93N8Bc9vY41xy8B9RzzOGVQzXvNEvn7O0nVbfs",
    "q": "3dfOR9cuYq-0S-mkFLzgItgMEfFzB2q3hWehMuG0oCuqnb3vobLyumqjVZQO1dIrdwgTnCdpYzBcOfW5r370AFXjiWft_NGEiovonizh"
    "Kpo9VVS78TzFgxkIdrecRezsZ-1kYd_s1qDbxtkDEgfAITAG9LUnADun4vIcb6yelxk",
    "dp": "G4sPXkc6Ya9y8oJW9_ILj4xuppu0lzi_H7VTkS8xj5SdX3coE0oimYwxIi2emTAue0UOa5dpgFGyBJ4c8tQ2VF402XRugKDTP8akYhFo"
    "5tAA77Qe_NmtuYZc3C3m3I24G2GvR5sSDxUyAN2zq8Lfn9EUms6rY3Ob8YeiKkTiBj0",
    "dq": "s9lAH9fggBsoFR8Oac2R_E2gw282rT2kGOAhvIllETE1efrA6huUUvMfBcMpn8lqeW6vzznYY5SSQF7pMdC_agI3nG8Ibp1BUb0JUira"
    "RNqUfLhcQb_d9GF4Dh7e74WbRsobRonujTYN1xCaP6TO61jvWrX-L18txXw494Q_cgk",
    "qi": "GyM_p6JrXySiz1toFgKbWV-JdI3jQ4ypu9rbMWx3rQJBfmt0FoYzgUIZEVFEcOqwemRN81zoDAaa-Bk0KWNGDjJHZDdDmFhW3AN7lI-p"
    "uxk_mHZGJ11rxyR8O55XLSe3SPmRfKwZI6yU24ZxvQKFYItdldUKGzO6Ia6zTKhAVRU",
}
RSA_THUMBPRINT = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"

# RFC 7520 sections 3.4, 4.1, 4.4 and 5.5 to 5.8, by `alg` and, of a JWE, `enc`.
BILBO = {
    "kty": "RSA",
    "n": "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKr"
    "Kb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5l"
    "FHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__"
    "kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw",
    "e": "AQAB",
    "d": "bWUC9B-EFRIo8kpGfh0ZuyGPvMNKvYWNtB_ikiH9k20eT-O1q_I78eiZkpXxXQ0UTEs2LsNRS-8uJbvQ-A1irkwMSMkK1J3XTGgdrhCk"
    "u9gRldY7sNA_AKZGh-Q661_42rINLRCe8W-nZ34ui_qOfkLnK9QWDDqpaIsA-bMwWWSDFu2MUBYwkHTMEzLYGqOe04noqeq1hExBTHBO"
    "BdkMXiuFhUq1BU6l-DqEiWxqg82sXt2h-LMnT3046AOYJoRioz75tSUQfGCshWTBnP5uDjd18kKhyv07lhfSJdrPdM5Plyl21hsFf4L_"
    "mHCuoFau7gdsPfHPxxjVOcOpBrQzwQ",
    "p": "3Slxg_DwTXJcb6095RoXygQCAZ5RnAvZlno1yhHtnUex_fp7AZ_9nRaO7HX_-SFfGQeutao2TDjDAWU4Vupk8rw9JR0AzZ0N2fvuIAmr"
    "_WCsmGpeNqQnev1T7IyEsnh8UMt-n5CafhkikzhEsrmndH6LxOrvRJlsPp6Zv8bUq0k",
    "q": "uKE2dh-cTf6ERF4k4e_jy78GfPYUIaUyoSSJuBzp3Cubk3OCqs6grT8bR_cu0Dm1MZwWmtdqDyI95HrUeq3MP15vMMON8lHTeZu2lmKv"
    "wqW7anV5UzhM1iZ7z4yMkuUwFWoBvyY898EXvRD-hdqRxHlSqAZ192zB3pVFJ0s7pFc",
    "dp": "B8PVvXkvJrj2L-GYQ7v3y9r6Kw5g9SahXBwsWUzp19TVlgI-YV85q1NIb1rxQtD-IsXXR3-TanevuRPRt5OBOdiMGQp8pbt26gljYfKU"
    "_E9xn-RULHz0-ed9E9gXLKD4VGngpz-PfQ_q29pk5xWHoJp009Qf1HvChixRX59ehik",
    "dq": "CLDmDGduhylc9o7r84rEUVn7pzQ6PF83Y-iBZx5NT-TpnOZKF1pErAMVeKzFEl41DlHHqqBLSM0W1sOFbwTxYWZDm6sI6og5iTbwQGIC"
    "3gnJKbi_7k_vJgGHwHxgPaX2PnvP-zyEkDERuf-ry4c_Z11Cq9AqC2yeL6kdKT1cYF8",
    "qi": "3PiqvXQN0zwMeE-sBvZgi289XP9XCQF3VWqPzMKnIgQp7_Tugo6-NZBKCQsMf3HaEGBjTVJs_jcK8-TRXvaKe-7ZMaQj8VfBdYkssbu0"
    "NKDDhjJ-GtiseaDVWt7dcH0cfwxgFUHpQh7FoCrjFJ6h6ZEpMF6xmujs4qMpPz8aaI4",
}
COOKBOOK_JWS: dict[str, tuple[Jwk, str]] = {
    "RS256": (
        BILBO,
        (
            "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2l"
            "uZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWV"
            "wIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4.MRjdkly7_-oTPTS"
            "3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX"
            "-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePP"
            "QdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree"
            "7vjbU5y18kDquDg"
        ),
    ),
    "HS256": (
        {"kty": "oct", "k": "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg"},
        (
            "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9.SXTigJlzIGEgZGFuZ2Vyb3V"
            "zIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24"
            "ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4.s0h6KTh"
            "zkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0"
        ),
    ),
}
COOKBOOK_JWE: dict[tuple[str, str], tuple[Jwk, str]] = {
    ("ECDH-ES", "A128CBC-HS256"): (
        {
            "kty": "EC",
            "crv": "P-256",
            "x": "Ze2loSV3wrroKUN_4zhwGhCqo3Xhu1td4QjeQ5wIVR0",
            "y": "HlLtdXARY_f55A3fnzQbPcm6hgr34Mp8p-nuzQCE0Zw",
            "d": "r_kHyZ-a06rmxM3yESK84r1otSg-aQcVStkRhA-iCM8",
        },
        (
            "eyJhbGciOiJFQ0RILUVTIiwia2lkIjoibWVyaWFkb2MuYnJhbmR5YnVja0BidWNrbGFuZC5leGFtcGxlIiwiZXBrIjp7Imt0eSI6IkVD"
            "IiwiY3J2IjoiUC0yNTYiLCJ4IjoibVBVS1RfYkFXR0hJaGcwVHBqanFWc1AxclhXUXVfdndWT0hIdE5rZFlvQSIsInkiOiI4QlFBc0lt"
            "R2VBUzQ2ZnlXdzVNaFlmR1RUMElqQnBGdzJTUzM0RHY0SXJzIn0sImVuYyI6IkExMjhDQkMtSFMyNTYifQ..yc9N8v5sYyv3iGQT926I"
            "Ug.BoDlwPnTypYq-ivjmQvAYJLb5Q6l-F3LIgQomlz87yW4OPKbWE1zSTEFjDfhU9IPIOSA9Bml4m7iDFwA-1ZXvHteLDtw4R1XRGMEs"
            "DIqAYtskTTmzmzNa-_q4F_evAPUmwlO-ZG45Mnq4uhM1fm_D9rBtWolqZSF3xGNNkpOMQKF1Cl8i8wjzRli7-IXgyirlKQsbhhqRzkv8"
            "IcY6aHl24j03C-AR2le1r7URUhArM79BY8soZU0lzwI-sD5PZ3l4NDCCei9XkoIAfsXJWmySPoeRb2Ni5UZL4mYpvKDiwmyzGd65KqVw"
            "7MsFfI_K767G9C9Azp73gKZD0DyUn1mn0WW5LmyX_yJ-3AROq8p1WZBfG-ZyJ6195_JGG2m9Csg.WCCkNa-x4BeB9hIDIfFuhg"
        ),
    ),
    ("dir", "A128GCM"): (
        {"kty": "oct", "k": "XctOhJAkA-pD9Lh7ZgW_2A"},
        (
            "eyJhbGciOiJkaXIiLCJraWQiOiI3N2M3ZTJiOC02ZTEzLTQ1Y2YtODY3Mi02MTdiNWI0NTI0M2EiLCJlbmMiOiJBMTI4R0NNIn0..ref"
            "a467QzzKx6QAB.JW_i_f52hww_ELQPGaYyeAB6HYGcR559l9TYnSovc23XJoBcW29rHP8yZOZG7YhLpT1bjFuvZPjQS-m0IFtVcXkZXd"
            "H_lr_FrdYt9HRUYkshtrMmIUAyGmUnd9zMDB2n0cRDIHAzFVeJUDxkUwVAE7_YGRPdcqMyiBoCO-FBdE-Nceb4h3-FtBP-c_BIwCPTjb"
            "9o0SbdcdREEMJMyZBH8ySWMVi1gPD9yxi-aQpGbSv_F9N4IZAxscj5g-NJsUPbjk29-s7LJAGb15wEBtXphVCgyy53CoIKLHHeJHXex4"
            "5Uz9aKZSRSInZI-wjsY0yu3cT4_aQ3i1o-tiE-F8Ios61EKgyIQ4CWao8PFMj8TTnp.vbb32Xvllea2OtmHAdccRQ"
        ),
    ),
    ("A256GCMKW", "A128CBC-HS256"): (
        {"kty": "oct", "k": "qC57l_uxcm7Nm3K-ct4GFjx8tM1U8CZ0NLBvdQstiS8"},
        (
            "eyJhbGciOiJBMjU2R0NNS1ciLCJraWQiOiIxOGVjMDhlMS1iZmE5LTRkOTUtYjIwNS0yYjRkZDFkNDMyMWQiLCJ0YWciOiJrZlBkdVZR"
            "M1QzSDZ2bmV3dC0ta3N3IiwiaXYiOiJLa1lUMEdYXzJqSGxmcU5fIiwiZW5jIjoiQTEyOENCQy1IUzI1NiJ9.lJf3HbOApxMEBkCMOoT"
            "nnABxs_CvTWUmZQ2ElLvYNok.gz6NjyEFNm_vm8Gj6FwoFQ.Jf5p9-ZhJlJy_IQ_byKFmI0Ro7w7G1QiaZpI8OaiVgD8EqoDZHyFKFBu"
            "pS8iaEeVIgMqWmsuJKuoVgzR3YfzoMd3GxEm3VxNhzWyWtZKX0gxKdy6HgLvqoGNbZCzLjqcpDiF8q2_62EVAbr2uSc2oaxFmFuIQHLc"
            "qAHxy51449xkjZ7ewzZaGV3eFqhpco8o4DijXaG5_7kp3h2cajRfDgymuxUbWgLqaeNQaJtvJmSMFuEOSAzw9Hdeb6yhdTynCRmu-kqt"
            "O5Dec4lT2OMZKpnxc_F1_4yDJFcqb5CiDSmA-psB2k0JtjxAj4UPI61oONK7zzFIu4gBfjJCndsZfdvG7h8wGjV98QhrKEnR7xKZ3KCr"
            "0_qR1B-gxpNk3xWU.DKW7jrb4WaRSNfbXVPlT5g"
        ),
    ),
    ("A128KW", "A128GCM"): (
        {"kty": "oct", "k": "GZy6sIZ6wl9NJOKB-jnmVQ"},
        (
            "eyJhbGciOiJBMTI4S1ciLCJraWQiOiI4MWIyMDk2NS04MzMyLTQzZDktYTQ2OC04MjE2MGFkOTFhYzgiLCJlbmMiOiJBMTI4R0NNIn0."
            "CBI6oDw8MydIx1IBntf_lQcw2MmJKIQx.Qx0pmsDa8KnJc9Jo.AwliP-KmWgsZ37BvzCefNen6VTbRK3QMA4TkvRkH0tP1bTdhtFJgJx"
            "eVmJkLD61A1hnWGetdg11c9ADsnWgL56NyxwSYjU1ZEHcGkd3EkU0vjHi9gTlb90qSYFfeF0LwkcTtjbYKCsiNJQkcIp1yeM03OmuiYS"
            "oYJVSpf7ej6zaYcMv3WwdxDFl8REwOhNImk2Xld2JXq6BR53TSFkyT7PwVLuq-1GwtGHlQeg7gDT6xW0JqHDPn_H-puQsmthc9Zg0ojm"
            "JfqqFvETUxLAF-KjcBTS5dNy6egwkYtOt8EIHK-oEsKYtZRaa8Z7MOZ7UGxGIMvEmxrGCPeJa14slv2-gaqK0kEThkaSqdYw0FkQZF.E"
            "R7MWJZ1FBI_NKvn7Zb1Lw"
        ),
    ),
}
ROAD = (
    "It\u2019s a dangerous business, Frodo, going out your door. You step onto the road, and if you don't keep your feet, "
    "there\u2019s no knowing where you might be swept off to."
).encode()
TRUST = (
    "You can trust us to stick with you through thick and thin\u2013to the bitter end. And you can trust us to keep any secret of yours"
    "\u2013closer than you keep it yourself. But you cannot trust us to let you face trouble alone, and go off without a word. "
    "We are your friends, Frodo."
).encode()

# RFC 7518 appendix C: ECDH-ES for A128GCM, the party information included.
ALICE = {
    "kty": "EC",
    "crv": "P-256",
    "x": "gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0",
    "y": "SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps",
}
BOB_JWK = {
    "kty": "EC",
    "crv": "P-256",
    "x": "weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ",
    "y": "e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck",
    "d": "VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw",
}
AGREED = "VqqN6vgjbSBcIijNcacQGg"

# RFC 8037 appendices A.1 to A.5, and A.6 with the private keys of RFC 7748 section 6.1.
EDDSA_JWK = {
    "kty": "OKP",
    "crv": "Ed25519",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
}
EDDSA_KID = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
EDDSA_TOKEN = (
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
)
X25519_EPHEMERAL = "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"
X25519_BOB = "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"
X25519_BOB_SECRET = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
X25519_AGREED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")

# RFC 3394 section 4.6: 256 bits of key data under a 256-bit key-encryption key.
KEK = bytes.fromhex("000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F")
KEY_DATA = bytes.fromhex("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F")
WRAPPED = bytes.fromhex("28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21")


def key(jwk: Jwk, algorithm: str, *, key_id: str = "") -> keys.Material:
    """The key as a profile of another system's keys has it."""
    (material,) = imported.read(json.dumps(jwk).encode(), algorithm, key_id=key_id).values()
    return material


def public(jwk: Jwk) -> Jwk:
    return {name: value for name, value in jwk.items() if name not in ("d", "p", "q", "dp", "dq", "qi")}


def named(token: str, key: keys.Material) -> Gated:
    """The token as if its header had the kid of this key, so that the engine alone is tried."""
    header = header_of(token)
    return Gated(
        token, tuple(token.split(".")), header, str(header["alg"]), str(header.get("enc", "")), key.key_id, "", ""
    )


@pytest.fixture(params=keys.ENGINES, autouse=True)
def engine(request: pytest.FixtureRequest) -> object:
    """Every example under each engine."""
    before = keys.choose_engine(request.param)
    yield request.param
    keys.choose_engine(before)


@pytest.mark.parametrize(
    ("algorithm", "jwk", "token", "payload"),
    [
        ("HS256", HS256_JWK, HS256_TOKEN, JOE),
        ("RS256", RS256_JWK, RS256_TOKEN, JOE),
        ("RS256", public(RS256_JWK), RS256_TOKEN, JOE),
        ("ES256", ES256_JWK, ES256_TOKEN, JOE),
        ("ES256", public(ES256_JWK), ES256_TOKEN, JOE),
        ("EdDSA", EDDSA_JWK, EDDSA_TOKEN, b"Example of Ed25519 signing"),
        ("EdDSA", public(EDDSA_JWK), EDDSA_TOKEN, b"Example of Ed25519 signing"),
    ],
)
def test_rfc_7515_a_and_rfc_8037_a_4_verify_beneath_the_gate(
    algorithm: str, jwk: Jwk, token: str, payload: bytes
) -> None:
    material = key(jwk, algorithm, key_id="example" if jwk["kty"] == "oct" else "")
    assert verify(named(token, material), material) == payload
    for form in ({}, {"form": foreign()}):
        with pytest.raises(InvalidTokenError) as refused:
            gate(token, segments=JWS, **form)
        assert refused.value.stage == "gate.kid"


def test_rfc_7516_a_3_opens_beneath_the_gate() -> None:
    material = key(A128KW_JWK, "A128KW", key_id="example")
    assert decrypt(named(A128KW_TOKEN, material), material, content="A128CBC-HS256") == b"Live long and prosper."
    with pytest.raises(InvalidTokenError) as refused:
        gate(A128KW_TOKEN, segments=JWE)
    assert refused.value.stage == "gate.kid"


def test_rfc_7517_a_keys_are_read_with_their_halves() -> None:
    for halves in (KEY_SET, [public(jwk) for jwk in KEY_SET]):
        data = json.dumps({"keys": halves}).encode()
        assert set(imported.read(data, "ECDH-ES")) == {"1"}
        assert set(imported.read(data, "RS256")) == {"2011-04-29"}


def test_rfc_7638_3_1_and_rfc_8037_a_3_thumbprints_name_keys_without_a_kid() -> None:
    assert key({name: value for name, value in KEY_SET[1].items() if name != "kid"}, "RS256").key_id == RSA_THUMBPRINT
    assert key(EDDSA_JWK, "EdDSA").key_id == EDDSA_KID
    assert key(ES256_JWK, "ES256").key_id == ES256_KID


@pytest.mark.parametrize("algorithm", COOKBOOK_JWS)
def test_rfc_7520_4_verifies_through_the_gate(algorithm: str) -> None:
    jwk, token = COOKBOOK_JWS[algorithm]
    gated = gate(token, segments=JWS, form=foreign())
    assert verify(gated, key({**jwk, "kid": gated.kid}, algorithm)) == ROAD


@pytest.mark.parametrize("suite", COOKBOOK_JWE, ids="-".join)
def test_rfc_7520_5_opens_through_the_gate(suite: tuple[str, str]) -> None:
    algorithm, content = suite
    jwk, token = COOKBOOK_JWE[suite]
    gated = gate(token, segments=JWE, form=foreign())
    assert decrypt(gated, key({**jwk, "kid": gated.kid}, algorithm), content=content) == TRUST


def sealed(header: dict[str, object], wrapped: bytes, content_key: bytes, plaintext: bytes) -> str:
    """A JWE over these bytes with AES-GCM."""
    protected = encode(json.dumps(header))
    iv = bytes.fromhex("cafebabefacedbaddecaf888")
    text = AESGCM(content_key).encrypt(iv, plaintext, protected.encode())
    return ".".join([protected, encode(wrapped), encode(iv), encode(text[:-16]), encode(text[-16:])])


def test_rfc_7518_c_agrees_on_the_key_beneath_the_gate() -> None:
    header = {"alg": "ECDH-ES", "enc": "A128GCM", "apu": "QWxpY2U", "apv": "Qm9i", "epk": ALICE}
    token = sealed(header, b"", decode(AGREED), b'{"iss":"joe"}')
    material = key(BOB_JWK, "ECDH-ES")
    assert decrypt(named(token, material), material, content="A128GCM") == b'{"iss":"joe"}'
    with pytest.raises(InvalidTokenError) as refused:
        gate(token, segments=JWE, form=foreign())
    assert refused.value.stage == "gate.header_name"


def test_rfc_8037_a_6_agrees_on_the_secret() -> None:
    bob = X25519PrivateKey.from_private_bytes(X25519_BOB_SECRET)
    assert encode(bob.public_key().public_bytes_raw()) == X25519_BOB
    assert bob.exchange(X25519PublicKey.from_public_bytes(decode(X25519_EPHEMERAL))) == X25519_AGREED
    material = key({"kty": "OKP", "crv": "X25519", "x": X25519_BOB, "d": encode(X25519_BOB_SECRET)}, "ECDH-ES+A256KW")
    # RFC 7518 section 4.6.2: one round of the Concat KDF
    name = b"ECDH-ES+A256KW"
    information = len(name).to_bytes(4, "big") + name + bytes(8) + (256).to_bytes(4, "big")
    wrapping = sha256((1).to_bytes(4, "big") + X25519_AGREED + information).digest()
    header = {
        "alg": "ECDH-ES+A256KW",
        "enc": "A256GCM",
        "kid": material.key_id,
        "epk": {"kty": "OKP", "crv": "X25519", "x": X25519_EPHEMERAL},
    }
    token = sealed(header, aes_key_wrap(wrapping, KEY_DATA), KEY_DATA, b'{"iss":"joe"}')
    assert decrypt(gate(token, segments=JWE), material, content="A256GCM") == b'{"iss":"joe"}'


def test_rfc_3394_4_6_unwraps_with_a256kw() -> None:
    material = keys.load(
        json.dumps({"kty": "oct", "k": encode(KEK), "alg": "A256KW", "use": "enc", "kid": encode(b"k" * 16)}).encode(),
        "A256KW",
    )
    assert aes_key_wrap(KEK, KEY_DATA) == WRAPPED
    token = sealed({"alg": "A256KW", "enc": "A256GCM", "kid": material.key_id}, WRAPPED, KEY_DATA, b'{"iss":"joe"}')
    assert decrypt(gate(token, segments=JWE), material, content="A256GCM") == b'{"iss":"joe"}'


# The headers of compact examples of algorithms that do not exist here; whatever follows them.
OTHERS = {
    "RFC 7515 A.4": {"alg": "ES512"},
    "RFC 7515 A.5": {"alg": "none"},
    "RFC 7516 A.1": {"alg": "RSA-OAEP", "enc": "A256GCM"},
    "RFC 7516 A.2": {"alg": "RSA1_5", "enc": "A128CBC-HS256"},
    "RFC 7517 C.2": {"alg": "PBES2-HS256+A128KW", "p2s": "2WCTcJZ1Rvd_CJuJripQ1w", "p2c": 4096, "enc": "A128CBC-HS256"},
    "RFC 7520 4.2": {"alg": "PS384", "kid": "bilbo.baggins@hobbiton.example"},
    "RFC 7520 5.9": {"alg": "A128KW", "kid": "81b20965-8332-43d9-a468-82160ad91ac8", "enc": "A128GCM", "zip": "DEF"},
}  # fmt: skip


@pytest.mark.parametrize("header", OTHERS.values(), ids=OTHERS)
def test_published_kinds_that_do_not_exist_here_are_refused(header: dict[str, object]) -> None:
    rest = ".AAAA.AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA" if "enc" in header else ".AAAA.AAAA"
    token = encode(json.dumps(header)) + rest
    for form in ({}, {"form": foreign()}):
        try:
            gate(token, segments=JWS | JWE, **form)
        except InvalidTokenError:
            continue
        assert header == OTHERS["RFC 7520 4.2"]  # it has a kid, and the key of that name will not be one for it
    signature, encryption = keys.generate("ES256"), keys.generate("A256KW")
    with pytest.raises(InvalidTokenError) as refused:
        verify(named(token, signature), signature)
    assert refused.value.stage == "jose.key"
    with pytest.raises(InvalidTokenError) as refused:
        decrypt(named(token, encryption), encryption, content="A256GCM")
    assert refused.value.stage == "jose.key"


def test_rfc_7519_3_1_claims_lack_what_we_require() -> None:
    assert decode(JOE_SEGMENT) == JOE
    with pytest.raises(InvalidTokenError):
        claims.parse(JOE)


def test_rfc_9068_2_2_claims_are_read() -> None:
    payload = {
        "iss": "https://authorization-server.example.com/",
        "sub": "5ba552d67",
        "aud": "https://rs.example.com/",
        "exp": 1639528912,
        "iat": 1618354090,
        "jti": "dbe39bf3a3ba4238a513f51d6e1691c4",
        "client_id": "s6BhdRkqt3",
        "scope": "openid profile reademail",
    }
    read = claims.parse(json.dumps(payload).encode())
    assert (read.issuer, read.subject, read.client_id) == (payload["iss"], "5ba552d67", "s6BhdRkqt3")
    assert read.audiences == ("https://rs.example.com/",)
    assert read.scopes == ("openid", "profile", "reademail")
    assert (read.issue_time, read.expire_time) == (1618354090, 1639528912)
