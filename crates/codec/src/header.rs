//! The frozen layout of a record's header.

use stele_model::{Decision, Digest, Header, Headline, Idempotency, Links, Sealed, Time, Value};

use crate::bytes::{Reader, Writer};
use crate::error::DecodeError;

/// Version of the layout below.
pub(crate) const HEADER_FORMAT: u8 = 1;

const WHAT: &str = "record header";

/// Most headers take fewer bytes.
const BYTES_EXPECTED: usize = 512;

const VALUE_PLAIN: u8 = 1;
const VALUE_SEALED: u8 = 2;

/// The leaf: header, then the payload's hash, which the header ends with.
pub(crate) fn encode(header: &Header) -> Vec<u8> {
    let mut out = Writer::with_capacity(BYTES_EXPECTED);
    out.u8(HEADER_FORMAT);
    out.u64(header.seq);
    out.u64(header.time.0);
    out.u64(header.decision.first);
    out.u32(header.decision.count);
    out.text(header.principal.as_str());
    out.option(header.cause, Writer::u64);
    out.option(header.trace.as_deref(), Writer::text);
    out.option(header.idempotency.as_ref(), |out, idempotency| {
        out.text(&idempotency.key);
        out.raw(&idempotency.request.0);
    });
    out.text(&header.kind);
    out.u16(header.schema);
    out.u8(header.codec);
    out.u16(u16::try_from(header.scopes.len()).unwrap_or(u16::MAX));
    for scope in &header.scopes {
        out.text(scope);
    }
    out.option(header.reason.as_ref(), |out, reason| match reason {
        Value::Plain(text) => {
            out.u8(VALUE_PLAIN);
            out.text(text);
        }
        Value::Sealed(sealed) => {
            out.u8(VALUE_SEALED);
            out.text(&sealed.subject);
            out.u32(sealed.key_version);
            out.text(&sealed.nonce);
            out.text(&sealed.ciphertext);
        }
    });
    let links = &header.links;
    out.option(links.ticket.as_deref(), Writer::text);
    out.option(links.commit.as_deref(), Writer::text);
    out.option(links.ci_run.as_deref(), Writer::text);
    out.option(links.on_behalf_of.as_ref(), |out, principal| out.text(principal.as_str()));
    out.raw(&header.payload.0);
    out.0
}

fn begin(leaf: &[u8]) -> Result<Reader<'_>, DecodeError> {
    let mut from = Reader::new(WHAT, leaf);
    let format = from.u8()?;
    if format != HEADER_FORMAT {
        return Err(DecodeError::Format { what: WHAT, found: format, known: HEADER_FORMAT });
    }
    Ok(from)
}

/// Reads what a record is about, and no more than that.
pub(crate) fn headline(leaf: &[u8]) -> Result<Headline<'_>, DecodeError> {
    let mut from = begin(leaf)?;
    let (seq, time) = (from.u64()?, Time(from.u64()?));
    let _decision: (u64, u32) = (from.u64()?, from.u32()?);
    let _principal = from.blob()?;
    let _cause = from.option(Reader::u64)?;
    let _trace = from.option(Reader::blob)?;
    let _idempotency: Option<(_, [u8; 32])> = from.option(|from| Ok((from.blob()?, from.array()?)))?;
    let kind = from.str()?;
    let _schema_and_codec = (from.u16()?, from.u8()?);
    Ok(Headline { seq, time, kind, scopes: scopes(&mut from, |scope| scope)? })
}

fn scopes<'a, T>(from: &mut Reader<'a>, of: impl Fn(&'a str) -> T) -> Result<Vec<T>, DecodeError> {
    let count = usize::from(from.u16()?);
    // As many as there can be: each has its length before it.
    let mut scopes = Vec::with_capacity(count.min(from.left() / size_of::<u32>()));
    for _ in 0..count {
        scopes.push(of(from.str()?));
    }
    Ok(scopes)
}

pub(crate) fn decode(leaf: &[u8]) -> Result<Header, DecodeError> {
    let mut from = begin(leaf)?;
    let header = Header {
        seq: from.u64()?,
        time: Time(from.u64()?),
        decision: Decision { first: from.u64()?, count: from.u32()? },
        principal: from.parsed()?,
        cause: from.option(Reader::u64)?,
        trace: from.option(Reader::text)?,
        idempotency: from
            .option(|from| Ok(Idempotency { key: from.text()?, request: Digest(from.array()?) }))?,
        kind: from.text()?,
        schema: from.u16()?,
        codec: from.u8()?,
        scopes: scopes(&mut from, str::to_owned)?,
        reason: from.option(|from| match from.u8()? {
            VALUE_PLAIN => Ok(Value::Plain(from.text()?)),
            VALUE_SEALED => Ok(Value::Sealed(Sealed {
                subject: from.text()?,
                key_version: from.u32()?,
                nonce: from.text()?,
                ciphertext: from.text()?,
            })),
            other => Err(from.malformed(format!("{other} is no kind of value"))),
        })?,
        links: Links {
            ticket: from.option(Reader::text)?,
            commit: from.option(Reader::text)?,
            ci_run: from.option(Reader::text)?,
            on_behalf_of: from.option(Reader::parsed)?,
        },
        payload: Digest(from.array()?),
    };
    from.end()?;
    Ok(header)
}
