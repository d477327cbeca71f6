"""Key pairs of NATS, and the files of an operator: what ``nsc`` would make, for one account and one user."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from typing import Any

import nkeys

SEED = re.compile("SU[A-Z2-7]{56}")


def key_pair(prefix: int = nkeys.PREFIX_BYTE_USER) -> Any:
    """A new one, of the library's."""
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), prefix)))


def public(pair: Any) -> str:
    return bytes(pair.public_key).decode()


def seed(pair: Any) -> str:
    return bytes(pair.seed).decode()


def credentials(jwt: str, pair: Any) -> str:
    """A file of credentials."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed(pair)}\n------END USER NKEY SEED------\n"
    )


def operated() -> tuple[str, str]:
    """Lines of configuration of a server with an operator, and the credentials of a user there, who may do all."""
    operator, account, system, user = (
        key_pair(prefix)
        for prefix in (
            nkeys.PREFIX_BYTE_OPERATOR,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_USER,
        )
    )
    every = dict.fromkeys(("subs", "conn", "leaf", "imports", "exports", "data", "payload"), -1) | {"wildcards": True}
    stored = {"disk_storage": -1, "streams": -1, "consumer": -1}  # the system's account may store nothing
    accounts = {
        public(one): _signed(operator, one, "account", {"limits": {**every, **more}})
        for one, more in ((account, {"mem_storage": -1, **stored}), (system, {}))
    }
    preload = "\n".join(f"{name}: {jwt}" for name, jwt in accounts.items())
    lines = f"operator: {_signed(operator, operator, 'operator', {})}\nsystem_account: {public(system)}\n"
    lines += f"resolver: MEMORY\nresolver_preload: {{\n{preload}\n}}"
    return lines, credentials(_signed(account, user, "user", {"subs": -1, "data": -1, "payload": -1}), user)


def _signed(issuer: Any, subject: Any, kind: str, said: dict[str, Any]) -> str:
    claims = {
        "jti": os.urandom(8).hex(),
        "iat": int(time.time()),
        "iss": public(issuer),
        "sub": public(subject),
        "name": kind,
        "nats": {**said, "type": kind, "version": 2},
    }
    words = [{"typ": "JWT", "alg": "ed25519-nkey"}, claims]
    text = ".".join(_encoded(json.dumps(one).encode()) for one in words)
    return f"{text}.{_encoded(issuer.sign(text.encode()))}"


def _encoded(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
