"""Reads and checks a Stele log. Plain Python 3, written from docs/log-format.md alone.

    decoder.py records FILE            records, one per line as hex -> JSON
    decoder.py entry FILE              one entry as hex -> JSON
    decoder.py snapshot FILE           one snapshot's frame as hex -> JSON
    decoder.py digests FILE SCOPE ...  chain and target digests of a log -> JSON

It stops at the first byte that is not as specified.
"""

import hashlib
import json
import sys

EMPTY = bytes(32)


class Refused(Exception):
    """The bytes are not a log of this format."""


def need(condition, why):
    if not condition:
        raise Refused(why)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def text_of(digest):
    return "sha256:" + digest.hex()


# --- Hand-laid fields ---------------------------------------------------------


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        need(self.at + count <= len(self.data), f"the bytes end at {len(self.data)}")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def blob(self):
        return self.take(self.number(4))

    def text(self):
        return self.blob().decode("utf-8")

    def option(self, read):
        tag = self.number(1)
        need(tag in (0, 1), f"{tag} is neither absent nor present")
        return read() if tag else None

    def end(self):
        need(self.at == len(self.data), "bytes follow the end")


def read_value(reader):
    tag = reader.number(1)
    if tag == 1:
        return {"plain": reader.text()}
    need(tag == 2, f"{tag} is no kind of value")
    subject, key_version = reader.text(), reader.number(4)
    nonce, ciphertext = reader.text(), reader.text()
    return {
        "sealed": {
            "subject": subject,
            "key_version": key_version,
            "nonce": nonce,
            "ciphertext": ciphertext,
        }
    }


def read_leaf(leaf):
    reader = Reader(leaf)
    need(reader.number(1) == 1, "an unknown leaf format")
    header = {
        "seq": reader.number(8),
        "time": reader.number(8),
        "decision": {"first": reader.number(8), "count": reader.number(4)},
        "principal": reader.text(),
        "cause": reader.option(lambda: reader.number(8)),
        "trace": reader.option(reader.text),
        "idempotency": reader.option(
            lambda: {"key": reader.text(), "request": text_of(reader.take(32))}
        ),
        "kind": reader.text(),
        "schema": reader.number(2),
        "codec": reader.number(1),
        "scopes": [reader.text() for _ in range(reader.number(2))],
        "reason": reader.option(lambda: read_value(reader)),
        "links": {
            "ticket": reader.option(reader.text),
            "commit": reader.option(reader.text),
            "ci_run": reader.option(reader.text),
            "on_behalf_of": reader.option(reader.text),
        },
        "payload": text_of(reader.take(32)),
    }
    reader.end()
    return header


# --- Payloads -----------------------------------------------------------------
# A type is a function from a reader to the value as JSON has it.


def varint(reader):
    first = reader.take(1)[0]
    if first < 251:
        return first
    need(first <= 253, f"{first} begins no number")
    return int.from_bytes(reader.take({251: 2, 252: 4, 253: 8}[first]), "little")


def integer(reader):
    coded = varint(reader)
    return coded // 2 if coded % 2 == 0 else -(coded // 2) - 1


def boolean(reader):
    byte = reader.take(1)[0]
    need(byte in (0, 1), f"{byte} is neither false nor true")
    return byte == 1


def text(reader):
    return reader.take(varint(reader)).decode("utf-8")


def digest(reader):
    return text_of(reader.take(32))


def option(of):
    return lambda reader: reader.option(lambda: of(reader))


def array(of):
    return lambda reader: [of(reader) for _ in range(varint(reader))]


def mapping(of):
    def read(reader):
        pairs = [(text(reader), of(reader)) for _ in range(varint(reader))]
        need(pairs == sorted(pairs, key=lambda pair: pair[0].encode()), "a map is not in order")
        need(len(pairs) == len(dict(pairs)), "a map has one key twice")
        return dict(pairs)

    return read


def pair(*of):
    return lambda reader: [one(reader) for one in of]


