//! The bytes of a pack: read into pieces that remember where they stand, and written.

use stele_model::{Digest, Seq};

use super::error::{PackError, Section};
use crate::limits::{ENTRY_BYTES_MAX, PACK_CHECKPOINTS_MAX, PACK_RECORDS_MAX};

const MAGIC: &[u8; 4] = b"STPK";
/// Version of the layout below, and of the report.
const FORMAT: u8 = 1;
/// SHA-256 over all before it ends a pack.
const CHECKSUM_BYTES: usize = 32;

/// Some bytes of the file, and where they begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) at: usize,
    pub(super) bytes: &'a [u8],
}

/// A record outside the range.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyRecord<'a> {
    pub(super) seq: Seq,
    /// Where its seq stands.
    pub(super) at: usize,
    pub(super) leaf: Piece<'a>,
    pub(super) payload: Piece<'a>,
}

/// A pack, cut into its parts.
#[derive(Clone, Debug)]
pub(super) struct Layout<'a> {
    pub(super) fleet: &'a str,
    pub(super) scope: &'a str,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) first: Seq,
    pub(super) last: Seq,
    pub(super) checkpoints: Vec<Piece<'a>>,
    pub(super) keys: Vec<KeyRecord<'a>>,
    pub(super) leaves: Vec<Piece<'a>>,
    /// By seq, and where that stands.
    pub(super) payloads: Vec<(Seq, usize, Piece<'a>)>,
    pub(super) hashes: Vec<(usize, Digest)>,
    /// Where the hashes end.
    pub(super) hashes_end: usize,
    pub(super) report: Piece<'a>,
    pub(super) checksum: Piece<'a>,
}

/// Reads big-endian integers and length-prefixed bytes, and knows where it is.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    section: Section,
}

impl<'a> Reader<'a> {
    fn error(&self, at: usize, why: impl Into<String>) -> PackError {
        PackError::new(self.section, at, why)
    }

    fn take(&mut self, count: usize) -> Result<Piece<'a>, PackError> {
        let at = self.at;
        let end = at.checked_add(count);
        let Some((end, bytes)) = end.and_then(|end| Some((end, self.bytes.get(at..end)?))) else {
            let left = self.bytes.len() - at;
            return Err(self.error(at, format!("{count} bytes should follow, and {left} are left")));
        };
        self.at = end;
        Ok(Piece { at, bytes })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PackError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?.bytes);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, PackError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, PackError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn blob(&mut self) -> Result<Piece<'a>, PackError> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    fn text(&mut self) -> Result<&'a str, PackError> {
        let piece = self.blob()?;
        std::str::from_utf8(piece.bytes).map_err(|_| self.error(piece.at, "the text is not UTF-8"))
    }

    /// How many items follow, of which none has fewer than `bytes_min` bytes.
    fn count(&mut self, bytes_min: usize, limit: usize) -> Result<usize, PackError> {
        let at = self.at;
        let count = self.u32()? as usize;
        let most = limit.min((self.bytes.len() - self.at) / bytes_min);
        if count > most {
            return Err(self.error(at, format!("{count} items are announced, where at most {most} can be")));
        }
        Ok(count)
    }
}

