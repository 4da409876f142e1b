"""The broker's settings: what there is, and where the values come from.

    flag --log-format json  >  variable PLAIT_LOG__FORMAT=json  >  file: [log] format = "json"  >  default

Every setting has one name in three spellings. A name that no setting has is an error that names the nearest
known one and the place where it stands, so that a typing mistake never becomes a silent default.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from plait.wire.addresses import PORT_MAX, split_address

VARIABLE_PREFIX = "PLAIT_"
VARIABLES_OF_OTHERS = frozenset({"CONFIG", "SERVER", "NAMESPACE", "PROFILE"})
"""PLAIT_ variables that are no settings of the broker: the config file's place, and the command line's own."""
SERVICE_LINK = re.compile(r"PLAIT(_.*)?_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT|PORT_\d+_(TCP|UDP)(_.*)?)")
"""Variables that Kubernetes and Docker set for a service that is called "plait": they are nobody's mistake."""

OFF = "off"
"""In place of an address: not at all."""
HTTP_ABOVE_NATIVE = 2
"""Where pages are served unless they are told where: so many ports above native's."""

SIZE_UNITS = {"": 1, "B": 1, "KB": 10**3, "KIB": 2**10, "MB": 10**6, "MIB": 2**20, "GB": 10**9, "GIB": 2**30}
SIZE = re.compile(r"\s*(\d+)\s*([A-Za-z]*)\s*")


class SettingsError(Exception):
    """A setting is unknown, malformed or out of range. The message names the place. Nothing was started."""


class Log(Struct, frozen=True, forbid_unknown_fields=True):
    """What the broker says about itself, on standard error."""

    format: Annotated[
        Literal["console", "json"], Meta(description="Lines for people, or one JSON object a line")
    ] = "console"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least important line that is written")
    ] = "info"


class Storage(Struct, frozen=True, forbid_unknown_fields=True):
    """How the data directory is used."""

    wal_file_bytes: Annotated[
        int,
        Meta(
            ge=1 << 20,
            le=1 << 30,
            description="Size of one file of the write-ahead log; about three times as much stays in memory",
            extra={"unit": "bytes", "shape": "SIZE"},
        ),
    ] = 32 << 20
    min_free_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Free disk space below which a node takes no publishes",
            extra={"unit": "bytes", "shape": "SIZE"},
        ),
    ] = 256 << 20


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that `plait serve` can be told."""

    native: Annotated[
        str,
        Meta(
            description="Where Plait's own protocol is served; port 0 picks a free one",
            extra={"shape": "HOST:PORT"},
        ),
    ] = "127.0.0.1:4150"
    data: Annotated[
        str, Meta(description="Folder that keeps everything; it is made when missing", extra={"shape": "DIR"})
    ] = "./plait-data"
    ready_file: Annotated[
        str,
        Meta(
            description="File that is written, as JSON with the real addresses, when clients are welcome",
            extra={"shape": "FILE"},
        ),
    ] = ""
    advertise_native: Annotated[
        str,
        Meta(
            description="Where clients reach this node, if not where --native listens",
            extra={"shape": "HOST:PORT"},
        ),
    ] = ""
    peer: Annotated[
        str,
        Meta(
            description="Where this node listens for other nodes. Empty: native's host, the next port",
            extra={"shape": "HOST:PORT"},
        ),
    ] = ""
    advertise_peer: Annotated[
        str,
        Meta(
            description="Where other nodes reach this one, if not where --peer listens",
            extra={"shape": "HOST:PORT"},
        ),
    ] = ""
    join: Annotated[
        str,
        Meta(
            description="Nodes of a cluster (their --advertise-peer) that a node with an empty data directory "
            "joins; one that answers is enough",
            extra={"shape": "HOST:PORT,..."},
        ),
    ] = ""
    initial: Annotated[
        str,
        Meta(
            description="The nodes that found a cluster together (their --advertise-peer, this one's too), the "
            "same on all of them. A node that is not among them joins them",
            extra={"shape": "HOST:PORT,..."},
        ),
    ] = ""
    name: Annotated[
        str, Meta(description="What this node is called. Empty: node- and its number", extra={"shape": "NAME"})
    ] = ""
    rack: Annotated[
        str,
        Meta(
            description="Where this node stands (rack, zone): the replicas of a partition are spread over them",
            extra={"shape": "NAME"},
        ),
    ] = ""
    dead_after_s: Annotated[
        int,
        Meta(
            ge=1,
            le=7 * 86_400,
            description="A node that is silent for so long is dead: others take over what it has",
            extra={"unit": "seconds", "shape": "N"},
        ),
    ] = 300
    http: Annotated[
        str,
        Meta(
            description="Where /healthz, /readyz and /metrics are served; empty: two ports above native's; "
            '"off": nowhere',
            extra={"shape": "HOST:PORT"},
        ),
    ] = ""
    cluster_secret: Annotated[
        str,
        Meta(
            description="What the nodes of a cluster prove to each other that they know; at least 16 characters. "
            "Better in a file, or in the variable: other users of the machine see flags",
            extra={"shape": "TEXT", "secret": True},
        ),
    ] = ""
    cluster_secret_file: Annotated[
        str, Meta(description="File that has the cluster's secret and nothing else", extra={"shape": "FILE"})
    ] = ""
    insecure: Annotated[
        bool,
        Meta(
            description="Listen on addresses that other machines reach, though nothing guards them",
            extra={"shape": ""},
        ),
    ] = False
    max_record_bytes: Annotated[
        int,
        Meta(
            ge=1, le=64 << 20, description="Largest record that is taken", extra={"unit": "bytes", "shape": "SIZE"}
        ),
    ] = 1 << 20
    connections_max: Annotated[
        int, Meta(ge=1, description="Clients connected at a time; one more is told so and closed")
    ] = 20_000
    storage: Storage = Storage()
    log: Log = Log()

    def __repr__(self) -> str:
        secrets = {field.key for field in fields() if field.secret}
        shown = ((name, "..." if name in secrets else getattr(self, name)) for name in self.__struct_fields__)
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown)})"


@dataclass(frozen=True, slots=True)
class Field:
    """One setting, however deep in the struct it stands."""

    path: tuple[str, ...]
    type: Any
    default: Any
    description: str
    unit: str
    shape: str
    """What `--help` shows behind the flag."""
    secret: bool = False
    """Its value is never printed."""

    @property
    def key(self) -> str:
        """As in the file, with a dot for each table: log.format."""
        return ".".join(self.path)

    @property
    def flag(self) -> str:
        """As on the command line: --log-format."""
        return "--" + "-".join(self.path).replace("_", "-")

    @property
    def variable(self) -> str:
        """As in the environment: PLAIT_LOG__FORMAT."""
        return VARIABLE_PREFIX + "__".join(self.path).upper()

    @property
    def is_switch(self) -> bool:
        """Whether its flag is enough to say yes."""
        return self.type is bool or bool in get_args(self.type)

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed words, for a setting that takes one of a few."""
        return _choices(self.type)


