"""The settings of the service: one TOML file, every key checked before anything starts."""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import re
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from torchxrayvision.errors import ConfigError
from torchxrayvision.remote import is_loopback

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

_GIB: Final = 1 << 30
_AET: Final = re.compile(r"[\x21-\x5b\x5d-\x7e](?:[\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_ANY_ADDRESS: Final = ("0.0.0.0", "::", "")
_KINDS: Final = ("sr", "sc", "seg", "gsps", "pm", "ko")
_DRAWN: Final = frozenset({"sc", "gsps", "pm"})  # show where the evidence lies


def _number(default: float, low: float, high: float = float("inf")) -> Any:
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """Which networks answer.

    Args:
        weights: Published weights of the classifier; empty for no findings.
        checkpoint: A file of the user's own instead; see `load_checkpoint`.
        calibration: What `xrv calibrate` wrote for these weights; none if not given.
        engine: What computes the classifier. With `"onnx"` or `"openvino"` it is converted at the
            first start, and what reads loads neither torch nor the weights; `"auto"` takes them
            where `xrv predict` measured them to be the fastest.
        graph: The classifier as a file of `xrv export` instead of weights; needs no torch.
        segmenter: Segmentation network; empty for no masks.
        mask_threshold: Least probability inside a mask, 0 to 1.
        upright: Whether rotated images are turned upright for the segmenter.
        device: `"cpu"`, `"cuda"` and so on; of several, `"cuda:0,cuda:1"`, each worker process has
            one.
    """

    weights: str = "densenet121-res224-all"
    checkpoint: Path | None = None
    calibration: Path | None = None
    engine: Literal["auto", "torch", "onnx", "openvino"] = "torch"
    graph: Path | None = None
    segmenter: str = ""
    mask_threshold: float = _number(0.5, 0.0, 1.0)
    upright: bool = False
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What is made of an image.

    Args:
        kinds: Of `torchxrayvision.results.KINDS`.
        segmentation_type: `"BINARY"`, or `"LABELMAP"`, which older archives do not know.
        key_threshold: Least number of a finding for which `"ko"` selects an image.
        evidence: Findings whose evidence is drawn; empty for the largest one that is present.
        method: `"gradcam"`, `"gradcam++"` or `"cam"`.
        structures: Structures to keep; empty for all.
        heat_maps: Whether evidence is drawn at all; it needs gradients, and these torch.
    """

    kinds: tuple[str, ...] = field(default=("sr", "sc"), metadata={"choices": _KINDS})
    segmentation_type: Literal["BINARY", "LABELMAP"] = "BINARY"
    key_threshold: float = 0.5
    evidence: tuple[str, ...] = ()
    method: Literal["gradcam", "gradcam++", "cam"] = "gradcam"
    structures: tuple[str, ...] = ()
    heat_maps: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class GateRules:
    """What is read; everything else is recorded as refused, with its reason.

    Args:
        modalities: Modality (0008,0060) is one of these.
        body_parts: Body Part Examined (0018,0015) is one of these; `""` for not said.
        views: View Position (0018,5101) is one of these; `""` for not said; empty for all.
        screening: `"refuse"` refuses what the screening refuses, `"note"` lets it pass.
        reference: What lies far from it is refused by the screening too: `"packaged"`, or a file
            of `xrv check --write-reference`; empty for neither.
        answer_refused: Whether a refused image gets a report that says so and why.
    """

    modalities: tuple[str, ...] = ("CR", "DX")
    body_parts: tuple[str, ...] = ("CHEST", "THORAX", "LUNG", "RIB", "RIBS", "")
    views: tuple[str, ...] = ("PA", "AP", "")
    screening: Literal["refuse", "note"] = "refuse"
    reference: str = ""
    answer_refused: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """How images are read.

    Args:
        processes: Worker processes; each loads the networks once.
        threads: Of each process, for the networks and for decoding JPEG 2000.
        batch_size: Images that a worker is given at a time.
        time_limit: Seconds for one image, after which its worker is replaced.
        most_crashes: Workers that may die of one image before it counts as failed.
        start_limit: Seconds for a worker to load the networks.
    """

    processes: int = _number(1, 1, 256)
    threads: int = _number(1, 1, 256)
    batch_size: int = _number(8, 1, 256)
    time_limit: float = _number(120.0, 0.1, 86_400)
    most_crashes: int = _number(2, 1, 100)
    start_limit: float = _number(300.0, 1, 86_400)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tls:
    """Certificates of one side of a connection.

    Args:
        certificate: PEM file with the chain.
        key: PEM file with the private key.
        ca: PEM file with who is trusted; the other side must show a certificate of these.
    """

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """Who may send.

    Args:
        aet: Its AE title.
        host: An address, or a network such as `"10.1.0.0/16"`; empty for any.
    """

    aet: str
    host: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Receive:
    """The listener for C-STORE and C-ECHO.

    Args:
        aet: Own AE title; associations that call another one are rejected.
        host: Address to listen on.
        port: TCP port; 0 for a free one.
        peers: Who may send; nobody else is answered. `any_peer` must be said where all may.
        any_peer: Whether every AE title from everywhere may send.
        tls: Certificates; no TLS without them.
        max_pdu: Bytes of the largest protocol data unit.
        max_associations: At the same time.
        pdu_seconds: In which one protocol data unit must be complete.
        message_seconds: In which one message, with its object, must be complete.
        idle_seconds: Without a message after which an association is aborted.
    """

    aet: str = "XRV"
    host: str = "127.0.0.1"
    port: int = _number(11112, 0, 65_535)
    peers: tuple[Peer, ...] = ()
    any_peer: bool = False
    tls: Tls = Tls()
    max_pdu: int = _number(131_072, 4096, 1 << 24)
    max_associations: int = _number(20, 1, 1000)
    pdu_seconds: float = _number(30.0, 0.1, 3600)
    message_seconds: float = _number(300.0, 0.1, 86_400)
    idle_seconds: float = _number(60.0, 0.1, 86_400)


@dataclass(frozen=True, kw_only=True, slots=True)
class Http:
    """The listener for STOW-RS, health and metrics; without a token or `tls.ca` only for health.

    Args:
        host: Address to listen on; beyond loopback only with a token or `tls.ca`.
        port: TCP port; 0 for a free one.
        token_file: File with the token that clients send as `Authorization: Bearer ...`.
        tls: Certificates; with `ca` clients must show one of these.
        hosts: Names under which clients call it, besides those of loopback.
        request_bytes: Of one request.
        memory_bytes: That all requests together hold at a time.
        objects: In one request.
        connections: At the same time.
        peer_connections: Of one address at the same time.
        head_seconds: In which the head of a request must be complete.
        idle_seconds: Without a byte of the body after which a request ends.
        request_seconds: For a whole request.
    """

    host: str = "127.0.0.1"
    port: int = _number(8480, 0, 65_535)
    token_file: Path | None = None
    tls: Tls = Tls()
    hosts: tuple[str, ...] = ()
    request_bytes: int = _number(2 * _GIB, 1024)
    memory_bytes: int = _number(_GIB // 2, 1024)
    objects: int = _number(1000, 1)
    connections: int = _number(256, 1, 10_000)
    peer_connections: int = _number(64, 1, 10_000)
    head_seconds: float = _number(10.0, 0.1, 3600)
    idle_seconds: float = _number(30.0, 0.1, 3600)
    request_seconds: float = _number(600.0, 0.1, 86_400)


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """A folder whose files are read; they are copied, and stay where they are.

    Args:
        folder: Where they are put; folders in it count too.
        every: Seconds between looks.
        settle: Seconds for which a file must not change before it is taken.
        remove: Whether a file is removed after it was accepted.
    """

    folder: Path
    every: float = _number(5.0, 0.05, 86_400)
    settle: float = _number(2.0, 0.0, 3600)
    remove: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteArchive:
    """An archive, and what shows it who asks.

    Args:
        name: For logs, metrics and records: letters, digits, `_`, `.`, `-`.
        url: Of the DICOMweb service, without `/studies`.
        token_file: File with a bearer token for it.
        user: Name for basic authentication, with `password_file`.
        password_file: See `user`.
        tls: Certificates; for C-STORE no TLS without them.
    """

    name: str
    url: str = ""
    token_file: Path | None = None
    user: str = ""
    password_file: Path | None = None
    tls: Tls = Tls()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pull(RemoteArchive):
    """An archive that is asked for images by DICOMweb.

    Args:
        name, url, token_file, user, password_file, tls: See `RemoteArchive`.
        modalities: Modality of the series, each asked for by itself; empty for any.
        body_parts: Body Part Examined of the series, each asked for by itself; empty for any.
        accessions: Accession numbers that are asked for, of any day.
        days: Days up to today that the first look covers, by the date of the study; 0 for
            accession numbers only.
        late_days: Days after which nothing more is expected of a day.
        every: Seconds between looks.
        time_limit: Seconds for one request.
    """

    modalities: tuple[str, ...] = ("CR", "DX")
    body_parts: tuple[str, ...] = ()
    accessions: tuple[str, ...] = ()
    days: int = _number(1, 0, 100_000)
    late_days: int = _number(2, 0, 3650)
    every: float = _number(60.0, 0.05, 86_400)
    time_limit: float = _number(60.0, 0.1, 3600)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target(RemoteArchive):
    """An archive that gets results.

    Args:
        name, url, token_file, user, password_file, tls: See `RemoteArchive`.
        kind: `"dicomweb"` for STOW-RS, `"dicom"` for C-STORE.
        host: Of the C-STORE receiver.
        port: Of the C-STORE receiver.
        aet: AE title of the receiver.
        calling_aet: Own AE title there.
        kinds: Which objects it gets; empty for all.
        verify: Whether it is asked afterwards, by QIDO-RS or C-FIND, if it has them.
        verify_aet: AE title for C-FIND where it is another one.
        verify_after: Seconds between sending and asking.
        connections: At the same time.
    """

    kind: Literal["dicomweb", "dicom"]
    host: str = ""
    port: int = _number(0, 0, 65_535)
    aet: str = ""
    calling_aet: str = "XRV"
    kinds: tuple[str, ...] = field(default=(), metadata={"choices": _KINDS})
    verify: bool = True
    verify_aet: str = ""
    verify_after: float = _number(1.0, 0.0, 86_400)
    connections: int = _number(2, 1, 64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Deliver:
    """How results are sent.

    Args:
        first_wait: Seconds after the first failure; each later wait is twice as long.
        longest_wait: Seconds.
        most_attempts: After which a result is a dead letter, until `xrv serve retry`; 1000 bridge
            ten days.
        time_limit: Seconds for one request or message.
    """

    first_wait: float = _number(5.0, 0.01, 86_400)
    longest_wait: float = _number(900.0, 0.01, 604_800)
    most_attempts: int = _number(1000, 1, 1_000_000)
    time_limit: float = _number(60.0, 0.1, 3600)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Where the service says that it takes nothing more.

    Args:
        waiting: Images that wait to be read.
        object_bytes: Of one received object.
        spool_bytes: Of all that lies in the spool.
        free_bytes: That must stay free on its disk.
    """

    waiting: int = _number(10_000, 1)
    object_bytes: int = _number(128 << 20, 1024)
    spool_bytes: int = _number(50 * _GIB, 1024)
    free_bytes: int = _number(_GIB, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """How long things are kept; what still waits to be read or delivered is never removed.

    Args:
        delivered_hours: Images and results after everybody has them.
        failed_days: Images and results that failed, were refused or are dead letters.
        record_days: Records, which hold no patient data; an instance that is sent again after
            its record is gone is answered again, with objects of the same UIDs.
    """

    delivered_hours: float = _number(0.0, 0.0)
    failed_days: float = _number(14.0, 0.0)
    record_days: float = _number(365.0, 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """All settings of the service.

    Args:
        folder: Where queue and spool are kept, private to the user of the service.
        model: Which networks answer.
        results: What is made of an image.
        gate: What is read.
        work: How it is read.
        receive: The DICOM listener, or None.
        http: The HTTP listener, or None.
        watch: Folders that are watched.
        pull: Archives that are asked for images.
        targets: Archives that get results.
        deliver: How.
        limits: When nothing more is taken.
        retention: How long things are kept.
    """

    folder: Path
    model: Model = Model()
    results: Answers = Answers()
    gate: GateRules = GateRules()
    work: Work = Work()
    receive: Receive | None = None
    http: Http | None = None
    watch: tuple[Watch, ...] = ()
    pull: tuple[Pull, ...] = ()
    targets: tuple[Target, ...] = ()
    deliver: Deliver = Deliver()
    limits: Limits = Limits()
    retention: Retention = Retention()


def read_config(path: str | os.PathLike[str]) -> Config:
    """The settings in a TOML file.

    Args:
        path: The file; relative paths in it are relative to its folder.

    Returns:
        The settings, checked.

    Raises:
        ConfigError: For a key that does not exist, a value that cannot be used, settings that do
            not fit each other, or a file that is no TOML.
        OSError: If the file cannot be read.
    """
    file = Path(path)
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), f"is no TOML: {error}") from None
    return config_of(values, file.absolute().parent)


def config_of(values: Mapping[str, Any], folder: str | os.PathLike[str] = ".") -> Config:
    """The settings in a dictionary, as TOML gives it.

    Args:
        values: Section to keys to values.
        folder: What relative paths are relative to.

    Returns:
        The settings, checked.

    Raises:
        ConfigError: See `read_config`.

    Example:
        >>> config_of({"folder": "/var/lib/xrv", "receive": {"prt": 1}})
        Traceback (most recent call last):
        torchxrayvision.errors.ConfigError: receive.prt: is no setting; did you mean 'port'?
    """
    config: Config = _section(Config, values, "", Path(folder))
    _check_together(config)
    return config


def _section(kind: type[Any], values: Any, key: str, base: Path) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(key, f"is {_shown(values)}, expected a section of settings")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(fields)}"
            raise ConfigError(_join(key, name), f"is no setting; {hint}")
    hints = typing.get_type_hints(kind)
    given = {}
    for name, entry in fields.items():
        if name in values:
            given[name] = _value(hints[name], values[name], _join(key, name), base, entry.metadata)
        elif entry.default is dataclasses.MISSING:
            raise ConfigError(_join(key, name), "is missing, and has no default")
    return kind(**given)


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _value(kind: Any, value: Any, key: str, base: Path, rules: Mapping[str, Any]) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _value(inner[0], value, key, base, rules)
    if origin is Literal:
        return _one_of(value, inner, key)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(key, f"is {_shown(value)}, expected a list")
        return tuple(_value(inner[0], v, f"{key}[{i}]", base, rules) for i, v in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return _section(kind, value, key, base)  # type: ignore[arg-type]
    if kind in (int, float):
        return _in_range(kind, value, key, rules)
    wanted = {str: (str, "a text"), bool: (bool, "true or false"), Path: (str, "a path")}[kind]
    if not isinstance(value, wanted[0]) or (kind is Path and not value):
        raise ConfigError(key, f"is {_shown(value)}, expected {wanted[1]}")
    if kind is Path:
        return base / Path(str(value)).expanduser()
    return _one_of(value, rules["choices"], key) if "choices" in rules else value


def _one_of(value: Any, choices: tuple[str, ...], key: str) -> Any:
    if value not in choices:
        raise ConfigError(key, f"is {_shown(value)}, expected one of {', '.join(choices)}")
    return value


def _in_range(kind: type[Any], value: Any, key: str, rules: Mapping[str, Any]) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = "a whole number" if kind is int else "a number"
    if not number or (kind is int and not isinstance(value, int)) or value != value:
        raise ConfigError(key, f"is {_shown(value)}, expected {whole}")
    low, high = rules.get("low", float("-inf")), rules.get("high", float("inf"))
    if not low <= value <= high:
        limit = f"at least {low:g}" if high == float("inf") else f"{low:g} to {high:g}"
        raise ConfigError(key, f"is {value}, expected {whole} of {limit}")
    return kind(value)


def _check_together(config: Config) -> None:
    """What no key shows by itself."""
    _check_model(config.model, config.results.kinds)
    _check_engine(config.model, config.results)
    _check_devices(config.model.device, config.work.processes)
    if config.receive is not None:
        _check_receive(config.receive)
    if config.http is not None:
        _check_http(config.http)
    _check_archives(config.pull, "pull")
    _check_archives(config.targets, "targets")


def _check_model(model: Model, kinds: tuple[str, ...]) -> None:
    if not kinds:
        raise ConfigError("results.kinds", "is empty, expected kinds of objects to make")
    if "seg" in kinds and not model.segmenter:
        raise ConfigError("results.kinds", "names seg, which needs model.segmenter")
    if not (model.weights or model.checkpoint or model.graph):
        if not model.segmenter:
            raise ConfigError("model", "names no network: set weights, checkpoint or segmenter")
        if model.calibration is not None:
            raise ConfigError("model.calibration", "is for a classifier: set weights or checkpoint")
    for name in ("checkpoint", "calibration", "graph"):
        _check_file(getattr(model, name), f"model.{name}")


def draws_evidence(answers: Answers) -> bool:
    """Whether objects hold heat maps, which need gradients.

    Args:
        answers: What is made of an image.
    """
    return answers.heat_maps and bool(_DRAWN & set(answers.kinds))


def _check_engine(model: Model, answers: Answers) -> None:
    """What a graph and an engine of graphs cannot do."""
    if not answers.heat_maps:
        if "pm" in answers.kinds:
            raise ConfigError("results.kinds", "names pm, which needs results.heat_maps = true")
        if answers.evidence:
            raise ConfigError("results.evidence", "needs results.heat_maps = true")
    if model.graph is not None:
        if model.checkpoint is not None:
            raise ConfigError("model.graph", "stands alone: leave model.checkpoint out")
        if draws_evidence(answers) or answers.evidence:
            reason = (
                "draws heat maps, which need PyTorch and the network, not a graph of it: set "
                "results.heat_maps = false, or model.engine in place of model.graph"
            )
            raise ConfigError("results", reason)
    if (model.graph or model.engine != "torch") and model.device != "cpu":
        raise ConfigError("model.device", f"is {model.device!r}, and graphs run on the CPU")


def _check_devices(device: str, processes: int) -> None:
    devices = [name.strip() for name in device.split(",")]
    if not all(devices):
        raise ConfigError("model.device", f"is {device!r}, expected names between commas")
    if len(devices) > processes:
        reason = f"names {len(devices)} devices, and work.processes is {processes}: one for each"
        raise ConfigError("model.device", reason)


def _check_archives(archives: Sequence[RemoteArchive], section: str) -> None:
    names = set[str]()
    for at, archive in enumerate(archives):
        key = f"{section}[{at}]"
        if archive.name in names:
            raise ConfigError(f"{key}.name", f"is {archive.name!r} a second time")
        names.add(archive.name)
        if not _NAME.fullmatch(archive.name):
            reason = f"is {_shown(archive.name)}, expected 1 to 40 letters, digits, _ . or -"
            raise ConfigError(f"{key}.name", reason)
        if isinstance(archive, Target) and archive.kind == "dicom":
            _check_dicom(archive, key)
        else:
            _check_web(archive, key)
        _check_tls(archive.tls, f"{key}.tls", server=False)


def _check_receive(receive: Receive) -> None:
    check_aet(receive.aet, "receive.aet")
    if not receive.peers and not receive.any_peer:
        reason = "is empty: name who may send, or set receive.any_peer = true"
        raise ConfigError("receive.peers", reason)
    for at, peer in enumerate(receive.peers):
        check_aet(peer.aet, f"receive.peers[{at}].aet")
        if peer.host:
            network_of(peer.host, f"receive.peers[{at}].host")
    _check_tls(receive.tls, "receive.tls", server=True)


def _check_http(http: Http) -> None:
    _check_tls(http.tls, "http.tls", server=True)
    if not (is_loopback(http.host) or http.token_file or http.tls.ca):
        reason = f"is {_shown(http.host)}: beyond loopback set http.token_file or http.tls.ca"
        raise ConfigError("http.host", reason)
    if http.host in _ANY_ADDRESS and not http.hosts:
        reason = "is empty: name what clients call the service, such as xrv.hospital.example"
        raise ConfigError("http.hosts", reason)


def _check_web(entry: RemoteArchive, key: str) -> None:
    if not entry.url.startswith(("http://", "https://")):
        raise ConfigError(f"{key}.url", f"is {_shown(entry.url)}, expected http(s)://...")
    if bool(entry.user) != (entry.password_file is not None):
        raise ConfigError(f"{key}.user", "goes together with password_file")


def _check_dicom(target: Target, key: str) -> None:
    check_aet(target.aet, f"{key}.aet")
    check_aet(target.calling_aet, f"{key}.calling_aet")
    if target.verify_aet:
        check_aet(target.verify_aet, f"{key}.verify_aet")
    if not target.host or not target.port:
        raise ConfigError(f"{key}.host", "and port are needed for C-STORE")


def _check_tls(tls: Tls, key: str, *, server: bool) -> None:
    if (tls.certificate is None) != (tls.key is None):
        raise ConfigError(f"{key}.certificate", "goes together with key")
    if server and tls.ca is not None and tls.certificate is None:
        raise ConfigError(f"{key}.ca", "needs certificate and key of the listener too")
    for name in ("certificate", "key", "ca"):
        _check_file(getattr(tls, name), f"{key}.{name}")


def _check_file(file: Path | None, key: str) -> None:
    if file is not None and not file.is_file():
        raise ConfigError(key, f"is {str(file)!r}, expected a file that exists")


def check_aet(text: str, key: str) -> None:
    """Refuse what is no AE title.

    Args:
        text: As given.
        key: The setting, for the error.

    Raises:
        ConfigError: If it is none.

    Source:
        DICOM PS3.5 section 6.2: at most 16 characters, no backslash or control character.
    """
    if not _AET.fullmatch(text):
        reason = f"is {_shown(text)}, expected an AE title: 1 to 16 ASCII characters"
        raise ConfigError(key, reason)


def network_of(text: str, key: str = "host") -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The network that an address or network is.

    Args:
        text: As given.
        key: The setting, for the error.

    Returns:
        It; one address for an address.

    Raises:
        ConfigError: If it is none.
    """
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        reason = f"is {_shown(text)}, expected an address or a network such as 10.1.0.0/16"
        raise ConfigError(key, reason) from None
