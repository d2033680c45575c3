"""Verifies an evidence pack, or a whole log, of a Stele fleet. Python 3 and nothing else.

    stele_verify.py PACK --key K [--witness VKEYS]... [--history shop/web@prod] [--report]
    stele_verify.py --log FILE [--key K] [--checkpoint NOTE]... [--witness VKEYS]... [--history shop/web@prod]

K is the fleet's root key, 64 hex digits; VKEYS are witnesses' keys, name+id+base64, separated by commas. FILE is a log: a stored record per
line, as hex, or pages of the API's /v1/records, as JSON, one after the other. NOTE is a file with a signed checkpoint.

It is written from docs/log-format.md alone and shares no code with Stele. Exit codes: 0 VERIFIED; 1 refused, and where;
2 the command makes no sense, or a file cannot be read; 7 all of it holds together, but no witness that was given vouches for it.
"""

import argparse
import base64
import binascii
import hashlib
import json
import re
import signal
import sys

COUNT_MAX = 4_000_000
LEAF_MAX = 65_535
CHECKPOINTS_MAX = 64
NOTE_MAX, SIGNATURES_MAX = 65_536, 100


class Refused(Exception):
    """The bytes do not prove what they claim."""

    def __init__(self, where, why):
        super().__init__(f"{where}: {why}")


class Place:
    """A section of a pack, a record's seq, a byte of the file; each may be unknown."""

    def __init__(self, section, at, seq=None):
        self.section, self.at, self.seq = section, at, seq

    def __str__(self):
        record = f"record {self.seq}, " if self.seq is not None else ""
        return f"{self.section}, {record}byte {self.at}"


class Malformed(Exception):
    """Some bytes are not what they should be; whoever knows where they stand says so."""


def need(condition, why):
    if not condition:
        raise Malformed(why)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def shown_digest(digest):
    return "sha256:" + digest.hex()


# --- Ed25519, as in RFC 8032 -----------------------------------------------------------

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
NEUTRAL = (0, 1, 1, 0)