impl<'a> Layout<'a> {
    pub(super) fn read(pack: &'a [u8]) -> Result<Self, PackError> {
        let body = pack.len().saturating_sub(CHECKSUM_BYTES);
        let (bytes, checksum) = pack.split_at(body);
        let checksum = Piece { at: body, bytes: checksum };
        let mut from = Reader { bytes, at: 0, section: Section::Head };
        if from.take(MAGIC.len())?.bytes != MAGIC {
            return Err(from.error(0, "this is no evidence pack: it does not begin with STPK"));
        }
        let [format] = from.array()?;
        if format != FORMAT {
            let why = format!("the pack has format {format}, this program reads format {FORMAT}: upgrade it");
            return Err(from.error(MAGIC.len(), why));
        }
        let (fleet, scope) = (from.text()?, from.text()?);
        let (since, until) = (from.text()?, from.text()?);
        let range_at = from.at;
        let first = from.u64()?;
        let count = from.count(4, PACK_RECORDS_MAX)?;
        let last = first.checked_add(count as u64).and_then(|end| end.checked_sub(1));
        let Some(last) = last.filter(|_| first >= 1 && count >= 1) else {
            return Err(from.error(range_at, "the range holds no record"));
        };

        from.section = Section::Checkpoints;
        let checkpoints = from.count(4, PACK_CHECKPOINTS_MAX)?;
        let checkpoints = (0..checkpoints).map(|_| from.blob()).collect::<Result<_, _>>()?;

        from.section = Section::Keys;
        let keys = from.count(16, PACK_RECORDS_MAX)?;
        let keys = (0..keys).map(|_| {
            let at = from.at;
            Ok(KeyRecord { at, seq: from.u64()?, leaf: from.blob()?, payload: from.blob()? })
        });
        let keys = keys.collect::<Result<_, PackError>>()?;

        from.section = Section::Leaves;
        let leaves = (0..count).map(|_| from.blob()).collect::<Result<_, _>>()?;

        from.section = Section::Payloads;
        let payloads = from.count(12, PACK_RECORDS_MAX)?;
        let payloads = (0..payloads).map(|_| {
            let at = from.at;
            Ok((from.u64()?, at, from.blob()?))
        });
        let payloads = payloads.collect::<Result<_, PackError>>()?;

        from.section = Section::Hashes;
        let hashes = from.count(32, PACK_RECORDS_MAX)?;
        let hashes = (0..hashes).map(|_| Ok((from.at, Digest(from.array()?))));
        let hashes = hashes.collect::<Result<_, PackError>>()?;
        let hashes_end = from.at;

        from.section = Section::Report;
        let report = from.blob()?;
        if from.at != bytes.len() {
            let left = bytes.len() - from.at;
            return Err(PackError::new(
                Section::Checksum,
                from.at,
                format!("{left} bytes too many follow the report"),
            ));
        }
        Ok(Self {
            fleet,
            scope,
            from: since,
            to: until,
            first,
            last,
            checkpoints,
            keys,
            leaves,
            payloads,
            hashes,
            hashes_end,
            report,
            checksum,
        })
    }

    /// Whether the checksum is that of all before it.
    pub(super) fn is_whole(&self, pack: &[u8]) -> bool {
        pack.get(..self.checksum.at).is_some_and(|body| Digest::of(&[body]).0 == self.checksum.bytes)
    }
}

/// Writes what [`Layout::read`] reads.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn head(
        fleet: &str,
        scope: &str,
        (from, to): (&str, &str),
        (first, count): (Seq, usize),
    ) -> Self {
        let mut out = Self(MAGIC.to_vec());
        out.0.push(FORMAT);
        for text in [fleet, scope, from, to] {
            out.blob(text.as_bytes());
        }
        out.u64(first);
        out.count(count);
        out
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Every count and length is bounded far below this before it comes here.
    pub(super) fn count(&mut self, count: usize) {
        self.0.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    }

    pub(super) fn blob(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn hash(&mut self, hash: Digest) {
        self.0.extend_from_slice(&hash.0);
    }

    /// Ends the pack.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let checksum = Digest::of(&[&self.0]);
        self.hash(checksum);
        self.0
    }
}

/// No leaf is larger than an entry of a bundle.
pub(super) fn check_leaf(section: Section, seq: Seq, leaf: Piece<'_>) -> Result<(), PackError> {
    if leaf.bytes.len() > ENTRY_BYTES_MAX {
        let why = format!("the leaf has {} bytes; the limit is {ENTRY_BYTES_MAX}", leaf.bytes.len());
        return Err(PackError::of(section, seq, leaf.at, why));
    }
    Ok(())
}
