//! Changing JSON as JSON, so that most of it is still what a decoder reads on with.

use serde_json::{Map, Value, json};

use super::{NUMBERS, WORDS, of_text};
use crate::rng::Rng;

/// Changes one value somewhere inside. What is no JSON is changed as text.
pub(super) fn change(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let Ok(mut value) = serde_json::from_slice(input) else { return of_text(input, other, rng) };
    let other = serde_json::from_slice(other).unwrap_or_default();
    let mut steps = rng.below(count(&value));
    change_at(&mut value, &mut steps, &other, rng);
    *input = value.to_string().into_bytes();
}

/// Changes the JSON that is signed, inside the text that carries it.
pub(super) fn change_signed(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let body = |value: &Value| value.get("body").and_then(Value::as_str).map(str::to_owned);
    let Ok(mut value) = serde_json::from_slice::<Value>(input) else { return of_text(input, other, rng) };
    let Some(text) = body(&value) else { return change(input, other, rng) };
    let other =
        serde_json::from_slice::<Value>(other).ok().and_then(|other| body(&other)).unwrap_or_default();
    let mut bytes = text.into_bytes();
    change(&mut bytes, other.as_bytes(), rng);
    value["body"] = Value::String(String::from_utf8_lossy(&bytes).into_owned());
    *input = value.to_string().into_bytes();
}

/// How many values there are.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

fn change_at(value: &mut Value, steps: &mut usize, other: &Value, rng: &mut Rng) {
    if *steps == 0 {
        *steps = usize::MAX;
        return become_another(value, other, rng);
    }
    *steps -= 1;
    let inside: Box<dyn Iterator<Item = &mut Value>> = match value {
        Value::Array(items) => Box::new(items.iter_mut()),
        Value::Object(members) => Box::new(members.values_mut()),
        _ => return,
    };
    for value in inside {
        change_at(value, steps, other, rng);
        if *steps == usize::MAX {
            return;
        }
    }
}

fn become_another(value: &mut Value, other: &Value, rng: &mut Rng) {
    match (rng.below(10), &mut *value) {
        (0, Value::Object(members)) => {
            let key = members.keys().nth(rng.below(members.len())).cloned();
            key.and_then(|key| members.remove(&key));
        }
        (1, Value::Object(members)) => {
            let key = members.keys().nth(rng.below(members.len())).cloned();
            let (key, member) = key.and_then(|key| members.remove_entry(&key)).unwrap_or_default();
            members.insert(format!("{key}{}", WORDS[rng.below(WORDS.len())]), member);
        }
        (0, Value::Array(items)) if !items.is_empty() => {
            items.remove(rng.below(items.len()));
        }
        (1, Value::Array(items)) if !items.is_empty() => {
            let item = items[rng.below(items.len())].clone();
            items.push(item);
        }
        (0..=4, Value::String(text)) => {
            let mut bytes = std::mem::take(text).into_bytes();
            of_text(&mut bytes, &[], rng);
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        (0..=4, Value::Number(number)) => {
            let new = NUMBERS[rng.below(NUMBERS.len())];
            *number = match rng.below(4) {
                0 => number.as_u64().unwrap_or(0).wrapping_add(1).into(),
                1 => new.cast_signed().into(),
                _ => new.into(),
            };
        }
        (5, _) => *value = Value::Null,
        (6, _) => *value = json!([value.take()]),
        (7, _) => {
            let mut members = Map::new();
            members.insert(WORDS[rng.below(WORDS.len())].to_owned(), value.take());
            *value = Value::Object(members);
        }
        (8, _) => *value = json!(NUMBERS[rng.below(NUMBERS.len())]),
        _ => {
            // Some part of another input.
            let mut part = other;
            while let Some(inside) = step_into(part, rng) {
                part = inside;
                if rng.once_in(3) {
                    break;
                }
            }
            *value = part.clone();
        }
    }
}

fn step_into<'a>(value: &'a Value, rng: &mut Rng) -> Option<&'a Value> {
    match value {
        Value::Array(items) => rng.pick(items),
        Value::Object(members) => members.values().nth(rng.below(members.len())),
        _ => None,
    }
}