def struct(**fields):
    return lambda reader: {name: of(reader) for name, of in fields.items()}


def enum(*variants):
    """A variant is a name, or a name with what follows it."""

    def read(reader):
        number = varint(reader)
        need(number < len(variants), f"there is no variant {number}")
        variant = variants[number]
        return variant if isinstance(variant, str) else {variant[0]: variant[1](reader)}

    return read


labels = mapping(text)
sealed = struct(subject=text, key_version=varint, nonce=text, ciphertext=text)
value = enum(("plain", text), ("sealed", sealed))
certificate = struct(
    body=struct(fleet=text, controller=varint, key=text, not_before=varint, not_after=varint),
    signature=text,
)
token = struct(
    principal=text,
    hash=digest,
    role=enum("admin", "deployer", "auditor"),
    holder=enum("person", "service"),
    expires=varint,
)
join_token = struct(hash=digest, node=option(text), region=text, labels=labels, expires=varint)
enrolled_node = struct(
    name=text, region=text, labels=labels, key=text, sealing_key=text, address=option(text)
)
contacts = struct(owner=option(text), on_call=option(text), runbook=option(text))
env_value = enum(("value", value), ("secret", text))
check = enum(
    ("http", struct(port=varint, path=text)),
    ("tcp", struct(port=varint)),
    ("exec", struct(command=array(text))),
)
container = struct(
    image=struct(repository=text, digest=digest),
    entrypoint=option(array(text)),
    command=array(text),
    env=mapping(env_value),
    files=mapping(struct(content=env_value, mode=varint)),
    ports=array(struct(container=varint, host=option(varint), protocol=enum("tcp", "udp"))),
    volumes=array(
        struct(
            source=enum(("named", text), ("host", text), "memory"), path=text, read_only=boolean
        )
    ),
    health=option(
        struct(
            check=check,
            interval_ms=varint,
            timeout_ms=varint,
            retries=varint,
            start_period_ms=varint,
        )
    ),
    resources=struct(cpu_millis=option(varint), memory_bytes=option(varint), pids=option(varint)),
    restart=enum("always", "on_failure", "never"),
    stop=struct(signal=text, grace_seconds=varint),
    labels=labels,
    log=option(struct(driver=text, options=labels)),
    user=option(text),
    workdir=option(text),
    docker=option(text),
)
service = struct(
    container=container,
    placement=enum(
        ("replicas", struct(count=varint, nodes=text)), ("every", struct(nodes=text))
    ),
    update=struct(
        max_unavailable=varint, order=enum("start_first", "stop_first"), deadline_ms=varint
    ),
)
release = struct(app=text, services=mapping(service))
revision = struct(release=digest, config=option(digest), secrets=mapping(varint))
outcome = enum(
    "succeeded",
    (
        "failed",
        struct(
            instance=text,
            node=text,
            reason=text,
            exit_code=option(integer),
            log_tail=array(text),
        ),
    ),
    ("unplaced", struct(slot=text, reason=text)),
    ("superseded", struct(by=varint)),
)
assignment_change = enum(
    (
        "assign",
        struct(node=text, instance=text, revision=revision, spec=digest, replaces=option(text)),
    ),
    ("withdraw", struct(node=text, instance=text)),
)
instance_report = struct(
    id=text,
    phase=enum("pending", "pulling", "starting", "healthy", "unhealthy", "failed", "completed"),
    spec_digest=option(digest),
    container=option(text),
    restarts=varint,
    reason=option(text),
    exit_code=option(integer),
    log_tail=array(text),
)
reported_change = struct(
    node=text,
    boot=varint,
    number=varint,
    applied=struct(epoch=varint, seq=varint, digest=digest),
    changed=array(instance_report),
    gone=array(text),
)
target_digest = struct(intent=digest, placement=digest)
pin = enum(("revision", revision), "absent")
started = {"from": option(revision), "to": option(revision), "now": boolean}
kinds = (
    ("term_started", struct(term=varint, controller=varint)),
    ("fleet_created", struct(fleet=text, root=text, epoch=varint)),
    ("controller_certified", struct(certificate=certificate, api=text, peer=text)),
    ("membership_changed", struct(voters=array(varint), learners=array(varint))),
    ("controller_removed", struct(controller=varint)),
    ("state_digest_recorded", struct(digest=digest)),
    ("token_created", struct(token=token)),
    ("token_revoked", struct(principal=text)),
    ("join_token_created", struct(token=join_token)),
    ("node_enrolled", struct(node=enrolled_node, join_token=digest)),
    ("node_labelled", struct(node=text, labels=labels)),
    ("node_removed", struct(node=text)),
    ("nodes_lost", struct(nodes=array(text))),
    ("nodes_returned", struct(nodes=array(text))),
    ("project_created", struct(project=text)),
    ("environment_created", struct(environment=text)),
    ("app_declared", struct(app=text, contacts=contacts)),
    ("release_created", struct(number=varint, digest=digest, release=release, images=labels)),
    (
        "config_changed",
        struct(app_env=text, version=varint, digest=digest, variables=mapping(value)),
    ),
    ("secret_changed", struct(app_env=text, name=text, version=varint, value=sealed)),
    (
        "deployment_started",
        struct(
            app_env=text,
            kind=enum("deploy", "configure", "rollback", "remove", "undo"),
            **started,
            barrier=option(text),
        ),
    ),
    ("deployment_finished", struct(deployment=varint, app_env=text, outcome=outcome)),
    ("target_changed", struct(app_env=text, revision=option(revision))),
    ("placement_changed", struct(app_env=text, slots=array(pair(text, option(text))))),
    ("assignments_changed", struct(app_env=text, changes=array(assignment_change))),
    ("nodes_reported", struct(reports=array(reported_change))),
    (
        "rolled_back",
        struct(
            scope=text,
            **{"except": array(text)},
            point=text,
            seq=varint,
            before=target_digest,
            after=target_digest,
            deviations=array(struct(what=text, why=text)),
        ),
    ),
    ("latched", struct(app_env=text, release=digest)),
    ("unlatched", struct(app_env=text)),
    ("refused", struct(action=text, scope=text, why=text)),
    ("pins_changed", struct(app_env=text, pins=array(pair(text, option(pin))))),
    ("point_marked", struct(scope=text, seq=varint, bad=boolean)),
    ("reviewed", struct(rollback=varint)),
    ("subject_erased", struct(subject=text, through=varint)),
    (
        "undone",
        struct(
            what=text,
            decisions=array(varint),
            apps=array(pair(text, target_digest, target_digest)),
        ),
    ),
    ("fleet_recovered", struct(epoch=varint, controller=varint, given_up=array(varint))),
    ("node_drained", struct(node=text)),
    ("node_resumed", struct(node=text)),
)
# What schema 1 had where schema 2 is written now.
first_schemas = {
    "deployment_started": struct(
        app_env=text, kind=enum("deploy", "configure", "rollback", "remove"), **started
    ),
    "rolled_back": struct(
        scope=text,
        point=text,
        seq=varint,
        before=target_digest,
        after=target_digest,
        replaced=array(pair(text, text)),
    ),
}
numbers = {kind: number for number, (kind, _) in enumerate(kinds)}
schemas = {(kind, 2 if kind in first_schemas else 1): fields for kind, fields in kinds}
schemas.update({(kind, 1): fields for kind, fields in first_schemas.items()})


