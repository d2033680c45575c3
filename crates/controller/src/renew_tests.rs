#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;
use crate::found::{Founding, Place, found};
use crate::limits::CERTIFICATE_LIFE;
use stele_bus::Auth;
use stele_bus::join::NatsAccess;

const DAY: u64 = 86_400_000_000;

/// A founded fleet of one controller, somewhere.
fn fleet(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let place =
        Place { id: 1, api: "10.0.0.1:7400".parse().unwrap(), peer: "10.0.0.1:7500".parse().unwrap() };
    let founding = Founding {
        fleet: name.parse().unwrap(),
        controllers: vec![place],
        nats: NatsAccess { urls: vec!["nats://127.0.0.1:4222".to_owned()], auth: Auth::None, tls_root: None },
        admin: "admin".parse().unwrap(),
    };
    found(folder.path(), &founding).unwrap();
    folder
}

fn config_of(fleet: &tempfile::TempDir) -> PathBuf {
    fleet.path().join("controller-1/controller.json")
}

/// Every file below a folder, with who may read it.
fn files(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.insert(path.clone(), (path.metadata().unwrap().mode() & 0o777, fs::read(&path).unwrap()));
        }
    }
    files
}

/// What a start of the controller looks at.
fn starts(config: &Path) -> Certificate {
    let config = Config::read(config).unwrap();
    check_signing_key(&config).unwrap();
    let now = crate::handle::now();
    config.certificate.check(&config.root, &config.fleet, Some(now)).unwrap();
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let tls =
        Tls::from_pem(&read(&config.tls.authority), &read(&config.tls.certificate), &read(&config.tls.key));
    tls.unwrap().check_at(config.id, Duration::from_micros(now.0)).unwrap();
    config.certificate
}

/// What was said when nothing was done.
fn refused(config: &Path, folder: &Path) -> String {
    let parent = config.parent().unwrap();
    let before = files(parent);
    let error = Renewal::examine(config, folder).err().unwrap();
    assert_eq!(files(parent), before, "{error:#}");
    format!("{error:#}")
}

#[test]
fn a_renewed_controller_is_the_same_one_for_longer() {
    let fleet = fleet("demo");
    let path = config_of(&fleet);
    // As an operator has it: with settings of theirs, in another order, for a group to read.
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    json["registries"] = "registries.json".into();
    json["peer_listen"] = "0.0.0.0:7500".into();
    fs::write(&path, json.to_string()).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(path.with_file_name("tls.key"), Permissions::from_mode(0o640)).unwrap();
    let (present, before) = (Config::read(&path).unwrap(), files(path.parent().unwrap()));

    let renewal = Renewal::examine(&path, fleet.path()).unwrap();
    assert_eq!(files(path.parent().unwrap()), before, "looking changes nothing");
    let told = renewal.found().clone();
    let found = renewal.renew().unwrap();
    assert_eq!(found, told);
    let certificate = starts(&path);
    let longer =
        CertificateBody { not_after: found.signatures.renewed_until, ..present.certificate.body.clone() };
    assert_eq!(certificate.body, longer);
    assert!(certificate.body.not_after > present.certificate.body.not_after);
    assert_eq!(certificate.body.not_after.0 - found.clock.0, CERTIFICATE_LIFE.as_micros() as u64);
    assert_eq!(found.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);

    // All else is as it was, also what is not used any more.
    let after = files(path.parent().unwrap());
    for (file, kept) in before.iter().filter(|(file, _)| **file != path) {
        assert_eq!(after.get(file), Some(kept), "{}", file.display());
    }
    let added: Vec<_> = after.iter().filter(|(file, _)| !before.contains_key(*file)).collect();
    assert_eq!(added.iter().map(|(file, _)| *file).collect::<Vec<_>>(), [&found.key, &found.certificate]);
    assert_eq!((added[0].1.0, added[1].1.0), (0o640, 0o600), "they are as readable as those before");
    assert_eq!(after[&path].0, 0o640);
    assert_ne!(added[0].1.1, before[&path.with_file_name("tls.key")].1, "the key is a new one");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let name = format!("tls-{}.pem", day(found.clock));
    assert_eq!(json["tls"]["certificate"], name.as_str(), "paths stay as they were written");
    json["tls"] = serde_json::json!({
        "authority": "authority.pem", "certificate": "tls.pem", "key": "tls.key"
    });
    json["certificate"] = serde_json::to_value(&present.certificate).unwrap();
    let same = Config::as_written(&path, &json.to_string()).unwrap().in_folder(path.parent().unwrap());
    assert_eq!(format!("{same:?}"), format!("{present:?}"));
}