def fields(struct: type[Struct] = Settings, path: tuple[str, ...] = ()) -> Iterator[Field]:
    """All settings, in the order in which people should read them."""
    hints = get_type_hints(struct, include_extras=True)
    for info in msgspec.structs.fields(struct):
        hint = hints[info.name]
        here = (*path, info.name)
        if isinstance(hint, type) and issubclass(hint, Struct):
            yield from fields(hint, here)
            continue
        meta = next((item for item in get_args(hint)[1:] if isinstance(item, Meta)), Meta())
        extra = meta.extra or {}
        choices = "|".join(_choices(hint))
        shape = extra.get("shape", choices or "N")
        unit, secret = extra.get("unit", ""), extra.get("secret", False)
        yield Field(here, hint, info.default, meta.description or "", unit, shape, secret)


def _choices(hint: Any) -> tuple[str, ...]:
    inner = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return get_args(inner) if get_origin(inner) is Literal else ()


def load(arguments: Sequence[str], variables: Mapping[str, str]) -> Settings:
    """Settings from flags, PLAIT_* variables and the file that --config or PLAIT_CONFIG names.

    Raises SettingsError; its message says where the mistake stands.
    """
    known = list(fields())
    flags, config = _from_flags(arguments, known)
    found = _from_file(config or variables.get(VARIABLE_PREFIX + "CONFIG", ""), known)
    found |= _from_variables(variables, known)
    found |= flags
    tree: dict[str, Any] = {}
    for field, (value, source) in found.items():
        table = tree
        for name in field.path[:-1]:
            table = table.setdefault(name, {})
        table[field.path[-1]] = _converted(field, value, source)
    return msgspec.convert(tree, Settings)


Found = dict[Field, tuple[Any, str]]
"""For each setting that was given: the raw value, and where it stands."""


def _from_flags(arguments: Sequence[str], known: Sequence[Field]) -> tuple[Found, str]:
    by_flag = {field.flag: field for field in known}
    found: Found = {}
    config = ""
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--"):
            raise SettingsError(f"plait serve takes flags only, not {argument!r}; see plait serve --help")
        if flag != "--config" and flag not in by_flag:
            raise SettingsError(f"unknown flag {flag}{_nearest(flag, [*by_flag, '--config'])}")
        if not equals and flag in by_flag and by_flag[flag].is_switch:
            value = "true"
        elif not equals:
            given = next(rest, None)
            if given is None:
                raise SettingsError(f"flag {flag} needs a value")
            value = given
        if flag == "--config":
            config = value
        else:
            found[by_flag[flag]] = (value, f"flag {flag}")
    return found, config