def read_record(leaf, payload):
    header = read_leaf(leaf)
    seq, kind = header["seq"], header["kind"]
    need(text_of(sha256(payload)) == header["payload"], f"record {seq}: another payload")
    schema, codec = header["schema"], header["codec"]
    known = (kind, schema) in schemas and codec == 1
    need(known, f"record {seq}: {kind}, schema {schema}, codec {codec} is unknown")
    reader = Reader(payload)
    need(varint(reader) == numbers[kind], f"record {seq}: the header says {kind}")
    fields = schemas[kind, schema](reader)
    reader.end()
    return {"header": header, "event": {kind: fields}}


# --- Files --------------------------------------------------------------------


def records(lines):
    """A whole log, from its first record."""
    chain, seq, time, read = EMPTY, 0, 0, []
    for line in lines:
        reader = Reader(bytes.fromhex(line))
        leaf, payload, kept = reader.blob(), reader.blob(), reader.take(32)
        reader.end()
        record = read_record(leaf, payload)
        header = record["header"]
        need(header["seq"] == seq + 1, f"record {seq + 1} is missing")
        need(header["time"] > time, f"record {seq + 1} is not later than the one before")
        seq, time = header["seq"], header["time"]
        chain = sha256(b"\x02", chain, leaf)
        need(chain == kept, f"record {seq}: the chain is broken")
        read.append({**record, "chain": text_of(chain)})
    return read