#[test]
fn an_interrupted_renewal_leaves_a_controller_that_starts() {
    let fleet = fleet("demo");
    let path = config_of(&fleet);
    let before = starts(&path);
    // It ends between the files and the configuration.
    let first = Renewal::examine(&path, fleet.path()).unwrap();
    first.write_files().unwrap();
    assert_eq!(starts(&path), before);
    let (first_files, half) = ([&first.found.certificate, &first.found.key], files(path.parent().unwrap()));

    // Or in the middle of the configuration.
    let part = path.with_file_name("controller.json.part");
    fs::write(&part, "{").unwrap();
    assert_eq!(starts(&path), before);
    let second = Renewal::examine(&path, fleet.path()).unwrap();
    let found = second.renew().unwrap();
    assert_ne!(starts(&path), before);
    assert!(!part.exists());
    for file in first_files {
        assert_eq!(half[file].1, fs::read(file).unwrap(), "no key is written over");
        assert!(![&found.certificate, &found.key].contains(&file));
    }
    // What the first one had in mind is not what is there any more.
    let changed = first.renew().unwrap_err().to_string();
    assert!(changed.contains("was changed meanwhile"), "{changed}");
    assert_eq!(Config::read(&path).unwrap().tls.key, found.key);
}

#[test]
fn a_renewal_that_cannot_be_written_leaves_nothing() {
    let fleet = fleet("demo");
    let path = config_of(&fleet);
    let before = files(path.parent().unwrap());
    // Somebody takes a name while it is thought about.
    let renewal = Renewal::examine(&path, fleet.path()).unwrap();
    let taken = renewal.found.certificate.clone();
    fs::write(&taken, "mine").unwrap();
    let error = format!("{:#}", renewal.renew().unwrap_err());
    assert!(error.contains("cannot write") && error.contains("File exists"), "{error}");
    assert_eq!(fs::read(&taken).unwrap(), b"mine");
    fs::remove_file(&taken).unwrap();
    assert_eq!(files(path.parent().unwrap()), before);
    // The configuration cannot be replaced.
    let renewal = Renewal::examine(&path, fleet.path()).unwrap();
    let part = path.with_file_name("controller.json.part");
    fs::create_dir(&part).unwrap();
    renewal.renew().unwrap_err();
    fs::remove_dir(&part).unwrap();
    assert_eq!(files(path.parent().unwrap()), before);
}

#[test]
fn only_the_fleets_own_root_renews() {
    let (fleet, other) = (fleet("demo"), self::fleet("demo"));
    let path = config_of(&fleet);
    let root = fleet.path().join("root");
    let copy = |from: &Path, name: &str| fs::copy(from.join("root").join(name), root.join(name)).unwrap();

    let empty = tempfile::tempdir().unwrap();
    let missing = refused(&path, empty.path());
    assert!(missing.contains("--folder is the folder") && missing.contains("root.key"), "{missing}");
    let wrong = refused(&path, other.path());
    assert!(wrong.contains("is not the root key of this controller's fleet, demo"), "{wrong}");

    // Another fleet's authority beside the right root key, then of one that has the same name.
    let kept: Vec<_> =
        ["authority.pem", "authority.key"].map(|name| fs::read(root.join(name)).unwrap()).into();
    for name in ["authority.pem", "authority.key"] {
        copy(other.path(), name);
    }
    let authority = refused(&path, fleet.path());
    assert!(authority.contains("is not the one that this controller trusts"), "{authority}");
    // A controller may trust several.
    let trusted = path.with_file_name("authority.pem");
    let both = [&kept[0][..], &fs::read(root.join("authority.pem")).unwrap()].concat();
    fs::write(&trusted, both).unwrap();
    Renewal::examine(&path, fleet.path()).unwrap();
    fs::write(&trusted, &kept[0]).unwrap();
    let prod = self::fleet("prod");
    for name in ["authority.pem", "authority.key"] {
        copy(prod.path(), name);
    }
    let authority = refused(&path, fleet.path());
    assert!(authority.contains("cannot issue certificates for fleet demo"), "{authority}");
    fs::remove_file(root.join("authority.key")).unwrap();
    let missing = refused(&path, fleet.path());
    assert!(missing.contains("authority.key: No such file"), "{missing}");
    for (name, text) in ["authority.pem", "authority.key"].iter().zip(kept) {
        fs::write(root.join(name), text).unwrap();
    }

    let key = fs::read_to_string(root.join("root.key")).unwrap();
    fs::write(root.join("root.key"), &key[1..]).unwrap();
    let short = refused(&path, fleet.path());
    assert!(short.contains("root.key does not hold 64 hex digits"), "{short}");
    fs::write(root.join("root.key"), key).unwrap();
    Renewal::examine(&path, fleet.path()).unwrap();
}

