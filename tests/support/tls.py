"""Certificates that were made a moment ago, by an authority that only the tests believe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificate:
    """Files, all PEM.

    Args:
        certificate: of the server, with its chain.
        key: its key.
        authority: what clients are to trust.
    """

    certificate: Path
    key: Path
    authority: Path


def certificate(folder: Path, *names: str) -> Certificate:
    """A new one for this machine, by all its names or by these, made by a new authority."""
    folder.mkdir(exist_ok=True)
    authority = trustme.CA()
    issued = authority.issue_cert(*(names or ("127.0.0.1", "localhost")))
    made = Certificate(folder / "certificate.pem", folder / "key.pem", folder / "authority.pem")
    issued.private_key_pem.write_to_path(made.key)
    for pem in issued.cert_chain_pems:
        pem.write_to_path(made.certificate, append=True)
    authority.cert_pem.write_to_path(made.authority)
    return made