def entry(data):
    body, checksum = data[:-8], data[-8:]
    need(sha256(body)[:8] == checksum, "the entry's checksum does not match")
    reader = Reader(body)
    need(reader.take(4) == b"STLE" and reader.number(1) == 1, "not an entry of format 1")
    fleet, term, first, count = reader.text(), reader.number(8), reader.number(8), reader.number(4)
    previous = chain = reader.take(32)
    read = []
    for _ in range(count):
        leaf, payload = reader.blob(), reader.blob()
        chain = sha256(b"\x02", chain, leaf)
        read.append({**read_record(leaf, payload), "chain": text_of(chain)})
    reader.end()
    return {
        "fleet": fleet,
        "term": term,
        "first": first,
        "previous": text_of(previous),
        "records": read,
    }


def snapshot(data):
    reader = Reader(data)
    need(reader.take(4) == b"STSN" and reader.number(1) in (4, 5), "not a snapshot of format 4 or 5")
    chain, checksum = reader.take(32), reader.take(32)
    need(sha256(chain, data[reader.at :]) == checksum, "the snapshot's checksum does not match")
    return {"chain": text_of(chain), "seq": varint(reader), "time": varint(reader)}


# --- Digests ------------------------------------------------------------------


def canonical(tree):
    if isinstance(tree, dict):
        members = sorted(tree.items(), key=lambda member: member[0].encode("utf-16-be"))
        return "{" + ",".join(canonical(k) + ":" + canonical(v) for k, v in members) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(map(canonical, tree)) + "]"
    return json.dumps(tree, ensure_ascii=False)


def of_json(tree):
    return sha256(canonical(tree).encode("utf-8"))


def trie(entries):
    """Of a map from names to digests."""

    def fold(rows, depth):
        if not rows:
            return EMPTY
        if len(rows) == 1:
            return sha256(b"\x00", *rows[0])
        children = [[] for _ in range(16)]
        for row in rows:
            children[int(row[0].hex()[depth], 16)].append(row)
        return sha256(b"\x01", *(fold(child, depth + 1) for child in children))

    return fold([(sha256(name.encode()), digest) for name, digest in entries.items()], 0)


def parse_scope(written):
    fixed = {}
    for part in written.split(","):
        if "/" in part:
            app, _, environment = part.partition("@")
            fixed["app"] = app
            if environment:
                fixed["env"] = environment
        elif part != "fleet":
            kind, _, name = part.partition(":")
            fixed[kind] = name
    return fixed


def app_of(slot):
    return slot.rpartition("/")[0]


