"""Asking a service of AWS, and its errors as decisions.

The library's retries are off: it is the engine that tries again. Of its many ways to find a login it is left the one
that the block names.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)

from mailpoller.core.errors import TransientError
from mailpoller.wire.aws.settings import AwsSettings
from mailpoller.wire.aws.transport import transport
from mailpoller.wire.redaction import spoken

_OF_THIS_MACHINE = ("assume-role-with-web-identity", "container-role", "iam-role")
"""The library's names of the ways in which a machine, a container or a pod is told who it is."""
_NOTHING: dict[str, tuple[None, None, str | None, None]] = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
"""The library's settings of files and environment that no block asked for."""
_REFUSED = frozenset(
    (
        *("AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthFailure", "InvalidAccessKeyId"),
        *("InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "InvalidSignatureException"),
        *("ExpiredToken", "ExpiredTokenException", "InvalidToken", "MissingAuthenticationToken", "InvalidSecurity"),
        *("IncompleteSignature", "OptInRequired", "NotSignedUp", "AccountProblem", "UnauthorizedAccess"),
    )
)
"""Who we are is not taken, or may not do it."""
_NOBODY = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)
"""There is nothing to log in with; the library would not look again."""
_CLOCK = frozenset(("RequestTimeTooSkewed", "RequestExpired"))
_OCTETS_PER_S = 1_000_000


class AwsError(TransientError):
    """The service answered with an error: ``code`` is its own word for it, without what stands before a dot, ``status``
    HTTP's number."""

    def __init__(self, message: str, *, code: str, status: int, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.code = code
        self.status = status


class AwsClient:
    """One service, asked by one user. ``service``: the library's name of it; ``place``: whom to name in errors."""

    def __init__(self, service: str, settings: AwsSettings, place: str) -> None:
        self.place = place
        self._service = service
        self._settings = settings
        self._seconds = settings.timeout.total_seconds()
        self._opening = asyncio.Lock()
        self._client: Any = None
        self._open = AsyncExitStack()
        self._secrets: tuple[str, ...] = ()

    async def ask(self, operation: str, *, octets: int = 0, **words: Any) -> Mapping[str, Any]:
        """The answer to an operation, by the library's name for it (``send_message_batch``). ``octets``: what is sent.

        Raises :class:`AwsError`; :class:`TransientError` if there is no answer; :class:`ConfigError` for a secret that
        cannot be read.
        """
        seconds = self._seconds + octets / _OCTETS_PER_S
        try:
            async with asyncio.timeout(seconds) as whole:
                client = await self._opened()
                answer: Mapping[str, Any] = await getattr(client, operation)(**words)
                return answer
        except TimeoutError:
            if not whole.expired():
                raise
            raise TransientError(f"{self.place}: no answer within {seconds:.0f} s") from None
        except ClientError as error:
            trouble = self._error(error)
            if trouble.code in _REFUSED:
                await self.close()  # the secret may be another one by now
            raise trouble from None
        except BotoCoreError as error:
            if isinstance(error, _NOBODY):
                await self.close()
            raise TransientError(f"{self.place}: {spoken(str(error), self._secrets)}") from None

    async def close(self) -> None:
        """Close every connection; what is asked later opens new ones. Harmless when repeated."""
        opened, self._open, self._client = self._open, AsyncExitStack(), None
        await opened.aclose()

    # --- the library ---------------------------------------------------------------------------------------------
    async def _opened(self) -> Any:
        async with self._opening:
            if self._client is None:
                self._client = await self._open.enter_async_context(await self._made())
            return self._client

    async def _made(self) -> Any:
        one = self._settings
        keys: dict[str, str] = {}
        if one.access_key_id is not None and one.secret_access_key is not None:
            secrets = {"aws_access_key_id": one.access_key_id, "aws_secret_access_key": one.secret_access_key}
            if one.session_token is not None:
                secrets["aws_session_token"] = one.session_token
            keys = {name: await asyncio.to_thread(secret.reveal) for name, secret in secrets.items()}
            self._secrets = tuple(value for name, value in keys.items() if name != "aws_access_key_id")
        session = await asyncio.to_thread(_session, one, self._service)
        config = AioConfig(
            http_session_cls=transport(one, self._service),
            retries={"total_max_attempts": 1, "mode": "standard"},
            proxies={},
            ignore_configured_endpoint_urls=True,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=self._seconds,
            read_timeout=self._seconds,
            user_agent_appid="mailpoller",
            s3={"addressing_style": getattr(one, "addressing_style", "auto")},
        )
        return session.create_client(
            self._service, region_name=one.service_region, endpoint_url=one.service_endpoint, config=config, **keys
        )

    def _error(self, error: ClientError) -> AwsError:
        said = error.response.get("Error", {})
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
        code = str(said.get("Code") or status).rpartition(".")[2]
        words = spoken(str(said.get("Message") or ""), self._secrets)
        advice = ""
        if code in _REFUSED:
            advice = "Look at the key, and at what its policy allows."
        elif code in _CLOCK:
            advice = "Set this machine's clock."
        told = f"{self.place}: {spoken(code)}" + (f": {words}" if words else "")
        return AwsError(told, code=code, status=status, advice=advice)


def _session(settings: AwsSettings, service: str) -> Any:
    """For a thread: the library reads its large descriptions of the services, and the files of a profile."""
    if settings.profile is not None:
        session = AioSession(profile=settings.profile)
        unwanted = ("env", "boto-config", "ec2-credentials-file", "container-role", "iam-role")
    else:
        session = AioSession(session_vars=_NOTHING)
        unwanted = () if settings.instance_role else tuple(one.METHOD for one in _providers(session))
    for provider in _providers(session):
        name = provider.METHOD
        if name in unwanted or (settings.instance_role and name not in _OF_THIS_MACHINE):
            session.get_component("credential_provider").remove(name)
    loader = session.get_component("data_loader")
    for what in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model(service, what)
    loader.load_data_with_path("endpoints")
    return session


def _providers(session: Any) -> list[Any]:
    """The ways in which the library would find out who we are."""
    return list(session.get_component("credential_provider").providers)
