//! Changing good inputs into others. Random bytes die at the first magic number; what a decoder stumbles over
//! is nearly right.

mod json;

use crate::limits::{CHANGES_MAX, INPUT_BYTES_MAX};
use crate::rng::Rng;

/// What inputs look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Fields laid out by hand, bincode or protobuf.
    Bytes,
    /// Lines or words.
    Text,
    /// JSON.
    Json,
    /// JSON that carries a signed body as text.
    Signed,
}

/// Numbers at which counts and lengths go wrong.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x1_0000,
    0x00ff_ffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_fffe,
    0xffff_ffff_ffff_ffff,
];

/// Words that texts are parsed by.
const WORDS: [&str; 48] = [
    "null",
    "true",
    "-1",
    "0",
    "1e999",
    "-0.0",
    "18446744073709551616",
    "99999999999999999999999999",
    "NaN",
    "\"\"",
    "[]",
    "{}",
    "[[[[[[[[[[[[[[[[",
    "{\"a\":",
    "\\u0000",
    "\\ud800",
    "\u{0}",
    "\u{feff}",
    "é",
    "🦀",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    " ",
    ",",
    ":",
    "@",
    "/",
    ".",
    "-",
    "+",
    "=",
    "%",
    "#",
    "&a",
    "*a",
    "<<: *a",
    "!!binary ",
    "---\n",
    "? ",
    "| \n",
    "seq:",
    "node:",
    "region:eu",
    "2h ago",
    "sha256:",
    "\u{2014} ",
];

/// The input of an iteration: one of the good ones, changed a few times.
pub(crate) fn input(form: Form, good: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut input = rng.pick(good).cloned().unwrap_or_default();
    let changes = 1 + rng.next_u64() % CHANGES_MAX;
    for _ in 0..changes {
        let other = rng.pick(good).map_or(&[][..], Vec::as_slice);
        match form {
            Form::Bytes => of_bytes(&mut input, other, rng),
            Form::Json if !rng.once_in(4) => json::change(&mut input, other, rng),
            Form::Signed if !rng.once_in(4) => json::change_signed(&mut input, other, rng),
            Form::Text | Form::Json | Form::Signed => of_text(&mut input, other, rng),
        }
        input.truncate(INPUT_BYTES_MAX);
        if rng.once_in(3) {
            break;
        }
    }
    input
}

/// A range of what is there.
fn range(length: usize, rng: &mut Rng) -> std::ops::Range<usize> {
    let start = rng.below(length + 1);
    let left = length - start;
    let most = if rng.once_in(8) { left } else { left.min(32) };
    start..start + rng.below(most + 1)
}

fn of_bytes(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let length = input.len();
    match rng.below(14) {
        0 | 1 if length > 0 => input[rng.below(length)] ^= 1 << rng.below(8),
        2 if length > 0 => input[rng.below(length)] = rng.next_u64() as u8,
        3 if length > 0 => input[rng.below(length)] = NUMBERS[rng.below(6)] as u8,
        4 => input.truncate(rng.below(length + 1)),
        5 => drop(input.drain(range(length, rng))),
        6 => {
            let copied = input[range(length, rng)].to_vec();
            insert(input, &copied, rng);
        }
        7 => {
            let copied = other[range(other.len(), rng)].to_vec();
            insert(input, &copied, rng);
        }
        8 => {
            // One's head and the other's tail.
            let at = rng.below(length.min(other.len()) + 1);
            input.truncate(at);
            input.extend_from_slice(&other[at..]);
        }
        9 | 10 => number(input, rng),
        11 => varint(input, rng),
        12 => {
            let copied = input[range(length, rng)].to_vec();
            let at = rng.below(length + 1);
            let end = (at + copied.len()).min(length);
            input[at..end].copy_from_slice(&copied[..end - at]);
        }
        _ => {
            let random: Vec<u8> = (0..=rng.below(8)).map(|_| rng.next_u64() as u8).collect();
            if rng.once_in(2) { input.extend_from_slice(&random) } else { insert(input, &random, rng) }
        }
    }
}

fn insert(input: &mut Vec<u8>, bytes: &[u8], rng: &mut Rng) {
    let at = rng.below(input.len() + 1);
    input.splice(at..at, bytes.iter().copied());
}

/// Puts another number where one may be, big-endian: counts and lengths in hand-laid formats.
fn number(input: &mut [u8], rng: &mut Rng) {
    let width = [2, 4, 8][rng.below(3)];
    if input.len() < width {
        return;
    }
    let at = rng.below(input.len() - width + 1);
    let field = &mut input[at..at + width];
    let was = field.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let new = match rng.below(4) {
        0 => was.wrapping_add(1),
        1 => was.wrapping_sub(1),
        _ => NUMBERS[rng.below(NUMBERS.len())],
    };
    field.copy_from_slice(&new.to_be_bytes()[8 - width..]);
}

/// Puts a long number where a short one may be: bincode's lengths, or protobuf's.
fn varint(input: &mut Vec<u8>, rng: &mut Rng) {
    let value = NUMBERS[rng.below(NUMBERS.len())].to_le_bytes();
    let bytes = match rng.below(4) {
        0 => [&[251][..], &value[..2]].concat(),
        1 => [&[252][..], &value[..4]].concat(),
        2 => [&[253][..], &value[..8]].concat(),
        _ => {
            let mut bytes = vec![0xff; rng.below(10)];
            bytes.push(rng.next_u64() as u8 & 0x7f);
            bytes
        }
    };
    let at = rng.below(input.len() + 1);
    let end = (at + 1).min(input.len());
    input.splice(at..end, bytes);
}

fn of_text(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let length = input.len();
    match rng.below(8) {
        0 | 1 => {
            let word = WORDS[rng.below(WORDS.len())];
            insert(input, word.as_bytes(), rng);
        }
        2 => {
            let range = range(length, rng);
            let word = WORDS[rng.below(WORDS.len())];
            input.splice(range, word.bytes());
        }
        3 => {
            // Digits that stand somewhere become others.
            let at = rng.below(length + 1);
            let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|found| at + found) else {
                return;
            };
            let digits = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            let number = NUMBERS[rng.below(NUMBERS.len())].to_string();
            input.splice(start..start + digits, number.into_bytes());
        }
        4 => {
            // A line or word more often than it should be.
            let copied = input[range(length, rng)].to_vec();
            let times = 1 + rng.below(64);
            insert(input, &copied.repeat(times), rng);
        }
        5 => {
            let mut lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
            let (one, two) = (rng.below(lines.len()), rng.below(lines.len()));
            lines.swap(one, two);
            *input = lines.join(&b'\n');
        }
        _ => of_bytes(input, other, rng),
    }
}