def add_points(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(scalar, point):
    result = NEUTRAL
    while scalar:
        if scalar & 1:
            result = add_points(result, point)
        point, scalar = add_points(point, point), scalar >> 1
    return result


def same_point(p, q):
    return (p[0] * q[2] - q[0] * p[2]) % P == 0 and (p[1] * q[2] - q[1] * p[2]) % P == 0


def read_point(data):
    """The point of 32 bytes, or None."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


BASE = read_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def is_signed(key, message, signature):
    """Whether this is the key's Ed25519 signature of the message; weak keys sign nothing."""
    if len(key) != 32 or len(signature) != 64:
        return False
    scalar = int.from_bytes(signature[32:], "little")
    public, commitment = read_point(key), read_point(signature[:32])
    if public is None or commitment is None or scalar >= ORDER:
        return False
    if any(same_point(multiply(8, point), NEUTRAL) for point in (public, commitment)):
        return False
    hashed = hashlib.sha512(signature[:32] + key + message).digest()
    challenge = int.from_bytes(hashed, "little") % ORDER
    return same_point(multiply(scalar, BASE), add_points(commitment, multiply(challenge, public)))


# --- Hand-laid fields and leaves ----------------------------------------------------------


class Reader:
    """Bytes, big-endian integers, and where it stands."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def left(self):
        return len(self.data) - self.at

    def take(self, count):
        need(count <= self.left(), f"{count} bytes should follow, and {self.left()} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def blob(self):
        return self.take(self.number(4))

    def text(self):
        return read_text(self.blob())

    def option(self, read):
        tag = self.number(1)
        need(tag <= 1, f"{tag} is neither absent nor present")
        return read() if tag else None

    def end(self):
        need(self.left() == 0, f"{self.left()} bytes follow the end")


def read_text(data):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("a text is not UTF-8") from None


NAME_FORM = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"


def is_name(text):
    return re.fullmatch(NAME_FORM, text) is not None


def read_name(reader):
    name = reader.text()
    need(is_name(name), f"{name!r} is no name")
    return name


def read_reason(reader):
    tag = reader.number(1)
    if tag == 1:
        return {"plain": reader.text()}
    need(tag == 2, f"{tag} is no kind of value")
    return {"sealed": [reader.text(), reader.number(4), reader.text(), reader.text()]}


def read_leaf(leaf):
    reader = Reader(leaf)
    need(reader.number(1) == 1, "the leaf is of an unknown format")
    header = {"leaf": leaf, "seq": reader.number(8), "time": reader.number(8)}
    header["decision"] = (reader.number(8), reader.number(4))
    header["principal"] = read_name(reader)
    header["cause"] = reader.option(lambda: reader.number(8))
    header["trace"] = reader.option(reader.text)
    header["idempotency"] = reader.option(lambda: (reader.text(), reader.take(32)))
    header["kind"], header["schema"], header["codec"] = reader.text(), reader.number(2), reader.number(1)
    header["scopes"] = [reader.text() for _ in range(reader.number(2))]
    header["reason"] = reader.option(lambda: read_reason(reader))
    for link in ("ticket", "commit", "ci_run"):
        header[link] = reader.option(reader.text)
    header["on_behalf_of"] = reader.option(lambda: read_name(reader))
    header["payload"] = reader.take(32)
    reader.end()
    return header


# --- Payloads: bincode ----------------------------------------------------------------------
# A type is a function from a reader to a value, in the form it has as JSON.


def varint(reader):
    first = reader.number(1)
    if first < 251:
        return first
    need(first <= 253, f"{first} begins no number")
    size = {251: 2, 252: 4, 253: 8}[first]
    number = int.from_bytes(reader.take(size), "little")
    need(number >= {2: 251, 4: 2**16, 8: 2**32}[size], "a number is not in its shortest form")
    return number


def integer(reader):
    coded = varint(reader)
    return -(coded // 2) - 1 if coded % 2 else coded // 2


def boolean(reader):
    byte = reader.number(1)
    need(byte <= 1, f"{byte} is neither false nor true")
    return byte == 1


def text(reader):
    return read_text(reader.take(varint(reader)))


def digest(reader):
    return shown_digest(reader.take(32))


def formed(pattern):
    """A text of this form, such as an id."""

    def read(reader):
        written = text(reader)
        need(re.fullmatch(pattern, written), f"{written!r} is not of its form")
        return written

    return read


def option(of):
    return lambda reader: reader.option(lambda: of(reader))


def several(of):
    return lambda reader: [of(reader) for _ in range(varint(reader))]


def mapping(of, named=text):
    def read(reader):
        pairs = [(named(reader), of(reader)) for _ in range(varint(reader))]
        keys = [key.encode() for key, _ in pairs]
        need(all(a < b for a, b in zip(keys, keys[1:])), "a map is not in ascending order")
        return dict(pairs)

    return read


def row(*of):
    return lambda reader: [one(reader) for one in of]


def struct(**fields):
    return lambda reader: {name: of(reader) for name, of in fields.items()}


def enum(*variants):
    """A variant is its name, or its name with what follows."""

    def read(reader):
        number = varint(reader)
        need(number < len(variants), f"there is no variant {number}")
        variant = variants[number]
        return variant if isinstance(variant, str) else {variant[0]: variant[1](reader)}

    return read


NAME = formed(NAME_FORM)
APP_ENV = formed(f"{NAME_FORM}/{NAME_FORM}@{NAME_FORM}")
PLACE = formed(f"(?:region|node):{NAME_FORM}")
TEXTS = mapping(text)
SEALED = struct(subject=text, key_version=varint, nonce=text, ciphertext=text)
VALUE = enum(("plain", text), ("sealed", SEALED))
ENV_VALUE = enum(("value", VALUE), ("secret", text))
CERTIFICATE = struct(
    body=struct(fleet=text, controller=varint, key=text, not_before=varint, not_after=varint), signature=text
)
TOKEN = struct(
    principal=text,
    hash=digest,
    role=enum("admin", "deployer", "auditor"),
    holder=enum("person", "service"),
    expires=varint,
)
JOIN_TOKEN = struct(hash=digest, node=option(text), region=text, labels=TEXTS, expires=varint)
NODE = struct(name=NAME, region=NAME, labels=TEXTS, key=text, sealing_key=text, address=option(text))
CHECK = enum(
    ("http", struct(port=varint, path=text)), ("tcp", struct(port=varint)), ("exec", struct(command=several(text)))
)
CONTAINER = struct(
    image=struct(repository=text, digest=digest),
    entrypoint=option(several(text)),
    command=several(text),
    env=mapping(ENV_VALUE),
    files=mapping(struct(content=ENV_VALUE, mode=varint)),
    ports=several(struct(container=varint, host=option(varint), protocol=enum("tcp", "udp"))),
    volumes=several(
        struct(source=enum(("named", text), ("host", text), "memory"), path=text, read_only=boolean)
    ),
    health=option(
        struct(check=CHECK, interval_ms=varint, timeout_ms=varint, retries=varint, start_period_ms=varint)
    ),
    resources=struct(cpu_millis=option(varint), memory_bytes=option(varint), pids=option(varint)),
    restart=enum("always", "on_failure", "never"),
    stop=struct(signal=text, grace_seconds=varint),
    labels=TEXTS,
    log=option(struct(driver=text, options=TEXTS)),
    user=option(text),
    workdir=option(text),
    docker=option(text),
)
SERVICE = struct(
    container=CONTAINER,
    placement=enum(("replicas", struct(count=varint, nodes=text)), ("every", struct(nodes=text))),
    update=struct(max_unavailable=varint, order=enum("start_first", "stop_first"), deadline_ms=varint),
)
RELEASE = struct(app=text, services=mapping(SERVICE))
REVISION = struct(release=digest, config=option(digest), secrets=mapping(varint, NAME))
OUTCOME = enum(
    "succeeded",
    ("failed", struct(instance=text, node=text, reason=text, exit_code=option(integer), log_tail=several(text))),
    ("unplaced", struct(slot=text, reason=text)),
    ("superseded", struct(by=varint)),
)
ASSIGNMENT_CHANGE = enum(
    ("assign", struct(node=text, instance=text, revision=REVISION, spec=digest, replaces=option(text))),
    ("withdraw", struct(node=text, instance=text)),
)
INSTANCE_REPORT = struct(
    id=text,
    phase=enum("pending", "pulling", "starting", "healthy", "unhealthy", "failed", "completed"),
    spec_digest=option(digest),
    container=option(text),
    restarts=varint,
    reason=option(text),
    exit_code=option(integer),
    log_tail=several(text),
)
REPORTED_CHANGE = struct(
    node=text,
    boot=varint,
    number=varint,
    applied=struct(epoch=varint, seq=varint, digest=digest),
    changed=several(INSTANCE_REPORT),
    gone=several(text),
)
TARGET_DIGEST = struct(intent=digest, placement=digest)
STARTED = {"from": option(REVISION), "to": option(REVISION), "now": boolean}
PIN = enum(("revision", REVISION), "absent")

# (kind, schema) -> (number of the variant, fields). What has two schemas is read in both.
EVENTS = {
    ("term_started", 1): (0, struct(term=varint, controller=varint)),
    ("fleet_created", 1): (1, struct(fleet=text, root=text, epoch=varint)),
    ("controller_certified", 1): (2, struct(certificate=CERTIFICATE, api=text, peer=text)),
    ("membership_changed", 1): (3, struct(voters=several(varint), learners=several(varint))),
    ("controller_removed", 1): (4, struct(controller=varint)),
    ("state_digest_recorded", 1): (5, struct(digest=digest)),
    ("token_created", 1): (6, struct(token=TOKEN)),
    ("token_revoked", 1): (7, struct(principal=text)),
    ("join_token_created", 1): (8, struct(token=JOIN_TOKEN)),
    ("node_enrolled", 1): (9, struct(node=NODE, join_token=digest)),
    ("node_labelled", 1): (10, struct(node=text, labels=TEXTS)),
    ("node_removed", 1): (11, struct(node=text)),
    ("nodes_lost", 1): (12, struct(nodes=several(text))),
    ("nodes_returned", 1): (13, struct(nodes=several(text))),
    ("project_created", 1): (14, struct(project=text)),
    ("environment_created", 1): (15, struct(environment=text)),
    ("app_declared", 1): (
        16,
        struct(app=text, contacts=struct(owner=option(text), on_call=option(text), runbook=option(text))),
    ),
    ("release_created", 1): (17, struct(number=varint, digest=digest, release=RELEASE, images=TEXTS)),
    ("config_changed", 1): (
        18,
        struct(app_env=APP_ENV, version=varint, digest=digest, variables=mapping(VALUE)),
    ),
    ("secret_changed", 1): (19, struct(app_env=APP_ENV, name=text, version=varint, value=SEALED)),
    ("deployment_started", 1): (
        20,
        struct(app_env=APP_ENV, kind=enum("deploy", "configure", "rollback", "remove"), **STARTED),
    ),
    ("deployment_started", 2): (
        20,
        struct(
            app_env=APP_ENV,
            kind=enum("deploy", "configure", "rollback", "remove", "undo"),
            **STARTED,
            barrier=option(text),
        ),
    ),
    ("deployment_finished", 1): (21, struct(deployment=varint, app_env=APP_ENV, outcome=OUTCOME)),
    ("target_changed", 1): (22, struct(app_env=APP_ENV, revision=option(REVISION))),
    ("placement_changed", 1): (23, struct(app_env=APP_ENV, slots=several(row(text, option(text))))),
    ("assignments_changed", 1): (24, struct(app_env=APP_ENV, changes=several(ASSIGNMENT_CHANGE))),
    ("nodes_reported", 1): (25, struct(reports=several(REPORTED_CHANGE))),
    ("rolled_back", 1): (
        26,
        struct(
            scope=text,
            point=text,
            seq=varint,
            before=TARGET_DIGEST,
            after=TARGET_DIGEST,
            replaced=several(row(text, text)),
        ),
    ),
    ("rolled_back", 2): (
        26,
        struct(
            scope=text,
            **{"except": several(text)},
            point=text,
            seq=varint,
            before=TARGET_DIGEST,
            after=TARGET_DIGEST,
            deviations=several(struct(what=text, why=text)),
        ),
    ),
    ("latched", 1): (27, struct(app_env=APP_ENV, release=digest)),
    ("unlatched", 1): (28, struct(app_env=APP_ENV)),
    ("refused", 1): (29, struct(action=text, scope=text, why=text)),
    ("pins_changed", 1): (30, struct(app_env=APP_ENV, pins=several(row(PLACE, option(PIN))))),
    ("point_marked", 1): (31, struct(scope=text, seq=varint, bad=boolean)),
    ("reviewed", 1): (32, struct(rollback=varint)),
    ("subject_erased", 1): (33, struct(subject=text, through=varint)),
    ("undone", 1): (
        34,
        struct(
            what=text,
            decisions=several(varint),
            apps=several(row(APP_ENV, TARGET_DIGEST, TARGET_DIGEST)),
        ),
    ),
    ("fleet_recovered", 1): (35, struct(epoch=varint, controller=varint, given_up=several(varint))),
    ("node_drained", 1): (36, struct(node=text)),
    ("node_resumed", 1): (37, struct(node=text)),
}


def read_event(header, payload):
    """The event's fields; Malformed when kind and schema are not known."""
    known = EVENTS.get((header["kind"], header["schema"]))
    need(known and header["codec"] == 1, "its kind, schema or codec is not known")
    reader = Reader(payload)
    need(varint(reader) == known[0], "the payload is of another kind than its header says")
    fields = known[1](reader)
    reader.end()
    return fields


def first_schema(header, payload, kind):
    """The fields if it is of this kind, schema 1 and codec 1; else None."""
    if (header["kind"], header["schema"], header["codec"]) != (kind, 1, 1) or payload is None:
        return None
    try:
        return read_event(header, payload)
    except Malformed:
        return None


def canonical(tree):
    if isinstance(tree, dict):
        members = sorted(tree.items(), key=lambda member: member[0].encode("utf-16-be"))
        return "{" + ",".join(canonical(k) + ":" + canonical(v) for k, v in members) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(map(canonical, tree)) + "]"
    return json.dumps(tree, ensure_ascii=False)


def digest_of_json(tree):
    return shown_digest(sha256(canonical(tree).encode()))


# --- The tree, notes and checkpoints -----------------------------------------------------------


class Walk:
    """The tree from left to right: perfect subtrees, the largest at the bottom."""

    def __init__(self):
        self.position, self.stack = 0, []

    def add(self, level, hashed):
        self.position += 1 << level
        while self.stack and self.stack[-1][0] == level:
            hashed = sha256(b"\x01", self.stack.pop()[1], hashed)
            level += 1
        self.stack.append((level, hashed))

    def leaf(self, leaf):
        self.add(0, sha256(b"\x00", leaf))

    def root(self):
        if not self.stack:
            return sha256()
        hashed = self.stack[-1][1]
        for _, left in reversed(self.stack[:-1]):
            hashed = sha256(b"\x01", left, hashed)
        return hashed

    def level_towards(self, end):
        """Of the largest perfect subtree that begins here and does not reach beyond the end."""
        level = (end - self.position).bit_length() - 1
        while self.position % (1 << level):
            level -= 1
        return level


def read_base64(written):
    try:
        data = base64.b64decode(written, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("it is no base64") from None
    need(base64.b64encode(data).decode() == written, "its base64 has stray bits")
    return data


class Key:
    """A key that signs notes."""

    def __init__(self, name, kind, public):
        self.name, self.kind, self.public = name, kind, public
        self.id = sha256(name.encode(), b"\n", bytes([kind]), public)[:4]

    @staticmethod
    def read(written):
        parts = written.split("+", 2)
        need(len(parts) == 3, f"{written!r} is not name+id+base64")
        data = read_base64(parts[2])
        need(len(data) == 33 and data[0] in (1, 4), "the key is neither an Ed25519 key nor a cosigner's")
        key = Key(parts[0], data[0], data[1:])
        need(key.id.hex() == parts[1], f"the key's id is {key.id.hex()}, not {parts[1]}")
        return key

    def has_signed(self, body, signature):
        if self.kind == 1:
            return is_signed(self.public, body.encode(), signature)
        signed = f"cosignature/v1\ntime {int.from_bytes(signature[:8], 'big')}\n{body}"
        return is_signed(self.public, signed.encode(), signature[8:])


class Checkpoint:
    def __init__(self, data):
        need(len(data) <= NOTE_MAX, "the note is too long")
        note = read_text(data)
        need(not any(character < " " and character != "\n" for character in note), "it has a control character")
        body, blank, lines = note.rpartition("\n\n")
        need(blank and lines.endswith("\n"), "it is no signed note")
        self.note, self.body, self.signatures = note, body + "\n", []
        for line in lines[:-1].split("\n"):
            parts = line.split(" ")
            need(len(parts) == 3 and parts[0] == "\u2014", "a signature line is malformed")
            need(parts[1] and "+" not in parts[1] and not re.search(r"\s", parts[1]), "a key's name is malformed")
            signed = read_base64(parts[2])
            need(len(signed) > 4, "a signature is too short")
            self.signatures.append((parts[1], signed[:4], signed[4:]))
        need(len(self.signatures) <= SIGNATURES_MAX, "there are too many signatures")
        form = r"stele/([a-z0-9-]+)\n([1-9][0-9]{0,18})\n(\S{44})\nstate (sha256:[0-9a-f]{64})\nchain (sha256:[0-9a-f]{64})\n"
        found = re.fullmatch(form, self.body)
        need(found and is_name(found[1]), "its text is no checkpoint")
        self.fleet, self.size, self.root = found[1], int(found[2]), read_base64(found[3])
        self.state, self.chain = found[4], found[5]
        need(len(self.root) == 32, "its root is no hash")

    def signers(self, keys):
        """Those of the keys that signed. A wrong signature by one of them condemns the note."""
        signed = []
        for name, key_id, signature in self.signatures:
            for key in keys:
                if (key.name, key.id) == (name, key_id):
                    need(key.has_signed(self.body, signature), f"the signature of {name} does not match")
                    signed.append(key)
        return signed


class Trust:
    """Whose keys the records at hand say to believe, beginning with the root."""

    def __init__(self, root, fleet):
        self.root, self.fleet, self.founded = root, fleet, False
        self.keys, self.removed = [], {}

    def learn(self, header, fields):
        kind = header["kind"]
        if kind == "fleet_created":
            root = self.root if self.root is not None else fields["root"]
            need(fields["root"] == root, f"the fleet's root key is {fields['root']}, and {root} was given")
            self.fleet = self.fleet or fields["fleet"]
            need(fields["fleet"] == self.fleet and not self.founded, f"fleet {fields['fleet']} was created here")
            self.root, self.founded = root, True
        elif kind == "controller_certified":
            body, signature = fields["certificate"]["body"], fields["certificate"]["signature"]
            need(self.root is not None, "a controller was certified before the fleet's root key was named")
            signed = b"stele-certificate-v1\0" + canonical(body).encode()
            need(
                is_signed(bytes.fromhex(self.root), signed, read_hex(signature)),
                "the certificate is not by the fleet's root key",
            )
            need(body["fleet"] == self.fleet, f"the certificate is for fleet {body['fleet']}")
            key = Key(f"stele/{self.fleet}/controller-{body['controller']}", 1, read_hex(body["key"]))
            self.keys.append((body["controller"], key, body["not_after"]))
        elif kind == "controller_removed":
            self.removed[fields["controller"]] = header["seq"]

    def check(self, checkpoint, time, witnesses):
        """Whether controllers signed it; answers their names, and the witnesses that cosigned."""
        need(checkpoint.fleet == self.fleet, f"it is of fleet {checkpoint.fleet}, not {self.fleet}")
        believed = [
            key
            for controller, key, until in self.keys
            if until >= time and self.removed.get(controller, checkpoint.size + 1) > checkpoint.size
        ]
        signers = checkpoint.signers(believed)
        need(signers, "no controller that is believed signed it")
        return sorted({key.name for key in signers}), sorted({key.name for key in checkpoint.signers(witnesses)})


TRUSTED_KINDS = ("fleet_created", "controller_certified", "controller_removed")


def read_hex(written):
    try:
        return bytes.fromhex(written)
    except ValueError:
        raise Malformed("it is no hex") from None


# --- Scopes -----------------------------------------------------------------------------------

APP_PARTS, NODE_PARTS = ("project", "app", "env"), ("region", "node")


def read_scope(written):
    """The parts it fixes; None when it cannot be read."""
    fixed = {}
    for part in written.split(","):
        if part == "fleet":
            continue
        kind, colon, name = part.partition(":")
        if colon and kind in ("project", "env", "region", "node"):
            parts = [(kind, name, is_name(name))]
        else:
            app, at, environment = part.partition("@")
            names = app.split("/", 1)
            parts = [("app", app, len(names) == 2 and all(map(is_name, names)))]
            if at:
                parts.append(("env", environment, is_name(environment)))
        for kind, name, is_right in parts:
            if not is_right or kind in fixed:
                return None
            fixed[kind] = name
    return fixed


def write_scope(fixed):
    parts = [f"{kind}:{fixed[kind]}" for kind in ("project",) if kind in fixed]
    if "app" in fixed:
        parts.append(fixed["app"] + ("@" + fixed["env"] if "env" in fixed else ""))
    elif "env" in fixed:
        parts.append("env:" + fixed["env"])
    parts += [f"{kind}:{fixed[kind]}" for kind in NODE_PARTS if kind in fixed]
    return ",".join(parts) or "fleet"


def meets(scope, other, side, regions):
    """Whether what is written in a header may be about the apps, or nodes, of a scope."""
    if other is None or not other:
        return True
    if not any(part in other for part in side):
        return False
    if side == APP_PARTS:
        scope, other = (
            {**fixed, "project": fixed["app"].split("/")[0]} if "app" in fixed else fixed for fixed in (scope, other)
        )
    if any(part in scope and part in other and scope[part] != other[part] for part in side):
        return False
    if side == NODE_PARTS:
        for here, there in ((scope, other), (other, scope)):
            if "node" in here and "region" in there:
                if there["region"] not in regions.get(here["node"], {there["region"]}):
                    return False
    return True


def touches(scope, regions, header):
    others = [read_scope(written) for written in header["scopes"]]

    def side_is_met(side):
        if not any(part in scope for part in side):
            return True
        if side == NODE_PARTS and header["kind"] == "placement_changed":
            return True
        names_any = any(other is None or any(part in other for part in side) for other in others)
        return not names_any or any(meets(scope, other, side, regions) for other in others)

    if header["kind"] == "node_enrolled" and any(part in scope for part in NODE_PARTS):
        return True
    return side_is_met(APP_PARTS) and side_is_met(NODE_PARTS)


# --- The report ---------------------------------------------------------------------------------


def shown(written):
    if re.fullmatch(r"[A-Za-z0-9_\-./:@=+,]+", written):
        return written
    return json.dumps(written, ensure_ascii=False)


def plain(written):
    """Text that a terminal shows and does not obey: what is refused may say anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in written)


def say(*lines):
    for line in "\n".join(lines).split("\n"):
        print(plain(line))


def moment(micros):
    if micros >= 253_402_300_800_000_000:
        return str(micros)
    days, rest = divmod(micros, 86_400_000_000)
    year = 1970
    while days >= 365 + is_leap(year):
        days -= 365 + is_leap(year)
        year += 1
    month = 1
    for length in (31, 28 + is_leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31):
        if days < length:
            break
        days -= length
        month += 1
    seconds, micros = divmod(rest, 1_000_000)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{micros:06}"
    return f"{year:04}-{month:02}-{days + 1:02}T{clock}Z"


def is_leap(year):
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def because(header):
    words = ["by", shown(header["principal"])]
    if header["reason"] is not None:
        words += ["because", shown(header["reason"]["plain"]) if "plain" in header["reason"] else "(sealed)"]
    for link in ("ticket", "commit", "ci_run", "on_behalf_of"):
        if header[link] is not None:
            words += [link, shown(header[link])]
    return " ".join(words)


def in_words(pin, name):
    """What a place is pinned to."""
    if pin is None:
        return "unpinned"
    return "removed" if pin == "absent" else name(pin["revision"])


# --- Packs ------------------------------------------------------------------------------------------


class PackReader(Reader):
    """A reader that says where in the pack it failed."""

    section = "head"

    def place(self, at=None):
        return Place(self.section, self.at if at is None else at)

    def take(self, count):
        if count > self.left():
            raise Refused(self.place(), f"{count} bytes should follow, and {self.left()} are left")
        return super().take(count)

    def piece(self):
        data = self.blob()
        return self.at - len(data), data

    def count(self, smallest, most=COUNT_MAX):
        at, count = self.at, self.number(4)
        most = min(most, self.left() // smallest)
        if count > most:
            raise Refused(self.place(at), f"{count} items are announced, where at most {most} can be")
        return count


def guarded(place, work, *arguments):
    """Does some work; what it finds malformed is at this place."""
    try:
        return work(*arguments)
    except Malformed as error:
        raise Refused(place, error) from None


class Pack:
    def __init__(self, data):
        self.read(data)
        self.check_head()
        self.check_checkpoints()
        self.check_keys()
        self.headers = [
            self.read_record("leaves", self.first + index, at, leaf)
            for index, (at, leaf) in enumerate(self.leaves)
        ]
        self.check_times()
        self.check_payloads()
        self.walk()

    def read(self, data):
        reader = PackReader(data[: max(len(data) - 32, 0)])
        if reader.take(4) != b"STPK":
            raise Refused(reader.place(0), "this is no evidence pack: it does not begin with STPK")
        if (version := reader.number(1)) != 1:
            raise Refused(reader.place(4), f"the pack has format {version}, this program reads format 1")
        texts = [guarded(reader.place(at), read_text, data) for at, data in (reader.piece() for _ in range(4))]
        self.fleet, self.scope_text, self.since, self.until = texts
        at, self.first = reader.at, reader.number(8)
        count = reader.count(4)
        self.last = self.first + count - 1
        if self.first < 1 or count < 1 or self.first + count >= 1 << 64:
            raise Refused(reader.place(at), "the range holds no record")
        reader.section = "checkpoints"
        self.notes = [reader.piece() for _ in range(reader.count(4, CHECKPOINTS_MAX))]
        reader.section = "keys"
        self.keys = [
            (reader.at, reader.number(8), reader.piece(), reader.piece()) for _ in range(reader.count(16))
        ]
        reader.section = "leaves"
        self.leaves = [reader.piece() for _ in range(count)]
        reader.section = "payloads"
        self.payload_rows = [(reader.at, reader.number(8), reader.piece()) for _ in range(reader.count(12))]
        reader.section = "hashes"
        self.hashes = [(reader.at, reader.take(32)) for _ in range(reader.count(32))]
        self.hashes_end = reader.at
        reader.section = "report"
        self.report_at, self.report = reader.piece()
        if reader.left():
            raise Refused(Place("checksum", reader.at), f"{reader.left()} bytes too many follow the report")
        self.data, self.checksum_at = data, len(reader.data)

    def check_head(self):
        def check():
            need(is_name(self.fleet), f"{self.fleet!r} is no name of a fleet")
            self.scope = read_scope(self.scope_text)
            need(self.scope is not None and write_scope(self.scope) == self.scope_text, "the scope is malformed")
            project = self.scope.get("app", "").split("/")[0]
            need(self.scope.get("project", project) == project or "app" not in self.scope, "nothing is in this scope")
            for point, seq in ((self.since, self.first - 1), (self.until, self.last)):
                need(not point.startswith("seq:") or point == f"seq:{seq}", f"the range is not what {point} stands for")

        guarded(Place("head", 0), check)

    def check_checkpoints(self):
        self.checkpoints, size = [], 0
        for at, data in self.notes:
            checkpoint = guarded(Place("checkpoints", at), Checkpoint, data)
            if checkpoint.fleet != self.fleet or checkpoint.size <= size:
                raise Refused(Place("checkpoints", at), "it is of another fleet, or not in order of size")
            size = checkpoint.size
            self.checkpoints.append(checkpoint)
        if size < self.last:
            at = self.notes[-1][0] if self.notes else 0
            raise Refused(Place("checkpoints", at), f"no checkpoint covers record {self.last}")

    def read_record(self, section, seq, at, leaf):
        place = Place(section, at, seq)
        if len(leaf) > LEAF_MAX:
            raise Refused(place, "the leaf is too long")
        header = guarded(place, read_leaf, leaf)
        if header["seq"] != seq:
            raise Refused(place, f"the leaf is of record {header['seq']}")
        header["place"] = place
        return header

    def check_keys(self):
        self.others, self.payloads, before = [], {}, 0
        for at, seq, (leaf_at, leaf), (payload_at, payload) in self.keys:
            if seq <= before or self.first <= seq <= self.last:
                raise Refused(Place("keys", at, seq), "it is not outside the range, or not in order")
            before = seq
            header = self.read_record("keys", seq, leaf_at, leaf)
            if header["kind"] not in ("fleet_created", "controller_certified"):
                raise Refused(Place("keys", leaf_at, seq), "records of its kind do not belong here")
            self.keep_payload(header, Place("keys", payload_at, seq), payload)
            self.others.append(header)

    def keep_payload(self, header, place, payload):
        if sha256(payload) != header["payload"]:
            raise Refused(place, "the payload is not the one its header names")
        self.payloads[header["seq"]] = (place, payload)

    def at_hand(self):
        return sorted(self.others + self.headers, key=lambda header: header["seq"])

    def check_times(self):
        time = 0
        for header in self.at_hand():
            if header["time"] <= time:
                raise Refused(header["place"], "the record is not later than the one before it")
            time = header["time"]

    def check_payloads(self):
        before, rows = 0, {}
        for at, seq, (payload_at, payload) in self.payload_rows:
            if seq <= before or not self.first <= seq <= self.last:
                raise Refused(Place("payloads", at, seq), "it is not in the range, or not in order")
            header = self.headers[seq - self.first]
            self.keep_payload(header, Place("payloads", payload_at, seq), payload)
            before, rows[seq] = seq, at
        regions = {}
        # Of a range that does not begin the log, an enrolment may be kept back: no node's region is known then.
        for header in self.headers if self.first == 1 else ():
            if fields := first_schema(header, self.payload(header), "node_enrolled"):
                regions.setdefault(fields["node"]["name"], set()).add(fields["node"]["region"])
        for header in self.headers:
            seq = header["seq"]
            if touches(self.scope, regions, header) != (seq in rows):
                place = Place("payloads", rows.get(seq, self.report_at), seq)
                raise Refused(place, "its payload is here though it does not touch the scope, or the other way round")
        self.in_scope = [header for header in self.headers if header["seq"] in rows]

    def payload(self, header):
        return self.payloads.get(header["seq"], (None, None))[1]

    def walk(self):
        leaves, hashes = self.at_hand(), list(self.hashes)
        leaves.reverse()
        hashes.reverse()
        walk, chain = Walk(), bytes(32)
        for checkpoint, (at, _) in zip(self.checkpoints, self.notes):
            while walk.position < checkpoint.size:
                if leaves and leaves[-1]["seq"] == walk.position + 1:
                    leaf = leaves.pop()["leaf"]
                    walk.leaf(leaf)
                    chain = chain and sha256(b"\x02", chain, leaf)
                    continue
                end = min(checkpoint.size, leaves[-1]["seq"] - 1) if leaves else checkpoint.size
                if not hashes:
                    place = Place("hashes", self.hashes_end)
                    raise Refused(place, f"a hash is missing, for the tree from leaf {walk.position} on")
                walk.add(walk.level_towards(end), hashes.pop()[1])
                chain = None
            if walk.root() != checkpoint.root:
                why = f"leaves and hashes do not give the root of {checkpoint.size} records: one is not of this log"
                raise Refused(Place("checkpoints", at), why)
            if chain and shown_digest(chain) != checkpoint.chain:
                raise Refused(Place("checkpoints", at), "the leaves do not give its chain")
        if leaves:
            raise Refused(leaves[-1]["place"], "the record lies beyond the last checkpoint")
        if hashes:
            raise Refused(Place("hashes", hashes[-1][0]), "more hashes are here than the tree needs")

    def check_signatures(self, root, witnesses):
        trust = Trust(root, self.fleet)
        for header in sorted(self.others + self.in_scope, key=lambda it: it["seq"]):
            if header["kind"] in TRUSTED_KINDS:
                place, payload = self.payloads[header["seq"]]
                guarded(place, lambda: trust.learn(header, read_event(header, payload)))
        if not trust.founded:
            raise Refused(Place("keys", 0), "no record fleet_created is here: nothing says which root key the fleet has")
        seen = []
        for checkpoint, (at, _) in zip(self.checkpoints, self.notes):
            time = max((it["time"] for it in self.at_hand() if it["seq"] <= checkpoint.size), default=0)
            seen.append((checkpoint, *guarded(Place("checkpoints", at), trust.check, checkpoint, time, witnesses)))
        return seen

    def check_report(self):
        text_of_it = self.write_report().encode()
        if text_of_it != self.report:
            pairs = zip(text_of_it, self.report)
            same = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(text_of_it), len(self.report)))
            raise Refused(Place("report", self.report_at + same), "it is not the report that the content gives")
        if sha256(self.data[: self.checksum_at]) != self.data[self.checksum_at :]:
            raise Refused(Place("checksum", self.checksum_at), "the checksum is wrong, and all before it right")

    def write_report(self):
        lines = [f"Evidence pack of fleet {shown(self.fleet)}", f"scope {shown(self.scope_text)}"]
        lines.append(
            f"records {self.first} to {self.last}, asked for from {shown(self.since)} to {shown(self.until)}"
        )
        lines.append(f"times {moment(self.headers[0]['time'])} to {moment(self.headers[-1]['time'])}")
        lines.append(
            f"{len(self.headers)} records in the range, {len(self.in_scope)} of them with payload; "
            f"{len(self.others)} outside it"
        )
        checkpoints = [
            f"{it.size} records, root {shown_digest(it.root)}, state {it.state}, chain {it.chain}"
            for it in self.checkpoints
        ]
        digests, releases, records = [], [], []
        for header in self.in_scope:
            seq, time = header["seq"], moment(header["time"])
            if fields := first_schema(header, self.payload(header), "state_digest_recorded"):
                digests.append(f"{seq} {fields['digest']}")
            if fields := first_schema(header, self.payload(header), "target_changed"):
                what = fields["revision"]["release"] if fields["revision"] else "removed"
                releases.append(f"{seq} {time} {fields['app_env']} {what} {because(header)}")
            if fields := first_schema(header, self.payload(header), "pins_changed"):
                for place, pin in fields["pins"]:
                    what = in_words(pin, lambda revision: revision["release"])
                    releases.append(f"{seq} {time} {fields['app_env']},{place} {what} {because(header)}")
            scopes = " & ".join(map(shown, header["scopes"])) or "-"
            records.append(f"{seq} {time} {shown(header['kind'])} {scopes} {because(header)}")
        for heading, rows in (
            ("Checkpoints", checkpoints),
            ("State digests recorded", digests),
            ("Releases in force", releases),
            ("Records that touch the scope", records),
        ):
            lines += ["", heading, *(rows or ["none"])]
        return "\n".join(lines) + "\n"


# --- Whole logs --------------------------------------------------------------------------------


def read_log(data):
    """Leaf, payload and, if it is kept, chain of every record."""
    written = read_text(data)
    if written.lstrip().startswith("{"):
        yield from read_pages(written)
        return
    for line in written.split():
        reader = Reader(read_hex(line))
        record = (reader.blob(), reader.blob(), reader.take(32))
        reader.end()
        yield record


def read_pages(written):
    """Leaf and payload of every record in pages of /v1/records, one after the other."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(written) and (at := at + len(written[at:]) - len(written[at:].lstrip())) < len(written):
        try:
            page, at = decoder.raw_decode(written, at)
            records = [(read_base64(it["leaf"]), read_base64(it["payload"]), None) for it in page["records"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Malformed(f"the page here is no answer of /v1/records: {error!r}") from None
        yield from records


class Log:
    def __init__(self, data, root, checkpoints, witnesses):
        self.headers, self.payloads, self.seen = [], {}, []
        trust, walk, chain, time = Trust(root, None), Walk(), bytes(32), 0
        waiting = sorted(checkpoints, key=lambda it: it.size)
        records = iter(read_log(data))
        while True:
            seq = len(self.headers) + 1
            place = f"record {seq}"
            record = guarded(place, next, records, None)
            if record is None:
                break
            leaf, payload, kept = record
            header = guarded(place, read_leaf, leaf)
            if header["seq"] != seq or header["time"] <= time:
                raise Refused(place, f"record {header['seq']} stands here, or it is not later than the one before")
            if sha256(payload) != header["payload"]:
                raise Refused(place, "the payload is not the one its header names")
            chain = sha256(b"\x02", chain, leaf)
            if kept not in (None, chain):
                raise Refused(place, "the chain is broken")
            if header["kind"] in TRUSTED_KINDS:
                guarded(place, lambda: trust.learn(header, read_event(header, payload)))
            walk.leaf(leaf)
            time = header["time"]
            self.headers.append(header)
            self.payloads[seq] = payload
            while waiting and waiting[0].size == seq:
                checkpoint = waiting.pop(0)
                if (checkpoint.root, checkpoint.chain) != (walk.root(), shown_digest(chain)):
                    raise Refused(f"checkpoint of {seq} records", "this log has another root or chain")
                where = f"checkpoint of {seq} records"
                self.seen.append((checkpoint, *guarded(where, trust.check, checkpoint, time, witnesses)))
        if waiting:
            raise Refused(f"checkpoint of {waiting[0].size} records", f"the log ends at record {len(self.headers)}")
        if not trust.founded:
            raise Refused("the log", "no fleet was created in it")
        self.fleet, self.last, self.in_scope = trust.fleet, len(self.headers), self.headers
        self.root, self.chain = shown_digest(walk.root()), shown_digest(chain)

    def payload(self, header):
        return self.payloads[header["seq"]]


# --- What came of it -------------------------------------------------------------------------------


def events_of(source):
    """Header and fields of whatever has a payload and is understood; and the headers of what is not."""
    events, unknown = [], []
    for header in source.in_scope:
        try:
            events.append((header, read_event(header, source.payload(header))))
        except Malformed:
            unknown.append(header)
    return events, unknown


def history_of(events, app_env):
    """The chain of releases in force of an app in an environment, and what places are pinned to, as lines."""
    numbers, started, finished = {}, {}, {}
    for header, fields in events:
        place = f"record {header['seq']}"
        if header["kind"] == "release_created":
            if digest_of_json(fields["release"]) != fields["digest"]:
                raise Refused(place, "the release's content does not have the digest it is known by")
            numbers[fields["release"]["app"], fields["digest"]] = fields["number"]
        elif header["kind"] == "config_changed" and digest_of_json(fields["variables"]) != fields["digest"]:
            raise Refused(place, "the config bundle's content does not have the digest it is known by")
        elif header["kind"] == "deployment_started" and fields["app_env"] == app_env:
            started[header["decision"]] = (header["seq"], fields)
        elif header["kind"] == "deployment_finished":
            finished[fields["deployment"]] = (header["seq"], fields["outcome"])

    def name(revision):
        if revision is None:
            return "removed"
        number = numbers.get((app_env.partition("@")[0], revision["release"]))
        return (f"v{number} " if number else "") + revision["release"]

    lines, before = [], None
    for header, fields in events:
        if header["kind"] not in ("target_changed", "pins_changed") or fields["app_env"] != app_env:
            continue
        deployment, start = started.get(header["decision"], (None, None))
        how = ""
        if start:
            seq, outcome = finished.get(deployment, (None, None))
            ended = outcome if isinstance(outcome, str) else "".join(outcome or ["not ended in what is here"])
            how = f" ({start['kind']}: {ended}{f' at {seq}' if seq else ''})"
        when, why = f"{header['seq']} {moment(header['time'])}", because(header) + how
        if header["kind"] == "pins_changed":
            lines += [f"{when} {place}: {in_words(pin, name)} {why}" for place, pin in fields["pins"]]
            continue
        if start and before is not None and start["from"] != before["revision"]:
            raise Refused(f"record {deployment}", "the deployment does not start from the release in force")
        lines.append(f"{when} {name(fields['revision'])} {why}")
        before = fields
    return lines or ["none"]


def covers(scope, app_env):
    """Whether a pack of this scope has all payloads about an app in an environment."""
    app, _, environment = app_env.partition("@")
    fixed = {"project": app.split("/")[0], "app": app, "env": environment}
    return all(fixed.get(part) == name for part, name in scope.items())


def outcome(source, seen, arguments):
    events, unknown = events_of(source)
    lines = history_of(events, arguments.history) if arguments.history else []
    for checkpoint, signers, witnesses in seen:
        cosigned = f", cosigned by {', '.join(witnesses)}" if witnesses else ""
        say(f"checkpoint of {checkpoint.size} records: signed by {', '.join(signers)}{cosigned}")
    for header in unknown:
        kind = f"{header['kind']}, schema {header['schema']}"
        say(f"not decoded: record {header['seq']} ({shown(kind)}); it is proved all the same")
    if arguments.history:
        say(f"releases of {arguments.history} in force:", *lines)
    upto = max((checkpoint.size for checkpoint, _, witnesses in seen if witnesses), default=0)
    if upto >= source.last:
        say("VERIFIED")
        return 0
    until = f" after record {upto}" if upto else ""
    say(f"unwitnessed: a forked log is possible{until}")
    return 7


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("pack", nargs="?", metavar="PACK")
    parser.add_argument("--log", metavar="FILE")
    parser.add_argument("--key", metavar="K")
    parser.add_argument("--witness", metavar="VKEYS", action="append", default=[])
    parser.add_argument("--checkpoint", metavar="NOTE", action="append", default=[])
    parser.add_argument("--history", metavar="PROJECT/APP@ENV")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    if (arguments.pack is None) == (arguments.log is None):
        parser.error("give a PACK, or --log FILE")
    if arguments.key is not None and not re.fullmatch(r"[0-9a-f]{64}", arguments.key):
        parser.error("--key is 64 lowercase hex digits")
    try:
        witnesses = [Key.read(key) for keys in arguments.witness for key in keys.split(",")]
    except Malformed as error:
        parser.error(f"--witness: {error}")
    if arguments.log is None:
        if arguments.key is None:
            parser.error("a pack is verified with the fleet's root key: --key K")
        with open(arguments.pack, "rb") as file:
            pack = Pack(file.read())
        seen = pack.check_signatures(arguments.key, witnesses)
        pack.check_report()
        if arguments.history and not covers(pack.scope, arguments.history):
            parser.error(plain(f"the pack is about {pack.scope_text}, which does not hold all of {arguments.history}"))
        if arguments.report:
            say(pack.report.decode())
        say(f"fleet {pack.fleet}, scope {pack.scope_text}, records {pack.first} to {pack.last}")
        return outcome(pack, seen, arguments)
    checkpoints = []
    for path in arguments.checkpoint:
        with open(path, "rb") as file:
            checkpoints.append(guarded(path, Checkpoint, file.read()))
    with open(arguments.log, "rb") as file:
        log = Log(file.read(), arguments.key, checkpoints, witnesses)
    say(f"fleet {log.fleet}, records 1 to {log.last}, root {log.root}, chain {log.chain}")
    if arguments.key is None:
        say("no --key was given: the root key is the one the log itself names")
    return outcome(log, log.seen, arguments)


if __name__ == "__main__":
    # Whoever reads the output may go away, such as head: then this ends as other programs do.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        sys.exit(main())
    except Refused as error:
        sys.exit(plain(f"refused: {error}"))
    except OSError as error:
        print(plain(f"cannot read it: {error}"), file=sys.stderr)
        sys.exit(2)
