"""TLS without a proxy: the context that a certificate's files make, and what is wrong with them, in one line."""

from __future__ import annotations

import ssl
from pathlib import Path

from insforge_realtime.config import TlsSettings
from insforge_realtime.errors import ConfigError


def tls_context(config: TlsSettings) -> ssl.SSLContext | None:
    """Return what to speak TLS with; None where no certificate is configured.

    Raises:
        ConfigError: a file cannot be read, is not PEM, is encrypted, or the two do not belong together.
    """
    if config.ssl_certfile is None:
        if config.ssl_keyfile is not None:
            raise ConfigError("REALTIME_SSL_KEYFILE: is set, but REALTIME_SSL_CERTFILE is not")
        return None
    _check_pem("REALTIME_SSL_CERTFILE", config.ssl_certfile, "CERTIFICATE")
    if config.ssl_keyfile is None:
        _check_pem("REALTIME_SSL_CERTFILE", config.ssl_certfile, "PRIVATE KEY")
    else:
        _check_pem("REALTIME_SSL_KEYFILE", config.ssl_keyfile, "PRIVATE KEY")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # The password is for OpenSSL, which would otherwise ask the terminal for one.
        context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile, password="")
    except ssl.SSLError as error:
        mismatch = error.reason == "KEY_VALUES_MISMATCH"
        reason = "the key does not belong to the certificate" if mismatch else f"cannot be used: {error}"
        raise ConfigError(f"REALTIME_SSL_CERTFILE: {config.ssl_certfile}: {reason}") from error
    return context


def _check_pem(variable: str, file: Path, what: str) -> None:
    """Find what OpenSSL would only report as something wrong somewhere."""
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{variable}: {file}: {error.strerror}") from error
    if f"{what}-----".encode() not in text:
        raise ConfigError(f"{variable}: {file}: has no {what} in it (PEM)")
    if what == "PRIVATE KEY" and b"ENCRYPTED" in text:
        raise ConfigError(f"{variable}: {file}: the key is encrypted, and nobody is there to type its password")