def _from_variables(variables: Mapping[str, str], known: Sequence[Field]) -> Found:
    by_variable = {field.variable: field for field in known}
    found: Found = {}
    for name, value in variables.items():
        if not name.startswith(VARIABLE_PREFIX) or name[len(VARIABLE_PREFIX) :] in VARIABLES_OF_OTHERS:
            continue
        field = by_variable.get(name)
        if field is not None and value:  # an empty variable is how compose files and shells say "not set"
            found[field] = (value, f"variable {name}")
        elif field is None and not SERVICE_LINK.fullmatch(name):
            raise SettingsError(f"unknown variable {name}{_nearest(name, list(by_variable))}")
    return found


def _from_file(path: str, known: Sequence[Field]) -> Found:
    if not path:
        return {}
    import tomllib  # only for those who have a file: start-up time counts

    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None
    return _from_table(path, document, (), {field.path: field for field in known})


def _from_table(
    file: str, table: Mapping[str, Any], path: tuple[str, ...], by_path: Mapping[tuple[str, ...], Field]
) -> Found:
    found: Found = {}
    for name, value in table.items():
        here = (*path, name)
        key = ".".join(here)
        if here in by_path:
            found[by_path[here]] = (value, f"{file}:{key}")
        elif any(known[: len(here)] == here for known in by_path):
            if not isinstance(value, dict):
                raise SettingsError(f"{file}:{key} must be a table, as in [{key}]")
            found |= _from_table(file, value, here, by_path)
        else:
            raise SettingsError(f"unknown key {file}:{key}{_nearest(key, ['.'.join(known) for known in by_path])}")
    return found


def _converted(field: Field, value: Any, source: str) -> Any:
    try:
        if field.unit == "bytes" and isinstance(value, str):
            value = parse_size(value)
        return msgspec.convert(value, field.type, strict=not isinstance(value, str))
    except (msgspec.ValidationError, ValueError) as error:
        if field.secret:
            raise SettingsError(f"{source}: its value is not allowed (and not shown): {error}") from None
        if field.choices:
            raise SettingsError(f"{source}: {value!r} is not one of {', '.join(field.choices)}") from None
        raise SettingsError(f"{source}: {value!r} is not allowed: {error}") from None


def parse_size(text: str) -> int:
    """Bytes from "65536", "64KiB", "1 MB". Raises ValueError."""
    match = SIZE.fullmatch(text)
    factor = SIZE_UNITS.get(match[2].upper()) if match else None
    if match is None or factor is None:
        raise ValueError("expected a number of bytes, such as 65536, 64KiB or 1MB")
    return int(match[1]) * factor


def format_size(size_bytes: int) -> str:
    """The shortest exact spelling that `parse_size` takes: "32MiB"."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)


def parse_address(text: str) -> tuple[str, int]:
    """(host, port) from HOST:PORT, [IPV6]:PORT or :PORT (loopback). Raises SettingsError."""
    try:
        host, port = split_address(text)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    return host or "127.0.0.1", port


def http_address(http: str, native: tuple[str, int]) -> tuple[str, int] | None:
    """Where pages are served: as named, or two ports above native's (any free one where that is). None: nowhere.

    Raises SettingsError.
    """
    if http == OFF:
        return None
    if http:
        return parse_address(http)
    host, port = native
    if not port:
        return host, 0
    return (host, port + HTTP_ABOVE_NATIVE) if port + HTTP_ABOVE_NATIVE <= PORT_MAX else None


def parse_nodes(text: str) -> list[tuple[str, int]]:
    """(host, port) of each node in "HOST:PORT,HOST:PORT,...". Raises SettingsError."""
    found: list[tuple[str, int]] = []
    for part in text.split(","):
        address = parse_address(part.strip())
        if address[1] == 0:
            raise SettingsError(f"{part.strip()!r} names no port: nobody could find that node")
        if address in found:
            raise SettingsError(f"{part.strip()} is named twice")
        found.append(address)
    return found


def help_text() -> str:
    """What `plait serve --help` prints: every setting with its default, its unit and its variable."""
    lines = [
        "Usage: plait serve [FLAGS]",
        "",
        "Run a broker. Without flags: one node, data in ./plait-data, clients on 127.0.0.1:4150.",
        "Each flag is also a variable and a key of the TOML file; a flag beats a variable, a variable the file.",
        "Stop it with SIGTERM or Ctrl-C: nothing that was acknowledged is lost, however it stops.",
        "",
        "Settings:",
        "  --config FILE   (PLAIT_CONFIG)",
        '      TOML file with settings, such as: native = "127.0.0.1:4150"',
    ]
    for field in fields():
        default = format_size(field.default) if field.unit == "bytes" else str(field.default)
        if field.is_switch:
            default = "yes" if field.default else "no"
        unit = f" {field.unit}" if field.unit and default.isdigit() else ""
        lines.append(f"  {field.flag} {field.shape}".rstrip() + f"   ({field.variable}, {field.key})")
        lines.append(f"      {field.description}. Default: {default + unit or 'none'}")
    return "\n".join(lines)


def _nearest(name: str, known: Sequence[str]) -> str:
    import difflib  # only for those who made a mistake

    close = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
