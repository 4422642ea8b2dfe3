"""A throwaway certificate for a server on this machine, as the vendor's client speaks only TLS."""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Certificate"]

# Fixed, so that no clock is needed: the key behind it does not outlive the process.
_FROM: Final = datetime(2020, 1, 1, tzinfo=UTC)
_UNTIL: Final = datetime(2099, 12, 31, tzinfo=UTC)


class Certificate:
    """A self-signed certificate of ``127.0.0.1`` and ``localhost``, gone when closed.

    The private key is on disk only while it is loaded, in a folder that nobody else can read.

    Attributes
    ----------
    path : Path
        The certificate as PEM; a client that trusts this file trusts this server and no other.
    context : ssl.SSLContext
        For the server's sockets.

    Examples
    --------
    >>> with Certificate() as certificate:
    ...     certificate.path.read_text().splitlines()[0]
    '-----BEGIN CERTIFICATE-----'
    >>> certificate.path.exists()
    False
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="clustercore-certificate-")
        folder = Path(self._folder.name)
        private = ec.generate_private_key(ec.SECP256R1())
        self.path = folder / "certificate.pem"
        self.path.write_bytes(_sign(private).public_bytes(serialization.Encoding.PEM))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        key_file = folder / "key.pem"
        try:
            key_file.touch(mode=0o600)
            key_file.write_bytes(
                private.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            self.context.load_cert_chain(self.path, key_file)
        finally:
            key_file.unlink(missing_ok=True)

    def close(self) -> None:
        """Delete it."""
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _sign(private: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clustercore rehearsal")])
    public = private.public_key()
    names = x509.SubjectAlternativeName(
        [x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")), x509.DNSName("localhost")]
    )
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(private, hashes.SHA256())
    )
