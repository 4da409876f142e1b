"""The cluster's secret: out of the settings, or out of the file that they name. It is never printed."""

from __future__ import annotations

from plait.settings import Settings, SettingsError

SECRET_CHARACTERS_MIN = 16
"""Shortest cluster secret: shorter ones can be found by trying."""
SECRET_CHARACTERS_MAX = 1_024
"""Longest cluster secret: a longer one is some other file."""
_MAKE_ONE = "make one with: openssl rand -base64 32"


def cluster_secret(settings: Settings) -> bytes:
    """The secret without white space around it; b"" where none is set. Raises SettingsError."""
    if settings.cluster_secret and settings.cluster_secret_file:
        raise SettingsError("cluster_secret and cluster_secret_file are both set: name the secret in one place")
    if settings.cluster_secret_file:
        return _checked(_read(settings.cluster_secret_file), f"the file {settings.cluster_secret_file}")
    if settings.cluster_secret:
        return _checked(settings.cluster_secret, "setting cluster_secret")
    return b""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(SECRET_CHARACTERS_MAX + 16)  # and a line's end
    except OSError as error:
        raise SettingsError(f"cannot read the cluster's secret from {path}: {error.strerror}") from None
    except UnicodeDecodeError:  # its message would show a part of it
        raise SettingsError(f"the cluster's secret in {path} is not text: {_MAKE_ONE}") from None


def _checked(text: str, source: str) -> bytes:
    secret = text.strip()
    if len(secret) < SECRET_CHARACTERS_MIN:
        raise SettingsError(
            f"{source}: a cluster's secret has at least {SECRET_CHARACTERS_MIN} characters, "
            f"this one has {len(secret)}; {_MAKE_ONE}"
        )
    if len(secret) > SECRET_CHARACTERS_MAX:
        raise SettingsError(f"{source}: a cluster's secret has at most {SECRET_CHARACTERS_MAX} characters")
    return secret.encode()