class Target:
    """What should be: the fold of the kinds of records that say so, and of where nodes are."""

    def __init__(self, log):
        self.intent, self.pins, self.placement, self.regions = {}, {}, {}, {}
        for record in log:
            [(kind, fields)] = record["event"].items()
            if kind == "target_changed":
                self.intent[fields["app_env"]] = fields["revision"]
            elif kind == "pins_changed":
                pins = self.pins.setdefault(fields["app_env"], {})
                pins.update(map(tuple, fields["pins"]))
            elif kind == "placement_changed":
                self.placement.update((slot, node) for slot, node in fields["slots"])
            elif kind == "node_enrolled":
                self.regions[fields["node"]["name"]] = fields["node"]["region"]
            elif kind == "node_removed":
                self.regions.pop(fields["node"], None)

    def revision_in(self, app_env, places):
        """What the first of these places with a pin says, or the app where none has one."""
        pins = self.pins.get(app_env, {})
        for place in places:
            if (pin := pins.get(place)) is not None:
                return None if pin == "absent" else pin["revision"]
        return self.intent.get(app_env)

    def intent_in(self, app_env, scope, occupied):
        """What an app is in a scope: parts of names, and what they stand for."""
        pins = {place: pin for place, pin in self.pins.get(app_env, {}).items() if pin is not None}
        if "node" in scope:
            node = scope["node"]
            region = self.regions.get(node)
            if scope.get("region", region) != region:
                return
            own = "node:" + node
            revision = self.revision_in(app_env, [own, f"region:{region}"] if region else [own])
            if revision is not None and (occupied or pins.get(own, "absent") != "absent"):
                yield "", revision
            return
        if "region" in scope:
            place = "region:" + scope["region"]
            revision = self.revision_in(app_env, [place])
            if revision is not None and (occupied or place in pins):
                yield "", revision
            regions = {"node:" + node: region for node, region in self.regions.items()}
            pins = {at: pin for at, pin in pins.items() if regions.get(at) == scope["region"]}
        elif self.intent.get(app_env) is not None:
            yield "", self.intent[app_env]
        for place, pin in pins.items():
            yield "#" + place, pin

    def digest(self, written):
        scope = parse_scope(written)
        placed = "region" in scope or "node" in scope

        def covers(app_env):
            app, _, environment = app_env.partition("@")
            mine = {"project": app.split("/")[0], "app": app, "env": environment}
            return all(scope.get(part, mine[part]) == mine[part] for part in mine)

        def on(node):
            region = self.regions.get(node)
            return scope.get("node", node) == node and scope.get("region", region) == region

        def relative(app_env):
            app, _, environment = app_env.partition("@")
            if "app" in scope:
                return "" if "env" in scope else "@" + environment
            name = app.split("/")[1] if "project" in scope else app
            return name if "env" in scope else name + "@" + environment

        slots = {
            slot: node
            for slot, node in self.placement.items()
            if node is not None and covers(app_of(slot)) and on(node)
        }
        occupied = set(map(app_of, slots))
        intent, placement = {}, {}
        for app_env in filter(covers, {*self.intent, *self.pins}):
            for part, what in self.intent_in(app_env, scope, app_env in occupied):
                intent[relative(app_env) + part] = of_json(what)
        counts = {}
        for slot, node in slots.items():
            app_env, _, place = slot.rpartition("/")
            if placed:
                name = f"{relative(app_env)}/{place.rpartition('.')[0]}#{node}"
                counts[name] = counts.get(name, 0) + 1
            else:
                placement[f"{relative(app_env)}/{place}"] = of_json(node)
        placement.update((name, of_json(count)) for name, count in counts.items())
        return {"intent": text_of(trie(intent)), "placement": text_of(trie(placement))}


def digests(lines, scopes):
    log = records(lines)
    target = Target(log)
    last = log[-1]
    return {
        "seq": last["header"]["seq"],
        "chain": last["chain"],
        "targets": {scope: target.digest(scope) for scope in scopes},
    }


def main(what, path, *scopes):
    with open(path, encoding="ascii") as file:
        lines = file.read().split()
    if what == "records":
        return records(lines)
    if what == "entry":
        return entry(bytes.fromhex(lines[0]))
    if what == "snapshot":
        return snapshot(bytes.fromhex(lines[0]))
    if what == "digests":
        return digests(lines, scopes)
    raise Refused(__doc__)


if __name__ == "__main__":
    try:
        json.dump(main(*sys.argv[1:]), sys.stdout)
    except (Refused, UnicodeDecodeError, ValueError) as error:
        sys.exit(f"refused: {error}")
