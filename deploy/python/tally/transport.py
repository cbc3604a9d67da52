"""Requests to the leading coordinator over HTTP: TLS, tokens, time limits, and repetitions.

A request is repeated only if it had no effect, or if a second effect is the same as the first: requests that read, a
cancellation, and a submission that was certainly not accepted. Not here: the paths of the API (`client`)."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import pathlib
import random
import ssl
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import KINDS, RequestError, TallyError, Unavailable, Uncertain

PREFIX = "/api/v1"
# The pauses between two attempts, in seconds: the first, and the longest.
PAUSES = (0.1, 1.0)
# The largest answer that is read: more than any page has.
MAX_ANSWER = 64 << 20
# Statuses of a request that was not carried out, so that it can be sent again.
NOT_CARRIED_OUT = {429, 503}


class Address:
    """The scheme, host and port of a coordinator."""

    def __init__(self, url: str):
        parts = urllib.parse.urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            raise TallyError(f"{url!r} is not the URL of a coordinator: its port is not a number") from None
        if parts.username or parts.password:
            raise TallyError("the URL of a coordinator contains credentials", "give the token with token= or token_file=")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
            raise TallyError(f"{url!r} is not the URL of a coordinator", "write http://HOST:PORT or https://HOST:PORT")
        self.tls = parts.scheme == "https"
        self.host = parts.hostname
        self.port = port or (443 if self.tls else 80)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class NotSent(Exception):
    """No connection was made, so the server did not see the request."""


def tls_context(ca: str | os.PathLike[str] | None, certificate: str | os.PathLike[str] | None,
                key: str | os.PathLike[str] | None, verify_hostname: bool) -> ssl.SSLContext:
    """Verifies the server by `ca`, or by the authorities of the system, and presents the certificate."""
    try:
        context = ssl.create_default_context(cafile=ca)
        context.check_hostname = verify_hostname
        if certificate:
            # Without a password, OpenSSL would ask for that of an encrypted key on the terminal.
            context.load_cert_chain(certificate, key, password="")
    except (OSError, ssl.SSLError) as error:
        raise TallyError(f"the certificates cannot be used: {error}", "check ca=, certificate= and key=") from None
    return context


class Transport:
    """Sends requests to one of several coordinators: the one that leads."""

    def __init__(self, urls: Sequence[str], token: Callable[[], str | None], tls: Callable[[], ssl.SSLContext],
                 timeout: float, patience: float):
        self.addresses = [Address(url) for url in urls]
        if not self.addresses:
            raise TallyError("no coordinator is given", "give its URL, or set TALLY_URL")
        self.token = token
        self.tls = tls() if any(address.tls for address in self.addresses) else None
        self.timeout = timeout
        self.patience = patience

    def ask(self, method: str, path: str, query: Mapping[str, str | int] | None = None, body: Any = None,
            repeatable: bool = True, patience: float | None = None) -> tuple[int, Any]:
        """The status and the answer of a request that was carried out.

        A `repeatable` request is sent again after any broken connection, others only if the server did not see them. The time
        for that is `patience`; the time limit of each attempt is in addition."""
        target = PREFIX + path + (f"?{urllib.parse.urlencode(query)}" if query else "")
        content = None if body is None else json.dumps(body).encode()
        until = time.monotonic() + (self.patience if patience is None else patience)
        pause = PAUSES[0]
        while True:
            failure, wanted = None, 0.0
            for address in list(self.addresses):
                try:
                    status, answer, wanted = self.attempt(address, method, target, content)
                except NotSent as error:
                    failure = Unavailable(f"no connection to {address}: {error}")
                    continue
                except (OSError, http.client.HTTPException) as error:
                    text = f"the connection to {address} broke: {error or type(error).__name__}"
                    if not repeatable:
                        raise Uncertain(f"{text}; a job may have been accepted", "submit again: that joins the job") from None
                    failure = Unavailable(text)
                    continue
                if status < 300:
                    # The one that leads is asked first the next time.
                    self.addresses.remove(address)
                    self.addresses.insert(0, address)
                    return status, answer
                failure = error_of(status, answer, address)
                if status not in NOT_CARRIED_OUT:
                    raise failure
            if time.monotonic() >= until:
                raise failure
            # Spread, so that many clients do not come back at once.
            time.sleep(min(max(pause, wanted) * random.uniform(0.8, 1.2), max(until - time.monotonic(), 0.0)))
            pause = min(pause * 2, PAUSES[1])

    def attempt(self, address: Address, method: str, target: str, content: bytes | None) -> tuple[int, Any, float]:
        """Sends a request once. Returns status, answer, and the seconds after which to try again."""
        headers = {"Accept": "application/json"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if token := self.token():
            if not (address.tls or address.local):
                raise TallyError(f"a token is not sent to {address} in plain text", "use an https:// URL")
            headers["Authorization"] = f"Bearer {token}"
        if address.tls:
            connection = http.client.HTTPSConnection(address.host, address.port, timeout=self.timeout, context=self.tls)
        else:
            connection = http.client.HTTPConnection(address.host, address.port, timeout=self.timeout)
        try:
            try:
                connection.connect()
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
                raise NotSent(str(error)) from None
            except ssl.SSLError:
                raise
            except OSError as error:
                raise NotSent(str(error) or type(error).__name__) from None
            connection.request(method, target, body=content, headers=headers)
            answer = connection.getresponse()
            text = answer.read(MAX_ANSWER + 1)
            if len(text) > MAX_ANSWER:
                raise TallyError(f"the answer of {address} has more than {MAX_ANSWER >> 20} MiB")
            wanted = answer.getheader("Retry-After", "")
            return answer.status, parsed(text, address, answer.status), float(wanted) if wanted.isdecimal() else 0.0
        except ssl.SSLCertVerificationError as error:
            text = f"the certificate of {address} is not accepted: {error.verify_message}"
            raise TallyError(text, "give the authority of the cluster with ca=") from None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            raise
        except ssl.SSLError as error:
            # Also the refusal of this client's certificate, which arrives after the handshake. No request was carried out.
            text = f"no secure connection to {address} is possible: {error.reason or error}"
            raise TallyError(text, "check the URL, ca=, certificate= and key=") from None
        finally:
            connection.close()


def parsed(text: bytes, address: Address, status: int) -> Any:
    """The JSON of an answer; None for the answer of something else, such as a proxy."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if status < 300 and not isinstance(value, dict):
        raise TallyError(f"{address} does not answer as a coordinator of Tally", "check the URL")
    return value


def error_of(status: int, answer: Any, address: Address) -> TallyError:
    """The failure that an answer describes."""
    failure = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(failure, dict):
        return RequestError(f"{address} answers with status {status}", "check the URL", status)
    kind, message, hint = str(failure.get("kind")), str(failure.get("message")), failure.get("hint")
    if kind == "no_leader":
        return Unavailable(f"{address}: {message}", hint)
    return KINDS.get(kind, RequestError)(message, hint, status, kind)


def token_source(token: str | None, file: str | os.PathLike[str] | None) -> Callable[[], str | None]:
    """Reads the token. A file is read for each request, so that a new token is used without a restart."""
    if token and file:
        raise TallyError("both token= and token_file= are given", "give one of them")
    if file is None:
        return lambda: checked(token) if token else None

    def read() -> str:
        try:
            return checked(pathlib.Path(file).read_text().strip())
        except (OSError, UnicodeDecodeError) as error:
            # Not the content, which such an error can quote.
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise TallyError(f"the file of the token cannot be read: {os.fspath(file)}: {why}") from None

    return read


def checked(token: str) -> str:
    """Refuses what cannot be part of a header, without repeating it."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise TallyError("the token is empty or contains characters that a token cannot have")
    return token
