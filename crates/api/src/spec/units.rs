//! Quantities as people write them: `5s`, `64MiB`, `0.5`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text_or_map;
use crate::limits::{CPU_MILLIS_MAX, DURATION_MS_MAX};

/// A duration in milliseconds. Written `500ms`, `5s`, `2m`, `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub u64);

/// An amount of memory in bytes. Written `64MiB`, `1GiB`, `500MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// CPUs in thousandths. Written `0.5`, `2` or `500m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpu(pub u64);

/// Permission bits. Written `"0644"`, in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const BYTE_UNITS: [(&str, u64); 11] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("kB", 1000),
    ("kiB", 1 << 10),
    ("B", 1),
];

/// Splits `64MiB` into `64` and `MiB`.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || {
            format!("{text:?} is not a duration: write a number and a unit, such as 500ms, 5s, 2m or 1h30m")
        };
        let (mut rest, mut total, mut previous) = (text.trim(), 0_u64, u64::MAX);
        if rest.is_empty() {
            return Err(error());
        }
        while !rest.is_empty() {
            let (digits, tail) = split_unit(rest);
            let unit_end = tail.find(|character: char| character.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let (_, millis) = DURATION_UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
            let count: u64 = digits.parse().map_err(|_| error())?;
            if millis >= previous {
                return Err(error());
            }
            previous = millis;
            total = count.checked_mul(millis).and_then(|part| total.checked_add(part)).ok_or_else(error)?;
            rest = tail;
        }
        if total > DURATION_MS_MAX {
            return Err(format!("{text:?} is longer than {}, the longest duration", Self(DURATION_MS_MAX)));
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, millis) in DURATION_UNITS {
            let count = rest / millis;
            rest %= millis;
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || {
            format!(
                "{text:?} is not an amount of memory: write a whole number and a unit, such as 64MiB or 1GiB"
            )
        };
        let (digits, unit) = split_unit(text.trim());
        if let Some((meant, _)) = BYTE_UNITS
            .into_iter()
            .find(|(name, _)| *name != unit.trim() && name.eq_ignore_ascii_case(unit.trim()))
            && BYTE_UNITS.iter().all(|(name, _)| *name != unit.trim())
        {
            return Err(format!("{text:?} is not an amount of memory; did you mean {digits}{meant}?"));
        }
        let (_, size) = BYTE_UNITS.into_iter().find(|(name, _)| *name == unit.trim()).ok_or_else(error)?;
        let count: u64 = digits.parse().map_err(|_| error())?;
        count.checked_mul(size).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = BYTE_UNITS.into_iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size));
        let (unit, size) = exact.unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / size)
    }
}

impl FromStr for Cpu {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error =
            || format!("{text:?} is not a number of CPUs: write 0.5, 2 or 500m, in steps of a thousandth");
        let text = text.trim();
        let millis = if let Some(millis) = text.strip_suffix('m') {
            millis.parse().map_err(|_| error())?
        } else {
            // Read as decimal digits, not as a float: 0.1 must be exactly 100.
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            if fraction.len() > 3 || !is_digits(fraction) || !is_digits(whole) {
                return Err(error());
            }
            let whole: u64 = whole.parse().map_err(|_| error())?;
            let fraction: u64 = format!("{fraction:0<3}").parse().map_err(|_| error())?;
            whole.checked_mul(1000).ok_or_else(error)? + fraction
        };
        if millis == 0 || millis > CPU_MILLIS_MAX {
            return Err(format!("{text:?} CPUs cannot be: at least 0.001, at most {}", Self(CPU_MILLIS_MAX)));
        }
        Ok(Self(millis))
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:03}", self.0 % 1000);
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{}", self.0 / 1000),
            digits => write!(f, "{}.{digits}", self.0 / 1000),
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        u32::from_str_radix(digits, 8)
            .ok()
            .filter(|bits| *bits <= 0o7777)
            .map(Self)
            .ok_or_else(|| format!("{text:?} are not permission bits: write them in octal, such as \"0644\""))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

macro_rules! written_as_text {
    ($type:ident, $schema:tt) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                text_or_map::text(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

written_as_text!(Duration, {
    "description": "A duration, such as 500ms, 5s, 2m or 1h30m.",
    "type": "string",
    "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$"
});
written_as_text!(Bytes, {
    "description": "An amount of memory, such as 64MiB or 1GiB.",
    "type": "string",
    "pattern": "^[0-9]+([kKMGT]i?)?B$"
});
written_as_text!(Cpu, {
    "description": "CPUs, such as 0.5, 2 or 500m.",
    "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": "^[0-9]+([.][0-9]{1,3}|m)?$"}]
});
written_as_text!(Mode, {
    "description": "Permission bits in octal, such as \"0644\".",
    "type": ["string", "integer"],
    "pattern": "^(0o?)?[0-7]{3,4}$"
});

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn quantities_are_read_back_from_their_text() {
        for text in ["0s", "500ms", "5s", "2m", "1h30m", "1m1s1ms"] {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), text);
        }
        for text in ["64MiB", "1GiB", "500MB", "7B", "1KiB", "0B"] {
            assert_eq!(text.parse::<Bytes>().unwrap().to_string(), text);
        }
        for (text, millis) in [("0.5", 500), ("2", 2000), ("0.1", 100), ("1.25", 1250)] {
            assert_eq!(text.parse::<Cpu>().unwrap(), Cpu(millis));
            assert_eq!(Cpu(millis).to_string(), text);
        }
        assert_eq!("250m".parse::<Cpu>().unwrap(), Cpu(250));
        assert_eq!("0644".parse::<Mode>().unwrap().to_string(), "0644");
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "5", "s", "5 s", "1m1h", "5s5s", "-1s", "25h", "99999999999999999999s"] {
            assert!(bad.parse::<Duration>().is_err(), "{bad:?}");
        }
        for bad in ["", "64", "MiB", "1.5GiB", "64mib", "99999999999TiB"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad:?}");
        }
        for bad in ["", "0", "-1", "0.0001", "1e3", ".5", "9999999"] {
            assert!(bad.parse::<Cpu>().is_err(), "{bad:?}");
        }
        for bad in ["", "9", "77777", "rw"] {
            assert!(bad.parse::<Mode>().is_err(), "{bad:?}");
        }
    }
}
