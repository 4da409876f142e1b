"""Proofs that both ends of a connection know the cluster's secret, which neither of them says.

    dialler ── HELLO    {nonce d, proof of HELLO} ──────────────> acceptor     no proof: it is told nothing
            <── WELCOME {nonce a, proof of HELLO, WELCOME} ──                  covers d: said now, to this dialler
            ── CONFIRM  {proof of HELLO, WELCOME, CONFIRM} ──>                 covers a: the dialler is there now

    proof = HMAC-SHA-256(key, role, 0, all words said until here and this one without its proof)

A proof is good for one word of one connection: copied, sent back to whoever said it, moved to another pair of
nodes or put under other words, it is wrong. The first word alone may be a copy of one that was said before:
whoever hears it must do nothing for it that a repetition could turn to harm. An acceptor proves nothing to those
who have not, so nobody who only reaches the port gets anything to try secrets on.

For any handshake: its words are lists of plain data that end with a map, the extras. Each side makes one `Proofs`
for each connection, passes what it is going to say through `say` and what it has read through `hear`, in order;
what asks for something goes into the third word, or is done when that one has come. Nothing behind the handshake
is covered (docs/security.md). Pure.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from random import Random
from typing import Any

from plait.wire.frames import encode_plain
from replication.peers.protocol import Refusal

NONCE = "nonce"
"""The extra of a side's first word that no other connection has."""
PROOF = "proof"
"""The extra that is over everything said until then."""
SECRET = "secret"
"""Code of the refusal of whoever does not know the cluster's secret, or knows one where there is none."""
DIALLER = "dialler"
ACCEPTOR = "acceptor"

NONCE_BYTES = 32
"""Size of a nonce."""
STRETCH_BYTES_MAX = 64 << 20
"""Memory that making a key of a secret may take; it takes 16 MiB, for some 60 ms, once."""
STRETCH_ROUNDS = 1 << 14
"""scrypt's cost (RFC 7914): whoever tries secrets on proofs that were overheard pays it for each."""
_SALT = b"plait: cluster secret, version 1"
_WAY_OUT = (
    "give all nodes of the cluster the same --cluster-secret-file (or --cluster-secret); the connection ends"
)


class ClusterKey:
    """A cluster's secret as a key. Neither can be seen in what it prints."""

    def __init__(self, secret: bytes) -> None:
        assert secret, "without a secret there is no key"
        self._key = _stretched(secret)

    def proof(self, role: str, transcript: bytes) -> bytes:
        """That someone in this role, who knows the secret, said all of this."""
        return hmac.digest(self._key, b"%b\0%b" % (role.encode(), transcript), "sha256")

    def is_proof(self, role: str, transcript: bytes, proof: object) -> bool:
        """Whether it is; what is wrong with one that is not cannot be told, nor from the time that it takes."""
        return type(proof) is bytes and hmac.compare_digest(proof, self.proof(role, transcript))

    def nonce(self, random: Random) -> bytes:
        """A new one. What `random` gives later cannot be foretold from those that were seen."""
        return self.proof(NONCE, random.randbytes(NONCE_BYTES))


def key_of(secret: bytes) -> ClusterKey | None:
    """None where there is no secret. Takes a moment."""
    return ClusterKey(secret) if secret else None


class Proofs:
    """One side's part in one handshake: puts proofs into its words, and judges those of the other side's.

    Without a key: changes nothing, and refuses words that come with a proof.
    """

    def __init__(self, key: ClusterKey | None, role: str, random: Random) -> None:
        self._key = key
        self._role = role
        self._nonce = key.nonce(random) if key is not None else b""
        self._told = False  # the nonce
        self._proven = False  # the other side has
        self._transcript = b""

    def say(self, word: list[Any]) -> list[Any]:
        """The word as it is to be sent: with this side's proof, if it is one's turn to prove anything."""
        if self._key is None or (self._role == ACCEPTOR and not self._proven):
            return word
        extras = dict(word[-1])
        if not self._told:
            self._told, extras[NONCE] = True, self._nonce
        extras[PROOF] = self._key.proof(self._role, self._transcript + encode_plain([*word[:-1], extras]))
        whole = [*word[:-1], extras]
        self._transcript += encode_plain(whole)
        return whole

    def hear(self, word: list[Any]) -> None:
        """The other side said this. Raises Refusal if it does not prove that it knows the secret."""
        fault = self._fault(word)
        if fault:
            raise Refusal(SECRET, fault)

    def believes(self, word: list[Any]) -> bool:
        """As `hear`, of a word that is heard out either way: whether it may be acted upon."""
        return not self._fault(word)

    def _fault(self, word: list[Any]) -> str:
        extras = word[-1] if word and type(word[-1]) is dict else {}
        proof = extras.get(PROOF)
        if self._key is None:
            return f"you have a cluster secret, and I have none: {_WAY_OUT}" if PROOF in extras else ""
        if PROOF not in extras:
            return f"I have a cluster secret, and you showed none: {_WAY_OUT}"
        bare = {name: value for name, value in extras.items() if name != PROOF}
        other = DIALLER if self._role == ACCEPTOR else ACCEPTOR
        if not self._key.is_proof(other, self._transcript + encode_plain([*word[:-1], bare]), proof):
            return f"your cluster secret is another one than mine: {_WAY_OUT}"
        self._transcript += encode_plain(word)
        self._proven = True
        return ""


@lru_cache(maxsize=8)
def _stretched(secret: bytes) -> bytes:
    return hashlib.scrypt(secret, salt=_SALT, n=STRETCH_ROUNDS, r=8, p=1, maxmem=STRETCH_BYTES_MAX, dklen=32)