#[test]
fn what_is_wrong_with_a_controller_is_said() {
    let fleet = fleet("demo");
    let path = config_of(&fleet);
    let own = path.parent().unwrap();
    let missing = refused(&own.join("other.json"), fleet.path());
    assert!(missing.contains("cannot read") && missing.contains("other.json"), "{missing}");

    for name in ["authority.pem", "tls.pem", "tls.key", "signing.key"] {
        let kept = fs::read(own.join(name)).unwrap();
        fs::remove_file(own.join(name)).unwrap();
        let missing = refused(&path, fleet.path());
        assert!(missing.contains(&format!("{name}: No such file")), "{missing}");
        fs::write(own.join(name), [0xff; 64]).unwrap();
        let unreadable = refused(&path, fleet.path());
        assert!(unreadable.contains(name), "{unreadable}");
        fs::write(own.join(name), kept).unwrap();
    }
    let signing = fs::read(own.join("signing.key")).unwrap();
    fs::write(own.join("signing.key"), "11".repeat(32)).unwrap();
    let other = refused(&path, fleet.path());
    assert!(other.contains("is for another key than"), "{other}");
    fs::write(own.join("signing.key"), signing).unwrap();

    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    let half = refused(&path, fleet.path());
    assert!(half.contains("is not a controller's configuration"), "{half}");
    fs::write(&path, text.replace("\"id\": 1", "\"id\": 2")).unwrap();
    let confused = refused(&path, fleet.path());
    assert!(confused.contains("the certificate is of controller 1, and this is controller 2"), "{confused}");
    fs::write(&path, text).unwrap();

    // By a clock that was set back, its signatures are vouched for no less long.
    let now = crate::handle::now();
    let early = Renewal::examine_at(&path, fleet.path(), Time(now.0 - DAY / 2)).unwrap();
    assert_eq!(early.found().signatures.renewed_until, early.found().signatures.until);
    // One that has ended is renewed all the same: it is then that it is needed.
    let own = Config::read(&path).unwrap();
    let body = own.certificate.body.clone();
    let ended = CertificateBody {
        not_before: Time(body.not_before.0 - 2 * DAY),
        not_after: Time(body.not_before.0 - DAY),
        ..body
    };
    let ended = Certificate::issue(&root_key(fleet.path()).unwrap(), ended);
    assert!(ended.check(&own.root, &own.fleet, Some(now)).is_err());
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    json["certificate"] = serde_json::to_value(&ended).unwrap();
    fs::write(&path, json.to_string()).unwrap();
    Renewal::examine(&path, fleet.path()).unwrap().renew().unwrap();
    starts(&path);
}

#[test]
fn a_link_to_a_configuration_stays_one() {
    let fleet = fleet("demo");
    let path = config_of(&fleet);
    let elsewhere = fleet.path().join("kept.json");
    fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    let before = starts(&path);
    Renewal::examine(&path, fleet.path()).unwrap().renew().unwrap();
    assert!(path.is_symlink());
    assert_ne!(starts(&path), before);
}

#[test]
fn a_controller_is_certified_for_where_it_is_reached() {
    let fleet = fleet("demo");
    let mut own = Config::read(&config_of(&fleet)).unwrap();
    let of = |text: &[&str]| text.iter().map(|it| it.parse::<IpAddr>().unwrap()).collect::<Vec<_>>();
    assert_eq!(addresses(&own), of(&["10.0.0.1"]));
    own.api_listen = "0.0.0.0:7400".parse().unwrap();
    own.peer_listen = "[::]:7500".parse().unwrap();
    own.api_url = "https://192.0.2.1:7400/".to_owned();
    own.peer_address = "[2001:db8::1]:7500".to_owned();
    assert_eq!(addresses(&own), of(&["2001:db8::1", "192.0.2.1"]));
    own.api_url = "https://fleet.example:7400".to_owned();
    own.peer_address = "controller-1.example:7500".to_owned();
    assert_eq!(addresses(&own), of(&[]));
    for (place, found) in [("https://[::1]", Some("::1")), ("10.0.0.1", Some("10.0.0.1")), ("", None)] {
        assert_eq!(host(place), found.map(|it| it.parse().unwrap()), "{place}");
    }
}
