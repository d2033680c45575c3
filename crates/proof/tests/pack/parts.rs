//! A pack as an attacker sees it: cut up, changed, put together again, with a right checksum.

use stele_model::Digest;

/// The sections of a pack, each item on its own.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    /// Fleet, scope, from, to.
    pub(crate) texts: Vec<Vec<u8>>,
    pub(crate) first: u64,
    pub(crate) checkpoints: Vec<Vec<u8>>,
    /// Seq, leaf, payload.
    pub(crate) keys: Vec<(u64, Vec<u8>, Vec<u8>)>,
    pub(crate) leaves: Vec<Vec<u8>>,
    pub(crate) payloads: Vec<(u64, Vec<u8>)>,
    pub(crate) hashes: Vec<Vec<u8>>,
    pub(crate) report: Vec<u8>,
    /// Where each section ends.
    pub(crate) ends: Vec<(&'static str, usize)>,
}

struct Cut<'a>(&'a [u8], usize);

impl Cut<'_> {
    fn take(&mut self, count: usize) -> Vec<u8> {
        self.1 += count;
        self.0[self.1 - count..self.1].to_vec()
    }
    fn count(&mut self) -> usize {
        u32::from_be_bytes(self.take(4).try_into().unwrap()) as usize
    }
    fn seq(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().unwrap())
    }
    fn blob(&mut self) -> Vec<u8> {
        let count = self.count();
        self.take(count)
    }
    fn several<T>(&mut self, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.count()).map(|_| item(self)).collect()
    }
}

impl Parts {
    pub(crate) fn of(pack: &[u8]) -> Self {
        let mut cut = Cut(pack, 5);
        let mut ends = Vec::new();
        let texts = (0..4).map(|_| cut.blob()).collect();
        let (first, count) = (cut.seq(), cut.count());
        ends.push(("head", cut.1));
        let checkpoints = cut.several(Cut::blob);
        ends.push(("checkpoints", cut.1));
        let keys = cut.several(|cut| (cut.seq(), cut.blob(), cut.blob()));
        ends.push(("keys", cut.1));
        let leaves = (0..count).map(|_| cut.blob()).collect();
        ends.push(("leaves", cut.1));
        let payloads = cut.several(|cut| (cut.seq(), cut.blob()));
        ends.push(("payloads", cut.1));
        let hashes = cut.several(|cut| cut.take(32));
        ends.push(("hashes", cut.1));
        let report = cut.blob();
        ends.push(("report", cut.1));
        ends.push(("checksum", pack.len()));
        Self { texts, first, checkpoints, keys, leaves, payloads, hashes, report, ends }
    }

    /// The section a byte is in.
    pub(crate) fn section(&self, at: usize) -> &'static str {
        self.ends.iter().find(|(_, end)| at < *end).unwrap().0
    }

    pub(crate) fn pack(&self) -> Vec<u8> {
        let blob = |out: &mut Vec<u8>, bytes: &[u8]| {
            out.extend((bytes.len() as u32).to_be_bytes());
            out.extend(bytes);
        };
        let count = |out: &mut Vec<u8>, count: usize| out.extend((count as u32).to_be_bytes());
        let mut out = b"STPK\x01".to_vec();
        self.texts.iter().for_each(|text| blob(&mut out, text));
        out.extend(self.first.to_be_bytes());
        count(&mut out, self.leaves.len());
        count(&mut out, self.checkpoints.len());
        self.checkpoints.iter().for_each(|note| blob(&mut out, note));
        count(&mut out, self.keys.len());
        for (seq, leaf, payload) in &self.keys {
            out.extend(seq.to_be_bytes());
            blob(&mut out, leaf);
            blob(&mut out, payload);
        }
        self.leaves.iter().for_each(|leaf| blob(&mut out, leaf));
        count(&mut out, self.payloads.len());
        for (seq, payload) in &self.payloads {
            out.extend(seq.to_be_bytes());
            blob(&mut out, payload);
        }
        count(&mut out, self.hashes.len());
        self.hashes.iter().for_each(|hash| out.extend(hash));
        blob(&mut out, &self.report);
        sealed(out)
    }
}

/// With the checksum of what it is now.
pub(crate) fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    let checksum = Digest::of(&[&body]);
    body.extend(checksum.0);
    body
}

/// The pack with a right checksum instead of its own.
pub(crate) fn resealed(pack: &[u8]) -> Vec<u8> {
    sealed(pack[..pack.len() - 32].to_vec())
}
