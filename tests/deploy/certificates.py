"""An authority of its own, and what it signs, as secrets of type kubernetes.io/tls with `ca.crt`."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

YEAR = datetime.timedelta(days=365)


class Authority:
    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tally")])
        constraint = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = self.sign(self.key, self.name, constraint)

    def sign(self, key, name, extension):
        now = datetime.datetime.now(datetime.timezone.utc)
        made = x509.CertificateBuilder(self.name, name, key.public_key(), x509.random_serial_number(), now - YEAR, now + YEAR)
        return made.add_extension(extension, critical=False).sign(self.key, hashes.SHA256())

    def secret(self, role):
        """The secret of a role."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, role)])
        uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://tally/{role}")])
        pem = serialization.Encoding.PEM
        plain = serialization.NoEncryption()
        return {
            "ca.crt": self.certificate.public_bytes(pem).decode(),
            "tls.crt": self.sign(key, name, uri).public_bytes(pem).decode(),
            "tls.key": key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain).decode(),
        }
