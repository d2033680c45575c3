//! Words that people and programs write: names, scopes, points in time, selectors, units.

use std::str::FromStr;

use stele_agent::Pruning;
use stele_api::spec::{Bytes, Cpu, Duration, Mode};
use stele_controller::wall_time;
use stele_model::ids::{
    AppEnv, AppId, AppName, EnvironmentName, FleetName, InstanceId, NodeName, Place, PrincipalId,
    ProjectName, RegionName, SecretName, ServiceName, Slot,
};
use stele_model::why::Subject;
use stele_model::{Digest, Point, Scope, Selector};

use super::{keys, shapes};
use crate::mutate::Form;
use crate::nasty;
use crate::target::{Budget, Named, Target, Verdict, holds};

const SAME: &str = "written and read again it is the same";

fn of_texts(texts: &[&str]) -> Vec<Named> {
    texts.iter().enumerate().map(|(at, text)| (format!("{at:02}"), text.as_bytes().to_vec())).collect()
}

pub(super) fn targets() -> Vec<Target> {
    let target = |name, decoder, holds, run, made| Target {
        name,
        decoder,
        holds,
        form: Form::Text,
        budget: Budget { fixed: 1 << 20, per_byte: 200 },
        run,
        mend: None,
        made,
        nasty: nasty::texts,
    };
    vec![
        target("scope", "`Scope`", SAME, scope, || {
            Ok(of_texts(&[
                "fleet",
                "project:shop",
                "env:prod",
                "shop/web",
                "shop/web@prod",
                "region:eu",
                "node:eu-1",
                "app:shop/web@prod, region:eu",
                "project:shop,env:prod,region:eu,node:eu-1",
            ]))
        }),
        target(
            "point",
            "`Point`, `wall_time`",
            "written and read again it is the same; its time is had or refused",
            point,
            || {
                Ok(of_texts(&[
                    "now",
                    "seq:12",
                    "2h ago",
                    "1d 2h30m ago",
                    "v12",
                    "deploy:7",
                    "prev",
                    "prev:3",
                    "last-good",
                    "2026-01-31T12:00:00Z",
                    "2026-01-31T13:00:00.25+01:00[Europe/Paris]",
                ]))
            },
        ),
        target("selector", "`Selector`", SAME, selector, || {
            Ok(of_texts(&[
                "region in (eu, us), disk=ssd, !spot",
                "a!=b",
                "zone notin (a,b)",
                "gpu",
                "a.b/c = d_e",
            ]))
        }),
        target("name", "names and ids of every kind, `Digest`", SAME, name, || {
            let digest = Digest::of(&[b"x"]).to_string();
            Ok(of_texts(&[
                "web",
                "eu-1",
                "shop/web",
                "shop/web@prod",
                "shop/web@prod/web.0",
                "shop/web@prod/web.0-7",
                "region:eu",
                "node:eu-1",
                &digest,
            ]))
        }),
        target("why-subject", "`why::Subject`", SAME, subject, || {
            Ok(of_texts(&[
                "shop/web@prod/web.0-7",
                "shop/web@prod/web.0",
                "shop/web@prod",
                "shop/web@prod,region:eu",
                "node:eu-1",
            ]))
        }),
        target("unit", "`spec::{Duration, Bytes, Cpu, Mode}`, `Pruning`", SAME, unit, || {
            Ok(of_texts(&["500ms", "1h30m", "64MiB", "1.5", "250m", "0644", "24h", "off", "512", "2GB"]))
        }),
    ]
}

fn read<T>(value: Option<T>) -> Verdict {
    value.map_or(Verdict::Refused, |_| Verdict::Read)
}

fn as_text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

fn scope(input: &[u8]) -> Result<Verdict, String> {
    let Some(text) = as_text(input) else { return Ok(Verdict::Refused) };
    let Some(scope) = shapes::text::<Scope>(text)? else { return Ok(Verdict::Refused) };
    shapes::json::<Scope>(format!("{:?}", scope.to_string()).as_bytes())?;
    Ok(Verdict::Read)
}

fn point(input: &[u8]) -> Result<Verdict, String> {
    let Some(text) = as_text(input) else { return Ok(Verdict::Refused) };
    let Some(point) = shapes::text::<Point>(text)? else { return Ok(Verdict::Refused) };
    if let Ok(Some(time)) = wall_time(&point, keys::NOW.0) {
        holds(time <= keys::NOW, || format!("{point} is in the future: {}", time.0))?;
    }
    Ok(Verdict::Read)
}

fn selector(input: &[u8]) -> Result<Verdict, String> {
    let Some(text) = as_text(input) else { return Ok(Verdict::Refused) };
    Ok(read(shapes::text::<Selector>(text)?))
}

fn name(input: &[u8]) -> Result<Verdict, String> {
    let Some(text) = as_text(input) else { return Ok(Verdict::Refused) };
    macro_rules! any {
        ($($type:ty),*) => { [$(shapes::text::<$type>(text)?.is_some()),*] };
    }
    let found = any!(
        AppEnv,
        AppId,
        AppName,
        EnvironmentName,
        FleetName,
        InstanceId,
        NodeName,
        Place,
        PrincipalId,
        ProjectName,
        RegionName,
        SecretName,
        ServiceName,
        Slot,
        Digest
    );
    Ok(if found.contains(&true) { Verdict::Read } else { Verdict::Refused })
}

fn subject(input: &[u8]) -> Result<Verdict, String> {
    let Some(text) = as_text(input) else { return Ok(Verdict::Refused) };
    let Ok(subject) = Subject::from_str(text) else { return Ok(Verdict::Refused) };
    let written = subject.to_string();
    holds(Subject::from_str(&written).as_ref() == Ok(&subject), || {
        format!("{text:?} is written {written:?}")
    })?;
    Ok(Verdict::Read)
}

fn unit(input: &[u8]) -> Result<Verdict, String> {
    let Some(text) = as_text(input) else { return Ok(Verdict::Refused) };
    macro_rules! any {
        ($($type:ty),*) => { [$(shapes::text::<$type>(text)?.is_some()),*] };
    }
    let found = any!(Duration, Bytes, Cpu, Mode);
    let is_read = found.contains(&true) || text.parse::<Pruning>().is_ok();
    Ok(if is_read { Verdict::Read } else { Verdict::Refused })
}
